//! Volumes of the node's own disk: the StorageClass `local`, and folders for the claims that use it.
//!
//! Owns: volumes that [`PROVISIONER`] made for this node, and the folder of each below [`Options::root`]. It does what
//! an external provisioner does, for claims whose first pod was placed on this node. Their size is a number that is
//! kept and not enforced. It acts under an identity of its own, which is no node's: nodes may not make volumes.
//!
//! Every step may be the last before a crash: a folder is made before its volume and goes before it. A folder without
//! a volume is removed only while it is empty, because a volume that was retained and then deleted leaves its data on
//! purpose.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};
use api::view::{Node, PersistentVolume, PersistentVolumeClaim, StorageClass};
use api::volumes::{PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER};
use apimachinery::{Object, Status, Value, json};
use camino::{Utf8Path, Utf8PathBuf};
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Informer, Informers, Patch, Recorder, WriteOptions};
use futures::stream::{self, StreamExt};
use rt::Shutdown;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::layout::is_one_name;
use super::mount;
use crate::changes::{changes, current, wakes};

/// The provisioner of [`CLASS`], and the component of events.
pub const PROVISIONER: &str = "pintle.dev/local";
pub const CLASS: &str = "local";

/// The node on which a volume's folder is.
const NODE: &str = "pintle.dev/local-node";

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Writes under way at the same time.
const WRITES_MAX: usize = 8;

/// A failed write is tried again after this, doubling up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    /// Has a folder for each volume.
    pub root: Utf8PathBuf,
}

pub struct Provisioner {
    options: Options,
    api: Arc<dyn Api>,
    recorder: Recorder,
    claims: Arc<Informer>,
    volumes: Arc<Informer>,
    classes: Arc<Informer>,
}

/// What a change asks for.
enum Task {
    Claim(Arc<Object>),
    Volume(Arc<Object>),
}

/// What cannot be done now, and may be later.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] Status),
    #[error("{0}")]
    Disk(String),
}

impl Provisioner {
    pub fn new(options: Options, api: Arc<dyn Api>, informers: &Informers, shutdown: Shutdown) -> Self {
        Self {
            options,
            recorder: Recorder::new(api.clone(), PROVISIONER, shutdown),
            api,
            claims: informers.of(&PERSISTENT_VOLUME_CLAIMS),
            volumes: informers.of(&PERSISTENT_VOLUMES),
            classes: informers.of(&STORAGE_CLASSES),
        }
    }

    /// Makes the class where it is missing, as the default one if there is no other default.
    pub async fn create_class(&self) {
        self.classes.synced().await;
        if self.classes.get("", CLASS).is_some() {
            return;
        }
        let is_default =
            |class: &Arc<Object>| class.to_value().str_at(&["metadata", "annotations", IS_DEFAULT]) == "true";
        let class = class(!self.classes.list().iter().any(is_default));
        if let Err(status) = self.api.create_if_absent(&STORAGE_CLASSES, "", class).await {
            warn!(name = CLASS, error = %status, "Created no StorageClass");
        }
    }

    /// Makes, grows and removes volumes until `shutdown`.
    pub async fn run(&self, shutdown: Shutdown) {
        let work = async {
            for informer in [&self.claims, &self.volumes, &self.classes] {
                informer.synced().await;
            }
            self.remove_empty_folders().await;
            let tasks = stream::select_all([
                changes(&self.claims).map(Task::Claim).boxed(),
                changes(&self.volumes).map(Task::Volume).boxed(),
                // What a claim lacked may be a class.
                wakes(&self.classes, &self.claims).map(Task::Claim).boxed(),
            ]);
            let slots = Semaphore::new(WRITES_MAX);
            tasks.for_each_concurrent(None, |task| self.perform(task, &slots)).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Does what is asked, again until it succeeds, nobody asks any more, or a newer change asks.
    async fn perform(&self, task: Task, slots: &Semaphore) {
        let mut pause = RETRY_MIN;
        loop {
            let slot = slots.acquire().await;
            let result = match &task {
                Task::Claim(changed) => self.serve(changed).await,
                Task::Volume(changed) => self.delete(changed).await,
            };
            drop(slot);
            let Err(failure) = result else { return };
            debug!(error = %failure, "Local storage failed");
            rt::sleep(rt::jittered(pause, 0.5)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn serve(&self, changed: &Object) -> Result<(), Failure> {
        let Some(object) = current(&self.claims, changed) else { return Ok(()) };
        let claim = view::<PersistentVolumeClaim>(&object)?;
        if claim.spec.volume_name.is_empty() {
            self.provision(&object, &claim).await.inspect_err(|failure| {
                self.recorder.warning(&Reference::of(&object), "ProvisioningFailed", failed(&claim, failure));
            })
        } else {
            self.grow(&object, &claim).await
        }
    }

    async fn provision(&self, object: &Object, claim: &PersistentVolumeClaim) -> Result<(), Failure> {
        let name = volume_name(object);
        if !is_asked(claim, &self.options.node_name)
            || object.is_deleting()
            || self.volumes.get("", &name).is_some()
        {
            return Ok(());
        }
        // From the API: the claim may be known here before its class is.
        let Some(class) = self.api.find(&STORAGE_CLASSES, "", claim.class()).await? else { return Ok(()) };
        let class = view::<StorageClass>(&class)?;
        let reference = Reference::of(object);
        if let Some(why) = refusal(claim, &name) {
            self.recorder.warning(&reference, "ProvisioningFailed", failed(claim, &why));
            return Ok(());
        }
        let (namespace, claim_name) = (object.namespace(), object.name());
        let message =
            format!("External provisioner is provisioning volume for claim \"{namespace}/{claim_name}\"");
        self.recorder.normal(&reference, "Provisioning", message);
        let folder = self.options.root.join(&name);
        let made = folder.clone();
        on_disk(move || make_folder(&made)).await?;
        let node = self.api.find(&NODES, "", &self.options.node_name).await?;
        let node = node.map(|node| view::<Node>(&node)).transpose()?;
        let hostname = node.as_ref().and_then(|node| node.metadata.labels.get(HOSTNAME));
        let hostname = hostname.map_or(self.options.node_name.as_str(), |label| label.as_str());
        let volume = volume_for(object, claim, &class, &folder, (&self.options.node_name, hostname));
        if let Some(made) = self.api.create_if_absent(&PERSISTENT_VOLUMES, "", volume).await? {
            let message = format!("Successfully provisioned volume {}", made.name());
            self.recorder.normal(&reference, "ProvisioningSucceeded", message);
        }
        Ok(())
    }

    /// A claim that asks for more than it has gets it: the folder has no size. First the volume, then the claim.
    async fn grow(&self, object: &Object, claim: &PersistentVolumeClaim) -> Result<(), Failure> {
        if claim.status.phase != "Bound" || claim.requested() <= claim.granted() {
            return Ok(());
        }
        let name = claim.spec.volume_name.as_str();
        let Some(volume) = self.api.find(&PERSISTENT_VOLUMES, "", name).await? else { return Ok(()) };
        let volume = view::<PersistentVolume>(&volume)?;
        let is_bound = volume.spec.claim_ref.as_ref().is_some_and(|own| own.uid == object.uid());
        if !is_own(&volume, &self.options.node_name) || !is_bound {
            return Ok(());
        }
        let class = self.api.find(&STORAGE_CLASSES, "", claim.class()).await?;
        if class.is_none_or(|class| class.to_value()["allowVolumeExpansion"].as_bool() != Some(true)) {
            return Ok(());
        }
        let size = claim.requested().to_string();
        let grown = Patch::Merge(json!({"spec": {"capacity": {"storage": size.as_str()}}}));
        self.api.patch(&PERSISTENT_VOLUMES, "", name, None, grown, &WriteOptions::default()).await?;
        let status = json!({"capacity": {"storage": size.as_str()}});
        let (namespace, claim_name) = (object.namespace(), object.name());
        self.api.patch_status(&PERSISTENT_VOLUME_CLAIMS, namespace, claim_name, status).await?;
        self.recorder.normal(&Reference::of(object), "VolumeResizeSuccessful", "Resize volume succeeded");
        Ok(())
    }

    async fn delete(&self, changed: &Object) -> Result<(), Failure> {
        let Some(object) = current(&self.volumes, changed) else { return Ok(()) };
        let volume = view::<PersistentVolume>(&object)?;
        if !is_own(&volume, &self.options.node_name) || !is_done(&volume) {
            return Ok(());
        }
        let folder = self.options.root.join(object.name());
        if object.to_value().str_at(&["spec", "local", "path"]) != folder || !is_one_name(object.name()) {
            let message = format!("the volume is not at {folder}, where its folder would be");
            self.recorder.warning(&Reference::of(&object), "VolumeFailedDelete", message);
            return Ok(());
        }
        on_disk(move || mount::remove_tree(&folder).map_err(|error| format!("removing {folder}: {error}")))
            .await?;
        match self.api.delete(&PERSISTENT_VOLUMES, "", object.name(), &DeleteOptions::of(&object)).await {
            // Gone, or another one of its name by now.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            result => Ok(result?),
        }
    }

    /// What a crash left between a folder and its volume.
    async fn remove_empty_folders(&self) {
        let wanted: BTreeSet<String> =
            self.volumes.list().iter().map(|volume| volume.name().to_owned()).collect();
        let claimed: BTreeSet<String> = self.claims.list().iter().map(|claim| volume_name(claim)).collect();
        let root = self.options.root.clone();
        let removed = on_disk(move || {
            for entry in root.read_dir_utf8().into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name.starts_with(PREFIX) && !wanted.contains(name) && !claimed.contains(name) {
                    // Refused by the system where there is something in it.
                    let _ = std::fs::remove_dir(entry.path());
                }
            }
            Ok(())
        });
        if let Err(failure) = removed.await {
            debug!(error = %failure, "Left empty folders of volumes");
        }
    }
}

const PREFIX: &str = "pvc-";

fn volume_name(claim: &Object) -> String {
    format!("{PREFIX}{}", claim.uid())
}

async fn on_disk(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), Failure> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Failure::Disk(error.to_string()))?;
    done.map_err(Failure::Disk)
}

/// Everybody may write: who shall not is not given the volume.
fn make_folder(path: &Utf8Path) -> Result<(), String> {
    let make = || -> std::io::Result<()> {
        if let Some(root) = path.parent() {
            std::fs::create_dir_all(root)?;
        }
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
    };
    make().map_err(|error| format!("making {path}: {error}"))
}

/// The claim waits for a volume on this node.
fn is_asked(claim: &PersistentVolumeClaim, node: &str) -> bool {
    let annotation = |key: &str| claim.metadata.annotations.get(key).map(|value| value.as_str());
    annotation(STORAGE_PROVISIONER) == Some(PROVISIONER) && annotation(SELECTED_NODE) == Some(node)
}

/// Why a claim will never get a volume here.
fn refusal(claim: &PersistentVolumeClaim, name: &str) -> Option<&'static str> {
    if claim.mode() == "Block" {
        Some("volumeMode Block is not supported by local volumes")
    } else if claim.spec.selector.is_some() {
        Some("claim.Spec.Selector is not supported")
    } else if !is_one_name(name) {
        Some("the claim's uid is no proper name")
    } else {
        None
    }
}

fn failed(claim: &PersistentVolumeClaim, why: &dyn std::fmt::Display) -> String {
    format!("failed to provision volume with StorageClass {:?}: {why}", claim.class())
}

fn is_own(volume: &PersistentVolume, node: &str) -> bool {
    let annotation = |key: &str| volume.metadata.annotations.get(key).map(|value| value.as_str());
    annotation(PROVISIONED_BY) == Some(PROVISIONER) && annotation(NODE) == Some(node)
}

/// Nobody needs it any more.
fn is_done(volume: &PersistentVolume) -> bool {
    volume.status.phase == "Released"
        && volume.spec.persistent_volume_reclaim_policy == "Delete"
        && volume.metadata.deletion_timestamp.is_none()
}

fn volume_for(
    object: &Object,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    folder: &Utf8Path,
    (node, hostname): (&str, &str),
) -> Value {
    let tree = object.to_value();
    let expression = json!({"key": HOSTNAME, "operator": "In", "values": [hostname]});
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": volume_name(object)},
        "spec": {
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": object.namespace(),
                "name": object.name(), "uid": object.uid(), "resourceVersion": object.revision().to_string(),
            },
            "local": {"path": folder.as_str()},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_str(),
            "storageClassName": claim.class(),
            "volumeMode": claim.mode(),
        },
    });
    volume.set_at(&["metadata", "annotations", PROVISIONED_BY], PROVISIONER);
    volume.set_at(&["metadata", "annotations", NODE], node);
    volume.set_at(&["spec", "accessModes"], tree["spec"]["accessModes"].clone());
    volume.set_at(&["spec", "capacity", "storage"], tree["spec"]["resources"]["requests"]["storage"].clone());
    volume
}

fn class(is_default: bool) -> Value {
    let mut class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": CLASS},
        "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    });
    if is_default {
        class.set_at(&["metadata", "annotations", IS_DEFAULT], "true");
    }
    class
}
