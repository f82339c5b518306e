//! A runtime in memory, for tests of what asks one.
//!
//! Nothing runs: containers are running once they are started, and end when a test says so ([`FakeRuntime::exit`]) or
//! somebody stops them. Calls are remembered, and can be made to fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::{
    Attached, ContainerConfig, ContainerEvent, ContainerEventKind, ContainerState, ContainerStats,
    ContainerStatus, Duplex, Error, ExecOutput, FilesystemUsage, ImageStatus, PullRequest, Resources, Result,
    Runtime, SandboxConfig, SandboxState, SandboxStatus, Streams, Version,
};

/// Events that a listener may be behind.
const EVENTS_MAX: usize = 256;

/// Says whether a call fails: the call's name and what it is about.
type Rule = Box<dyn FnMut(&str, &str) -> Option<Error> + Send>;

/// See the module's documentation.
pub struct FakeRuntime {
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEvent>,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, SandboxStatus>,
    containers: BTreeMap<String, ContainerStatus>,
    configs: BTreeMap<String, ContainerConfig>,
    images: BTreeMap<String, ImageStatus>,
    calls: Vec<String>,
    rules: Vec<Rule>,
    execs: BTreeMap<String, ExecOutput>,
    /// Limits of pods as a whole, where they were changed.
    limits: BTreeMap<String, Resources>,
    /// Bytes, by container name.
    memory: BTreeMap<String, u64>,
}

impl FakeRuntime {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), events: broadcast::Sender::new(EVENTS_MAX) })
    }

    /// What was asked for since the last time this was asked, as `create c`, `start c`, `stop c`, ….
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().calls)
    }

    /// Makes calls fail for which `rule` gives an error.
    pub fn fail(&self, rule: impl FnMut(&str, &str) -> Option<Error> + Send + 'static) {
        self.state.lock().rules.push(Box::new(rule));
    }

    /// Answers a command, by its words joined with blanks.
    pub fn answer_exec(&self, command: &str, output: ExecOutput) {
        self.state.lock().execs.insert(command.to_owned(), output);
    }

    /// The image is here without being pulled.
    pub fn add_image(&self, name: &str) {
        let image = ImageStatus {
            id: format!("sha256:{name}"),
            tags: vec![name.to_owned()],
            ..ImageStatus::default()
        };
        self.state.lock().images.insert(name.to_owned(), image);
    }

    /// The running container of that name ends.
    ///
    /// # Panics
    /// Where none of that name runs.
    pub fn exit(&self, name: &str, code: i32) {
        let id = self.running(name).unwrap_or_else(|| panic!("no container {name} runs"));
        self.end(&id, code);
    }

    /// The ID of the running container of that name.
    pub fn running(&self, name: &str) -> Option<String> {
        let state = self.state.lock();
        let found =
            state.containers.values().find(|own| own.name == name && own.state == ContainerState::Running);
        found.map(|own| own.id.clone())
    }

    /// How the newest container of that name was configured.
    pub fn config(&self, name: &str) -> Option<ContainerConfig> {
        let state = self.state.lock();
        let newest =
            state.containers.values().filter(|own| own.name == name).max_by_key(|own| own.attempt)?;
        state.configs.get(&newest.id).cloned()
    }

    /// The limits that the pod as a whole was given last, if they ever changed.
    pub fn pod_limits(&self) -> Option<Resources> {
        self.state.lock().limits.values().next_back().cloned()
    }

    /// Containers of that name use so much memory.
    pub fn use_memory(&self, name: &str, bytes: u64) {
        self.state.lock().memory.insert(name.to_owned(), bytes);
    }

    /// Sandboxes and containers that are left.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        state.sandboxes.len() + state.containers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn end(&self, id: &str, code: i32) {
        let event = {
            let mut state = self.state.lock();
            let Some(container) = state.containers.get_mut(id) else { return };
            if container.state == ContainerState::Exited {
                return;
            }
            container.state = ContainerState::Exited;
            container.finished_at = Some(rt::now());
            container.exit_code = code;
            container.pid = 0;
            ContainerEvent {
                sandbox_id: container.sandbox_id.clone(),
                container_id: id.to_owned(),
                kind: ContainerEventKind::Exited,
            }
        };
        let _nobody_listens = self.events.send(event);
    }

    fn call(&self, what: &str, about: &str) -> Result<()> {
        let mut state = self.state.lock();
        state.calls.push(format!("{what} {about}"));
        match state.rules.iter_mut().find_map(|rule| rule(what, about)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn name_of(&self, container: &str) -> String {
        let state = self.state.lock();
        state.containers.get(container).map(|own| own.name.clone()).unwrap_or_default()
    }
}

fn missing(what: &str, id: &str) -> Error {
    Error::NotFound(format!("{what} {id:?} not found"))
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<Version> {
        Ok(Version { name: "fake".into(), version: "1".into() })
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.call("sandbox", &config.name)?;
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("s{}", state.next);
        let address = std::net::Ipv4Addr::new(10, 0, 0, u8::try_from(state.next).unwrap_or(u8::MAX));
        let host_network = config.namespaces.host_network;
        let status = SandboxStatus {
            id: id.clone(),
            name: config.name.clone(),
            namespace: config.namespace.clone(),
            uid: config.uid.clone(),
            attempt: config.attempt,
            state: SandboxState::Ready,
            created_at: rt::now(),
            addresses: if host_network { Vec::new() } else { vec![address.into()] },
            host_network,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_sandbox(&self, sandbox: &str) -> Result<()> {
        self.call("stop-sandbox", sandbox)?;
        let running: Vec<String> = {
            let mut state = self.state.lock();
            if let Some(own) = state.sandboxes.get_mut(sandbox) {
                own.state = SandboxState::NotReady;
            }
            state
                .containers
                .values()
                .filter(|own| own.sandbox_id == sandbox)
                .map(|own| own.id.clone())
                .collect()
        };
        running.iter().for_each(|id| self.end(id, 137));
        Ok(())
    }

    async fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        self.stop_sandbox(sandbox).await?;
        self.call("remove-sandbox", sandbox)?;
        let mut state = self.state.lock();
        state.sandboxes.remove(sandbox);
        state.containers.retain(|_, own| own.sandbox_id != sandbox);
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>> {
        Ok(self.state.lock().sandboxes.values().cloned().collect())
    }

    async fn create_container(&self, sandbox: &str, config: &ContainerConfig) -> Result<String> {
        self.call("create", &config.name)?;
        let mut state = self.state.lock();
        if !state.sandboxes.contains_key(sandbox) {
            return Err(missing("sandbox", sandbox));
        }
        state.next += 1;
        let id = format!("c{}", state.next);
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox.to_owned(),
            name: config.name.clone(),
            attempt: config.attempt,
            state: ContainerState::Created,
            created_at: rt::now(),
            image: config.image.clone(),
            image_reference: config.image_reference.clone(),
            image_digest: config.image.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: config.log_path.clone(),
            mounts: config.mounts.clone(),
            ..ContainerStatus::default()
        };
        state.containers.insert(id.clone(), status);
        state.configs.insert(id.clone(), config.clone());
        Ok(id)
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        self.call("start", &self.name_of(container))?;
        let mut state = self.state.lock();
        let own = state.containers.get_mut(container).ok_or_else(|| missing("container", container))?;
        own.state = ContainerState::Running;
        own.started_at = Some(rt::now());
        own.pid = 1;
        Ok(())
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<()> {
        self.call("stop", &self.name_of(container))?;
        let code = if grace.is_zero() { 137 } else { 143 };
        self.end(container, code);
        Ok(())
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        self.call("remove", &self.name_of(container))?;
        let mut state = self.state.lock();
        state.containers.remove(container);
        state.configs.remove(container);
        Ok(())
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>> {
        Ok(self.state.lock().containers.values().cloned().collect())
    }

    async fn container_status(&self, container: &str) -> Result<ContainerStatus> {
        let state = self.state.lock();
        state.containers.get(container).cloned().ok_or_else(|| missing("container", container))
    }

    async fn update_resources(&self, container: &str, resources: &Resources) -> Result<()> {
        self.call("update", &self.name_of(container))?;
        let mut state = self.state.lock();
        let config = state.configs.get_mut(container).ok_or_else(|| missing("container", container))?;
        config.resources = resources.clone();
        Ok(())
    }

    async fn update_sandbox(&self, sandbox: &str, resources: &Resources) -> Result<()> {
        self.call("update-sandbox", sandbox)?;
        self.state.lock().limits.insert(sandbox.to_owned(), resources.clone());
        Ok(())
    }

    async fn reopen_log(&self, container: &str) -> Result<()> {
        self.call("reopen-log", &self.name_of(container))
    }

    async fn exec_sync(&self, container: &str, command: &[String], _timeout: Duration) -> Result<ExecOutput> {
        self.call("exec", &self.name_of(container))?;
        Ok(self.state.lock().execs.get(&command.join(" ")).cloned().unwrap_or_default())
    }

    async fn exec(&self, _container: &str, _command: &[String], _streams: Streams) -> Result<Attached> {
        Err(Error::Failed("nothing runs here that a terminal could be connected to".into()))
    }

    async fn attach(&self, _container: &str, _streams: Streams) -> Result<Attached> {
        Err(Error::Failed("nothing runs here that a terminal could be connected to".into()))
    }

    async fn port_forward(&self, _sandbox: &str, _port: u16) -> Result<Box<dyn Duplex>> {
        Err(Error::Failed("nothing listens here".into()))
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        let state = self.state.lock();
        let running = state.containers.values().filter(|own| own.state == ContainerState::Running);
        let stats = running.map(|own| ContainerStats {
            id: own.id.clone(),
            sandbox_id: own.sandbox_id.clone(),
            name: own.name.clone(),
            labels: own.labels.clone(),
            memory_usage: state.memory.get(&own.name).copied().unwrap_or(0),
            at: Timestamp::UNIX_EPOCH,
            ..ContainerStats::default()
        });
        Ok(stats.collect())
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }

    async fn pull_image(&self, request: &PullRequest) -> Result<String> {
        self.call("pull", &request.image)?;
        self.add_image(&request.image);
        Ok(format!("sha256:{}", request.image))
    }

    async fn image_status(&self, image: &str) -> Result<Option<ImageStatus>> {
        let state = self.state.lock();
        Ok(state
            .images
            .values()
            .find(|own| own.id == image || own.tags.iter().any(|tag| tag == image))
            .cloned())
    }

    async fn images(&self) -> Result<Vec<ImageStatus>> {
        Ok(self.state.lock().images.values().cloned().collect())
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        self.state.lock().images.retain(|_, own| own.id != image);
        Ok(())
    }

    async fn image_filesystem(&self) -> Result<FilesystemUsage> {
        Ok(FilesystemUsage::default())
    }
}
