//! Go's regular expressions, of which the first line is one: translated, and asked about the rest.
#![no_main]

use pintle_fuzz::halves;
use structural_schema::pattern::{self, Pattern};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((expression, subject)) = halves(input) else { return };
    let (Ok(expression), Ok(subject)) = (std::str::from_utf8(expression), std::str::from_utf8(subject)) else {
        return;
    };
    let is_translated = pattern::translate(expression).is_ok();
    let pattern = Pattern::shared(expression);
    assert!(is_translated || pattern.error().is_some(), "what cannot be translated matches nothing");
    let _ = pattern.is_match(subject);
});
