//! The `resource.k8s.io` group: claims for devices, and the devices that drivers offer.
//!
//! The CEL expressions of selectors are not compiled here, and what is said about single devices of a slice is checked
//! against the schema only.

mod claim;
mod slice;

use apimachinery::Value;
use apimachinery::field::ErrorList;

use crate::strategy::{Context, Strategy};

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("ResourceClaim", &ResourceClaim),
    ("ResourceClaimTemplate", &ResourceClaimTemplate),
    ("ResourceSlice", &ResourceSlice),
];

/// Older versions write a request flat; only the newest form is looked into.
pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        claim::spec(&object["spec"], "spec")
    }

    /// What is asked for never changes, so nothing else is worth saying.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if ctx.subresource.is_some() { ErrorList::new() } else { claim::unchanged(new, old) }
    }
}

pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        claim::spec(&object["spec"]["spec"], "spec.spec")
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        claim::unchanged(new, old)
    }
}

pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        slice::spec(&object["spec"], None)
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        slice::spec(&new["spec"], Some(&old["spec"]))
    }
}
