//! How much pods use: the Summary API, and metrics of resources.
//!
//! Owns: samples of the node and of what runs on it ([`sample`]), and what is said of them ([`summary`], [`metrics`]).
//! Never touches: pods and containers; it asks the runtime, the kernel, and whoever knows volumes ([`Volumes`]).
//!
//! Nothing is sampled while nobody asks. Who asks gets a sample that is at most ten seconds old; the one before it stays,
//! for rates.

mod cgroup;
mod host;
mod metrics;
mod sample;
pub mod summary;
mod text;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use runtime::SharedRuntime;

use super::server::Pods;
pub(crate) use host::filesystem as filesystem_of;
use sample::Sample;
use summary::Summary;

/// How old a sample may be.
const AGE_MAX: Duration = Duration::from_secs(10);

/// Two samples that are nearer to each other say nothing about rates.
const DISTANCE_MIN: Duration = Duration::from_secs(1);

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// How much of a filesystem is used; of a volume, only by it where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub used_bytes: u64,
    pub inodes: u64,
    pub free_inodes: u64,
    pub used_inodes: u64,
}

/// A volume of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    pub name: String,
    /// Of the PersistentVolumeClaim in the pod's namespace, where it is one's.
    pub claim: Option<String>,
    /// Counts to the pod's ephemeral storage.
    pub is_ephemeral: bool,
    pub filesystem: Filesystem,
    /// Whether something is wrong with it, where somebody tells.
    pub is_abnormal: Option<bool>,
}

/// Who knows how full the volumes of a pod are.
#[async_trait]
pub trait Volumes: Send + Sync + 'static {
    async fn usage(&self, pod_uid: &str) -> Vec<VolumeUsage>;
}

/// Where a node's figures come from.
pub struct Sources {
    pub node_name: String,
    pub runtime: SharedRuntime,
    pub pods: Arc<dyn Pods>,
    pub volumes: Arc<dyn Volumes>,
    /// A directory on the filesystem that pods' volumes and logs lie on.
    pub root: Utf8PathBuf,
    /// Where cgroups are mounted: `/sys/fs/cgroup`.
    pub cgroups: Utf8PathBuf,
    /// `/proc`.
    pub proc: Utf8PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to list pod stats: {0}")]
    Runtime(#[from] runtime::Error),
    #[error("failed to read {path}")]
    Kernel {
        path: Utf8PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to make sense of {0}")]
    Malformed(Utf8PathBuf),
}

/// The memory that a pod uses as a whole, in bytes; `None` where its cgroup cannot be read.
pub fn pod_memory(uid: &str) -> Option<u64> {
    cgroup::read_pod(Utf8Path::new(CGROUPS), uid).map(|usage| usage.memory)
}

/// The newest sample and the one before it.
#[derive(Default)]
struct Samples {
    newest: Option<Arc<Sample>>,
    before: Option<Arc<Sample>>,
}

/// Two samples of the same things.
#[derive(Clone)]
struct Pair {
    now: Arc<Sample>,
    before: Option<Arc<Sample>>,
}

/// What is known of how much is used.
pub struct Stats {
    sources: Sources,
    samples: Mutex<Samples>,
}

impl Stats {
    pub fn new(sources: Sources) -> Self {
        Self { sources, samples: Mutex::default() }
    }

    /// For `/stats/summary`.
    pub async fn summary(&self, only_cpu_and_memory: bool) -> Result<Summary, Error> {
        let pair = self.sample().await?;
        Ok(summary::of(&self.sources.node_name, &pair, only_cpu_and_memory))
    }

    /// For `/metrics/resource`: what metrics-server reads. Failures are part of it.
    pub async fn resource_metrics(&self) -> String {
        let sample = self.sample().await;
        if let Err(error) = &sample {
            tracing::error!(error = %telemetry::chain(error), "Could not sample how much is used");
        }
        metrics::resource(sample.ok().map(|pair| pair.now).as_deref())
    }

    /// For `/metrics/cadvisor`.
    pub async fn cadvisor_metrics(&self) -> Result<String, Error> {
        Ok(metrics::cadvisor(&self.sample().await?.now))
    }

    /// What `/metrics` says of volumes of claims.
    pub async fn volume_metrics(&self) -> String {
        match self.sample().await {
            Ok(pair) => metrics::volumes(&pair.now),
            Err(error) => {
                tracing::error!(error = %telemetry::chain(&error), "Could not sample how much is used");
                String::new()
            }
        }
    }

    async fn sample(&self) -> Result<Pair, Error> {
        let is_fresh = |sample: &Sample| rt::instant().duration_since(sample.taken) < AGE_MAX;
        if let Some(pair) = self.kept(is_fresh) {
            return Ok(pair);
        }
        let taken = Arc::new(Sample::take(&self.sources).await?);
        // Somebody else may have been faster; two samples at once are no pair.
        let is_near = |sample: &Sample| taken.taken.saturating_duration_since(sample.taken) < DISTANCE_MIN;
        if let Some(pair) = self.kept(is_near) {
            return Ok(pair);
        }
        let mut samples = self.samples.lock();
        let before = samples.newest.replace(taken.clone());
        samples.before.clone_from(&before);
        Ok(Pair { now: taken, before })
    }

    fn kept(&self, wanted: impl FnOnce(&Sample) -> bool) -> Option<Pair> {
        let samples = self.samples.lock();
        let now = samples.newest.clone().filter(|sample| wanted(sample))?;
        Some(Pair { now, before: samples.before.clone() })
    }
}

#[cfg(test)]
mod tests;
