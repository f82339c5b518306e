//! `apps/v1.ReplicaSet`.

use apimachinery::Value;
use apimachinery::field::{ErrorList, Path};

use super::deployment::selector_kept;
use super::workload;
use crate::kinds::warnings;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::not_negative;

pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (spec, path) = (&object["spec"], Path::root("spec"));
        for key in ["replicas", "minReadySeconds"] {
            not_negative(&mut errors, spec, key, &path);
        }
        workload::selector(&mut errors, spec, "deployment", &path);
        workload::running_template(&mut errors, ctx, spec, "ReplicaSet", &path);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if ctx.subresource == Some("status") {
            return workload::replica_status(
                new,
                &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            );
        }
        let mut errors = self.validate(ctx, new);
        selector_kept(&mut errors, new, old);
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::from_iter(warnings::workload_name(new, old));
        warnings.extend(workload::template_warnings(new, old));
        warnings
    }
}
