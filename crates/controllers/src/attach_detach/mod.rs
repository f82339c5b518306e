//! The attach-detach controller: volumes of CSI drivers are attached to the nodes whose pods use them, and detached
//! when none does any more.
//!
//! ```text
//!     pods of a node ──> claims ──> volumes ┐
//!     VolumeAttachments of the node ────────┴──> plan ──> attach | report in the node's status | detach
//! ```
//!
//! A VolumeAttachment asks the driver's attacher; what is attached stands in its status and nowhere else, so that a
//! restart loses nothing. Nodes are looked at one by one, those only whose kubelet says that it leaves attaching to a
//! controller. Start at [`Controller::sync`].

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{CSI_DRIVERS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, VOLUME_ATTACHMENTS};
use api::view::{CsiDriver, PersistentVolume, PersistentVolumeClaim, Pod, VolumeAttachment};
use api::volumes::own_claim;
use apimachinery::{Object, Status, Str, Value, json};
use async_trait::async_trait;
use client::events::Reference;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Patch, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::expectations::shown;
use controller_runtime::{Action, Context, ControllerDescriptor, Expectations, Reconcile, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rt::Instant;

use crate::claims::{self, BY_CLAIM, claims_of};
use crate::pods::{BY_NODE, index_by_node};
use crate::{Options, ownership};
use plan::{Attachment, NodeState, Volume};

const NAME: &str = "persistentvolume-attach-detach-controller";

/// Indexes of attachments.
const OF_NODE: &str = "attachment-node";
const OF_VOLUME: &str = "attachment-volume";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "attachdetach-controller",
        event_source: "attachdetach-controller",
        // Two nodes that are looked at together would both attach a volume that only one may have.
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        nodes: informers.of(&NODES),
        pods: informers.of(&PODS),
        claims: informers.of(&PERSISTENT_VOLUME_CLAIMS),
        volumes: informers.of(&PERSISTENT_VOLUMES),
        drivers: informers.of(&CSI_DRIVERS),
        attachments: informers.of(&VOLUME_ATTACHMENTS),
        detached: Expectations::default(),
        unmounting: Mutex::default(),
        told: Mutex::default(),
    });
    let Controller { nodes, pods, claims, volumes, drivers, attachments, .. } = &*reconciler;
    index_by_node(pods);
    claims::index_by_claim(pods);
    attachments.add_index(OF_NODE, |own| vec![node_of(own)]);
    attachments.add_index(OF_VOLUME, |own| volume_of(own).into_iter().collect());
    let (on_claim, on_volume) = (reconciler.clone(), reconciler.clone());
    let (on_attachment, on_driver) = (reconciler.clone(), reconciler.clone());
    let controller = controller_runtime::Controller::new(&context, reconciler.clone())
        .watches(nodes, |delta, keys| {
            if let Delta::Upsert { new: node, .. } | Delta::Delete { old: node } = delta
                && is_managed(node)
            {
                keys.push(node.name().into());
            }
        })
        .watches(pods, |delta, keys| {
            if let Delta::Upsert { new: pod, .. } | Delta::Delete { old: pod } = delta
                && !claims_of(pod).is_empty()
            {
                keys.extend(node_of_pod(pod));
            }
        })
        .watches(claims, move |delta, keys| {
            if let Delta::Upsert { new: claim, .. } = delta {
                keys.extend(on_claim.nodes_using(&ObjectKey::from(&**claim)));
            }
        })
        .watches(volumes, move |delta, keys| {
            if let Delta::Upsert { new: volume, .. } = delta {
                keys.extend(on_volume.nodes_wanting(volume));
            }
        })
        .watches(drivers, move |_, keys| keys.extend(on_driver.managed_nodes()))
        .watches(attachments, move |delta, keys| on_attachment.observe_attachment(delta, keys));
    boxed(controller.run())
}

fn is_managed(node: &Object) -> bool {
    node.metadata_value().str_at(&["annotations", plan::MANAGED]) == "true"
}

fn node_of(attachment: &Object) -> Str {
    attachment.view::<VolumeAttachment>().map(|own| own.spec.node_name.clone()).unwrap_or_default()
}

fn volume_of(attachment: &Object) -> Option<Str> {
    let attachment = attachment.view::<VolumeAttachment>().ok()?;
    attachment.spec.source.persistent_volume_name.clone().filter(|name| !name.is_empty())
}

fn node_of_pod(pod: &Object) -> Option<Str> {
    let pod = pod.view::<Pod>().ok()?;
    Some(pod.spec.node_name.clone()).filter(|name| !name.is_empty())
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    nodes: Arc<Informer>,
    pods: Arc<Informer>,
    claims: Arc<Informer>,
    volumes: Arc<Informer>,
    drivers: Arc<Informer>,
    attachments: Arc<Informer>,
    /// Own deletions, by node, that the cache has still to show.
    detached: Expectations<Str>,
    /// Attachments that nobody wants and whose node has the volume mounted, and since when.
    unmounting: Mutex<HashMap<Str, Instant>>,
    /// The last complaint of each node's volumes and whom it was made to, which is not repeated.
    told: Mutex<HashMap<(Str, Str), String>>,
}

/// A volume with the pods of one node that use it.
type Used = (Volume, Vec<Arc<Object>>);

/// What concerns which nodes.
impl Controller {
    fn managed_nodes(&self) -> Vec<Str> {
        let nodes = self.nodes.list();
        nodes.iter().filter(|node| is_managed(node)).map(|node| node.name().into()).collect()
    }

    fn nodes_using(&self, claim: &ObjectKey) -> Vec<Str> {
        let pods = self.pods.by_index(BY_CLAIM, &claim.to_string());
        pods.iter().filter_map(|pod| node_of_pod(pod)).collect()
    }

    fn nodes_wanting(&self, volume: &Object) -> Vec<Str> {
        let Ok(volume) = volume.view::<PersistentVolume>() else { return Vec::new() };
        let reference = volume.spec.claim_ref.as_ref();
        reference.map(|own| self.nodes_using(&ObjectKey::new(&own.namespace, &own.name))).unwrap_or_default()
    }

    fn observe_attachment(&self, delta: &Delta, keys: &mut Vec<Str>) {
        let (Delta::Upsert { new: own, .. } | Delta::Delete { old: own }) = delta else { return };
        keys.push(node_of(own));
        // Another node may have waited for it.
        if matches!(delta, Delta::Delete { .. })
            && let Some(volume) = volume_of(own).and_then(|name| self.volumes.get("", &name))
        {
            keys.extend(self.nodes_wanting(&volume));
        }
    }
}

#[async_trait]
impl Reconcile for Controller {
    /// The name of a node.
    type Key = Str;

    async fn reconcile(&self, name: &Str) -> Result {
        let node = self.nodes.get("", name);
        if node.as_deref().is_some_and(|node| !is_managed(node)) {
            return Ok(Action::await_change());
        }
        self.sync(name, node.as_deref()).await
    }
}

impl Controller {
    async fn sync(&self, name: &Str, node: Option<&Object>) -> Result {
        let state = NodeState::of(node);
        let used = if state.exists { self.used_on(name) } else { BTreeMap::new() };
        let wanted: BTreeMap<Str, Volume> =
            used.iter().map(|(name, (volume, _))| (name.clone(), volume.clone())).collect();
        let attachments = self.attachments_of(name);
        let elsewhere = |volume: &str| !self.other_nodes(name, volume).is_empty();
        let now = rt::instant();
        let waited = |attachment: &str| {
            let since = self.unmounting.lock().get(attachment).copied();
            since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        let plan = plan::plan(&state, &wanted, &attachments, elsewhere, waited);
        self.told.lock().retain(|(node, volume), _| node != name || used.contains_key(volume));
        self.tell(name, &used, &plan);
        if let Some(report) = &plan.report {
            self.report(name, report).await?;
        }
        if !plan.detach.is_empty() {
            let mounted = self.mounted_meanwhile(name, &state).await?;
            for own in attachments.iter().filter(|own| plan.detach.contains(&own.name)) {
                if !mounted.contains(&own.reported_as) {
                    self.detach(name, own).await?;
                }
            }
        }
        for volume in &plan.attach {
            self.attach(name, volume, &used).await?;
        }
        Ok(self.next_look(&attachments, &state, &plan, now))
    }

    /// The volumes that pods of a node need attached, by name.
    fn used_on(&self, node: &str) -> BTreeMap<Str, Used> {
        let mut used: BTreeMap<Str, Used> = BTreeMap::new();
        for object in self.pods.by_index(BY_NODE, node) {
            let Ok(pod) = object.view::<Pod>() else { continue };
            if !plan::needs_volumes(&pod) {
                continue;
            }
            for volume in pod.spec.volumes.iter().filter_map(|volume| self.attachable(&object, volume)) {
                let (_, users) = used.entry(volume.name.clone()).or_insert_with(|| (volume, Vec::new()));
                users.push(object.clone());
            }
        }
        used
    }

    /// The bound volume behind a pod's volume, if its driver wants it attached.
    fn attachable(&self, pod: &Object, volume: &api::view::Volume) -> Option<Volume> {
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => self.claims.get(pod.namespace(), &claim.claim_name)?,
            (None, Some(_)) => {
                let claim = self.claims.get(pod.namespace(), &own_claim(pod.name(), &volume.name))?;
                ownership::is_controlled_by(&claim, pod.uid()).then_some(claim)?
            }
            (None, None) => return None,
        };
        let view = claim.view::<PersistentVolumeClaim>().ok().filter(|own| own.status.phase == "Bound")?;
        let volume = self.volumes.get("", &view.spec.volume_name)?.view::<PersistentVolume>().ok()?;
        let bound = volume.spec.claim_ref.as_ref().is_some_and(|own| own.uid == claim.uid());
        let volume = Volume::of(&volume).filter(|_| bound)?;
        self.must_attach(&volume.driver).then_some(volume)
    }

    /// A driver that says nothing wants its volumes attached.
    fn must_attach(&self, driver: &str) -> bool {
        let driver = self.drivers.get("", driver).and_then(|driver| driver.view::<CsiDriver>().ok());
        driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
    }

    /// Those that were made here or could have been: others are somebody else's.
    fn attachments_of(&self, node: &str) -> Vec<Attachment> {
        let own = self.attachments.by_index(OF_NODE, node);
        let alive = own.iter().filter(|own| !own.is_deleting()).map(|own| own.uid());
        self.detached.settle(&node.into(), alive);
        if own.is_empty() {
            self.detached.forget(&node.into());
        }
        own.iter().filter_map(|object| self.attachment(object, node)).collect()
    }

    fn attachment(&self, object: &Object, node: &str) -> Option<Attachment> {
        let volume = volume_of(object)?;
        let known = self.volumes.get("", &volume).and_then(|own| own.view::<PersistentVolume>().ok());
        let reported_as = match known.as_deref().and_then(Volume::of) {
            Some(own) if own.attachment_name(node) != object.name() => return None,
            Some(own) => own.reported_as(),
            // Nobody can tell whose it is and whether it is mounted.
            None => return None,
        };
        let view = object.view::<VolumeAttachment>().ok()?;
        let status = &view.status;
        Some(Attachment {
            name: object.name().into(),
            uid: object.uid().into(),
            reported_as,
            volume,
            attached: status.attached,
            deleting: object.is_deleting() || self.detached.is_deleted(&node.into(), object.uid()),
            error: status.attach_error.as_ref().map(|error| error.message.clone()),
        })
    }

    fn other_nodes(&self, node: &str, volume: &str) -> Vec<Str> {
        let nodes = self.attachments.by_index(OF_VOLUME, volume).into_iter().map(|own| node_of(&own));
        nodes.filter(|own| own != node).collect()
    }

    /// When an attachment may be detached by force.
    fn next_look(
        &self,
        attachments: &[Attachment],
        state: &NodeState,
        plan: &plan::Plan,
        now: Instant,
    ) -> Action {
        let mut unmounting = self.unmounting.lock();
        for own in attachments.iter().filter(|own| !plan.unmounting.contains(&own.name)) {
            unmounting.remove(&own.name);
        }
        let since = plan.unmounting.iter().map(|name| *unmounting.entry(name.clone()).or_insert(now));
        match since.min() {
            Some(since) if !state.ready => {
                let waited = now.saturating_duration_since(since);
                Action::requeue(plan::UNMOUNT_MAX.saturating_sub(waited))
            }
            _ => Action::await_change(),
        }
    }
}

/// Writes and events.
impl Controller {
    async fn report(&self, node: &str, attached: &[Str]) -> Result<()> {
        let list: Vec<Value> =
            attached.iter().map(|name| json!({"name": name.as_str(), "devicePath": ""})).collect();
        let mut patch = json!({"status": {}});
        patch.set_at(&["status", "volumesAttached"], list);
        let options = WriteOptions::default();
        match self.api.patch(&NODES, "", node, Some("status"), Patch::Merge(patch), &options).await {
            Err(status) if status.is_not_found() => Ok(()),
            result => {
                let revision = result?.revision();
                shown(&self.nodes, revision).await;
                Ok(())
            }
        }
    }

    async fn attach(&self, node: &str, volume: &Volume, used: &BTreeMap<Str, Used>) -> Result<(), Status> {
        match self.api.create_if_absent(&VOLUME_ATTACHMENTS, "", volume.attachment(node)).await {
            Ok(made) => {
                let revision = made.map_or(0, |own| own.revision());
                shown(&self.attachments, revision).await;
                Ok(())
            }
            Err(status) => {
                let users = used.get(&volume.name).map(|(_, users)| users.as_slice()).unwrap_or_default();
                self.complain(node, volume.name.as_str(), users, |_| {
                    failed(&volume.name, &status.to_string())
                });
                Err(status)
            }
        }
    }

    /// Volumes that the node has in use and the cache does not show so yet: these are not detached, as upstream.
    async fn mounted_meanwhile(&self, node: &str, known: &NodeState) -> Result<Vec<Str>, Status> {
        let now = NodeState::of(self.api.find(&NODES, "", node).await?.as_deref());
        Ok(now.in_use.into_iter().filter(|own| !known.in_use.contains(own)).collect())
    }

    async fn detach(&self, node: &Str, attachment: &Attachment) -> Result<(), Status> {
        match self.api.delete(&VOLUME_ATTACHMENTS, "", &attachment.name, &DeleteOptions::default()).await {
            Ok(()) => {
                self.detached.deleted(node, &attachment.uid);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Tells the pods that wait for their volumes.
    fn tell(&self, node: &Str, used: &BTreeMap<Str, Used>, plan: &plan::Plan) {
        let users = |volume: &Str| used.get(volume).map(|(_, users)| users.as_slice()).unwrap_or_default();
        for volume in &plan.succeeded {
            self.told.lock().remove(&(node.clone(), volume.clone()));
            let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
            for pod in users(volume) {
                self.recorder.normal(&Reference::of(pod), "SuccessfulAttachVolume", message.clone());
            }
        }
        for (volume, error) in &plan.failed {
            self.complain(node, volume, users(volume), |_| failed(volume, error));
        }
        for volume in &plan.taken {
            let elsewhere: Vec<(Str, Str)> = self
                .other_nodes(node, volume)
                .iter()
                .flat_map(|other| {
                    self.used_on(other).remove(volume).map(|(_, users)| users).unwrap_or_default()
                })
                .map(|pod| (Str::from(pod.namespace()), Str::from(pod.name())))
                .collect();
            self.complain(node, volume, users(volume), |pod| {
                plan::taken(volume, pod.namespace(), &elsewhere)
            });
        }
    }

    fn complain(&self, node: &str, volume: &str, pods: &[Arc<Object>], message: impl Fn(&Object) -> String) {
        let messages: Vec<String> = pods.iter().map(|pod| message(pod)).collect();
        let to = pods.iter().zip(&messages).map(|(pod, message)| format!("{} {message}", pod.uid()));
        let (key, all) = ((Str::from(node), Str::from(volume)), to.collect::<Vec<_>>().join("\n"));
        if self.told.lock().insert(key, all.clone()).is_some_and(|told| told == all) {
            return;
        }
        for (pod, message) in pods.iter().zip(messages) {
            self.recorder.warning(&Reference::of(pod), "FailedAttachVolume", message);
        }
    }
}

fn failed(volume: &str, error: &str) -> String {
    format!("AttachVolume.Attach failed for volume \"{volume}\" : {error}")
}
