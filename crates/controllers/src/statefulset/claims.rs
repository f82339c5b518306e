//! The claims of a set's pods: made before the pod, owned as the retention policy says.

use std::sync::Arc;

use api::gvr::PERSISTENT_VOLUME_CLAIMS;
use apimachinery::{Object, Value};
use client::WriteOptions;
use controller_runtime::Error;

use super::plan::{self, Member};
use super::retention::{Owners, deletes};
use super::{Flow, GO_ON, Sync};
use crate::ownership;

impl Sync<'_> {
    /// Makes the claims of a place that are not there. All are tried; what failed is one error.
    pub(super) async fn create_claims(&self, ordinal: i32, pod: &str) -> Result<(), Error> {
        let mut failures = Vec::new();
        for template in &self.set.spec.volume_claim_templates {
            match self.claim(template, ordinal) {
                Some(claim) if claim.is_deleting() => {
                    failures.push(format!("pvc {} is being deleted", claim.name()));
                }
                Some(_) => {}
                None => failures.extend(self.create_claim(template, ordinal, pod).await?),
            }
        }
        match failures.as_slice() {
            [] => Ok(()),
            [one] => Err(Error::failed(one.as_str())),
            several => Err(Error::failed(format!("[{}]", several.join(", ")))),
        }
    }

    /// Why the claim could not be made, if it could not.
    async fn create_claim(&self, template: &Value, ordinal: i32, pod: &str) -> Result<Option<String>, Error> {
        let tree = plan::claim_of(self.object, self.set, template, ordinal);
        let name = tree.str_at(&["metadata", "name"]).to_owned();
        let (set, recorder) = (self.object.name(), &self.controller.recorder);
        let (api, options) = (&self.controller.api, WriteOptions::default());
        match api.create(&PERSISTENT_VOLUME_CLAIMS, self.object.namespace(), tree, &options).await {
            Ok(claim) => {
                self.controller.claims.expectations.written(self.key, claim.revision());
                let message = format!("Create Claim {name} Pod {pod} in StatefulSet {set} success");
                recorder.normal(&self.reference, "SuccessfulCreate", message);
                Ok(None)
            }
            Err(status) if ownership::is_namespace_terminating(&status) => {
                Err(Error::Stalled { reason: status.message })
            }
            Err(status) => {
                if !status.is_already_exists() {
                    let message = format!(
                        "Create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {status}"
                    );
                    recorder.warning(&self.reference, "FailedCreate", message);
                }
                Ok(Some(format!("failed to create PVC {name}: {status}")))
            }
        }
    }

    /// A pod that waits may wait for a claim that somebody deleted.
    pub(super) async fn restore_claims(&self, member: &Member) -> Result<(), Error> {
        let object = &member.object;
        self.create_claims(member.ordinal, object.name()).await?;
        let retained = self.retain(member.ordinal, object.name(), object.uid()).await;
        retained.inspect_err(|error| self.failed("Update", object.name(), error))
    }

    /// A claim of the place still goes with an earlier pod: until it is gone, a new pod would lose its data.
    pub(super) fn has_claims_of_earlier_pod(&self, ordinal: i32) -> bool {
        let policy = &self.set.spec.persistent_volume_claim_retention_policy;
        let pod_name = plan::pod_name(self.object.name(), ordinal);
        let owners = self.owners(ordinal, &pod_name, "");
        deletes(&policy.when_scaled) && self.claims(ordinal).any(|claim| owners.is_of_earlier_pod(&claim))
    }

    pub(super) fn are_retained(&self, member: &Member) -> bool {
        let owners = self.owners(member.ordinal, member.object.name(), member.object.uid());
        self.claims(member.ordinal).all(|claim| owners.are_right(&claim))
    }

    pub(super) async fn retain_claims(&self, member: &Member) -> Flow {
        self.retain(member.ordinal, member.object.name(), member.object.uid()).await?;
        GO_ON
    }

    /// Gives the claims of a place the owners that the retention policy wants.
    pub(super) async fn retain(&self, ordinal: i32, pod_name: &str, pod_uid: &str) -> Result<(), Error> {
        let owners = self.owners(ordinal, pod_name, pod_uid);
        for claim in self.claims(ordinal) {
            if owners.has_conflict(&claim) {
                let message = format!(
                    "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim",
                    claim.name()
                );
                self.controller.recorder.warning(&self.reference, "ConflictingController", message);
            }
            if !owners.are_right(&claim) {
                self.write_owners(&claim, owners.references(&claim)).await?;
            }
        }
        Ok(())
    }

    async fn write_owners(&self, claim: &Object, references: Vec<Value>) -> Result<(), Error> {
        let mut tree = claim.to_value();
        tree.set_at(&["metadata", "ownerReferences"], references);
        let (api, options) = (&self.controller.api, WriteOptions::default());
        let (namespace, name) = (claim.namespace(), claim.name());
        match api.update(&PERSISTENT_VOLUME_CLAIMS, namespace, name, None, tree, &options).await {
            Ok(updated) => {
                self.controller.claims.expectations.written(self.key, updated.revision());
                Ok(())
            }
            Err(status) if status.is_conflict() => Err(status.into()),
            Err(status) => Err(Error::failed(format!(
                "could not update claim {name} for delete policy ownerRefs: {status}"
            ))),
        }
    }

    fn owners<'a>(&'a self, ordinal: i32, pod_name: &'a str, pod_uid: &'a str) -> Owners<'a> {
        let policy = &self.set.spec.persistent_volume_claim_retention_policy;
        let in_range = self.fleet.has_place(ordinal);
        Owners { set: self.object, pod_name, pod_uid, policy, in_range }
    }

    fn claims(&self, ordinal: i32) -> impl Iterator<Item = Arc<Object>> {
        let templates = self.set.spec.volume_claim_templates.iter();
        templates.filter_map(move |template| self.claim(template, ordinal))
    }

    fn claim(&self, template: &Value, ordinal: i32) -> Option<Arc<Object>> {
        let name = plan::claim_name(self.object.name(), template, ordinal);
        self.controller.claims.informer.get(self.object.namespace(), &name)
    }
}
