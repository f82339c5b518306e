//! Layers: whatever the archive says, nothing appears outside of the folder that it is unpacked into.
#![no_main]

use camino::Utf8Path;
use image::layer::{Limits, unpack};

libfuzzer_sys::fuzz_target!(|archive: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let outside = Utf8Path::from_path(folder.path()).expect("temporary paths are text");
    let root = outside.join("root");
    std::fs::create_dir(&root).expect("a folder");
    let limits = Limits { entries_max: 1_000, bytes_max: 1 << 20 };
    let _ = unpack(archive, &root, &[], &limits);
    let beside: Vec<_> =
        std::fs::read_dir(outside).expect("it is there").flatten().map(|own| own.file_name()).collect();
    assert_eq!(beside, ["root"]);
});
