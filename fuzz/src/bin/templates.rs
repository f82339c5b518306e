//! Go templates: the first line is the data in JSON, the rest the template.
#![no_main]

use apimachinery::Value;
use gotemplate::{Datum, NoFunctions, OUTPUT_BYTES_MAX, Template};
use pintle_fuzz::halves;

/// One text may go over the limit, which is then seen at the next step.
const LAST_TEXT_BYTES_MAX: usize = 2 * OUTPUT_BYTES_MAX;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((data, text)) = halves(input) else { return };
    let (Ok(data), Ok(text)) = (Value::parse(data), std::str::from_utf8(text)) else { return };
    let Ok(template) = Template::parse("fuzzed", text, &NoFunctions) else { return };
    if let Ok(rendered) = template.render(Datum::from(&data), &NoFunctions) {
        assert!(rendered.len() <= OUTPUT_BYTES_MAX + LAST_TEXT_BYTES_MAX, "{} bytes", rendered.len());
    }
});
