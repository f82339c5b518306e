//! `apps/v1.StatefulSet`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path, go_quote};

use super::workload;
use crate::kinds::core::{persistent_volume_claim, pod};
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{
    Fields, Verbatim, as_go_struct, invalid_each, not_negative, same, supported,
};
use crate::validation::selector::{self, Match};
use crate::validation::text;

const FIXED: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

pub struct StatefulSet;

impl Strategy for StatefulSet {
    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&mut errors, ctx, &object["spec"], true, &Path::root("spec"));
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if ctx.subresource == Some("status") {
            let mut errors = workload::replica_status(
                new,
                &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
            );
            workload::collisions_not_decremented(&mut errors, new, old);
            return errors;
        }
        let mut errors = ErrorList::new();
        let (new, old) = (&new["spec"], &old["spec"]);
        spec(&mut errors, ctx, new, false, &Path::root("spec"));
        let fixed = |spec: &Value| {
            let mut rest = spec.clone();
            let map = rest.ensure_object();
            CHANGEABLE.iter().for_each(|key| {
                map.remove(key);
            });
            rest
        };
        if !same(&fixed(new), &fixed(old)) {
            errors.push(Error::forbidden(&Path::root("spec"), FIXED));
        }
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings(new, old)
    }
}

/// On update, what cannot change is not checked again.
fn spec(errors: &mut ErrorList, ctx: &Context<'_>, spec: &Value, is_new: bool, path: &Path<'_>) {
    match spec.text("podManagementPolicy") {
        "" => errors.push(Error::required(&path.child("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(Error::invalid(
            &path.child("podManagementPolicy"),
            other,
            "must be 'OrderedReady' or 'Parallel'",
        )),
    }
    update_strategy(errors, &spec["updateStrategy"], &path.child("updateStrategy"));
    if let Some(policy) = spec.maybe("persistentVolumeClaimRetentionPolicy") {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for key in ["whenDeleted", "whenScaled"] {
            supported(errors, policy.text(key), &path.child(key), &["Retain", "Delete"]);
        }
    }
    if is_new {
        let path = path.child("volumeClaimTemplates");
        for (index, template) in spec.list("volumeClaimTemplates").iter().enumerate() {
            persistent_volume_claim::spec(errors, &template["spec"], &path.index(index).child("spec"));
        }
    }
    for key in ["replicas", "minReadySeconds"] {
        not_negative(errors, spec, key, path);
    }
    not_negative(errors, &spec["ordinals"], "start", &path.child("ordinals"));
    let service = spec.text("serviceName");
    if is_new && !service.is_empty() {
        invalid_each(errors, &path.child("serviceName"), service, text::dns1123_label(service));
    }
    workload::selector(errors, spec, "statefulset", path);
    template(errors, ctx, spec, path);
}

fn template(errors: &mut ErrorList, ctx: &Context<'_>, spec: &Value, path: &Path<'_>) {
    let template_path = path.child("template");
    let template = &spec["template"];
    match selector::matches(spec.maybe("selector"), template["metadata"].map("labels")) {
        Match::Invalid => {
            errors.push(Error::invalid(&path.child("selector"), selector::shown(&spec["selector"]), ""));
        }
        matched => {
            if matched == Match::No {
                workload::not_selected(errors, template, &template_path);
            }
            pod::spec::template(errors, ctx, &as_its_pods(spec), &template_path);
        }
    }
    workload::always_restarted(errors, template, "StatefulSet", &template_path);
}

/// The template as its pods will be: with a volume for each claim template, and named by the controller.
fn as_its_pods(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let claims = spec.list("volumeClaimTemplates");
    let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) else { return template };
    pod.remove("hostname");
    pod.remove("subdomain");
    if claims.is_empty() {
        return template;
    }
    let names: Vec<&str> = claims.iter().map(|claim| claim["metadata"].text("name")).collect();
    let mut volumes: Vec<Value> = names
        .iter()
        .map(|name| apimachinery::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    volumes
        .extend(pod.list("volumes").iter().filter(|volume| !names.contains(&volume.text("name"))).cloned());
    pod.insert("volumes", Value::Array(volumes));
    template
}

fn update_strategy(errors: &mut ErrorList, strategy: &Value, path: &Path<'_>) {
    let rolling_path = path.child("rollingUpdate");
    let shown = |rolling: &Value| {
        as_go_struct(
            rolling,
            &[("partition", "Partition", "0"), ("maxUnavailable", "MaxUnavailable", "null")],
        )
    };
    match (strategy.text("type"), strategy.maybe("rollingUpdate")) {
        ("", _) => errors.push(Error::required(path, "")),
        ("OnDelete", Some(rolling)) => errors.push(Error::invalid(
            &rolling_path,
            shown(rolling),
            "only allowed for updateStrategy 'RollingUpdate'",
        )),
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            not_negative(errors, rolling, "partition", &rolling_path);
            if let Some(unavailable) = rolling.maybe("maxUnavailable") {
                let path = rolling_path.child("maxUnavailable");
                workload::number_or_percent(errors, unavailable, &path);
                if workload::is_zero(unavailable) {
                    errors.push(Error::invalid(&path, unavailable, "cannot be 0"));
                }
                workload::at_most_all(errors, unavailable, &path);
            }
        }
        (kind, rolling) => {
            let rolling = rolling.map_or_else(|| "null".to_owned(), |rolling| shown(rolling).0);
            let whole = Verbatim(format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", go_quote(kind)));
            errors.push(Error::invalid(path, whole, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}
