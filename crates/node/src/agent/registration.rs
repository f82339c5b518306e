//! This node's own object: it is made or taken over at the start, and says from then on how the node is.
//!
//! Owns: the `Node`'s labels of its own, its status and its lease. Never touches: taints and labels that others gave
//! it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::amounts::Amounts;
use api::gvr::NODES;
use apimachinery::{Object, Quantity, Status, Value, json, time};
use client::{Patch, WriteOptions};
use runtime::{Abilities, Handler};
use tracing::{debug, info, warn};

use super::eviction::Pressures;
use super::eviction::thresholds::{Pressure, Signal};
use super::machine::Machine;
use super::{NetworkReadiness, Node};
use crate::lease;

/// How often the node looks at itself; it writes what it sees when that is news.
const LOOK: Duration = Duration::from_secs(10);

/// A status that says nothing new is written again after so long.
const REPORT: Duration = Duration::from_secs(300);

/// A server that did not answer is asked again after this.
const RETRY: Duration = Duration::from_secs(1);

/// What a node says of itself that does not come from the machine.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// In addition to the well-known ones.
    pub labels: Vec<(String, String)>,
    /// `key=value:effect`, put on a node that is new.
    pub taints: Vec<Value>,
    pub pods_max: u32,
    pub kubelet_version: String,
    /// `name://version`.
    pub runtime_version: String,
    /// Where the kubelet's API is served.
    pub kubelet_port: u16,
}

/// What the node measures each time it looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    pub disk_capacity: u64,
}

/// A condition, and the words for it.
struct Verdict {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: Cow<'static, str>,
}

/// Makes the node, or takes over the one of its name. Returns when it is there, with its uid.
pub async fn register(node: &Node, machine: &Machine) -> Arc<Object> {
    loop {
        match try_register(node, machine).await {
            Ok(object) => return object,
            Err(status) => {
                warn!(name = %node.identity.name, error = %status, "The node could not be registered");
                rt::sleep(RETRY).await;
            }
        }
    }
}

async fn try_register(node: &Node, machine: &Machine) -> Result<Arc<Object>, Status> {
    let name = node.identity.name.as_str();
    match node.api.get(&NODES, "", name).await {
        Ok(object) => {
            // Labels of its own follow the machine; everything else is somebody else's.
            let labels = labels(&node.identity, machine);
            let patch = Patch::Strategic(json!({"metadata": {"labels": labels}}));
            return node.api.patch(&NODES, "", object.name(), None, patch, &WriteOptions::default()).await;
        }
        Err(status) if status.is_not_found() => {}
        Err(status) => return Err(status),
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels(&node.identity, machine), "annotations": {
            "volumes.kubernetes.io/controller-managed-attach-detach": "true",
        }},
        "spec": {},
    });
    if !node.identity.taints.is_empty() {
        object.set_at(&["spec", "taints"], node.identity.taints.clone());
    }
    let made = node.api.create(&NODES, "", object, &WriteOptions::default()).await?;
    info!(name, "Registered the node");
    Ok(made)
}

/// The node as it will be, for who cannot wait until it is registered.
pub fn sketch(node: &Node) -> Option<Arc<Object>> {
    let tree = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.identity.name.as_str(), "labels": labels(&node.identity, &node.machine)},
        "spec": {},
    });
    Object::from_value(&tree, 0, &[]).ok().map(Arc::new)
}

fn labels(identity: &Identity, machine: &Machine) -> Value {
    let mut labels = json!({
        "beta.kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/hostname": identity.name.as_str(),
        "kubernetes.io/os": "linux",
    });
    for (key, value) in &identity.labels {
        labels.ensure_object().insert(key.as_str(), value.as_str());
    }
    labels
}

/// Says how the node is, for as long as it runs.
pub async fn keep(
    node: Arc<Node>,
    uid: String,
    mut network_ready: tokio::sync::watch::Receiver<NetworkReadiness>,
) {
    let heartbeat = async {
        loop {
            if let Err(status) = lease::renew(&*node.api, &node.identity.name, &uid).await {
                debug!(error = %status, "The node's lease was not renewed");
                rt::sleep(RETRY).await;
                continue;
            }
            rt::sleep(lease::RENEW).await;
        }
    };
    let status = async {
        let mut said: Option<(Value, rt::Instant)> = None;
        let mut pressures = node.pressures.subscribe();
        loop {
            let measured = measure(&node);
            let readiness = network_ready.borrow_and_update().clone();
            pressures.mark_unchanged();
            match report(&node, &measured, &readiness, &mut said).await {
                Ok(()) => tokio::select! {
                    () = rt::sleep(LOOK) => {}
                    // Nobody tells any more once the process ends; that is no news.
                    Ok(()) = network_ready.changed() => {}
                    _ = pressures.changed() => {}
                },
                Err(status) => {
                    warn!(error = %status, "The node's status was not written");
                    rt::sleep(RETRY).await;
                }
            }
        }
    };
    tokio::select! {
        () = heartbeat => {}
        () = status => {}
        () = node.shutdown.cancelled() => {}
    }
}

async fn report(
    node: &Node,
    measured: &Measured,
    network_ready: &NetworkReadiness,
    said: &mut Option<(Value, rt::Instant)>,
) -> Result<(), Status> {
    let images = images(node).await;
    let current = node.api.get(&NODES, "", &node.identity.name).await?;
    *node.object.lock() = Some(current.clone());
    let old = current.to_value();
    let verdicts = verdicts(&node.pressures.borrow(), network_ready);
    let mut status = status(node, measured);
    status.set_at(&["images"], images);
    // What the runtime does not tell is left as it is.
    if let Ok(abilities) = node.runtime.abilities().await {
        status.set_at(&["features"], features(&abilities));
        status.set_at(&["runtimeHandlers"], handlers(&abilities));
    }
    for (resource, count, healthy) in node.devices.counts() {
        status.set_at(&["capacity", &resource], count.to_string());
        status.set_at(&["allocatable", &resource], healthy.to_string());
    }
    let volumes = node.volumes_in_use();
    status.set_at(&["volumesInUse"], volumes);
    let mut news = status.clone();
    news.set_at(
        &["verdicts"],
        verdicts
            .iter()
            .map(|verdict| json!({"status": verdict.status, "message": verdict.message.as_ref()}))
            .collect::<Vec<_>>(),
    );
    let is_old = said.as_ref().is_some_and(|(before, at)| *before == news && at.elapsed() < REPORT);
    if is_old && condition(&old, "Ready").is_some_and(|ready| ready.str_at(&["status"]) != "Unknown") {
        return Ok(());
    }
    let now = time::format_seconds(rt::now());
    let conditions: Vec<Value> = verdicts.iter().map(|verdict| verdict.condition(&old, &now)).collect();
    status.set_at(&["conditions"], conditions);
    let patch = Patch::Strategic(json!({"status": status}));
    node.api.patch(&NODES, "", &node.identity.name, Some("status"), patch, &WriteOptions::default()).await?;
    *said = Some((news, rt::instant()));
    Ok(())
}

/// At most fifty, the largest first, as the kubelet reports them.
async fn images(node: &Node) -> Vec<Value> {
    const IMAGES_MAX: usize = 50;
    const NAMES_MAX: usize = 5;
    let mut images = node.runtime.images().await.unwrap_or_default();
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images
        .iter()
        .take(IMAGES_MAX)
        .map(|image| {
            let names = image.digests.iter().chain(&image.tags).take(NAMES_MAX);
            let names: Vec<Value> = names.map(|name| Value::from(name.as_str())).collect();
            json!({"names": names, "sizeBytes": image.size})
        })
        .collect()
}

fn features(abilities: &Abilities) -> Value {
    json!({"supplementalGroupsPolicy": abilities.supplemental_groups_policy})
}

fn handlers(abilities: &Abilities) -> Value {
    let handler = |own: &Handler| {
        json!({"name": own.name.as_str(), "features": {
            "recursiveReadOnlyMounts": own.recursive_read_only_mounts, "userNamespaces": own.user_namespaces,
        }})
    };
    abilities.handlers.iter().map(handler).collect::<Vec<_>>().into()
}

fn measure(node: &Node) -> Measured {
    let disk = rustix::fs::statvfs(node.root.as_std_path());
    Measured { disk_capacity: disk.map_or(0, |disk| disk.f_blocks * disk.f_frsize) }
}

/// What pods may have of this node together, and how many there may be.
pub fn allocatable(node: &Node) -> Amounts {
    let status = status(node, &measure(node));
    let mut own = Amounts::of(status.get("allocatable"));
    // What others added to the node, such as extended resources.
    let object = node.object.lock().clone();
    let listed = object.map(|object| Amounts::of(object.to_value().at(&["status", "allocatable"])));
    for (name, amount) in listed.iter().flat_map(Amounts::iter) {
        if own.get(name).is_none() {
            own.set(name.clone(), amount);
        }
    }
    // The object says what of devices there was before it was written last.
    for (resource, _, healthy) in node.devices.counts() {
        if let Ok(amount) = Quantity::parse(&healthy.to_string()) {
            own.set(resource.as_str(), amount);
        }
    }
    own
}

fn verdicts(pressures: &Pressures, network_ready: &NetworkReadiness) -> [Verdict; 4] {
    let is = |pressure| pressures.contains(&pressure);
    let pressure = |kind, is, [yes, yes_text, no, no_text]: [&'static str; 4]| Verdict {
        kind,
        status: is,
        reason: if is { yes } else { no },
        message: if is { yes_text } else { no_text }.into(),
    };
    [
        pressure(
            "MemoryPressure",
            is(Pressure::Memory),
            [
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ],
        ),
        pressure(
            "DiskPressure",
            is(Pressure::Disk),
            [
                "KubeletHasDiskPressure",
                "kubelet has disk pressure",
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
            ],
        ),
        pressure(
            "PIDPressure",
            is(Pressure::Pid),
            [
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ],
        ),
        match network_ready {
            Ok(()) => Verdict {
                kind: "Ready",
                status: true,
                reason: "KubeletReady",
                message: "kubelet is posting ready status".into(),
            },
            Err(why) => Verdict {
                kind: "Ready",
                status: false,
                reason: "KubeletNotReady",
                message: why.clone().into(),
            },
        },
    ]
}

impl Verdict {
    fn condition(&self, node: &Value, now: &str) -> Value {
        let status = if self.status { "True" } else { "False" };
        let since = condition(node, self.kind)
            .filter(|before| before.str_at(&["status"]) == status)
            .map_or(now, |before| before.str_at(&["lastTransitionTime"]));
        json!({
            "type": self.kind, "status": status, "reason": self.reason, "message": self.message.as_ref(),
            "lastHeartbeatTime": now, "lastTransitionTime": since,
        })
    }
}

fn condition<'a>(node: &'a Value, kind: &str) -> Option<&'a Value> {
    node.array_at(&["status", "conditions"]).iter().find(|condition| condition.str_at(&["type"]) == kind)
}

/// Everything but conditions and what pods use.
fn status(node: &Node, measured: &Measured) -> Value {
    let Node { identity, machine, eviction, .. } = node;
    let memory = eviction.promised(Signal::MemoryAvailable, machine.memory);
    let disk = eviction.promised(Signal::NodefsAvailable, measured.disk_capacity);
    let mut capacity = json!({
        "cpu": machine.cpus.to_string(),
        "memory": format!("{}Ki", machine.memory >> 10),
        "ephemeral-storage": format!("{}Ki", measured.disk_capacity >> 10),
        "pods": identity.pods_max.to_string(),
    });
    let mut allocatable = capacity.clone();
    allocatable.set_at(&["memory"], format!("{}Ki", memory >> 10));
    allocatable.set_at(&["ephemeral-storage"], disk.to_string());
    for (size, bytes) in &machine.huge_pages {
        let name = match size >> 20 {
            0 => format!("hugepages-{}Ki", size >> 10),
            size if size % 1024 == 0 => format!("hugepages-{}Gi", size >> 10),
            size => format!("hugepages-{size}Mi"),
        };
        let amount = if *bytes == 0 { "0".to_owned() } else { format!("{}Mi", bytes >> 20) };
        capacity.set_at(&[&name], amount.as_str());
        allocatable.set_at(&[&name], amount);
    }
    let mut addresses: Vec<Value> = identity
        .addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address.to_string()}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": identity.name.as_str()}));
    let mut status = json!({
        "addresses": addresses,
        "allocatable": allocatable,
        "capacity": capacity,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": u32::from(identity.kubelet_port)}},
        "nodeInfo": {
            "architecture": machine.architecture,
            "bootID": machine.boot_id.as_str(),
            "containerRuntimeVersion": identity.runtime_version.as_str(),
            "kernelVersion": machine.kernel_version.as_str(),
            "kubeProxyVersion": "",
            "kubeletVersion": identity.kubelet_version.as_str(),
            "machineID": machine.machine_id.as_str(),
            "operatingSystem": "linux",
            "osImage": machine.os_image.as_str(),
            "systemUUID": machine.system_uuid.as_str(),
        },
    });
    if machine.swap > 0 {
        status.set_at(&["nodeInfo", "swap"], json!({"capacity": machine.swap}));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_the_node_is_short_of() {
        let of = |pressures: &[Pressure]| {
            verdicts(&pressures.iter().copied().collect(), &Ok(())).map(|verdict| verdict.status)
        };
        assert_eq!(of(&[]), [false, false, false, true]);
        assert_eq!(of(&[Pressure::Memory]), [true, false, false, true]);
        assert_eq!(of(&[Pressure::Disk, Pressure::Pid]), [false, true, true, true]);
        assert!(!verdicts(&Pressures::new(), &Err("no plugin".to_owned()))[3].status);
    }

    #[test]
    fn the_runtimes_handlers_are_the_nodes() {
        let abilities = Abilities {
            handlers: vec![Handler {
                name: "kata".to_owned(),
                recursive_read_only_mounts: false,
                user_namespaces: true,
            }],
            supplemental_groups_policy: true,
        };
        assert_eq!(features(&abilities), json!({"supplementalGroupsPolicy": true}));
        let features = json!({"recursiveReadOnlyMounts": false, "userNamespaces": true});
        assert_eq!(handlers(&abilities)[0].str_at(&["name"]), "kata");
        assert_eq!(handlers(&abilities)[0]["features"], features);
    }

    #[test]
    fn a_transition_is_dated_when_it_happens() {
        let node = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "then"},
        ]}});
        let [.., ready] = verdicts(&Pressures::new(), &Ok(()));
        assert_eq!(ready.condition(&node, "now").str_at(&["lastTransitionTime"]), "then");
        let [.., unready] = verdicts(&Pressures::new(), &Err("no plugin".to_owned()));
        assert_eq!(unready.condition(&node, "now").str_at(&["lastTransitionTime"]), "now");
    }
}
