//! Volumes that grow while pods have them: after the controller made the disk larger, the node makes what is on it
//! larger, and writes into the claim that it did.

use api::gvr::PERSISTENT_VOLUME_CLAIMS;
use apimachinery::{Quantity, Status, Value, json};
use camino::Utf8Path;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use super::contract::{CsiDriver, CsiVolume};
use super::{Csi, unique_name};
use crate::agent::config::uid;

const STORAGE: &str = "storage";

/// `status.allocatedResourceStatuses` of a claim.
const NODE_PENDING: &str = "NodeResizePending";
const NODE_IN_PROGRESS: &str = "NodeResizeInProgress";
const NODE_INFEASIBLE: &str = "NodeResizeInfeasible";

/// Conditions that are about a resize, and end with it.
const CONDITIONS: &[&str] =
    &["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];

/// What a node knows of a volume's sizes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes<'a> {
    /// Of the disk.
    disk: i64,
    /// What the claim says that it has.
    claim: i64,
    /// What this node made of it last.
    here: i64,
    /// How far the resize is, as the claim says.
    status: &'a str,
    read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    None,
    /// Another node wrote the claim already.
    Here,
    /// And the claim has to learn of it; `marks` where resizes are followed in it step by step.
    AndClaim {
        marks: bool,
    },
}

fn growth(sizes: Sizes<'_>) -> Growth {
    if sizes.read_only {
        return Growth::None;
    }
    if sizes.claim >= sizes.disk {
        return if sizes.here < sizes.disk { Growth::Here } else { Growth::None };
    }
    match sizes.status {
        "" => Growth::AndClaim { marks: false },
        NODE_PENDING | NODE_IN_PROGRESS => Growth::AndClaim { marks: true },
        // The controller is not done, or nobody can.
        _ => Growth::None,
    }
}

fn bytes(quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> i64 {
    quantity.and_then(|own| Quantity::parse(&own.0).ok()).map_or(0, |own| own.value())
}

impl Csi {
    /// Lets a published volume grow to its disk's size, where it is smaller. Returns whether it grew.
    ///
    /// # Errors
    /// Upstream's message of why it did not.
    pub async fn expand(
        &self,
        pod: &Pod,
        bound: &PersistentVolume,
        claim: &PersistentVolumeClaim,
        read_only: bool,
    ) -> Result<bool, String> {
        let Some((spec, source)) = bound.spec.as_ref().and_then(|spec| Some((spec, spec.csi.as_ref()?)))
        else {
            return Ok(false);
        };
        let status = claim.status.as_ref();
        let key = unique_name(&source.driver, &source.volume_handle);
        let of_claim = bytes(status.and_then(|own| own.capacity.as_ref()?.get(STORAGE)));
        let here = *self.sizes.lock().entry(key.clone()).or_insert(of_claim);
        let disk = bytes(spec.capacity.as_ref().and_then(|own| own.get(STORAGE)));
        let sizes = Sizes {
            disk,
            claim: of_claim,
            here,
            status: status
                .and_then(|own| own.allocated_resource_statuses.as_ref()?.get(STORAGE))
                .map_or("", String::as_str),
            read_only: read_only || source.read_only == Some(true),
        };
        let growth = growth(sizes);
        if growth == Growth::None {
            return Ok(false);
        }
        let driver = self.driver(&source.driver)?;
        let abilities = driver.abilities().await?;
        if !abilities.expands {
            tracing::debug!(driver = source.driver, "A driver does not expand volumes on nodes");
            return Ok(false);
        }
        if growth == (Growth::AndClaim { marks: true }) {
            let mark = |tree: &mut Value| set_status(tree, Some(NODE_IN_PROGRESS));
            self.edit_claim(claim, mark).await?;
        }
        let volume = CsiVolume {
            secrets: self.secret_of(source.node_expand_secret_ref.as_ref()).await?,
            ..super::volume_of(spec, source, read_only)
        };
        let block = volume.block;
        let (_, target) = self.places(uid(pod), bound.metadata.name.as_deref().unwrap_or_default(), block);
        let name = bound.metadata.name.as_deref().unwrap_or_default();
        let staging = self.staging(&source.driver, name, &source.volume_handle, block);
        let staging = abilities.stages.then_some(staging);
        self.grow(&*driver, &volume, staging.as_deref(), &target, disk, (claim, growth)).await?;
        self.sizes.lock().insert(key, disk);
        if matches!(growth, Growth::AndClaim { .. }) {
            let size = spec.capacity.as_ref().and_then(|own| own.get(STORAGE)).map(|own| own.0.clone());
            let size = size.unwrap_or_default();
            self.edit_claim(claim, |tree| finish(tree, &size)).await?;
        }
        Ok(true)
    }

    async fn grow(
        &self,
        driver: &dyn CsiDriver,
        volume: &CsiVolume,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
        bytes: i64,
        (claim, growth): (&PersistentVolumeClaim, Growth),
    ) -> Result<(), String> {
        let Err(failure) = driver.expand(volume, staging, target, bytes).await else { return Ok(()) };
        let message = format!("Expander.NodeExpand failed to expand the volume : {failure}");
        if failure.is_final && growth == (Growth::AndClaim { marks: true }) {
            // Nobody tries again until the claim asks for another size.
            self.edit_claim(claim, |tree| give_up(tree, &message)).await?;
        }
        Err(message)
    }

    async fn edit_claim(
        &self,
        claim: &PersistentVolumeClaim,
        change: impl FnMut(&mut Value) -> bool + Send,
    ) -> Result<(), String> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let failed =
            |status: Status| format!("failed to patch status of PVC {namespace}/{name}: {}", status.message);
        let edited = self.api.edit(&PERSISTENT_VOLUME_CLAIMS, namespace, name, Some("status"), change).await;
        edited.map(drop).map_err(failed)
    }
}

/// Writes how far the resize is, or that there is none. Returns whether that is news.
fn set_status(tree: &mut Value, status: Option<&str>) -> bool {
    let path = ["status", "allocatedResourceStatuses", STORAGE];
    if tree.at(&path).and_then(Value::as_str) == status {
        return false;
    }
    match status {
        Some(status) => tree.set_at(&path, status),
        None => {
            tree.remove_at(&path);
            let rest = tree.at(&path[..2]).and_then(Value::as_object);
            if rest.is_none_or(|own| own.is_empty()) {
                tree.remove_at(&path[..2]);
            }
        }
    }
    true
}

fn without_conditions(tree: &Value) -> Vec<Value> {
    let all = tree.array_at(&["status", "conditions"]).iter();
    all.filter(|own| !CONDITIONS.contains(&own.str_at(&["type"]))).cloned().collect()
}

fn set_conditions(tree: &mut Value, conditions: Vec<Value>) {
    if conditions.is_empty() {
        tree.remove_at(&["status", "conditions"]);
    } else {
        tree.set_at(&["status", "conditions"], conditions);
    }
}

fn finish(tree: &mut Value, size: &str) -> bool {
    let before = tree.clone();
    tree.set_at(&["status", "capacity", STORAGE], size);
    set_status(tree, None);
    let rest = without_conditions(tree);
    set_conditions(tree, rest);
    *tree != before
}

fn give_up(tree: &mut Value, message: &str) -> bool {
    let before = tree.clone();
    set_status(tree, Some(NODE_INFEASIBLE));
    let mut conditions = without_conditions(tree);
    conditions.push(json!({"type": "NodeResizeError", "status": "True", "message": message,
        "lastTransitionTime": apimachinery::time::format_seconds(rt::now())}));
    set_conditions(tree, conditions);
    *tree != before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_grows_once_its_disk_did_and_nobody_forbids_it() {
        let sizes = |disk, claim, here, status| Sizes { disk, claim, here, status, read_only: false };
        for (what, given, wanted) in [
            ("the same", sizes(2, 2, 2, ""), Growth::None),
            ("smaller", sizes(1, 2, 2, ""), Growth::None),
            ("grown, without steps", sizes(3, 2, 2, ""), Growth::AndClaim { marks: false }),
            ("grown", sizes(3, 2, 2, NODE_PENDING), Growth::AndClaim { marks: true }),
            ("begun before", sizes(3, 2, 2, NODE_IN_PROGRESS), Growth::AndClaim { marks: true }),
            ("not to be had", sizes(3, 2, 2, NODE_INFEASIBLE), Growth::None),
            ("not done", sizes(3, 2, 2, "ControllerResizeInProgress"), Growth::None),
            ("grown on another node", sizes(3, 3, 2, ""), Growth::Here),
            ("read-only", Sizes { read_only: true, ..sizes(3, 2, 2, NODE_PENDING) }, Growth::None),
        ] {
            assert_eq!(growth(given), wanted, "{what}");
        }
    }

    #[test]
    fn a_claim_says_how_far_its_resize_is() {
        let pending = json!({"type": "FileSystemResizePending", "status": "True"});
        let other = json!({"type": "Other", "status": "True"});
        let mut claim = json!({"status": {"capacity": {"storage": "1Gi"}, "conditions": [pending, other.clone()],
            "allocatedResourceStatuses": {"storage": NODE_PENDING}}});
        assert!(set_status(&mut claim, Some(NODE_IN_PROGRESS)));
        assert!(!set_status(&mut claim, Some(NODE_IN_PROGRESS)), "no news");
        let mut refused = claim.clone();
        assert!(finish(&mut claim, "2Gi"));
        assert_eq!(claim, json!({"status": {"capacity": {"storage": "2Gi"}, "conditions": [other]}}));
        assert!(!finish(&mut claim, "2Gi"), "no news");
        assert!(give_up(&mut refused, "too large"));
        assert_eq!(refused.str_at(&["status", "allocatedResourceStatuses", "storage"]), NODE_INFEASIBLE);
        let types: Vec<&str> =
            refused.array_at(&["status", "conditions"]).iter().map(|own| own.str_at(&["type"])).collect();
        assert_eq!(types, ["Other", "NodeResizeError"]);
    }
}
