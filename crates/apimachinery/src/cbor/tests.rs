use super::*;
use crate::json;

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Examples of RFC 8949, appendix A, and what Kubernetes makes of them.
#[test]
fn items_are_read_as_json_would_say_them() {
    for (given, expected) in [
        ("00", json!(0)),
        ("1818", json!(24)),
        ("1b7fffffffffffffff", json!(i64::MAX)),
        ("20", json!(-1)),
        ("3863", json!(-100)),
        ("3b7fffffffffffffff", json!(i64::MIN)),
        ("f90000", json!(0.0)),
        ("f93c00", json!(1.0)),
        ("f97bff", json!(65504.0)),
        ("f90001", json!(5.960464477539063e-8)),
        ("fa47c35000", json!(100_000.0)),
        ("fb3ff199999999999a", json!(1.1)),
        ("f4", json!(false)),
        ("f5", json!(true)),
        ("f6", json!(null)),
        ("6449455446", json!("IETF")),
        ("4449455446", json!("IETF")),
        ("7f657374726561646d696e67ff", json!("streaming")),
        ("5f42 7374 4372 6561 ff", json!("strea")),
        ("83010203", json!([1, 2, 3])),
        ("9f018202039f0405ffff", json!([1, [2, 3], [4, 5]])),
        ("a26161016162820203", json!({"a": 1, "b": [2, 3]})),
        ("bf61610161629f0203ffff", json!({"a": 1, "b": [2, 3]})),
        ("d9d9f7a1416101", json!({"a": 1})),
        ("c074323031332d30332d32315432303a30343a30305a", json!("2013-03-21T20:04:00Z")),
        ("c11a514b67b0", json!("2013-03-21T20:04:00Z")),
        ("c1 1b00000003e4e6b081", json!("2500-01-01T00:00:01Z")),
        ("c1 fb41d452d9ec200000", json!("2013-03-21T20:04:00.5Z")),
        ("d6 43 010203", json!("AQID")),
        ("d5 43 fbffff", json!("-___")),
        ("d7 43 0102ff", json!("0102ff")),
        ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", json!("http://www.example.com")),
    ] {
        assert_eq!(decode(&bytes(given)), Ok(expected), "{given}");
    }
}

#[test]
fn what_is_no_cbor_or_no_json_is_refused() {
    for (given, expected) in [
        ("", "EOF"),
        ("18", "unexpected EOF"),
        ("62 61", "unexpected EOF"),
        ("9bffffffffffffffff", "unexpected EOF"),
        ("bb7fffffffffffffff", "unexpected EOF"),
        ("5f", "unexpected EOF"),
        ("0000", "cbor: 1 bytes of extraneous data starting at index 1"),
        ("1c", "cbor: invalid additional information 28 for type positive integer"),
        ("1f", "cbor: invalid additional information 31 for type positive integer"),
        ("ff", "cbor: unexpected \"break\" code"),
        ("7f 41 61 ff", "cbor: wrong element type byte string for indefinite-length UTF-8 text string"),
        ("62 c328", "cbor: invalid UTF-8 string"),
        ("42 c328", "cbor: invalid UTF-8 string"),
        ("a2 6161 01 4161 02", "cbor: found duplicate map key \"a\" at map element index 1"),
        ("a1 01 02", "cbor: cannot unmarshal positive integer into Go value of type string"),
        (
            "1b8000000000000000",
            "cbor: cannot unmarshal positive integer into Go value of type int64 (9223372036854775808 overflows Go's int64)",
        ),
        (
            "1bffffffffffffff7f",
            "cbor: cannot unmarshal positive integer into Go value of type int64 (18446744073709551487 overflows Go's int64)",
        ),
        ("c2 41 01", "cbor: cannot unmarshal positive bignum into Go value of type interface {}"),
        ("f7", "cbor: cannot unmarshal simple value into Go value of type interface {}"),
        ("e0", "cbor: cannot unmarshal simple value into Go value of type interface {}"),
        ("f97e00", "cbor: cannot unmarshal NaN or infinity into Go value of type float64"),
        ("f97c00", "cbor: cannot unmarshal NaN or infinity into Go value of type float64"),
        ("c0 01", "cbor: tag number 0 must be followed by text string, got positive integer"),
        ("c0 6161", "cbor: cannot set \"a\" for time.Time: it is no time"),
        ("c1 1b7fffffffffffffff", "cbor: cannot set 9223372036854775807 for time.Time: it is no time"),
    ] {
        assert_eq!(decode(&bytes(given)).unwrap_err().to_string(), expected, "{given}");
    }
    // What is just not too deep can be written and read again.
    let mut nested = [0x81; 129];
    nested[128] = 0x01;
    let value = decode(&nested).expect("128 levels");
    assert_eq!(decode(&encode(&value)), Ok(value));
    for deep in [[0x81_u8; 200_000].as_slice(), &[0xc6; 200_000], &[0x9f; 200_000]] {
        assert_eq!(decode(deep), Err(Error::Depth));
    }
}

#[test]
fn what_is_equal_is_written_alike_and_short() {
    for (given, expected) in [
        (json!({"bb": 1, "a": 2, "c": {}}), "d9d9f7 a3 4161 02 4163 a0 426262 01"),
        (
            json!([23, 24, 255, 256, 65536, 4_294_967_296_i64]),
            "d9d9f7 86 17 1818 18ff 190100 1a00010000 1b0000000100000000",
        ),
        (json!([-1, -25, i64::MIN]), "d9d9f7 83 20 3818 3b7fffffffffffffff"),
        (
            json!([0.5, 1.5, 100_000.0, 1.1, 1e300]),
            "d9d9f7 85 f93800 f93e00 fa47c35000 fb3ff199999999999a fb7e37e43c8800759c",
        ),
        (json!([null, true, false, "é"]), "d9d9f7 84 f6 f5 f4 42c3a9"),
    ] {
        let written = encode(&given);
        assert_eq!(written, bytes(expected), "{given}: {}", hex(&written));
        assert_eq!(decode(&written), Ok(given));
    }
}

#[test]
fn every_half_float_survives() {
    for bits in 0..=u16::MAX {
        let item = [&[simple::HALF][..], &bits.to_be_bytes()].concat();
        let Ok(value) = decode(&item) else { continue };
        let mut written = Vec::new();
        encode_item(&value, &mut written);
        assert_eq!(hex(&written), hex(&item));
    }
}

proptest::proptest! {
    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
        if let Ok(value) = decode(&bytes) {
            assert_eq!(decode(&encode(&value)), Ok(value));
        }
    }
}
