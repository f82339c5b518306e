//! Go's regular expressions, of which the first line is one: translated, and asked about the rest.
#![no_main]

use pintle_fuzz::halves;
use structural_schema::pattern::Pattern;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((expression, subject)) = halves(input) else { return };
    let (Ok(expression), Ok(subject)) = (std::str::from_utf8(expression), std::str::from_utf8(subject))
    else {
        return;
    };
    let pattern = Pattern::shared(expression);
    assert_eq!(
        pattern.is_match(subject).is_err(),
        pattern.error().is_some(),
        "a good expression has an answer"
    );
});
