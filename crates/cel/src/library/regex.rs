//! `find` and `findAll`.

use super::Row;
use crate::eval_error::EvalError;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("find", find, &[("string_find_string", "string::f(string) -> string")]),
    (
        "findAll",
        find_all,
        &[
            ("string_find_all_string", "string::f(string) -> list<string>"),
            ("string_find_all_string_int", "string::f(string, int) -> list<string>"),
        ],
    ),
];

fn compile(pattern: &str) -> Result<::regex::Regex, EvalError> {
    crate::regex::compile(pattern).map_err(|error| EvalError::new(format!("Illegal regex: {error}")))
}

fn find<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => Ok(first_match(&compile(pattern)?, text)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn find_all<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(pattern), limit @ ..] => {
            all_matches(&compile(pattern)?, text, limit)
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(crate) fn first_match<'a>(regex: &::regex::Regex, text: &str) -> Value<'a> {
    Value::text(regex.find(text).map_or("", |found| found.as_str()))
}

pub(crate) fn all_matches<'a>(regex: &::regex::Regex, text: &str, limit: &[Value<'a>]) -> Evaluated<'a> {
    let limit = match limit {
        [] => usize::MAX,
        [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::list(regex.find_iter(text).take(limit).map(|found| Value::text(found.as_str())).collect()))
}
