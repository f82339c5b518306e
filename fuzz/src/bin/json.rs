//! JSON values: what is read is what `serde_json` reads, is written, and read again as the same.
#![no_main]

use apimachinery::object::FieldPaths;
use apimachinery::{Object, Value};
use bytes::Bytes;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    let _ = Value::parse_strict(json);
    let (read, other) = (Value::parse(json), serde_json::from_slice::<Value>(json));
    assert_eq!(read.as_ref().ok(), other.as_ref().ok(), "both readers agree");
    let Ok(value) = read else { return };
    let written = value.to_json();
    assert_eq!(Value::parse(&written).expect("what was written"), value);
    let _ = Object::indexed(Bytes::copy_from_slice(json), 1, &FieldPaths::NONE);
    let _ = Object::from_value(&value, 1, &["metadata.name", "spec.nodeName"]);
});
