//! What is remembered on disk of CSI volumes, as a kubelet writes it.

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::agent::volumes::layout::{DEVICES, Layout};
use crate::agent::volumes::plugins::CSI;

/// `vol_data.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeData {
    #[serde(rename = "specVolID")]
    pub spec_vol_id: String,
    pub volume_handle: String,
    pub driver_name: String,
    pub node_name: String,
    /// `Persistent` or `Ephemeral`.
    pub volume_lifecycle_mode: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attachment_id: String,
}

/// Pods that have something on disk.
pub fn pods(layout: &Layout) -> Vec<String> {
    names_in(&layout.pods())
}

fn names_in(folder: &Utf8Path) -> Vec<String> {
    let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|own| own.is_dir()));
    folders.map(|entry| entry.file_name().to_owned()).collect()
}

pub fn folders(layout: &Layout, uid: &str) -> Vec<Utf8PathBuf> {
    let plugin = CSI.replace('/', "~");
    let roots = [layout.pod_volumes(uid), layout.pod_devices(uid)].map(|root| root.join(&plugin));
    roots.iter().flat_map(|root| names_in(root).into_iter().map(|name| root.join(name))).collect()
}

/// Whether a folder is that of a block device.
pub fn is_device(folder: &Utf8Path) -> bool {
    folder.parent().and_then(Utf8Path::parent).and_then(Utf8Path::file_name) == Some(DEVICES)
}

pub fn data_path(folder: &Utf8Path) -> Utf8PathBuf {
    folder.join("vol_data.json")
}

pub fn write_data(folder: &Utf8Path, data: &VolumeData) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let next = folder.join("vol_data.json.next");
        std::fs::write(&next, serde_json::to_vec(data)?)?;
        std::fs::rename(next, data_path(folder))
    };
    write().map_err(|error| format!("writing {}: {error}", data_path(folder)))
}

pub fn read_data(folder: &Utf8Path) -> Result<Option<VolumeData>, String> {
    match std::fs::read(data_path(folder)) {
        Ok(bytes) => {
            let data = serde_json::from_slice(&bytes);
            data.map(Some).map_err(|error| format!("reading {}: {error}", data_path(folder)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("reading {}: {error}", data_path(folder))),
    }
}
