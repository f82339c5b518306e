//! `"%s has %d".format([name, count])`.
//!
//! Numbers with a fraction are written as in American English, with thousands separators and real exponents, which
//! is what version 2 of the library did.

use std::fmt::Write as _;

use apimachinery::field::go_quote;

use crate::eval_error::EvalError;
use crate::time;
use crate::types::Type;
use crate::value::{Evaluated, Key, List, Map, Value};

/// Digits after the point unless a clause says otherwise.
const PRECISION: usize = 6;
/// A precision beyond this is refused; a double has no more digits to show.
const PRECISION_MAX: usize = 1_000;

type Formatted = Result<String, EvalError>;

/// A clause: which argument, its verb, and its precision. What comes back is an error of formatting.
type Clause<'c> = &'c mut dyn FnMut(usize, char, usize) -> Result<(), String>;

pub(super) fn format<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(template), Value::List(list)] = args else {
        return Err(EvalError::no_such_overload());
    };
    let mut parts = Vec::new();
    scan(template, list.len(), &mut |index, verb, precision| {
        let arg = list.get(index).ok_or("no such argument")?.map_err(|error| error.to_string())?;
        parts.push(write(verb, &arg, precision).map_err(|error| error.to_string())?);
        Ok(())
    })
    .map_err(EvalError::new)?;
    let mut out = String::new();
    let mut parts = parts.into_iter();
    let mut rest: &str = template;
    while let Some(percent) = rest.find('%') {
        out.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        match rest.strip_prefix('%') {
            Some(after) => {
                out.push('%');
                rest = after;
            }
            None => {
                out.push_str(&parts.next().unwrap_or_default());
                let clause =
                    rest.find(|c: char| c != '.' && !c.is_ascii_digit()).map_or(rest.len(), |at| at + 1);
                rest = &rest[clause..];
            }
        }
    }
    out.push_str(rest);
    Ok(Value::text(out))
}

/// Reads a template and calls back for every clause; returns how many there were.
pub(crate) fn scan(template: &str, args: usize, clause: Clause<'_>) -> Result<usize, String> {
    let parse_error = |detail: String| Err(format!("could not parse formatting clause: {detail}"));
    let mut used = 0;
    let mut rest = template;
    while let Some(percent) = rest.find('%') {
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return Err("unexpected end of string".into());
        }
        if used >= args {
            return Err(format!("index {used} out of range"));
        }
        let mut precision = PRECISION;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let text = &after[..digits];
            if digits == after.len() {
                return parse_error(
                    "error while parsing precision: could not find end of precision specifier".into(),
                );
            }
            precision = match text.parse() {
                Ok(precision) if precision <= PRECISION_MAX => precision,
                Ok(_) => return parse_error(format!("precision {text} is too large")),
                Err(_) => {
                    return parse_error(format!(
                        "error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing {}: invalid syntax",
                        go_quote(text)
                    ));
                }
            };
            rest = &after[digits..];
        }
        let Some(verb) = rest.chars().next().filter(|verb| "sdfebxXo".contains(*verb)) else {
            let verb = rest.chars().next().unwrap_or('%');
            return parse_error(format!("unrecognized formatting clause \"{verb}\""));
        };
        rest = &rest[1..];
        clause(used, verb, precision).map_err(|error| format!("error during formatting: {error}"))?;
        used += 1;
    }
    Ok(used)
}

fn write(verb: char, arg: &Value<'_>, precision: usize) -> Formatted {
    match verb {
        's' => string(arg),
        'd' => decimal(arg),
        'f' => fixed(arg, precision),
        'e' => scientific(arg, precision),
        'b' => binary(arg),
        'x' => hex(arg, false),
        'X' => hex(arg, true),
        _ => octal(arg),
    }
}

/// Whether arguments of a type can be written by a clause, as far as that is known before.
pub(crate) fn check(verb: char, ty: &Type) -> Result<(), String> {
    let (fits, what) = match verb {
        's' => (!matches!(ty, Type::Any | Type::Object(_) | Type::Opaque(_) | Type::Optional(_)), STRING),
        'd' => (matches!(ty, Type::Int | Type::Uint), DECIMAL),
        'f' => (matches!(ty, Type::Double | Type::String), FIXED),
        'e' => (matches!(ty, Type::Double | Type::String), SCIENTIFIC),
        'b' => (matches!(ty, Type::Int | Type::Uint | Type::Bool), BINARY),
        'x' | 'X' => (matches!(ty, Type::Int | Type::Uint | Type::String | Type::Bytes), HEX),
        _ => (matches!(ty, Type::Int | Type::Uint), OCTAL),
    };
    if fits || *ty == Type::Dyn { Ok(()) } else { Err(format!("{what}, was given {}", ty.name())) }
}

const STRING: &str = "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps";
const DECIMAL: &str = "decimal clause can only be used on integers";
const FIXED: &str = "fixed-point clause can only be used on doubles";
const SCIENTIFIC: &str = "scientific clause can only be used on doubles";
const BINARY: &str = "only integers and bools can be formatted as binary";
const HEX: &str = "only integers, byte buffers, and strings can be formatted as hex";
const OCTAL: &str = "octal clause can only be used on integers";

fn refuse(what: &str, arg: &Value<'_>) -> Formatted {
    Err(EvalError::new(format!("{what}, was given {}", arg.type_of().name())))
}

fn string(arg: &Value<'_>) -> Formatted {
    Ok(match arg {
        Value::List(list) => format_list(list)?,
        Value::Map(map) => format_map(map)?,
        Value::Double(value) => apimachinery::field::go_float(*value),
        Value::Null
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Bool(_)
        | Value::String(_)
        | Value::Timestamp(_)
        | Value::Bytes(_)
        | Value::Duration(_)
        | Value::Type(_) => arg.to_string(),
        _ => {
            return refuse(STRING, arg);
        }
    })
}

fn decimal(arg: &Value<'_>) -> Formatted {
    match arg {
        Value::Int(_) | Value::Uint(_) => Ok(arg.to_string()),
        _ => refuse(DECIMAL, arg),
    }
}

/// The number that a clause for doubles accepts.
fn double(arg: &Value<'_>) -> Option<f64> {
    match arg {
        Value::Double(value) => Some(*value),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn not_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("\u{221e}")
    } else if value == f64::NEG_INFINITY {
        Some("-\u{221e}")
    } else {
        None
    }
}

fn fixed(arg: &Value<'_>, precision: usize) -> Formatted {
    let Some(value) = double(arg) else {
        return refuse(FIXED, arg);
    };
    if let Some(name) = not_finite(value) {
        return Ok(name.into());
    }
    let plain = format!("{value:.precision$}");
    let (whole, fraction) =
        plain.split_once('.').map_or((&*plain, None), |(whole, rest)| (whole, Some(rest)));
    let mut out = grouped(whole);
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    Ok(out)
}

/// `1234567` as `1,234,567`.
fn grouped(whole: &str) -> String {
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut out = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn scientific(arg: &Value<'_>, precision: usize) -> Formatted {
    let Some(value) = double(arg) else {
        return refuse(SCIENTIFIC, arg);
    };
    if let Some(name) = not_finite(value) {
        return Ok(name.into());
    }
    let plain = format!("{value:.precision$e}");
    let (mantissa, exponent) = plain.split_once('e').expect("written with an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let mut out = format!("{mantissa}\u{d7}10");
    if exponent < 0 {
        out.push('\u{207b}');
    }
    for digit in format!("{:02}", exponent.abs()).bytes() {
        out.push(
            [
                '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}',
                '\u{2078}', '\u{2079}',
            ][usize::from(digit - b'0')],
        );
    }
    Ok(out)
}

fn signed(value: i64, write: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", write(value.unsigned_abs()))
}

fn binary(arg: &Value<'_>) -> Formatted {
    Ok(match arg {
        Value::Int(value) => signed(*value, |value| format!("{value:b}")),
        Value::Uint(value) => format!("{value:b}"),
        Value::Bool(value) => if *value { "1" } else { "0" }.into(),
        _ => return refuse(BINARY, arg),
    })
}

fn hex(arg: &Value<'_>, upper: bool) -> Formatted {
    let bytes = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    };
    let written = match arg {
        Value::Int(value) => signed(*value, |value| format!("{value:x}")),
        Value::Uint(value) => format!("{value:x}"),
        Value::String(text) => bytes(text.as_bytes()),
        Value::Bytes(value) => bytes(value),
        _ => return refuse(HEX, arg),
    };
    Ok(if upper { written.to_uppercase() } else { written })
}

fn octal(arg: &Value<'_>) -> Formatted {
    Ok(match arg {
        Value::Int(value) => signed(*value, |value| format!("{value:o}")),
        Value::Uint(value) => format!("{value:o}"),
        _ => return refuse(OCTAL, arg),
    })
}

/// A value inside a list or a map.
fn member(value: &Value<'_>) -> Formatted {
    Ok(match value {
        Value::String(text) => go_quote(text).to_string(),
        Value::Bytes(_) => format!("b{}", go_quote(&value.to_string())),
        Value::Double(number) => match not_finite(*number) {
            None => format!("{number:.PRECISION$}"),
            Some(_) if number.is_nan() => "\"NaN\"".into(),
            Some(_) => go_quote(if *number > 0.0 { "+Inf" } else { "-Inf" }).to_string(),
        },
        Value::Timestamp(time) => format!("timestamp({})", go_quote(&time::format_timestamp(*time))),
        Value::Duration(nanos) => format!("duration({})", go_quote(&time::format_duration_seconds(*nanos))),
        Value::List(list) => format_list(list)?,
        Value::Map(map) => format_map(map)?,
        Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Null | Value::Type(_) => value.to_string(),
        other => {
            return Err(EvalError::new(format!("no formatting function for {}", other.type_of().name())));
        }
    })
}

fn format_list(list: &List<'_>) -> Formatted {
    let items = list.iter().map(|item| member(&item?)).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("[{}]", items.join(", ")))
}

fn format_map(map: &Map<'_>) -> Formatted {
    let mut entries = Vec::with_capacity(map.len());
    for (key, value) in map.entries() {
        let key = match &key {
            Key::String(text) => go_quote(text).to_string(),
            other => other.to_string(),
        };
        entries.push((key, member(&value?)?));
    }
    entries.sort();
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", entries.join(", ")))
}
