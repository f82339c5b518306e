//! The calls of [`Runtime`], each as one or a few of CRI's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use futures::{StreamExt, TryStreamExt};
use grpc::{Code, Options, Status};
use tokio::sync::broadcast;

use super::messages::{self, ImageSpec};
use super::to_wire::{self, ImageUser};
use super::{CriRuntime, LIST_TIMEOUT, RUNTIME_SERVICE, found, from_wire, streaming};
use crate::spec::{SandboxConfig, User};
use crate::{
    Abilities, Attached, ContainerConfig, ContainerEvent, ContainerStats, ContainerStatus, Duplex, Error,
    ExecOutput, FilesystemUsage, ImageStatus, PullRequest, Resources, Result, Runtime, SandboxStatus,
    Streams, Version,
};

/// Most calls take no longer; some have the time that they are about on top.
const CALL_TIMEOUT: Duration = Duration::from_secs(2 * 60);

/// Making a sandbox waits for plugins of others.
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(4 * 60);

/// 16 MiB of each output, and what is around them.
const EXEC_ANSWER_BYTES_MAX: usize = 33 << 20;

/// States that are asked for at a time.
const STATUS_CALLS_MAX: usize = 16;

/// Whole seconds, as CRI counts; what is more than nothing is at least one.
fn whole_seconds(duration: Duration) -> i64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.try_into().unwrap_or(i64::MAX)
}

async fn create_directory(path: &Utf8Path) -> Result<()> {
    let made = tokio::fs::create_dir_all(path).await;
    made.map_err(|error| Error::Failed(format!("creating log directory {path}: {error}")))
}

#[async_trait]
impl Runtime for CriRuntime {
    async fn version(&self) -> Result<Version> {
        let request = messages::VersionRequest { version: "v1".to_owned() };
        let answer: messages::VersionResponse = self.runtime("Version", &request, LIST_TIMEOUT).await?;
        Ok(Version { name: answer.runtime_name, version: answer.runtime_version })
    }

    async fn abilities(&self) -> Result<Abilities> {
        Ok(self.health().await?.abilities)
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        if !config.log_directory.as_str().is_empty() {
            create_directory(&config.log_directory).await?;
        }
        let request = messages::RunPodSandboxRequest {
            config: Some(to_wire::sandbox_config(config, self.driver)),
            runtime_handler: config.handler.clone(),
        };
        let answer: messages::RunPodSandboxResponse =
            self.runtime("RunPodSandbox", &request, SANDBOX_TIMEOUT).await?;
        self.configs.lock().insert(answer.pod_sandbox_id.clone(), Arc::new(config.clone()));
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, sandbox: &str) -> Result<()> {
        let request = messages::PodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        let answer: Result<messages::Nothing> = self.runtime("StopPodSandbox", &request, CALL_TIMEOUT).await;
        found(answer).map(drop)
    }

    async fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        self.stop_sandbox(sandbox).await?;
        let request = messages::PodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        let answer: Result<messages::Nothing> =
            self.runtime("RemovePodSandbox", &request, CALL_TIMEOUT).await;
        found(answer)?;
        self.configs.lock().remove(sandbox);
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>> {
        let answer: messages::ListPodSandboxResponse =
            self.runtime("ListPodSandbox", &messages::ListPodSandboxRequest {}, LIST_TIMEOUT).await?;
        futures::stream::iter(answer.items)
            .map(|sandbox| async move { found(self.sandbox_status(&sandbox.id).await) })
            .buffered(STATUS_CALLS_MAX)
            .try_filter_map(|status| async { Ok(status.map(from_wire::sandbox_status)) })
            .try_collect()
            .await
    }

    async fn create_container(&self, sandbox: &str, config: &ContainerConfig) -> Result<String> {
        let sandbox_config = self.config_of(sandbox).await?;
        let log_path = sandbox_config.log_directory.join(&config.log_path);
        if let (false, Some(directory)) = (config.log_path.as_str().is_empty(), log_path.parent()) {
            create_directory(directory).await?;
        }
        let image_user = match (&config.security.user, config.security.group) {
            (User::Image, Some(_)) => {
                let image = self.find_image(&config.image).await?.unwrap_or_default();
                ImageUser { uid: image.uid, username: image.username }
            }
            _ => ImageUser::default(),
        };
        let request = messages::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(to_wire::container_config(config, &sandbox_config, &image_user)),
            sandbox_config: Some(to_wire::sandbox_config(&sandbox_config, self.driver)),
        };
        let answer: messages::CreateContainerResponse =
            self.runtime("CreateContainer", &request, CALL_TIMEOUT).await?;
        Ok(answer.container_id)
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        let request = messages::ContainerRequest { container_id: container.to_owned() };
        self.runtime::<_, messages::Nothing>("StartContainer", &request, CALL_TIMEOUT).await.map(drop)
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<()> {
        let request = messages::StopContainerRequest {
            container_id: container.to_owned(),
            timeout: whole_seconds(grace),
        };
        let answer: Result<messages::Nothing> =
            self.runtime("StopContainer", &request, CALL_TIMEOUT.saturating_add(grace)).await;
        found(answer).map(drop)
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        let request = messages::ContainerRequest { container_id: container.to_owned() };
        let answer: Result<messages::Nothing> = self.runtime("RemoveContainer", &request, CALL_TIMEOUT).await;
        found(answer).map(drop)
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>> {
        futures::stream::iter(self.list_containers(None).await?)
            .map(|container| async move { found(self.status_of(container).await) })
            .buffered(STATUS_CALLS_MAX)
            .try_filter_map(|status| async { Ok(status) })
            .try_collect()
            .await
    }

    async fn container_status(&self, container: &str) -> Result<ContainerStatus> {
        let mut listed = self.list_containers(Some(container)).await?;
        match listed.pop() {
            Some(listed) => self.status_of(listed).await,
            None => Err(Error::NotFound(format!("the runtime has no container {container}"))),
        }
    }

    async fn update_resources(&self, container: &str, resources: &Resources) -> Result<()> {
        let request = messages::UpdateContainerResourcesRequest {
            container_id: container.to_owned(),
            linux: Some(to_wire::resources(resources)),
        };
        self.runtime::<_, messages::Nothing>("UpdateContainerResources", &request, CALL_TIMEOUT)
            .await
            .map(drop)
    }

    async fn reopen_log(&self, container: &str) -> Result<()> {
        let request = messages::ContainerRequest { container_id: container.to_owned() };
        self.runtime::<_, messages::Nothing>("ReopenContainerLog", &request, CALL_TIMEOUT).await.map(drop)
    }

    async fn exec_sync(&self, container: &str, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        let request = messages::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.to_vec(),
            timeout: whole_seconds(timeout),
        };
        // The runtime ends the command; the time on top is for that.
        let options = Options {
            timeout: (!timeout.is_zero()).then(|| CALL_TIMEOUT.saturating_add(timeout)),
            message_bytes_max: EXEC_ANSWER_BYTES_MAX,
        };
        let answer: std::result::Result<messages::ExecSyncResponse, Status> =
            self.call(RUNTIME_SERVICE, "ExecSync", &request, options).await;
        match answer {
            Ok(answer) => {
                Ok(ExecOutput { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
            }
            Err(status) if status.code == Code::DeadlineExceeded => Err(Error::Timeout(format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                whole_seconds(timeout)
            ))),
            Err(status) => Err(from_wire::error(status)),
        }
    }

    async fn exec(&self, container: &str, command: &[String], streams: Streams) -> Result<Attached> {
        let request = messages::ExecRequest {
            container_id: container.to_owned(),
            cmd: command.to_vec(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr && !streams.tty,
        };
        let answer: messages::StreamingResponse = self.runtime("Exec", &request, CALL_TIMEOUT).await?;
        streaming::exec(&answer.url, streams).await
    }

    async fn attach(&self, container: &str, streams: Streams) -> Result<Attached> {
        let request = messages::AttachRequest {
            container_id: container.to_owned(),
            stdin: streams.stdin,
            tty: streams.tty,
            stdout: streams.stdout,
            stderr: streams.stderr && !streams.tty,
        };
        let answer: messages::StreamingResponse = self.runtime("Attach", &request, CALL_TIMEOUT).await?;
        streaming::attach(&answer.url, streams).await
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let request =
            messages::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: vec![port.into()] };
        let answer: messages::StreamingResponse = self.runtime("PortForward", &request, CALL_TIMEOUT).await?;
        streaming::port_forward(&answer.url, port).await
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        let mut sandbox_of: HashMap<_, _> = self
            .list_containers(None)
            .await?
            .into_iter()
            .map(|container| (container.id, container.pod_sandbox_id))
            .collect();
        let answer: messages::ListContainerStatsResponse =
            self.runtime("ListContainerStats", &messages::ListContainerStatsRequest {}, LIST_TIMEOUT).await?;
        let stats = answer.stats.into_iter().filter_map(|stats| {
            let sandbox = sandbox_of.remove(&stats.attributes.as_ref()?.id)?;
            Some(from_wire::container_stats(stats, sandbox))
        });
        Ok(stats.collect())
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }

    async fn pull_image(&self, request: &PullRequest) -> Result<String> {
        let credentials = request.credentials.iter().map(|credential| Some(to_wire::credential(credential)));
        let mut refused = None;
        for auth in credentials.chain(std::iter::once(None)) {
            let pull = messages::PullImageRequest {
                image: Some(ImageSpec::of(&request.image)),
                auth,
                sandbox_config: None,
            };
            // CRI tells nothing of a pull's progress: the runtime gives up itself.
            let answer: Result<messages::PullImageResponse> =
                self.image("PullImage", &pull, Options::default()).await;
            match answer {
                Ok(answer) => {
                    let image = self.find_image(&answer.image_ref).await?;
                    return Ok(image.map_or(answer.image_ref, |image| image.id));
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.expect("at least one pull was tried"))
    }

    async fn image_status(&self, image: &str) -> Result<Option<ImageStatus>> {
        self.find_image(image).await
    }

    async fn images(&self) -> Result<Vec<ImageStatus>> {
        let answer: messages::ListImagesResponse =
            self.image("ListImages", &messages::ListImagesRequest {}, Options::timeout(LIST_TIMEOUT)).await?;
        Ok(answer.images.into_iter().map(from_wire::image_status).collect())
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        let request = messages::ImageRequest { image: Some(ImageSpec::of(image)) };
        let answer: Result<messages::Nothing> =
            self.image("RemoveImage", &request, Options::timeout(CALL_TIMEOUT)).await;
        found(answer).map(drop)
    }

    async fn image_filesystem(&self) -> Result<FilesystemUsage> {
        let answer: messages::ImageFsInfoResponse = self
            .image("ImageFsInfo", &messages::ImageFsInfoRequest {}, Options::timeout(LIST_TIMEOUT))
            .await?;
        let usage = answer.image_filesystems.into_iter().next();
        let usage =
            usage.ok_or_else(|| Error::Failed("the runtime tells of no filesystem for images".to_owned()))?;
        let path = Utf8PathBuf::from(usage.fs_id.unwrap_or_default().mountpoint);
        let at = path.clone();
        let space = tokio::task::spawn_blocking(move || rustix::fs::statvfs(at.as_std_path())).await;
        let space = space
            .map_err(|error| Error::Failed(error.to_string()))?
            .map_err(|error| Error::Failed(format!("measuring the filesystem of {path}: {error}")))?;
        Ok(FilesystemUsage {
            path,
            used_bytes: usage.used_bytes.map_or(0, |value| value.value),
            capacity_bytes: space.f_blocks * space.f_frsize,
            available_bytes: space.f_bavail * space.f_frsize,
            used_inodes: usage.inodes_used.map_or(0, |value| value.value),
            inodes: space.f_files,
        })
    }
}
