//! `coordination.k8s.io/v1.Lease`: written often, worth little once it is old.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::Fields;

pub struct Lease;

impl Strategy for Lease {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = &object["spec"];
        let path = Path::root("spec");
        if let Some(seconds) = spec.maybe_int("leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
            errors.push(Error::invalid(
                &path.child("leaseDurationSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(count) = spec.maybe_int("leaseTransitions").filter(|count| *count < 0) {
            errors.push(Error::invalid(
                &path.child("leaseTransitions"),
                count,
                "must be greater than or equal to 0",
            ));
        }
        errors
    }

    fn relaxed_durability(&self) -> bool {
        true
    }
}
