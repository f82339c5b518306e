//! A runtime whose containers are processes of this machine, and a pod that has some.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use runtime::{
    Attached, ContainerConfig, ContainerEvent, ContainerEventKind, ContainerState, ContainerStats,
    ContainerStatus, Duplex, Error, ExecOutput, FilesystemUsage, ImageStatus, PullRequest, Reader, Resources,
    Result, Runtime, SandboxConfig, SandboxStatus, Streams, Version, Writer,
};
use tokio::process::Command;
use tokio::sync::{broadcast, mpsc};

use super::{PodView, Pods};

const EVENTS_MAX: usize = 16;

pub struct TestRuntime {
    pub containers: Mutex<BTreeMap<String, ContainerStatus>>,
    pub sandboxes: Mutex<Vec<SandboxStatus>>,
    pub stats: Mutex<Vec<ContainerStats>>,
    pub reopened: Mutex<Vec<String>>,
    events: broadcast::Sender<ContainerEvent>,
}

impl TestRuntime {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            containers: Mutex::default(),
            sandboxes: Mutex::default(),
            stats: Mutex::default(),
            reopened: Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
        })
    }

    pub fn runs(&self, id: &str, log_path: Utf8PathBuf) {
        let status = ContainerStatus {
            id: id.to_owned(),
            state: ContainerState::Running,
            log_path,
            ..ContainerStatus::default()
        };
        self.containers.lock().insert(id.to_owned(), status);
    }

    pub fn exits(&self, id: &str) {
        self.containers.lock().get_mut(id).unwrap().state = ContainerState::Exited;
        let _ = self.events.send(ContainerEvent {
            sandbox_id: String::new(),
            container_id: id.to_owned(),
            kind: ContainerEventKind::Exited,
        });
    }

    fn spawn(command: &[String], streams: Streams) -> Result<Attached> {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
        process.stdin(if streams.stdin { Stdio::piped() } else { Stdio::null() });
        let mut child = process.spawn().map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Attached {
            stdin: child.stdin.take().map(|stdin| Box::pin(stdin) as Writer),
            stdout: child.stdout.take().map(|stdout| Box::pin(stdout) as Reader),
            stderr: child.stderr.take().map(|stderr| Box::pin(stderr) as Reader),
            resize: streams.tty.then(|| mpsc::channel(1).0),
            exit: Box::pin(async move {
                let status = child.wait().await.map_err(|error| Error::Failed(error.to_string()))?;
                Ok(status.code().unwrap_or(137))
            }),
        })
    }
}

fn not_here<T>() -> Result<T> {
    Err(Error::Failed("the runtime of these tests does not do that".to_owned()))
}

#[async_trait]
impl Runtime for TestRuntime {
    async fn version(&self) -> Result<Version> {
        not_here()
    }
    async fn run_sandbox(&self, _: &SandboxConfig) -> Result<String> {
        not_here()
    }
    async fn stop_sandbox(&self, _: &str) -> Result<()> {
        not_here()
    }
    async fn remove_sandbox(&self, _: &str) -> Result<()> {
        not_here()
    }
    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>> {
        Ok(self.sandboxes.lock().clone())
    }
    async fn create_container(&self, _: &str, _: &ContainerConfig) -> Result<String> {
        not_here()
    }
    async fn start_container(&self, _: &str) -> Result<()> {
        not_here()
    }
    async fn stop_container(&self, _: &str, _: Duration) -> Result<()> {
        not_here()
    }
    async fn remove_container(&self, _: &str) -> Result<()> {
        not_here()
    }
    async fn containers(&self) -> Result<Vec<ContainerStatus>> {
        Ok(self.containers.lock().values().cloned().collect())
    }
    async fn container_status(&self, container: &str) -> Result<ContainerStatus> {
        let found = self.containers.lock().get(container).cloned();
        found.ok_or_else(|| Error::NotFound(format!("no container {container}")))
    }
    async fn update_resources(&self, _: &str, _: &Resources) -> Result<()> {
        not_here()
    }
    async fn reopen_log(&self, container: &str) -> Result<()> {
        self.reopened.lock().push(container.to_owned());
        let path = self.container_status(container).await?.log_path;
        std::fs::write(path, "").map_err(|error| Error::Failed(error.to_string()))
    }
    async fn exec_sync(&self, _: &str, command: &[String], _: Duration) -> Result<ExecOutput> {
        let output = Command::new(&command[0]).args(&command[1..]).output().await;
        let output = output.map_err(|error| Error::Failed(error.to_string()))?;
        let exit_code = output.status.code().unwrap_or(137);
        Ok(ExecOutput { stdout: output.stdout, stderr: output.stderr, exit_code })
    }
    async fn exec(&self, container: &str, command: &[String], streams: Streams) -> Result<Attached> {
        self.container_status(container).await?;
        Self::spawn(command, streams)
    }
    async fn attach(&self, container: &str, streams: Streams) -> Result<Attached> {
        self.container_status(container).await?;
        Self::spawn(&["cat".to_owned()], streams)
    }
    async fn port_forward(&self, _: &str, port: u16) -> Result<Box<dyn Duplex>> {
        match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(Error::Failed(error.to_string())),
        }
    }
    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        Ok(self.stats.lock().clone())
    }
    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
    async fn pull_image(&self, _: &PullRequest) -> Result<String> {
        not_here()
    }
    async fn image_status(&self, _: &str) -> Result<Option<ImageStatus>> {
        not_here()
    }
    async fn images(&self) -> Result<Vec<ImageStatus>> {
        not_here()
    }
    async fn remove_image(&self, _: &str) -> Result<()> {
        not_here()
    }
    async fn image_filesystem(&self) -> Result<FilesystemUsage> {
        Ok(FilesystemUsage {
            used_bytes: 40,
            capacity_bytes: 100,
            available_bytes: 50,
            used_inodes: 4,
            inodes: 10,
            ..FilesystemUsage::default()
        })
    }
}

/// Pods that are always the same.
pub struct TestPods(pub Vec<PodView>);

impl Pods for TestPods {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodView> {
        self.0.iter().find(|view| view.namespace() == namespace && view.name() == name).cloned()
    }

    fn pods(&self) -> Vec<PodView> {
        self.0.clone()
    }
}

/// The pod `default/p` with a container `c` that runs, one `b` that waits, and a sandbox.
pub fn pod() -> PodView {
    let pod = serde_json::json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"limits": {"memory": "1Ki"}}},
            {"name": "b", "image": "i"},
        ]},
        "status": {"startTime": "2026-01-01T00:00:00Z", "containerStatuses": [
            {"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": "test://c1", "state": {"running": {}}},
            {"name": "b", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ErrImagePull"}}},
        ]},
    });
    let pod: Pod = serde_json::from_value(pod).expect("it is a pod");
    PodView {
        pod: Arc::new(pod),
        sandbox: Some("s".to_owned()),
        containers: BTreeMap::from([("c".to_owned(), "c1".to_owned())]),
    }
}
