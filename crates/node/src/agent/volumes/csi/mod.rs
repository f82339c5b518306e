//! Volumes of CSI drivers: which calls in which order, and what is remembered on disk to undo them.
//!
//! A driver is behind [`CsiDriver`]: [`driver`] speaks gRPC with it, [`registry`] knows which there are. A volume is staged once for the node and
//! published once for each pod. `vol_data.json` beside a pod's mount says whose it is, as a kubelet writes it, so that
//! a restarted node can undo what it does not remember.

mod data;
mod driver;
mod messages;
pub mod registry;
#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::gvr::{CSI_DRIVERS, VOLUME_ATTACHMENTS};
use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use client::Api;
use client::typed::view;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Secret, Volume};
use k8s_openapi::api::storage::v1::{CSIDriver as DriverObject, CSIDriverSpec, VolumeAttachment};
use parking_lot::Mutex;

pub use data::pods;
use data::{VolumeData, data_path, folders, is_device, read_data, write_data};

use super::layout::{Layout, is_one_name};
use super::plugins::CSI;
use super::{mount, ownership};
use crate::agent::config::{name, namespace, uid};

/// What a driver is told of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsiVolume {
    pub handle: String,
    pub fs_type: String,
    pub mount_flags: Vec<String>,
    /// `ReadWriteOnce`, …: the strongest that the volume has.
    pub access_mode: String,
    pub read_only: bool,
    pub attributes: BTreeMap<String, String>,
    /// What attaching returned.
    pub publish_context: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
    /// A device, and no file system.
    pub block: bool,
    /// The pod's `fsGroup`, for a driver that gives files their group itself.
    pub mount_group: Option<u32>,
}

/// One driver's node service. All calls are idempotent.
#[async_trait]
pub trait CsiDriver: Send + Sync + 'static {
    /// Whether it has `STAGE_UNSTAGE_VOLUME`.
    async fn stages(&self) -> Result<bool, String>;
    /// Whether it has `VOLUME_MOUNT_GROUP`.
    async fn mounts_groups(&self) -> Result<bool, String>;
    async fn stage(&self, volume: &CsiVolume, staging: &Utf8Path) -> Result<(), String>;
    async fn unstage(&self, handle: &str, staging: &Utf8Path) -> Result<(), String>;
    async fn publish(
        &self,
        volume: &CsiVolume,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
    ) -> Result<(), String>;
    async fn unpublish(&self, handle: &str, target: &Utf8Path) -> Result<(), String>;
}

/// The drivers that are registered on this node.
pub trait CsiDrivers: Send + Sync + 'static {
    fn driver(&self, name: &str) -> Option<Arc<dyn CsiDriver>>;
}

/// A node without any.
pub struct NoDrivers;

impl CsiDrivers for NoDrivers {
    fn driver(&self, _name: &str) -> Option<Arc<dyn CsiDriver>> {
        None
    }
}

/// The name of a volume in `status.volumesInUse` and `status.volumesAttached`.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("{CSI}/{driver}^{handle}")
}

fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of the object by which a volume is attached to a node.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", digest(&format!("{handle}{driver}{node}")))
}

/// What of CSI a node does for its pods.
pub struct Csi {
    api: Arc<dyn Api>,
    drivers: Arc<dyn CsiDrivers>,
    layout: Layout,
    node: String,
    /// One stage or unstage of a volume at a time; as many as there are volumes in use.
    stages: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A volume and whose it is.
struct Wanted {
    driver: String,
    /// Of the folder in the pod: the volume's own name, or that in the pod.
    name: String,
    volume: CsiVolume,
    stage_secrets: BTreeMap<String, String>,
    ephemeral: bool,
    /// Only then is `fsGroup` applied by `ReadWriteOnceWithFSType`.
    read_write_once: bool,
}

impl Csi {
    pub fn new(api: Arc<dyn Api>, drivers: Arc<dyn CsiDrivers>, layout: Layout, node: &str) -> Self {
        Self { api, drivers, layout, node: node.to_owned(), stages: Mutex::default() }
    }

    /// Sets up a volume that is bound to a claim of the pod. Returns where it is.
    ///
    /// # Errors
    /// A message.
    pub async fn set_up_persistent(
        &self,
        pod: &Pod,
        bound: &PersistentVolume,
        read_only: bool,
    ) -> Result<Utf8PathBuf, String> {
        let spec = bound.spec.as_ref().ok_or("the volume has no spec")?;
        let source = spec.csi.as_ref().ok_or("the volume is none of CSI")?;
        let block = spec.volume_mode.as_deref() == Some("Block");
        if let Some(target) =
            self.published(pod, bound.metadata.name.as_deref().unwrap_or_default(), block)?
        {
            return Ok(target);
        }
        let secrets = async |reference: &Option<k8s_openapi::api::core::v1::SecretReference>| match reference
        {
            Some(own) => {
                let namespace = own.namespace.as_deref().unwrap_or_default();
                self.secret(namespace, own.name.as_deref().unwrap_or_default()).await
            }
            None => Ok(BTreeMap::new()),
        };
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        let wanted = Wanted {
            driver: source.driver.clone(),
            name: bound.metadata.name.clone().unwrap_or_default(),
            stage_secrets: secrets(&source.node_stage_secret_ref).await?,
            ephemeral: false,
            read_write_once: modes.iter().any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod"),
            volume: CsiVolume {
                handle: source.volume_handle.clone(),
                fs_type: source.fs_type.clone().unwrap_or_default(),
                mount_flags: spec.mount_options.clone().unwrap_or_default(),
                access_mode: modes.first().cloned().unwrap_or_default(),
                read_only: read_only || source.read_only.unwrap_or(false),
                attributes: source.volume_attributes.clone().unwrap_or_default(),
                publish_context: BTreeMap::new(),
                secrets: secrets(&source.node_publish_secret_ref).await?,
                block,
                mount_group: None,
            },
        };
        self.set_up(pod, wanted).await
    }

    /// Sets up a volume that is written into the pod. Returns where it is.
    ///
    /// # Errors
    /// A message.
    pub async fn set_up_inline(&self, pod: &Pod, volume: &Volume) -> Result<Utf8PathBuf, String> {
        let source = volume.csi.as_ref().ok_or("the volume is none of CSI")?;
        if let Some(target) = self.published(pod, &volume.name, false)? {
            return Ok(target);
        }
        let secrets = match &source.node_publish_secret_ref {
            Some(own) => self.secret(namespace(pod), &own.name).await?,
            None => BTreeMap::new(),
        };
        let wanted = Wanted {
            driver: source.driver.clone(),
            name: volume.name.clone(),
            stage_secrets: BTreeMap::new(),
            ephemeral: true,
            read_write_once: true,
            volume: CsiVolume {
                handle: format!("csi-{}", digest(&format!("{}{}", uid(pod), volume.name))),
                fs_type: source.fs_type.clone().unwrap_or_default(),
                access_mode: "ReadWriteOnce".to_owned(),
                read_only: source.read_only.unwrap_or(false),
                attributes: source.volume_attributes.clone().unwrap_or_default(),
                secrets,
                ..CsiVolume::default()
            },
        };
        self.set_up(pod, wanted).await
    }

    async fn set_up(&self, pod: &Pod, mut wanted: Wanted) -> Result<Utf8PathBuf, String> {
        if !is_one_name(&wanted.driver) || !is_one_name(&wanted.name) {
            return Err(format!("driver {:?} or volume {:?} has no proper name", wanted.driver, wanted.name));
        }
        let driver = self.driver(&wanted.driver)?;
        let about = self.about(&wanted.driver).await?;
        if wanted.ephemeral {
            check_ephemeral(&wanted.driver, about.as_ref())?;
        }
        let mut attachment_id = String::new();
        if !wanted.ephemeral && about.as_ref().is_none_or(|own| own.attach_required != Some(false)) {
            attachment_id = attachment_name(&wanted.volume.handle, &wanted.driver, &self.node);
            wanted.volume.publish_context = self.attachment(&attachment_id).await?;
        }
        if about.as_ref().is_some_and(|own| own.pod_info_on_mount == Some(true)) {
            wanted.volume.attributes.extend(pod_info(pod, wanted.ephemeral));
        }
        let policy = about.as_ref().and_then(|own| own.fs_group_policy.as_deref()).unwrap_or_default();
        let group =
            super::setup::group_of(pod).filter(|_| !wanted.volume.block && takes_group(policy, &wanted));
        let driver_sets_group = group.is_some() && driver.mounts_groups().await?;
        wanted.volume.mount_group = group.map(|(group, _)| group).filter(|_| driver_sets_group);
        let staging = if wanted.ephemeral { None } else { self.stage(&*driver, &wanted).await? };
        let (folder, target) = self.places(uid(pod), &wanted.name, wanted.volume.block);
        let data = VolumeData {
            spec_vol_id: wanted.name.clone(),
            volume_handle: wanted.volume.handle.clone(),
            driver_name: wanted.driver.clone(),
            node_name: self.node.clone(),
            volume_lifecycle_mode: if wanted.ephemeral { "Ephemeral" } else { "Persistent" }.to_owned(),
            attachment_id,
        };
        // Before the driver is asked: what is published has to be found again.
        write_data(&folder, &data)?;
        // The target itself is the driver's to make.
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(|error| format!("{parent}: {error}"))?;
        }
        driver.publish(&wanted.volume, staging.as_deref(), &target).await?;
        if let Some((group, change)) = group.filter(|_| !driver_sets_group) {
            let (target, read_only) = (target.clone(), wanted.volume.read_only);
            let apply = move || ownership::apply_by_policy(&target, group, read_only, change);
            let applied = tokio::task::spawn_blocking(apply).await.map_err(|error| error.to_string())?;
            applied
                .map_err(|error| format!("applyFSGroup failed for vol {}: {error}", wanted.volume.handle))?;
        }
        Ok(target)
    }

    /// Where the volume is, if it is there: then nobody has to be asked, and nobody has to be up.
    fn published(&self, pod: &Pod, name: &str, block: bool) -> Result<Option<Utf8PathBuf>, String> {
        let (folder, target) = self.places(uid(pod), name, block);
        let is_there = is_one_name(name)
            && read_data(&folder)?.is_some()
            && if block {
                is_block_device(&target)
            } else {
                mount::is_mount_point(&target).map_err(|error| error.to_string())?
            };
        Ok(is_there.then_some(target))
    }

    /// What is remembered of a pod's volume, and where the driver puts it.
    fn places(&self, uid: &str, name: &str, block: bool) -> (Utf8PathBuf, Utf8PathBuf) {
        if block {
            let folder = self.layout.pod_devices(uid).join(CSI.replace('/', "~")).join(name);
            return (folder, self.layout.device_publish(name, uid));
        }
        let folder = self.layout.volume(uid, CSI, name);
        let target = folder.join("mount");
        (folder, target)
    }

    fn staging(&self, driver: &str, name: &str, handle: &str, block: bool) -> Utf8PathBuf {
        if block { self.layout.device_staging(name) } else { self.layout.staging(driver, &digest(handle)) }
    }

    fn driver(&self, name: &str) -> Result<Arc<dyn CsiDriver>, String> {
        let missing = || {
            format!(
                "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name {name} not found in the list \
                 of registered CSI drivers"
            )
        };
        self.drivers.driver(name).ok_or_else(missing)
    }

    /// What the driver says of itself in the API; nothing, where it has no object.
    async fn about(&self, name: &str) -> Result<Option<CSIDriverSpec>, String> {
        let object = self.api.find(&CSI_DRIVERS, "", name).await.map_err(|status| status.message)?;
        let view = object.map(|object| view::<DriverObject>(&object)).transpose();
        Ok(view.map_err(|status| status.message)?.map(|own| own.spec.clone()))
    }

    async fn attachment(&self, name: &str) -> Result<BTreeMap<String, String>, String> {
        let object = self.api.find(&VOLUME_ATTACHMENTS, "", name).await.map_err(|status| status.message)?;
        let view = object.map(|object| view::<VolumeAttachment>(&object)).transpose();
        let attachment = view.map_err(|status| status.message)?;
        match attachment.as_ref().and_then(|own| own.status.as_ref()) {
            Some(status) if status.attached => Ok(status.attachment_metadata.clone().unwrap_or_default()),
            _ => Err(format!("volume attachment {name} is not attached yet")),
        }
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, String> {
        let object = self.api.get(&api::gvr::SECRETS, namespace, name).await;
        let secret = object.and_then(|object| view::<Secret>(&object));
        let secret = secret
            .map_err(|status| format!("failed to get secret {namespace}/{name}: {}", status.message))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let data = secret.data.iter().flatten();
        Ok(data.map(|(key, value)| (key.clone(), text(&value.0))).collect())
    }

    async fn stage(&self, driver: &dyn CsiDriver, wanted: &Wanted) -> Result<Option<Utf8PathBuf>, String> {
        if !driver.stages().await? {
            return Ok(None);
        }
        let staging = self.staging(&wanted.driver, &wanted.name, &wanted.volume.handle, wanted.volume.block);
        let lock = self.lock(&wanted.volume.handle);
        let _staged = lock.lock().await;
        std::fs::create_dir_all(&staging).map_err(|error| format!("{staging}: {error}"))?;
        let volume = CsiVolume { secrets: wanted.stage_secrets.clone(), ..wanted.volume.clone() };
        driver.stage(&volume, &staging).await?;
        Ok(Some(staging))
    }

    fn lock(&self, handle: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut stages = self.stages.lock();
        stages.retain(|_, lock| Arc::strong_count(lock) > 1);
        stages.entry(handle.to_owned()).or_default().clone()
    }

    /// Undoes all that is on disk of a pod.
    ///
    /// # Errors
    /// A message for each volume that is still there.
    pub async fn tear_down(&self, uid: &str) -> Result<(), Vec<String>> {
        let mut failures = Vec::new();
        for folder in folders(&self.layout, uid) {
            if let Err(why) = self.tear_down_one(uid, &folder).await {
                let name = folder.file_name().unwrap_or_default();
                failures.push(format!("UnmountVolume.TearDown failed for volume {name:?} : {why}"));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    async fn tear_down_one(&self, uid: &str, folder: &Utf8Path) -> Result<(), String> {
        let block = is_device(folder);
        let (_, target) = self.places(uid, folder.file_name().unwrap_or_default(), block);
        if let Some(data) = read_data(folder)? {
            let driver = self.driver(&data.driver_name)?;
            driver.unpublish(&data.volume_handle, &target).await?;
            if mount::is_mount_point(&target).map_err(|error| error.to_string())? {
                return Err(format!("driver {} left {target} mounted", data.driver_name));
            }
            if data.volume_lifecycle_mode == "Persistent" {
                self.unstage(&*driver, &data, uid, block).await?;
            }
        }
        // Only empty folders: whatever is left in them is not ours.
        let remove = |path: &Utf8Path| match std::fs::remove_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{path}: {error}")),
            _ => Ok(()),
        };
        if block {
            // What the device was bound over, where the driver left it.
            let is_file = target.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0);
            if is_file {
                std::fs::remove_file(&target).map_err(|error| format!("{target}: {error}"))?;
            }
            // Others may have theirs there.
            let _ = target.parent().map(std::fs::remove_dir);
        } else {
            remove(&target)?;
        }
        let _ = std::fs::remove_file(data_path(folder));
        remove(folder)
    }

    async fn unstage(
        &self,
        driver: &dyn CsiDriver,
        data: &VolumeData,
        uid: &str,
        block: bool,
    ) -> Result<(), String> {
        let staging = self.staging(&data.driver_name, &data.spec_vol_id, &data.volume_handle, block);
        let lock = self.lock(&data.volume_handle);
        let _staged = lock.lock().await;
        if !staging.exists() || self.is_used_beside(data, uid) {
            return Ok(());
        }
        driver.unstage(&data.volume_handle, &staging).await?;
        if mount::is_mount_point(&staging).map_err(|error| error.to_string())? {
            return Err(format!("driver {} left {staging} mounted", data.driver_name));
        }
        std::fs::remove_dir(&staging).map_err(|error| format!("{staging}: {error}"))
    }

    /// Whether another pod has the volume.
    fn is_used_beside(&self, data: &VolumeData, uid: &str) -> bool {
        let of_others = pods(&self.layout).into_iter().filter(|own| own != uid);
        let mut folders = of_others.flat_map(|other| folders(&self.layout, &other));
        folders.any(|folder| {
            let own = read_data(&folder).ok().flatten();
            own.is_some_and(|own| {
                (own.driver_name.as_str(), own.volume_handle.as_str())
                    == (data.driver_name.as_str(), data.volume_handle.as_str())
            })
        })
    }

    /// Names of attachable volumes that pods have here, for `status.volumesInUse`.
    pub fn in_use(&self) -> Vec<String> {
        let folders = pods(&self.layout).into_iter().flat_map(|uid| folders(&self.layout, &uid));
        let data = folders.filter_map(|folder| read_data(&folder).ok().flatten());
        let attached = data.filter(|data| !data.attachment_id.is_empty());
        let mut names: Vec<String> =
            attached.map(|data| unique_name(&data.driver_name, &data.volume_handle)).collect();
        names.sort();
        names.dedup();
        names
    }
}

fn is_block_device(path: &Utf8Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|meta| meta.file_type().is_block_device())
}

/// A driver has to say that it serves volumes that are written into pods.
fn check_ephemeral(driver: &str, about: Option<&CSIDriverSpec>) -> Result<(), String> {
    let refused = |why: String| {
        format!("kubernetes.io/csi: mounter.SetUpAt failed to check volume lifecycle mode: {why}")
    };
    let mode = r#"volume mode "Ephemeral" not supported by driver"#;
    let Some(about) = about else {
        return Err(refused(format!("{mode} {driver} (no CSIDriver object)")));
    };
    let modes = about.volume_lifecycle_modes.as_deref().unwrap_or_default();
    if modes.iter().any(|own| own == "Ephemeral") {
        return Ok(());
    }
    let modes = if modes.is_empty() { "Persistent".to_owned() } else { modes.join(" ") };
    Err(refused(format!("{mode} {driver} (only supports [{modes}])")))
}

fn takes_group(policy: &str, wanted: &Wanted) -> bool {
    match policy {
        "None" => false,
        "File" => true,
        _ => !wanted.volume.fs_type.is_empty() && wanted.read_write_once,
    }
}

fn pod_info(pod: &Pod, ephemeral: bool) -> BTreeMap<String, String> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    [
        ("csi.storage.k8s.io/pod.name", name(pod).to_owned()),
        ("csi.storage.k8s.io/pod.namespace", namespace(pod).to_owned()),
        ("csi.storage.k8s.io/pod.uid", uid(pod).to_owned()),
        ("csi.storage.k8s.io/serviceAccount.name", account),
        ("csi.storage.k8s.io/ephemeral", ephemeral.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
