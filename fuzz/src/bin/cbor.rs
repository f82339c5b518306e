//! CBOR: what is read is written as CBOR, and read again as the same.
#![no_main]

use apimachinery::cbor;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = cbor::decode(bytes) else { return };
    let written = cbor::encode(&value);
    assert_eq!(cbor::decode(&written).expect("what was written"), value);
});
