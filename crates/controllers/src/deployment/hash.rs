//! The ReplicaSet of a template: its name, its hash, its tree. Pure.

use api::view::{Deployment, POD_TEMPLATE_HASH};
use apimachinery::{Object, Value};

use super::revision;
use crate::ownership;

/// Upstream's alphabet of safe suffixes: neither vowels nor look-alikes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Limit on names of objects.
const NAME_MAX: usize = 253;

/// The hash of the present template. It differs from upstream's in value, not in form; a Deployment that came from
/// elsewhere keeps its ReplicaSets, since they are recognised by template.
pub(super) fn template_hash(deployment: &Deployment) -> String {
    let mut bytes = Vec::with_capacity(1024);
    deployment.spec.template.bare().write_json(&mut bytes);
    if let Some(collisions) = deployment.status.collision_count {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    safe_suffix(fnv32a(&bytes))
}

/// The name of the present template's ReplicaSet; too long a Deployment name is cut.
pub(super) fn set_name(object: &Object, deployment: &Deployment) -> String {
    let hash = template_hash(deployment);
    let room = NAME_MAX - hash.len() - 1;
    let base = object.name().get(..room).unwrap_or(object.name());
    format!("{base}-{hash}")
}

/// The tree of a new ReplicaSet.
pub(super) fn new_set(
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

fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A number's digits, each as a letter of the alphabet.
fn safe_suffix(number: u32) -> String {
    number
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}
