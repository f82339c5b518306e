//! YAML: what is read is written as YAML, and read again as the same.
#![no_main]

use apimachinery::Value;

libfuzzer_sys::fuzz_target!(|yaml: &str| {
    let Ok(value) = Value::parse_yaml(yaml) else { return };
    let written = value.to_yaml();
    assert_eq!(Value::parse_yaml(&written).expect("what was written"), value, "{written}");
});
