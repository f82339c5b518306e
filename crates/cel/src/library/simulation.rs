//! What KWOK adds: functions of time and chance, and arithmetic on quantities.
//!
//! Each function can be called on its first argument, too. An object's field that holds a quantity is a text here,
//! since objects are trees: the operators take it for the quantity it is, beside one or beside a factor.

use std::cmp::Ordering;

use apimachinery::Quantity;

use super::{BASE, Row};
use crate::ast::operator;
use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::time;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("Now", |_| Ok(Value::Timestamp(rt::now())), &[("kwok_now", "f() -> timestamp")]),
    ("Rand", |_| Ok(Value::Double(rt::jitter())), &[("kwok_rand", "f() -> double")]),
    (
        "SinceSecond",
        since_second,
        &[("kwok_since_second", "f(dyn) -> double"), ("kwok_object_since_second", "dyn::f() -> double")],
    ),
    (
        "UnixSecond",
        unix_second,
        &[
            ("kwok_unix_second", "f(timestamp) -> double"),
            ("kwok_timestamp_unix_second", "timestamp::f() -> double"),
        ],
    ),
    (
        "Quantity",
        quantity,
        &[("kwok_quantity", "f(string) -> quantity"), ("kwok_string_quantity", "string::f() -> quantity")],
    ),
    (operator::ADD, add, &[("kwok_add_quantity", "f(quantity, quantity) -> quantity")]),
    (operator::SUBTRACT, subtract, &[("kwok_subtract_quantity", "f(quantity, quantity) -> quantity")]),
    (operator::NEGATE, negate, &[("kwok_negate_quantity", "f(quantity) -> quantity")]),
    (
        operator::MULTIPLY,
        multiply,
        &[
            ("kwok_multiply_quantity_int64", "f(quantity, int) -> quantity"),
            ("kwok_multiply_quantity_uint64", "f(quantity, uint) -> quantity"),
            ("kwok_multiply_quantity_double", "f(quantity, double) -> quantity"),
        ],
    ),
    (
        operator::DIVIDE,
        divide,
        &[
            ("kwok_divide_quantity_int64", "f(quantity, int) -> quantity"),
            ("kwok_divide_quantity_uint64", "f(quantity, uint) -> quantity"),
            ("kwok_divide_quantity_double", "f(quantity, double) -> quantity"),
        ],
    ),
    (operator::LESS, less, &[("kwok_less_quantity", "f(quantity, quantity) -> bool")]),
    (operator::LESS_EQUALS, less_equals, &[("kwok_less_equals_quantity", "f(quantity, quantity) -> bool")]),
    (operator::GREATER, greater, &[("kwok_greater_quantity", "f(quantity, quantity) -> bool")]),
    (
        operator::GREATER_EQUALS,
        greater_equals,
        &[("kwok_greater_equals_quantity", "f(quantity, quantity) -> bool")],
    ),
];

fn since_second<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::Map(object)] = args else { return Err(EvalError::no_such_overload()) };
    let created = match object.field("metadata")? {
        Some(Value::Map(metadata)) => metadata.field("creationTimestamp")?,
        _ => None,
    };
    let created = created.ok_or_else(|| EvalError::new("no such key: creationTimestamp"))?;
    Ok(Value::Double(unix(&Value::Timestamp(rt::now()))? - unix(&created)?))
}

fn unix_second<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [time] = args else { return Err(EvalError::no_such_overload()) };
    unix(time).map(Value::Double)
}

/// Of a timestamp, or of the text of one.
fn unix(value: &Value<'_>) -> Result<f64, EvalError> {
    let time = match value {
        Value::Timestamp(time) => Some(*time),
        Value::String(text) => time::parse_date_or_timestamp(text),
        _ => None,
    };
    time.map(|time| time.as_nanosecond() as f64 / 1e9).ok_or_else(EvalError::no_such_overload)
}

fn quantity<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => match Quantity::parse(text) {
            Ok(quantity) => Ok(made(quantity)),
            Err(error) => Err(EvalError::new(error.to_string())),
        },
        [value @ Value::Opaque(_)] => exact(value).map(made).ok_or_else(EvalError::no_such_overload),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn made<'a>(quantity: Quantity) -> Value<'a> {
    Value::opaque(Opaques::Quantity(quantity))
}

/// A value that is a quantity.
fn exact(value: &Value<'_>) -> Option<Quantity> {
    match value {
        Value::Opaque(value) => match &**value {
            Opaques::Quantity(quantity) => Some(*quantity),
            _ => None,
        },
        _ => None,
    }
}

/// A value that is a quantity, or the text of one.
fn readable(value: &Value<'_>) -> Option<Quantity> {
    exact(value).or_else(|| Quantity::parse(value.as_str()?).ok())
}

/// Two quantities, of which at least one is not only the text of one.
fn pair(args: &[Value<'_>]) -> Option<(Quantity, Quantity)> {
    let [left, right] = args else { return None };
    exact(left).or_else(|| exact(right))?;
    Some((readable(left)?, readable(right)?))
}

/// What the operator does to anything else.
fn base<'a>(operator: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    match BASE.get(operator) {
        Some(function) => (function.implementation)(args),
        None => Err(EvalError::no_such_overload()),
    }
}

fn add<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    pair(args).map_or_else(|| base(operator::ADD, args), |(left, right)| Ok(made(left.add(right))))
}

fn subtract<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    pair(args).map_or_else(|| base(operator::SUBTRACT, args), |(left, right)| Ok(made(left.sub(right))))
}

fn negate<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args.first().and_then(exact) {
        Some(quantity) => Ok(made(quantity.neg())),
        None => base(operator::NEGATE, args),
    }
}

/// As KWOK does it: in thousandths for whole numbers, else in doubles.
fn multiply<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let scaled = |quantity: Quantity, factor: &Value<'_>| match factor {
        Value::Int(factor) => Some(Quantity::from_milli(quantity.milli_value().wrapping_mul(*factor))),
        Value::Uint(factor) => {
            Some(Quantity::from_milli(quantity.milli_value().wrapping_mul(*factor as i64)))
        }
        Value::Double(factor) => Some(of_float(quantity.approximate_f64() * factor)),
        _ => None,
    };
    let product = match args {
        [left, factor] => readable(left).and_then(|quantity| scaled(quantity, factor)),
        _ => None,
    };
    product.map_or_else(|| base(operator::MULTIPLY, args), |product| Ok(made(product)))
}

fn divide<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [left, divisor] = args else { return Err(EvalError::no_such_overload()) };
    let Some(quantity) = readable(left) else { return base(operator::DIVIDE, args) };
    let whole = |divisor: i64| match quantity.milli_value().checked_div(divisor) {
        Some(quotient) => Ok(made(Quantity::from_milli(quotient))),
        None => Err(EvalError::new("division by zero")),
    };
    match divisor {
        Value::Int(divisor) => whole(*divisor),
        Value::Uint(divisor) => whole(i64::try_from(*divisor).unwrap_or(i64::MAX)),
        Value::Double(divisor) => Ok(made(of_float(quantity.approximate_f64() / divisor))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_float(value: f64) -> Quantity {
    Quantity::from_milli((value * 1e3) as i64)
}

fn compared<'a>(operator: &str, args: &[Value<'a>], accepted: fn(Ordering) -> bool) -> Evaluated<'a> {
    match pair(args) {
        Some((left, right)) => Ok(Value::Bool(accepted(left.cmp(&right)))),
        None => base(operator, args),
    }
}

fn less<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    compared(operator::LESS, args, Ordering::is_lt)
}

fn less_equals<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    compared(operator::LESS_EQUALS, args, Ordering::is_le)
}

fn greater<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    compared(operator::GREATER, args, Ordering::is_gt)
}

fn greater_equals<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    compared(operator::GREATER_EQUALS, args, Ordering::is_ge)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use crate::{Activation, Budget, Decl, Environment, limits};

    fn evaluate(text: &str) -> String {
        let environment = Environment::new().simulation().variable("pod", Decl::dynamic());
        let pod = json!({"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z", "annotations": {"cpu": "250m"}},
            "spec": {"cpu": "1500m"}});
        let program = match environment.compile(text) {
            Ok(program) => program,
            Err(error) => return error.to_string(),
        };
        let mut activation = Activation::new(&environment);
        activation.bind(0, crate::Value::dynamic(&pod));
        let value = program.eval(&activation, &mut Budget::new(limits::PER_CALL));
        match value {
            Ok(crate::Value::Opaque(value)) => value.to_string(),
            Ok(crate::Value::Bool(value)) => value.to_string(),
            Ok(crate::Value::Int(value)) => value.to_string(),
            Ok(crate::Value::Double(value)) => value.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn quantities_can_be_reckoned_with() {
        for (text, expected) in [
            ("Quantity('100m') + Quantity('1')", "1100m"),
            ("Quantity('1Gi') - Quantity('1Mi')", "1023Mi"),
            ("-Quantity('1')", "-1"),
            ("Quantity('100m') * 3", "300m"),
            ("Quantity('1') * 0.5", "500m"),
            ("Quantity('1') / 4", "250m"),
            ("Quantity('1') / 0.5", "2"),
            ("pod.spec.cpu * 2", "3"),
            ("Quantity('1') + pod.spec.cpu", "2500m"),
            ("Quantity('1') < Quantity('1001m') && Quantity('2') >= pod.spec.cpu", "true"),
            ("Quantity('1000m') == Quantity('1')", "true"),
            (
                "'cpu' in pod.metadata.annotations ? Quantity(pod.metadata.annotations['cpu']) : Quantity('1m')",
                "250m",
            ),
            ("1 + 2 * 3 - 4 / 2", "5"),
            ("pod.spec.cpu.Quantity()", "1500m"),
            ("UnixSecond(timestamp('1970-01-01T00:00:01.5Z'))", "1.5"),
            ("UnixSecond(pod.metadata.creationTimestamp)", "1577836800"),
            ("pod.SinceSecond() > 1e8 && SinceSecond(pod) > 1e8", "true"),
            ("Now() > timestamp('2020-01-01T00:00:00Z') && Now().UnixSecond() > 1e9", "true"),
            ("Rand() < 1.0 && Rand() >= 0.0", "true"),
        ] {
            assert_eq!(evaluate(text), expected, "{text}");
        }
        assert!(evaluate("Quantity('1') / 0").contains("division by zero"));
        assert!(evaluate("Quantity('x')").contains("quantities must match"));
    }

    #[test]
    fn other_environments_do_not_have_them() {
        let environment = Environment::new();
        assert!(environment.compile("Now()").is_err());
        assert!(environment.compile("quantity('1') + quantity('2')").is_err());
    }
}
