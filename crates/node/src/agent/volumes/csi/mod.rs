//! Volumes of CSI drivers: which calls in which order, and what is remembered on disk to undo them.
//!
//! A driver is behind [`CsiDriver`]: [`driver`] speaks gRPC with it, [`registry`] knows which there are. A volume is
//! staged once for the node and published once for each pod, and again and again where its driver wants that.
//! `vol_data.json` beside a pod's mount says whose it is, as a kubelet writes it, so that a restarted node can undo what
//! it does not remember.

mod context;
mod contract;
mod data;
mod driver;
mod expansion;
mod messages;
pub mod registry;
#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::gvr::{CSI_DRIVERS, VOLUME_ATTACHMENTS};
use camino::{Utf8Path, Utf8PathBuf};
use client::Api;
use client::typed::view;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeSpec, Pod, Secret, SecretReference, Volume,
};
use k8s_openapi::api::storage::v1::{CSIDriver as DriverObject, CSIDriverSpec, VolumeAttachment};
use parking_lot::Mutex;

use context::{add_tokens, check_ephemeral, pod_info, takes_group};
pub use contract::{Abilities, CsiDriver, CsiDrivers, CsiVolume, Measured, NoDrivers, NotExpanded};
pub use data::pods;
use data::{VolumeData, data_path, folders, is_device, read_data, write_data};

use super::layout::{Layout, is_one_name};
use super::plugins::CSI;
use super::tokens::TokenCache;
use super::{mount, ownership};
use crate::agent::config::{namespace, uid};

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
    tokens: Arc<TokenCache>,
    /// Bytes that this node made of volumes, by their unique names; as many as there are volumes in use.
    sizes: Mutex<HashMap<String, i64>>,
    /// One stage or unstage of a volume at a time; as many as there are volumes in use.
    stages: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// How a volume is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asking {
    /// So that it is there: whoever has it is not asked again.
    Once,
    /// So that it is up to date: a driver with `requiresRepublish` publishes it anew.
    Again,
}

/// A volume that a pod has, found again by what is written down of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    uid: String,
    name: String,
    block: bool,
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
    pub fn new(
        api: Arc<dyn Api>,
        drivers: Arc<dyn CsiDrivers>,
        layout: Layout,
        node: &str,
        tokens: Arc<TokenCache>,
    ) -> Self {
        let node = node.to_owned();
        Self { api, drivers, layout, node, tokens, sizes: Mutex::default(), stages: Mutex::default() }
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
        asking: Asking,
    ) -> Result<Utf8PathBuf, String> {
        let spec = bound.spec.as_ref().ok_or("the volume has no spec")?;
        let source = spec.csi.as_ref().ok_or("the volume is none of CSI")?;
        let name = bound.metadata.name.as_deref().unwrap_or_default();
        let volume = volume_of(spec, source, read_only);
        if let Some(target) = self.enough(pod, name, volume.block, (&source.driver, asking)).await? {
            return Ok(target);
        }
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        let wanted = Wanted {
            driver: source.driver.clone(),
            name: name.to_owned(),
            stage_secrets: self.secret_of(source.node_stage_secret_ref.as_ref()).await?,
            ephemeral: false,
            read_write_once: modes.iter().any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod"),
            volume: CsiVolume {
                secrets: self.secret_of(source.node_publish_secret_ref.as_ref()).await?,
                ..volume
            },
        };
        self.set_up(pod, wanted).await
    }

    /// Sets up a volume that is written into the pod. Returns where it is.
    ///
    /// # Errors
    /// A message.
    pub async fn set_up_inline(
        &self,
        pod: &Pod,
        volume: &Volume,
        asking: Asking,
    ) -> Result<Utf8PathBuf, String> {
        let source = volume.csi.as_ref().ok_or("the volume is none of CSI")?;
        if let Some(target) = self.enough(pod, &volume.name, false, (&source.driver, asking)).await? {
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
        let (folder, target) = self.places(uid(pod), &wanted.name, wanted.volume.block);
        let policy = about.as_ref().and_then(|own| own.fs_group_policy.as_deref()).unwrap_or_default();
        let group =
            super::setup::group_of(pod).filter(|_| !wanted.volume.block && takes_group(policy, &wanted));
        let abilities = driver.abilities().await?;
        let driver_sets_group = group.is_some() && abilities.mounts_groups;
        wanted.volume.mount_group = group.map(|(group, _)| group).filter(|_| driver_sets_group);
        let staging = if wanted.ephemeral || !abilities.stages {
            None
        } else {
            let is_there = is_published(&folder, &target, wanted.volume.block)?;
            Some(self.stage(&*driver, &wanted, is_there).await?)
        };
        if let Some(about) = &about {
            // Only publishing hears of them.
            add_tokens(&self.tokens, pod, about, &mut wanted.volume).await?;
        }
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

    /// Where the volume is, if it is there and its driver need not be asked again: then nobody has to be up.
    async fn enough(
        &self,
        pod: &Pod,
        name: &str,
        block: bool,
        (driver, asking): (&str, Asking),
    ) -> Result<Option<Utf8PathBuf>, String> {
        let (folder, target) = self.places(uid(pod), name, block);
        if !is_one_name(name) || !is_published(&folder, &target, block)? {
            return Ok(None);
        }
        let again = asking == Asking::Again
            && self.about(driver).await?.is_some_and(|about| about.requires_republish == Some(true));
        Ok((!again).then_some(target))
    }

    /// By what a volume of a pod can be measured.
    pub fn measuring(&self, pod: &Pod, name: &str, block: bool) -> Published {
        Published { uid: uid(pod).to_owned(), name: name.to_owned(), block }
    }

    /// How full a volume is; nothing, where its driver does not tell.
    ///
    /// # Errors
    /// A message.
    pub async fn measure(&self, published: &Published) -> Result<Option<Measured>, String> {
        let Published { uid, name, block } = published;
        let (folder, target) = self.places(uid, name, *block);
        let Some(data) = read_data(&folder)? else { return Ok(None) };
        let driver = self.driver(&data.driver_name)?;
        let abilities = driver.abilities().await?;
        if !abilities.measures {
            return Ok(None);
        }
        let staging = self.staging(&data.driver_name, name, &data.volume_handle, *block);
        let staging = (abilities.stages && data.volume_lifecycle_mode == "Persistent").then_some(staging);
        driver.measure(&data.volume_handle, staging.as_deref(), &target).await.map(Some)
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

    async fn secret_of(
        &self,
        reference: Option<&SecretReference>,
    ) -> Result<BTreeMap<String, String>, String> {
        let Some(own) = reference else { return Ok(BTreeMap::new()) };
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        self.secret(&text(&own.namespace), &text(&own.name)).await
    }

    /// Where the volume is staged, for the node as a whole; with `is_there`, a pod has it already.
    async fn stage(
        &self,
        driver: &dyn CsiDriver,
        wanted: &Wanted,
        is_there: bool,
    ) -> Result<Utf8PathBuf, String> {
        let staging = self.staging(&wanted.driver, &wanted.name, &wanted.volume.handle, wanted.volume.block);
        if is_there {
            return Ok(staging);
        }
        let lock = self.lock(&wanted.volume.handle);
        let _staged = lock.lock().await;
        std::fs::create_dir_all(&staging).map_err(|error| format!("{staging}: {error}"))?;
        let volume = CsiVolume { secrets: wanted.stage_secrets.clone(), ..wanted.volume.clone() };
        driver.stage(&volume, &staging).await?;
        Ok(staging)
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
        if self.is_used_beside(data, uid) {
            return Ok(());
        }
        self.sizes.lock().remove(&unique_name(&data.driver_name, &data.volume_handle));
        if !staging.exists() {
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

/// What a driver is told of a bound volume, but for secrets and what attaching returned.
fn volume_of(spec: &PersistentVolumeSpec, source: &CSIPersistentVolumeSource, read_only: bool) -> CsiVolume {
    CsiVolume {
        handle: source.volume_handle.clone(),
        fs_type: source.fs_type.clone().unwrap_or_default(),
        mount_flags: spec.mount_options.clone().unwrap_or_default(),
        access_mode: spec.access_modes.iter().flatten().next().cloned().unwrap_or_default(),
        read_only: read_only || source.read_only.unwrap_or(false),
        attributes: source.volume_attributes.clone().unwrap_or_default(),
        block: spec.volume_mode.as_deref() == Some("Block"),
        ..CsiVolume::default()
    }
}

/// Whether a pod has a volume already: it is written down, and it is there.
fn is_published(folder: &Utf8Path, target: &Utf8Path, block: bool) -> Result<bool, String> {
    if read_data(folder)?.is_none() {
        return Ok(false);
    }
    if block {
        Ok(is_block_device(target))
    } else {
        mount::is_mount_point(target).map_err(|error| error.to_string())
    }
}
