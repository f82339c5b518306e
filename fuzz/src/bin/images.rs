//! Names, manifests and configurations of images: the first line is a name, the rest a document.
#![no_main]

use image::manifest::Document;
use image::{ConfigFile, Reference};
use pintle_fuzz::halves;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((name, document)) = halves(input) else { return };
    if let Ok(name) = std::str::from_utf8(name)
        && let Ok(reference) = name.parse::<Reference>()
    {
        let written = reference.to_string();
        assert_eq!(written.parse::<Reference>().map(|again| again.to_string()).ok(), Some(written));
    }
    let _ = Document::decode(document, "");
    let _ = ConfigFile::decode(document);
});
