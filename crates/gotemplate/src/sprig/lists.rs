//! Lists. None is changed; what is added to is a new one.

use super::{is_empty, kind};
use crate::Parameter::{Any, Int};
use crate::builtin::{Native, fixed, variadic};
use crate::{Datum, STEPS_MAX, format};

type Result<T = Datum> = std::result::Result<T, String>;

pub const FUNCTIONS: &[Native] = &[
    variadic("list", &[Any], |args| Ok(args.to_vec().into())),
    variadic("tuple", &[Any], |args| Ok(args.to_vec().into())),
    fixed("first", &[Any], |args| Ok(items("first", &args[0])?.first().cloned().unwrap_or(Datum::Nil))),
    fixed("last", &[Any], |args| Ok(items("last", &args[0])?.last().cloned().unwrap_or(Datum::Nil))),
    fixed("rest", &[Any], |args| Ok(items("rest", &args[0])?.get(1..).unwrap_or_default().to_vec().into())),
    fixed("initial", &[Any], |args| {
        let items = items("initial", &args[0])?;
        Ok(items[..items.len().saturating_sub(1)].to_vec().into())
    }),
    fixed("append", &[Any, Any], |args| Ok([items("push", &args[0])?, &args[1..]].concat().into())),
    fixed("push", &[Any, Any], |args| Ok([items("push", &args[0])?, &args[1..]].concat().into())),
    fixed("prepend", &[Any, Any], |args| Ok([&args[1..], items("prepend", &args[0])?].concat().into())),
    variadic("concat", &[Any], |args| {
        let lists: Result<Vec<&[Datum]>> = args.iter().map(|list| items("concat", list)).collect();
        Ok(lists?.concat().into())
    }),
    fixed("reverse", &[Any], |args| {
        Ok(items("reverse", &args[0])?.iter().rev().cloned().collect::<Vec<_>>().into())
    }),
    fixed("uniq", &[Any], |args| {
        let mut kept: Vec<Datum> = Vec::new();
        for item in items("uniq", &args[0])? {
            if !contains(&kept, item) {
                kept.push(item.clone());
            }
        }
        Ok(kept.into())
    }),
    fixed("compact", &[Any], |args| {
        let kept = items("compact", &args[0])?.iter().filter(|item| !is_empty(item)).cloned();
        Ok(kept.collect::<Vec<_>>().into())
    }),
    variadic("without", &[Any, Any], |args| {
        let kept = items("without", &args[0])?.iter().filter(|item| !contains(&args[1..], item)).cloned();
        Ok(kept.collect::<Vec<_>>().into())
    }),
    fixed("has", &[Any, Any], |args| match &args[1] {
        Datum::Missing | Datum::Nil => Ok(false.into()),
        list => Ok(contains(items("has", list)?, &args[0]).into()),
    }),
    fixed("until", &[Int], |args| {
        let step = if integer(&args[0]) < 0 { -1 } else { 1 };
        numbers(0, integer(&args[0]), step)
    }),
    fixed("untilStep", &[Int, Int, Int], |args| {
        numbers(integer(&args[0]), integer(&args[1]), integer(&args[2]))
    }),
];

fn items<'a>(function: &str, datum: &'a Datum) -> Result<&'a [Datum]> {
    match datum {
        Datum::List(items) => Ok(items),
        other => Err(format!("Cannot find {function} on type {}", kind(other))),
    }
}

fn contains(items: &[Datum], wanted: &Datum) -> bool {
    let wanted = wanted.to_value();
    items.iter().any(|item| item.to_value() == wanted)
}

fn integer(datum: &Datum) -> i64 {
    match datum {
        Datum::Int(value) => *value,
        _ => 0,
    }
}

fn numbers(start: i64, stop: i64, step: i64) -> Result {
    let (distance, stride) = (i128::from(stop) - i128::from(start), i128::from(step));
    if stride == 0 || distance.signum() != stride.signum() {
        return Ok(Vec::<Datum>::new().into());
    }
    let count = distance.unsigned_abs().div_ceil(stride.unsigned_abs());
    if count > STEPS_MAX as u128 {
        return Err(format!("more than {} numbers", format::print(&Datum::Int(STEPS_MAX as i64))));
    }
    Ok((0..count as i64).map(|index| Datum::Int(start + index * step)).collect::<Vec<_>>().into())
}
