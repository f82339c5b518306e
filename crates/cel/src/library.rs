//! The functions of the language and of Kubernetes' libraries.
//!
//! Each library is a table of signatures, in the notation of [`signature`], and the code behind them. A function is
//! one piece of code for all its overloads: it looks at the values it gets. Every library that Kubernetes 1.36 knows
//! was there in 1.34, so the set that new expressions may use (one release back) and the set for stored ones are the
//! same.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::types::{Opaque, Type};
use crate::value::{Evaluated, Value};

pub mod authorizer;
pub(crate) mod cidr;
mod ip;
mod json_patch;
pub(crate) mod lists;
pub(crate) mod named_format;
mod optional;
mod quantity;
pub(crate) mod regex;
pub(crate) mod semver;
mod sets;
mod simulation;
mod standard;
pub(crate) mod string_format;
mod strings;
pub(crate) mod url;

/// The code of a function.
pub(crate) type Implementation = for<'v, 'a> fn(&'v [Value<'a>]) -> Evaluated<'a>;

/// A function with its overloads.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
    pub implementation: Implementation,
}

/// One signature of a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub id: &'static str,
    /// Called on a receiver, which is the first parameter.
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
    /// How many letters stand for types.
    pub type_params: u32,
}

/// A function as libraries write it down: name, code, and id and signature of each overload.
pub(crate) type Row = (&'static str, Implementation, &'static [(&'static str, &'static str)]);

/// What every environment has.
pub(crate) static BASE: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    let libraries = [
        standard::FUNCTIONS,
        strings::FUNCTIONS,
        lists::FUNCTIONS,
        sets::FUNCTIONS,
        optional::FUNCTIONS,
        regex::FUNCTIONS,
        url::FUNCTIONS,
        ip::FUNCTIONS,
        cidr::FUNCTIONS,
        quantity::FUNCTIONS,
        semver::FUNCTIONS,
        named_format::FUNCTIONS,
        authorizer::FUNCTIONS,
    ];
    for row in libraries.into_iter().flatten() {
        add(&mut functions, row);
    }
    functions
});

/// What mutations have beyond [`BASE`].
pub(crate) static JSON_PATCH: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    for row in json_patch::FUNCTIONS {
        add(&mut functions, row);
    }
    functions
});

/// What simulations have: more functions, and overloads of operators beside those of [`BASE`].
pub(crate) static SIMULATION: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    for row in simulation::FUNCTIONS {
        add(&mut functions, row);
    }
    for row in standard::FUNCTIONS.iter().filter(|row| functions.contains_key(row.0)).collect::<Vec<_>>() {
        add(&mut functions, row);
    }
    functions
});

fn add(functions: &mut HashMap<&'static str, Function>, &(name, implementation, overloads): &Row) {
    let function =
        functions.entry(name).or_insert_with(|| Function { name, overloads: Vec::new(), implementation });
    function.overloads.extend(overloads.iter().flat_map(|&(id, text)| expand(id, text)));
}

/// Types that have an order, as overload ids and signatures spell them.
const COMPARABLE: [(&str, Type); 8] = [
    ("int", Type::Int),
    ("uint", Type::Uint),
    ("double", Type::Double),
    ("bool", Type::Bool),
    ("duration", Type::Duration),
    ("timestamp", Type::Timestamp),
    ("string", Type::String),
    ("bytes", Type::Bytes),
];

/// A signature with `T:comparable` or `T:summable` is one overload for each such type; its id has a `{}` for it.
fn expand(id: &'static str, text: &'static str) -> Vec<Overload> {
    let (types, body) = match text.split_once(" where T:") {
        Some((body, "comparable")) => (&COMPARABLE[..], body),
        Some((body, "summable")) => (&COMPARABLE[..3], body),
        _ => return vec![signature(id, text, None)],
    };
    let summable = text.ends_with("summable");
    let durations = if summable { &COMPARABLE[4..5] } else { &[] };
    types
        .iter()
        .chain(durations)
        .map(|(name, ty)| {
            let id = id.replace("{}", name);
            signature(Box::leak(id.into_boxed_str()), body, Some(ty))
        })
        .collect()
}

/// Reads `name(string, list<A>) -> A` or `receiver::name(int) -> bool`.
fn signature(id: &'static str, text: &str, templated: Option<&Type>) -> Overload {
    let mut reader = SignatureReader { rest: text, letters: 0, templated };
    let (call, result) = text.split_once(" -> ").expect("a signature has a result");
    let (head, params) = call.split_once('(').expect("a signature has parameters");
    let receiver = head.rsplit_once("::").map(|(receiver, _)| receiver);
    let mut types = Vec::new();
    if let Some(receiver) = receiver {
        reader.rest = receiver;
        types.push(reader.ty());
    }
    reader.rest = params.trim_end_matches(')');
    while !reader.rest.is_empty() {
        types.push(reader.ty());
        reader.rest = reader.rest.trim_start_matches(", ");
    }
    reader.rest = result;
    let result = reader.ty();
    Overload { id, member: receiver.is_some(), params: types, result, type_params: reader.letters }
}

struct SignatureReader<'s> {
    rest: &'s str,
    letters: u32,
    templated: Option<&'s Type>,
}

impl SignatureReader<'_> {
    fn ty(&mut self) -> Type {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Some(inner) = rest.strip_prefix('<') {
            self.rest = inner;
            let first = self.ty();
            let ty = if name == "map" {
                self.rest = self.rest.trim_start_matches(", ");
                Type::map(first, self.ty())
            } else {
                match name {
                    "list" => Type::list(first),
                    "optional" => Type::optional(first),
                    "type" => Type::of_type(first),
                    other => unreachable!("no type {other} has parameters"),
                }
            };
            self.rest = self.rest.strip_prefix('>').expect("brackets of signatures match");
            return ty;
        }
        self.plain(name)
    }

    fn plain(&mut self, name: &str) -> Type {
        match name {
            "dyn" => Type::Dyn,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "duration" => Type::Duration,
            "timestamp" => Type::Timestamp,
            "url" => Type::Opaque(Opaque::Url),
            "quantity" => Type::Opaque(Opaque::Quantity),
            "ip" => Type::Opaque(Opaque::Ip),
            "cidr" => Type::Opaque(Opaque::Cidr),
            "semver" => Type::Opaque(Opaque::Semver),
            "format" => Type::Opaque(Opaque::NamedFormat),
            "authorizer" => Type::Opaque(Opaque::Authorizer),
            "pathcheck" => Type::Opaque(Opaque::PathCheck),
            "groupcheck" => Type::Opaque(Opaque::GroupCheck),
            "resourcecheck" => Type::Opaque(Opaque::ResourceCheck),
            "decision" => Type::Opaque(Opaque::Decision),
            "T" => match self.templated {
                Some(ty) => ty.clone(),
                None => self.letter(0),
            },
            "A" | "K" => self.letter(0),
            "B" | "V" => self.letter(1),
            other => unreachable!("no type is called {other}"),
        }
    }

    fn letter(&mut self, number: u32) -> Type {
        self.letters = self.letters.max(number + 1);
        Type::Param(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read() {
        let overload = signature("x", "map<A, list<B>>::name(optional<A>, int) -> type<B>", None);
        assert!(overload.member);
        assert_eq!(overload.type_params, 2);
        assert_eq!(
            overload.params,
            [
                Type::map(Type::Param(0), Type::list(Type::Param(1))),
                Type::optional(Type::Param(0)),
                Type::Int
            ]
        );
        assert_eq!(overload.result, Type::of_type(Type::Param(1)));
        assert!(!signature("y", "f() -> int", None).member);
    }

    #[test]
    fn every_library_can_be_read() {
        assert!(BASE.len() > 100);
        assert_eq!(JSON_PATCH.len(), 1);
    }
}
