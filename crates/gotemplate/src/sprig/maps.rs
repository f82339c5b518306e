//! Maps.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use apimachinery::Str;

use super::{is_empty, shown, text};
use crate::Datum;
use crate::Parameter::{Any, Map, Text};
use crate::builtin::{Native, fixed, variadic};

type Result<T = Datum> = std::result::Result<T, String>;
type Entries = Rc<RefCell<BTreeMap<Str, Datum>>>;

pub const FUNCTIONS: &[Native] = &[
    variadic("dict", &[Any], |args| {
        let pairs = args
            .chunks(2)
            .map(|pair| (Str::from(shown(&pair[0])), pair.get(1).cloned().unwrap_or_else(|| "".into())));
        Ok(Datum::map(pairs.collect()))
    }),
    fixed("get", &[Map, Text], |args| {
        let found = entries(&args[0]).and_then(|map| map.borrow().get(text(&args[1])).cloned());
        Ok(found.unwrap_or_else(|| "".into()))
    }),
    fixed("set", &[Map, Text, Any], |args| {
        let map = entries(&args[0]).ok_or("assignment to entry in nil map")?;
        // A copy, so that no map comes to hold itself.
        let value = args[2].deep_copy(0);
        map.borrow_mut().insert(text(&args[1]).into(), value);
        Ok(args[0].clone())
    }),
    fixed("unset", &[Map, Text], |args| {
        if let Some(map) = entries(&args[0]) {
            map.borrow_mut().remove(text(&args[1]));
        }
        Ok(args[0].clone())
    }),
    fixed("hasKey", &[Map, Text], |args| {
        Ok(entries(&args[0]).is_some_and(|map| map.borrow().contains_key(text(&args[1]))).into())
    }),
    variadic("pluck", &[Text, Map], |args| {
        let found = args[1..].iter().filter_map(entries);
        let found = found.filter_map(|map| map.borrow().get(text(&args[0])).cloned());
        Ok(found.collect::<Vec<_>>().into())
    }),
    variadic("keys", &[Map], |args| {
        let keys = args
            .iter()
            .filter_map(entries)
            .flat_map(|map| map.borrow().keys().map(|key| Datum::Text(key.clone())).collect::<Vec<_>>());
        Ok(keys.collect::<Vec<_>>().into())
    }),
    fixed("values", &[Map], |args| {
        let values = entries(&args[0]).map(|map| map.borrow().values().cloned().collect::<Vec<_>>());
        Ok(values.unwrap_or_default().into())
    }),
    variadic("pick", &[Map, Text], |args| kept(args, true)),
    variadic("omit", &[Map, Text], |args| kept(args, false)),
    variadic("merge", &[Map, Map], |args| merged(args, false)),
    variadic("mergeOverwrite", &[Map, Map], |args| merged(args, true)),
    variadic("dig", &[Any, Any], dig),
];

fn entries(datum: &Datum) -> Option<&Entries> {
    match datum {
        Datum::Map(map) => Some(map),
        _ => None,
    }
}

fn kept(args: &[Datum], named: bool) -> Result {
    let names: Vec<&str> = args[1..].iter().map(text).collect();
    let Some(map) = entries(&args[0]) else { return Ok(Datum::map(BTreeMap::new())) };
    let map = map.borrow();
    let kept = map.iter().filter(|(key, _)| names.contains(&key.as_str()) == named);
    Ok(Datum::map(kept.map(|(key, value)| (key.clone(), value.clone())).collect()))
}

/// Merges the others into the first, which is also the result.
fn merged(args: &[Datum], overwrites: bool) -> Result {
    let Some(target) = entries(&args[0]) else { return Ok("".into()) };
    for source in args[1..].iter().map(|source| source.deep_copy(0)) {
        if let Datum::Map(source) = source {
            merge(target, &source, overwrites);
        }
    }
    Ok(args[0].clone())
}

fn merge(target: &Entries, source: &Entries, overwrites: bool) {
    for (key, value) in source.borrow().iter() {
        let own = target.borrow().get(key).cloned();
        match (own, value) {
            (Some(Datum::Map(own)), Datum::Map(value)) => merge(&own, value, overwrites),
            (Some(own), _) if !is_empty(&own) && !overwrites => {}
            _ => _ = target.borrow_mut().insert(key.clone(), value.clone()),
        }
    }
}

/// `dig "a" "b" "default" map`
fn dig(args: &[Datum]) -> Result {
    let [path @ .., default, map] = args else { return Err("dig needs at least three arguments".into()) };
    if path.is_empty() {
        return Err("dig needs at least three arguments".into());
    }
    let mut value = map.clone();
    for key in path {
        let next = match &value {
            Datum::Map(map) => map.borrow().get(&*shown(key)).cloned(),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return Ok(default.clone()),
        }
    }
    Ok(value)
}
