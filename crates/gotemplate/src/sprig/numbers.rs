//! Numbers. Whatever reads as one is taken for one, and what does not is 0.

use crate::Datum;
use crate::Parameter::{Any, Int, Text};
use crate::builtin::{Native, fixed, variadic};

type Result<T = Datum> = std::result::Result<T, String>;

pub const FUNCTIONS: &[Native] = &[
    fixed("int", &[Any], |args| Ok(integer(&args[0]).into())),
    fixed("int64", &[Any], |args| Ok(integer(&args[0]).into())),
    fixed("float64", &[Any], |args| Ok(float(&args[0]).into())),
    fixed("atoi", &[Text], |args| {
        Ok(args[0].as_text().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0).into())
    }),
    fixed("add1", &[Any], |args| Ok(integer(&args[0]).wrapping_add(1).into())),
    variadic("add", &[Any], |args| Ok(args.iter().map(integer).fold(0, i64::wrapping_add).into())),
    fixed("sub", &[Any, Any], |args| Ok(integer(&args[0]).wrapping_sub(integer(&args[1])).into())),
    variadic("mul", &[Any, Any], |args| Ok(args.iter().map(integer).fold(1, i64::wrapping_mul).into())),
    fixed("div", &[Any, Any], |args| divided(args, i64::wrapping_div)),
    fixed("mod", &[Any, Any], |args| divided(args, i64::wrapping_rem)),
    variadic("max", &[Any, Any], |args| Ok(args.iter().map(integer).max().unwrap_or(0).into())),
    variadic("biggest", &[Any, Any], |args| Ok(args.iter().map(integer).max().unwrap_or(0).into())),
    variadic("min", &[Any, Any], |args| Ok(args.iter().map(integer).min().unwrap_or(0).into())),
    variadic("addf", &[Any], |args| Ok(args.iter().map(float).sum::<f64>().into())),
    variadic("subf", &[Any, Any], |args| {
        Ok(args[1..].iter().map(float).fold(float(&args[0]), |left, right| left - right).into())
    }),
    variadic("mulf", &[Any, Any], |args| Ok(args.iter().map(float).product::<f64>().into())),
    variadic("divf", &[Any, Any], |args| {
        Ok(args[1..].iter().map(float).fold(float(&args[0]), |left, right| left / right).into())
    }),
    fixed("floor", &[Any], |args| Ok(float(&args[0]).floor().into())),
    fixed("ceil", &[Any], |args| Ok(float(&args[0]).ceil().into())),
    variadic("round", &[Any, Int], |args| {
        let scale = 10_f64.powi(args.get(1).map_or(0, integer).clamp(-300, 300) as i32);
        Ok(((float(&args[0]) * scale).round() / scale).into())
    }),
    fixed("randInt", &[Int, Int], |args| {
        let (low, high) = (integer(&args[0]), integer(&args[1]));
        let width = high.checked_sub(low).filter(|width| *width > 0).ok_or("invalid argument to Intn")?;
        Ok((low + (rt::jitter() * width as f64) as i64).into())
    }),
];

fn integer(datum: &Datum) -> i64 {
    match datum {
        Datum::Int(value) => *value,
        Datum::Float(value) => *value as i64,
        Datum::Bool(value) => (*value).into(),
        Datum::Text(text) | Datum::Number(text) => {
            let whole = match text.split_once('.') {
                Some((whole, zeros)) if zeros.bytes().all(|digit| digit == b'0') => whole,
                _ => text.as_str(),
            };
            whole.parse().unwrap_or(0)
        }
        _ => 0,
    }
}

fn float(datum: &Datum) -> f64 {
    match datum {
        Datum::Float(value) => *value,
        Datum::Text(text) | Datum::Number(text) => text.parse().unwrap_or(0.0),
        other => integer(other) as f64,
    }
}

fn divided(args: &[Datum], divide: impl Fn(i64, i64) -> i64) -> Result {
    match integer(&args[1]) {
        0 => Err("runtime error: integer divide by zero".into()),
        divisor => Ok(divide(integer(&args[0]), divisor).into()),
    }
}
