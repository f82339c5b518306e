//! What Stages ask of an object: in jq, or in CEL with the object as `self`.

use std::sync::LazyLock;
use std::time::Duration;

use apimachinery::{Str, Value, duration, time};
use cel::{Activation, Budget, Decl, Environment, Program, limits};
use jiff::Timestamp;

use super::jq::Query;

/// The environment of Stages.
static ENVIRONMENT: LazyLock<Environment> =
    LazyLock::new(|| Environment::new().simulation().variable("self", Decl::dynamic()));

/// Where a value comes from.
#[derive(Debug)]
pub enum Expression {
    Jq(Query),
    Cel(Program),
}

/// A condition on an object.
#[derive(Debug)]
pub enum Requirement {
    Jq { query: Query, operator: Str, values: Vec<Str> },
    Cel(Expression),
}

// === impl Expression ===

impl Expression {
    pub fn jq(text: &str) -> Result<Self, String> {
        Query::parse(text).map(Self::Jq)
    }

    pub fn cel(text: &str) -> Result<Self, String> {
        ENVIRONMENT.compile(text).map(Self::Cel).map_err(|error| error.to_string())
    }

    /// A number; `default` where there is nothing to read, `None` where what is read is none.
    pub fn integer(&self, object: &Value, default: i64) -> Option<i64> {
        match self {
            Self::Cel(program) => evaluate(program, object, |value| match value {
                cel::Value::Int(value) | cel::Value::Duration(value) => Some(*value),
                cel::Value::Uint(value) => i64::try_from(*value).ok(),
                cel::Value::Double(value) => Some(*value as i64),
                cel::Value::Bool(value) => Some((*value).into()),
                _ => None,
            }),
            Self::Jq(query) => match query.first(object).as_deref() {
                Some(Value::String(text)) => go_integer(text),
                Some(Value::Number(number)) => Some(number.as_f64() as i64),
                _ => Some(default),
            },
        }
    }

    /// A duration, or how long it is until a time; `default` where there is nothing of the kind to read.
    pub fn duration(
        &self,
        object: &Value,
        now: Timestamp,
        default: Option<Nanoseconds>,
    ) -> Option<Nanoseconds> {
        match self {
            Self::Cel(program) => evaluate(program, object, |value| match value {
                cel::Value::Duration(value) | cel::Value::Int(value) => Some(*value),
                cel::Value::Uint(value) => i64::try_from(*value).ok(),
                cel::Value::Double(value) => Some(*value as i64),
                cel::Value::String(text) => duration::parse(text).ok(),
                _ => None,
            }),
            Self::Jq(query) => match query.first(object).as_deref() {
                Some(Value::String(text)) if text.is_empty() => None,
                Some(Value::String(text)) => {
                    let until =
                        |at: Timestamp| i64::try_from(at.duration_since(now).as_nanos()).unwrap_or(i64::MAX);
                    time::parse(text).map(until).or_else(|| duration::parse(text).ok()).or(default)
                }
                _ => default,
            },
        }
    }
}

/// Can be negative: the time was before.
pub type Nanoseconds = i64;

/// What is left of a delay.
pub fn not_negative(nanoseconds: Nanoseconds) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// The value of an expression, if it has one of the wanted type.
fn evaluate<T>(program: &Program, object: &Value, read: impl Fn(&cel::Value<'_>) -> Option<T>) -> Option<T> {
    let mut activation = Activation::new(&ENVIRONMENT);
    activation.bind(0, cel::Value::dynamic(object));
    let value = program.eval(&activation, &mut Budget::new(limits::PER_CALL)).ok()?;
    read(&value)
}

/// `strconv.ParseInt` with base 0.
fn go_integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    i64::from_str_radix(digits, radix).ok().map(|value| sign * value)
}

// === impl Requirement ===

impl Requirement {
    /// What cannot be evaluated is not met, as far as it asks for something to be there.
    pub fn matches(&self, object: &Value) -> bool {
        match self {
            Self::Cel(Expression::Cel(program)) => {
                evaluate(program, object, |value| value.as_bool()).unwrap_or(false)
            }
            Self::Cel(Expression::Jq(_)) => false,
            Self::Jq { query, operator, values } => {
                let results = query.results(object);
                match operator.as_str() {
                    "In" => results.iter().any(|result| is_among(result, values)),
                    "NotIn" => !results.iter().any(|result| is_among(result, values)),
                    "Exists" => !results.is_empty(),
                    _ => results.is_empty(),
                }
            }
        }
    }
}

/// Texts, truths and whole numbers are compared as texts.
fn is_among(result: &Value, values: &[Str]) -> bool {
    match result {
        Value::String(text) => values.contains(text),
        Value::Bool(flag) => values.iter().any(|value| value == if *flag { "true" } else { "false" }),
        Value::Number(_) => {
            result.as_i64().is_some_and(|number| values.iter().any(|value| *value == number.to_string()))
        }
        _ => false,
    }
}
