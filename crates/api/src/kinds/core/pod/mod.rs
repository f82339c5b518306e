//! `v1.Pod`, and the pod template that many other kinds hold.
//!
//! Owns: defaults ([`defaults`]), validation of specs ([`spec`] and the files it calls), the rules of updates
//! ([`update`]), QoS ([`qos`]), warnings. Never touches: binding, eviction and logs, which are not updates.
//!
//! Start at [`Pod`]; every other kind with a template uses [`spec::template`] and [`defaults::template`].

pub mod container;
pub mod defaults;
pub mod env;
pub mod qos;
pub mod references;
pub mod scheduling;
pub mod security;
pub mod spec;
mod update;
pub mod volumes;
pub mod warnings;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Object, Value, json, time};

use crate::strategy::{Context, Deletion, Strategy, keep_status_apart};
use crate::validation::fields::Fields;
use crate::validation::text;

/// Grace of a pod that does not say, in seconds.
const DEFAULT_GRACE: i64 = 30;

pub struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        defaults::pod(object);
        // Only a pod itself, not a template, is read so.
        if object["spec"].int("terminationGracePeriodSeconds") < 0 {
            object.set_at(&["spec", "terminationGracePeriodSeconds"], 1);
        }
    }

    fn prepare_for_create(&self, ctx: &Context<'_>, object: &mut Value) {
        let class = qos::class(&object["spec"]);
        let mut status = json!({"phase": "Pending", "qosClass": class});
        if !object["spec"].list("schedulingGates").is_empty() {
            status.set_at(&["conditions"], vec![gated_condition(ctx)]);
        }
        object.set_at(&["status"], status);
        let labels = object["metadata"]["labels"].clone();
        if let Some(spec) = object.get_mut("spec") {
            scheduling::merge_label_keys(spec, &labels);
            // Admission may have chosen an account.
            if let Some(spec) = spec.as_object_mut() {
                defaults::service_account(spec);
            }
        }
    }

    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        state(&mut errors, ctx, object);
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let path = Path::root("spec");
        if !spec.list("ephemeralContainers").is_empty() {
            errors.push(Error::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
        }
        if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
            errors.push(Error::forbidden(
                &path.child("nodeName"),
                "cannot be set until all schedulingGates have been cleared",
            ));
        }
        spec::annotations_match_fields(&mut errors, metadata, spec, &path);
        errors
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        match ctx.subresource {
            Some("status") => update::prepare_status(new, old),
            Some("ephemeralcontainers") => update::prepare_ephemeral_containers(new, old),
            Some("resize") => update::prepare_resize(new, old),
            _ => keep_status_apart(ctx, new, old),
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        match ctx.subresource {
            // A status is written often and changes nothing that was checked before.
            Some("status") => update::status(&mut errors, new, old),
            Some("ephemeralcontainers") => {
                state(&mut errors, ctx, new);
                update::ephemeral_containers(&mut errors, new, old);
            }
            Some("resize") => {
                state(&mut errors, ctx, new);
                update::resize(&mut errors, new, old);
            }
            _ => {
                state(&mut errors, ctx, new);
                update::pod(&mut errors, new, old);
            }
        }
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        match (old, ctx.subresource) {
            (None, _) => {
                let messages = text::dns1123_label(new["metadata"].text("name"));
                if !messages.is_empty() {
                    warnings.push(format!(
                        "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
                        messages.join(" ")
                    ));
                }
                warnings::spec(&mut warnings, &new["metadata"], &new["spec"], "");
            }
            (Some(_), Some("status")) => warnings::addresses(&mut warnings, &new["status"]),
            (Some(_), _) => {}
        }
        warnings
    }

    /// A pod on a node is left to that node's agent for its grace period; one that has no node, or has finished, goes
    /// at once.
    fn deletion(&self, object: &Object, grace_seconds: Option<i64>) -> Deletion {
        // Unreadable pods cannot exist; if one does, deleting it must not depend on reading it.
        let Ok(pod) = object.view::<crate::view::Pod>() else { return Deletion::Immediate };
        let finished = matches!(pod.status.phase.as_str(), "Failed" | "Succeeded");
        let asked = grace_seconds.or(pod.spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE);
        if pod.spec.node_name.is_empty() || finished || asked == 0 {
            return Deletion::Immediate;
        }
        // Negative values were once allowed and mean one second.
        Deletion::Graceful(if asked < 0 { 1 } else { asked })
    }
}

/// What is checked on every write but those of the status.
fn state(errors: &mut ErrorList, ctx: &Context<'_>, object: &Value) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let metadata_path = Path::root("metadata");
    spec::pod_annotations(errors, metadata, spec, &metadata_path.child("annotations"));
    let path = Path::root("spec");
    spec::pod_spec(errors, ctx, spec, spec::Holder::Pod(metadata), &path);
    if spec.text("serviceAccountName").is_empty() {
        tokens_need_an_account(errors, spec, &path.child("volumes"));
    }
    for list in ["containers", "initContainers"] {
        let list_path = path.child(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            container::image_whitespace(errors, container, &list_path.index(index));
        }
    }
}

fn tokens_need_an_account(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    for (index, volume) in spec.list("volumes").iter().enumerate() {
        let Some(projected) = volume.maybe("projected") else { continue };
        let path = path.index(index);
        let path = path.child("projected");
        let path = path.child("sources");
        for (index, source) in projected.list("sources").iter().enumerate() {
            if source.has("serviceAccountToken") {
                errors.push(Error::forbidden(
                    &path.index(index).child("serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                ));
            }
        }
    }
}

fn gated_condition(ctx: &Context<'_>) -> Value {
    json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
        "lastProbeTime": null,
        "lastTransitionTime": time::format_seconds(ctx.now),
    })
}

#[cfg(test)]
mod tests;
