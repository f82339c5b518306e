//! `apps/v1.DaemonSet`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::deployment::selector_kept;
use super::workload;
use crate::kinds::core::pod;
use crate::strategy::{Context, Strategy, keep_status_apart};
use crate::validation::fields::{Fields, Verbatim, as_go_struct, not_negative};
use crate::validation::selector::{self, Match};

/// Counts changes of the template, for clients of the API before apps/v1.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub struct DaemonSet;

impl Strategy for DaemonSet {
    /// The counter is a field of Go's internal type, so that whoever writes a DaemonSet writes, and owns, it.
    fn default(&self, object: &mut Value) {
        if object["metadata"]["annotations"].text(TEMPLATE_GENERATION).is_empty() {
            object.set_at(&["metadata", "annotations", TEMPLATE_GENERATION], "0");
        }
    }

    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        object.set_at(&["metadata", "annotations", TEMPLATE_GENERATION], "1");
    }

    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, ctx, &object["spec"], &Path::root("spec"));
        errors
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
        if ctx.subresource.is_some() {
            return;
        }
        let before: i64 = old["metadata"]["annotations"].text(TEMPLATE_GENERATION).parse().unwrap_or(0);
        let changed = new["spec"]["template"] != old["spec"]["template"];
        let now = if changed { before + 1 } else { before };
        if now > 0 {
            new.set_at(&["metadata", "annotations", TEMPLATE_GENERATION], now.to_string());
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if ctx.subresource == Some("status") {
            let mut errors = ErrorList::new();
            for key in [
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ] {
                not_negative(&mut errors, &new["status"], key, &Path::root("status"));
            }
            workload::collisions_not_decremented(&mut errors, new, old);
            return errors;
        }
        let mut errors = ErrorList::new();
        selector_kept(&mut errors, new, old);
        errors.extend(self.validate(ctx, new));
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings(new, old)
    }
}

fn spec(errors: &mut ErrorList, ctx: &Context<'_>, spec: &Value, path: &Path<'_>) {
    let own = spec.maybe("selector");
    selector::label_selector(errors, own, &path.child("selector"));
    let template = &spec["template"];
    let template_path = path.child("template");
    if selector::matches(own, template["metadata"].map("labels")) == Match::No {
        workload::not_selected(errors, template, &template_path);
    }
    if let Some(own) = own.filter(|own| selector::is_empty(own)) {
        errors.push(Error::invalid(
            &path.child("selector"),
            selector::shown(own),
            "empty selector is invalid for daemonset",
        ));
    }
    pod::spec::template(errors, ctx, template, &template_path);
    workload::always_restarted(errors, template, "DaemonSet", &template_path);
    not_negative(errors, spec, "minReadySeconds", path);
    update_strategy(errors, &spec["updateStrategy"], &path.child("updateStrategy"));
    not_negative(errors, spec, "revisionHistoryLimit", path);
}

fn update_strategy(errors: &mut ErrorList, strategy: &Value, path: &Path<'_>) {
    let rolling_path = path.child("rollingUpdate");
    match (strategy.text("type"), strategy.maybe("rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(Error::required(&rolling_path, "")),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let (unavailable_path, surge_path) =
                (rolling_path.child("maxUnavailable"), rolling_path.child("maxSurge"));
            workload::number_or_percent(errors, unavailable, &unavailable_path);
            workload::number_or_percent(errors, surge, &surge_path);
            workload::at_most_all(errors, unavailable, &unavailable_path);
            workload::at_most_all(errors, surge, &surge_path);
            match (workload::is_zero(unavailable), workload::is_zero(surge)) {
                (false, false) => errors.push(Error::invalid(
                    &surge_path,
                    surge,
                    "may not be set when maxUnavailable is non-zero",
                )),
                (true, true) => {
                    errors.push(Error::required(&unavailable_path, "cannot be 0 when maxSurge is 0"));
                }
                _ => {}
            }
        }
        (kind, rolling) => {
            const LAYOUT: [(&str, &str, &str); 2] =
                [("maxUnavailable", "MaxUnavailable", "0"), ("maxSurge", "MaxSurge", "0")];
            let rolling =
                rolling.map_or_else(|| "null".to_owned(), |rolling| as_go_struct(rolling, &LAYOUT).0);
            let shown = Verbatim(format!(
                "{{\"Type\":{},\"RollingUpdate\":{rolling}}}",
                apimachinery::field::go_quote(kind)
            ));
            errors.push(Error::not_supported(path, shown, &["RollingUpdate", "OnDelete"]));
        }
    }
}
