//! The PersistentVolume binder: claims get volumes, and volumes whose claim is gone are reclaimed.
//!
//! ```text
//!     claim  ──> bind | default class | ask the provisioner | wait | lost
//!     volume ──> Available | Bound | unbind | Released ──> keep, delete or Failed
//! ```
//!
//! Binding is four writes in a fixed order: the volume names the claim, the volume is `Bound`, the claim names the
//! volume, the claim is `Bound`. Each is conditional on the version it was decided from, and after a crash the next
//! reconcile goes on where it stopped. Volumes are made by external provisioners only; the binder asks by annotation.
//!
//! Start at [`plan`]; what is left of in-tree plugins is in [`in_tree`].

mod in_tree;
mod plan;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES};
use api::view::{PersistentVolume, PersistentVolumeClaim, Pod, StorageClass};
use api::volumes::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA, name_claim,
};
use apimachinery::{Object, Status, Str, Value};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::expectations::shown;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::claims::{self, BY_CLAIM};
use plan::{Around, ClaimPlan, Event, Reclaim, VolumePlan};

const NAME: &str = "persistentvolume-binder-controller";

/// Claims that are not bound, by the class they ask for; those that ask for none are under the empty name.
const UNBOUND_OF_CLASS: &str = "unbound-of-class";
/// Claims by the volume they name.
const OF_VOLUME: &str = "volume-name";
/// Volumes that name no claim, by class.
const FREE_OF_CLASS: &str = "free-of-class";
/// Volumes by `namespace/name` of the claim they name.
const OF_CLAIM: &str = "claim-reference";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "persistent-volume-binder",
        event_source: "persistentvolume-controller",
        // Two claims that are looked at together would take the same volume.
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        claims: informers.of(&PERSISTENT_VOLUME_CLAIMS),
        volumes: informers.of(&PERSISTENT_VOLUMES),
        classes: informers.of(&STORAGE_CLASSES),
        pods: informers.of(&PODS),
    });
    let Controller { claims, volumes, classes, pods, .. } = &*reconciler;
    claims.add_index(UNBOUND_OF_CLASS, unbound_of_class);
    claims.add_index(OF_VOLUME, |claim| named_volume(claim).into_iter().collect());
    volumes.add_index(FREE_OF_CLASS, free_of_class);
    volumes.add_index(OF_CLAIM, |volume| {
        named_claim(volume).map(|key| key.to_string().into()).into_iter().collect()
    });
    claims::index_by_claim(pods);
    let (on_volume, on_class) = (reconciler.clone(), reconciler.clone());
    let (on_claim, on_pod) = (reconciler.clone(), reconciler.clone());
    let controller = controller_runtime::Controller::new(&context, reconciler.clone())
        .watches(claims, move |delta, keys| on_claim.observe_claim(delta, keys))
        .watches(volumes, move |delta, keys| on_volume.observe_volume(delta, keys))
        .watches(classes, move |delta, keys| on_class.observe_class(delta, keys))
        .watches(pods, move |delta, keys| on_pod.observe_pod(delta, keys));
    boxed(controller.run())
}

fn unbound_of_class(claim: &Object) -> Vec<Str> {
    match claim.view::<PersistentVolumeClaim>() {
        Ok(claim) if claim.spec.volume_name.is_empty() => vec![claim.class().into()],
        _ => Vec::new(),
    }
}

fn free_of_class(volume: &Object) -> Vec<Str> {
    match volume.view::<PersistentVolume>() {
        Ok(volume) if volume.spec.claim_ref.is_none() => vec![volume.class().into()],
        _ => Vec::new(),
    }
}

fn named_volume(claim: &Object) -> Option<Str> {
    let claim = claim.view::<PersistentVolumeClaim>().ok()?;
    Some(claim.spec.volume_name.clone()).filter(|name| !name.is_empty())
}

fn named_claim(volume: &Object) -> Option<ObjectKey> {
    let volume = volume.view::<PersistentVolume>().ok()?;
    let reference = volume.spec.claim_ref.as_ref()?;
    Some(ObjectKey::new(&reference.namespace, &reference.name))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(Str),
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    claims: Arc<Informer>,
    volumes: Arc<Informer>,
    classes: Arc<Informer>,
    pods: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result {
        match key {
            Key::Claim(key) => {
                if let Some(claim) = self.claims.get(&key.namespace, &key.name) {
                    self.sync_claim(claim).await?;
                }
            }
            Key::Volume(name) => {
                if let Some(volume) = self.volumes.get("", name) {
                    self.sync_volume(volume).await?;
                }
            }
        }
        Ok(Action::await_change())
    }
}

/// What concerns whom.
impl Controller {
    fn observe_claim(&self, delta: &Delta, keys: &mut Vec<Key>) {
        match delta {
            Delta::Upsert { new, .. } => keys.push(Key::Claim(ObjectKey::from(&**new))),
            Delta::Delete { old } => {
                keys.extend(named_volume(old).map(Key::Volume));
                let key = ObjectKey::from(&**old).to_string();
                keys.extend(volume_keys(&self.volumes.by_index(OF_CLAIM, &key)));
            }
            Delta::Resync => {}
        }
    }

    fn observe_volume(&self, delta: &Delta, keys: &mut Vec<Key>) {
        let (Delta::Upsert { new: volume, .. } | Delta::Delete { old: volume }) = delta else { return };
        keys.push(Key::Volume(volume.name().into()));
        keys.extend(named_claim(volume).map(Key::Claim));
        keys.extend(claim_keys(&self.claims.by_index(OF_VOLUME, volume.name())));
        let Ok(view) = volume.view::<PersistentVolume>() else { return };
        if matches!(delta, Delta::Upsert { .. })
            && view.spec.claim_ref.is_none()
            && view.status.phase == "Available"
        {
            keys.extend(claim_keys(&self.claims.by_index(UNBOUND_OF_CLASS, view.class())));
        }
    }

    /// A first consumer appears, and the event of a claim that waits for it can name it.
    fn observe_pod(&self, delta: &Delta, keys: &mut Vec<Key>) {
        let Delta::Upsert { old: None, new } = delta else { return };
        if !new.view::<Pod>().is_ok_and(|pod| pod.spec.node_name.is_empty()) {
            return;
        }
        let waits = |key: &ObjectKey| {
            let claim = self.claims.get(&key.namespace, &key.name);
            claim.is_some_and(|claim| named_volume(&claim).is_none())
        };
        keys.extend(claims::claims_of(new).into_iter().filter(waits).map(Key::Claim));
    }

    fn observe_class(&self, delta: &Delta, keys: &mut Vec<Key>) {
        let Delta::Upsert { new, .. } = delta else { return };
        keys.extend(claim_keys(&self.claims.by_index(UNBOUND_OF_CLASS, new.name())));
        if new.view::<StorageClass>().is_ok_and(|class| class.is_default()) {
            keys.extend(claim_keys(&self.claims.by_index(UNBOUND_OF_CLASS, "")));
        }
    }
}

fn claim_keys(claims: &[Arc<Object>]) -> impl Iterator<Item = Key> {
    claims.iter().map(|claim| Key::Claim(ObjectKey::from(&**claim)))
}

fn volume_keys(volumes: &[Arc<Object>]) -> impl Iterator<Item = Key> {
    volumes.iter().map(|volume| Key::Volume(volume.name().into()))
}

/// Claims.
impl Controller {
    async fn sync_claim(&self, object: Arc<Object>) -> Result<()> {
        let mut claim = view::<PersistentVolumeClaim>(&object)?;
        let mut object = object;
        if in_tree::may_migrate(&claim.metadata.annotations) {
            object = self.edit(&self.claims, object, in_tree::migrate_claim).await?;
            claim = view::<PersistentVolumeClaim>(&object)?;
        }
        let mut around = self.around(&claim);
        let mut plan = plan::claim(&claim, &around);
        if matches!(plan, ClaimPlan::Lost(_)) && around.named.is_none() && !claim.spec.volume_name.is_empty()
        {
            // Losing is for ever: not on the word of a cache.
            around.named = self.api.find(&PERSISTENT_VOLUMES, "", &claim.spec.volume_name).await?;
            plan = plan::claim(&claim, &around);
        }
        match plan {
            ClaimPlan::Bind(volume) if plan::is_bound(&*view::<PersistentVolume>(&volume)?, &claim) => Ok(()),
            ClaimPlan::Bind(volume) => self.bind(volume, object).await,
            ClaimPlan::AssignClass(class) => {
                let assign = |tree: &mut Value| {
                    tree.set_at(&["spec", "storageClassName"], class.as_str());
                    true
                };
                self.edit(&self.claims, object, assign).await.map(drop)
            }
            ClaimPlan::Provision { provisioner } => self.ask(object, &provisioner).await,
            ClaimPlan::Pending(event) => {
                if let Some(event) = event {
                    self.tell(&object, event);
                }
                self.write_claim_status(object, "Pending", None).await.map(drop)
            }
            ClaimPlan::Lost(_) if claim.status.phase == "Lost" => Ok(()),
            ClaimPlan::Lost(event) => {
                let object = self.write_claim_status(object, "Lost", None).await?;
                self.tell(&object, event);
                Ok(())
            }
            ClaimPlan::Tell(event) => {
                self.tell(&object, event);
                Ok(())
            }
            ClaimPlan::Retry(event) => {
                let reason = format!("{}: {}", ObjectKey::from(&*object), event.message);
                self.tell(&object, event);
                Err(Error::failed(reason))
            }
        }
    }

    fn around(&self, claim: &PersistentVolumeClaim) -> Around {
        let class = claim.class();
        let key = ObjectKey::new(&claim.metadata.namespace, &claim.metadata.name).to_string();
        if !claim.spec.volume_name.is_empty() || claim.metadata.annotations.contains_key(BIND_COMPLETED) {
            return Around { named: self.volumes.get("", &claim.spec.volume_name), ..Around::default() };
        }
        let mut volumes = self.volumes.by_index(FREE_OF_CLASS, class);
        volumes.extend(self.volumes.by_index(OF_CLAIM, &key));
        Around {
            named: None,
            volumes,
            class: self.classes.get("", class).and_then(|class| class.view().ok()),
            default_class: plan::default_class(&self.classes.list()),
            waiting_pods: self.waiting_pods(&key),
        }
    }

    fn waiting_pods(&self, claim: &str) -> Vec<Str> {
        let pods = self.pods.by_index(BY_CLAIM, claim);
        let waits = |pod: &Arc<Object>| {
            pod.view::<Pod>().is_ok_and(|pod| pod.spec.node_name.is_empty() && !pod.is_terminal())
        };
        let mut names: Vec<Str> = pods.iter().filter(|pod| waits(pod)).map(|pod| pod.name().into()).collect();
        names.sort();
        names
    }

    /// Asks an external provisioner for a volume.
    async fn ask(&self, claim: Arc<Object>, provisioner: &str) -> Result<()> {
        let ask = |tree: &mut Value| {
            if tree.str_at(&["metadata", "annotations", STORAGE_PROVISIONER]) == provisioner {
                return false;
            }
            for key in [STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA] {
                tree.set_at(&["metadata", "annotations", key], provisioner);
            }
            in_tree::migrate_claim(tree);
            true
        };
        let asked = match self.edit(&self.claims, claim.clone(), ask).await {
            Ok(asked) => asked,
            Err(error) => {
                let message = format!("Error saving claim: {error}");
                self.tell(&claim, Event::warning("ProvisioningFailed", message));
                return Err(error);
            }
        };
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.tell(&asked, Event::normal("ExternalProvisioning", message));
        Ok(())
    }

    async fn bind(&self, volume: Arc<Object>, claim: Arc<Object>) -> Result<()> {
        let volume = self.edit(&self.volumes, volume, |tree| name_claim(tree, &claim)).await?;
        let volume = self.write_phase(volume, "Bound", "").await?;
        let claim = self.edit(&self.claims, claim, |tree| name_volume(tree, volume.name())).await?;
        self.write_claim_status(claim, "Bound", Some(&volume)).await.map(drop)
    }

    async fn write_claim_status(
        &self,
        claim: Arc<Object>,
        phase: &str,
        volume: Option<&Object>,
    ) -> Result<Arc<Object>> {
        let mut tree = claim.to_value();
        let volume = volume.map(Object::to_value);
        if !status::write_claim(&mut tree, phase, volume.as_ref()).map_err(Error::failed)? {
            return Ok(claim);
        }
        Ok(self.write(&self.claims, &claim, Some("status"), tree).await?)
    }
}

/// Volumes.
impl Controller {
    async fn sync_volume(&self, object: Arc<Object>) -> Result<()> {
        let mut volume = view::<PersistentVolume>(&object)?;
        let mut object = object;
        if in_tree::may_migrate(&volume.metadata.annotations) {
            object = self.edit(&self.volumes, object, in_tree::migrate_volume).await?;
            volume = view::<PersistentVolume>(&object)?;
        }
        let claim = self.claim_of(&volume).await?;
        let claim_view = claim.as_deref().map(view::<PersistentVolumeClaim>).transpose()?;
        match plan::volume(&volume, claim_view.as_deref()) {
            VolumePlan::Nothing => Ok(()),
            VolumePlan::Phase(phase) => self.write_phase(object, phase, "").await.map(drop),
            VolumePlan::Reclaim(reclaim) => self.reclaim(object, &volume, reclaim).await,
            VolumePlan::Unbind => {
                let object = self.edit(&self.volumes, object, unbind).await?;
                self.write_phase(object, "Available", "").await.map(drop)
            }
            VolumePlan::Mismatch { of_volume, of_claim } => {
                self.tell(&object, of_volume);
                if let Some(claim) = claim {
                    self.tell(&claim, of_claim);
                }
                Ok(())
            }
        }
    }

    /// The claim that the volume knows by uid. That it is gone is believed only from the API.
    async fn claim_of(&self, volume: &PersistentVolume) -> Result<Option<Arc<Object>>, Status> {
        let Some(reference) = volume.spec.claim_ref.as_ref().filter(|own| !own.uid.is_empty()) else {
            return Ok(None);
        };
        let is_it = |claim: &Arc<Object>| claim.uid() == reference.uid.as_str();
        if let Some(claim) = self.claims.get(&reference.namespace, &reference.name).filter(is_it) {
            return Ok(Some(claim));
        }
        let claim = self.api.find(&PERSISTENT_VOLUME_CLAIMS, &reference.namespace, &reference.name).await?;
        Ok(claim.filter(is_it))
    }

    async fn reclaim(&self, object: Arc<Object>, volume: &PersistentVolume, reclaim: Reclaim) -> Result<()> {
        let mut object = object;
        if !matches!(volume.status.phase.as_str(), "Released" | "Failed") {
            object = self.write_phase(object, "Released", "").await?;
        }
        match reclaim {
            Reclaim::Keep => Ok(()),
            Reclaim::Fail(_) if volume.status.phase == "Failed" => Ok(()),
            Reclaim::Fail(event) => {
                let object = self.write_phase(object, "Failed", &event.message).await?;
                self.tell(&object, event);
                Ok(())
            }
            // It waits for its finalizers.
            Reclaim::Delete if object.is_deleting() => Ok(()),
            Reclaim::Delete => {
                let options = DeleteOptions::of(&object);
                match self.api.delete(&PERSISTENT_VOLUMES, "", object.name(), &options).await {
                    // Gone, or another one of its name by now.
                    Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
                    result => Ok(result?),
                }
            }
        }
    }

    async fn write_phase(&self, volume: Arc<Object>, phase: &str, message: &str) -> Result<Arc<Object>> {
        if view::<PersistentVolume>(&volume)?.status.phase == phase {
            return Ok(volume);
        }
        let mut tree = volume.to_value();
        if !status::write_volume(&mut tree, phase, message) {
            return Ok(volume);
        }
        Ok(self.write(&self.volumes, &volume, Some("status"), tree).await?)
    }
}

/// Writes.
impl Controller {
    /// Changes an object if `change` says so; conditional on its version.
    async fn edit(
        &self,
        informer: &Informer,
        object: Arc<Object>,
        change: impl FnOnce(&mut Value) -> bool,
    ) -> Result<Arc<Object>> {
        let mut tree = object.to_value();
        if !change(&mut tree) {
            return Ok(object);
        }
        Ok(self.write(informer, &object, None, tree).await?)
    }

    async fn write(
        &self,
        informer: &Informer,
        object: &Object,
        subresource: Option<&str>,
        tree: Value,
    ) -> Result<Arc<Object>, Status> {
        let (namespace, name) = (object.namespace(), object.name());
        let options = WriteOptions::default();
        let written =
            self.api.update(informer.resource(), namespace, name, subresource, tree, &options).await?;
        shown(informer, written.revision()).await;
        Ok(written)
    }

    fn tell(&self, object: &Object, event: Event) {
        self.recorder.event(&Reference::of(object), event.severity, event.reason, event.message);
    }
}

/// Makes a claim name its volume, for good; false when it does.
fn name_volume(claim: &mut Value, volume: &str) -> bool {
    let mut notes = vec![BIND_COMPLETED];
    let is_new = claim.str_at(&["spec", "volumeName"]) != volume;
    if is_new {
        claim.set_at(&["spec", "volumeName"], volume);
        notes.push(BOUND_BY_CONTROLLER);
    }
    notes.retain(|note| claim.at(&["metadata", "annotations", note]).is_none());
    notes.iter().for_each(|note| claim.set_at(&["metadata", "annotations", note], "yes"));
    is_new || !notes.is_empty()
}

/// Takes a volume back from its claim. Whoever reserved it by name keeps the reservation.
fn unbind(volume: &mut Value) -> bool {
    if volume.remove_at(&["metadata", "annotations", BOUND_BY_CONTROLLER]).is_some() {
        return volume.remove_at(&["spec", "claimRef"]).is_some();
    }
    volume.remove_at(&["spec", "claimRef", "uid"]).is_some()
}
