//! The `apiextensions.k8s.io` group. Schemas of custom resources are checked where they are compiled, not here.

use apimachinery::Value;

use crate::strategy::{Context, Strategy};

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("CustomResourceDefinition", &CustomResourceDefinition)];

pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        super::defaults::crd_stored_versions(object);
    }
}
