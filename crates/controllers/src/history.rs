//! ControllerRevisions: the past templates of StatefulSets and DaemonSets, as `kubectl rollout history` and `undo`
//! read them.
//!
//! Owns: what a revision holds, how it is made, renumbered and forgotten. Which revision a set is at, and which of them
//! may go, is the controllers' business. A template that comes back gets the next number on its old revision, so the
//! highest number is always the present template's.

use std::sync::Arc;

use api::gvr::CONTROLLER_REVISIONS;
use api::view::{ControllerRevision, PodTemplate};
use apimachinery::{GroupVersionResource, Object, Status, Value, json};
use client::typed::view;
use client::{Api, DeleteOptions, Informer, WriteOptions};

use crate::ownership::{self, Family, Parent};

/// The label by which a pod says of which revision it is: the name for StatefulSets, the hash for DaemonSets.
pub const REVISION_HASH: &str = "controller-revision-hash";

/// Upstream's limit on the part of a revision's name before its hash.
const PREFIX_MAX: usize = 223;

/// A ControllerRevision.
#[derive(Clone, Debug)]
pub struct Revision {
    pub object: Arc<Object>,
    view: Arc<ControllerRevision>,
}

/// What happens to owned revisions that the parent's selector does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strays {
    Released,
    /// They stay with their parent, which takes no notice of them.
    Ignored,
}

/// The revisions of the API.
pub struct History {
    api: Arc<dyn Api>,
    revisions: Arc<Informer>,
}

// === impl Revision ===

impl Revision {
    pub fn read(object: Arc<Object>) -> Result<Self, Status> {
        Ok(Self { view: view(&object)?, object })
    }

    pub fn name(&self) -> &str {
        self.object.name()
    }

    pub fn number(&self) -> i64 {
        self.view.revision
    }

    pub fn data(&self) -> &Value {
        &self.view.data
    }

    /// The template that this revision restores.
    pub fn template(&self) -> PodTemplate {
        let mut template = self.data().at(&["spec", "template"]).cloned().unwrap_or_default();
        template.remove_at(&["$patch"]);
        PodTemplate::new(template)
    }
}

/// What a revision holds: the strategic merge patch that restores a template.
pub fn data_of(template: &PodTemplate) -> Value {
    let mut data = json!({"spec": {}});
    data.set_at(&["spec", "template"], template.to_value());
    data.set_at(&["spec", "template", "$patch"], "replace");
    data
}

/// The tree of a new revision of `parent`; its name and labels of its own are still to be set.
pub fn new_revision(parent: &Object, template: &PodTemplate, number: i64) -> Value {
    let mut revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision"});
    let source = parent.to_value();
    for (field, value) in [
        ("labels", template.to_value().at(&["metadata", "labels"])),
        ("annotations", source.at(&["metadata", "annotations"])),
    ] {
        if let Some(value) = value {
            revision.set_at(&["metadata", field], value.clone());
        }
    }
    revision.set_at(&["metadata", "namespace"], parent.namespace());
    revision.set_at(&["metadata", "ownerReferences"], vec![ownership::controller_reference(parent)]);
    revision.set_at(&["data"], data_of(template));
    revision.set_at(&["revision"], number);
    revision
}

/// `parent-hash`; too long a parent's name is cut.
pub fn name(parent: &str, hash: &str) -> String {
    format!("{}-{hash}", parent.get(..PREFIX_MAX).unwrap_or(parent))
}

/// The default of `revisionHistoryLimit`.
pub const LIMIT: i32 = 10;

/// Oldest first.
pub fn sort(revisions: &mut [Revision]) {
    revisions.sort_by(|a, b| {
        let age = |own: &Revision| own.object.creation_timestamp().to_owned();
        a.number().cmp(&b.number()).then_with(|| age(a).cmp(&age(b))).then_with(|| a.name().cmp(b.name()))
    });
}

/// The number after the highest.
pub fn next_number<'a>(revisions: impl IntoIterator<Item = &'a Revision>) -> i64 {
    revisions.into_iter().map(Revision::number).max().unwrap_or_default() + 1
}

// === impl History ===

impl History {
    /// Reads through `revisions`, which gets the indexes that this needs.
    pub fn new(api: Arc<dyn Api>, revisions: Arc<Informer>) -> Self {
        ownership::index_by_owner(&revisions);
        ownership::index_orphans(&revisions);
        Self { api, revisions }
    }

    /// The selected revisions that belong to `parent`, oldest first. Selected orphans are adopted.
    pub async fn claim(
        &self,
        parent: &Parent<'_>,
        parent_resource: &GroupVersionResource,
        strays: Strays,
    ) -> Result<Vec<Revision>, Status> {
        let family = Family {
            releases: strays == Strays::Released,
            ..Family::new(&*self.api, parent_resource.clone(), &self.revisions)
        };
        let owned = family.claim(parent).await?.children;
        let mut revisions = owned.into_iter().map(Revision::read).collect::<Result<Vec<_>, _>>()?;
        sort(&mut revisions);
        Ok(revisions)
    }

    /// Creates a revision. A name that is taken is [`Err`] with the revision that has it.
    pub async fn create(&self, tree: Value) -> Result<Result<Revision, Revision>, Status> {
        let (namespace, name) = (
            tree.str_at(&["metadata", "namespace"]).to_owned(),
            tree.str_at(&["metadata", "name"]).to_owned(),
        );
        match self.api.create(&CONTROLLER_REVISIONS, &namespace, tree, &WriteOptions::default()).await {
            Ok(created) => Ok(Ok(Revision::read(created)?)),
            Err(status) if status.is_already_exists() => {
                let taken = self.api.get(&CONTROLLER_REVISIONS, &namespace, &name).await?;
                Ok(Err(Revision::read(taken)?))
            }
            Err(status) => Err(status),
        }
    }

    /// Gives a revision a new number.
    pub async fn renumber(&self, revision: &Revision, number: i64) -> Result<Revision, Status> {
        self.change(revision, |tree| tree.set_at(&["revision"], number)).await
    }

    pub async fn change(
        &self,
        revision: &Revision,
        change: impl FnOnce(&mut Value),
    ) -> Result<Revision, Status> {
        let mut tree = revision.object.to_value();
        change(&mut tree);
        let (namespace, name) = (revision.object.namespace(), revision.name());
        let options = WriteOptions::default();
        let updated = self.api.update(&CONTROLLER_REVISIONS, namespace, name, None, tree, &options).await?;
        Revision::read(updated)
    }

    /// Deletes a revision, unless it is gone.
    pub async fn delete(&self, revision: &Revision) -> Result<(), Status> {
        let object = &revision.object;
        let options = DeleteOptions::of(object);
        match self.api.delete(&CONTROLLER_REVISIONS, object.namespace(), object.name(), &options).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;
    use crate::testing::object;

    fn template() -> PodTemplate {
        PodTemplate::new(
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}),
        )
    }

    #[test]
    fn a_revision_holds_the_patch_that_restores_its_template() {
        let parent = object(json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {
            "name": "web", "namespace": "ns", "uid": "u", "annotations": {"kubernetes.io/change-cause": "why"}}}));
        let tree = new_revision(&parent, &template(), 3);
        assert_eq!(
            tree["data"].to_json_string(),
            r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c"}]}}}}"#
        );
        assert_eq!(tree["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(tree["metadata"]["annotations"], json!({"kubernetes.io/change-cause": "why"}));
        let mut stored = tree.clone();
        stored.set_at(&["metadata", "name"], "web-1");
        assert_eq!(Revision::read(object(stored)).unwrap().template(), template());
    }

    #[test]
    fn numbers_age_and_name_order_revisions() {
        let revision = |name: &str, number: i64, created: &str| {
            let tree = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": number,
                "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created}});
            Revision::read(object(tree)).unwrap()
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let mut revisions = vec![
            revision("d", 2, early),
            revision("c", 1, late),
            revision("b", 1, early),
            revision("a", 1, late),
        ];
        sort(&mut revisions);
        assert_eq!(revisions.iter().map(Revision::name).collect::<Vec<_>>(), ["b", "a", "c", "d"]);
        assert_eq!((next_number(&revisions), next_number(&[])), (3, 1));
    }

    #[test]
    fn names_differ_by_collision_and_fit() {
        let data = data_of(&template());
        assert_ne!(hash::of_data(&data, 0), hash::of_data(&data, 1));
        let long = "x".repeat(300);
        assert_eq!(name(&long, "abc").len(), PREFIX_MAX + 4);
        assert_eq!(name("web", "abc"), "web-abc");
    }
}
