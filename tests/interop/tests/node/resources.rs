//! What pods may have of a node, and what a node does that is short of something.

use anyhow::ensure;
use interop::{Checks, eventually};
use serde_json::json;

use crate::pods::{self, IMAGE, PATIENCE, event, shell, shell_with, until, until_ended, until_ready};
use crate::world::{self, Cluster, Inputs};

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    // Nobody has so much disk left.
    let full = ["--eviction-hard", "nodefs.available<99.9%", "--eviction-pressure-transition-period", "1s"];
    let start = |flags: &[&str]| {
        let cluster = Cluster::start_with(inputs, flags)?;
        pods::build_image(inputs, &cluster, &busybox)?;
        anyhow::Ok(cluster)
    };
    match start(&[]) {
        Ok(cluster) => {
            checks.check("a container beyond its memory is OOMKilled", || out_of_memory(&cluster));
            checks.check("an emptyDir beyond its limit evicts its pod", || full_volume(&cluster));
            checks.check("a pod that was bound without room fails", || no_room(&cluster));
        }
        Err(error) => checks.check("a cluster starts", || Err(error)),
    }
    match start(&full) {
        Ok(cluster) => {
            checks.check("a node with a full disk says so and is tainted", || full_disk(&cluster));
            checks.check("unused images go from a full disk", || images_go(inputs, &cluster));
            checks.check("a pod that is bound to a full node is refused", || refused(&cluster));
        }
        Err(error) => checks.check("a cluster on a full disk starts", || Err(error)),
    }
}

fn out_of_memory(cluster: &Cluster) -> anyhow::Result<()> {
    let limits = json!({"resources": {"limits": {"memory": "16Mi"}}});
    let container = shell_with("c", "x=$(head -c 100m /dev/zero | tr '\\0' x); echo ${#x}", limits);
    pods::create(&cluster.kubectl, "greedy", json!({"containers": [container]}))?;
    let ended = until_ended(&cluster.kubectl, "greedy")?;
    ensure!(ended["reason"] == "OOMKilled" && ended["exitCode"] == 137, "{ended}");
    Ok(())
}

fn full_volume(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({
        "containers": [shell_with("c", "head -c 3m /dev/zero > /v/file; sleep 1000", mounts)],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
    });
    pods::create(kubectl, "hoarder", spec)?;
    let pod = until(kubectl, "hoarder", |pod| pod["status"]["reason"] == "Evicted")?;
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    ensure!(pod["status"]["phase"] == "Failed" && pod["status"]["message"] == message, "{}", pod["status"]);
    event(kubectl, "hoarder", "Evicted", message.trim_end())
}

fn no_room(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let asks = json!({"resources": {"requests": {"cpu": "10k"}}});
    pods::create(kubectl, "giant", json!({"nodeName": "n1", "containers": [shell_with("c", "true", asks)]}))?;
    let pod = until(kubectl, "giant", |pod| pod["status"]["reason"] == "OutOfcpu")?;
    ensure!(pod["status"]["phase"] == "Failed", "{}", pod["status"]);
    pods::create(kubectl, "dwarf", json!({"nodeName": "n1", "containers": [shell("c", "sleep 1000")]}))?;
    until_ready(kubectl, "dwarf").map(drop)
}

fn full_disk(cluster: &Cluster) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let node = cluster.kubectl.json(&["get", "node", "n1"])?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_full = conditions.iter().any(|own| {
            own["type"] == "DiskPressure"
                && own["status"] == "True"
                && own["reason"] == "KubeletHasDiskPressure"
        });
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let is_tainted = taints.iter().any(|own| own["key"] == "node.kubernetes.io/disk-pressure");
        ensure!(is_full && is_tainted, "conditions {conditions:?}, taints {taints:?}");
        Ok(())
    })
}

fn images_go(inputs: &Inputs, cluster: &Cluster) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let data = cluster.data();
        let images = world::run(inputs.binary.as_str(), &["image", "ls", "--data-dir", data.as_str()])?;
        let (repository, _) = IMAGE.rsplit_once(':').expect("it has a tag");
        ensure!(!images.contains(repository), "{images}");
        Ok(())
    })
}

fn refused(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    pods::create(kubectl, "late", json!({"nodeName": "n1", "containers": [shell("c", "true")]}))?;
    let pod = until(kubectl, "late", |pod| pod["status"]["reason"] == "Evicted")?;
    let message = "Pod was rejected: The node had condition: [DiskPressure]. ";
    ensure!(pod["status"]["message"] == message, "{}", pod["status"]);
    Ok(())
}
