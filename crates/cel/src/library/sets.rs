//! Lists as sets.

use super::Row;
use crate::eval_error::EvalError;
use crate::value::{Evaluated, List, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    (
        "sets.contains",
        |args| decide(args, contains),
        &[("list_sets_contains_list", "f(list<T>, list<T>) -> bool")],
    ),
    (
        "sets.equivalent",
        |args| decide(args, |a, b| contains(a, b) && contains(b, a)),
        &[("list_sets_equivalent_list", "f(list<T>, list<T>) -> bool")],
    ),
    (
        "sets.intersects",
        |args| decide(args, |a, b| a.iter().any(|item| b.iter().any(|other| item.equals(other)))),
        &[("list_sets_intersects_list", "f(list<T>, list<T>) -> bool")],
    ),
];

fn decide<'a>(args: &[Value<'a>], decide: impl Fn(&[Value<'a>], &[Value<'a>]) -> bool) -> Evaluated<'a> {
    let items = |list: &List<'a>| list.items();
    match args {
        [Value::List(a), Value::List(b)] => Ok(Value::Bool(decide(&items(a)?, &items(b)?))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn contains(all: &[Value<'_>], some: &[Value<'_>]) -> bool {
    some.iter().all(|item| all.iter().any(|other| other.equals(item)))
}
