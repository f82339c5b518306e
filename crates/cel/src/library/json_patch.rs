//! What JSON patches of mutations need.

use super::Row;
use crate::eval_error::EvalError;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] =
    &[("jsonpatch.escapeKey", escape_key, &[("string_jsonpatch_escapeKey_string", "f(string) -> string")])];

fn escape_key<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(Value::text(text.replace('~', "~0").replace('/', "~1"))),
        _ => Err(EvalError::no_such_overload()),
    }
}
