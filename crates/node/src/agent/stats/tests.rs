use std::collections::BTreeMap;

use camino::Utf8Path;
use runtime::spec::label;
use runtime::{ContainerState, ContainerStats, ContainerStatus, SandboxState, SandboxStatus};
use serde_json::json;

use super::*;
use crate::agent::server::testing::{TestPods, TestRuntime, pod};

struct OneVolume;

#[async_trait]
impl Volumes for OneVolume {
    async fn usage(&self, pod_uid: &str) -> Vec<VolumeUsage> {
        assert_eq!(pod_uid, "u");
        let filesystem = Filesystem { used_bytes: 1000, used_inodes: 10, ..Filesystem::default() };
        vec![VolumeUsage {
            is_abnormal: Some(false),
            name: "v".to_owned(),
            claim: Some("data".to_owned()),
            is_ephemeral: true,
            filesystem,
        }]
    }
}

fn labels() -> BTreeMap<String, String> {
    [(label::POD_NAME, "p"), (label::POD_NAMESPACE, "default"), (label::POD_UID, "u")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn scene(folder: &Utf8Path) -> (Arc<TestRuntime>, Stats) {
    let runtime = TestRuntime::new();
    let sandbox = |id: &str, state| SandboxStatus {
        id: id.to_owned(),
        name: "p".to_owned(),
        namespace: "default".to_owned(),
        uid: "u".to_owned(),
        attempt: 0,
        state,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        addresses: Vec::new(),
        host_network: false,
        labels: labels(),
        annotations: BTreeMap::new(),
    };
    *runtime.sandboxes.lock() =
        vec![sandbox("s", SandboxState::Ready), sandbox("old", SandboxState::NotReady)];
    let log_path = folder.join("c/0.log");
    std::fs::create_dir_all(log_path.parent().unwrap()).unwrap();
    std::fs::write(&log_path, "12345").unwrap();
    let status = ContainerStatus {
        id: "c1".to_owned(),
        sandbox_id: "s".to_owned(),
        state: ContainerState::Running,
        started_at: Some("2026-01-01T00:00:05Z".parse().unwrap()),
        image_reference: "i".to_owned(),
        log_path,
        pid: std::process::id(),
        ..ContainerStatus::default()
    };
    runtime.containers.lock().insert("c1".to_owned(), status);
    uses(&runtime, 1_000_000_000, "2026-01-01T00:01:00Z".parse().unwrap());
    let stats = Stats::new(Sources {
        node_name: "n".to_owned(),
        runtime: runtime.clone(),
        pods: Arc::new(TestPods(vec![pod()])),
        volumes: Arc::new(OneVolume),
        root: folder.to_owned(),
        cgroups: folder.join("no-cgroups"),
        proc: "/proc".into(),
    });
    (runtime, stats)
}

fn uses(runtime: &TestRuntime, cpu_usage: u64, at: jiff::Timestamp) {
    let of = |id: &str, sandbox: &str| ContainerStats {
        id: id.to_owned(),
        sandbox_id: sandbox.to_owned(),
        name: "c".to_owned(),
        labels: labels(),
        cpu_usage,
        memory_working_set: 600,
        memory_usage: 700,
        memory_rss: 500,
        page_faults: 9,
        major_page_faults: 1,
        processes: 2,
        writable_layer: (300, 3),
        at,
    };
    *runtime.stats.lock() = vec![of("c1", "s"), of("c0", "old")];
}

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
    (folder, path)
}

#[tokio::test(start_paused = true)]
async fn a_summary_says_what_pods_use_and_how_fast() {
    let (_folder, path) = folder();
    let (runtime, stats) = scene(&path);
    let first = serde_json::to_value(stats.summary(false).await.unwrap()).unwrap();
    let pod = &first["pods"][0];
    assert_eq!(first["pods"].as_array().unwrap().len(), 1, "a sandbox that is not ready is not the pod's");
    assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "default", "uid": "u"}));
    assert_eq!(pod["startTime"], "2026-01-01T00:00:00Z");
    let container = &pod["containers"][0];
    assert_eq!(container["startTime"], "2026-01-01T00:00:05Z");
    let cpu = json!({"time": "2026-01-01T00:01:00Z", "usageCoreNanoSeconds": 1_000_000_000_u64});
    assert_eq!(container["cpu"], cpu, "one sample has no rate");
    let memory = json!({"time": "2026-01-01T00:01:00Z", "availableBytes": 424, "usageBytes": 700,
        "workingSetBytes": 600, "rssBytes": 500, "pageFaults": 9, "majorPageFaults": 1});
    assert_eq!(container["memory"], memory);
    assert_eq!(
        (&container["rootfs"]["usedBytes"], &container["rootfs"]["inodesUsed"]),
        (&json!(300), &json!(3))
    );
    assert_eq!(container["logs"]["usedBytes"], 5);
    assert_eq!(pod["memory"]["workingSetBytes"], 600);
    assert_eq!(pod["process_stats"]["process_count"], 2);
    assert_eq!(pod["ephemeral-storage"]["usedBytes"], 1305);
    assert_eq!(pod["volume"][0]["pvcRef"], json!({"name": "data", "namespace": "default"}));
    assert_eq!(pod["volume"][0]["usedBytes"], 1000);
    assert!(pod["network"]["interfaces"].is_array() || pod["network"].is_null());
    let node = &first["node"];
    assert_eq!(node["nodeName"], "n");
    assert!(node["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0);
    assert_eq!(node["runtime"]["imageFs"]["usedBytes"], 40);
    assert_eq!(node["runtime"]["containerFs"]["usedBytes"], 300);
    assert!(node["rlimit"]["maxpid"].as_u64().unwrap() > 0);

    // Within ten seconds nothing is asked again.
    uses(&runtime, 1_500_000_000, "2026-01-01T00:01:20Z".parse().unwrap());
    rt::sleep(AGE_MAX - Duration::from_millis(1)).await;
    let same = serde_json::to_value(stats.summary(false).await.unwrap()).unwrap();
    assert_eq!(same["pods"][0]["containers"][0]["cpu"], cpu);
    rt::sleep(Duration::from_millis(1)).await;
    let next = serde_json::to_value(stats.summary(true).await.unwrap()).unwrap();
    let container = &next["pods"][0]["containers"][0];
    // Half a second of CPU in twenty seconds.
    assert_eq!(container["cpu"]["usageNanoCores"], 25_000_000);
    assert!(next["node"]["cpu"]["usageNanoCores"].is_u64());
    for hidden in ["rootfs", "logs"] {
        assert!(container[hidden].is_null(), "{hidden}");
    }
    assert!(next["node"]["fs"].is_null() && next["pods"][0]["volume"].is_null());
}

#[tokio::test]
async fn metrics_have_upstreams_names_and_labels() {
    let (_folder, path) = folder();
    let (_runtime, stats) = scene(&path);
    let text = stats.resource_metrics().await;
    let at = 1_767_225_660_000_i64;
    for line in [
        format!(
            "container_cpu_usage_seconds_total{{container=\"c\",namespace=\"default\",pod=\"p\"}} 1 {at}"
        ),
        format!(
            "container_memory_working_set_bytes{{container=\"c\",namespace=\"default\",pod=\"p\"}} 600 {at}"
        ),
        "container_start_time_seconds{container=\"c\",namespace=\"default\",pod=\"p\"} 1767225605".to_owned(),
        "resource_scrape_error 0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let volumes = stats.volume_metrics().await;
    let labels = "{namespace=\"default\",persistentvolumeclaim=\"data\"}";
    let line = format!("kubelet_volume_stats_health_status_abnormal{labels} 0");
    assert!(volumes.lines().any(|found| found == line), "{line}\n{volumes}");
    let series = volumes.lines().filter(|line| line.contains(labels)).count();
    assert_eq!(series, 7, "one of each\n{volumes}");
    for prefix in [
        "node_cpu_usage_seconds_total ",
        "node_memory_working_set_bytes ",
        "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"p\"} 1 ",
        "pod_memory_working_set_bytes{namespace=\"default\",pod=\"p\"} 600 ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(prefix)), "{prefix}\n{text}");
    }
    let text = stats.cadvisor_metrics().await.unwrap();
    let line = format!(
        "container_cpu_usage_seconds_total{{container=\"c\",cpu=\"total\",id=\"/kubepods/podu/c1\",image=\"i\",\
        name=\"c1\",namespace=\"default\",pod=\"p\"}} 1 {at}"
    );
    assert!(text.lines().any(|found| found == line), "{line}\n{text}");
}

#[tokio::test]
async fn what_cannot_be_sampled_is_a_metric_of_its_own() {
    let (_folder, path) = folder();
    let (_runtime, mut stats) = scene(&path);
    stats.sources.proc = path.join("nothing");
    let text = stats.resource_metrics().await;
    assert!(text.ends_with("resource_scrape_error 1\n"), "{text}");
    assert!(matches!(stats.summary(false).await, Err(Error::Kernel { .. })));
}
