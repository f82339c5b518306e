//! How full the volumes of pods are: by looking at their files, by asking the kernel, or by asking a driver.
//!
//! Nothing is measured while nobody asks. A figure is good for a minute, as the kubelet's are, and longer where finding
//! out took long. Who asks waits a moment for figures that are on their way; a driver that hangs costs its own volumes
//! their figures and nobody else's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Volume};
use parking_lot::Mutex;
use rt::Instant;
use tokio::sync::Semaphore;

use super::VolumeManager;
use super::csi::{Measured, Published};
use crate::agent::config::name;
use crate::agent::eviction::usage::walk;
use crate::agent::stats::{Filesystem, VolumeUsage, Volumes, filesystem_of};

/// How long a figure is good for.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Finding out may take this share of the time at most.
const SHARE: u32 = 20;

/// How long somebody who asks waits for figures that are being found out.
const PATIENCE: Duration = Duration::from_secs(2);

/// Volumes whose files are looked at at once.
const WALKS_MAX: usize = 4;

/// How a volume is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    None,
    /// All of its files, which lie on a filesystem with others.
    Files(Utf8PathBuf),
    /// The filesystem that it is.
    Filesystem(Utf8PathBuf),
    /// Its driver knows.
    Driver(Published),
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    measured: Option<Measured>,
    at: Option<Instant>,
    took: Duration,
    /// Somebody is finding out.
    is_asked: bool,
}

impl Known {
    fn is_stale(&self, now: Instant) -> bool {
        let age_max = AGE_MAX.max(self.took * SHARE);
        !self.is_asked && self.at.is_none_or(|at| now.saturating_duration_since(at) >= age_max)
    }
}

/// A pod's uid and a volume's name.
type Key = (String, String);

/// The figures of one node's volumes.
pub struct VolumeUsages(Arc<Shared>);

struct Shared {
    manager: Arc<VolumeManager>,
    /// Of the pods that there are.
    known: Mutex<HashMap<Key, Known>>,
    walks: Semaphore,
}

impl VolumeUsages {
    pub fn new(manager: Arc<VolumeManager>) -> Self {
        let walks = Semaphore::new(WALKS_MAX);
        Self(Arc::new(Shared { manager, known: Mutex::default(), walks }))
    }
}

#[async_trait]
impl Volumes for VolumeUsages {
    async fn usage(&self, pod_uid: &str) -> Vec<VolumeUsage> {
        let shared = &self.0;
        shared.known.lock().retain(|(uid, _), _| shared.manager.has(uid));
        let Some((pod, measures)) = shared.manager.measures(pod_uid) else { return Vec::new() };
        let now = rt::instant();
        let mut asked = Vec::new();
        for (volume, measure) in measures.iter().filter(|(_, measure)| **measure != Measure::None) {
            let key = (pod_uid.to_owned(), volume.clone());
            {
                let mut known = shared.known.lock();
                let own = known.entry(key.clone()).or_default();
                if !own.is_stale(now) {
                    continue;
                }
                own.is_asked = true;
            }
            asked.push(rt::spawn("volume usage", shared.clone().find_out(key, measure.clone())));
        }
        // Whoever is late is there the next time.
        let _ = rt::timeout(PATIENCE, join_all(asked)).await;
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let known = shared.known.lock();
        let usage = volumes.filter_map(|volume| {
            let measured = known.get(&(pod_uid.to_owned(), volume.name.clone()))?.measured?;
            Some(usage(&pod, volume, measured))
        });
        usage.collect()
    }
}

impl Shared {
    async fn find_out(self: Arc<Self>, key: Key, measure: Measure) {
        let began = rt::instant();
        let measured = self.measure(measure).await;
        let mut known = self.known.lock();
        let Some(own) = known.get_mut(&key) else { return };
        (own.is_asked, own.at, own.took) = (false, Some(rt::instant()), began.elapsed());
        match measured {
            Ok(measured) => own.measured = measured,
            Err(error) => {
                let (uid, volume) = key;
                tracing::debug!(uid, volume, error, "A volume was not measured");
            }
        }
    }

    async fn measure(&self, measure: Measure) -> Result<Option<Measured>, String> {
        let (path, by_files) = match measure {
            Measure::None => return Ok(None),
            Measure::Driver(published) => return self.manager.csi.measure(&published).await,
            Measure::Files(path) => (path, true),
            Measure::Filesystem(path) => (path, false),
        };
        let _one = self.walks.acquire().await.map_err(|error| error.to_string())?;
        let look = move || {
            let mut filesystem = filesystem_of(&path).map_err(|error| format!("{path}: {error}"))?;
            if by_files {
                (filesystem.used_bytes, filesystem.used_inodes) = walk(&path);
            }
            Ok(Some(Measured { filesystem, is_abnormal: None }))
        };
        tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?
    }
}

fn usage(pod: &Pod, volume: &Volume, measured: Measured) -> VolumeUsage {
    let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(own), _) => Some(own.claim_name.clone()),
        (_, Some(_)) => Some(api::volumes::own_claim(name(pod), &volume.name)),
        _ => None,
    };
    VolumeUsage {
        name: volume.name.clone(),
        claim,
        is_ephemeral: is_ephemeral(volume),
        filesystem: Filesystem { ..measured.filesystem },
        is_abnormal: measured.is_abnormal,
    }
}

/// Whether it lies on the node's own disk and goes with its pod.
pub(crate) fn is_ephemeral(volume: &Volume) -> bool {
    let is_on_disk = |medium: &Option<String>| medium.as_deref().unwrap_or_default() != "Memory";
    volume.empty_dir.as_ref().is_some_and(|own| is_on_disk(&own.medium)) || volume.config_map.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_good_for_a_minute_or_longer_where_it_was_dear() {
        let now = rt::instant();
        let known = |age: u64, took: u64, is_asked| Known {
            at: now.checked_sub(Duration::from_secs(age)),
            took: Duration::from_secs(took),
            is_asked,
            measured: None,
        };
        assert!(Known::default().is_stale(now), "it was never asked for");
        for (own, wanted) in [
            (known(59, 0, false), false),
            (known(60, 0, false), true),
            (known(60, 0, true), false),
            (known(79, 4, false), false),
            (known(80, 4, false), true),
        ] {
            assert_eq!(own.is_stale(now), wanted, "{own:?}");
        }
    }

    #[test]
    fn what_lies_in_memory_or_elsewhere_is_not_the_nodes_disk() {
        let of = |mut source: serde_json::Value| {
            source["name"] = "v".into();
            is_ephemeral(&serde_json::from_value(source).expect("a volume"))
        };
        assert!(
            of(serde_json::json!({"emptyDir": {}})) && of(serde_json::json!({"configMap": {"name": "a"}}))
        );
        assert!(!of(serde_json::json!({"emptyDir": {"medium": "Memory"}})));
        assert!(!of(serde_json::json!({"persistentVolumeClaim": {"claimName": "a"}})));
    }
}
