//! The functions of the language itself.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::Parameter::{Any, Raw, Text};
use crate::{Datum, Parameter, Signature, format, sprig};

/// The code of a function.
pub type Implementation = fn(&[Datum]) -> Result<Datum, String>;

/// A function that every template has.
#[derive(Debug)]
pub struct Native {
    pub name: &'static str,
    pub signature: Signature,
    pub code: Implementation,
}

/// A function of fixed parameters.
pub const fn fixed(name: &'static str, parameters: &'static [Parameter], code: Implementation) -> Native {
    Native { name, signature: Signature { parameters, variadic: false }, code }
}

/// A function whose last parameter can be there any number of times.
pub const fn variadic(name: &'static str, parameters: &'static [Parameter], code: Implementation) -> Native {
    Native { name, signature: Signature { parameters, variadic: true }, code }
}

/// A function by its name; those of sprig hide those of the language.
pub fn find(name: &str) -> Option<&'static Native> {
    static ALL: LazyLock<HashMap<&str, &Native>> = LazyLock::new(|| {
        let all = FUNCTIONS.iter().chain(sprig::FUNCTIONS.iter().copied().flatten());
        all.map(|native| (native.name, native)).collect()
    });
    ALL.get(name).copied()
}

const FUNCTIONS: &[Native] = &[
    fixed("not", &[Raw], |args| Ok(Datum::Bool(!args[0].is_true()))),
    fixed("len", &[Raw], length),
    variadic("index", &[Raw, Raw], index),
    variadic("slice", &[Raw, Raw], slice),
    variadic("print", &[Any], |args| Ok(format::sprint(args).into())),
    variadic("printf", &[Text, Any], |args| {
        Ok(format::sprintf(args[0].as_text().unwrap_or_default(), &args[1..]).into())
    }),
    variadic("println", &[Any], |args| Ok(format::sprintln(args).into())),
    variadic("html", &[Any], |args| Ok(escaped(&format::sprint(args), HTML).into())),
    variadic("js", &[Any], |args| Ok(escaped(&format::sprint(args), JS).into())),
    variadic("urlquery", &[Any], |args| Ok(url_query(&format::sprint(args)).into())),
    variadic("call", &[Raw, Raw], |args| match args[0].is_nil() {
        true => Err("call of nil".into()),
        false => Err(format!("non-function {} of type {}", format::print(&args[0]), args[0].type_name())),
    }),
    variadic("eq", &[Raw, Raw], equal),
    fixed("ne", &[Raw, Raw], |args| Ok(Datum::Bool(!equals(&args[0], &args[1])?))),
    fixed("lt", &[Raw, Raw], |args| compared(args, Ordering::is_lt)),
    fixed("le", &[Raw, Raw], |args| compared(args, Ordering::is_le)),
    fixed("gt", &[Raw, Raw], |args| compared(args, Ordering::is_gt)),
    fixed("ge", &[Raw, Raw], |args| compared(args, Ordering::is_ge)),
];

fn length(args: &[Datum]) -> Result<Datum, String> {
    let length = match &args[0] {
        Datum::Text(text) | Datum::Number(text) => text.len(),
        Datum::List(items) => items.len(),
        Datum::Map(map) => map.borrow().len(),
        Datum::Missing | Datum::Nil => return Err("len of nil pointer".into()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Datum::Int(length as i64))
}

fn index(args: &[Datum]) -> Result<Datum, String> {
    if args[0].is_nil() {
        return Err("index of untyped nil".into());
    }
    args[1..].iter().try_fold(args[0].clone(), |item, index| match &item {
        Datum::List(items) => {
            let at = position(index, items.len())?;
            Ok(items.get(at).ok_or("reflect: slice index out of range")?.clone())
        }
        Datum::Text(text) | Datum::Number(text) => {
            let at = position(index, text.len())?;
            let byte = text.as_bytes().get(at).ok_or("reflect: string index out of range")?;
            Ok(Datum::Int((*byte).into()))
        }
        Datum::Map(map) => match index {
            Datum::Text(key) => Ok(map.borrow().get(key).cloned().unwrap_or(Datum::Nil)),
            Datum::Missing | Datum::Nil => Err("value is nil; should be of type string".into()),
            other => Err(format!("value has type {}; should be string", other.type_name())),
        },
        Datum::Missing | Datum::Nil => Err("index of nil pointer".into()),
        other => Err(format!("can't index item of type {}", other.type_name())),
    })
}

/// An index of something of this length, or the length itself.
fn position(index: &Datum, length: usize) -> Result<usize, String> {
    match index {
        Datum::Int(value) => usize::try_from(*value)
            .ok()
            .filter(|at| *at <= length)
            .ok_or_else(|| format!("index out of range: {value}")),
        Datum::Missing | Datum::Nil => Err("cannot index slice/array with nil".into()),
        other => Err(format!("cannot index slice/array with type {}", other.type_name())),
    }
}

fn slice(args: &[Datum]) -> Result<Datum, String> {
    let (item, indexes) = (&args[0], &args[1..]);
    if item.is_nil() {
        return Err("slice of untyped nil".into());
    }
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let length = match item {
        Datum::Text(_) | Datum::Number(_) if indexes.len() == 3 => {
            return Err("cannot 3-index slice a string".into());
        }
        Datum::Text(text) | Datum::Number(text) => text.len(),
        Datum::List(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, length, length];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, length)?;
    }
    let [start, end, capacity] = bounds;
    for (left, right) in [(start, end), (end, capacity)] {
        if left > right {
            return Err(format!("invalid slice index: {left} > {right}"));
        }
    }
    match item {
        Datum::List(items) => Ok(Datum::list(items[start..end].to_vec())),
        text => {
            let bytes = &text.as_text().unwrap_or_default().as_bytes()[start..end];
            Ok(String::from_utf8_lossy(bytes).into_owned().into())
        }
    }
}

/// The kinds that values of one can be compared in.
#[derive(PartialEq)]
enum Kind {
    Bool,
    Int,
    Float,
    Text,
    Other,
}

fn kind(datum: &Datum) -> Kind {
    match datum {
        Datum::Bool(_) => Kind::Bool,
        Datum::Int(_) => Kind::Int,
        Datum::Float(_) => Kind::Float,
        Datum::Text(_) | Datum::Number(_) => Kind::Text,
        _ => Kind::Other,
    }
}

fn equal(args: &[Datum]) -> Result<Datum, String> {
    if args.len() < 2 {
        return Err("missing argument for comparison".into());
    }
    for other in &args[1..] {
        if equals(&args[0], other)? {
            return Ok(Datum::Bool(true));
        }
    }
    Ok(Datum::Bool(false))
}

fn equals(a: &Datum, b: &Datum) -> Result<bool, String> {
    match (a, b) {
        (Datum::Bool(a), Datum::Bool(b)) => Ok(a == b),
        (Datum::Int(a), Datum::Int(b)) => Ok(a == b),
        (Datum::Float(a), Datum::Float(b)) => Ok(a == b),
        (Datum::Time(a), Datum::Time(b)) => Ok(a == b),
        (Datum::Text(a) | Datum::Number(a), Datum::Text(b) | Datum::Number(b)) => Ok(a == b),
        (a, b) if a.is_nil() || b.is_nil() => Ok(a.is_nil() && b.is_nil()),
        (a, b) if kind(a) != kind(b) => Err("incompatible types for comparison".into()),
        (a, b) => {
            let shown = |datum: &Datum| format!("{}: {}", format::print(datum), datum.type_name());
            Err(format!("non-comparable types {}, {}", shown(a), shown(b)))
        }
    }
}

fn compared(args: &[Datum], accepted: fn(Ordering) -> bool) -> Result<Datum, String> {
    let order = match (&args[0], &args[1]) {
        (Datum::Int(a), Datum::Int(b)) => Some(a.cmp(b)),
        (Datum::Float(a), Datum::Float(b)) => a.partial_cmp(b),
        (Datum::Text(a) | Datum::Number(a), Datum::Text(b) | Datum::Number(b)) => Some(a.cmp(b)),
        (a, b) if kind(a) == Kind::Other || kind(b) == Kind::Other => {
            return Err("invalid type for comparison".into());
        }
        (a, b) if kind(a) == kind(b) => return Err("invalid type for comparison".into()),
        _ => return Err("incompatible types for comparison".into()),
    };
    Ok(Datum::Bool(order.is_some_and(accepted)))
}

const HTML: &[(char, &str)] =
    &[('"', "&#34;"), ('\'', "&#39;"), ('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('\0', "\u{fffd}")];
const JS: &[(char, &str)] = &[
    ('\\', "\\\\"),
    ('\'', "\\'"),
    ('"', "\\\""),
    ('<', "\\u003C"),
    ('>', "\\u003E"),
    ('&', "\\u0026"),
    ('=', "\\u003D"),
    ('\n', "\\u000A"),
    ('\r', "\\u000D"),
    ('\t', "\\u0009"),
];

fn escaped(text: &str, escapes: &[(char, &str)]) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match escapes.iter().find(|(own, _)| *own == letter) {
            Some((_, escape)) => out.push_str(escape),
            None => out.push(letter),
        }
    }
    out
}

fn url_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
