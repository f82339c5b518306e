//! Hot path: reading JSON that has nothing wrong with it.
//!
//! Gives up at the first surprise; the reader of `serde_json` then says what it is. What this one takes, it reads as that
//! one does; a property test and the fuzz targets compare them.

use super::plain::plain_len;
use super::{Map, Number, Str, Value};

/// Deeper nesting is left to the other reader, which has the limit.
const DEPTH_MAX: usize = 100;
/// So many digits are an `i64` for sure.
const DIGITS_MAX: usize = 18;

/// A whole document, and whether a field occurs in it more than once; `None` if anything about it is unusual.
pub(super) fn read(json: &[u8]) -> Option<(Value, bool)> {
    let text = simdutf8::basic::from_utf8(json).ok()?;
    let mut reader = Reader { text, at: 0, has_duplicates: false };
    let value = reader.value(0)?;
    (reader.next_token().is_none()).then_some((value, reader.has_duplicates))
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    has_duplicates: bool,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// The next byte that is no white space, which stays the next one.
    fn next_token(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes this byte if it is the next one.
    fn take(&mut self, wanted: u8) -> bool {
        let is_next = self.next_token() == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.rest().starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            value
        })
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        match self.next_token()? {
            b'"' => self.string().map(Value::String),
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        if depth == DEPTH_MAX {
            return None;
        }
        let mut entries = Vec::new();
        if self.take(b'}') {
            return Some(Value::object());
        }
        loop {
            if self.next_token()? != b'"' {
                return None;
            }
            let key = self.string()?;
            if !self.take(b':') {
                return None;
            }
            entries.push((key, self.value(depth + 1)?));
            if !self.take(b',') {
                break;
            }
        }
        let (map, has_duplicates) = Map::from_unsorted(entries);
        self.has_duplicates |= has_duplicates;
        self.take(b'}').then_some(Value::Object(map))
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        if depth == DEPTH_MAX {
            return None;
        }
        let mut items = Vec::new();
        if self.take(b']') {
            return Some(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if !self.take(b',') {
                break;
            }
        }
        self.take(b']').then_some(Value::Array(items))
    }

    /// A string, whose quote is the next byte.
    fn string(&mut self) -> Option<Str> {
        self.at += 1;
        let start = self.at;
        self.at += plain_len(self.rest());
        if *self.rest().first()? == b'"' {
            self.at += 1;
            return Some(Str::from(&self.text[start..self.at - 1]));
        }
        self.escaped(start)
    }

    /// The string that began at `start`, from its first byte on that is not plain.
    #[cold]
    fn escaped(&mut self, start: usize) -> Option<Str> {
        let mut text = self.text[start..self.at].to_owned();
        loop {
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Some(text.into());
                }
                [b'\\', b'u', a, b, c, d, ..] => {
                    let digits = [*a, *b, *c, *d];
                    // Halves of pairs are none; the other reader puts them together.
                    text.push(char::from_u32(hex(digits)?)?);
                    self.at += 6;
                }
                [b'\\', escape, ..] => {
                    text.push(unescaped(*escape)?);
                    self.at += 2;
                }
                _ => return None,
            }
            let plain = plain_len(self.rest());
            text.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
        }
    }

    fn number(&mut self) -> Option<Value> {
        let rest = self.rest();
        let is_negative = rest[0] == b'-';
        let digits = &rest[usize::from(is_negative)..];
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_whole = !matches!(digits.get(count), Some(b'.' | b'e' | b'E'));
        if !is_whole
            || count > DIGITS_MAX
            || (digits[..count].starts_with(b"0") && (count > 1 || is_negative))
        {
            return self.unusual_number();
        }
        let magnitude = digits[..count].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        self.at += count + usize::from(is_negative);
        (count > 0).then_some(Value::Number(Number::Int(if is_negative { -magnitude } else { magnitude })))
    }

    /// A fraction, an exponent, or a number that no `i64` holds.
    #[cold]
    fn unusual_number(&mut self) -> Option<Value> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.rest().iter().take_while(|byte| is_part(byte)).count();
        let value = serde_json::from_slice(&self.rest()[..length]).ok()?;
        self.at += length;
        Some(value)
    }
}

fn hex(digits: [u8; 4]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

fn unescaped(escape: u8) -> Option<char> {
    Some(match escape {
        b'"' | b'\\' | b'/' => char::from(escape),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse::slow;
    use super::*;

    /// What is read is what the other reader reads; what that one refuses is not read.
    fn assert_same(json: &[u8]) {
        match (read(json), slow(json)) {
            (Some(own), Ok(other)) => assert_eq!(own, other, "{}", String::from_utf8_lossy(json)),
            (Some(own), Err(error)) => {
                panic!("{} is {}, but: {error}", String::from_utf8_lossy(json), own.0)
            }
            (None, _) => {}
        }
    }

    fn is_taken(json: &str) -> bool {
        assert_same(json.as_bytes());
        read(json.as_bytes()).is_some()
    }

    #[test]
    fn what_is_usual_is_taken() {
        for json in [
            "null",
            " {\"a\" : [ 1 , -20,true,false,null, {}, [] ] ,\n\t\"b\":\"\" }\r\n",
            "0",
            "-1",
            "999999999999999999",
            "9223372036854775807",
            "18446744073709551615",
            "1e3",
            "-0",
            "0.25",
            "1.0",
            r#""plain ü 🦀""#,
            r#""\"\\\/\b\f\n\r\t\u0041\u003c\u00fc""#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":{"b":1},"a":{"c":2}}"#,
            "{\"\":\"\u{7f}\"}",
        ] {
            assert!(is_taken(json), "{json}");
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_other_reader() {
        let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
        for json in [
            "",
            " ",
            "{",
            "[",
            "[1",
            "[1,]",
            "[,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{a:1}",
            "{\"a\" 1}",
            "\"",
            "\"a",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\ud83e\\udd80\"",
            "\"\\ud83e\"",
            "\"\n\"",
            "\"\u{0}\"",
            "01",
            "-",
            "-01",
            "1.",
            "1e",
            ".5",
            "+1",
            "1 2",
            "tru",
            "nul",
            "True",
            "{}x",
            "\u{feff}{}",
            deep.as_str(),
        ] {
            assert!(!is_taken(json), "{json}");
        }
        assert!(read(b"\"\xff\"").is_none());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|number| Value::Number(Number::Float(number))),
            "\\PC{0,12}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((any::<String>().prop_map(Str::from), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn both_readers_agree(json in "[ \\[\\]{}:,\"\\\\a-eu0-9.+-]{0,24}") {
            assert_same(json.as_bytes());
        }

        #[test]
        fn both_readers_agree_about_what_is_written(value in values()) {
            let json = value.to_json();
            prop_assert!(read(&json).is_some());
            assert_same(&json);
        }
    }
}
