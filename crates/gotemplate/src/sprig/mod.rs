//! The functions of sprig (<https://masterminds.github.io/sprig>) that manifests use. The value that a function works on
//! comes last, so that it can be piped. Not here: what reads the environment or the network, hashes and certificates.

mod encoding;
mod lists;
mod maps;
mod numbers;
mod texts;
mod times;

use crate::Datum;
use crate::Parameter::{Any, Bool, Text};
use crate::builtin::{Native, fixed, variadic};
use crate::format::print;

pub const FUNCTIONS: [&[Native]; 7] = [
    GENERAL,
    encoding::FUNCTIONS,
    lists::FUNCTIONS,
    maps::FUNCTIONS,
    numbers::FUNCTIONS,
    texts::FUNCTIONS,
    times::FUNCTIONS,
];

const GENERAL: &[Native] = &[
    variadic("default", &[Any, Any], |args| {
        Ok(args.get(1).filter(|given| !is_empty(given)).unwrap_or(&args[0]).clone())
    }),
    fixed("empty", &[Any], |args| Ok(is_empty(&args[0]).into())),
    variadic("coalesce", &[Any], |args| {
        Ok(args.iter().find(|given| !is_empty(given)).cloned().unwrap_or(Datum::Nil))
    }),
    variadic("all", &[Any], |args| Ok((!args.iter().any(is_empty)).into())),
    variadic("any", &[Any], |args| Ok(args.iter().any(|given| !is_empty(given)).into())),
    fixed("ternary", &[Any, Any, Bool], |args| Ok(args[usize::from(!args[2].is_true())].clone())),
    fixed("fail", &[Text], |args| Err(text(&args[0]).to_owned())),
    fixed("kindOf", &[Any], |args| Ok(kind(&args[0]).into())),
    fixed("kindIs", &[Text, Any], |args| Ok((kind(&args[1]) == text(&args[0])).into())),
    fixed("typeOf", &[Any], |args| Ok(type_of(&args[0]).into())),
    fixed("typeIs", &[Text, Any], |args| Ok((type_of(&args[1]) == text(&args[0])).into())),
    fixed("deepEqual", &[Any, Any], |args| Ok((args[0].to_value() == args[1].to_value()).into())),
    fixed("deepCopy", &[Any], |args| Ok(args[0].deep_copy(0))),
    fixed("uuidv4", &[], |_| Ok(rt::uuid().into())),
];

/// The text of a parameter that is one.
fn text(datum: &Datum) -> &str {
    datum.as_text().unwrap_or_default()
}

/// Whether `default` replaces it.
fn is_empty(datum: &Datum) -> bool {
    !datum.is_true()
}

/// A value as a text.
fn shown(datum: &Datum) -> String {
    print(datum)
}

/// `reflect.Kind`.
fn kind(datum: &Datum) -> &'static str {
    match datum {
        Datum::Missing | Datum::Nil => "invalid",
        Datum::Bool(_) => "bool",
        Datum::Int(_) => "int",
        Datum::Float(_) => "float64",
        Datum::Text(_) | Datum::Number(_) => "string",
        Datum::Time(_) => "struct",
        Datum::List(_) => "slice",
        Datum::Map(_) => "map",
    }
}

fn type_of(datum: &Datum) -> &'static str {
    if datum.is_nil() { "<nil>" } else { datum.type_name() }
}
