//! What the protection controllers have in common: a finalizer that stays on an object while it is in use.

use apimachinery::{GroupVersionResource, Object, Value};
use client::Api;
use controller_runtime::{Action, Result};

/// What is to be done about the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Nothing,
    /// The object was made while nobody added it.
    Add,
    /// The object is to go, and nobody uses it.
    Remove,
}

/// Decides by the object and, only if that matters, by whether it is in use.
pub fn plan(object: &Object, finalizer: &str, is_used: impl FnOnce() -> bool) -> Plan {
    let protected = object.finalizers().any(|own| own == finalizer);
    match (object.is_deleting(), protected) {
        (false, false) => Plan::Add,
        (true, true) if !is_used() => Plan::Remove,
        _ => Plan::Nothing,
    }
}

/// Carries a plan out. An object that is gone by now needs nothing.
pub async fn act(
    api: &dyn Api,
    resource: &GroupVersionResource,
    object: &Object,
    finalizer: &str,
    plan: Plan,
) -> Result {
    if plan == Plan::Nothing {
        return Ok(Action::await_change());
    }
    let uid = object.uid().to_owned();
    let change = |tree: &mut Value| {
        tree["metadata"].str_at(&["uid"]) == uid && set(tree, finalizer, plan == Plan::Add)
    };
    match api.edit(resource, object.namespace(), object.name(), None, change).await {
        Err(status) if !status.is_not_found() => Err(status.into()),
        _ => Ok(Action::await_change()),
    }
}

/// True when the tree had to be changed.
fn set(tree: &mut Value, finalizer: &str, wanted: bool) -> bool {
    let finalizers = tree
        .ensure_object_at(&["metadata"])
        .get_or_insert_with("finalizers", || Value::Array(Vec::new()))
        .as_array_mut();
    let Some(finalizers) = finalizers else { return false };
    let present = finalizers.iter().any(|own| own.as_str() == Some(finalizer));
    match (wanted, present) {
        (true, false) => finalizers.push(finalizer.into()),
        (false, true) => finalizers.retain(|own| own.as_str() != Some(finalizer)),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::object;

    const FINALIZER: &str = "example.com/protection";

    #[test]
    fn only_what_is_to_go_and_unused_is_let_go() {
        let of = |deleting: bool, finalizers: Value| {
            let mut tree = json!({"apiVersion": "v1", "kind": "X",
                "metadata": {"name": "x", "finalizers": finalizers}});
            if deleting {
                tree.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
            }
            object(tree)
        };
        let (none, own) = (json!([]), json!(["other", FINALIZER]));
        for (deleting, finalizers, used, expected) in [
            (false, &none, false, Plan::Add),
            (false, &own, false, Plan::Nothing),
            (true, &own, true, Plan::Nothing),
            (true, &own, false, Plan::Remove),
            (true, &none, false, Plan::Nothing),
        ] {
            let object = of(deleting, finalizers.clone());
            assert_eq!(plan(&object, FINALIZER, || used), expected, "{deleting} {finalizers} {used}");
        }
    }

    #[test]
    fn other_finalizers_stay() {
        let mut tree = json!({"metadata": {"finalizers": ["other", FINALIZER]}});
        assert!(set(&mut tree, FINALIZER, false));
        assert_eq!(tree["metadata"]["finalizers"], json!(["other"]));
        assert!(!set(&mut tree, FINALIZER, false));
        assert!(set(&mut tree, FINALIZER, true));
        assert_eq!(tree["metadata"]["finalizers"], json!(["other", FINALIZER]));
    }
}
