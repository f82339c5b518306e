//! The Summary API: `stats/v1alpha1`, field by field as upstream has it.

use jiff::Timestamp;
use serde::Serialize;

use super::cgroup::Usage;
use super::host::{Host, Interface};
use super::sample::{ContainerSample, PodSample, Sample};
use super::{Filesystem, Pair};

/// The interface whose figures stand for a whole network, as upstream has it.
const DEFAULT_INTERFACE: &str = "eth0";

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub node: NodeStats,
    pub pods: Vec<PodStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStats {
    pub node_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_containers: Vec<ContainerStats>,
    pub start_time: Time,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rlimit: Option<RlimitStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeStats {
    pub image_fs: FsStats,
    pub container_fs: FsStats,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RlimitStats {
    pub time: Time,
    pub maxpid: u64,
    pub curproc: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStats {
    pub pod_ref: PodReference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    pub containers: Vec<ContainerStats>,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStats>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume: Vec<VolumeStats>,
    #[serde(rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<FsStats>,
    #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
    pub process_stats: Option<ProcessStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodReference {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStats {
    pub name: String,
    pub start_time: Time,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<FsStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuStats {
    pub time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_nano_cores: Option<u64>,
    pub usage_core_nano_seconds: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStats {
    pub time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    pub usage_bytes: u64,
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NetworkStats {
    pub time: Time,
    #[serde(flatten)]
    pub default: InterfaceStats,
    pub interfaces: Vec<InterfaceStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStats {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_errors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_errors: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FsStats {
    pub time: Time,
    pub available_bytes: u64,
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub inodes_free: u64,
    pub inodes: u64,
    pub inodes_used: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStats {
    #[serde(flatten)]
    pub filesystem: FsStats,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc_ref: Option<ClaimReference>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClaimReference {
    pub name: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessStats {
    pub process_count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SwapStats {
    pub time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_available_bytes: Option<u64>,
    pub swap_usage_bytes: u64,
}

/// `metav1.Time`: RFC 3339 to the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

/// What two samples say.
pub(super) fn of(node_name: &str, pair: &Pair, only_cpu_and_memory: bool) -> Summary {
    let (now, before) = (&*pair.now, pair.before.as_deref());
    let mut pods: Vec<PodStats> = now.pods.iter().map(|pod| of_pod(pod, now, before)).collect();
    let mut node = of_node(node_name, now, before);
    if only_cpu_and_memory {
        (node.network, node.fs, node.runtime, node.rlimit, node.swap) = (None, None, None, None, None);
        for pod in &mut pods {
            (pod.network, pod.ephemeral_storage, pod.process_stats, pod.swap) = (None, None, None, None);
            pod.volume.clear();
            for container in &mut pod.containers {
                (container.rootfs, container.logs) = (None, None);
            }
        }
    }
    Summary { node, pods }
}

fn of_node(name: &str, now: &Sample, before: Option<&Sample>) -> NodeStats {
    let Host { booted, .. } = now.host;
    let at = Time(now.at);
    let host = &now.host;
    let pods = now.all_pods.map(|usage| ContainerStats {
        name: "pods".to_owned(),
        start_time: Time(booted),
        cpu: cpu(now, usage.cpu, before.and_then(|before| Some((before, before.all_pods?.cpu)))),
        memory: of_cgroup(at, &usage, host.memory_total),
        ..ContainerStats::default()
    });
    let images = Filesystem {
        capacity_bytes: now.images.capacity_bytes,
        available_bytes: now.images.available_bytes,
        used_bytes: now.images.used_bytes,
        inodes: now.images.inodes,
        // The filesystem holds other things besides.
        free_inodes: now.images.inodes.saturating_sub(now.images.used_inodes),
        used_inodes: now.images.used_inodes,
    };
    let containers_used = now.pods.iter().flat_map(|pod| &pod.containers);
    let containers_used: (u64, u64) = containers_used.fold((0, 0), |(bytes, inodes), container| {
        let (more_bytes, more_inodes) = container.stats.writable_layer;
        (bytes + more_bytes, inodes + more_inodes)
    });
    let container_fs = Filesystem { used_bytes: containers_used.0, used_inodes: containers_used.1, ..images };
    NodeStats {
        node_name: name.to_owned(),
        system_containers: pods.into_iter().collect(),
        start_time: Time(booted),
        cpu: cpu(now, host.cpu, before.map(|before| (before, before.host.cpu))),
        memory: MemoryStats {
            time: at,
            available_bytes: Some(host.memory_total.saturating_sub(host.working_set)),
            usage_bytes: host.memory_used,
            working_set_bytes: host.working_set,
            rss_bytes: host.rss,
            page_faults: host.page_faults,
            major_page_faults: host.major_page_faults,
        },
        network: network(at, &host.interfaces),
        fs: Some(filesystem(at, &now.root)),
        runtime: Some(RuntimeStats {
            image_fs: filesystem(at, &images),
            container_fs: filesystem(at, &container_fs),
        }),
        rlimit: Some(RlimitStats { time: at, maxpid: host.processes_max, curproc: host.processes }),
        swap: Some(SwapStats {
            time: at,
            swap_available_bytes: Some(host.swap_total.saturating_sub(host.swap_used)),
            swap_usage_bytes: host.swap_used,
        }),
    }
}

fn of_pod(pod: &PodSample, now: &Sample, before: Option<&Sample>) -> PodStats {
    let at = Time(now.at);
    let then =
        before.and_then(|before| Some((before, before.pods.iter().find(|other| other.uid == pod.uid)?)));
    let containers: Vec<ContainerStats> =
        pod.containers.iter().map(|container| of_container(container, now, then)).collect();
    let usage = pod.usage();
    let limits: Vec<u64> = pod.containers.iter().map(|container| container.memory_limit).collect();
    // A pod has a limit where all of its containers have one.
    let limit = if limits.contains(&0) { 0 } else { limits.iter().sum() };
    let mut storage = now.root;
    let local = pod
        .volumes
        .iter()
        .filter(|volume| volume.is_ephemeral)
        .map(|volume| (volume.filesystem.used_bytes, volume.filesystem.used_inodes));
    let of_containers = pod.containers.iter().map(|container| {
        let ((layer, layer_files), (logs, log_files)) = (container.stats.writable_layer, container.logs);
        (layer + logs, layer_files + log_files)
    });
    let used = local.chain(of_containers).fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
    (storage.used_bytes, storage.used_inodes) = used;
    PodStats {
        pod_ref: PodReference {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            uid: pod.uid.clone(),
        },
        start_time: pod.started.map(Time),
        containers,
        cpu: cpu(now, usage.cpu, then.map(|(before, pod)| (before, pod.usage().cpu))),
        memory: of_cgroup(at, &usage, limit),
        network: network(at, &pod.interfaces),
        volume: pod
            .volumes
            .iter()
            .map(|volume| {
                let claim =
                    |name: &String| ClaimReference { name: name.clone(), namespace: pod.namespace.clone() };
                VolumeStats {
                    filesystem: filesystem(at, &volume.filesystem),
                    name: volume.name.clone(),
                    pvc_ref: volume.claim.as_ref().map(claim),
                }
            })
            .collect(),
        ephemeral_storage: Some(filesystem(at, &storage)),
        process_stats: Some(ProcessStats {
            process_count: pod.containers.iter().map(|container| container.stats.processes).sum(),
        }),
        swap: usage.swap.map(|swap| SwapStats {
            time: at,
            swap_available_bytes: None,
            swap_usage_bytes: swap,
        }),
    }
}

fn of_container(
    container: &ContainerSample,
    now: &Sample,
    then: Option<(&Sample, &PodSample)>,
) -> ContainerStats {
    let stats = &container.stats;
    let at = Time(stats.at);
    let before = then.and_then(|(_, pod)| pod.containers.iter().find(|other| other.stats.id == stats.id));
    let elapsed = before.map(|before| stats.at.duration_since(before.stats.at).unsigned_abs());
    let rate = before
        .zip(elapsed)
        .and_then(|(before, elapsed)| nano_cores(before.stats.cpu_usage, stats.cpu_usage, elapsed));
    let images = &now.images;
    let on_images = Filesystem {
        capacity_bytes: images.capacity_bytes,
        available_bytes: images.available_bytes,
        used_bytes: stats.writable_layer.0,
        inodes: images.inodes,
        free_inodes: images.inodes.saturating_sub(images.used_inodes),
        used_inodes: stats.writable_layer.1,
    };
    let logs = Filesystem { used_bytes: container.logs.0, used_inodes: container.logs.1, ..now.root };
    ContainerStats {
        name: stats.name.clone(),
        start_time: Time(container.started.unwrap_or_default()),
        cpu: CpuStats { time: at, usage_nano_cores: rate, usage_core_nano_seconds: stats.cpu_usage },
        memory: MemoryStats {
            time: at,
            available_bytes: available(container.memory_limit, stats.memory_working_set),
            usage_bytes: stats.memory_usage,
            working_set_bytes: stats.memory_working_set,
            rss_bytes: stats.memory_rss,
            page_faults: stats.page_faults,
            major_page_faults: stats.major_page_faults,
        },
        rootfs: Some(filesystem(at, &on_images)),
        logs: Some(filesystem(at, &logs)),
    }
}

impl PodSample {
    /// Of the pod as a whole; where its cgroup cannot be read, of its containers together.
    pub(super) fn usage(&self) -> Usage {
        self.usage.unwrap_or_else(|| {
            self.containers.iter().fold(Usage::default(), |sum, container| {
                let stats = &container.stats;
                Usage {
                    cpu: sum.cpu + stats.cpu_usage,
                    memory: sum.memory + stats.memory_usage,
                    working_set: sum.working_set + stats.memory_working_set,
                    rss: sum.rss + stats.memory_rss,
                    swap: None,
                    page_faults: sum.page_faults + stats.page_faults,
                    major_page_faults: sum.major_page_faults + stats.major_page_faults,
                }
            })
        })
    }
}

fn cpu(now: &Sample, usage: u64, before: Option<(&Sample, u64)>) -> CpuStats {
    let rate = before.and_then(|(before, used)| {
        nano_cores(used, usage, now.taken.saturating_duration_since(before.taken))
    });
    CpuStats { time: Time(now.at), usage_nano_cores: rate, usage_core_nano_seconds: usage }
}

/// Nanoseconds of CPU per second; `None` where a counter began anew.
fn nano_cores(before: u64, now: u64, elapsed: std::time::Duration) -> Option<u64> {
    let used = now.checked_sub(before)?;
    let elapsed = elapsed.as_nanos();
    let rate = (u128::from(used) * 1_000_000_000).checked_div(elapsed)?;
    u64::try_from(rate).ok()
}

fn available(limit: u64, working_set: u64) -> Option<u64> {
    (limit > 0).then(|| limit.saturating_sub(working_set))
}

fn of_cgroup(at: Time, usage: &Usage, limit: u64) -> MemoryStats {
    MemoryStats {
        time: at,
        available_bytes: available(limit, usage.working_set),
        usage_bytes: usage.memory,
        working_set_bytes: usage.working_set,
        rss_bytes: usage.rss,
        page_faults: usage.page_faults,
        major_page_faults: usage.major_page_faults,
    }
}

fn filesystem(at: Time, usage: &Filesystem) -> FsStats {
    FsStats {
        time: at,
        available_bytes: usage.available_bytes,
        capacity_bytes: usage.capacity_bytes,
        used_bytes: usage.used_bytes,
        inodes_free: usage.free_inodes,
        inodes: usage.inodes,
        inodes_used: usage.used_inodes,
    }
}

fn network(at: Time, interfaces: &[Interface]) -> Option<NetworkStats> {
    if interfaces.is_empty() {
        return None;
    }
    let interfaces: Vec<InterfaceStats> = interfaces
        .iter()
        .map(|interface| InterfaceStats {
            name: interface.name.clone(),
            rx_bytes: Some(interface.received_bytes),
            rx_errors: Some(interface.receive_errors),
            tx_bytes: Some(interface.sent_bytes),
            tx_errors: Some(interface.send_errors),
        })
        .collect();
    let default = interfaces.iter().find(|interface| interface.name == DEFAULT_INTERFACE).cloned();
    Some(NetworkStats { time: at, default: default.unwrap_or_default(), interfaces })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_of_what_was_used_between_two_looks() {
        let second = Duration::from_secs(1);
        assert_eq!(nano_cores(1_000, 501_000, second), Some(500_000));
        assert_eq!(nano_cores(0, 3_000_000_000, Duration::from_secs(2)), Some(1_500_000_000));
        assert_eq!(nano_cores(5, 4, second), None, "a counter that began anew");
        assert_eq!(nano_cores(0, 4, Duration::ZERO), None);
        assert_eq!((available(10, 4), available(0, 4), available(4, 10)), (Some(6), None, Some(0)));
    }
}
