//! How each kind of volume is set up. Every one can be set up again, and is then as it was.

use std::time::Duration;

use apimachinery::{GroupVersionResource, Value};
use camino::{Utf8Path, Utf8PathBuf};
use client::ListOptions;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, NFSVolumeSource, PersistentVolume, Pod, ProjectedVolumeSource, Volume,
};
use rt::Instant;

use super::atomic::{self, Payload};
use super::csi::Asking;
use super::layout::is_one_name;
use super::ownership::{self, ChangePolicy};
use super::payload::{self, MODE_DEFAULT};
use super::plugins::{Kind, LOCAL, NFS, Plugin, plugin};
use super::usage::Measure;
use super::{MountedVolume, Source, VolumeManager, claims, empty_dir, host_path, manager, memory, mount};
use crate::agent::config::objects::Objects;
use crate::agent::config::{resources, uid};

/// Not served by default; a projection of it asks for it on each round.
const CLUSTER_TRUST_BUNDLES: &str = "clustertrustbundles";

/// Bundles are not watched; a volume that shows some is looked at again after this.
const BUNDLES_AGAIN: Duration = Duration::from_secs(600);

/// Volumes of CSI drivers are looked at again after this: they may have grown, and some drivers want to publish them
/// again and again. A kubelet does it with each pod as often.
const CSI_AGAIN: Duration = Duration::from_secs(30);

/// Bytes that a program may say when it cannot mount.
const MOUNT_OUTPUT_MAX: usize = 1_024;

/// Which step of upstream's a failure belongs to, for the words of its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// `MountVolume.SetUp failed for volume …`, by the volume's own name.
    SetUp { volume: String, why: String },
    /// It is there, and did not grow: `MountVolume.Setup failed while expanding volume`, or, in use,
    /// `NodeExpandVolume.NodeExpandVolume failed`.
    Expansion { volume: String, why: String, in_use: bool },
    /// It could not even be tried.
    Processing(String),
}

/// What came of one volume.
pub(super) struct Done {
    pub volume: MountedVolume,
    /// When it has to be looked at again, though nothing changed.
    pub again_at: Option<Instant>,
    /// How to find out how full it is.
    pub measure: Measure,
}

impl Done {
    fn at(path: Utf8PathBuf, read_only: bool, measure: impl FnOnce(Utf8PathBuf) -> Measure) -> Self {
        let measure = measure(path.clone());
        let volume = MountedVolume { source: Source::Path(path), read_only, group: None };
        Self { volume, again_at: None, measure }
    }

    /// A driver's.
    fn of_csi(self) -> Self {
        Self { again_at: Some(rt::instant() + rt::jittered(CSI_AGAIN, 0.2)), ..self }
    }
}

/// Nobody knows how full it is, or it is not worth asking.
fn unmeasured(_: Utf8PathBuf) -> Measure {
    Measure::None
}

/// The group that a pod's volumes are given to, and how eagerly.
pub(super) fn group_of(pod: &Pod) -> Option<(u32, ChangePolicy)> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    let group = u32::try_from(context.fs_group?).ok()?;
    Some((group, ChangePolicy::of(context.fs_group_change_policy.as_deref())))
}

/// Runs what waits for the disk where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

impl VolumeManager {
    /// Sets up one volume of a pod.
    pub(super) async fn set_up(
        &self,
        pod: &Pod,
        volume: &Volume,
        objects: &Objects,
        asking: Asking,
    ) -> Result<Done, Failure> {
        let Some(plugin) = plugin(volume) else { return Err(no_plugin(&volume.name)) };
        let failed = |why: String| Failure::SetUp { volume: volume.name.clone(), why };
        if !is_one_name(&volume.name) || !is_one_name(uid(pod)) {
            return Err(failed("its name or its pod's uid is no proper name".to_owned()));
        }
        let folder = self.layout.volume(uid(pod), plugin.name, &volume.name);
        match plugin.kind {
            Kind::EmptyDir => self.empty_dir(pod, volume, folder).await.map_err(failed),
            Kind::HostPath => {
                let source = volume.host_path.clone().unwrap_or_default();
                let path = blocking(move || host_path::set_up(&source)).await.map_err(failed)?;
                Ok(Done::at(path, false, unmeasured))
            }
            Kind::ConfigMap | Kind::Secret | Kind::DownwardApi | Kind::Projected => {
                self.data(pod, volume, plugin, folder, objects).await.map_err(failed)
            }
            Kind::Claim => self.claim(pod, volume, asking).await,
            Kind::Nfs => {
                let source = volume.nfs.clone().unwrap_or_default();
                let read_only = source.read_only.unwrap_or(false);
                let path = nfs(source, Vec::new(), folder).await.map_err(failed)?;
                Ok(Done::at(path, read_only, Measure::Filesystem))
            }
            Kind::Csi => {
                let read_only = volume.csi.as_ref().and_then(|own| own.read_only).unwrap_or(false);
                let path = self.csi.set_up_inline(pod, volume, asking).await.map_err(failed)?;
                let measure = |_| Measure::Driver(self.csi.measuring(pod, &volume.name, false));
                Ok(Done::at(path, read_only, measure).of_csi())
            }
            Kind::Image => {
                let source = volume.image.clone().unwrap_or_default();
                let source = Source::Image {
                    reference: source.reference.unwrap_or_default(),
                    pull_policy: source.pull_policy.unwrap_or_default(),
                    id: None,
                };
                let volume = MountedVolume { source, read_only: true, group: None };
                Ok(Done { volume, again_at: None, measure: Measure::None })
            }
            Kind::Unsupported => Err(no_plugin(&volume.name)),
        }
    }

    async fn empty_dir(&self, pod: &Pod, volume: &Volume, folder: Utf8PathBuf) -> Result<Done, String> {
        let source = volume.empty_dir.clone().unwrap_or_default();
        let allocatable = self.options.allocatable.get("memory").map_or(0, |own| own.value());
        let medium = empty_dir::medium(&source, pod, allocatable, resources::memory_limit(pod))?;
        let group = group_of(pod).map(|(group, _)| group);
        let path = folder.clone();
        blocking(move || empty_dir::set_up(&folder, &medium, group).map_err(|error| error.to_string()))
            .await?;
        Ok(Done::at(path, false, Measure::Files))
    }

    async fn data(
        &self,
        pod: &Pod,
        volume: &Volume,
        plugin: &Plugin,
        folder: Utf8PathBuf,
        objects: &Objects,
    ) -> Result<Done, String> {
        let mut again_at = None;
        let payload = match plugin.kind {
            Kind::ConfigMap => {
                let source = volume.config_map.clone().unwrap_or_default();
                let optional = source.optional.unwrap_or(false);
                let map = objects.config_map(&source.name, optional)?;
                let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
                payload::of_config_map(map, source.items.as_deref().unwrap_or_default(), mode, optional)?
            }
            Kind::Secret => {
                let source = volume.secret.clone().unwrap_or_default();
                let optional = source.optional.unwrap_or(false);
                let secret = objects.secret(source.secret_name.as_deref().unwrap_or_default(), optional)?;
                let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
                payload::of_secret(secret, source.items.as_deref().unwrap_or_default(), mode, optional)?
            }
            Kind::DownwardApi => {
                let source = volume.downward_api.clone().unwrap_or_default();
                let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
                let items = source.items.as_deref().unwrap_or_default();
                payload::of_downward_api(pod, items, mode, &self.options.allocatable)?
            }
            _ => {
                let source = volume.projected.clone().unwrap_or_default();
                let (payload, again) = self.projected(pod, &source, objects).await?;
                again_at = again;
                payload
            }
        };
        let group = group_of(pod).map(|(group, _)| group);
        let path = folder.clone();
        let is_in_memory = plugin.kind.is_secret() && self.options.secrets_in_memory;
        let write = move || {
            if is_in_memory {
                memory::set_up(&folder)?;
            }
            atomic::write(&folder, &payload, group)
        };
        blocking(move || write().map_err(|error: std::io::Error| error.to_string())).await?;
        Ok(Done { again_at, ..Done::at(path, true, Measure::Files) })
    }

    async fn projected(
        &self,
        pod: &Pod,
        source: &ProjectedVolumeSource,
        objects: &Objects,
    ) -> Result<(Payload, Option<Instant>), String> {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let (mut payload, mut again_at) = (Payload::new(), None);
        let mut look_again = |after: Duration| {
            let at = rt::instant() + after;
            again_at = Some(again_at.map_or(at, |own: Instant| own.min(at)));
        };
        for own in source.sources.iter().flatten() {
            if let Some(own) = &own.config_map {
                let optional = own.optional.unwrap_or(false);
                let map = objects.config_map(&own.name, optional)?;
                let items = own.items.as_deref().unwrap_or_default();
                payload.extend(payload::of_config_map(map, items, mode, optional)?);
            }
            if let Some(own) = &own.secret {
                let optional = own.optional.unwrap_or(false);
                let secret = objects.secret(&own.name, optional)?;
                let items = own.items.as_deref().unwrap_or_default();
                payload.extend(payload::of_secret(secret, items, mode, optional)?);
            }
            if let Some(own) = &own.downward_api {
                let items = own.items.as_deref().unwrap_or_default();
                payload.extend(payload::of_downward_api(pod, items, mode, &self.options.allocatable)?);
            }
            if let Some(own) = &own.service_account_token {
                let token = self.tokens.token(pod, own).await?;
                let user = payload::common_user(pod);
                // Who runs as somebody, or reads by a group, needs no right of others.
                let mode = if user.is_some() || group_of(pod).is_some() { 0o600 } else { mode };
                let mut file = payload::file(token.text.into_bytes(), mode);
                file.user = user;
                payload.insert(own.path.clone(), file);
                let rest = token.refresh_at.duration_since(rt::now());
                look_again(Duration::try_from(rest).unwrap_or_default());
            }
            if let Some(own) = &own.cluster_trust_bundle {
                let text = self.trust_bundles(own).await?;
                payload.insert(own.path.clone(), payload::file(text.into_bytes(), mode));
                look_again(BUNDLES_AGAIN);
            }
            if own.pod_certificate.is_some() {
                return Err("podCertificate projections are not supported by this node".to_owned());
            }
        }
        Ok((payload, again_at))
    }

    async fn trust_bundles(&self, own: &ClusterTrustBundleProjection) -> Result<String, String> {
        let gvr = GroupVersionResource::new("certificates.k8s.io", "v1beta1", CLUSTER_TRUST_BUNDLES);
        let optional = own.optional.unwrap_or(false);
        let name = own.name.as_deref().unwrap_or_default();
        let bundles = if name.is_empty() {
            let signer = own.signer_name.as_deref().unwrap_or_default();
            let Some(selector) = &own.label_selector else { return Ok(String::new()) };
            let selector = apimachinery::value::to_value(selector).map_err(|error| error.to_string())?;
            let selector =
                apimachinery::Selector::from_value(&selector).map_err(|error| error.to_string())?;
            let options =
                ListOptions { field_selector: format!("spec.signerName={signer}"), ..ListOptions::default() };
            let list = self.api.list(&gvr, "", &options).await.map_err(|status| status.message)?;
            let mut items = list.items;
            items.retain(|object| selector.matches_object(object));
            if items.is_empty() && !optional {
                let why = format!("no ClusterTrustBundle of signer {signer:?} matches the label selector");
                return Err(format!(
                    "combination of signerName and labelSelector matched zero ClusterTrustBundles: {why}"
                ));
            }
            items
        } else {
            match self.api.find(&gvr, "", name).await.map_err(|status| status.message)? {
                Some(object) => vec![object],
                None if optional => Vec::new(),
                None => return Err(format!("clustertrustbundle {name:?} not found")),
            }
        };
        let trees: Vec<Value> = bundles.iter().map(|object| object.to_value()).collect();
        Ok(payload::of_trust_bundles(trees.iter().map(|tree| tree.str_at(&["spec", "trustBundle"]))))
    }

    async fn claim(&self, pod: &Pod, volume: &Volume, asking: Asking) -> Result<Done, Failure> {
        let bound = claims::resolve(&*self.api, pod, volume).await.map_err(Failure::Processing)?;
        let own_name = bound.volume.metadata.name.clone().unwrap_or_default();
        let failed = |why: String| Failure::SetUp { volume: own_name.clone(), why };
        if !is_one_name(&own_name) {
            return Err(failed("its name is no proper name".to_owned()));
        }
        let mut done = self.persistent(pod, &bound.volume, bound.read_only, asking).await.map_err(failed)?;
        let in_use = asking == Asking::Again;
        // A volume that containers have already does not hold up others of its pod.
        let is_new = self.mounted(uid(pod)).is_none_or(|mounted| mounted.get(&volume.name).is_none());
        if in_use || is_new {
            let failed = |why| Failure::Expansion { volume: own_name.clone(), why, in_use };
            self.expand(pod, &bound, asking).await.map_err(failed)?;
        }
        let annotations = bound.volume.metadata.annotations.iter().flatten();
        let group = annotations.into_iter().find(|(key, _)| *key == "pv.beta.kubernetes.io/gid");
        done.volume.group = group.and_then(|(_, value)| value.parse().ok());
        Ok(done)
    }

    /// Lets a volume grow to its disk's size, and says so.
    async fn expand(&self, pod: &Pod, bound: &claims::Bound, asking: Asking) -> Result<(), String> {
        if !self.csi.expand(pod, &bound.volume, &bound.claim, bound.read_only).await? {
            return Ok(());
        }
        let name = bound.volume.metadata.name.as_deref().unwrap_or_default();
        let node = &self.options.node_name;
        let message = match asking {
            Asking::Once => format!("MountVolume.NodeExpandVolume succeeded for volume {name:?} {node}"),
            Asking::Again => {
                format!("NodeExpandVolume.NodeExpandVolume succeeded for volume {name:?} {node}")
            }
        };
        for about in [manager::reference(pod), claims::reference(&bound.claim)] {
            self.recorder.normal(&about, "FileSystemResizeSuccessful", message.clone());
        }
        Ok(())
    }

    async fn persistent(
        &self,
        pod: &Pod,
        bound: &PersistentVolume,
        read_only: bool,
        asking: Asking,
    ) -> Result<Done, String> {
        let spec = bound.spec.as_ref().ok_or("the volume has no spec")?;
        let name = bound.metadata.name.as_deref().unwrap_or_default();
        let options = spec.mount_options.clone().unwrap_or_default();
        if spec.volume_mode.as_deref() == Some("Block") {
            let path = match &spec.local {
                Some(local) => Utf8PathBuf::from(&local.path),
                None if spec.csi.is_some() => {
                    self.csi.set_up_persistent(pod, bound, read_only, asking).await?
                }
                None => return Err("volumes of this kind are no block devices on this node".to_owned()),
            };
            let source = blocking(move || block_device(path)).await?;
            let done = Done {
                volume: MountedVolume { source, read_only, group: None },
                again_at: None,
                measure: Measure::None,
            };
            if spec.csi.is_none() {
                return Ok(done);
            }
            let measure = Measure::Driver(self.csi.measuring(pod, name, true));
            return Ok(Done { measure, ..done }.of_csi());
        }
        if let Some(local) = &spec.local {
            let (source, target) =
                (Utf8PathBuf::from(&local.path), self.layout.volume(uid(pod), LOCAL, name));
            let group = group_of(pod).filter(|_| !read_only);
            let path = blocking(move || bind_local(&source, target, read_only, group)).await?;
            return Ok(Done::at(path, read_only, Measure::Filesystem));
        }
        if let Some(source) = spec.host_path.clone() {
            let path = blocking(move || host_path::set_up(&source)).await?;
            return Ok(Done::at(path, read_only, unmeasured));
        }
        if let Some(mut source) = spec.nfs.clone() {
            source.read_only = Some(source.read_only.unwrap_or(false) || read_only);
            let path = nfs(source, options, self.layout.volume(uid(pod), NFS, name)).await?;
            return Ok(Done::at(path, read_only, Measure::Filesystem));
        }
        if spec.csi.is_some() {
            let path = self.csi.set_up_persistent(pod, bound, read_only, asking).await?;
            let measure = |_| Measure::Driver(self.csi.measuring(pod, name, false));
            return Ok(Done::at(path, read_only, measure).of_csi());
        }
        Err(format!("failed to get Plugin from volumeSpec for volume {name:?} err=no volume plugin matched"))
    }
}

fn no_plugin(volume: &str) -> Failure {
    Failure::Processing(format!(
        "failed to get Plugin from volumeSpec for volume {volume:?} err=no volume plugin matched"
    ))
}

fn block_device(path: Utf8PathBuf) -> Result<Source, String> {
    use std::os::unix::fs::FileTypeExt;
    let meta = std::fs::metadata(&path).map_err(|error| format!("path {path:?}: {error}"))?;
    if meta.file_type().is_block_device() {
        Ok(Source::Block(path))
    } else {
        Err(format!("path {path:?} is not a block device"))
    }
}

/// Shows a folder of the host in the pod's own, where options and clean-up are the pod's.
fn bind_local(
    source: &Utf8Path,
    target: Utf8PathBuf,
    read_only: bool,
    group: Option<(u32, ChangePolicy)>,
) -> Result<Utf8PathBuf, String> {
    match std::fs::metadata(source) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("path {source:?} does not exist"));
        }
        Err(error) => return Err(format!("path {source:?}: {error}")),
        Ok(meta) if !meta.is_dir() => {
            return Err(format!("path {source:?} is no directory, and this node does not format devices"));
        }
        Ok(_) => {}
    }
    let set_up = || -> std::io::Result<()> {
        std::fs::create_dir_all(&target)?;
        if mount::is_mount_point(&target)? {
            return Ok(());
        }
        if let Some((group, change)) = group {
            ownership::apply_by_policy(source, group, false, change)?;
        }
        mount::bind(source, &target, read_only)
    };
    set_up().map_err(|error| error.to_string())?;
    Ok(target)
}

/// Mounts an export with the system's own `mount`, which finds the server's address and speaks its versions.
async fn nfs(
    source: NFSVolumeSource,
    mut options: Vec<String>,
    target: Utf8PathBuf,
) -> Result<Utf8PathBuf, String> {
    if !mount::is_supported("nfs") && !mount::is_supported("nfs4") {
        return Err("mount failed: unknown filesystem type 'nfs'".to_owned());
    }
    if source.read_only == Some(true) {
        options.push("ro".to_owned());
    }
    blocking(move || {
        std::fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        if mount::is_mount_point(&target).map_err(|error| error.to_string())? {
            return Ok(target);
        }
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "nfs"]);
        if !options.is_empty() {
            command.args(["-o", &options.join(",")]);
        }
        command.arg("--").arg(format!("{}:{}", source.server, source.path)).arg(&target);
        let output = command.output().map_err(|error| format!("mount failed: {error}"))?;
        if output.status.success() {
            return Ok(target);
        }
        let text =
            String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(MOUNT_OUTPUT_MAX)]).into_owned();
        Err(format!("mount failed: {}\nOutput: {text}", output.status))
    })
    .await
}
