//! CEL: an expression of admission policies in the first line, compiled, and read on the object in the rest.
#![no_main]

use std::sync::LazyLock;

use cel::admission::{Scope, environment};
use cel::limits::PER_CALL;
use cel::{Activation, Budget, Environment, Value};
use pintle_fuzz::halves;

static ENVIRONMENT: LazyLock<Environment> =
    LazyLock::new(|| environment(Scope { params: true, mutations: true, ..Scope::default() }, None));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((expression, object)) = halves(input) else { return };
    let Ok(expression) = std::str::from_utf8(expression) else { return };
    let Ok(program) = ENVIRONMENT.compile(expression) else { return };
    let object = apimachinery::Value::parse(object).unwrap_or_default();
    let mut activation = Activation::new(&ENVIRONMENT);
    for name in ["object", "oldObject", "params"] {
        let variable = ENVIRONMENT.index_of(name).expect("a variable of this scope");
        activation.bind(variable, Value::dynamic(&object));
    }
    if let Ok(value) = program.eval(&activation, &mut Budget::new(PER_CALL)) {
        let _ = value.to_json();
    }
});
