//! JSON values: what is read is written, and read again as the same.
#![no_main]

use apimachinery::object::FieldPaths;
use apimachinery::{Object, Value};
use bytes::Bytes;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    let _ = Value::parse_strict(json);
    let Ok(value) = Value::parse(json) else { return };
    let written = value.to_json();
    assert_eq!(Value::parse(&written).expect("what was written"), value);
    let _ = Object::indexed(Bytes::copy_from_slice(json), 1, &FieldPaths::NONE);
    let _ = Object::from_value(&value, 1, &["metadata.name", "spec.nodeName"]);
});
