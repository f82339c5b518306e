//! `apps/v1.ControllerRevision`: a snapshot that never changes.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, NOT_NEGATIVE, immutable};

pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        revision(&mut errors, object);
        let path = Path::root("data");
        match object.maybe("data") {
            None => errors.push(Error::required(&path, "data is mandatory")),
            Some(Value::Object(_)) => {}
            Some(_) => errors.push(Error::required(&path, "data must be a valid JSON object")),
        }
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        revision(&mut errors, new);
        immutable(&mut errors, new, old, "data", &Path::root("data"));
        errors
    }
}

fn revision(errors: &mut ErrorList, object: &Value) {
    let number = object.int("revision");
    if number < 0 {
        errors.push(Error::invalid(&Path::root("revision"), number, NOT_NEGATIVE));
    }
}
