//! The strings library, version 2.

use super::{Row, string_format};
use crate::eval_error::EvalError;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("charAt", char_at, &[("string_char_at_int", "string::f(int) -> string")]),
    (
        "indexOf",
        index_of,
        &[
            ("string_index_of_string", "string::f(string) -> int"),
            ("string_index_of_string_int", "string::f(string, int) -> int"),
            ("list_a_index_of_int", "list<A>::f(A) -> int"),
        ],
    ),
    (
        "lastIndexOf",
        last_index_of,
        &[
            ("string_last_index_of_string", "string::f(string) -> int"),
            ("string_last_index_of_string_int", "string::f(string, int) -> int"),
            ("list_a_last_index_of_int", "list<A>::f(A) -> int"),
        ],
    ),
    (
        "lowerAscii",
        |args| mapped(args, |text| text.to_ascii_lowercase()),
        &[("string_lower_ascii", "string::f() -> string")],
    ),
    (
        "upperAscii",
        |args| mapped(args, |text| text.to_ascii_uppercase()),
        &[("string_upper_ascii", "string::f() -> string")],
    ),
    ("trim", |args| mapped(args, |text| text.trim().to_owned()), &[("string_trim", "string::f() -> string")]),
    (
        "replace",
        replace,
        &[
            ("string_replace_string_string", "string::f(string, string) -> string"),
            ("string_replace_string_string_int", "string::f(string, string, int) -> string"),
        ],
    ),
    (
        "split",
        split,
        &[
            ("string_split_string", "string::f(string) -> list<string>"),
            ("string_split_string_int", "string::f(string, int) -> list<string>"),
        ],
    ),
    (
        "substring",
        substring,
        &[
            ("string_substring_int", "string::f(int) -> string"),
            ("string_substring_int_int", "string::f(int, int) -> string"),
        ],
    ),
    (
        "join",
        join,
        &[
            ("list_join", "list<string>::f() -> string"),
            ("list_join_string", "list<string>::f(string) -> string"),
        ],
    ),
    ("format", string_format::format, &[("string_format", "string::f(list<dyn>) -> string")]),
    ("strings.quote", quote, &[("strings_quote", "f(string) -> string")]),
];

fn mapped<'a>(args: &[Value<'a>], map: impl Fn(&str) -> String) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(Value::text(map(text))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn out_of_range(index: i64) -> EvalError {
    EvalError::new(format!("index out of range: {index}"))
}

/// The byte at which character `index` begins; the end of the text counts as a character.
fn byte_of(text: &str, index: i64) -> Result<usize, EvalError> {
    let wanted = usize::try_from(index).map_err(|_| out_of_range(index))?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(wanted).ok_or_else(|| out_of_range(index))
}

fn char_at<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::Int(index)] => {
            let at = byte_of(text, *index)?;
            let character = text[at..].chars().next();
            Ok(Value::text(character.map(String::from).unwrap_or_default()))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn count(text: &str) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(i64::MAX)
}

fn index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, offset) = match args {
        [Value::List(list), item] => return super::lists::position(list, item, false),
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(offset)] => (text, part, *offset),
        _ => return Err(EvalError::no_such_overload()),
    };
    if part.is_empty() {
        return Ok(Value::Int(offset));
    }
    if offset < 0 {
        return Err(out_of_range(offset));
    }
    if offset >= count(text) {
        return Ok(Value::Int(-1));
    }
    let start = byte_of(text, offset)?;
    Ok(Value::Int(text[start..].find(&**part).map_or(-1, |at| offset + count(&text[start..start + at]))))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, offset) = match args {
        [Value::List(list), item] => return super::lists::position(list, item, true),
        [Value::String(text), Value::String(part)] => {
            if text.len() < part.len() {
                return Ok(Value::Int(-1));
            }
            let length = count(text);
            (text, part, if part.is_empty() { length } else { length - 1 })
        }
        [Value::String(text), Value::String(part), Value::Int(offset)] => (text, part, *offset),
        _ => return Err(EvalError::no_such_overload()),
    };
    if part.is_empty() {
        return Ok(Value::Int(offset));
    }
    if offset < 0 {
        return Err(out_of_range(offset));
    }
    let length = count(text);
    if offset >= length {
        return Ok(Value::Int(-1));
    }
    let last = offset.min(length - count(part));
    if last < 0 {
        return Ok(Value::Int(-1));
    }
    let mut end = text.len().min(byte_of(text, last)? + part.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(Value::Int(text[..end].rfind(&**part).map_or(-1, |at| count(&text[..at]))))
}

fn replace<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(old), Value::String(new)] => {
            Ok(Value::text(text.replace(&**old, new)))
        }
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(times)] => {
            Ok(Value::text(match usize::try_from(*times) {
                Ok(times) => text.replacen(&**old, new, times),
                Err(_) => text.replace(&**old, new),
            }))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn split<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => (text, separator, *limit),
        _ => return Err(EvalError::no_such_overload()),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let parts: Vec<Value<'a>> = if separator.is_empty() {
        characters(text, limit)
    } else {
        text.splitn(limit, &**separator).map(Value::text).collect()
    };
    Ok(Value::list(parts))
}

/// One part per character, the rest in the last.
fn characters<'a>(text: &str, limit: usize) -> Vec<Value<'a>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if parts.len() + 1 == limit {
            parts.push(Value::text(rest));
            break;
        }
        let (first, tail) = rest.split_at(character.len_utf8());
        parts.push(Value::text(first));
        rest = tail;
    }
    parts
}

fn substring<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::Int(start)] => Ok(Value::text(&text[byte_of(text, *start)?..])),
        [Value::String(text), Value::Int(start), Value::Int(end)] => {
            if start > end {
                return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
            }
            let from = byte_of(text, *start)?;
            Ok(Value::text(&text[from..byte_of(text, *end)?]))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn join<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return Err(EvalError::no_such_overload()),
    };
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        match item? {
            Value::String(text) => {
                out.push_str(if at > 0 { separator } else { "" });
                out.push_str(&text);
            }
            other => return Err(EvalError::new(format!("join: invalid input: {other}"))),
        }
    }
    Ok(Value::text(out))
}

fn quote<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    mapped(args, |text| {
        let mut out = String::with_capacity(text.len() + 2);
        out.push('"');
        for character in text.chars() {
            match character {
                '\u{7}' => out.push_str("\\a"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{b}' => out.push_str("\\v"),
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                other => out.push(other),
            }
        }
        out.push('"');
        out
    })
}
