//! The language from outside: what expressions mean, why they are refused, and what they cost.
//!
//! Expectations are upstream's: from its tests where it has one, and from its definitions where it has none.

use apimachinery::value::Value as Json;
use cel::{Activation, Budget, Decl, Environment, Value, limits};

mod costs;
mod meaning;
mod refusal;

/// An environment with `self`, of any type.
fn dynamic() -> Environment {
    Environment::new().variable("self", Decl::dynamic())
}

/// The result of an expression on `self`, as text; errors begin with `error: `.
fn evaluate(environment: &Environment, text: &str, this: &Json) -> String {
    let program = match environment.compile(text) {
        Ok(program) => program,
        Err(error) => return format!("refused: {error}"),
    };
    let mut activation = Activation::new(environment);
    activation.bind(0, Value::dynamic(this));
    match program.eval(&activation, &mut Budget::new(limits::PER_OBJECT)) {
        Ok(value) => value.to_string(),
        Err(error) => format!("error: {error}"),
    }
}
