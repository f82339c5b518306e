//! What a CustomResourceDefinition says of its deletion.

use apimachinery::Value;
use jiff::Timestamp;

use crate::conditions::Condition;

/// The finalizer that holds a definition until its instances are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The first request to delete a definition: its instances go first.
pub(super) fn begin_deletion(definition: &mut Value, now: Timestamp) {
    let mut finalizers = definition.array_at(&["metadata", "finalizers"]).to_vec();
    if !finalizers.iter().any(|own| own.as_str() == Some(CLEANUP_FINALIZER)) {
        finalizers.push(CLEANUP_FINALIZER.into());
    }
    definition.set_at(&["metadata", "finalizers"], Value::Array(finalizers));
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    Condition::new("Terminating", true, "InstanceDeletionPending", message).set(definition, now);
}
