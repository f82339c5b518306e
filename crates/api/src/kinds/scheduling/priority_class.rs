//! `scheduling.k8s.io/v1.PriorityClass`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::kinds::core::pod::spec::PREEMPTION_POLICIES;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, immutable, one_of};

/// Users may not define a higher priority.
pub const USER_MAX: i64 = 1_000_000_000;
/// The classes that every cluster has, with their values.
pub const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const SYSTEM_PREFIX: &str = "system-";

pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (name, value) = (object["metadata"].text("name"), object.int("value"));
        if name.starts_with(SYSTEM_PREFIX) {
            if let Err(why) = known_system_class(name, value, object.truth("globalDefault")) {
                errors.push(Error::forbidden(
                    &Path::root("metadata").child("name"),
                    format!("priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"),
                ));
            }
        } else if value > USER_MAX {
            errors.push(Error::forbidden(
                &Path::root("value"),
                format!("maximum allowed value of a user defined priority is {USER_MAX}"),
            ));
        }
        if let Some(policy) = object.maybe_text("preemptionPolicy") {
            one_of(&mut errors, policy, &Path::root("preemptionPolicy"), &PREEMPTION_POLICIES);
        }
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if new.int("value") != old.int("value") {
            errors.push(Error::forbidden(&Path::root("value"), "may not be changed in an update."));
        }
        immutable(&mut errors, new, old, "preemptionPolicy", &Path::root("preemptionPolicy"));
        errors
    }
}

fn known_system_class(name: &str, value: i64, global_default: bool) -> Result<(), String> {
    let Some((_, own)) = SYSTEM.iter().find(|(own, _)| *own == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if *own != value {
        return Err(format!("value of {name} PriorityClass must be {own}"));
    }
    if global_default {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}
