//! The end of a pod: of one that is done, of one that is deleted, and of one that nobody knows any more.

use api::gvr::PODS;
use client::DeleteOptions;
use k8s_openapi::api::core::v1::Pod;
use runtime::{ContainerState, SandboxState};
use tracing::{debug, warn};

use super::observed::Observed;
use super::status::Ended;
use super::termination::{self, Grace};
use super::worker::{Memory, Next, RETRY, RETRY_SOON, Worker, names};

impl Worker {
    /// The pod has ended, and stays: nothing of it runs, its containers are kept for their logs.
    pub(super) async fn finish(&self, pod: &Pod, ended: Option<&Ended>, memory: &mut Memory) -> Next {
        let Some(observed) = self.observe().await else { return Next::After(RETRY_SOON) };
        self.node.probes.remove(&self.uid);
        let grace = Grace::of(pod, rt::now()).at_most(ended.and_then(|ended| ended.grace));
        termination::kill_all(self, pod, &observed, grace).await;
        self.stop_sandboxes(&observed).await;
        let Some(observed) = self.observe().await else { return Next::After(RETRY_SOON) };
        if self.report(pod, &observed, &memory.waiting, ended, true).await.is_none() {
            return Next::After(RETRY_SOON);
        }
        self.node.devices.release(&self.uid);
        if let Err(error) = self.node.dynamic_resources.unprepare(&self.uid).await {
            warn!(uid = %self.uid, error, "Claims of a pod that has ended are not given back yet");
            return Next::After(RETRY);
        }
        match self.node.volumes.unmount_all(&self.uid).await {
            Ok(()) => Next::Event,
            Err(errors) => {
                warn!(uid = %self.uid, ?errors, "Volumes of a pod that has ended are still there");
                Next::After(RETRY)
            }
        }
    }

    /// The pod is deleted: it ends, says how, and then goes from the API.
    pub(super) async fn delete(&self, pod: &Pod, ended: Option<&Ended>, memory: &mut Memory) -> Next {
        let Some(observed) = self.observe().await else { return Next::After(RETRY_SOON) };
        self.report(pod, &observed, &memory.waiting, ended, false).await;
        self.node.probes.stop_liveness(&self.uid);
        let grace = Grace::of(pod, rt::now());
        tokio::select! {
            () = termination::kill_all(self, pod, &observed, grace) => {}
            () = self.shortened(grace) => return Next::Now,
        }
        self.node.probes.remove(&self.uid);
        self.stop_sandboxes(&observed).await;
        let Some(observed) = self.observe().await else { return Next::After(RETRY_SOON) };
        if observed.running().next().is_some() {
            return Next::After(RETRY_SOON);
        }
        if self.report(pod, &observed, &memory.waiting, ended, true).await.is_none() {
            return Next::After(RETRY_SOON);
        }
        if let Next::After(wait) = self.remove_everything(pod, &observed).await {
            return Next::After(wait);
        }
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(self.uid.as_str().into()),
            ..DeleteOptions::default()
        };
        let (namespace, name) = names(pod);
        match self.node.api.delete(&PODS, namespace, name, &options).await {
            Ok(()) => Next::Event,
            Err(status) if status.is_not_found() || status.is_conflict() => Next::Event,
            Err(status) => {
                warn!(namespace, name, error = %status, "A pod that has ended could not be deleted");
                Next::After(RETRY_SOON)
            }
        }
    }

    /// Waits until somebody asks for less patience than `grace`.
    async fn shortened(&self, grace: Grace) {
        loop {
            self.woken().await;
            let target = self.target.lock().clone();
            if target.gone || Grace::of(&target.pod, rt::now()).ends_before(grace) {
                return;
            }
        }
    }

    /// The API has the pod no longer: nobody is told of its end.
    pub(super) async fn clean_up(&self, pod: &Pod) -> Next {
        self.node.probes.remove(&self.uid);
        let Some(observed) = self.observe().await else { return Next::After(RETRY_SOON) };
        termination::kill_all(self, pod, &observed, Grace::of(pod, rt::now())).await;
        self.stop_sandboxes(&observed).await;
        match self.remove_everything(pod, &observed).await {
            Next::After(wait) => Next::After(wait),
            _ => {
                self.node.pods.remove(&self.uid);
                self.node.mirrors.notify_one();
                Next::Done
            }
        }
    }

    pub(super) async fn stop_sandboxes(&self, observed: &Observed) {
        for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready) {
            if let Err(error) = self.node.runtime.stop_sandbox(&sandbox.id).await {
                warn!(sandbox = %sandbox.id, %error, "A sandbox was not stopped");
            }
        }
    }

    /// Removes containers, sandboxes and volumes of a pod that has ended.
    async fn remove_everything(&self, pod: &Pod, observed: &Observed) -> Next {
        for container in observed.all() {
            if let Err(error) = self.node.runtime.remove_container(&container.id).await {
                warn!(container = %container.id, %error, "A container was not removed");
                return Next::After(RETRY_SOON);
            }
        }
        for sandbox in &observed.sandboxes {
            if let Err(error) = self.node.runtime.remove_sandbox(&sandbox.id).await {
                warn!(sandbox = %sandbox.id, %error, "A sandbox was not removed");
                return Next::After(RETRY_SOON);
            }
        }
        match self.node.forget_pod(pod).await {
            Ok(()) => Next::Now,
            Err(error) => {
                warn!(uid = %self.uid, %error, "Files of a pod were not removed");
                Next::After(RETRY_SOON)
            }
        }
    }

    pub(super) async fn remove_superseded(&self, observed: &Observed) {
        for container in observed.superseded().filter(|container| container.state == ContainerState::Exited) {
            if let Err(error) = self.node.runtime.remove_container(&container.id).await {
                debug!(container = %container.id, %error, "An old container was not removed");
            }
        }
    }
}
