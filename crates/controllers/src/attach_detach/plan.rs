//! What is attached to a node and what should be. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use api::view::{PersistentVolume, Pod};
use apimachinery::{Object, Str, Value, json};
use ring::digest::{SHA256, digest};

/// Set by kubelets that leave attaching to this controller.
pub(super) const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// How long a node that is not ready may keep a volume mounted that no pod needs.
pub(super) const UNMOUNT_MAX: Duration = Duration::from_secs(6 * 60);

/// A volume of a CSI driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    /// Of the PersistentVolume.
    pub name: Str,
    pub driver: Str,
    pub handle: Str,
    /// One node at a time.
    pub exclusive: bool,
}

/// A VolumeAttachment of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub name: Str,
    pub uid: Str,
    /// The volume's name in the node's status; empty when there is no such volume any more.
    pub reported_as: Str,
    pub volume: Str,
    pub attached: bool,
    pub deleting: bool,
    /// What the driver says why it is not attached.
    pub error: Option<Str>,
}

/// What a node says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeState {
    pub exists: bool,
    pub ready: bool,
    pub out_of_service: bool,
    pub in_use: Vec<Str>,
    pub attached: Vec<Str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub attach: Vec<Volume>,
    /// Names of attachments. What a node's status says of them goes first.
    pub detach: Vec<Str>,
    /// `status.volumesAttached`, if it is to be written.
    pub report: Option<Vec<Str>>,
    /// Volumes that became attached.
    pub succeeded: Vec<Str>,
    pub failed: Vec<(Str, Str)>,
    /// Volumes that other nodes have.
    pub taken: Vec<Str>,
    /// Attachments that are wanted no longer and wait for the node to unmount.
    pub unmounting: Vec<Str>,
}

// === impl Volume ===

impl Volume {
    /// `None` when it is no volume of a driver.
    pub fn of(volume: &PersistentVolume) -> Option<Self> {
        let csi = volume.spec.csi.as_ref()?;
        let shared = ["ReadWriteMany", "ReadOnlyMany"];
        let modes = &volume.spec.access_modes;
        Some(Self {
            name: volume.metadata.name.clone(),
            driver: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            exclusive: !modes.is_empty() && !modes.iter().any(|mode| shared.contains(&mode.as_str())),
        })
    }

    /// Its name in the status of nodes.
    pub fn reported_as(&self) -> Str {
        format!("kubernetes.io/csi/{}^{}", self.driver, self.handle).into()
    }

    /// The name of its attachment to a node, which kubelets compute as well.
    pub fn attachment_name(&self, node: &str) -> Str {
        let hash = digest(&SHA256, format!("{}{}{node}", self.handle, self.driver).as_bytes());
        let hex = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        format!("csi-{}", hex.collect::<String>()).into()
    }

    pub fn attachment(&self, node: &str) -> Value {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
            "metadata": {"name": self.attachment_name(node).as_str()},
            "spec": {"attacher": self.driver.as_str(), "nodeName": node,
                "source": {"persistentVolumeName": self.name.as_str()}},
        })
    }
}

// === impl NodeState ===

impl NodeState {
    pub fn of(node: Option<&Object>) -> Self {
        let Some(node) = node else { return Self::default() };
        let ready = node.view::<api::view::Node>().is_ok_and(|node| node.is_ready());
        let tree = node.to_value();
        let taints = tree.array_at(&["spec", "taints"]);
        let names = |list: &[Value], name: fn(&Value) -> &str| -> Vec<Str> {
            list.iter().map(|own| Str::from(name(own))).collect()
        };
        Self {
            exists: true,
            ready,
            out_of_service: taints.iter().any(|taint| taint.str_at(&["key"]) == OUT_OF_SERVICE),
            in_use: names(tree.array_at(&["status", "volumesInUse"]), |own| own.as_str().unwrap_or_default()),
            attached: names(tree.array_at(&["status", "volumesAttached"]), |own| own.str_at(&["name"])),
        }
    }
}

/// Whether a pod still needs its volumes.
pub(super) fn needs_volumes(pod: &Pod) -> bool {
    let stopped = || {
        let mut containers = pod.status.container_statuses.iter();
        containers.all(|own| own.state.terminated.is_some() || own.state.waiting.is_some())
    };
    !(pod.is_terminal() || pod.is_deleting() && stopped())
}

/// `elsewhere` says whether another node has an attachment of a volume; `waited` how long an attachment that nobody
/// wants has been waiting for its node to unmount.
pub(super) fn plan(
    node: &NodeState,
    wanted: &BTreeMap<Str, Volume>,
    attachments: &[Attachment],
    elsewhere: impl Fn(&str) -> bool,
    waited: impl Fn(&str) -> Duration,
) -> Plan {
    let mut plan = Plan::default();
    let mut report = Vec::new();
    for own in attachments {
        let is_wanted = wanted.contains_key(&own.volume);
        if own.attached && !own.deleting && !own.reported_as.is_empty() {
            report.push(own.reported_as.clone());
        }
        match (own.deleting, is_wanted) {
            (true, _) => {}
            (false, true) if own.attached => {
                if !node.attached.contains(&own.reported_as) {
                    plan.succeeded.push(own.volume.clone());
                }
            }
            (false, true) => plan.failed.extend(own.error.clone().map(|error| (own.volume.clone(), error))),
            (false, false) if may_detach(node, own, &waited) => {
                report.retain(|name| *name != own.reported_as);
                plan.detach.push(own.name.clone());
            }
            (false, false) => plan.unmounting.push(own.name.clone()),
        }
    }
    for (name, volume) in wanted {
        if attachments.iter().any(|own| own.volume == *name) {
            continue;
        }
        match volume.exclusive && elsewhere(name) {
            true => plan.taken.push(name.clone()),
            false => plan.attach.push(volume.clone()),
        }
    }
    report.sort();
    let mut told = node.attached.clone();
    told.sort();
    plan.report = (node.exists && told != report).then_some(report);
    plan
}

/// A volume is not taken from under a file system, unless its node cannot be expected to unmount it any more.
fn may_detach(node: &NodeState, own: &Attachment, waited: impl Fn(&str) -> Duration) -> bool {
    let mounted = node.in_use.contains(&own.reported_as);
    !mounted || node.out_of_service || !node.ready && waited(&own.name) >= UNMOUNT_MAX
}

/// Why a volume that other nodes have cannot be attached, for a pod in `namespace`; `users` are the pods there, by
/// namespace and name.
pub(super) fn taken(volume: &str, namespace: &str, users: &[(Str, Str)]) -> String {
    let mut local: Vec<&str> =
        users.iter().filter(|(own, _)| own == namespace).map(|(_, name)| name.as_str()).collect();
    local.sort_unstable();
    let others = users.len() - local.len();
    let why = match (local.as_slice(), others) {
        ([], 0) => {
            "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
        }
        ([], others) => format!("Volume is already used by {others} pod(s) in different namespaces"),
        (local, 0) => format!("Volume is already used by pod(s) {}", local.join(", ")),
        (local, others) => format!(
            "Volume is already used by pod(s) {} and {others} pod(s) in different namespaces",
            local.join(", ")
        ),
    };
    format!("Multi-Attach error for volume \"{volume}\" {why}")
}
