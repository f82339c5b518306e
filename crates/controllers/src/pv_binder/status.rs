//! The status of claims and volumes.

use apimachinery::{Quantity, Value};

/// The size before a resize that is under way: what the claim has until the file system has grown, too.
const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// Writes a claim's phase and, of the volume it is bound to, access modes and size; false when nothing changes.
///
/// # Errors
/// The volume says no size.
pub(super) fn write_claim(claim: &mut Value, phase: &str, volume: Option<&Value>) -> Result<bool, String> {
    let before = claim.str_at(&["status", "phase"]).to_owned();
    let mut dirty = before != phase;
    claim.set_at(&["status", "phase"], phase);
    let Some(volume) = volume else {
        for field in ["accessModes", "capacity", "currentVolumeAttributesClassName"] {
            dirty |= claim.remove_at(&["status", field]).is_some();
        }
        return Ok(dirty);
    };
    if claim.array_at(&["status", "accessModes"]) != volume.array_at(&["spec", "accessModes"]) {
        claim.set_at(&["status", "accessModes"], volume["spec"]["accessModes"].clone());
        dirty = true;
    }
    if before != phase {
        write_capacity(claim, volume)?;
    }
    if before == "Pending" && phase == "Bound" {
        let class = volume["spec"]["volumeAttributesClassName"].clone();
        if !class.is_null() {
            claim.set_at(&["status", "currentVolumeAttributesClassName"], class);
        }
    }
    Ok(dirty)
}

fn write_capacity(claim: &mut Value, volume: &Value) -> Result<(), String> {
    let capacity = &volume["spec"]["capacity"];
    let Some(size) = quantity(&capacity["storage"]) else {
        let name = volume.str_at(&["metadata", "name"]);
        return Err(format!("PersistentVolume \"{name}\" is without a storage capacity"));
    };
    if let Some(before) = volume.at(&["metadata", "annotations", PRE_RESIZE_CAPACITY]) {
        let size = if quantity(before).is_some() { before } else { &capacity["storage"] };
        claim.set_at(&["status", "capacity", "storage"], size.clone());
    } else if quantity(&claim["status"]["capacity"]["storage"]) != Some(size) {
        claim.set_at(&["status", "capacity"], capacity.clone());
    }
    Ok(())
}

fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(|text| Quantity::parse(text).ok())
}

/// Writes a volume's phase and the message that belongs to it; false when the phase is that already.
pub(super) fn write_volume(volume: &mut Value, phase: &str, message: &str) -> bool {
    if volume.str_at(&["status", "phase"]) == phase {
        return false;
    }
    volume.set_at(&["status", "phase"], phase);
    if message.is_empty() {
        volume.remove_at(&["status", "message"]);
    } else {
        volume.set_at(&["status", "message"], message);
    }
    true
}
