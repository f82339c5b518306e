use super::{SELF_DESCRIBED, major, simple};
use crate::{Map, Number, Value};

/// One item, marked as CBOR.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = SELF_DESCRIBED.to_vec();
    encode_item(value, &mut out);
    out
}

/// Appends an item without the mark, as a part of another.
pub fn encode_item(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(simple::NULL),
        Value::Bool(false) => out.push(simple::FALSE),
        Value::Bool(true) => out.push(simple::TRUE),
        Value::Number(number) => write_number(*number, out),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            write_head(major::ARRAY, items.len() as u64, out);
            items.iter().for_each(|item| encode_item(item, out));
        }
        Value::Object(map) => write_map(map, out),
    }
}

/// Keys are in bytewise order of their encoding: shorter ones come first.
fn write_map(map: &Map, out: &mut Vec<u8>) {
    let mut fields: Vec<_> = map.iter().collect();
    fields.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
    write_head(major::MAP, fields.len() as u64, out);
    for (key, value) in fields {
        write_text(key, out);
        encode_item(value, out);
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(major::BYTES, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn write_number(number: Number, out: &mut Vec<u8>) {
    match number {
        Number::Int(n) => match u64::try_from(n) {
            Ok(n) => write_head(major::UNSIGNED, n, out),
            // -1 - n, without overflow.
            Err(_) => write_head(major::NEGATIVE, n.unsigned_abs() - 1, out),
        },
        Number::Uint(n) => write_head(major::UNSIGNED, n, out),
        Number::Float(f) if !f.is_finite() => out.push(simple::NULL),
        Number::Float(f) => write_float(f, out),
    }
}

/// In the fewest bytes that keep the value.
fn write_float(value: f64, out: &mut Vec<u8>) {
    let single = value as f32;
    if f64::from(single) != value {
        out.push(simple::DOUBLE);
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Some(half) = half(single) {
        out.push(simple::HALF);
        out.extend_from_slice(&half.to_be_bytes());
    } else {
        out.push(simple::SINGLE);
        out.extend_from_slice(&single.to_be_bytes());
    }
}

/// The bits of a float of 16 bits, if one has this value.
fn half(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = u16::try_from(bits >> 16).unwrap_or_default() & 0x8000;
    let exponent = i32::try_from(bits >> 23 & 0xff).unwrap_or_default() - 127;
    let mantissa = bits & 0x7f_ffff;
    let magnitude = match exponent {
        -127 if mantissa == 0 => 0,
        -14..=15 if mantissa & 0x1fff == 0 => u32::try_from(exponent + 15).ok()? << 10 | mantissa >> 13,
        -24..=-15 => {
            let shift = u32::try_from(-1 - exponent).ok()?;
            let whole = mantissa | 0x80_0000;
            if whole.trailing_zeros() < shift {
                return None;
            }
            whole >> shift
        }
        _ => return None,
    };
    Some(sign | u16::try_from(magnitude).ok()?)
}

/// The first byte and, for larger numbers, those after it.
fn write_head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let first = major << 5;
    if let Ok(small @ 0..24) = u8::try_from(argument) {
        out.push(first | small);
    } else if let Ok(one) = u8::try_from(argument) {
        out.extend_from_slice(&[first | 24, one]);
    } else if let Ok(two) = u16::try_from(argument) {
        out.push(first | 25);
        out.extend_from_slice(&two.to_be_bytes());
    } else if let Ok(four) = u32::try_from(argument) {
        out.push(first | 26);
        out.extend_from_slice(&four.to_be_bytes());
    } else {
        out.push(first | 27);
        out.extend_from_slice(&argument.to_be_bytes());
    }
}
