//! What the language itself defines: operators, conversions, sizes, times.

use std::cmp::Ordering;

use apimachinery::duration;
use apimachinery::field::go_float;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Row;
use crate::ast::operator;
use crate::eval_error::EvalError;
use crate::number;
use crate::time;
use crate::value::{Evaluated, Text, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    (operator::CONDITIONAL, never, &[("conditional", "f(bool, A, A) -> A")]),
    (operator::AND, never, &[("logical_and", "f(bool, bool) -> bool")]),
    (operator::OR, never, &[("logical_or", "f(bool, bool) -> bool")]),
    (operator::NOT, not, &[("logical_not", "f(bool) -> bool")]),
    (operator::NOT_STRICTLY_FALSE, never, &[("not_strictly_false", "f(bool) -> bool")]),
    (operator::EQUALS, never, &[("equals", "f(A, A) -> bool")]),
    (operator::NOT_EQUALS, never, &[("not_equals", "f(A, A) -> bool")]),
    (
        operator::ADD,
        add,
        &[
            ("add_bytes", "f(bytes, bytes) -> bytes"),
            ("add_double", "f(double, double) -> double"),
            ("add_duration_duration", "f(duration, duration) -> duration"),
            ("add_duration_timestamp", "f(duration, timestamp) -> timestamp"),
            ("add_timestamp_duration", "f(timestamp, duration) -> timestamp"),
            ("add_int64", "f(int, int) -> int"),
            ("add_list", "f(list<A>, list<A>) -> list<A>"),
            ("add_string", "f(string, string) -> string"),
            ("add_uint64", "f(uint, uint) -> uint"),
        ],
    ),
    (
        operator::DIVIDE,
        divide,
        &[
            ("divide_double", "f(double, double) -> double"),
            ("divide_int64", "f(int, int) -> int"),
            ("divide_uint64", "f(uint, uint) -> uint"),
        ],
    ),
    (
        operator::MODULO,
        modulo,
        &[("modulo_int64", "f(int, int) -> int"), ("modulo_uint64", "f(uint, uint) -> uint")],
    ),
    (
        operator::MULTIPLY,
        multiply,
        &[
            ("multiply_double", "f(double, double) -> double"),
            ("multiply_int64", "f(int, int) -> int"),
            ("multiply_uint64", "f(uint, uint) -> uint"),
        ],
    ),
    (
        operator::NEGATE,
        negate,
        &[("negate_double", "f(double) -> double"), ("negate_int64", "f(int) -> int")],
    ),
    (
        operator::SUBTRACT,
        subtract,
        &[
            ("subtract_double", "f(double, double) -> double"),
            ("subtract_duration_duration", "f(duration, duration) -> duration"),
            ("subtract_int64", "f(int, int) -> int"),
            ("subtract_timestamp_duration", "f(timestamp, duration) -> timestamp"),
            ("subtract_timestamp_timestamp", "f(timestamp, timestamp) -> duration"),
            ("subtract_uint64", "f(uint, uint) -> uint"),
        ],
    ),
    (
        operator::LESS,
        less,
        &[
            ("less_bool", "f(bool, bool) -> bool"),
            ("less_int64", "f(int, int) -> bool"),
            ("less_int64_double", "f(int, double) -> bool"),
            ("less_int64_uint64", "f(int, uint) -> bool"),
            ("less_uint64", "f(uint, uint) -> bool"),
            ("less_uint64_double", "f(uint, double) -> bool"),
            ("less_uint64_int64", "f(uint, int) -> bool"),
            ("less_double", "f(double, double) -> bool"),
            ("less_double_int64", "f(double, int) -> bool"),
            ("less_double_uint64", "f(double, uint) -> bool"),
            ("less_string", "f(string, string) -> bool"),
            ("less_bytes", "f(bytes, bytes) -> bool"),
            ("less_timestamp", "f(timestamp, timestamp) -> bool"),
            ("less_duration", "f(duration, duration) -> bool"),
        ],
    ),
    (
        operator::LESS_EQUALS,
        less_equals,
        &[
            ("less_equals_bool", "f(bool, bool) -> bool"),
            ("less_equals_int64", "f(int, int) -> bool"),
            ("less_equals_int64_double", "f(int, double) -> bool"),
            ("less_equals_int64_uint64", "f(int, uint) -> bool"),
            ("less_equals_uint64", "f(uint, uint) -> bool"),
            ("less_equals_uint64_double", "f(uint, double) -> bool"),
            ("less_equals_uint64_int64", "f(uint, int) -> bool"),
            ("less_equals_double", "f(double, double) -> bool"),
            ("less_equals_double_int64", "f(double, int) -> bool"),
            ("less_equals_double_uint64", "f(double, uint) -> bool"),
            ("less_equals_string", "f(string, string) -> bool"),
            ("less_equals_bytes", "f(bytes, bytes) -> bool"),
            ("less_equals_timestamp", "f(timestamp, timestamp) -> bool"),
            ("less_equals_duration", "f(duration, duration) -> bool"),
        ],
    ),
    (
        operator::GREATER,
        greater,
        &[
            ("greater_bool", "f(bool, bool) -> bool"),
            ("greater_int64", "f(int, int) -> bool"),
            ("greater_int64_double", "f(int, double) -> bool"),
            ("greater_int64_uint64", "f(int, uint) -> bool"),
            ("greater_uint64", "f(uint, uint) -> bool"),
            ("greater_uint64_double", "f(uint, double) -> bool"),
            ("greater_uint64_int64", "f(uint, int) -> bool"),
            ("greater_double", "f(double, double) -> bool"),
            ("greater_double_int64", "f(double, int) -> bool"),
            ("greater_double_uint64", "f(double, uint) -> bool"),
            ("greater_string", "f(string, string) -> bool"),
            ("greater_bytes", "f(bytes, bytes) -> bool"),
            ("greater_timestamp", "f(timestamp, timestamp) -> bool"),
            ("greater_duration", "f(duration, duration) -> bool"),
        ],
    ),
    (
        operator::GREATER_EQUALS,
        greater_equals,
        &[
            ("greater_equals_bool", "f(bool, bool) -> bool"),
            ("greater_equals_int64", "f(int, int) -> bool"),
            ("greater_equals_int64_double", "f(int, double) -> bool"),
            ("greater_equals_int64_uint64", "f(int, uint) -> bool"),
            ("greater_equals_uint64", "f(uint, uint) -> bool"),
            ("greater_equals_uint64_double", "f(uint, double) -> bool"),
            ("greater_equals_uint64_int64", "f(uint, int) -> bool"),
            ("greater_equals_double", "f(double, double) -> bool"),
            ("greater_equals_double_int64", "f(double, int) -> bool"),
            ("greater_equals_double_uint64", "f(double, uint) -> bool"),
            ("greater_equals_string", "f(string, string) -> bool"),
            ("greater_equals_bytes", "f(bytes, bytes) -> bool"),
            ("greater_equals_timestamp", "f(timestamp, timestamp) -> bool"),
            ("greater_equals_duration", "f(duration, duration) -> bool"),
        ],
    ),
    (
        operator::INDEX,
        never,
        &[("index_list", "f(list<A>, int) -> A"), ("index_map", "f(map<A, B>, A) -> B")],
    ),
    (operator::IN, contained, &[("in_list", "f(A, list<A>) -> bool"), ("in_map", "f(A, map<A, B>) -> bool")]),
    (
        "size",
        size,
        &[
            ("size_bytes", "f(bytes) -> int"),
            ("bytes_size", "bytes::f() -> int"),
            ("size_list", "f(list<A>) -> int"),
            ("list_size", "list<A>::f() -> int"),
            ("size_map", "f(map<A, B>) -> int"),
            ("map_size", "map<A, B>::f() -> int"),
            ("size_string", "f(string) -> int"),
            ("string_size", "string::f() -> int"),
        ],
    ),
    ("type", type_of, &[("type", "f(A) -> type<A>")]),
    ("bool", to_bool, &[("bool_to_bool", "f(bool) -> bool"), ("string_to_bool", "f(string) -> bool")]),
    (
        "bytes",
        to_bytes,
        &[("bytes_to_bytes", "f(bytes) -> bytes"), ("string_to_bytes", "f(string) -> bytes")],
    ),
    (
        "double",
        to_double,
        &[
            ("double_to_double", "f(double) -> double"),
            ("int64_to_double", "f(int) -> double"),
            ("string_to_double", "f(string) -> double"),
            ("uint64_to_double", "f(uint) -> double"),
        ],
    ),
    (
        "duration",
        to_duration,
        &[
            ("duration_to_duration", "f(duration) -> duration"),
            ("string_to_duration", "f(string) -> duration"),
        ],
    ),
    ("dyn", identity, &[("to_dyn", "f(A) -> dyn")]),
    (
        "int",
        to_int,
        &[
            ("int64_to_int64", "f(int) -> int"),
            ("double_to_int64", "f(double) -> int"),
            ("duration_to_int64", "f(duration) -> int"),
            ("string_to_int64", "f(string) -> int"),
            ("timestamp_to_int64", "f(timestamp) -> int"),
            ("uint64_to_int64", "f(uint) -> int"),
        ],
    ),
    (
        "string",
        to_string,
        &[
            ("string_to_string", "f(string) -> string"),
            ("bool_to_string", "f(bool) -> string"),
            ("bytes_to_string", "f(bytes) -> string"),
            ("double_to_string", "f(double) -> string"),
            ("duration_to_string", "f(duration) -> string"),
            ("int64_to_string", "f(int) -> string"),
            ("timestamp_to_string", "f(timestamp) -> string"),
            ("uint64_to_string", "f(uint) -> string"),
        ],
    ),
    (
        "timestamp",
        to_timestamp,
        &[
            ("timestamp_to_timestamp", "f(timestamp) -> timestamp"),
            ("int64_to_timestamp", "f(int) -> timestamp"),
            ("string_to_timestamp", "f(string) -> timestamp"),
        ],
    ),
    (
        "uint",
        to_uint,
        &[
            ("uint64_to_uint64", "f(uint) -> uint"),
            ("double_to_uint64", "f(double) -> uint"),
            ("int64_to_uint64", "f(int) -> uint"),
            ("string_to_uint64", "f(string) -> uint"),
        ],
    ),
    ("contains", contains, &[("contains_string", "string::f(string) -> bool")]),
    ("endsWith", ends_with, &[("ends_with_string", "string::f(string) -> bool")]),
    ("startsWith", starts_with, &[("starts_with_string", "string::f(string) -> bool")]),
    (
        "matches",
        matches,
        &[("matches", "f(string, string) -> bool"), ("matches_string", "string::f(string) -> bool")],
    ),
    (
        "getFullYear",
        |args| with_time(args, |time| i64::from(time.year())),
        &[
            ("timestamp_to_year", "timestamp::f() -> int"),
            ("timestamp_to_year_with_tz", "timestamp::f(string) -> int"),
        ],
    ),
    (
        "getMonth",
        |args| with_time(args, |time| i64::from(time.month()) - 1),
        &[
            ("timestamp_to_month", "timestamp::f() -> int"),
            ("timestamp_to_month_with_tz", "timestamp::f(string) -> int"),
        ],
    ),
    (
        "getDayOfYear",
        |args| with_time(args, |time| i64::from(time.day_of_year()) - 1),
        &[
            ("timestamp_to_day_of_year", "timestamp::f() -> int"),
            ("timestamp_to_day_of_year_with_tz", "timestamp::f(string) -> int"),
        ],
    ),
    (
        "getDayOfMonth",
        |args| with_time(args, |time| i64::from(time.day()) - 1),
        &[
            ("timestamp_to_day_of_month", "timestamp::f() -> int"),
            ("timestamp_to_day_of_month_with_tz", "timestamp::f(string) -> int"),
        ],
    ),
    (
        "getDate",
        |args| with_time(args, |time| i64::from(time.day())),
        &[
            ("timestamp_to_day_of_month_1_based", "timestamp::f() -> int"),
            ("timestamp_to_day_of_month_1_based_with_tz", "timestamp::f(string) -> int"),
        ],
    ),
    (
        "getDayOfWeek",
        |args| with_time(args, |time| i64::from(time.weekday().to_sunday_zero_offset())),
        &[
            ("timestamp_to_day_of_week", "timestamp::f() -> int"),
            ("timestamp_to_day_of_week_with_tz", "timestamp::f(string) -> int"),
        ],
    ),
    (
        "getHours",
        |args| with_duration(args, 3_600_000_000_000, |time| i64::from(time.hour())),
        &[
            ("timestamp_to_hours", "timestamp::f() -> int"),
            ("timestamp_to_hours_with_tz", "timestamp::f(string) -> int"),
            ("duration_to_hours", "duration::f() -> int"),
        ],
    ),
    (
        "getMinutes",
        |args| with_duration(args, 60_000_000_000, |time| i64::from(time.minute())),
        &[
            ("timestamp_to_minutes", "timestamp::f() -> int"),
            ("timestamp_to_minutes_with_tz", "timestamp::f(string) -> int"),
            ("duration_to_minutes", "duration::f() -> int"),
        ],
    ),
    (
        "getSeconds",
        |args| with_duration(args, 1_000_000_000, |time| i64::from(time.second())),
        &[
            ("timestamp_to_seconds", "timestamp::f() -> int"),
            ("timestamp_to_seconds_tz", "timestamp::f(string) -> int"),
            ("duration_to_seconds", "duration::f() -> int"),
        ],
    ),
    (
        "getMilliseconds",
        |args| with_duration(args, 1_000_000, |time| i64::from(time.millisecond())),
        &[
            ("timestamp_to_milliseconds", "timestamp::f() -> int"),
            ("timestamp_to_milliseconds_with_tz", "timestamp::f(string) -> int"),
            ("duration_to_milliseconds", "duration::f() -> int"),
        ],
    ),
    (
        "cel.@mapInsert",
        never,
        &[
            ("@mapInsert_map_key_value", "f(map<K, V>, K, V) -> map<K, V>"),
            ("@mapInsert_map_map", "f(map<K, V>, map<K, V>) -> map<K, V>"),
        ],
    ),
];

/// What the evaluator has nodes for.
fn never<'a>(_: &[Value<'a>]) -> Evaluated<'a> {
    Err(EvalError::no_such_overload())
}

fn identity<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    args.first().cloned().ok_or_else(EvalError::no_such_overload)
}

fn not<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn integer<'a>(value: Option<i64>) -> Evaluated<'a> {
    value.map(Value::Int).ok_or_else(|| EvalError::new("integer overflow"))
}

fn unsigned<'a>(value: Option<u64>) -> Evaluated<'a> {
    value.map(Value::Uint).ok_or_else(|| EvalError::new("unsigned integer overflow"))
}

fn span<'a>(nanos: Option<i64>) -> Evaluated<'a> {
    nanos.map(Value::Duration).ok_or_else(|| EvalError::new("duration overflow"))
}

fn shifted<'a>(time: Timestamp, nanos: i64) -> Evaluated<'a> {
    time.checked_add(SignedDuration::from_nanos(nanos))
        .ok()
        .and_then(time::in_range)
        .map(Value::Timestamp)
        .ok_or_else(|| EvalError::new("timestamp overflow"))
}

pub(super) fn add<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_add(*b)),
        [Value::String(a), Value::String(b)] => Ok(Value::text([&**a, &**b].concat())),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes([&**a, &**b].concat().into())),
        [Value::List(a), Value::List(b)] => a.concat(b),
        [Value::Duration(a), Value::Duration(b)] => span(a.checked_add(*b)),
        [Value::Duration(nanos), Value::Timestamp(time)]
        | [Value::Timestamp(time), Value::Duration(nanos)] => shifted(*time, *nanos),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn subtract<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => span(a.checked_sub(*b)),
        [Value::Timestamp(time), Value::Duration(nanos)] => {
            shifted(*time, nanos.checked_neg().ok_or_else(|| EvalError::new("timestamp overflow"))?)
        }
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            span(i64::try_from(a.as_nanosecond() - b.as_nanosecond()).ok())
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(EvalError::new("division by zero"))
        }
        [Value::Int(a), Value::Int(b)] => integer(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(EvalError::new("modulus by zero"))
        }
        [Value::Int(a), Value::Int(b)] => integer(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(value)] => integer(value.checked_neg()),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        [Value::Duration(nanos)] => span(nanos.checked_neg()),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn ordered<'a>(args: &[Value<'a>], wanted: impl Fn(Ordering) -> bool) -> Evaluated<'a> {
    match args {
        [a, b] => Ok(Value::Bool(a.compare(b)?.is_some_and(wanted))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn less<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    ordered(args, Ordering::is_lt)
}

fn less_equals<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    ordered(args, Ordering::is_gt)
}

fn greater_equals<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    ordered(args, Ordering::is_ge)
}

fn contained<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [value, Value::List(list)] => {
            for item in list.iter() {
                if item?.equals(value) {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        [key, Value::Map(map)] => Ok(Value::Bool(map.contains(key)?)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            integer(i64::try_from(value.size()).ok())
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn type_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [value] => Ok(Value::Type(value.type_of())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn conversion<'a>(value: &Value<'a>, to: &str) -> EvalError {
    EvalError::new(format!("type conversion error from '{}' to '{to}'", value.type_of().name()))
}

fn to_bool<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [value @ Value::String(text)] => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(conversion(value, "bool")),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.clone())),
        [Value::String(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_double<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Double(value)] => Ok(Value::Double(*value)),
        [Value::Int(value)] => Ok(Value::Double(*value as f64)),
        [Value::Uint(value)] => Ok(Value::Double(*value as f64)),
        [value @ Value::String(text)] => {
            text.parse().map(Value::Double).map_err(|_| conversion(value, "double"))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_duration<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Duration(*nanos)),
        [value @ Value::String(text)] => duration::parse(text)
            .map(Value::Duration)
            .map_err(|_| conversion(value, "google.protobuf.Duration")),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_int<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(value)] => Ok(Value::Int(*value)),
        [Value::Uint(value)] => integer(i64::try_from(*value).ok()),
        [Value::Double(value)] => integer(number::double_to_int(*value)),
        [Value::Duration(nanos)] => Ok(Value::Int(*nanos)),
        [Value::Timestamp(time)] => Ok(Value::Int(time.as_second())),
        [value @ Value::String(text)] => text.parse().map(Value::Int).map_err(|_| conversion(value, "int")),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_uint<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Uint(value)] => Ok(Value::Uint(*value)),
        [Value::Int(value)] => unsigned(u64::try_from(*value).ok()),
        [Value::Double(value)] => unsigned(number::double_to_uint(*value)),
        [value @ Value::String(text)] => text.parse().map(Value::Uint).map_err(|_| conversion(value, "uint")),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(super) fn to_string<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(match args {
        [Value::String(text)] => Value::String(text.clone()),
        [Value::Bool(value)] => Value::text(if *value { "true" } else { "false" }),
        [Value::Int(value)] => Value::text(value.to_string()),
        [Value::Uint(value)] => Value::text(value.to_string()),
        [Value::Double(value)] => Value::text(go_float(*value)),
        [Value::Duration(nanos)] => Value::text(time::format_duration_seconds(*nanos)),
        [Value::Timestamp(time)] => Value::text(time::format_timestamp(*time)),
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => Value::text(text),
            Err(_) => return Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        [Value::Opaque(value)] => return super::ip::to_string(value),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Timestamp(time)] => Ok(Value::Timestamp(*time)),
        [Value::Int(seconds)] => time::from_seconds(*seconds)
            .map(Value::Timestamp)
            .ok_or_else(|| EvalError::new("timestamp overflow")),
        [value @ Value::String(text)] => time::parse_timestamp(text)
            .map(Value::Timestamp)
            .ok_or_else(|| conversion(value, "google.protobuf.Timestamp")),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn texts<'a>(args: &[Value<'a>], decide: impl Fn(&str, &str) -> bool) -> Evaluated<'a> {
    match args {
        [Value::String(a), Value::String(b)] => Ok(Value::Bool(decide(a, b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn contains<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    texts(args, |text, part| text.contains(part))
}

fn starts_with<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    texts(args, |text, start| text.starts_with(start))
}

fn ends_with<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    texts(args, |text, end| text.ends_with(end))
}

fn matches<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            Ok(Value::Bool(crate::regex::compile(pattern).map_err(EvalError::new)?.is_match(text)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn zoned(time: Timestamp, zone: Option<&Text<'_>>) -> Result<jiff::Zoned, EvalError> {
    let zone = match zone {
        None => TimeZone::UTC,
        Some(name) => {
            time::zone(name).ok_or_else(|| EvalError::new(format!("unknown time zone {}", &**name)))?
        }
    };
    Ok(time.to_zoned(zone))
}

fn with_time<'a>(args: &[Value<'a>], read: impl Fn(&jiff::Zoned) -> i64) -> Evaluated<'a> {
    match args {
        [Value::Timestamp(time)] => Ok(Value::Int(read(&zoned(*time, None)?))),
        [Value::Timestamp(time), Value::String(zone)] => Ok(Value::Int(read(&zoned(*time, Some(zone))?))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn with_duration<'a>(
    args: &[Value<'a>],
    nanos_per_unit: i64,
    read: impl Fn(&jiff::Zoned) -> i64,
) -> Evaluated<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / nanos_per_unit)),
        _ => with_time(args, read),
    }
}
