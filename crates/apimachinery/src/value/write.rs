//! Hot path: writing a [`Value`] as compact JSON.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::plain::plain_len;
use super::{Number, Value};

impl Value {
    /// Appends compact JSON, object fields in sorted order.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(number) => number.write_json(out),
            Self::String(text) => write_string(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write_json(out);
                }
                out.push(b']');
            }
            Self::Object(map) => {
                out.push(b'{');
                for (index, (key, value)) in map.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(key, out);
                    out.push(b':');
                    value.write_json(out);
                }
                out.push(b'}');
            }
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.write_json(&mut out);
        out
    }

    pub fn to_json_string(&self) -> String {
        String::from_utf8(self.to_json()).expect("JSON is written from strings, hence UTF-8")
    }
}

impl Number {
    fn write_json(self, out: &mut Vec<u8>) {
        match self {
            Self::Int(n) => out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
            Self::Uint(n) => out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
            // Go prints a whole float without a fraction, and JSON has no word for the others.
            Self::Float(f) if !f.is_finite() => out.extend_from_slice(b"null"),
            Self::Float(f) if f.fract() == 0.0 && f.abs() < 1e15 => {
                out.extend_from_slice(itoa::Buffer::new().format(f as i64).as_bytes());
            }
            Self::Float(f) => out.extend_from_slice(
                serde_json::Number::from_f64(f).map(|n| n.to_string()).unwrap_or_default().as_bytes(),
            ),
        }
    }
}

/// Appends a JSON string literal.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        write_escape(*byte, out);
        rest = after;
    }
    out.push(b'"');
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Number(Number::Int(n)) => serializer.serialize_i64(*n),
            Self::Number(Number::Uint(n)) => serializer.serialize_u64(*n),
            Self::Number(Number::Float(f)) => serializer.serialize_f64(*f),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => {
                let mut sequence = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| sequence.serialize_element(item))?;
                sequence.end()
            }
            Self::Object(map) => {
                let mut fields = serializer.serialize_map(Some(map.len()))?;
                map.iter().try_for_each(|(key, value)| fields.serialize_entry(key.as_str(), value))?;
                fields.end()
            }
        }
    }
}
