//! What a node asks of a driver: [`CsiDriver`] is CSI's node service, [`CsiDrivers`] are those that are registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8Path;

use crate::agent::stats::Filesystem;

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

/// What a driver can do besides publishing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// `STAGE_UNSTAGE_VOLUME`
    pub stages: bool,
    /// `GET_VOLUME_STATS`
    pub measures: bool,
    /// `EXPAND_VOLUME`
    pub expands: bool,
    /// `VOLUME_MOUNT_GROUP`
    pub mounts_groups: bool,
}

/// Why a volume did not grow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotExpanded {
    pub message: String,
    /// It will not grow to that size, however often somebody asks.
    pub is_final: bool,
}

/// How full a driver says that a volume is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    pub filesystem: Filesystem,
    /// Whether something is wrong with it, where the driver tells.
    pub is_abnormal: Option<bool>,
}

/// One driver's node service. All calls are idempotent.
#[async_trait]
pub trait CsiDriver: Send + Sync + 'static {
    /// Asked each time: a driver may have been replaced by one that can do more.
    async fn abilities(&self) -> Result<Abilities, String>;
    async fn stage(&self, volume: &CsiVolume, staging: &Utf8Path) -> Result<(), String>;
    async fn unstage(&self, handle: &str, staging: &Utf8Path) -> Result<(), String>;
    async fn publish(
        &self,
        volume: &CsiVolume,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
    ) -> Result<(), String>;
    async fn unpublish(&self, handle: &str, target: &Utf8Path) -> Result<(), String>;
    /// Makes what is published as large as its disk.
    async fn expand(
        &self,
        volume: &CsiVolume,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
        bytes: i64,
    ) -> Result<(), NotExpanded>;
    async fn measure(
        &self,
        handle: &str,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
    ) -> Result<Measured, String>;
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
