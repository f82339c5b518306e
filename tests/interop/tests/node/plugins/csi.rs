//! A CSI driver: its volumes in real containers, from staging to the end of the last pod.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use grpc::{Code, Router, Status};
use interop::{Checks, Kubectl, eventually};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::messages::Nothing;
use super::messages::csi::{
    Capabilities, Capability, Expand, NodeInfo, Publish, Rpc, Stage, Stats, Undo, Usage,
};
use super::service::{Service, registration};
use crate::pods::{self, PATIENCE, event, shell_with, until, until_ready};
use crate::world::{Cluster, Inputs};

const DRIVER: &str = "csi.pintle.dev";
/// The handle of a volume that is never published.
const HANGS: &str = "hangs";
/// What the driver says of a volume's size.
const TOTAL: i64 = 64 << 20;
/// A node gives a driver two minutes.
const CALL: Duration = Duration::from_secs(150);

/// What the driver was asked.
type Calls = Arc<Mutex<Vec<String>>>;

fn refused(error: impl std::fmt::Display) -> Status {
    Status::new(Code::Internal, error.to_string())
}

fn system(program: &str, arguments: &[&str]) -> Result<(), Status> {
    let status = Command::new(program).args(arguments).status().map_err(refused)?;
    if status.success() { Ok(()) } else { Err(refused(format!("{program} ended with {status}"))) }
}

fn is_mounted(path: &str) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

/// Binds the volume's folder, and writes into it what it was told with it.
fn publish(volumes: &Utf8Path, request: &Publish) -> Result<(), Status> {
    let folder = volumes.join(&request.volume_id);
    fs::create_dir_all(&folder).map_err(refused)?;
    let context = |key: &str| request.volume_context.get(key).cloned().unwrap_or_default();
    let tokens = context("csi.storage.k8s.io/serviceAccount.tokens");
    let tokens: Value = serde_json::from_str(&tokens).unwrap_or_default();
    let told = format!("{}\n", context("csi.storage.k8s.io/pod.name"));
    fs::write(folder.join("told"), told).map_err(refused)?;
    fs::write(folder.join("token"), tokens["vault"]["token"].as_str().unwrap_or_default())
        .map_err(refused)?;
    let target = request.target_path.as_str();
    if is_mounted(target) {
        return Ok(());
    }
    fs::create_dir_all(target).map_err(refused)?;
    system("mount", &["--bind", folder.as_str(), target])
}

fn unpublish(request: &Undo) -> Result<(), Status> {
    if is_mounted(&request.path) {
        system("umount", &[&request.path])?;
    }
    let _ = fs::remove_dir(&request.path);
    Ok(())
}

fn router(volumes: Utf8PathBuf, calls: &Calls) -> Router {
    let note = {
        let calls = calls.clone();
        move |call: String| calls.lock().push(call)
    };
    let [staged, unstaged, published, unpublished, expanded] = [(); 5].map(|()| note.clone());
    let grown = volumes.clone();
    Router::new()
        .unary("/csi.v1.Node/NodeGetInfo", |_: Nothing| async {
            Ok(NodeInfo { node_id: "node-one".to_owned() })
        })
        .unary("/csi.v1.Node/NodeGetCapabilities", |_: Nothing| async {
            let capability = |own| Capability { rpc: Some(Rpc { r#type: own }) };
            Ok(Capabilities { capabilities: [1, 2, 3].map(capability).to_vec() })
        })
        .unary("/csi.v1.Node/NodeStageVolume", move |request: Stage| {
            staged(format!("stage {}", request.volume_id));
            async { Ok(Nothing {}) }
        })
        .unary("/csi.v1.Node/NodeUnstageVolume", move |request: Undo| {
            unstaged(format!("unstage {}", request.volume_id));
            async { Ok(Nothing {}) }
        })
        .unary("/csi.v1.Node/NodePublishVolume", move |request: Publish| {
            published(format!("publish {}", request.volume_id));
            let volumes = volumes.clone();
            async move {
                if request.volume_id == HANGS {
                    std::future::pending::<()>().await;
                }
                publish(&volumes, &request).map(|()| Nothing {})
            }
        })
        .unary("/csi.v1.Node/NodeUnpublishVolume", move |request: Undo| {
            unpublished(format!("unpublish {}", request.volume_id));
            async move { unpublish(&request).map(|()| Nothing {}) }
        })
        .unary("/csi.v1.Node/NodeExpandVolume", move |request: Expand| {
            let bytes = request.capacity_range.unwrap_or_default().required_bytes;
            expanded(format!("expand {} {bytes}", request.volume_id));
            let size = grown.join(&request.volume_id).join("size");
            async move { fs::write(size, format!("{bytes}\n")).map(|()| Nothing {}).map_err(refused) }
        })
        .unary("/csi.v1.Node/NodeGetVolumeStats", |_: Nothing| async {
            let usage = |total, used, unit| Usage { available: total - used, total, used, unit };
            Ok(Stats { usage: vec![usage(TOTAL, 1 << 20, 1), usage(1_000, 7, 2)] })
        })
}

pub struct Driver {
    _service: Service,
    volumes: Utf8PathBuf,
    calls: Calls,
}

impl Driver {
    /// Starts it, with a pod whose volume is never published: that takes a while to be told of.
    pub fn begin(cluster: &Cluster) -> anyhow::Result<Self> {
        let driver = Self::start(cluster)?;
        let about = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER},
            "spec": {"attachRequired": false, "podInfoOnMount": true, "requiresRepublish": true,
                "volumeLifecycleModes": ["Persistent", "Ephemeral"],
                "tokenRequests": [{"audience": "vault", "expirationSeconds": 600}]}});
        let mut objects = vec![about];
        objects.extend(volume(HANGS));
        pods::make(&cluster.kubectl, &objects)?;
        pods::create(&cluster.kubectl, "hanging", pod("true", HANGS))?;
        Ok(driver)
    }

    fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let root = cluster.data().join("node");
        let (own, volumes) = (root.join("plugins").join(DRIVER), cluster.folder.path().join("csi"));
        for folder in [&own, &volumes] {
            fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        }
        let calls = Calls::default();
        let socket = own.join("csi.sock");
        let registered = root.join("plugins_registry").join(format!("{DRIVER}-reg.sock"));
        let info = registration("CSIPlugin", DRIVER, socket.to_string(), "1.0.0");
        let servers = vec![(socket, router(volumes.clone(), &calls)), (registered, info)];
        Ok(Self { _service: Service::start(servers)?, volumes, calls })
    }

    fn was_asked(&self, call: &str) -> anyhow::Result<()> {
        eventually(PATIENCE, || {
            let calls = self.calls.lock();
            ensure!(calls.iter().any(|own| own == call), "no {call:?} in {calls:?}");
            Ok(())
        })
    }
}

fn volume(name: &str) -> [Value; 2] {
    let size = json!({"storage": "1Gi"});
    [
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
            "capacity": size, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "claimRef": {"namespace": "default", "name": name},
            "csi": {"driver": DRIVER, "volumeHandle": name}}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name,
            "resources": {"requests": size}}}),
    ]
}

fn pod(script: &str, claim: &str) -> Value {
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    json!({"containers": [shell_with("c", script, mounts)],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]})
}

pub fn run(inputs: &Inputs, cluster: Cluster, driver: &Driver, checks: &mut Checks) {
    checks.check("a pod writes to a driver's volume, beside one that is never published", || {
        writes(&cluster, driver)
    });
    checks.check("a pod has a driver's volume that is written into it", || inline(&cluster.kubectl));
    checks.check("a volume grows in a running pod", || grows(&cluster, driver));
    checks.check("how full a volume is can be read", || is_measured(&cluster));
    checks.check("a driver publishes again with a token of the pod", || publishes(&cluster.kubectl, driver));
    checks.check("a driver that hangs is an event of its pod", || {
        let what = "MountVolume.SetUp failed for volume \"hangs\" : rpc error: code = DeadlineExceeded desc = context \
                    deadline exceeded";
        eventually(CALL, || event_now(&cluster.kubectl, "hanging", "FailedMount", what))
    });
    checks.check("a node that starts anew looks after a volume, and its driver gets it back", || {
        let cluster = cluster.crash()?.restart(inputs)?;
        comes_back(&cluster, driver)
    });
}

fn event_now(kubectl: &Kubectl, object: &str, reason: &str, message: &str) -> anyhow::Result<()> {
    let about = format!("involvedObject.name={object},reason={reason}");
    let path = "jsonpath={.items[*].message}";
    let events = kubectl.ok(&["get", "events", "--field-selector", &about, "-o", path])?;
    ensure!(events.contains(message), "events with {reason}: {events}");
    Ok(())
}

fn writes(cluster: &Cluster, driver: &Driver) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    eventually(PATIENCE, || {
        let drivers = kubectl.ok(&["get", "csinode", "n1", "-o", "jsonpath={.spec.drivers[*].name}"])?;
        ensure!(drivers.contains(DRIVER), "drivers: {drivers}");
        Ok(())
    })?;
    pods::make(kubectl, &volume("data"))?;
    until(kubectl, "hanging", |pod| pod["spec"]["nodeName"] == "n1")?;
    let script = "cat /v/told; echo kept > /v/file; while true; do [ -f /v/size ] && cat /v/size && break; sleep 0.1; \
                  done; sleep 1000";
    pods::create(kubectl, "writer", pod(script, "data"))?;
    until_ready(kubectl, "writer")?;
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["logs", "writer"])?;
        ensure!(said == "writer\n", "it said {said}");
        ensure!(
            fs::read_to_string(driver.volumes.join("data/file"))? == "kept\n",
            "it is not the driver's folder"
        );
        Ok(())
    })?;
    driver.was_asked("stage data")
}

fn inline(kubectl: &Kubectl) -> anyhow::Result<()> {
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({"containers": [shell_with("c", "cat /v/told; echo 1 > /v/own", mounts)],
        "volumes": [{"name": "v", "csi": {"driver": DRIVER}}]});
    let said = pods::output(kubectl, "inline", spec)?;
    ensure!(said == "inline\n", "it said {said}");
    kubectl.ok(&["label", "pod", "inline", "seen=yes"])?;
    let found = kubectl.json(&["get", "pods", "-l", "seen=yes"])?;
    ensure!(found["items"][0]["spec"]["volumes"][0]["csi"]["driver"] == DRIVER, "{found}");
    kubectl.ok(&["delete", "pod", "inline"]).map(drop)
}

/// So that the node looks at the pod's volumes now, and not within half a minute.
fn nudge(kubectl: &Kubectl, what: &str) -> anyhow::Result<()> {
    kubectl.ok(&["annotate", "pod", "writer", &format!("look={what}"), "--overwrite"]).map(drop)
}

fn grows(cluster: &Cluster, driver: &Driver) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    // What the driver's controller does, once somebody asks for more.
    let pending = json!({"status": {"allocatedResourceStatuses": {"storage": "NodeResizePending"},
        "allocatedResources": {"storage": "2Gi"},
        "conditions": [{"type": "FileSystemResizePending", "status": "True"}]}});
    let grown = json!({"spec": {"capacity": {"storage": "2Gi"}}});
    kubectl.ok(&["patch", "pv", "data", "-p", &grown.to_string()])?;
    kubectl.ok(&[
        "patch",
        "pvc",
        "data",
        "--subresource=status",
        "--type=merge",
        "-p",
        &pending.to_string(),
    ])?;
    nudge(kubectl, "grow")?;
    driver.was_asked(&format!("expand data {}", 2_u64 << 30))?;
    eventually(PATIENCE, || {
        let claim = kubectl.json(&["get", "pvc", "data"])?;
        let status = &claim["status"];
        ensure!(status["capacity"]["storage"] == "2Gi", "{status}");
        ensure!(status["allocatedResourceStatuses"].is_null() && status["conditions"].is_null(), "{status}");
        let said = kubectl.ok(&["logs", "writer"])?;
        ensure!(said == format!("writer\n{}\n", 2_u64 << 30), "it said {said}");
        Ok(())
    })?;
    for about in ["writer", "data"] {
        event(
            kubectl,
            about,
            "FileSystemResizeSuccessful",
            "NodeExpandVolume succeeded for volume \"data\" n1",
        )?;
    }
    Ok(())
}

fn is_measured(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    eventually(PATIENCE, || {
        let summary = kubectl.ok(&["get", "--raw", "/api/v1/nodes/n1/proxy/stats/summary"])?;
        let summary: Value = serde_json::from_str(&summary)?;
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let pod =
            pods.iter().find(|own| own["podRef"]["name"] == "writer").context("the pod is not there")?;
        let volumes = pod["volume"].as_array().cloned().unwrap_or_default();
        let own = volumes.iter().find(|own| own["name"] == "v").context("the volume is not there")?;
        ensure!(own["capacityBytes"] == TOTAL && own["inodesUsed"] == 7, "{own}");
        ensure!(own["pvcRef"] == json!({"name": "data", "namespace": "default"}), "{own}");
        let token =
            volumes.iter().any(|own| own["name"].as_str().is_some_and(|name| name.starts_with("kube-api")));
        ensure!(token, "there is no token among {volumes:?}");
        let metrics = kubectl.ok(&["get", "--raw", "/api/v1/nodes/n1/proxy/metrics"])?;
        let line =
            "kubelet_volume_stats_used_bytes{namespace=\"default\",persistentvolumeclaim=\"data\"} 1048576";
        ensure!(metrics.contains(line), "no {line}");
        Ok(())
    })
}

fn publishes(kubectl: &Kubectl, driver: &Driver) -> anyhow::Result<()> {
    let token = driver.volumes.join("data/token");
    ensure!(fs::read_to_string(&token)?.split('.').count() == 3, "no token came");
    fs::write(&token, "")?;
    nudge(kubectl, "publish")?;
    eventually(PATIENCE, || {
        ensure!(fs::read_to_string(&token)?.split('.').count() == 3, "it was not published again");
        Ok(())
    })
}

fn comes_back(cluster: &Cluster, driver: &Driver) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let pod = until_ready(kubectl, "writer")?;
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", pod["status"]);
    let token = driver.volumes.join("data/token");
    fs::write(&token, "")?;
    eventually(PATIENCE, || {
        nudge(kubectl, "again")?;
        ensure!(fs::read_to_string(&token)?.split('.').count() == 3, "it was not published again");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pod", "writer", "--wait"])?;
    driver.was_asked("unpublish data")?;
    driver.was_asked("unstage data")?;
    ensure!(fs::read_to_string(driver.volumes.join("data/file"))? == "kept\n", "the driver's files are gone");
    kubectl.ok(&["delete", "pod", "hanging", "--wait=false"]).map(drop)
}
