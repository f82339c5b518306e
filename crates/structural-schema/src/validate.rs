//! What is wrong with a value, in the words of upstream's OpenAPI validator.
//!
//! Keywords are checked in upstream's order, because the alternatives of `anyOf` and `oneOf` are told by how many
//! checks they passed, and only the best one's complaints are shown. On an update, complaints about a part that did
//! not change are dropped (KEP-4008).
//!
//! Hot path: a good value costs no allocation.

use apimachinery::field::{Error, ErrorKind, ErrorList, Path, Shown, go_float, go_quote};
use apimachinery::{Number, Value};

use crate::Structural;
use crate::correlation::Correlated;
use crate::format::Format;
use crate::structural::{Bound, Kind, Validation};

/// Complaints about one value end here; nobody reads more, and each is compared with those before.
const FAULTS_MAX: usize = 1000;

/// All complaints about a new value; `base` is where it stands.
pub fn create(schema: &Structural, value: &Value, base: &Path<'_>) -> ErrorList {
    node(schema, value, &Place::Root, None).into_errors(base)
}

/// All complaints about a changed value that are not older than the change.
pub fn update(schema: &Structural, new: &Value, old: &Value, base: &Path<'_>) -> ErrorList {
    // Nothing to forgive is the usual case, and comparing costs more than checking.
    let plain = node(schema, new, &Place::Root, None);
    if plain.is_valid() {
        return ErrorList::new();
    }
    node(schema, new, &Place::Root, Some(Correlated { new, old, schema })).into_errors(base)
}

/// Whether an error means that rules over the object would be read on values of the wrong form.
pub fn is_blocking(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::NotSupported
            | ErrorKind::Required
            | ErrorKind::TooLong
            | ErrorKind::TooMany
            | ErrorKind::TypeInvalid
    )
}

/// Where the validator is; turned into text only for a complaint.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    /// A field that the schema names.
    Field(&'a Place<'a>, &'a str),
    /// One of many fields.
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) | Self::Key(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A complaint before it is known where the value stands.
struct Fault {
    /// The place, for a complaint that names one in its path.
    name: Option<String>,
    /// What tells complaints apart; in most cases also the detail that is shown.
    message: String,
    kind: ErrorKind,
    shown: Option<String>,
    detail: Option<String>,
}

/// What one schema said about a value.
#[derive(Default)]
struct Outcome {
    faults: Vec<Fault>,
    /// How many checks were made or passed, as upstream counts.
    matches: usize,
}

impl Outcome {
    fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }

    fn add(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX && !self.faults.iter().any(|own| own.message == fault.message) {
            self.faults.push(fault);
        }
    }

    fn merge(&mut self, other: Self) {
        self.matches += other.matches;
        if self.faults.is_empty() {
            self.faults = other.faults;
        } else {
            other.faults.into_iter().for_each(|fault| self.add(fault));
        }
    }

    fn into_errors(self, base: &Path<'_>) -> ErrorList {
        self.faults.into_iter().map(|fault| fault.into_error(base)).collect()
    }
}

impl Fault {
    fn invalid(place: &Place<'_>, shown: String, rest: impl std::fmt::Display) -> Self {
        Self {
            name: Some(place.to_string()),
            message: format!("{place} in body {rest}"),
            kind: ErrorKind::Invalid,
            shown: Some(shown),
            detail: None,
        }
    }

    /// `given` is the name of the type or format found, or the text that has not the format.
    fn of_type(place: &Place<'_>, wanted: &str, given: &str) -> Self {
        let given = go_quote(given);
        let rest = format!("must be of type {wanted}: {given}");
        Self { kind: ErrorKind::TypeInvalid, ..Self::invalid(place, given, rest) }
    }

    /// A complaint that carries its place in its text only.
    fn general(message: String) -> Self {
        Self { name: None, message, kind: ErrorKind::Invalid, shown: Some(go_quote("")), detail: None }
    }

    fn into_error(self, base: &Path<'_>) -> Error {
        let path = match self.name.as_deref().map(|name| name.trim_start_matches('.')) {
            None | Some("") => base.to_string(),
            Some(name) => base.child(name).to_string(),
        };
        Error { kind: self.kind, path, shown: self.shown, detail: self.detail.unwrap_or(self.message) }
    }
}

/// Judges a value, and forgives what is as old as the value.
fn node(schema: &Structural, value: &Value, place: &Place<'_>, was: Option<Correlated<'_>>) -> Outcome {
    let mut outcome = keywords(schema, value, place, was);
    if !outcome.is_valid() && was.is_some_and(Correlated::is_unchanged) {
        outcome.faults.clear();
    }
    outcome
}

fn keywords(schema: &Structural, value: &Value, place: &Place<'_>, was: Option<Correlated<'_>>) -> Outcome {
    let validation = schema.validation.as_deref();
    let mut outcome = Outcome::default();
    let format = validation.and_then(|validation| validation.format.as_ref());
    let has_type = schema.kind.is_some() || schema.int_or_string || format.is_some();
    if value.is_null() {
        null(&mut outcome, schema, place);
        validation.inspect(|validation| choices(&mut outcome, validation, value, place));
        return outcome;
    }
    if has_type {
        outcome.matches += 1;
        match type_fault(schema, value, place) {
            Some(fault) => outcome.add(fault),
            None => outcome.matches += 1,
        }
    }
    outcome.matches += 2;
    validation.inspect(|validation| alternatives(&mut outcome, validation, value, place, was));
    match value {
        Value::String(text) => {
            outcome.matches += 1 + usize::from(format.is_some_and(Format::is_of_text));
            validation.inspect(|validation| string(&mut outcome, validation, text, place));
        }
        Value::Number(number) => {
            outcome.matches += 2;
            numeric(&mut outcome, schema, *number, place);
        }
        Value::Array(items) => {
            outcome.matches += 2;
            list(&mut outcome, schema, items, place, was);
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => {}
    }
    outcome.matches += 1;
    validation.inspect(|validation| choices(&mut outcome, validation, value, place));
    if let Value::Object(map) = value {
        outcome.matches += 1;
        object(&mut outcome, schema, map, place, was);
    }
    outcome.matches += 1;
    outcome
}

fn null(outcome: &mut Outcome, schema: &Structural, place: &Place<'_>) {
    if (schema.kind.is_some() || schema.int_or_string) && !schema.nullable {
        outcome.add(Fault::of_type(place, type_names(schema), "null"));
    } else {
        outcome.matches += 1;
    }
}

fn type_names(schema: &Structural) -> &'static str {
    if schema.int_or_string { "integer,string" } else { schema.type_name() }
}

/// The types of a schema and its format decide together: a text of a checked format is left to that check, whatever
/// the type.
fn type_fault(schema: &Structural, value: &Value, place: &Place<'_>) -> Option<Fault> {
    let wants = |kind: Kind| {
        if schema.int_or_string {
            matches!(kind, Kind::Integer | Kind::String)
        } else {
            schema.kind == Some(kind)
        }
    };
    let (kind, own_format) = match value {
        Value::Null => return None,
        Value::Bool(_) => (Kind::Boolean, ""),
        Value::Number(Number::Int(_)) => (Kind::Integer, "int64"),
        Value::Number(_) => (Kind::Number, "float64"),
        Value::String(_) => (Kind::String, ""),
        Value::Array(_) => (Kind::Array, ""),
        Value::Object(_) => (Kind::Object, ""),
    };
    let is_number_all_the_same = match kind {
        Kind::Integer => wants(Kind::Number),
        Kind::Number => wants(Kind::Integer) && value.as_f64().is_some_and(is_whole),
        _ => false,
    };
    let fits = wants(kind) || is_number_all_the_same;
    let format = schema.validation.as_ref().and_then(|validation| validation.format.as_ref());
    if let Some(format) = format {
        match kind {
            Kind::String | Kind::Array if !wants(Kind::Number) && !wants(Kind::Integer) => return None,
            Kind::String | Kind::Array => {}
            _ if fits || own_format == format.name => {}
            _ => return Some(Fault::of_type(place, &format.name, own_format)),
        }
    }
    (!fits).then(|| Fault::of_type(place, type_names(schema), kind.name()))
}

fn alternatives(
    outcome: &mut Outcome,
    validation: &Validation,
    value: &Value,
    place: &Place<'_>,
    was: Option<Correlated<'_>>,
) {
    let quoted = || go_quote(&place.to_string());
    if !validation.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        for schema in &validation.any_of {
            let own = keywords(schema, value, place, was);
            let done = own.is_valid();
            if done || best.as_ref().is_none_or(|best| own.matches > best.matches) {
                best = Some(own);
            }
            if done {
                break;
            }
        }
        if let Some(best) = best {
            if !best.is_valid() {
                outcome
                    .add(Fault::general(format!("{} must validate at least one schema (anyOf)", quoted())));
            }
            outcome.merge(best);
        }
    }
    if !validation.one_of.is_empty() {
        let mut valid = 0;
        let mut best: Option<Outcome> = None;
        for schema in &validation.one_of {
            let own = keywords(schema, value, place, was);
            let first = own.is_valid() && valid == 0;
            valid += usize::from(own.is_valid());
            let better =
                !own.is_valid() && valid == 0 && best.as_ref().is_none_or(|best| own.matches > best.matches);
            if first || better {
                best = Some(own);
            }
        }
        if valid != 1 {
            let found = if valid == 0 {
                "Found none valid".into()
            } else {
                format!("Found {valid} valid alternatives")
            };
            let message = format!("{} must validate one and only one schema (oneOf). {found}", quoted());
            outcome.add(Fault::general(message));
        }
        if let Some(best) = best.filter(|_| valid <= 1) {
            outcome.merge(best);
        }
    }
    if !validation.all_of.is_empty() {
        let mut valid = 0;
        for schema in &validation.all_of {
            let own = keywords(schema, value, place, was);
            valid += usize::from(own.is_valid());
            outcome.merge(own);
        }
        if valid != validation.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            outcome.add(Fault::general(format!("{} must validate all the schemas (allOf){none}", quoted())));
        }
    }
    if let Some(not) = &validation.not
        && keywords(not, value, place, was).is_valid()
    {
        outcome.add(Fault::general(format!("{} must not validate the schema (not)", quoted())));
    }
}

/// Only the first complaint about a text is made.
fn string(outcome: &mut Outcome, validation: &Validation, text: &str, place: &Place<'_>) {
    let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(max) = validation.max_length.filter(|max| length() > *max) {
        outcome.add(Fault {
            kind: ErrorKind::TooLong,
            shown: None,
            detail: Some(format!("may not be more than {max} bytes")),
            ..Fault::invalid(place, String::new(), format_args!("should be at most {max} chars long"))
        });
    } else if let Some(min) = validation.min_length.filter(|min| length() < *min) {
        let rest = format_args!("should be at least {min} chars long");
        outcome.add(Fault::invalid(place, text.shown(), rest));
    } else if let Some(pattern) = &validation.pattern {
        match pattern.is_match(text) {
            Ok(true) => {}
            Ok(false) => {
                let rest = format_args!("should match '{}'", pattern.text());
                outcome.add(Fault::invalid(place, text.shown(), rest));
            }
            Err(why) => {
                let rest = format_args!("should match '{}, but pattern is invalid: {why}'", pattern.text());
                outcome.add(Fault::invalid(place, text.shown(), rest));
            }
        }
    }
    if let Some(format) = &validation.format
        && !format.allows_text(text)
    {
        outcome.add(Fault::of_type(place, &format.name, text));
    }
}

fn numeric(outcome: &mut Outcome, schema: &Structural, number: Number, place: &Place<'_>) {
    let whole = match number {
        Number::Int(whole) => Some(whole),
        Number::Uint(_) | Number::Float(_) => None,
    };
    let value = number.as_f64();
    range(outcome, schema, value, whole.is_some(), "Checked", place);
    let Some(validation) = schema.validation.as_deref() else { return };
    // A constraint that its own type cannot hold is checked as a number, like any constraint of a fraction.
    let bounded = |outcome: &mut Outcome, constraint: f64, what: &str| {
        let before = outcome.faults.len();
        range(outcome, schema, constraint, false, what, place);
        whole.filter(|_| outcome.faults.len() == before)
    };
    if let Some(factor) = validation.multiple_of {
        let whole = bounded(outcome, factor, "MultipleOf");
        multiple_of(outcome, whole, value, factor, place);
    }
    if let Some(Bound { at, exclusive }) = validation.minimum {
        let (below, limit) = match bounded(outcome, at, "Minimum boundary") {
            Some(whole) => (whole < at as i64 || exclusive && whole == at as i64, (at as i64).to_string()),
            None => (value < at || exclusive && value == at, go_float(at)),
        };
        if below {
            let words = if exclusive { "greater than" } else { "greater than or equal to" };
            let rest = format_args!("should be {words} {limit}");
            outcome.add(Fault::invalid(place, shown(number), rest));
        }
    }
    if let Some(Bound { at, exclusive }) = validation.maximum {
        let (above, limit) = match bounded(outcome, at, "Maximum boundary") {
            Some(whole) => (whole > at as i64 || exclusive && whole == at as i64, (at as i64).to_string()),
            None => (value > at || exclusive && value == at, go_float(at)),
        };
        if above {
            let words = if exclusive { "less than" } else { "less than or equal to" };
            let rest = format_args!("should be {words} {limit}");
            outcome.add(Fault::invalid(place, shown(number), rest));
        }
    }
}

fn shown(number: Number) -> String {
    Value::Number(number).shown()
}

/// Whether a number is of the schema's numeric type and format.
fn range(
    outcome: &mut Outcome,
    schema: &Structural,
    number: f64,
    whole: bool,
    what: &str,
    place: &Place<'_>,
) {
    let kind = schema.kind.filter(|_| !schema.int_or_string);
    let format = schema.validation.as_ref().and_then(|validation| validation.format.as_ref());
    let fits = match kind {
        Some(Kind::Integer) => {
            (whole || number.fract() == 0.0 && number.abs() < 9.3e18)
                && format.is_none_or(|format| format.allows_number(number))
        }
        Some(Kind::Number) => format.is_none_or(|format| format.allows_number(number)),
        _ => true,
    };
    if fits {
        return;
    }
    let name = schema.type_name();
    outcome.add(Fault::general(match format {
        Some(format) => format!("{what} value must be of type {name} with format {} in {place}", format.name),
        None => format!("{what} value must be of type {name} (default format) in {place}"),
    }));
}

fn multiple_of(outcome: &mut Outcome, whole: Option<i64>, value: f64, factor: f64, place: &Place<'_>) {
    let text = if whole.is_some() { (factor as i64).to_string() } else { go_float(factor) };
    let value_text = whole.map_or_else(|| go_float(value), |whole| whole.to_string());
    let is_positive = if whole.is_some() { factor as i64 > 0 } else { factor > 0.0 };
    if !is_positive {
        let message = format!("factor MultipleOf declared for {place} must be positive: {text}");
        outcome.add(Fault { name: Some(place.to_string()), shown: Some(text), ..Fault::general(message) });
        return;
    }
    let is_multiple = match whole {
        Some(whole) => whole % (factor as i64) == 0,
        None if factor < 1.0 => is_whole(1.0 / factor * value),
        None => is_whole(value / factor),
    };
    if !is_multiple {
        outcome.add(Fault::invalid(place, value_text, format_args!("should be a multiple of {text}")));
    }
}

/// Whether a float is an integer but for rounding, within what JSON can say exactly.
fn is_whole(number: f64) -> bool {
    const EXACT_MAX: f64 = ((1_u64 << 53) - 1) as f64;
    const EPSILON: f64 = 1e-9;
    if !number.is_finite() || number.abs() > EXACT_MAX {
        return false;
    }
    let nearest = number.trunc();
    if number == nearest {
        return true;
    }
    // Upstream rounds towards zero, and a negative number to a huge one.
    nearest > 0.0 && (number - nearest).abs() / (number.abs() + nearest) < EPSILON
}

fn list(
    outcome: &mut Outcome,
    schema: &Structural,
    items: &[Value],
    place: &Place<'_>,
    was: Option<Correlated<'_>>,
) {
    if let Some(schema) = &schema.items {
        let was = was.map(Correlated::items);
        for (index, item) in items.iter().enumerate() {
            let was = was.as_ref().and_then(|was| was.get(index));
            outcome.merge(node(schema, item, &Place::Index(place, index), was));
        }
    }
    let Some(validation) = schema.validation.as_deref() else { return };
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(min) = validation.min_items.filter(|min| size < *min) {
        let rest = format_args!("should have at least {min} items");
        outcome.add(Fault::invalid(place, size.shown(), rest));
    }
    if let Some(max) = validation.max_items.filter(|max| size > *max) {
        outcome.add(too_many(place, size, max, "items"));
    }
}

fn too_many(place: &Place<'_>, size: i64, max: i64, what: &str) -> Fault {
    Fault {
        kind: ErrorKind::TooMany,
        detail: Some(format!("must have at most {max} {}", if max == 1 { "item" } else { "items" })),
        ..Fault::invalid(place, size.shown(), format_args!("should have at most {max} {what}"))
    }
}

fn object(
    outcome: &mut Outcome,
    schema: &Structural,
    map: &apimachinery::Map,
    place: &Place<'_>,
    was: Option<Correlated<'_>>,
) {
    let validation = schema.validation.as_deref();
    let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
    if let Some(min) = validation.and_then(|own| own.min_properties).filter(|min| size < *min) {
        let rest = format_args!("should have at least {min} properties");
        outcome.add(Fault::invalid(place, size.shown(), rest));
    }
    if let Some(max) = validation.and_then(|own| own.max_properties).filter(|max| size > *max) {
        outcome.add(too_many(place, size, max, "properties"));
    }
    // What an object is, is not seen by its author: both sides of an update have the same version.
    let is_own = |name: &str| matches!(place, Place::Root) && matches!(name, "apiVersion" | "kind");
    let was_field = |name: &str| was.filter(|_| !is_own(name)).and_then(|was| was.key(name));
    if let Some(values) = schema.additional.schema() {
        for (name, value) in map {
            if schema.property(name).is_none() {
                outcome.merge(node(values, value, &Place::Key(place, name), was_field(name)));
            }
        }
    }
    if !schema.properties.is_empty() {
        for (name, value) in map {
            if let Some(property) = schema.property(name) {
                outcome.merge(node(property, value, &Place::Field(place, name), was_field(name)));
            }
        }
    }
    for name in validation.map(|own| &*own.required).unwrap_or_default() {
        if !map.contains_key(name) {
            outcome.add(Fault {
                kind: ErrorKind::Required,
                shown: None,
                detail: Some(String::new()),
                ..Fault::invalid(&Place::Key(place, name), String::new(), "is required")
            });
        }
    }
}

fn choices(outcome: &mut Outcome, validation: &Validation, value: &Value, place: &Place<'_>) {
    if validation.choices.is_empty() || validation.choices.iter().any(|choice| is_choice(value, choice)) {
        return;
    }
    let texts: Vec<String> = validation
        .choices
        .iter()
        .map(|choice| choice.as_str().map_or_else(|| choice.to_json_string(), str::to_owned))
        .collect();
    let quoted: Vec<String> = texts.iter().map(|text| go_quote(text)).collect();
    outcome.add(Fault {
        kind: ErrorKind::NotSupported,
        detail: Some(format!("supported values: {}", quoted.join(", "))),
        ..Fault::invalid(place, value.shown(), format_args!("should be one of [{}]", texts.join(" ")))
    });
}

/// Numbers are compared in the type of the choice.
fn is_choice(value: &Value, choice: &Value) -> bool {
    match (value, choice) {
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Number(value), Value::Number(Number::Int(choice))) => match value {
            Number::Int(value) => value == choice,
            other => other.as_f64() as i64 == *choice,
        },
        (Value::Number(value), Value::Number(choice)) => value.as_f64() == choice.as_f64(),
        (value, choice) => value == choice,
    }
}

#[cfg(test)]
mod tests;
