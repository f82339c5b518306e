//! [`VolumeManager`]: the volumes of all pods of a node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::amounts::Amounts;
use camino::{Utf8Path, Utf8PathBuf};
use client::events::Reference;
use client::{Api, Recorder};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Volume};
use parking_lot::Mutex;
use rt::{Instant, Shutdown};
use tokio::sync::broadcast;

use super::cache::{Changes, ObjectCache};
use super::csi::{self, Asking, Csi, CsiDrivers};
use super::layout::{Layout, is_one_name};
use super::plugins::OWNED;
use super::setup::{Done, Failure};
use super::tokens::{ApiTokens, TokenCache, TokenRequests};
use super::usage::Measure;
use super::{Mounted, MountedVolume, Source, mount};
use crate::agent::config::env_file::EnvFiles;
use crate::agent::config::objects::Objects;
use crate::agent::config::{all_containers, name, namespace, subpath, uid};
use crate::agent::retry::Pauses;

/// Changes that a slow listener has not heard yet; beyond that it is told that it missed some.
const CHANGES_MAX: usize = 256;

/// Bytes of a file of variables.
const ENV_FILE_MAX: u64 = 1 << 20;

/// What is the same for all volumes of a node.
#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    /// What `/var/lib/kubelet` is to a kubelet; `pods` is below it.
    pub root: Utf8PathBuf,
    /// `status.allocatable`.
    pub allocatable: Amounts,
    /// Whether Secrets, tokens and what stands beside them are kept in memory; not so where nothing may be mounted.
    pub secrets_in_memory: bool,
}

/// Why a volume of a pod is not there, as an event says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VolumeError {
    /// As the pod names it.
    pub volume: String,
    /// `FailedMount`, ….
    pub reason: &'static str,
    pub message: String,
}

/// What is remembered of a pod; what is on disk outlives it.
pub(super) struct Record {
    pub pod: Arc<Pod>,
    pub mounted: Mounted,
    /// By volume.
    measures: BTreeMap<String, Measure>,
    /// When a volume is looked at again, though nothing changed.
    pub due: BTreeMap<String, Instant>,
    /// Nobody waits for drivers on its behalf any more.
    pub ending: Shutdown,
}

impl Record {
    fn new(pod: &Pod, due: BTreeMap<String, Instant>) -> Self {
        Self {
            pod: Arc::new(pod.clone()),
            mounted: Mounted::default(),
            measures: BTreeMap::new(),
            due,
            ending: Shutdown::new(),
        }
    }

    pub fn take(&mut self, volume: &str, done: Done) {
        self.mounted.insert(volume, done.volume);
        self.measures.insert(volume.to_owned(), done.measure);
        match done.again_at {
            Some(at) => self.due.insert(volume.to_owned(), at),
            None => self.due.remove(volume),
        };
    }
}

/// What is not tried again for a while.
pub(super) struct Failed {
    failure: Failure,
    pub retry_at: Instant,
    pauses: Pauses,
}

/// A pod's uid, a volume's name, and how it was asked for.
pub(super) type Attempt = (String, String, Asking);

pub struct VolumeManager {
    pub(super) options: Options,
    pub(super) layout: Layout,
    pub(super) api: Arc<dyn Api>,
    pub(super) csi: Csi,
    pub(super) tokens: Arc<TokenCache>,
    pub(super) cache: Arc<ObjectCache>,
    pub(super) changes: Arc<Changes>,
    pub(super) recorder: Recorder,
    pub(super) refreshed: broadcast::Sender<Arc<str>>,
    /// By uid. Whoever works on a pod's volumes holds its lock, which is taken before this one.
    pub(super) records: Mutex<HashMap<String, Record>>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Of the pods in `records`, and of those that are about to be.
    pub(super) failed: Mutex<HashMap<Attempt, Failed>>,
}

impl VolumeManager {
    /// `api` is what the node may do, `recorder` says what went wrong later on.
    pub fn new(
        options: Options,
        api: Arc<dyn Api>,
        drivers: Arc<dyn CsiDrivers>,
        recorder: Recorder,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let tokens = Arc::new(ApiTokens(api.clone()));
        Self::with_tokens(options, api, drivers, tokens, recorder, shutdown)
    }

    /// As [`VolumeManager::new`], with tokens of somebody else.
    pub fn with_tokens(
        options: Options,
        api: Arc<dyn Api>,
        drivers: Arc<dyn CsiDrivers>,
        tokens: Arc<dyn TokenRequests>,
        recorder: Recorder,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let layout = Layout::new(options.root.clone());
        let changes = Arc::new(Changes::default());
        let tokens = Arc::new(TokenCache::new(tokens));
        Arc::new(Self {
            csi: Csi::new(api.clone(), drivers, layout.clone(), &options.node_name, tokens.clone()),
            tokens,
            cache: ObjectCache::new(api.clone(), changes.clone(), shutdown),
            changes,
            recorder,
            refreshed: broadcast::Sender::new(CHANGES_MAX),
            records: Mutex::default(),
            locks: Mutex::default(),
            failed: Mutex::default(),
            options,
            layout,
            api,
        })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes everything that the pod's containers have of volumes. What is there stays as it is, so it may be called
    /// as often as somebody likes; data is brought up to date.
    ///
    /// # Errors
    /// One for each volume that is not there. The others are, and stay.
    pub async fn mount_all(&self, pod: &Pod) -> Result<Mounted, Vec<VolumeError>> {
        let lock = self.lock(uid(pod));
        let _own = lock.lock().await;
        self.set_up_all(pod).await
    }

    async fn set_up_all(&self, pod: &Pod) -> Result<Mounted, Vec<VolumeError>> {
        self.cache.register(uid(pod), pod);
        let objects = self.cache.objects(pod).await;
        let used = used_volumes(pod);
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let wanted: Vec<&Volume> = volumes.filter(|volume| used.contains(&volume.name)).collect();
        let done = join_all(wanted.iter().map(|own| self.attempt(pod, own, &objects, Asking::Once))).await;
        let mut record = Record::new(pod, BTreeMap::new());
        let mut errors = Vec::new();
        for (volume, done) in wanted.iter().zip(done) {
            match done {
                Ok(done) => record.take(&volume.name, done),
                Err(failure) => {
                    // Whoever is told asks again, and nobody else.
                    errors.push(error(&volume.name, failure));
                }
            }
        }
        errors.extend(check_modes(pod, &record.mounted));
        let mounted = record.mounted.clone();
        self.records.lock().insert(uid(pod).to_owned(), record);
        // The loop has to learn of the new time.
        self.changes.wake();
        if errors.is_empty() { Ok(mounted) } else { Err(errors) }
    }

    /// Sets up a volume, unless that failed a short while ago: then it is still the same failure.
    pub(super) async fn attempt(
        &self,
        pod: &Pod,
        volume: &Volume,
        objects: &Objects,
        asking: Asking,
    ) -> Result<Done, Failure> {
        let key = (uid(pod).to_owned(), volume.name.clone(), asking);
        if let Some(failed) = self.failed.lock().get(&key).filter(|own| rt::instant() < own.retry_at) {
            return Err(failed.failure.clone());
        }
        let done = self.set_up(pod, volume, objects, asking).await;
        let mut all = self.failed.lock();
        match &done {
            Ok(_) => drop(all.remove(&key)),
            // It waits for others, who may be done any moment.
            Err(Failure::Processing(_)) => {}
            Err(failure) => {
                let mut pauses = all.get(&key).map(|own| own.pauses).unwrap_or_default();
                let retry_at = rt::instant() + pauses.next_pause();
                all.insert(key, Failed { failure: failure.clone(), retry_at, pauses });
            }
        }
        done
    }

    /// A pod that runs already, from before this process: its volumes are there, and are kept up to date from now on.
    pub fn adopt(&self, pod: &Pod) {
        let used = used_volumes(pod);
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let now = rt::instant();
        let due = volumes.filter(|own| used.contains(&own.name)).map(|own| (own.name.clone(), now));
        let record = Record::new(pod, due.collect());
        self.cache.register(uid(pod), pod);
        self.records.lock().entry(uid(pod).to_owned()).or_insert(record);
        self.changes.wake();
    }

    /// The pod as it is now: labels and annotations may be shown in files of it.
    pub fn pod_changed(&self, pod: &Pod) {
        let mut records = self.records.lock();
        let Some(record) = records.get_mut(uid(pod)) else { return };
        if record.pod.metadata.labels != pod.metadata.labels
            || record.pod.metadata.annotations != pod.metadata.annotations
        {
            self.changes.mark(uid(pod));
            let now = rt::instant();
            for (volume, at) in &mut record.due {
                if matches!(record.measures.get(volume), Some(Measure::Driver(_))) {
                    *at = now;
                }
            }
        }
        record.pod = Arc::new(pod.clone());
    }

    /// The ConfigMaps and Secrets that the pod names, for its containers' variables. It is registered until
    /// [`VolumeManager::unmount_all`].
    pub async fn objects(&self, pod: &Pod) -> Objects {
        self.cache.register(uid(pod), pod);
        self.cache.objects(pod).await
    }

    /// Uids of pods, whenever something changed that their volumes or variables are made from: who could not start a
    /// container for want of it tries again. Who lags looks at all pods.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.refreshed.subscribe()
    }

    /// What [`VolumeManager::mount_all`] made last.
    pub fn mounted(&self, uid: &str) -> Option<Mounted> {
        self.records.lock().get(uid).map(|record| record.mounted.clone())
    }

    /// Whether the pod has volumes that are looked after.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.records.lock().contains_key(uid)
    }

    /// How the pod's volumes are measured, by their names.
    pub(super) fn measures(&self, uid: &str) -> Option<(Arc<Pod>, BTreeMap<String, Measure>)> {
        self.records.lock().get(uid).map(|record| (record.pod.clone(), record.measures.clone()))
    }

    /// Undoes all volumes of a pod, also those that only the disk knows of. Its containers have ended.
    ///
    /// # Errors
    /// What is still there; calling again goes on.
    pub async fn unmount_all(&self, uid: &str) -> Result<(), Vec<VolumeError>> {
        let failed =
            |message: String| VolumeError { volume: String::new(), reason: "FailedUnMount", message };
        if !is_one_name(uid) {
            return Err(vec![failed(format!("{uid:?} is no uid"))]);
        }
        if let Some(record) = self.records.lock().get(uid) {
            record.ending.cancel();
        }
        let lock = self.lock(uid);
        let own = lock.lock().await;
        self.cache.forget(uid);
        self.tokens.forget(uid);
        self.records.lock().remove(uid);
        self.failed.lock().retain(|(own, _, _), _| own != uid);
        let sub_paths = self.layout.pod_sub_paths(uid);
        let volumes = self.layout.pod_volumes(uid);
        // Parts of volumes first: they keep the whole ones busy.
        blocking(move || remove_mount_points(&sub_paths)).await.map_err(|why| vec![failed(why)])?;
        self.csi.tear_down(uid).await.map_err(|all| all.into_iter().map(failed).collect::<Vec<_>>())?;
        blocking(move || remove_volumes(&volumes)).await.map_err(|why| vec![failed(why)])?;
        drop(own);
        drop(lock);
        self.locks.lock().retain(|_, lock| Arc::strong_count(lock) > 1);
        Ok(())
    }

    /// Removes what else a pod left: `/etc/hosts`, last words. After [`VolumeManager::unmount_all`].
    ///
    /// # Errors
    /// Where something is mounted there, and what the file system says.
    pub async fn remove_directory(&self, uid: &str) -> Result<(), VolumeError> {
        let failed =
            |message: String| VolumeError { volume: String::new(), reason: "FailedUnMount", message };
        if !is_one_name(uid) {
            return Err(failed(format!("{uid:?} is no uid")));
        }
        let folder = self.layout.pod(uid);
        let remove =
            move || mount::remove_tree(&folder).map_err(|error| format!("removing {folder}: {error}"));
        blocking(remove).await.map_err(failed)
    }

    /// Uids of all pods that have something on disk, for a start: those that the node does not have any more are to be
    /// unmounted and removed.
    pub fn pods_on_disk(&self) -> Vec<String> {
        csi::pods(&self.layout)
    }

    /// `status.volumesInUse`.
    pub fn in_use(&self) -> Vec<String> {
        self.csi.in_use()
    }

    pub(super) fn lock(&self, uid: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.locks.lock().entry(uid.to_owned()).or_default().clone()
    }
}

/// Files of variables in the volumes of one pod.
pub struct VolumeFiles<'a>(pub &'a Mounted);

impl EnvFiles for VolumeFiles<'_> {
    fn read(&self, volume: &str, path: &str) -> Result<Option<String>, String> {
        match self.0.get(volume).map(|volume| &volume.source) {
            Some(Source::Path(root)) => subpath::read_beneath(root, path, ENV_FILE_MAX),
            _ => Err(format!("cannot find volume {volume:?}")),
        }
    }
}

/// What an event of a pod is about.
pub fn reference(pod: &Pod) -> Reference {
    Reference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: namespace(pod).into(),
        name: name(pod).into(),
        uid: uid(pod).into(),
        ..Reference::default()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// The volumes that containers have; others are not set up.
pub(super) fn used_volumes(pod: &Pod) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for container in all_containers(pod) {
        used.extend(container.volume_mounts.iter().flatten().map(|own| own.name.clone()));
        used.extend(container.volume_devices.iter().flatten().map(|own| own.name.clone()));
        let sources = container.env.iter().flatten().filter_map(|own| own.value_from.as_ref());
        used.extend(sources.filter_map(|own| own.file_key_ref.as_ref()).map(|own| own.volume_name.clone()));
    }
    used
}

/// Block devices are devices of containers, and everything else is mounted.
fn check_modes(pod: &Pod, mounted: &Mounted) -> Vec<VolumeError> {
    let is_block = |volume: &str| {
        mounted.get(volume).map(|MountedVolume { source, .. }| matches!(source, Source::Block(_)))
    };
    let mut wrong = BTreeMap::new();
    for container in all_containers(pod) {
        for own in container.volume_mounts.iter().flatten().filter(|own| is_block(&own.name) == Some(true)) {
            wrong.insert(own.name.clone(), ("Block", "volumeMounts"));
        }
        for own in container.volume_devices.iter().flatten().filter(|own| is_block(&own.name) == Some(false))
        {
            wrong.insert(own.name.clone(), ("Filesystem", "volumeDevices"));
        }
    }
    let said = |(name, (mode, field)): (String, (&str, &str))| {
        let why = format!("volume {name} has volumeMode {mode}, but is specified in {field}");
        error(&name, Failure::Processing(why))
    };
    wrong.into_iter().map(said).collect()
}

pub(super) fn error(volume: &str, failure: Failure) -> VolumeError {
    let reason = match &failure {
        Failure::Expansion { in_use: true, .. } => "VolumeResizeFailed",
        _ => "FailedMount",
    };
    let message = match failure {
        Failure::SetUp { volume, why } => format!("MountVolume.SetUp failed for volume {volume:?} : {why}"),
        Failure::Expansion { volume, why, in_use: true } => {
            format!("NodeExpandVolume.NodeExpandVolume failed for volume {volume:?} : {why}")
        }
        Failure::Expansion { volume, why, in_use: false } => {
            format!("MountVolume.Setup failed while expanding volume for volume {volume:?} : {why}")
        }
        Failure::Processing(why) => format!(
            "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
             volumes=[{volume}]: {why}"
        ),
    };
    VolumeError { volume: volume.to_owned(), reason, message }
}

/// Unmounts what is below a folder and removes what it was mounted on.
fn remove_mount_points(folder: &Utf8Path) -> Result<(), String> {
    mount::unmount_below(folder).map_err(|error| error.to_string())?;
    mount::remove_tree(folder).map_err(|error| format!("removing {folder}: {error}"))
}

/// Unmounts and removes all volumes of a pod. Only what the node itself wrote is removed with what is in it.
fn remove_volumes(volumes: &Utf8Path) -> Result<(), String> {
    mount::unmount_below(volumes).map_err(|error| error.to_string())?;
    let failed = |path: &Utf8Path, error: std::io::Error| format!("removing {path}: {error}");
    for plugin in folders(volumes).map_err(|error| failed(volumes, error))? {
        let is_owned = plugin.file_name().is_some_and(|name| OWNED.contains(&name));
        for folder in folders(&plugin).map_err(|error| failed(&plugin, error))? {
            if is_owned {
                mount::remove_tree(&folder).map_err(|error| failed(&folder, error))?;
            } else {
                std::fs::remove_dir(&folder).map_err(|error| failed(&folder, error))?;
            }
        }
        std::fs::remove_dir(&plugin).map_err(|error| failed(&plugin, error))?;
    }
    match std::fs::remove_dir(volumes) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(volumes, error)),
        _ => Ok(()),
    }
}

fn folders(folder: &Utf8Path) -> std::io::Result<Vec<Utf8PathBuf>> {
    match folder.read_dir_utf8() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.into_path())).collect(),
    }
}
