//! The ResourceClaim controller: pods get claims for devices from templates, and claims are kept for the pods that use
//! them, and no longer.
//!
//! ```text
//!     pod   ──> claim from template ──> status.resourceClaimStatuses;  bound past the scheduler ──> reservedFor
//!     claim ──> pods that are done leave reservedFor ──> nobody left: allocation and finalizer go ──> own claim deleted
//! ```
//!
//! Start at [`plan`]. Groups of pods (`GenericWorkload`, off by default upstream) are not looked at.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use api::gvr::{PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS};
use api::view::{Pod, PodResourceClaim};
use apimachinery::{Object, Str, Value, json};
use async_trait::async_trait;
use client::events::Reference;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Patch, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::expectations::shown;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;
use tracing::info;

use crate::Options;
use crate::ownership::{self, BY_OWNER};
use plan::Named;

const NAME: &str = "resourceclaim-controller";
const FIELD_MANAGER: &str = "ResourceClaimController";

/// Indexes of pods by `namespace/name` of their claims, and of the templates of those.
const BY_CLAIM: &str = "resource-claim";
const BY_TEMPLATE: &str = "resource-claim-template";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "resource-claim-controller",
        event_source: "resource_claim",
        workers: 10,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        pods: informers.of(&PODS),
        claims: informers.of(&RESOURCE_CLAIMS),
        templates: informers.of(&RESOURCE_CLAIM_TEMPLATES),
    });
    let Controller { pods, claims, templates, .. } = &*reconciler;
    ownership::index_by_owner(claims);
    pods.add_index(BY_CLAIM, |pod| index_values(&plan::claims_of(pod)));
    pods.add_index(BY_TEMPLATE, |pod| index_values(&plan::templates_of(pod)));
    let (on_claim, on_template) = (reconciler.clone(), reconciler.clone());
    let controller = controller_runtime::Controller::new(&context, reconciler.clone())
        .watches(pods, observe_pod)
        .watches(claims, move |delta, keys| on_claim.observe_claim(delta, keys))
        // A pod may have waited for it.
        .watches(templates, move |delta, keys| {
            if let Delta::Upsert { old: None, new } = delta {
                keys.extend(on_template.pods_with(BY_TEMPLATE, new));
            }
        });
    boxed(controller.run())
}

fn index_values(keys: &[ObjectKey]) -> Vec<Str> {
    keys.iter().map(|key| Str::from(key.to_string())).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

fn observe_pod(delta: &Delta, keys: &mut Vec<Key>) {
    let (pod, gone) = match delta {
        Delta::Upsert { new, .. } => (new, plan::is_done(new)),
        Delta::Delete { old } => (old, true),
        Delta::Resync => return,
    };
    if gone {
        keys.extend(plan::claims_of(pod).into_iter().map(Key::Claim));
    } else if pod.view::<Pod>().is_ok_and(|pod| !pod.spec.resource_claims.is_empty()) {
        keys.push(Key::Pod(ObjectKey::from(&**pod)));
    }
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    pods: Arc<Informer>,
    claims: Arc<Informer>,
    templates: Arc<Informer>,
}

impl Controller {
    fn observe_claim(&self, delta: &Delta, keys: &mut Vec<Key>) {
        match delta {
            Delta::Upsert { old, new } => {
                keys.push(Key::Claim(ObjectKey::from(&**new)));
                let is_as_before = old.as_ref().is_some_and(|old| is_of_same_owner(old, new));
                keys.extend(if is_as_before { self.unreserved(new) } else { self.pods_with(BY_CLAIM, new) });
            }
            Delta::Delete { old } => keys.extend(self.pods_with(BY_CLAIM, old)),
            Delta::Resync => {}
        }
    }

    /// Pods that are on their nodes and still to be entered in a claim.
    fn unreserved(&self, claim: &Object) -> Vec<Key> {
        let mut pods = self.pods.by_index(BY_CLAIM, &ObjectKey::from(claim).to_string());
        pods.retain(|pod| pod.view::<Pod>().is_ok_and(|pod| !pod.spec.node_name.is_empty()));
        if pods.is_empty() {
            return Vec::new();
        }
        let tree = claim.to_value();
        pods.retain(|pod| plan::needs_reservation(pod, &tree));
        pods.iter().map(|pod| Key::Pod(ObjectKey::from(&**pod))).collect()
    }

    fn pods_with(&self, index: &str, object: &Object) -> Vec<Key> {
        let pods = self.pods.by_index(index, &ObjectKey::from(object).to_string());
        pods.iter().map(|pod| Key::Pod(ObjectKey::from(&**pod))).collect()
    }
}

/// The same claim, made for the same pod.
fn is_of_same_owner(old: &Object, new: &Object) -> bool {
    let owner = |claim: &Object| claim.controller_owner().map(|owner| Str::from(owner.uid));
    old.uid() == new.uid() && owner(old) == owner(new)
}

#[async_trait]
impl Reconcile for Controller {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result {
        match key {
            Key::Pod(key) => {
                let pod = self.pods.get(&key.namespace, &key.name);
                if let Some(pod) = pod.filter(|pod| !pod.is_deleting()) {
                    self.sync_pod(&pod).await?;
                }
            }
            Key::Claim(key) => {
                if let Some(claim) = self.claims.get(&key.namespace, &key.name) {
                    self.sync_claim(&claim).await?;
                }
            }
        }
        Ok(Action::await_change())
    }
}

/// Pods.
impl Controller {
    async fn sync_pod(&self, pod: &Object) -> Result<()> {
        let entries = plan::entries(pod);
        let mut made = Vec::new();
        for (entry, named) in &entries {
            match self.provide(pod, entry, named).await {
                Ok(None) => {}
                Ok(Some(claim)) => made.push((entry.name.clone(), claim)),
                Err(why) => {
                    let message = format!("PodResourceClaim {}: {why}", entry.name);
                    let reference = Reference::of(pod);
                    self.recorder.warning(&reference, "FailedResourceClaimCreation", message.clone());
                    return Err(Error::failed(format!("pod {}, {message}", ObjectKey::from(pod))));
                }
            }
        }
        if !made.is_empty() {
            self.write_names(pod, &entries, made).await?;
        }
        self.reserve(pod, &entries).await
    }

    /// Makes the claim of an entry if there is none. The name of one that the pod's status does not show yet.
    async fn provide(
        &self,
        pod: &Object,
        entry: &PodResourceClaim,
        named: &Named,
    ) -> Result<Option<Str>, String> {
        match named {
            Named::ByUser(_) | Named::NotNeeded => return Ok(None),
            Named::Made(name) => {
                let claim = match self.claims.get(pod.namespace(), name) {
                    Some(claim) => Some(claim),
                    // The cache may lack it still, and must not have another one made.
                    None => {
                        let found = self.api.find(&RESOURCE_CLAIMS, pod.namespace(), name).await;
                        found.map_err(|status| status.to_string())?
                    }
                };
                if claim.is_some_and(|claim| plan::check_owner(pod, &claim).is_ok()) {
                    return Ok(None);
                }
            }
            Named::NotYet => {}
        }
        if let Some(claim) = self.made_earlier(pod, &entry.name) {
            return Ok(Some(claim.name().into()));
        }
        let name = &entry.resource_claim_template_name;
        let Some(template) = self.templates.get(pod.namespace(), name) else {
            return Err(format!(
                "resource claim template \"{name}\": resourceclaimtemplate.resource.k8s.io \"{name}\" not found"
            ));
        };
        let claim = plan::claim_for(pod, &entry.name, &template.to_value());
        let options = WriteOptions::default();
        match self.api.create(&RESOURCE_CLAIMS, pod.namespace(), claim, &options).await {
            Ok(claim) => {
                shown(&self.claims, claim.revision()).await;
                Ok(Some(claim.name().into()))
            }
            Err(status) => Err(format!("create ResourceClaim : {status}")),
        }
    }

    /// The pod's claim for an entry, whose name was not written down before this controller stopped.
    fn made_earlier(&self, pod: &Object, entry: &str) -> Option<Arc<Object>> {
        let own = self.claims.by_index(BY_OWNER, pod.uid());
        own.into_iter().find(|claim| {
            ownership::is_controlled_by(claim, pod.uid())
                && claim.metadata_value().str_at(&["annotations", plan::POD_CLAIM]) == entry
        })
    }

    async fn write_names(
        &self,
        pod: &Object,
        entries: &[(PodResourceClaim, Named)],
        made: Vec<(Str, Str)>,
    ) -> Result<()> {
        // What is applied is everything that this manager says about the pod.
        let known = entries.iter().filter_map(|(entry, named)| match named {
            Named::Made(name) if made.iter().all(|(own, _)| *own != entry.name) => {
                Some((entry.name.clone(), name.clone()))
            }
            _ => None,
        });
        let all: Vec<(Str, Str)> = known.chain(made.iter().cloned()).collect();
        let statuses: Vec<Value> = all
            .iter()
            .map(|(entry, claim)| json!({"name": entry.as_str(), "resourceClaimName": claim.as_str()}))
            .collect();
        let mut apply = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name(), "namespace": pod.namespace()}});
        apply.set_at(&["status", "resourceClaimStatuses"], statuses);
        let options =
            WriteOptions { field_manager: FIELD_MANAGER.into(), force: true, ..WriteOptions::default() };
        let (namespace, name) = (pod.namespace(), pod.name());
        self.api.patch(&PODS, namespace, name, Some("status"), Patch::Apply(apply), &options).await?;
        Ok(())
    }

    /// A pod that came to its node without the scheduler is entered in its claims.
    async fn reserve(&self, pod: &Object, entries: &[(PodResourceClaim, Named)]) -> Result<()> {
        if pod.view::<Pod>().is_ok_and(|pod| pod.spec.node_name.is_empty()) {
            return Ok(());
        }
        for (_, named) in entries {
            let (Named::ByUser(name) | Named::Made(name)) = named else { continue };
            let Some(claim) = self.claims.get(pod.namespace(), name) else { return Ok(()) };
            if matches!(named, Named::Made(_)) {
                plan::check_owner(pod, &claim).map_err(Error::failed)?;
            }
            let mut tree = claim.to_value();
            if plan::needs_reservation(pod, &tree) {
                plan::reserve(pod, &mut tree);
                self.write_status(&claim, tree).await?;
            }
        }
        Ok(())
    }

    async fn write_status(&self, claim: &Object, tree: Value) -> Result<Arc<Object>> {
        let (namespace, name) = (claim.namespace(), claim.name());
        let options = WriteOptions::default();
        Ok(self.api.update(&RESOURCE_CLAIMS, namespace, name, Some("status"), tree, &options).await?)
    }
}

/// Claims.
impl Controller {
    async fn sync_claim(&self, claim: &Object) -> Result<()> {
        let mut tree = claim.to_value();
        let gone = self.gone(claim, tree.array_at(&["status", "reservedFor"])).await?;
        let released = plan::release(&mut tree, |own| gone.contains(own.str_at(&["uid"])));
        if released {
            tree = self.write_status(claim, tree).await?.to_value();
        }
        if plan::unprotect(&mut tree, released) {
            let (namespace, name) = (claim.namespace(), claim.name());
            let options = WriteOptions::default();
            match self.api.update(&RESOURCE_CLAIMS, namespace, name, None, tree.clone(), &options).await {
                Err(status) if status.is_not_found() => return Ok(()),
                result => drop(result?),
            }
        }
        if tree.array_at(&["status", "reservedFor"]).is_empty() && self.owner_is_done(claim) {
            self.delete(claim).await;
        }
        Ok(())
    }

    /// The uids of pods that need a claim no longer. That one is not there is believed only from the API.
    async fn gone(&self, claim: &Object, reserved: &[Value]) -> Result<HashSet<String>> {
        let mut gone = HashSet::new();
        let is_pod =
            |own: &&Value| own.str_at(&["resource"]) == "pods" && own.str_at(&["apiGroup"]).is_empty();
        for own in reserved.iter().filter(is_pod) {
            let (name, uid) = (own.str_at(&["name"]), own.str_at(&["uid"]));
            let pod = match self.pods.get(claim.namespace(), name) {
                Some(pod) => Some(pod),
                None => self.api.find(&PODS, claim.namespace(), name).await?,
            };
            if pod.is_none_or(|pod| pod.uid() != uid || plan::is_done(&pod)) {
                gone.insert(uid.to_owned());
            }
        }
        Ok(gone)
    }

    /// The pod that a claim was made for will not use it. One that is not there has the garbage collector for that.
    fn owner_is_done(&self, claim: &Object) -> bool {
        let Some(owner) = claim.controller_owner().filter(|own| own.kind == "Pod" && own.api_version == "v1")
        else {
            return false;
        };
        let pod = self.pods.get(claim.namespace(), owner.name);
        pod.is_some_and(|pod| pod.uid() != owner.uid || plan::is_done(&pod))
    }

    async fn delete(&self, claim: &Object) {
        let options = DeleteOptions::of(claim);
        let (namespace, name) = (claim.namespace(), claim.name());
        if let Err(status) = self.api.delete(&RESOURCE_CLAIMS, namespace, name, &options).await {
            // The pod's end deletes it as well.
            info!(namespace, name, error = %status, "Could not delete the claim of a pod that is done");
        }
    }
}
