//! How a pod's volumes, sandbox and containers come to be.

use std::pin::pin;
use std::time::Duration;

use client::events::Severity;
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerState, ContainerStatus, Error, ImageStatus};
use tracing::warn;

use super::backoff::go_seconds;
use super::observed::{self, Observed};
use super::plan::{Role, Start};
use super::status::Waiting;
use super::termination::{self, Grace};
use super::worker::{Memory, RETRY, Worker};
use crate::agent::config::{self, ContainerFacts, Notice, PodFacts, Refusal};
use crate::agent::images::{self, Unavailable};
use crate::agent::probes::{HookTarget, run_hook};
use crate::agent::report::About;
use crate::agent::volumes::{Mounted, VolumeFiles};

impl Worker {
    /// Sees to it that the pod's volumes are there; `Err` says when to try again.
    pub(super) async fn mount(&self, pod: &Pod, memory: &mut Memory) -> Result<Mounted, Duration> {
        let mounted = tokio::select! {
            mounted = self.node.volumes.mount_all(pod) => mounted,
            () = self.ending.cancelled() => return Err(Duration::ZERO),
        };
        match mounted {
            Ok(mounted) => {
                memory.complaints_of_volumes.clear();
                self.pull_volumes(pod, mounted, memory).await
            }
            Err(errors) => {
                let about = self.node.reporter.pod(pod);
                let complaints: Vec<String> = errors.iter().map(ToString::to_string).collect();
                for (error, complaint) in errors.iter().zip(&complaints) {
                    if !memory.complaints_of_volumes.contains(complaint) {
                        about.warning(error.reason, complaint.clone());
                    }
                }
                memory.complaints_of_volumes = complaints;
                Err(RETRY_VOLUMES)
            }
        }
    }

    /// Volumes that are images are here once those are.
    async fn pull_volumes(
        &self,
        pod: &Pod,
        mut mounted: Mounted,
        memory: &mut Memory,
    ) -> Result<Mounted, Duration> {
        let wanted: Vec<[String; 3]> = mounted
            .images()
            .map(|(volume, reference, policy)| [volume, reference, policy].map(str::to_owned))
            .collect();
        let about = self.node.reporter.pod(pod);
        for [volume, reference, policy] in wanted {
            if let Some(id) = memory.volume_images.get(&volume) {
                mounted.set_image(&volume, id.clone());
                continue;
            }
            if let Some((left, _)) = memory.backoff.since(&images::backoff_key(&reference), rt::now()) {
                return Err(left);
            }
            let policy = Some(policy.as_str()).filter(|policy| !policy.is_empty());
            // Others start meanwhile.
            memory.turn = None;
            let pulled = tokio::select! {
                pulled = self.node.images.ensure(pod, &reference, policy, &mut memory.backoff, &about) => pulled,
                () = self.ending.cancelled() => return Err(Duration::ZERO),
            };
            match pulled {
                Ok(image) => {
                    mounted.set_image(&volume, image.id.clone());
                    memory.volume_images.insert(volume, image.id);
                }
                Err(unavailable) => return Err(unavailable.retry_after.unwrap_or(RETRY)),
            }
        }
        Ok(mounted)
    }

    /// Waits for the network first, where the pod needs it; whoever asked looks again then.
    pub(super) async fn create_sandbox(
        &self,
        pod: &Pod,
        attempt: u32,
        memory: &mut Memory,
    ) -> Result<(), Duration> {
        let node = &self.node;
        let about = node.reporter.pod(pod);
        let failed = |message: String| {
            about.warning("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
            RETRY
        };
        let is_on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let mut network_ready = node.network_ready.clone();
        let readiness = network_ready.borrow_and_update().clone();
        if let Err(why) = readiness
            && !is_on_host
        {
            about.warning("NetworkNotReady", format!("network is not ready: {why}"));
            // Others start meanwhile, and this one queues again.
            memory.turn = None;
            return tokio::select! {
                ready = network_ready.wait_for(Result::is_ok) => {
                    Err(if ready.is_ok() { Duration::ZERO } else { RETRY })
                }
                () = self.ending.cancelled() => Err(Duration::ZERO),
                // A deadline may have passed.
                () = rt::sleep(RETRY) => Err(Duration::ZERO),
            };
        }
        let prepared = tokio::select! {
            prepared = node.dynamic_resources.prepare(pod) => prepared,
            () = self.ending.cancelled() => return Err(Duration::ZERO),
        };
        if let Err(why) = prepared {
            about.warning(
                "FailedPrepareDynamicResources",
                format!("Failed to prepare dynamic resources: {why}"),
            );
            return Err(RETRY);
        }
        let handler = node.handler(pod).await.map_err(&failed)?;
        let users = node.new_user_mapping(pod, &handler).await.map_err(&failed)?;
        let (sandbox, notices) = config::sandbox(pod, &node.facts, attempt, users, &handler)
            .map_err(|refusal| failed(refusal.message))?;
        tell(&about, &notices);
        let of_pod = pod.spec.as_ref().and_then(|spec| spec.resources.clone());
        node.resources.give(&self.uid, |given| given.pod = of_pod);
        match node.runtime.run_sandbox(&sandbox).await {
            Ok(id) => {
                node.pods.belongs(&self.uid, std::iter::once(id.as_str()));
                memory.limits = Some(sandbox.resources);
                Ok(())
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Starts a container: its image, its configuration, its first process, and its hook.
    pub(super) async fn start(
        &self,
        pod: &Pod,
        observed: &Observed,
        start: &Start,
        mounted: &Mounted,
        memory: &mut Memory,
    ) -> Result<(), Unavailable> {
        let Some(container) = find(pod, start) else { return Ok(()) };
        let about = self.node.reporter.container(pod, &container.name);
        let image = container.image.as_deref().unwrap_or_default();
        self.wait_after_crash(pod, &container, observed.latest(&container.name), memory, &about)?;
        if let Some(failure) = memory.waiting.get(&container.name)
            && failure.reason != "CrashLoopBackOff"
            && let Some(unavailable) = images::backs_off(image, failure, &memory.backoff)
        {
            if failure.reason != unavailable.waiting.reason {
                about.normal("BackOff", format!("Back-off pulling image \"{image}\""));
                about.warning("Failed", "Error: ImagePullBackOff");
            }
            return Err(unavailable);
        }
        let policy = container.image_pull_policy.as_deref();
        let mut ensured = pin!(self.node.images.ensure(pod, image, policy, &mut memory.backoff, &about));
        let at_once = tokio::select! {
            biased;
            image = &mut ensured => Some(image?),
            () = self.ending.cancelled() => return Err(interrupted()),
            () = rt::sleep(LONG_PULL) => None,
        };
        let image = match at_once {
            Some(image) => image,
            None => {
                // Others start meanwhile, and everybody sees the sandbox and what runs in it.
                memory.turn = None;
                if let Some(observed) = self.observe().await {
                    self.report(pod, &observed, &memory.waiting, None, false).await;
                }
                tokio::select! {
                    image = &mut ensured => image?,
                    () = self.ending.cancelled() => return Err(interrupted()),
                }
            }
        };
        let made = self.configure(pod, observed, start, &container, &image, mounted).await;
        let config = made.map_err(|refusal| failed(&about, refusal.reason, refusal.message))?;
        let sandbox = observed.sandbox().ok_or_else(interrupted)?;
        // Before it has them: if this is cut short, it is given them once more.
        let resources = container.resources.clone().unwrap_or_default();
        self.node.resources.give(&self.uid, |given| {
            given.containers.insert(container.name.clone(), resources);
        });
        let id = match self.node.runtime.create_container(&sandbox.id, &config).await {
            Ok(id) => id,
            Err(error) => return Err(refused(&about, "CreateContainerError", error)),
        };
        about.normal("Created", "Container created");
        if let Err(error) = self.node.runtime.start_container(&id).await {
            return Err(refused(&about, "RunContainerError", error));
        }
        about.normal("Started", "Container started");
        self.run_post_start(pod, &container, &id, &about).await
    }

    /// A container that ended is not started again at once, time after time.
    fn wait_after_crash(
        &self,
        pod: &Pod,
        container: &Container,
        latest: Option<&ContainerStatus>,
        memory: &mut Memory,
        about: &About<'_>,
    ) -> Result<(), Unavailable> {
        let Some(ended) = latest.filter(|latest| latest.state == ContainerState::Exited) else {
            return Ok(());
        };
        let now = rt::now();
        let at = ended.finished_at.unwrap_or(ended.created_at);
        let name = &container.name;
        if let Some((left, whole)) = memory.backoff.remaining(name, at, now) {
            let pod = config::pod_name(pod);
            let is_news = memory.waiting.get(name).is_none_or(|waiting| waiting.reason != "CrashLoopBackOff");
            if is_news {
                about.warning("BackOff", format!("Back-off restarting failed container {name} in pod {pod}"));
            }
            let whole = go_seconds(whole);
            let message = format!("back-off {whole} restarting failed container={name} pod={pod}");
            let waiting = Waiting { reason: "CrashLoopBackOff".into(), message };
            return Err(Unavailable { waiting, retry_after: Some(left) });
        }
        memory.backoff.advance(name, now);
        Ok(())
    }

    async fn configure(
        &self,
        pod: &Pod,
        observed: &Observed,
        start: &Start,
        container: &Container,
        image: &ImageStatus,
        mounted: &Mounted,
    ) -> Result<runtime::ContainerConfig, Refusal> {
        let node = &self.node;
        let sandbox = observed.sandbox().ok_or_else(|| Refusal::config("the pod has no sandbox"))?;
        let objects = node.volumes.objects(pod).await;
        let services = node.services_for(pod);
        let addresses = if sandbox.host_network { node.addresses() } else { sandbox.addresses.as_slice() };
        let target = observed::target_of(pod, &container.name).and_then(|name| observed.present(name));
        let env_files = VolumeFiles(mounted);
        let facts = PodFacts {
            pod,
            node: &node.facts,
            services: &services,
            objects: &objects,
            addresses,
            volumes: mounted,
            user_mapping: node.user_mapping(pod).map_err(Refusal::config)?,
        };
        let start = ContainerFacts {
            container,
            attempt: start.attempt,
            restart_count: i32::try_from(start.attempt).unwrap_or(i32::MAX),
            image,
            pid_target: target.map(|target| target.id.as_str()),
            devices: &[],
            env_files: &env_files,
        };
        let given = node.devices.allocate(pod, container).await.map_err(Refusal::config)?;
        node.devices.pre_start(&given).await.map_err(Refusal::config)?;
        let mut prepared = config::container(&facts, &start)?;
        given.apply(&mut prepared.config);
        let names = node.dynamic_resources.names(pod, container).map_err(Refusal::config)?;
        prepared.config.cdi_devices.extend(names);
        tell(&node.reporter.container(pod, &container.name), &prepared.notices);
        let finish = tokio::task::spawn_blocking(move || prepared.finish());
        finish.await.unwrap_or_else(|error| Err(Refusal::config(error.to_string())))
    }

    /// Runs the hook; a container whose hook fails ends, and its policy says what becomes of it.
    async fn run_post_start(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        about: &About<'_>,
    ) -> Result<(), Unavailable> {
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let target = HookTarget { pod, container, container_id: id, pod_ip: self.address() };
        let ran = tokio::select! {
            ran = run_hook(&self.node.runtime, target, hook) => ran,
            () = self.ending.cancelled() => return Ok(()),
        };
        match ran {
            Ok(hooked) => {
                if let Some(fallback) = hooked.fallback {
                    about.warning("LifecycleHTTPFallback", fallback);
                }
                Ok(())
            }
            Err(error) => {
                warn!(container = id, %error, "A postStart hook failed");
                about.warning("FailedPostStartHook", "PostStartHook failed");
                let grace = Grace::of(pod, rt::now());
                let message = format!("FailedPostStartHook: Container {}", container.name);
                termination::kill_one(self, pod, id, &container.name, grace, Some(message)).await;
                let waiting = Waiting { reason: "PostStartHookError".into(), message: error.to_string() };
                Err(Unavailable { waiting, retry_after: Some(Duration::ZERO) })
            }
        }
    }
}

/// Volumes that are not there yet are looked for again after this: what they wait for is no event of the pod's.
const RETRY_VOLUMES: Duration = Duration::from_secs(2);

/// An image that is not here after this is being pulled.
const LONG_PULL: Duration = Duration::from_millis(200);

fn find(pod: &Pod, start: &Start) -> Option<Container> {
    let named = |container: &&Container| container.name == start.name;
    match start.role {
        Role::Init | Role::Sidecar => observed::init_containers(pod).iter().find(named).cloned(),
        Role::Regular => observed::containers(pod).iter().find(named).cloned(),
        Role::Ephemeral => observed::ephemeral_containers(pod).iter().find(named).cloned(),
    }
}

/// Says what a pod's users should know.
fn tell(about: &About<'_>, notices: &[Notice]) {
    for notice in notices {
        match notice.severity {
            Severity::Normal => about.normal(notice.reason, notice.message.clone()),
            Severity::Warning => about.warning(notice.reason, notice.message.clone()),
        }
    }
}

/// The pod ends meanwhile.
fn interrupted() -> Unavailable {
    let waiting = Waiting { reason: "ContainerCreating".into(), message: String::new() };
    Unavailable { waiting, retry_after: Some(Duration::ZERO) }
}

fn failed(about: &About<'_>, reason: &str, message: String) -> Unavailable {
    about.warning("Failed", format!("Error: {message}"));
    Unavailable { waiting: Waiting { reason: reason.into(), message }, retry_after: Some(RETRY) }
}

fn refused(about: &About<'_>, reason: &'static str, error: Error) -> Unavailable {
    let reason = match &error {
        Error::Refused { reason: own, .. } if !own.is_empty() => own,
        _ => reason,
    };
    failed(about, reason, error.to_string())
}
