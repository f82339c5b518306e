//! The list libraries: cel-go's, version 3, and Kubernetes' own.

use std::cmp::Ordering;

use super::{Implementation, Row};
use crate::eval_error::EvalError;
use crate::value::{Evaluated, List, Value};

/// The longest list that `lists.range` makes; its cost would exceed every budget before.
const RANGE_MAX: i64 = 1_000_000;

pub(super) const FUNCTIONS: &[Row] = &[
    ("isSorted", is_sorted, &[("list_{}_is_sorted_bool", "list<T>::f() -> bool where T:comparable")]),
    ("sum", |args| sum(args, Value::Int(0)), &[("list_{}_sum_{}", "list<T>::f() -> T where T:summable")]),
    (
        "max",
        |args| extreme(args, "max", Ordering::Less),
        &[("list_{}_max_{}", "list<T>::f() -> T where T:comparable")],
    ),
    (
        "min",
        |args| extreme(args, "min", Ordering::Greater),
        &[("list_{}_min_{}", "list<T>::f() -> T where T:comparable")],
    ),
    ("slice", slice, &[("list_slice", "list<T>::f(int, int) -> list<T>")]),
    (
        "flatten",
        flatten,
        &[
            ("list_flatten", "list<list<T>>::f() -> list<T>"),
            ("list_flatten_int", "list<dyn>::f(int) -> list<dyn>"),
        ],
    ),
    ("sort", sort, &[("list_{}_sort", "list<T>::f() -> list<T> where T:comparable")]),
    (
        "@sortByAssociatedKeys",
        sort_by,
        &[("list_{}_sortByAssociatedKeys", "list<A>::f(list<T>) -> list<A> where T:comparable")],
    ),
    ("lists.range", range, &[("lists_range", "f(int) -> list<int>")]),
    ("reverse", reverse, &[("list_reverse", "list<T>::f() -> list<T>")]),
    ("distinct", distinct, &[("list_distinct", "list<T>::f() -> list<T>")]),
];

fn list<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>, EvalError> {
    match args {
        [Value::List(list), ..] => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// Where `item` is in `list`, or -1.
pub(super) fn position<'a>(list: &List<'a>, item: &Value<'a>, last: bool) -> Evaluated<'a> {
    let found =
        |index: usize| list.get(index).is_some_and(|other| other.is_ok_and(|other| other.equals(item)));
    let mut indices = 0..list.len();
    let at = if last { indices.rfind(|&index| found(index)) } else { indices.find(|&index| found(index)) };
    Ok(Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let items = list(args)?.items()?;
    for pair in items.windows(2) {
        if pair[0].compare(&pair[1])? == Some(Ordering::Greater) {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

/// The code of `sum` for lists of a known type, where an empty list has a sum of that type.
pub(crate) fn typed_sum(overload: &str) -> Option<Implementation> {
    Some(match overload {
        "list_uint_sum_uint" => |args| sum(args, Value::Uint(0)),
        "list_double_sum_double" => |args| sum(args, Value::Double(0.0)),
        "list_duration_sum_duration" => |args| sum(args, Value::Duration(0)),
        _ => return None,
    })
}

fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Evaluated<'a> {
    let mut items = list(args)?.items()?.into_iter();
    let Some(mut total) = items.next() else { return Ok(zero) };
    for item in items {
        total = super::standard::add(&[total, item])?;
    }
    Ok(total)
}

/// The item to which no other compares as `worse` says.
fn extreme<'a>(args: &[Value<'a>], name: &str, worse: Ordering) -> Evaluated<'a> {
    let mut items = list(args)?.items()?.into_iter();
    let Some(mut best) = items.next() else {
        return Err(EvalError::new(format!("{name} called on empty list")));
    };
    for item in items {
        if best.compare(&item)? == Some(worse) {
            best = item;
        }
    }
    Ok(best)
}

fn slice<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else {
        return Err(EvalError::no_such_overload());
    };
    let refuse = |why: String| Err(EvalError::new(format!("cannot slice({start}, {end}), {why}")));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return refuse("negative indexes not supported".into());
    };
    if from > to {
        return refuse("start index must be less than or equal to end index".into());
    }
    if list.len() < to {
        return refuse(format!("list is length {}", list.len()));
    }
    let items = (from..to).map_while(|index| list.get(index)).collect::<Result<Vec<_>, _>>()?;
    Ok(Value::list(items))
}

fn flatten<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let depth = match args {
        [Value::List(_)] => 1,
        [Value::List(_), Value::Int(depth)] => *depth,
        _ => return Err(EvalError::no_such_overload()),
    };
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut out = Vec::new();
    flatten_into(list(args)?, depth, &mut out)?;
    Ok(Value::list(out))
}

/// Nesting of values is bounded by that of the tree or of the expression they come from.
fn flatten_into<'a>(list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> Result<(), EvalError> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, out)?,
            item => out.push(item),
        }
    }
    Ok(())
}

fn sort<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let list = list(args)?;
    sorted(list, list)
}

fn sort_by<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::List(list), Value::List(keys)] => sorted(list, keys),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn sorted<'a>(list: &List<'a>, keys: &List<'a>) -> Evaluated<'a> {
    if list.len() != keys.len() {
        return Err(EvalError::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        )));
    }
    let keys = keys.items()?;
    if let Some(first) = keys.first() {
        first.compare(first).map_err(|_| EvalError::new("list elements must be comparable"))?;
        if keys.iter().any(|key| !key.type_of().same_kind(&first.type_of())) {
            return Err(EvalError::new("list elements must have the same type"));
        }
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(list.items()?).collect();
    pairs.sort_by(|(a, _), (b, _)| a.compare(b).ok().flatten().unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn range<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(end)] if *end > RANGE_MAX => Err(EvalError::cost_limit()),
        [Value::Int(end)] => Ok(Value::list((0..*end).map(Value::Int).collect())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn reverse<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let mut items = list(args)?.items()?;
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in list(args)?.iter() {
        let item = item?;
        if !out.iter().any(|seen| seen.equals(&item)) {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}
