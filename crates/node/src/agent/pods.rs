//! The pods bound to this node: one [`Worker`] each.
//!
//! Owns: which pods there are, and whom news about sandboxes and containers concern. Never touches: containers, save
//! those of pods that nobody knows any more.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Object;
use client::{Delta, Informer};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use runtime::spec::label;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

use super::pod::worker::{Worker, decode};
use super::retry::Pauses;
use super::server::{self, PodView};
use super::static_pods::{is_mirror, note_api};
use super::{Node, is_admitted, resize};

/// Pods by uid, and by the ID of their sandboxes.
#[derive(Default)]
pub struct Pods {
    workers: Mutex<HashMap<String, Arc<Worker>>>,
    sandboxes: Mutex<HashMap<String, String>>,
    gone: Notify,
}

impl Pods {
    pub fn get(&self, uid: &str) -> Option<Arc<Worker>> {
        self.workers.lock().get(uid).cloned()
    }

    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Worker>> {
        let workers = self.workers.lock();
        let found = workers.values().find(|worker| {
            let pod = worker.pod();
            pod.metadata.name.as_deref() == Some(name) && pod.metadata.namespace.as_deref() == Some(namespace)
        });
        found.cloned()
    }

    pub fn all(&self) -> Vec<Arc<Worker>> {
        self.workers.lock().values().cloned().collect()
    }

    /// These sandboxes are of this pod, so that it hears of them.
    pub fn belongs<'a>(&self, uid: &str, sandboxes: impl Iterator<Item = &'a str>) {
        let mut known = self.sandboxes.lock();
        for sandbox in sandboxes {
            if !known.contains_key(sandbox) {
                known.insert(sandbox.to_owned(), uid.to_owned());
            }
        }
    }

    /// The pod is gone, and all that it had.
    pub fn remove(&self, uid: &str) {
        self.workers.lock().remove(uid);
        self.sandboxes.lock().retain(|_, own| own != uid);
        self.gone.notify_one();
    }

    /// Waits until a pod is gone. For one who waits; static pods do, for those that had their names.
    pub async fn one_is_gone(&self) {
        self.gone.notified().await;
    }

    fn wake_by_sandbox(&self, sandbox: &str) {
        let uid = self.sandboxes.lock().get(sandbox).cloned();
        if let Some(worker) = uid.and_then(|uid| self.get(&uid)) {
            worker.wake();
        }
    }

    pub fn wake(&self, uid: &str) {
        if let Some(worker) = self.get(uid) {
            worker.wake();
        }
    }

    fn wake_all(&self) {
        self.all().iter().for_each(|worker| worker.wake());
    }
}

impl server::Pods for Node {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodView> {
        self.pods.by_name(namespace, name).map(|worker| worker.view())
    }

    fn pods(&self) -> Vec<PodView> {
        self.pods.all().iter().map(|worker| worker.view()).collect()
    }
}

/// Follows the runtime until the node stops.
pub async fn follow_runtime(node: &Node) {
    let mut events = node.runtime.events();
    loop {
        match events.recv().await {
            Ok(event) => node.pods.wake_by_sandbox(&event.sandbox_id),
            Err(RecvError::Lagged(_)) => node.pods.wake_all(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Follows the API until the node stops.
pub async fn run(node: Arc<Node>, informer: Arc<Informer>) {
    let mut deltas = informer.subscribe();
    informer.synced().await;
    read_all(&node, &informer).await;
    end_orphans(&node).await;
    node.resources.retain(|uid| node.pods.get(uid).is_some());
    rt::spawn("strangers", forget_strangers(node.clone()));
    let mut retry = rt::interval(resize::RETRY);
    loop {
        tokio::select! {
            _ = retry.tick() => node.grant_resizes(None),
            () = node.room.notified() => node.grant_resizes(None),
            delta = deltas.recv() => match delta {
                Some(Delta::Upsert { new, .. }) => upsert(&node, &new).await,
                Some(Delta::Delete { old }) => {
                    forget(&node, old.uid());
                    node.mirrors.notify_one();
                }
                Some(Delta::Resync) => read_all(&node, &informer).await,
                None => return,
            },
            () = node.shutdown.cancelled() => return,
        }
    }
}

async fn read_all(node: &Arc<Node>, informer: &Informer) {
    let mut objects = informer.list();
    // The oldest first: who came last finds no room.
    objects.sort_by_cached_key(|object| {
        let tree = object.to_value();
        (tree.str_at(&["metadata", "creationTimestamp"]).to_owned(), object.uid().to_owned())
    });
    let gone: Vec<String> = {
        let workers = node.pods.workers.lock();
        let is_there = |uid: &String| objects.iter().any(|object| object.uid() == uid);
        let from_api = workers.iter().filter(|(_, worker)| !worker.is_static);
        from_api.map(|(uid, _)| uid).filter(|uid| !is_there(uid)).cloned().collect()
    };
    gone.iter().for_each(|uid| forget(node, uid));
    for object in &objects {
        upsert(node, object).await;
    }
    node.mirrors.notify_one();
}

async fn upsert(node: &Arc<Node>, object: &Object) {
    let pod = match decode(object) {
        Ok(mut pod) => {
            note_api(&mut pod);
            Arc::new(pod)
        }
        Err(error) => {
            warn!(namespace = object.namespace(), name = object.name(), %error, "A pod cannot be read");
            return;
        }
    };
    if is_mirror(&pod) {
        // What it shows runs by another name.
        node.mirrors.notify_one();
        return;
    }
    match node.pods.get(object.uid()) {
        Some(worker) => {
            node.consider_resize(&worker, &pod);
            worker.update(pod);
        }
        None => begin_new(node, object, pod).await,
    }
}

/// A pod that nobody works on yet, if it may run here, gets somebody who does.
pub(super) async fn begin_new(node: &Arc<Node>, object: &Object, pod: Arc<Pod>) {
    let worker = Worker::new(node.clone(), pod.clone());
    node.admit(object, &worker).await;
    if worker.is_active() {
        node.resources.admit(&pod, is_admitted(&pod));
    }
    begin(node, worker);
}

fn begin(node: &Arc<Node>, worker: Arc<Worker>) {
    node.pods.workers.lock().insert(worker.uid.clone(), worker.clone());
    let node = node.clone();
    rt::spawn("pod", async move {
        tokio::select! {
            () = node.admit_to_devices(&worker) => {}
            () = worker.is_to_end() => {}
        }
        worker.run().await;
    });
}

fn forget(node: &Arc<Node>, uid: &str) {
    if let Some(worker) = node.pods.get(uid) {
        worker.forget();
    }
}

/// What is on the disk of pods that are gone, and run no more, goes. What does not go yet waits for a driver that has not
/// registered yet, most often.
async fn forget_strangers(node: Arc<Node>) {
    let (mut uids, mut pauses) = (node.volumes.pods_on_disk(), Pauses::default());
    loop {
        let mut left = Vec::new();
        for uid in uids.into_iter().filter(|uid| node.pods.get(uid).is_none()) {
            let mut pod = Pod::default();
            pod.metadata.uid = Some(uid.clone());
            if let Err(error) = node.forget_pod(&pod).await {
                warn!(uid, %error, "Files of a pod that is gone were not removed yet");
                left.push(uid);
            }
        }
        if left.is_empty() {
            return;
        }
        uids = left;
        tokio::select! {
            () = rt::sleep(pauses.next_pause()) => {}
            () = node.shutdown.cancelled() => return,
        }
    }
}

/// What runs of pods that were deleted while nobody looked ends now.
async fn end_orphans(node: &Arc<Node>) {
    let sandboxes = match node.runtime.sandboxes().await {
        Ok(sandboxes) => sandboxes,
        Err(error) => {
            warn!(%error, "The runtime does not say which sandboxes there are");
            return;
        }
    };
    for sandbox in sandboxes {
        if node.pods.get(&sandbox.uid).is_some() || !sandbox.labels.contains_key(label::POD_UID) {
            continue;
        }
        info!(namespace = %sandbox.namespace, name = %sandbox.name, "A pod that is deleted still runs and is ended");
        let mut pod = Pod::default();
        pod.metadata.name = Some(sandbox.name);
        pod.metadata.namespace = Some(sandbox.namespace);
        pod.metadata.uid = Some(sandbox.uid.clone());
        begin(node, Worker::new(node.clone(), Arc::new(pod)));
        forget(node, &sandbox.uid);
    }
    // Not before it is known what still runs: users of a pod that does are nobody else's.
    node.user_namespaces.retain(|uid| node.pods.get(uid).is_some());
}
