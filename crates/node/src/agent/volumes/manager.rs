//! [`VolumeManager`]: the volumes of all pods of a node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

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
use super::csi::{self, Csi, CsiDrivers};
use super::layout::{Layout, is_one_name};
use super::plugins::{OWNED, plugin};
use super::setup::Failure;
use super::tokens::{ApiTokens, TokenCache, TokenRequests};
use super::{Mounted, MountedVolume, Source, mount};
use crate::agent::config::env_file::EnvFiles;
use crate::agent::config::objects::Objects;
use crate::agent::config::{all_containers, name, namespace, subpath, uid};

/// A change that could not be written is tried again after this.
const RETRY: Duration = Duration::from_secs(30);

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
struct Record {
    pod: Arc<Pod>,
    mounted: Mounted,
    again_at: Option<Instant>,
}

pub struct VolumeManager {
    pub(super) options: Options,
    pub(super) layout: Layout,
    pub(super) api: Arc<dyn Api>,
    pub(super) csi: Csi,
    pub(super) tokens: TokenCache,
    cache: Arc<ObjectCache>,
    changes: Arc<Changes>,
    recorder: Recorder,
    refreshed: broadcast::Sender<Arc<str>>,
    /// By uid. Whoever works on a pod's volumes holds its lock, which is taken before this one.
    records: Mutex<HashMap<String, Record>>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
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
        Arc::new(Self {
            csi: Csi::new(api.clone(), drivers, layout.clone(), &options.node_name),
            tokens: TokenCache::new(tokens),
            cache: ObjectCache::new(api.clone(), changes.clone(), shutdown),
            changes,
            recorder,
            refreshed: broadcast::Sender::new(CHANGES_MAX),
            records: Mutex::default(),
            locks: Mutex::default(),
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
        let done = join_all(wanted.iter().map(|volume| self.set_up(pod, volume, &objects))).await;
        let (mut mounted, mut errors, mut again_at) = (Mounted::default(), Vec::new(), None::<Instant>);
        for (volume, done) in wanted.iter().zip(done) {
            match done {
                Ok(done) => {
                    mounted.insert(volume.name.as_str(), done.volume);
                    again_at = [again_at, done.again_at].into_iter().flatten().min();
                }
                Err(failure) => errors.push(error(&volume.name, failure)),
            }
        }
        errors.extend(check_modes(pod, &mounted));
        if !errors.is_empty() {
            // Whoever is told asks again; until then the rest is kept up to date.
            again_at = [again_at, Some(rt::instant() + RETRY)].into_iter().flatten().min();
        }
        let record = Record { pod: Arc::new(pod.clone()), mounted: mounted.clone(), again_at };
        self.records.lock().insert(uid(pod).to_owned(), record);
        // The loop has to learn of the new time.
        self.changes.wake();
        if errors.is_empty() { Ok(mounted) } else { Err(errors) }
    }

    /// The pod as it is now: labels and annotations may be shown in files of it.
    pub fn pod_changed(&self, pod: &Pod) {
        let mut records = self.records.lock();
        let Some(record) = records.get_mut(uid(pod)) else { return };
        if record.pod.metadata.labels != pod.metadata.labels
            || record.pod.metadata.annotations != pod.metadata.annotations
        {
            self.changes.mark(uid(pod));
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
        let lock = self.lock(uid);
        let own = lock.lock().await;
        self.cache.forget(uid);
        self.tokens.forget(uid);
        self.records.lock().remove(uid);
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

    /// Keeps the files of volumes up to date until `shutdown`: when objects change, and before tokens end.
    pub async fn run(&self, shutdown: Shutdown) {
        loop {
            let next = self.records.lock().values().filter_map(|record| record.again_at).min();
            let timer = async {
                match next {
                    Some(at) => rt::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changes.marked() => {}
                () = timer => {}
            }
            let mut uids = self.changes.take();
            uids.extend(self.due());
            join_all(uids.iter().map(|uid| self.refresh(uid))).await;
        }
    }

    fn due(&self) -> Vec<String> {
        let now = rt::instant();
        let records = self.records.lock();
        let due = records.iter().filter(|(_, record)| record.again_at.is_some_and(|at| at <= now));
        due.map(|(uid, _)| uid.clone()).collect()
    }

    /// Writes the data of a pod's volumes anew. Only of pods that were mounted, and that nobody unmounted since.
    async fn refresh(&self, uid: &str) {
        let lock = self.lock(uid);
        let _own = lock.lock().await;
        let Some(pod) = self.records.lock().get(uid).map(|record| record.pod.clone()) else { return };
        let objects = self.cache.objects(&pod).await;
        let used = used_volumes(&pod);
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let is_data = |volume: &&Volume| {
            used.contains(&volume.name) && plugin(volume).is_some_and(|plugin| plugin.kind.is_data())
        };
        let mut again_at: Option<Instant> = None;
        for volume in volumes.filter(is_data) {
            match self.set_up(&pod, volume, &objects).await {
                Ok(done) => {
                    again_at = [again_at, done.again_at].into_iter().flatten().min();
                    if let Some(record) = self.records.lock().get_mut(uid) {
                        record.mounted.insert(volume.name.as_str(), done.volume);
                    }
                }
                Err(failure) => {
                    // Whoever mounts it for the first time says so.
                    if self.mounted(uid).is_some_and(|mounted| mounted.get(&volume.name).is_some()) {
                        let error = error(&volume.name, failure);
                        self.recorder.warning(&reference(&pod), error.reason, error.message);
                    }
                    again_at = [again_at, Some(rt::instant() + RETRY)].into_iter().flatten().min();
                }
            }
        }
        if let Some(record) = self.records.lock().get_mut(uid) {
            record.again_at = again_at;
        }
        // Nobody has to listen.
        let _ = self.refreshed.send(uid.into());
    }

    fn lock(&self, uid: &str) -> Arc<tokio::sync::Mutex<()>> {
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
fn used_volumes(pod: &Pod) -> BTreeSet<String> {
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

fn error(volume: &str, failure: Failure) -> VolumeError {
    let message = match failure {
        Failure::SetUp { volume, why } => format!("MountVolume.SetUp failed for volume {volume:?} : {why}"),
        Failure::Processing(why) => format!(
            "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
             volumes=[{volume}]: {why}"
        ),
    };
    VolumeError { volume: volume.to_owned(), reason: "FailedMount", message }
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
