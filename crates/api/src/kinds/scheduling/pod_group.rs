//! `scheduling.k8s.io/v1alpha2.PodGroup`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::conditions;
use crate::validation::fields::Fields;

pub struct PodGroup;

impl Strategy for PodGroup {
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if ctx.subresource.is_none() {
            return errors;
        }
        let (status, path) = (&new["status"], Path::root("status"));
        conditions::check(&mut errors, status.list("conditions"), &path.child("conditions"));
        let claims = new["spec"].list("resourceClaims");
        let path = path.child("resourceClaimStatuses");
        for (index, own) in status.list("resourceClaimStatuses").iter().enumerate() {
            let name = own.text("name");
            if claims.iter().all(|claim| claim.text("name") != name) {
                let why = "must match the name of an entry in `spec.resourceClaims`";
                errors.push(Error::invalid(&path.index(index).child("name"), name, why));
            }
        }
        errors
    }
}
