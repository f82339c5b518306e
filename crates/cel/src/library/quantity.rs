//! Resource quantities.

use std::cmp::Ordering;

use apimachinery::Quantity;
use apimachinery::quantity::Format;

use super::{Row, semver};
use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("quantity", to_quantity, &[("string_to_quantity", "f(string) -> quantity")]),
    ("isQuantity", is_quantity, &[("is_quantity_string", "f(string) -> bool")]),
    ("sign", sign, &[("quantity_sign", "quantity::f() -> int")]),
    (
        "isGreaterThan",
        |args| compared(args, |order| Value::Bool(order.is_gt())),
        &[
            ("quantity_is_greater_than", "quantity::f(quantity) -> bool"),
            ("semver_is_greater_than", "semver::f(semver) -> bool"),
        ],
    ),
    (
        "isLessThan",
        |args| compared(args, |order| Value::Bool(order.is_lt())),
        &[
            ("quantity_is_less_than", "quantity::f(quantity) -> bool"),
            ("semver_is_less_than", "semver::f(semver) -> bool"),
        ],
    ),
    (
        "compareTo",
        |args| compared(args, |order| Value::Int(order as i64)),
        &[
            ("quantity_compare_to", "quantity::f(quantity) -> int"),
            ("semver_compare_to", "semver::f(semver) -> int"),
        ],
    ),
    ("asApproximateFloat", as_float, &[("quantity_get_float", "quantity::f() -> double")]),
    ("asInteger", as_integer, &[("quantity_get_int", "quantity::f() -> int")]),
    ("isInteger", is_integer, &[("quantity_is_integer", "quantity::f() -> bool")]),
    (
        "add",
        |args| combined(args, Quantity::add),
        &[
            ("quantity_add", "quantity::f(quantity) -> quantity"),
            ("quantity_add_int", "quantity::f(int) -> quantity"),
        ],
    ),
    (
        "sub",
        |args| combined(args, Quantity::sub),
        &[
            ("quantity_sub", "quantity::f(quantity) -> quantity"),
            ("quantity_sub_int", "quantity::f(int) -> quantity"),
        ],
    ),
];

fn to_quantity<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Quantity::parse(text)
            .map(|quantity| Value::opaque(Opaques::Quantity(quantity)))
            .map_err(|error| EvalError::new(error.to_string())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_quantity<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn quantity(value: Option<&Value<'_>>) -> Result<Quantity, EvalError> {
    match value {
        Some(Value::Opaque(value)) => match &**value {
            Opaques::Quantity(quantity) => Ok(*quantity),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn sign<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Int(quantity(args.first())?.sign().into()))
}

/// Compares two quantities or two versions.
fn compared<'a>(args: &[Value<'a>], result: impl Fn(Ordering) -> Value<'a>) -> Evaluated<'a> {
    let [Value::Opaque(a), Value::Opaque(b)] = args else { return Err(EvalError::no_such_overload()) };
    match (&**a, &**b) {
        (Opaques::Quantity(a), Opaques::Quantity(b)) => Ok(result(a.cmp(b))),
        (Opaques::Semver(a), Opaques::Semver(b)) => Ok(result(semver::compare(a, b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn as_float<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Double(quantity(args.first())?.approximate_f64()))
}

/// The whole number that a quantity is, if it is one and fits.
fn exact(quantity: Quantity) -> Option<i64> {
    let value = quantity.value();
    (quantity.is_integer() && Quantity::new(value, Format::DecimalSi) == quantity).then_some(value)
}

fn as_integer<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    exact(quantity(args.first())?)
        .map(Value::Int)
        .ok_or_else(|| EvalError::new("cannot convert value to integer"))
}

fn is_integer<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Bool(exact(quantity(args.first())?).is_some()))
}

fn combined<'a>(args: &[Value<'a>], combine: impl Fn(Quantity, Quantity) -> Quantity) -> Evaluated<'a> {
    let other = match args.get(1) {
        Some(Value::Int(value)) => Quantity::new(*value, Format::DecimalSi),
        other => quantity(other)?,
    };
    Ok(Value::opaque(Opaques::Quantity(combine(quantity(args.first())?, other))))
}
