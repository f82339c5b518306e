//! Device plugins: devices, variables, mounts and what CDI says of them in real containers.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use camino::Utf8PathBuf;
use futures::StreamExt;
use grpc::{Client, Options, Router, Status};
use interop::{Checks, eventually};
use serde_json::{Value, json};

use super::cdi::CdiFile;
use super::messages::Nothing;
use super::messages::devices::{
    Allocate, Allocated, CdiDevice, Device, DeviceList, DeviceSpec, Mount, OfContainer, Register,
};
use super::service::Service;
use crate::pods::{self, PATIENCE, shell_with, until, until_ready};
use crate::world::Cluster;

const RESOURCE: &str = "plugins.pintle.dev/toy";
const HANGS: &str = "plugins.pintle.dev/hangs";
const OPTIONS: &str = "/v1beta1.DevicePlugin/GetDevicePluginOptions";
const LIST: &str = "/v1beta1.DevicePlugin/ListAndWatch";
const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";
const REGISTER: &str = "/v1beta1.Registration/Register";

fn folder(cluster: &Cluster) -> Utf8PathBuf {
    cluster.data().join("node/device-plugins")
}

/// A plugin with two devices; of a resource that hangs, devices are never given.
fn plugin(cluster: &Cluster, resource: &str) -> anyhow::Result<Service> {
    let hangs = resource == HANGS;
    let shared = cluster.folder.path().join("toys");
    fs::create_dir_all(&shared)?;
    fs::write(shared.join("manual"), "turn it on\n")?;
    let router = Router::new()
        .unary(OPTIONS, |_: Nothing| async { Ok(Nothing {}) })
        .server_streaming(LIST, |_: Nothing| async {
            let device = |id: &str| Device { id: id.to_owned(), health: "Healthy".to_owned() };
            let list = DeviceList { devices: vec![device("a"), device("b")] };
            Ok(futures::stream::iter([Ok(list)]).chain(futures::stream::pending()))
        })
        .unary(ALLOCATE, move |request: Allocate| {
            let shared = shared.clone();
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                let of_container = |ids: &super::messages::devices::Ids| OfContainer {
                    envs: [("TOYS".to_owned(), ids.ids.join(","))].into(),
                    mounts: vec![Mount {
                        container_path: "/toys".into(),
                        host_path: shared.to_string(),
                        read_only: true,
                    }],
                    devices: vec![DeviceSpec {
                        container_path: "/dev/toy".into(),
                        host_path: "/dev/null".into(),
                        permissions: "rw".into(),
                    }],
                    cdi_devices: vec![CdiDevice { name: CdiFile::device() }],
                };
                Ok::<_, Status>(Allocated {
                    containers: request.containers.iter().map(of_container).collect(),
                })
            }
        });
    let name = format!("{}.sock", resource.rsplit('/').next().unwrap_or_default());
    let socket = folder(cluster).join(&name);
    eventually(PATIENCE, || {
        ensure!(folder(cluster).join("kubelet.sock").exists(), "nobody takes registrations");
        Ok(())
    })?;
    let service = Service::start(vec![(socket, router)])?;
    let request = Register { version: "v1beta1".into(), endpoint: name, resource_name: resource.to_owned() };
    let client = Client::unix(folder(cluster).join("kubelet.sock"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = Options::timeout(Duration::from_secs(10));
    let answer = runtime.block_on(client.unary::<_, Nothing>(REGISTER, &request, options));
    answer.map_err(|status| anyhow::anyhow!("registering: {status}"))?;
    Ok(service)
}

fn asks(resource: &str) -> Value {
    json!({"resources": {"limits": {resource: "1"}}})
}

fn allocatable(cluster: &Cluster, resource: &str, wanted: &str) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let node = cluster.kubectl.json(&["get", "node", "n1"])?;
        let found = &node["status"]["allocatable"][resource];
        ensure!(*found == wanted, "{resource}: {found}");
        Ok(())
    })
}

pub fn run(cluster: &Cluster, checks: &mut Checks) {
    let mut toys = None;
    checks.check("a container has its device with all that comes with it", || {
        toys = Some(plugin(cluster, RESOURCE)?);
        given(cluster)
    });
    checks.check("a plugin that starts anew gives its other device", || {
        drop(toys.take());
        allocatable(cluster, RESOURCE, "0")?;
        toys = Some(plugin(cluster, RESOURCE)?);
        allocatable(cluster, RESOURCE, "2")?;
        again(cluster)
    });
    checks.check("a plugin that hangs holds up its own pod alone", || {
        let _hanging = plugin(cluster, HANGS)?;
        allocatable(cluster, HANGS, "2")?;
        hanging(cluster)
    });
}

fn given(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    allocatable(cluster, RESOURCE, "2")?;
    let script = "echo toys $TOYS cdi $CDI; cat /toys/manual; touch /toys/x 2>/dev/null || echo read-only; \
                  echo x > /dev/toy && echo written; head -c 3 /dev/toy-cdi | wc -c; sleep 1000";
    pods::create(kubectl, "player", json!({"containers": [shell_with("c", script, asks(RESOURCE))]}))?;
    until_ready(kubectl, "player")?;
    let wanted = ["toys a cdi yes", "turn it on", "read-only", "written", "3"];
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["logs", "player"])?;
        ensure!(said.lines().collect::<Vec<_>>() == wanted, "it said {said}");
        Ok(())
    })
}

fn again(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    let container = shell_with("c", "echo $TOYS; sleep 1000", asks(RESOURCE));
    pods::create(kubectl, "second", json!({"containers": [container]}))?;
    until_ready(kubectl, "second")?;
    ensure!(kubectl.ok(&["logs", "second"])? == "b\n", "{}", kubectl.ok(&["logs", "second"])?);
    // It was there all the time.
    let first = kubectl.json(&["get", "pod", "player"])?;
    ensure!(first["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", first["status"]);
    // None is left, so a pod that was bound nevertheless is refused.
    let container = shell_with("c", "true", asks(RESOURCE));
    pods::create(kubectl, "third", json!({"nodeName": "n1", "containers": [container]}))?;
    let refused = until(kubectl, "third", |pod| pod["status"]["phase"] == "Failed")?;
    let reason = &refused["status"]["reason"];
    ensure!(
        reason == "UnexpectedAdmissionError" || reason == &format!("OutOf{RESOURCE}"),
        "{}",
        refused["status"]
    );
    kubectl.ok(&["delete", "pod", "player", "second", "third"]).map(drop)
}

fn hanging(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = &cluster.kubectl;
    pods::create(kubectl, "hangs", json!({"containers": [shell_with("c", "true", asks(HANGS))]}))?;
    until(kubectl, "hangs", |pod| pod["spec"]["nodeName"] == "n1")?;
    pods::create(kubectl, "beside", json!({"containers": [shell_with("c", "sleep 1000", asks(RESOURCE))]}))?;
    until_ready(kubectl, "beside")?;
    let pod = kubectl.json(&["get", "pod", "hangs"])?;
    ensure!(pod["status"]["phase"] == "Pending", "{}", pod["status"]);
    kubectl.ok(&["delete", "pod", "hangs", "beside"]).map(drop)
}
