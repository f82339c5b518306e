//! Optional values. Selection, indexing, `or` and `orValue` are nodes of the evaluator.

use super::Row;
use crate::ast::operator;
use crate::eval_error::EvalError;
use crate::value::{Evaluated, List, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("optional.of", of, &[("optional_of", "f(V) -> optional<V>")]),
    ("optional.ofNonZeroValue", of_non_zero, &[("optional_ofNonZeroValue", "f(V) -> optional<V>")]),
    ("optional.none", |_| Ok(Value::Optional(None)), &[("optional_none", "f() -> optional<V>")]),
    ("value", value, &[("optional_value", "optional<V>::f() -> V")]),
    ("hasValue", has_value, &[("optional_hasValue", "optional<V>::f() -> bool")]),
    ("or", never, &[("optional_or_optional", "optional<V>::f(optional<V>) -> optional<V>")]),
    ("orValue", never, &[("optional_orValue_value", "optional<V>::f(V) -> V")]),
    (operator::OPTIONAL_SELECT, never, &[("select_optional_field", "f(dyn, string) -> optional<V>")]),
    (
        operator::OPTIONAL_INDEX,
        never,
        &[
            ("list_optindex_optional_int", "f(list<V>, int) -> optional<V>"),
            ("optional_list_optindex_optional_int", "f(optional<list<V>>, int) -> optional<V>"),
            ("map_optindex_optional_value", "f(map<K, V>, K) -> optional<V>"),
            ("optional_map_optindex_optional_value", "f(optional<map<K, V>>, K) -> optional<V>"),
        ],
    ),
    (
        operator::INDEX,
        never,
        &[
            ("optional_list_index_int", "f(optional<list<V>>, int) -> optional<V>"),
            ("optional_map_index_value", "f(optional<map<K, V>>, K) -> optional<V>"),
        ],
    ),
    ("first", |args| end(args, false), &[("list_first", "list<V>::f() -> optional<V>")]),
    ("last", |args| end(args, true), &[("list_last", "list<V>::f() -> optional<V>")]),
    ("optional.unwrap", unwrap, &[("optional_unwrap", "f(list<optional<V>>) -> list<V>")]),
    ("unwrapOpt", unwrap, &[("optional_unwrapOpt", "list<optional<V>>::f() -> list<V>")]),
];

fn never<'a>(_: &[Value<'a>]) -> Evaluated<'a> {
    Err(EvalError::no_such_overload())
}

fn of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [value] => Ok(Value::some(value.clone())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_non_zero<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [value] if value.is_zero() => Ok(Value::Optional(None)),
        args => of(args),
    }
}

fn value<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn has_value<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn end<'a>(args: &[Value<'a>], last: bool) -> Evaluated<'a> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let index = if last { list.len().saturating_sub(1) } else { 0 };
    Ok(match list.get(index) {
        Some(item) => Value::some(item?),
        None => Value::Optional(None),
    })
}

fn unwrap<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(list)] = args else { return Err(EvalError::no_such_overload()) };
    let mut out = List::owned(Vec::new());
    for item in list.iter() {
        match item? {
            Value::Optional(Some(value)) => out.push((*value).clone())?,
            Value::Optional(None) => {}
            other => return Err(EvalError::new(format!("value {other} is not optional"))),
        }
    }
    Ok(Value::List(out))
}
