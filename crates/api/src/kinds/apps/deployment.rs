//! `apps/v1.Deployment`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::workload;
use crate::kinds::warnings;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, IMMUTABLE, as_go_struct, not_negative, same};
use crate::validation::selector;

pub struct Deployment;

impl Strategy for Deployment {
    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, ctx, &object["spec"], &Path::root("spec"));
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if ctx.subresource == Some("status") {
            let mut errors =
                workload::replica_status(new, &["updatedReplicas", "readyReplicas", "availableReplicas"]);
            not_negative(&mut errors, &new["status"], "unavailableReplicas", &Path::root("status"));
            workload::collisions_not_decremented(&mut errors, new, old);
            return errors;
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

/// A selector is immutable, since pods that were selected would be orphaned.
pub fn selector_kept(errors: &mut ErrorList, new: &Value, old: &Value) {
    let (new, old) = (&new["spec"]["selector"], &old["spec"]["selector"]);
    if !same(new, old) {
        errors.push(Error::invalid(&Path::root("spec").child("selector"), selector::shown(new), IMMUTABLE));
    }
}

fn spec(errors: &mut ErrorList, ctx: &Context<'_>, spec: &Value, path: &Path<'_>) {
    not_negative(errors, spec, "replicas", path);
    workload::selector(errors, spec, "deployment", path);
    // Upstream words the complaint for the ReplicaSets that a Deployment makes.
    workload::running_template(errors, ctx, spec, "ReplicaSet", path);
    strategy(errors, &spec["strategy"], &path.child("strategy"));
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        not_negative(errors, spec, key, path);
    }
    if let Some(deadline) = spec.maybe_int("progressDeadlineSeconds") {
        not_negative(errors, spec, "progressDeadlineSeconds", path);
        if deadline <= spec.int("minReadySeconds") {
            errors.push(Error::invalid(
                &path.child("progressDeadlineSeconds"),
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
    }
}

fn strategy(errors: &mut ErrorList, strategy: &Value, path: &Path<'_>) {
    let rolling_path = path.child("rollingUpdate");
    match (strategy.text("type"), strategy.maybe("rollingUpdate")) {
        ("Recreate", Some(_)) => errors
            .push(Error::forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'")),
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(Error::required(&rolling_path, "this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let unavailable_path = rolling_path.child("maxUnavailable");
            workload::number_or_percent(errors, unavailable, &unavailable_path);
            workload::number_or_percent(errors, surge, &rolling_path.child("maxSurge"));
            if workload::is_zero(unavailable) && workload::is_zero(surge) {
                errors.push(Error::invalid(
                    &unavailable_path,
                    unavailable,
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            workload::at_most_all(errors, unavailable, &unavailable_path);
        }
        _ => {
            let shown = as_go_struct(
                strategy,
                &[("type", "Type", "\"\""), ("rollingUpdate", "RollingUpdate", "null")],
            );
            errors.push(Error::not_supported(path, shown, &["Recreate", "RollingUpdate"]));
        }
    }
}
