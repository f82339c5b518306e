use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;

use super::{SELF_DESCRIBED, major, simple};
use crate::{Map, Number, Str, Value};

/// As deep as JSON may be nested.
const DEPTH_MAX: usize = 128;

/// Bytes that are no CBOR, or say what JSON cannot. The words are those of the library that upstream uses, where it
/// has some.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("EOF")]
    Empty,
    #[error("unexpected EOF")]
    Truncated,
    #[error("cbor: {0} bytes of extraneous data starting at index {1}")]
    Trailing(usize, usize),
    #[error("cbor: invalid additional information {0} for type {1}")]
    AdditionalInformation(u8, &'static str),
    #[error("cbor: unexpected \"break\" code")]
    Break,
    #[error("cbor: wrong element type {0} for indefinite-length {1}")]
    Chunk(&'static str, &'static str),
    #[error("cbor: exceeded max nested level {DEPTH_MAX}")]
    Depth,
    #[error("cbor: invalid UTF-8 string")]
    Utf8,
    #[error("cbor: found duplicate map key {key} at map element index {index}")]
    Duplicate { key: String, index: usize },
    #[error("cbor: cannot unmarshal {0} into Go value of type {1}")]
    Type(&'static str, &'static str),
    #[error("cbor: cannot unmarshal {0} into Go value of type {1} ({2})")]
    Overflow(&'static str, &'static str, String),
    #[error("cbor: tag number {0} must be followed by {1}, got {2}")]
    Tag(u64, &'static str, &'static str),
    #[error("cbor: cannot set {0} for time.Time: it is no time")]
    Time(String),
}

type Result<T> = std::result::Result<T, Error>;

/// Reads one item and nothing after it.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    // What all output begins with is no level of what is written.
    let at = if bytes.starts_with(&SELF_DESCRIBED) { SELF_DESCRIBED.len() } else { 0 };
    let mut reader = Reader { bytes, at };
    let value = reader.item(0)?;
    match bytes.len() - reader.at {
        0 => Ok(value),
        more => Err(Error::Trailing(more, reader.at)),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// An item's first byte and number.
#[derive(Clone, Copy)]
struct Head {
    major: u8,
    first: u8,
    /// `None` for an item that goes on until a break.
    argument: Option<u64>,
}

impl Head {
    fn type_name(self) -> &'static str {
        match self.major {
            major::UNSIGNED => "positive integer",
            major::NEGATIVE => "negative integer",
            major::BYTES => "byte string",
            major::TEXT => "UTF-8 text string",
            major::ARRAY => "array",
            major::MAP => "map",
            major::TAG => "tag",
            _ => "primitives",
        }
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or(Error::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(Error::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64> {
        Ok(self.take(N)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn head(&mut self) -> Result<Head> {
        let first = self.take(1)?[0];
        let mut head = Head { major: first >> 5, first, argument: None };
        head.argument = match first & 31 {
            small @ 0..24 => Some(u64::from(small)),
            24 => Some(self.number::<1>()?),
            25 => Some(self.number::<2>()?),
            26 => Some(self.number::<4>()?),
            27 => Some(self.number::<8>()?),
            31 if matches!(head.major, major::BYTES..=major::MAP | major::SIMPLE) => None,
            other => return Err(Error::AdditionalInformation(other, head.type_name())),
        };
        Ok(head)
    }

    /// How many items are said to follow. Each takes a byte at least, so a lie is found before memory is taken.
    fn count(&self, head: Head, bytes_each: usize) -> Result<Option<usize>> {
        let Some(count) = head.argument else { return Ok(None) };
        let count = usize::try_from(count).map_err(|_| Error::Truncated)?;
        let fits = count <= (self.bytes.len() - self.at) / bytes_each;
        if fits { Ok(Some(count)) } else { Err(Error::Truncated) }
    }

    /// Whether a collection that goes on until a break ends here.
    fn at_break(&mut self) -> bool {
        let ends = self.bytes.get(self.at) == Some(&simple::BREAK);
        self.at += usize::from(ends);
        ends
    }

    fn item(&mut self, depth: usize) -> Result<Value> {
        let head = self.head()?;
        match (head.major, head.argument) {
            (major::UNSIGNED, Some(n)) => {
                i64::try_from(n).map(Value::from).map_err(|_| overflow(head, &n.to_string()))
            }
            (major::NEGATIVE, Some(n)) => match i64::try_from(n) {
                Ok(n) => Ok(Value::from(-1 - n)),
                Err(_) => Err(overflow(head, &format!("-1-{n}"))),
            },
            (major::BYTES | major::TEXT, _) => self.text(head).map(Value::String),
            (major::ARRAY, _) => self.array(head, deeper(depth)?),
            (major::MAP, _) => self.map(head, deeper(depth)?),
            (major::TAG, Some(tag)) => self.tagged(tag, deeper(depth)?),
            _ => simple_value(head),
        }
    }

    fn array(&mut self, head: Head, depth: usize) -> Result<Value> {
        let count = self.count(head, 1)?;
        let mut items = Vec::new();
        while count.map_or_else(|| !self.at_break(), |count| items.len() < count) {
            items.push(self.item(depth)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, head: Head, depth: usize) -> Result<Value> {
        let count = self.count(head, 2)?;
        let mut entries = Vec::new();
        while count.map_or_else(|| !self.at_break(), |count| entries.len() < count) {
            entries.push((self.key()?, self.item(depth)?));
        }
        let mut keys = HashSet::new();
        if let Some(index) = entries.iter().position(|(key, _)| !keys.insert(key.as_str())) {
            return Err(Error::Duplicate { key: crate::field::go_quote(&entries[index].0), index });
        }
        Ok(Value::Object(entries.into_iter().collect::<Map>()))
    }

    fn key(&mut self) -> Result<Str> {
        let head = self.head()?;
        match head.major {
            major::BYTES | major::TEXT => self.text(head),
            major::SIMPLE if head.first == simple::BREAK => Err(Error::Break),
            _ => Err(Error::Type(head.type_name(), "string")),
        }
    }

    fn text(&mut self, head: Head) -> Result<Str> {
        match self.string(head)? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Str::from),
            Cow::Owned(bytes) => std::str::from_utf8(&bytes).map(Str::from),
        }
        .map_err(|_| Error::Utf8)
    }

    /// The contents of a string, which may come in chunks of the same type.
    fn string(&mut self, head: Head) -> Result<Cow<'a, [u8]>> {
        if let Some(count) = self.count(head, 1)? {
            return self.take(count).map(Into::into);
        }
        let mut all = Vec::new();
        while !self.at_break() {
            let chunk = self.head()?;
            if chunk.major != head.major || chunk.argument.is_none() {
                return Err(Error::Chunk(chunk.type_name(), head.type_name()));
            }
            let count = self.count(chunk, 1)?.unwrap_or_default();
            all.extend_from_slice(self.take(count)?);
        }
        Ok(all.into())
    }

    /// What a tag means for JSON: times become texts, and so do bytes that want to be encoded later. Others say
    /// nothing that matters here.
    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value> {
        match tag {
            0 => self.time_text(),
            1 => self.time_number(depth),
            2 | 3 => {
                let kind = if tag == 2 { "positive bignum" } else { "negative bignum" };
                Err(Error::Type(kind, "interface {}"))
            }
            21..=23 if self.bytes.get(self.at).is_some_and(|first| first >> 5 == major::BYTES) => {
                let head = self.head()?;
                let bytes = self.string(head)?;
                let text = match tag {
                    21 => URL_SAFE_NO_PAD.encode(&bytes),
                    22 => STANDARD.encode(&bytes),
                    _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                };
                Ok(Value::String(text.into()))
            }
            _ => self.item(depth),
        }
    }

    fn time_text(&mut self) -> Result<Value> {
        let head = self.head()?;
        if !matches!(head.major, major::BYTES | major::TEXT) {
            return Err(Error::Tag(0, "text string", head.type_name()));
        }
        let text = self.text(head)?;
        match crate::time::parse(&text) {
            Some(_) => Ok(Value::String(text)),
            None => Err(Error::Time(crate::field::go_quote(&text))),
        }
    }

    fn time_number(&mut self, depth: usize) -> Result<Value> {
        let Value::Number(seconds) = self.item(depth)? else {
            return Err(Error::Tag(1, "integer or floating-point number", "something else"));
        };
        let time = match seconds {
            Number::Int(seconds) => Timestamp::from_second(seconds),
            fractional => Timestamp::from_nanosecond((fractional.as_f64() * 1e9).round() as i128),
        };
        time.map(|time| Value::from(time.to_string()))
            .map_err(|_| Error::Time(Value::Number(seconds).to_json_string()))
    }
}

fn deeper(depth: usize) -> Result<usize> {
    if depth < DEPTH_MAX { Ok(depth + 1) } else { Err(Error::Depth) }
}

fn overflow(head: Head, number: &str) -> Error {
    Error::Overflow(head.type_name(), "int64", format!("{number} overflows Go's int64"))
}

fn simple_value(head: Head) -> Result<Value> {
    let bits = head.argument.unwrap_or_default();
    let float = match head.first {
        simple::FALSE => return Ok(Value::Bool(false)),
        simple::TRUE => return Ok(Value::Bool(true)),
        simple::NULL => return Ok(Value::Null),
        simple::BREAK => return Err(Error::Break),
        simple::HALF => half(bits),
        simple::SINGLE => f64::from(f32::from_bits(u32::try_from(bits).unwrap_or_default())),
        simple::DOUBLE => f64::from_bits(bits),
        _ => return Err(Error::Type("simple value", "interface {}")),
    };
    if float.is_finite() { Ok(Value::from(float)) } else { Err(Error::Type("NaN or infinity", "float64")) }
}

/// The value of a float of 16 bits.
fn half(bits: u64) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::try_from(bits >> 10 & 31).unwrap_or_default();
    let mantissa = (bits & 0x3ff) as f64;
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + mantissa / 1024.0) * 2f64.powi(exponent - 15),
    };
    sign * magnitude
}
