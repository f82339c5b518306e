//! One look at everything.

use std::collections::{BTreeMap, HashMap};

use apimachinery::Quantity;
use camino::Utf8Path;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{ContainerStats, ContainerStatus, FilesystemUsage, SandboxState, spec::label};

use super::cgroup::{self, Usage};
use super::host::{self, Host, Interface};
use super::{Error, Filesystem, Sources, VolumeUsage};

/// Everything at about one time.
pub(super) struct Sample {
    pub taken: rt::Instant,
    pub at: Timestamp,
    pub host: Host,
    /// Of the filesystem that volumes and logs lie on.
    pub root: Filesystem,
    pub images: FilesystemUsage,
    /// Of all pods together.
    pub all_pods: Option<Usage>,
    pub pods: Vec<PodSample>,
}

pub(super) struct PodSample {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub started: Option<Timestamp>,
    /// Of its cgroup, where that can be read.
    pub usage: Option<Usage>,
    /// Of a network of its own.
    pub interfaces: Vec<Interface>,
    pub containers: Vec<ContainerSample>,
    pub volumes: Vec<VolumeUsage>,
}

pub(super) struct ContainerSample {
    pub stats: ContainerStats,
    pub started: Option<Timestamp>,
    pub image: String,
    /// Zero is "no limit".
    pub memory_limit: u64,
    /// Bytes and files of its logs.
    pub logs: (u64, u64),
}

/// What of a pod is not figures.
struct Identity {
    name: String,
    namespace: String,
    uid: String,
}

impl Identity {
    fn of(stats: &ContainerStats) -> Option<Self> {
        let of = |name| stats.labels.get(name).cloned();
        Some(Self {
            name: of(label::POD_NAME)?,
            namespace: of(label::POD_NAMESPACE)?,
            uid: of(label::POD_UID)?,
        })
    }
}

impl Sample {
    pub(super) async fn take(sources: &Sources) -> Result<Self, Error> {
        let runtime = &sources.runtime;
        let (stats, containers, sandboxes, images) = tokio::try_join!(
            runtime.container_stats(),
            runtime.containers(),
            runtime.sandboxes(),
            runtime.image_filesystem()
        )?;
        let containers: HashMap<String, ContainerStatus> =
            containers.into_iter().map(|container| (container.id.clone(), container)).collect();
        let ready = sandboxes.into_iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
        // Pods with the host's network have no figures of their own.
        let networked: BTreeMap<String, bool> =
            ready.map(|sandbox| (sandbox.id, !sandbox.host_network)).collect();
        let mut of_pods: BTreeMap<String, (Identity, Vec<ContainerStats>)> = BTreeMap::new();
        for stats in stats {
            if networked.contains_key(&stats.sandbox_id)
                && let Some(identity) = Identity::of(&stats)
            {
                of_pods.entry(stats.sandbox_id.clone()).or_insert((identity, Vec::new())).1.push(stats);
            }
        }
        let mut pods = Vec::new();
        for (sandbox, (identity, stats)) in of_pods {
            let view = sources.pods.pod(&identity.namespace, &identity.name);
            let pod =
                view.map(|view| view.pod).filter(|pod| pod.metadata.uid.as_deref() == Some(&identity.uid));
            let pod = pod.unwrap_or_default();
            let volumes = sources.volumes.usage(&identity.uid).await;
            let containers = stats.into_iter().map(|stats| {
                let status = containers.get(&stats.id).cloned().unwrap_or_default();
                (memory_limit(&pod, &stats.name), stats, status)
            });
            let is_networked = networked.get(&sandbox).copied().unwrap_or_default();
            pods.push(Asked {
                started: pod.status.as_ref().and_then(|status| Some(status.start_time.as_ref()?.0)),
                identity,
                is_networked,
                containers: containers.collect(),
                volumes,
            });
        }
        let (cgroups, proc, root) = (sources.cgroups.clone(), sources.proc.clone(), sources.root.clone());
        let reading = move || {
            let host = Host::read(&proc)?;
            let filesystem =
                host::filesystem(&root).map_err(|source| Error::Kernel { path: root.clone(), source })?;
            let all_pods = cgroup::read(&cgroups, "kubepods");
            let pods = pods.into_iter().map(|pod| pod.read(&cgroups, &proc)).collect();
            Ok((host, filesystem, all_pods, pods))
        };
        let read = tokio::task::spawn_blocking(reading).await;
        let read = read.unwrap_or_else(|panic| {
            let path = sources.proc.clone();
            Err(Error::Kernel { path, source: std::io::Error::other(panic) })
        });
        let (host, root, all_pods, pods) = read?;
        Ok(Self { taken: rt::instant(), at: rt::now(), host, root, images, all_pods, pods })
    }
}

/// What was asked of others about a pod; the kernel comes next.
struct Asked {
    identity: Identity,
    started: Option<Timestamp>,
    is_networked: bool,
    containers: Vec<(u64, ContainerStats, ContainerStatus)>,
    volumes: Vec<VolumeUsage>,
}

impl Asked {
    fn read(self, cgroups: &Utf8Path, proc: &Utf8Path) -> PodSample {
        let pid = self.containers.iter().map(|(_, _, status)| status.pid).find(|pid| *pid != 0);
        // All containers of a pod see the same network.
        let dev = pid
            .filter(|_| self.is_networked)
            .and_then(|pid| std::fs::read_to_string(proc.join(pid.to_string()).join("net/dev")).ok());
        let containers = self.containers.into_iter().map(|(memory_limit, stats, status)| ContainerSample {
            started: status.started_at,
            image: status.image_reference,
            logs: status.log_path.parent().map(files).unwrap_or_default(),
            memory_limit,
            stats,
        });
        PodSample {
            usage: cgroup::read_pod(cgroups, &self.identity.uid),
            interfaces: dev.as_deref().map(host::interfaces).unwrap_or_default(),
            containers: containers.collect(),
            name: self.identity.name,
            namespace: self.identity.namespace,
            uid: self.identity.uid,
            started: self.started,
            volumes: self.volumes,
        }
    }
}

/// Bytes and number of the files right in a directory.
fn files(directory: &Utf8Path) -> (u64, u64) {
    let entries = directory.read_dir_utf8().into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len());
    sizes.fold((0, 0), |(bytes, files), size| (bytes + size, files + 1))
}

fn memory_limit(pod: &Pod, container: &str) -> u64 {
    let spec = pod.spec.as_ref();
    let ordinary = spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let found = ordinary.into_iter().flatten().find(|known| known.name == container);
    let limit = found.and_then(|known| known.resources.as_ref()?.limits.as_ref()?.get("memory").cloned());
    limit.and_then(|limit| limit.0.parse::<Quantity>().ok()).map_or(0, |limit| bytes(&limit))
}

fn bytes(quantity: &Quantity) -> u64 {
    u64::try_from(quantity.value()).unwrap_or_default()
}
