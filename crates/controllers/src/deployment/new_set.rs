//! The ReplicaSet of a template: its name, its tree. Pure.

use api::view::{Deployment, POD_TEMPLATE_HASH};
use apimachinery::{Object, Value};

use super::revision;
use crate::{hash, ownership};

/// Limit on names of objects.
const NAME_MAX: usize = 253;

/// The hash of the present template.
fn template_hash(deployment: &Deployment) -> String {
    hash::of_template(&deployment.spec.template, deployment.status.collision_count)
}

/// The name of the present template's ReplicaSet; too long a Deployment name is cut.
pub(super) fn name(object: &Object, deployment: &Deployment) -> String {
    let hash = template_hash(deployment);
    let room = NAME_MAX - hash.len() - 1;
    let base = object.name().get(..room).unwrap_or(object.name());
    format!("{base}-{hash}")
}

/// The tree of a new ReplicaSet.
pub(super) fn tree(
    object: &Object,
    deployment: &Deployment,
    name: &str,
    replicas: i32,
    number: i64,
) -> Value {
    let hash = template_hash(deployment);
    let mut template = deployment.spec.template.to_value();
    template.set_at(&["metadata", "labels", POD_TEMPLATE_HASH], hash.as_str());
    let source = object.to_value();
    let mut selector = source["spec"]["selector"].clone();
    selector.set_at(&["matchLabels", POD_TEMPLATE_HASH], hash.as_str());
    let mut annotations = Default::default();
    revision::annotate(deployment, &mut annotations, number, false);

    let mut set = Value::object();
    set.set_at(&["apiVersion"], "apps/v1");
    set.set_at(&["kind"], "ReplicaSet");
    set.set_at(&["metadata", "name"], name);
    set.set_at(&["metadata", "namespace"], object.namespace());
    set.set_at(&["metadata", "ownerReferences"], vec![ownership::controller_reference(object)]);
    set.set_at(&["metadata", "labels"], template["metadata"]["labels"].clone());
    let annotations: Value = annotations.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    set.set_at(&["metadata", "annotations"], annotations);
    set.set_at(&["spec", "replicas"], replicas);
    if deployment.spec.min_ready_seconds > 0 {
        set.set_at(&["spec", "minReadySeconds"], deployment.spec.min_ready_seconds);
    }
    set.set_at(&["spec", "selector"], selector);
    set.set_at(&["spec", "template"], template);
    set
}
