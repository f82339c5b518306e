//! What is left of volume plugins inside Kubernetes: names that stand for CSI drivers by now, and `hostPath`, `nfs`.

use api::view::{PersistentVolume, StringMap};
use api::volumes::in_tree::{MIGRATED_TO, plugin};
use api::volumes::{PROVISIONED_BY, STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA};
use apimachinery::{Str, Value};

use super::plan::{Event, Reclaim};

/// Names of this form are plugins of Kubernetes itself, not external provisioners.
const PREFIX: &str = "kubernetes.io/";

const HOST_PATH: &str = "kubernetes.io/host-path";
const NFS: &str = "kubernetes.io/nfs";

fn driver_of(name: &str) -> Option<&'static str> {
    plugin(name).map(|plugin| plugin.driver)
}

/// The external provisioner that serves a class's provisioner, or why none does.
pub(super) fn provisioner(name: &str) -> Result<Str, String> {
    if let Some(driver) = driver_of(name) {
        return Ok(driver.into());
    }
    match name {
        HOST_PATH => {
            Err(format!("Failed to create provisioner: provisioning in volume plugin \"{name}\" is disabled"))
        }
        NFS => Err("no provisionable volume plugin matched".to_owned()),
        name if name.starts_with(PREFIX) => Err(format!("no volume plugin matched name: {name}")),
        name => Ok(name.into()),
    }
}

/// Who deletes a released volume. What lies in a `hostPath` is out of reach, so only the object is deleted, and only
/// where upstream would delete the directory.
pub(super) fn delete(volume: &PersistentVolume) -> Reclaim {
    let fail = |message: String| Reclaim::Fail(Event::warning("VolumeFailedDelete", message));
    let name = &volume.metadata.name;
    match volume.metadata.annotations.get(PROVISIONED_BY).map(Str::as_str) {
        Some(HOST_PATH) => return delete_host_path(volume),
        Some(NFS) => return fail("no deletable volume plugin matched".to_owned()),
        Some(plugin) if plugin.starts_with(PREFIX) => {
            return fail(format!("no volume plugin matched name: {plugin}"));
        }
        Some(external) if !external.is_empty() => return Reclaim::Keep,
        _ => {}
    }
    let spec = &volume.spec;
    if spec.csi.is_some() {
        return Reclaim::Keep;
    }
    if spec.host_path.is_some() {
        return delete_host_path(volume);
    }
    let why =
        if spec.nfs.is_some() { "no deletable volume plugin matched" } else { "no volume plugin matched" };
    fail(format!("error getting deleter volume plugin for volume \"{name}\": {why}"))
}

fn delete_host_path(volume: &PersistentVolume) -> Reclaim {
    let path = volume.spec.host_path.as_ref().map_or("", |source| source.path.as_str());
    if path.strip_prefix("/tmp/").is_some_and(|rest| !rest.is_empty()) {
        return Reclaim::Delete;
    }
    let message = format!("host_path deleter only supports /tmp/.+ but received provided {path}");
    Reclaim::Fail(Event::warning("VolumeFailedDelete", message))
}

/// Brings [`MIGRATED_TO`] of a claim in line with the provisioner it waits for; false when it is.
pub(super) fn migrate_claim(claim: &mut Value) -> bool {
    migrate(claim, &[STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA])
}

/// As [`migrate_claim`], for a volume and who made it.
pub(super) fn migrate_volume(volume: &mut Value) -> bool {
    migrate(volume, &[PROVISIONED_BY])
}

/// Whether there is anything to note or to take back, as far as annotations tell.
pub(super) fn may_migrate(annotations: &StringMap) -> bool {
    let is_plugin = |key: &&str| annotations.get(key).is_some_and(|plugin| driver_of(plugin).is_some());
    annotations.contains_key(MIGRATED_TO)
        || [STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA, PROVISIONED_BY].iter().any(is_plugin)
}

fn migrate(object: &mut Value, provisioner: &[&str]) -> bool {
    let annotation = |key: &str| object.at(&["metadata", "annotations", key]).and_then(Value::as_str);
    let Some(plugin) = provisioner.iter().find_map(|key| annotation(key)) else { return false };
    let present = annotation(MIGRATED_TO).filter(|driver| !driver.is_empty());
    match (driver_of(plugin), present) {
        (wanted, present) if wanted == present => false,
        (Some(driver), _) => {
            object.set_at(&["metadata", "annotations", MIGRATED_TO], driver);
            true
        }
        (None, _) => object.remove_at(&["metadata", "annotations", MIGRATED_TO]).is_some(),
    }
}
