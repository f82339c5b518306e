//! The seam between the verbs and the admission chain (crate `admission`).

use api::Resource;
use apimachinery::{Object, Status, Value};
use async_trait::async_trait;
use auth::UserInfo;

use crate::Warnings;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What is asked for. The new object is passed beside it, since mutation changes it.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub resource: &'a Resource,
    pub subresource: Option<&'a str>,
    pub namespace: &'a str,
    /// Empty for a create with `generateName`.
    pub name: &'a str,
    pub user: &'a UserInfo,
    pub dry_run: bool,
    /// The stored state, for updates and deletes.
    pub old: Option<&'a Object>,
    pub warnings: &'a Warnings,
}

impl Attributes<'_> {
    /// Whether this is about `group`/`plural` itself (no subresource).
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_none() && self.resource.group == group && self.resource.plural == plural
    }

    /// Whether this is about a subresource of `group`/`plural`.
    pub fn is_sub(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.subresource == Some(subresource)
            && self.resource.group == group
            && self.resource.plural == plural
    }
}

/// All mutating plugins, then (after validation) all validating ones, as upstream orders them.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status>;

    /// `object` is `None` for a delete.
    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status>;
}
