//! Label and field selectors: what is read is written, and read again as the same.
#![no_main]

use apimachinery::{FieldSelector, Selector};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(selector) = Selector::parse(text) {
        let shown = selector.to_string();
        assert_eq!(Selector::parse(&shown).expect("what was shown").to_string(), shown);
    }
    let _ = FieldSelector::parse(text);
});
