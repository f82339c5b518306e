//! Which children belong to a parent: controller references, adoption and release.
//!
//! Owns: the decision ([`claim`]), the patches, and the indexes by which children are found. Start at
//! [`Family::claim`], which all controllers use. The rules are those of
//! upstream's controller reference managers: what is owned and no longer selected is released, what is selected and
//! has no controller is adopted, and neither happens for a parent or child that is being deleted.

use std::sync::Arc;

use apimachinery::{GroupVersionResource, Object, Selector, Status, Str, Value, json};
use client::{Api, Delta, Informer, ObjectKey, Patch, WriteOptions};
use controller_runtime::Expectations;

/// Index of objects by the uid of every owner.
pub const BY_OWNER: &str = "owner-uid";

/// Index by namespace of the objects that have no controller.
pub const ORPHANS: &str = "orphan-namespace";

/// Declares [`BY_OWNER`].
pub fn index_by_owner(informer: &Informer) {
    informer.add_index(BY_OWNER, |object| object.owners().map(|owner| Str::from(owner.uid)).collect());
}

/// Declares [`ORPHANS`].
pub fn index_orphans(informer: &Informer) {
    informer.add_index(ORPHANS, |object| match object.controller_owner() {
        Some(_) => Vec::new(),
        None => vec![object.namespace().into()],
    });
}

/// An orphan that appears, or whose labels change, may belong to one of `parents`: those whose selector takes it.
pub fn wake_adopters(
    parents: &Informer,
    delta: &Delta,
    keys: &mut Vec<ObjectKey>,
    selector_of: fn(&Object) -> Option<Selector>,
) {
    let Delta::Upsert { old, new } = delta else { return };
    if new.controller_owner().is_some() || new.is_deleting() {
        return;
    }
    let unchanged =
        old.as_ref().is_some_and(|old| old.controller_owner().is_none() && old.labels().eq(new.labels()));
    if unchanged {
        return;
    }
    let selects = |parent: &Arc<Object>| {
        selector_of(parent).is_some_and(|selector| !selector.is_everything() && selector.matches_object(new))
    };
    let adopters = parents.list_namespace(new.namespace()).into_iter().filter(selects);
    keys.extend(adopters.map(|parent| ObjectKey::from(&*parent)));
}

/// The parent in a claim.
#[derive(Clone, Debug)]
pub struct Parent<'a> {
    pub object: &'a Object,
    pub selector: &'a Selector,
}

/// Parents of one kind, and their children of another.
pub struct Family<'a> {
    pub api: &'a dyn Api,
    pub parents: GroupVersionResource,
    /// With [`BY_OWNER`] and [`ORPHANS`].
    pub children: &'a Informer,
    /// Deletions of children that the cache may not show yet.
    pub deletions: Option<&'a Expectations<ObjectKey>>,
    /// Children get and lose it with their owner.
    pub finalizer: Option<&'a str>,
    /// Which children are nobody's business any more.
    pub leaves_out: fn(&Object) -> bool,
    /// Whether a child has a name that its parent's children have.
    pub is_named: fn(parent: &str, child: &str) -> bool,
    /// Whether what is not selected is let go.
    pub releases: bool,
}

/// What belongs to a parent after a claim.
pub struct Claimed {
    pub children: Vec<Arc<Object>>,
    /// The cache shows all deletions that are known of.
    pub is_current: bool,
}

/// What [`claim`] found.
#[derive(Debug, Default)]
struct Claim {
    /// Belong to the parent already.
    owned: Vec<Arc<Object>>,
    adopt: Vec<Arc<Object>>,
    release: Vec<Arc<Object>>,
}

impl<'a> Family<'a> {
    pub fn new(api: &'a dyn Api, parents: GroupVersionResource, children: &'a Informer) -> Self {
        Self {
            api,
            parents,
            children,
            deletions: None,
            finalizer: None,
            leaves_out: |_| false,
            is_named: |_, _| true,
            releases: true,
        }
    }

    /// Adopts and releases as needed and returns the children that belong to the parent now.
    pub async fn claim(&self, parent: &Parent<'_>) -> Result<Claimed, Status> {
        let mut candidates = candidates(self.children, parent.object);
        candidates.retain(|child| !(self.leaves_out)(child));
        let alive = candidates.iter().filter(|child| !child.is_deleting()).map(|child| child.uid());
        let key = ObjectKey::from(parent.object);
        let is_current = self.deletions.is_none_or(|deletions| deletions.settle(&key, alive));
        let mut claim = claim(parent, candidates, self.is_named);
        if !self.releases {
            claim.release.clear();
        }
        Ok(Claimed { children: self.settle(parent, claim).await?, is_current })
    }
}

/// The children of `parent` and the orphans it may adopt, from an informer with both indexes.
fn candidates(informer: &Informer, parent: &Object) -> Vec<Arc<Object>> {
    let mut found = informer.by_index(BY_OWNER, parent.uid());
    found.retain(|child| child.namespace() == parent.namespace() && is_controlled_by(child, parent.uid()));
    found.extend(informer.by_index(ORPHANS, parent.namespace()));
    found
}

pub fn is_controlled_by(child: &Object, uid: &str) -> bool {
    child.controller_owner().is_some_and(|owner| owner.uid == uid)
}

/// Sorts candidates into those owned, to be adopted and to be released.
fn claim(parent: &Parent<'_>, candidates: Vec<Arc<Object>>, is_named: fn(&str, &str) -> bool) -> Claim {
    let mut claim = Claim::default();
    for child in candidates {
        let selected = parent.selector.matches_object(&child) && is_named(parent.object.name(), child.name());
        match child.controller_owner() {
            Some(owner) if owner.uid != parent.object.uid() => {}
            Some(_) if selected => claim.owned.push(child),
            Some(_) if parent.object.is_deleting() => {}
            Some(_) => claim.release.push(child),
            None if !selected || parent.object.is_deleting() || child.is_deleting() => {}
            None => claim.adopt.push(child),
        }
    }
    claim
}

impl Family<'_> {
    /// Carries a claim out and returns the children that belong to the parent now.
    ///
    /// Before the first adoption the parent is read from the API: a parent that the cache still shows but that is
    /// gone, or going, must not take children with it.
    async fn settle(&self, parent: &Parent<'_>, claim: Claim) -> Result<Vec<Arc<Object>>, Status> {
        let object = parent.object;
        let mut owned = claim.owned;
        for child in claim.release {
            let patch = release_patch(child.uid(), object.uid(), self.finalizer);
            match self.patch(&child, patch).await {
                Ok(_) => {}
                // It is gone, or somebody released it and its uid precondition no longer holds.
                Err(status) if status.is_not_found() || status.is_invalid() => {}
                Err(status) => return Err(status),
            }
        }
        if claim.adopt.is_empty() {
            return Ok(owned);
        }
        let fresh = self.api.find(&self.parents, object.namespace(), object.name()).await?;
        if fresh.is_none_or(|fresh| fresh.uid() != object.uid() || fresh.is_deleting()) {
            let why = format!("{} is gone or being deleted and adopts nothing", object.name());
            return Err(Status::conflict(&self.parents.group_resource(), object.name(), why));
        }
        for child in claim.adopt {
            let patch = adopt_patch(child.uid(), controller_reference(object), self.finalizer);
            match self.patch(&child, patch).await {
                Ok(adopted) => owned.push(adopted),
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(owned)
    }

    async fn patch(&self, child: &Object, patch: Patch) -> Result<Arc<Object>, Status> {
        let (namespace, name, options) = (child.namespace(), child.name(), WriteOptions::default());
        self.api.patch(self.children.resource(), namespace, name, None, patch, &options).await
    }
}

/// The `metav1.OwnerReference` of a child whose controller is `parent`.
pub fn controller_reference(parent: &Object) -> Value {
    json!({
        "apiVersion": parent.api_version(), "kind": parent.kind(), "name": parent.name(), "uid": parent.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

fn adopt_patch(child_uid: &str, reference: Value, finalizer: Option<&str>) -> Patch {
    let mut patch = json!({"metadata": {"uid": child_uid}});
    patch.set_at(&["metadata", "ownerReferences"], vec![reference]);
    if let Some(finalizer) = finalizer {
        patch.set_at(&["metadata", "finalizers"], vec![finalizer]);
    }
    Patch::Strategic(patch)
}

fn release_patch(child_uid: &str, parent_uid: &str, finalizer: Option<&str>) -> Patch {
    let mut patch = json!({"metadata": {
        "uid": child_uid, "ownerReferences": [{"$patch": "delete", "uid": parent_uid}],
    }});
    if let Some(finalizer) = finalizer {
        patch.set_at(&["metadata", "$deleteFromPrimitiveList/finalizers"], vec![finalizer]);
    }
    Patch::Strategic(patch)
}

/// The server refused because the namespace is going away: nothing in it is worth a retry.
pub fn is_namespace_terminating(status: &Status) -> bool {
    status.code == 403
        && (status.message.contains("because it is being terminated")
            || status.details.as_ref().is_some_and(|details| {
                details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
            }))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn object(tree: Value) -> Arc<Object> {
        Arc::new(Object::from_value(&tree, 1, &[]).expect("the test's tree has metadata"))
    }

    fn child(name: &str, app: &str, owner: Option<&str>, deleting: bool) -> Arc<Object> {
        let mut tree = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": app}}});
        if let Some(uid) = owner {
            tree.set_at(
                &["metadata", "ownerReferences"],
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "name": "p", "uid": uid, "controller": true}]),
            );
        }
        if deleting {
            tree.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        }
        object(tree)
    }

    fn parent(deleting: bool) -> Arc<Object> {
        let mut tree = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "p", "namespace": "ns", "uid": "p"}});
        if deleting {
            tree.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        }
        object(tree)
    }

    fn names(objects: &[Arc<Object>]) -> Vec<&str> {
        objects.iter().map(|object| object.name()).collect()
    }

    #[test]
    fn children_are_kept_adopted_and_released_by_selector_and_controller() {
        let selector = Selector::parse("app=a").unwrap();
        let candidates = || {
            vec![
                child("mine", "a", Some("p"), false),
                child("mine-unselected", "b", Some("p"), false),
                child("orphan", "a", None, false),
                child("orphan-unselected", "b", None, false),
                child("orphan-deleting", "a", None, true),
                child("other's", "a", Some("q"), false),
            ]
        };
        let every: fn(&str, &str) -> bool = |_, _| true;
        let alive = claim(&Parent { object: &parent(false), selector: &selector }, candidates(), every);
        assert_eq!(names(&alive.owned), ["mine"]);
        assert_eq!(names(&alive.adopt), ["orphan"]);
        assert_eq!(names(&alive.release), ["mine-unselected"]);

        let mine: fn(&str, &str) -> bool = |parent, child| parent == "p" && child.starts_with("orphan");
        let named = claim(&Parent { object: &parent(false), selector: &selector }, candidates(), mine);
        assert!(named.owned.is_empty());
        assert_eq!(names(&named.adopt), ["orphan"]);
        assert_eq!(names(&named.release), ["mine", "mine-unselected"]);

        let dying = claim(&Parent { object: &parent(true), selector: &selector }, candidates(), every);
        assert_eq!(names(&dying.owned), ["mine"]);
        assert!(dying.adopt.is_empty() && dying.release.is_empty());
    }
}
