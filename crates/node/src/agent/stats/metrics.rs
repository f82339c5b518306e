//! `/metrics/resource` and `/metrics/cadvisor`: names, labels and words of upstream's.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::VolumeUsage;
use super::sample::{ContainerSample, PodSample, Sample};
use super::text::Text;

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// A counter in nanoseconds, as seconds.
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn unix(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

/// All containers and the pods they are in.
fn containers(sample: &Sample) -> impl Iterator<Item = (&PodSample, &ContainerSample)> {
    sample.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
}

/// What metrics-server reads; without a sample it only says that there is none.
pub(super) fn resource(sample: Option<&Sample>) -> String {
    let mut text = Text::default();
    if let Some(sample) = sample {
        of_containers(&mut text, sample);
        of_node(&mut text, sample);
        of_pods(&mut text, sample);
    }
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    text.family("resource_scrape_error", GAUGE, help);
    text.sample("resource_scrape_error", &[], if sample.is_some() { 0.0 } else { 1.0 }, None);
    text.finish()
}

/// A value of a container, and when it was so.
type OfContainer = fn(&ContainerSample) -> Option<(f64, Option<Timestamp>)>;

fn of_containers(text: &mut Text, sample: &Sample) {
    let mut each = |name, kind, help, value: OfContainer| {
        text.family(name, kind, help);
        for (pod, container) in containers(sample) {
            if let Some((value, at)) = value(container) {
                let labels = [
                    ("container", &*container.stats.name),
                    ("namespace", &*pod.namespace),
                    ("pod", &*pod.name),
                ];
                text.sample(name, &labels, value, at);
            }
        }
    };
    let help = "[STABLE] Cumulative cpu time consumed by the container in core-seconds";
    each("container_cpu_usage_seconds_total", COUNTER, help, |container| {
        Some((seconds(container.stats.cpu_usage), Some(container.stats.at)))
    });
    let help = "[STABLE] Current working set of the container in bytes";
    each("container_memory_working_set_bytes", GAUGE, help, |container| {
        Some((container.stats.memory_working_set as f64, Some(container.stats.at)))
    });
    let help = "[STABLE] Start time of the container since unix epoch in seconds";
    each("container_start_time_seconds", GAUGE, help, |container| Some((unix(container.started?), None)));
}

fn of_node(text: &mut Text, sample: &Sample) {
    let mut one = |name, kind, help, value| {
        text.family(name, kind, help);
        text.sample(name, &[], value, Some(sample.at));
    };
    let help = "[STABLE] Cumulative cpu time consumed by the node in core-seconds";
    one("node_cpu_usage_seconds_total", COUNTER, help, seconds(sample.host.cpu));
    let help = "[STABLE] Current working set of the node in bytes";
    one("node_memory_working_set_bytes", GAUGE, help, sample.host.working_set as f64);
    let help = "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems";
    one("node_swap_usage_bytes", GAUGE, help, sample.host.swap_used as f64);
}

fn of_pods(text: &mut Text, sample: &Sample) {
    let mut each = |name, kind, help, value: fn(&PodSample) -> Option<f64>| {
        text.family(name, kind, help);
        for pod in &sample.pods {
            if let Some(value) = value(pod) {
                let labels = [("namespace", &*pod.namespace), ("pod", &*pod.name)];
                text.sample(name, &labels, value, Some(sample.at));
            }
        }
    };
    let help = "[STABLE] Cumulative cpu time consumed by the pod in core-seconds";
    each("pod_cpu_usage_seconds_total", COUNTER, help, |pod| Some(seconds(pod.usage().cpu)));
    let help = "[STABLE] Current working set of the pod in bytes";
    each("pod_memory_working_set_bytes", GAUGE, help, |pod| Some(pod.usage().working_set as f64));
    let help = "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems";
    each("pod_swap_usage_bytes", GAUGE, help, |pod| Some(pod.usage().swap? as f64));
}

/// The kubelet's own metrics of volumes: those of claims, each once, however many pods have it.
pub(super) fn volumes(sample: &Sample) -> String {
    type Value = fn(&VolumeUsage) -> Option<f64>;
    let mut all: BTreeMap<(&str, &str), &VolumeUsage> = BTreeMap::new();
    for pod in &sample.pods {
        for volume in &pod.volumes {
            if let Some(claim) = &volume.claim {
                all.entry((&pod.namespace, claim)).or_insert(volume);
            }
        }
    }
    let families: [(&str, &str, Value); 7] = [
        ("kubelet_volume_stats_available_bytes", "[ALPHA] Number of available bytes in the volume", |own| {
            Some(own.filesystem.available_bytes as f64)
        }),
        ("kubelet_volume_stats_capacity_bytes", "[ALPHA] Capacity in bytes of the volume", |own| {
            Some(own.filesystem.capacity_bytes as f64)
        }),
        (
            "kubelet_volume_stats_health_status_abnormal",
            "[ALPHA] Abnormal volume health status. The count is either 1 or 0. 1 indicates the volume is unhealthy, 0 \
             indicates volume is healthy",
            |own| own.is_abnormal.map(|abnormal| f64::from(u8::from(abnormal))),
        ),
        ("kubelet_volume_stats_inodes", "[ALPHA] Maximum number of inodes in the volume", |own| {
            Some(own.filesystem.inodes as f64)
        }),
        ("kubelet_volume_stats_inodes_free", "[ALPHA] Number of free inodes in the volume", |own| {
            Some(own.filesystem.free_inodes as f64)
        }),
        ("kubelet_volume_stats_inodes_used", "[ALPHA] Number of used inodes in the volume", |own| {
            Some(own.filesystem.used_inodes as f64)
        }),
        ("kubelet_volume_stats_used_bytes", "[ALPHA] Number of used bytes in the volume", |own| {
            Some(own.filesystem.used_bytes as f64)
        }),
    ];
    let mut text = Text::default();
    for (name, help, value) in families {
        let values: Vec<_> = all.iter().filter_map(|(key, own)| Some((key, value(own)?))).collect();
        if values.is_empty() {
            continue;
        }
        text.family(name, GAUGE, help);
        for ((namespace, claim), value) in values {
            let labels = [("namespace", *namespace), ("persistentvolumeclaim", *claim)];
            text.sample(name, &labels, value, None);
        }
    }
    text.finish()
}

/// What a container's series say of it; cAdvisor's `id` is its cgroup.
struct Series<'a> {
    pod: &'a PodSample,
    container: &'a ContainerSample,
    id: String,
}

impl<'a> Series<'a> {
    fn of(pod: &'a PodSample, container: &'a ContainerSample) -> Self {
        Self { pod, container, id: format!("/kubepods/pod{}/{}", pod.uid, container.stats.id) }
    }

    fn write(&self, text: &mut Text, name: &str, more: &[(&str, &str)], value: f64) {
        let (pod, stats) = (self.pod, &self.container.stats);
        let mut labels = vec![
            ("container", &*stats.name),
            ("id", &*self.id),
            ("image", &*self.container.image),
            ("name", &*stats.id),
            ("namespace", &*pod.namespace),
            ("pod", &*pod.name),
        ];
        labels.extend(more);
        labels.sort_unstable();
        text.sample(name, &labels, value, Some(stats.at));
    }
}

/// The metrics that dashboards read, by cAdvisor's names.
pub(super) fn cadvisor(sample: &Sample) -> String {
    let mut text = Text::default();
    type Value = fn(&ContainerSample) -> Option<f64>;
    let all: Vec<Series<'_>> =
        containers(sample).map(|(pod, container)| Series::of(pod, container)).collect();
    let mut each = |name, kind, help, more: &[(&str, &str)], value: Value| {
        text.family(name, kind, help);
        for series in &all {
            if let Some(value) = value(series.container) {
                series.write(&mut text, name, more, value);
            }
        }
    };
    let help = "Cumulative cpu time consumed in seconds.";
    each("container_cpu_usage_seconds_total", COUNTER, help, &[("cpu", "total")], |container| {
        Some(seconds(container.stats.cpu_usage))
    });
    let help = "Number of bytes that are consumed by the container on this filesystem.";
    each("container_fs_usage_bytes", GAUGE, help, &[("device", "")], |container| {
        Some(container.stats.writable_layer.0 as f64)
    });
    let help = "Last time a container was seen by the exporter";
    each("container_last_seen", GAUGE, help, &[], |container| Some(unix(container.stats.at).floor()));
    let help = "Size of RSS in bytes.";
    each("container_memory_rss", GAUGE, help, &[], |container| Some(container.stats.memory_rss as f64));
    let help = "Current memory usage in bytes, including all memory regardless of when it was accessed";
    each("container_memory_usage_bytes", GAUGE, help, &[], |container| {
        Some(container.stats.memory_usage as f64)
    });
    let help = "Current working set in bytes.";
    each("container_memory_working_set_bytes", GAUGE, help, &[], |container| {
        Some(container.stats.memory_working_set as f64)
    });
    let help = "Number of processes running inside the container.";
    each("container_processes", GAUGE, help, &[], |container| Some(container.stats.processes as f64));
    let help = "Memory limit for the container.";
    each("container_spec_memory_limit_bytes", GAUGE, help, &[], |container| {
        Some(container.memory_limit as f64)
    });
    let help = "Start time of the container since unix epoch in seconds.";
    each("container_start_time_seconds", GAUGE, help, &[], |container| {
        Some(unix(container.started?).floor())
    });
    memory_failures(&mut text, &all);
    networks(&mut text, sample);
    machine(&mut text, sample);
    text.finish()
}

fn memory_failures(text: &mut Text, all: &[Series<'_>]) {
    let name = "container_memory_failures_total";
    text.family(name, COUNTER, "Cumulative count of memory allocation failures.");
    for series in all {
        let stats = &series.container.stats;
        for (kind, count) in [("pgfault", stats.page_faults), ("pgmajfault", stats.major_page_faults)] {
            let more = [("failure_type", kind), ("scope", "container")];
            series.write(text, name, &more, count as f64);
        }
    }
}

/// A pod's network is counted once; upstream has it at the pod's sandbox.
fn networks(text: &mut Text, sample: &Sample) {
    type Value = fn(&super::host::Interface) -> u64;
    let families: [(&str, &str, Value); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |interface| {
            interface.received_bytes
        }),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |interface| interface.receive_errors,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |interface| {
            interface.sent_bytes
        }),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |interface| interface.send_errors,
        ),
    ];
    for (name, help, value) in families {
        text.family(name, COUNTER, help);
        for pod in &sample.pods {
            let id = format!("/kubepods/pod{}", pod.uid);
            for interface in &pod.interfaces {
                let labels = [
                    ("container", ""),
                    ("id", &*id),
                    ("image", ""),
                    ("interface", &*interface.name),
                    ("name", ""),
                    ("namespace", &*pod.namespace),
                    ("pod", &*pod.name),
                ];
                text.sample(name, &labels, value(interface) as f64, Some(sample.at));
            }
        }
    }
}

fn machine(text: &mut Text, sample: &Sample) {
    let mut one = |name, help, value| {
        text.family(name, GAUGE, help);
        text.sample(name, &[], value, None);
    };
    one("machine_cpu_cores", "Number of logical CPU cores.", sample.host.cpus as f64);
    one(
        "machine_memory_bytes",
        "Amount of memory installed on the machine.",
        sample.host.memory_total as f64,
    );
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    one("container_scrape_error", help, 0.0);
}
