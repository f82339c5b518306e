//! Simulated storage: volumes without disks, for claims on a cluster of simulated nodes.
//!
//! Owns: the volumes annotated `pintle.io/simulated`, and the StorageClass `standard` of a cluster that has no class.
//! It does what an external provisioner does: the binder asks by annotation on a claim, it makes the volume, and
//! deletes it once the claim is gone and the policy says so. It answers for every class's provisioner, as the nodes
//! answer for every image, except where a `CSIDriver` of that name says that somebody serves it, and for that of real
//! nodes. A volume for a claim whose pod has a node can be reached from the zone and region of that node, as the disk
//! of a cloud can.
//!
//! Why not a provisioner of one name only? Manifests name the provisioner of the cluster they were written for.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{CSI_DRIVERS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};
use api::view::{Node, PersistentVolume, PersistentVolumeClaim, StorageClass};
use api::volumes::{PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER};
use apimachinery::{Object, Status, Str, Value, json};
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Informer, Informers, Patch, Recorder, WriteOptions};
use futures::stream::{self, StreamExt};
use rt::Shutdown;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::agent::volumes::provisioner;
use crate::changes::{changes, current, wakes};

/// The provisioner of [`CLASS`], and the component of events.
const PROVISIONER: &str = "pintle.io/sim";
const CLASS: &str = "standard";

/// Marks the volumes that are made here, whoever they say provisioned them.
const SIMULATED: &str = "pintle.io/simulated";

/// Labels by which disks of clouds are bound to a place, where nodes have them.
const PLACES: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// Writes under way at the same time.
const WRITES_MAX: usize = 32;

/// A failed write is tried again after this, doubling up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

pub(super) struct Provisioner {
    api: Arc<dyn Api>,
    recorder: Recorder,
    claims: Arc<Informer>,
    volumes: Arc<Informer>,
    classes: Arc<Informer>,
    drivers: Arc<Informer>,
}

/// What a change asks for.
enum Task {
    Provision(Arc<Object>),
    Delete(Arc<Object>),
}

impl Provisioner {
    pub fn new(api: Arc<dyn Api>, informers: &Informers, shutdown: Shutdown) -> Self {
        Self {
            recorder: Recorder::new(api.clone(), PROVISIONER, shutdown),
            api,
            claims: informers.of(&PERSISTENT_VOLUME_CLAIMS),
            volumes: informers.of(&PERSISTENT_VOLUMES),
            classes: informers.of(&STORAGE_CLASSES),
            drivers: informers.of(&CSI_DRIVERS),
        }
    }

    /// Makes the default class of a cluster that has none at all.
    pub async fn create_class(&self) {
        self.classes.synced().await;
        if !self.classes.is_empty() {
            return;
        }
        if let Err(status) = self.api.create_if_absent(&STORAGE_CLASSES, "", standard_class()).await {
            warn!(name = CLASS, error = %status, "Created no StorageClass");
        }
    }

    /// Makes and deletes volumes for ever.
    pub async fn run(&self) {
        for informer in [&self.claims, &self.volumes, &self.classes, &self.drivers] {
            informer.synced().await;
        }
        let tasks = stream::select_all([
            changes(&self.claims).map(Task::Provision).boxed(),
            changes(&self.volumes).map(Task::Delete).boxed(),
            // What a claim lacked may be a class, or that no driver claims to serve it.
            wakes(&self.classes, &self.claims).map(Task::Provision).boxed(),
            wakes(&self.drivers, &self.claims).map(Task::Provision).boxed(),
        ]);
        let slots = Semaphore::new(WRITES_MAX);
        tasks.for_each_concurrent(None, |task| self.perform(task, &slots)).await;
    }

    /// Does what is asked, again until it succeeds, nobody asks any more, or a newer change asks. What is refused for
    /// ever keeps nobody waiting: only attempts have slots.
    async fn perform(&self, task: Task, slots: &Semaphore) {
        let mut pause = RETRY_MIN;
        loop {
            let slot = slots.acquire().await;
            let result = match &task {
                Task::Provision(claim) => self.provision(claim).await,
                Task::Delete(volume) => self.delete(volume).await,
            };
            drop(slot);
            let Err(status) = result else { return };
            debug!(error = %status, "Simulated storage failed");
            rt::sleep(rt::jittered(pause, 0.5)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn provision(&self, changed: &Object) -> Result<(), Status> {
        let (namespace, name) = (changed.namespace(), changed.name());
        let Some(object) = current(&self.claims, changed) else { return Ok(()) };
        let Some(claim) = self.asked(&object) else { return Ok(()) };
        // From the API: the claim may be known here before its class is.
        let Some(class) = self.api.find(&STORAGE_CLASSES, "", claim.class()).await? else { return Ok(()) };
        let class = view::<StorageClass>(&class)?;
        let terms = match claim.metadata.annotations.get(SELECTED_NODE) {
            None if class.waits_for_consumer() => return Ok(()),
            None => allowed_terms(&class),
            Some(node) => match self.api.find(&NODES, "", node).await? {
                Some(node) => terms_of_node(&*view::<Node>(&node)?, &class),
                None => return self.give_back(&object).await,
            },
        };
        let reference = Reference::of(&object);
        let volume = volume_for(&object, &claim, &class, terms);
        let message = format!("External provisioner is provisioning volume for claim \"{namespace}/{name}\"");
        self.recorder.normal(&reference, "Provisioning", message);
        if let Some(made) = self.api.create_if_absent(&PERSISTENT_VOLUMES, "", volume).await? {
            let message = format!("Successfully provisioned volume {}", made.name());
            self.recorder.normal(&reference, "ProvisioningSucceeded", message);
        }
        Ok(())
    }

    /// Lets the scheduler choose again: the node it chose is gone.
    async fn give_back(&self, claim: &Object) -> Result<(), Status> {
        let patch = Patch::Merge(json!({"metadata": {
            "annotations": {SELECTED_NODE: null}, "resourceVersion": claim.revision().to_string(),
        }}));
        let (namespace, name) = (claim.namespace(), claim.name());
        let options = WriteOptions::default();
        match self.api.patch(&PERSISTENT_VOLUME_CLAIMS, namespace, name, None, patch, &options).await {
            // Its next change is looked at anew.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            result => result.map(drop),
        }
    }

    /// The claim, if it waits for a volume that nobody else makes.
    fn asked(&self, object: &Object) -> Option<Arc<PersistentVolumeClaim>> {
        let claim = object.view::<PersistentVolumeClaim>().ok()?;
        let provisioner = claim.metadata.annotations.get(STORAGE_PROVISIONER)?;
        let wanted = claim.spec.volume_name.is_empty()
            && provisioner.as_str() != provisioner::PROVISIONER
            && !object.is_deleting()
            && self.drivers.get("", provisioner).is_none()
            && self.volumes.get("", &volume_name(object)).is_none();
        wanted.then_some(claim)
    }

    async fn delete(&self, volume: &Object) -> Result<(), Status> {
        if !is_done(volume) || current(&self.volumes, volume).is_none() {
            return Ok(());
        }
        let options = DeleteOptions::of(volume);
        match self.api.delete(&PERSISTENT_VOLUMES, "", volume.name(), &options).await {
            // Gone, or another one of its name by now.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            result => result,
        }
    }
}

/// Made here, and nobody needs it any more.
fn is_done(volume: &Object) -> bool {
    volume.view::<PersistentVolume>().is_ok_and(|volume| {
        volume.metadata.annotations.contains_key(SIMULATED)
            && volume.status.phase == "Released"
            && volume.spec.persistent_volume_reclaim_policy == "Delete"
            && volume.metadata.deletion_timestamp.is_none()
    })
}

fn volume_name(claim: &Object) -> String {
    format!("pvc-{}", claim.uid())
}

/// Node selector terms for where the class allows volumes; none for everywhere.
fn allowed_terms(class: &StorageClass) -> Vec<Value> {
    let expressions = class.allowed_topologies.iter().map(|term| &term.match_label_expressions);
    let stated = expressions.filter(|expressions| !expressions.is_empty());
    stated.map(|own| term(own.iter().map(|own| (own.key.as_str(), own.values.as_slice())))).collect()
}

/// A node selector term for the place of the node; none when its labels say nothing of one.
fn terms_of_node(node: &Node, class: &StorageClass) -> Vec<Value> {
    let allowed = class.allowed_topologies.iter().flat_map(|term| &term.match_label_expressions);
    let mut keys: Vec<&str> = allowed.map(|own| own.key.as_str()).chain(PLACES).collect();
    keys.sort_unstable();
    keys.dedup();
    let labels = &node.metadata.labels;
    let mut known =
        keys.into_iter().filter_map(|key| Some((key, std::slice::from_ref(labels.get(key)?)))).peekable();
    known.peek().is_some().then(|| term(known)).into_iter().collect()
}

fn term<'a>(labels: impl Iterator<Item = (&'a str, &'a [Str])>) -> Value {
    let expressions = labels.map(|(key, values)| {
        let values: Vec<Value> = values.iter().cloned().map(Value::from).collect();
        json!({"key": key, "operator": "In", "values": values})
    });
    json!({"matchExpressions": expressions.collect::<Vec<_>>()})
}

fn volume_for(
    object: &Object,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    terms: Vec<Value>,
) -> Value {
    let tree = object.to_value();
    let name = volume_name(object);
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name.as_str(), "annotations": {SIMULATED: "true"}},
        "spec": {
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": object.namespace(),
                "name": object.name(), "uid": object.uid(), "resourceVersion": object.revision().to_string(),
            },
            "hostPath": {"path": format!("/var/lib/pintle/simulated/{name}"), "type": "DirectoryOrCreate"},
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_str(),
            "storageClassName": claim.class(),
            "volumeMode": claim.mode(),
        },
    });
    volume.set_at(&["metadata", "annotations", PROVISIONED_BY], class.provisioner.as_str());
    volume.set_at(&["spec", "accessModes"], tree["spec"]["accessModes"].clone());
    let size = tree["spec"]["resources"]["requests"]["storage"].clone();
    volume.set_at(&["spec", "capacity", "storage"], size);
    if !terms.is_empty() {
        volume.set_at(&["spec", "nodeAffinity", "required", "nodeSelectorTerms"], terms);
    }
    let attributes = &tree["spec"]["volumeAttributesClassName"];
    if !attributes.is_null() {
        volume.set_at(&["spec", "volumeAttributesClassName"], attributes.clone());
    }
    if !class.mount_options.is_empty() {
        let options = class.mount_options.iter().map(|option| Value::from(option.clone()));
        volume.set_at(&["spec", "mountOptions"], options.collect::<Vec<_>>());
    }
    volume
}

fn standard_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": false,
    })
}

#[cfg(test)]
mod tests {
    use client::fake::FakeApi;

    use super::*;

    fn claim(name: &str, class: &str, provisioner: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "ns", "uid": name,
                "annotations": {STORAGE_PROVISIONER: provisioner}},
            "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}})
    }

    fn class(name: &str, provisioner: &str, mode: &str) -> Value {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": provisioner, "reclaimPolicy": "Delete", "volumeBindingMode": mode})
    }

    /// As `class`, for volumes in two racks.
    fn racked(mut class: Value) -> Value {
        let racks = json!({"key": "rack", "values": ["q", "r"]});
        class.set_at(&["allowedTopologies"], json!([{"matchLabelExpressions": [racks]}]));
        class
    }

    fn start(seeds: Vec<Value>) -> (Arc<FakeApi>, Shutdown) {
        let (fake, shutdown) = (FakeApi::new(), Shutdown::new());
        seeds.into_iter().for_each(|seed| drop(fake.seed(seed)));
        let informers = Informers::new(fake.clone(), shutdown.clone());
        let provisioner = Provisioner::new(fake.clone(), &informers, shutdown.clone());
        let stop = shutdown.clone();
        rt::spawn("storage", async move {
            provisioner.create_class().await;
            tokio::select! {
                () = provisioner.run() => {}
                () = stop.cancelled() => {}
            }
        });
        (fake, shutdown)
    }

    async fn until(what: &str, mut reached: impl FnMut() -> bool) {
        let deadline = rt::instant() + Duration::from_secs(20);
        while !reached() {
            assert!(rt::instant() < deadline, "not reached: {what}");
            rt::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn a_claim_gets_a_volume_unless_a_driver_or_a_consumer_is_missing_from_the_picture() {
        let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
            "metadata": {"name": "real.example.com"}, "spec": {}});
        let (fake, shutdown) = start(vec![
            racked(class("fast", "k8s.io/minikube-hostpath", "Immediate")),
            racked(class("late", "pintle.io/sim", "WaitForFirstConsumer")),
            class("real", "real.example.com", "Immediate"),
            driver,
            claim("served", "real", "real.example.com"),
            claim("waits", "late", "pintle.io/sim"),
            claim("early", "later", "pintle.io/sim"),
            claim("data", "fast", "k8s.io/minikube-hostpath"),
        ]);
        let volume = |name: &str| fake.peek(&PERSISTENT_VOLUMES, "", name).map(|volume| volume.to_value());
        until("a volume", || volume("pvc-data").is_some()).await;
        let made = volume("pvc-data").unwrap_or_default();
        assert_eq!(made.str_at(&["metadata", "annotations", PROVISIONED_BY]), "k8s.io/minikube-hostpath");
        assert_eq!(made.str_at(&["spec", "storageClassName"]), "fast");
        assert_eq!(made.str_at(&["spec", "capacity", "storage"]), "1Gi");
        assert_eq!(made.str_at(&["spec", "claimRef", "uid"]), "data");
        let racks = json!({"key": "rack", "operator": "In", "values": ["q", "r"]});
        assert_eq!(
            made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"],
            json!([{"matchExpressions": [racks]}])
        );
        assert!(volume("pvc-waits").is_none());

        let select = || {
            fake.edit(&PERSISTENT_VOLUME_CLAIMS, "ns", "waits", |claim| {
                claim.set_at(&["metadata", "annotations", SELECTED_NODE], "n");
            })
        };
        select();
        let selected = || {
            let claim = fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "waits").map(|claim| claim.to_value());
            claim.is_some_and(|claim| !claim.str_at(&["metadata", "annotations", SELECTED_NODE]).is_empty())
        };
        until("its node is not there", || !selected()).await;
        fake.seed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n",
            "labels": {"topology.kubernetes.io/zone": "z", "rack": "r"}}}));
        select();
        until("its consumer came", || volume("pvc-waits").is_some()).await;
        let terms =
            &volume("pvc-waits").unwrap_or_default()["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
        let in_zone = json!({"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["z"]});
        let on_rack = json!({"key": "rack", "operator": "In", "values": ["r"]});
        assert_eq!(*terms, json!([{"matchExpressions": [on_rack, in_zone]}]));
        assert!(volume("pvc-served").is_none(), "the driver's own");
        assert!(volume("pvc-early").is_none());
        fake.seed(class("later", "pintle.io/sim", "Immediate"));
        until("its class came", || volume("pvc-early").is_some()).await;
        fake.drop_object(&CSI_DRIVERS, "", "real.example.com");
        until("its driver went", || volume("pvc-served").is_some()).await;
        assert!(fake.peek(&STORAGE_CLASSES, "", CLASS).is_none(), "there were classes");
        shutdown.cancel();
    }

    #[tokio::test]
    async fn released_volumes_go_if_they_were_made_here() {
        let released = |name: &str, marks: Value, policy: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": name, "annotations": marks},
                "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": "Released"}})
        };
        let (fake, shutdown) = start(vec![
            released("theirs", json!({PROVISIONED_BY: PROVISIONER}), "Delete"),
            released("kept", json!({SIMULATED: "true"}), "Retain"),
            released("own", json!({SIMULATED: "true"}), "Delete"),
        ]);
        until("deleted", || fake.peek(&PERSISTENT_VOLUMES, "", "own").is_none()).await;
        until("the default class", || fake.peek(&STORAGE_CLASSES, "", CLASS).is_some()).await;
        assert!(fake.peek(&PERSISTENT_VOLUMES, "", "theirs").is_some());
        assert!(fake.peek(&PERSISTENT_VOLUMES, "", "kept").is_some());
        shutdown.cancel();
    }
}
