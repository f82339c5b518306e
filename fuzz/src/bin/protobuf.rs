//! Protobuf bodies in their envelope, and messages of every kind without one.
#![no_main]

use std::sync::LazyLock;

use api::protobuf;

static MESSAGES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut names: Vec<String> =
        api::builtin::schemas().definitions().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = protobuf::decode(bytes) {
        let _ = protobuf::encode(&decoded.value);
    }
    let Some(([high, low], message)) = bytes.split_first_chunk() else { return };
    let name = &MESSAGES[usize::from(u16::from_be_bytes([*high, *low])) % MESSAGES.len()];
    let Ok(value) = protobuf::decode_message(name, message) else { return };
    if let Ok(written) = protobuf::encode_raw(name, &value) {
        let again = protobuf::decode_message(name, &written).expect("what was encoded");
        assert_eq!(protobuf::encode_raw(name, &again).expect("what was decoded"), written, "{name}");
    }
});
