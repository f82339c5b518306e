//! Where roots of containers come from: what the embedded runtime asks of an image store.

use async_trait::async_trait;
use camino::Utf8Path;

use super::user_namespace::Owner;
use crate::Result;
use crate::spec::{FilesystemUsage, ImageStatus, PullRequest};

/// What an image says of the containers made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub working_dir: String,
    /// `user`, `user:group`, by name or number.
    pub user: String,
    pub stop_signal: String,
}

/// Images and the layers of containers. Keys are containers' IDs; all calls may be repeated.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// What the image of this ID says; [`crate::Error::NotFound`] where it is not here.
    async fn config(&self, image: &str) -> Result<ImageConfig>;

    /// Mounts the image's files at `target`, an empty folder, with a writable layer of the container `key` above them.
    /// `owner` has the files, if it is given, and not the host's users of the same numbers.
    async fn mount(&self, image: &str, key: &str, target: &Utf8Path, owner: Option<&Owner>) -> Result<()>;

    /// Mounts the image's files at `target` for reading only, as one of `key`'s mounts; whose they are as in
    /// [`Images::mount`].
    async fn mount_read_only(
        &self,
        image: &str,
        key: &str,
        target: &Utf8Path,
        owner: Option<&Owner>,
    ) -> Result<()>;

    /// Deletes the writable layer of `key`, whose mounts are gone, and lets go of its images.
    async fn remove_layer(&self, key: &str) -> Result<()>;

    /// Only these keys exist: layers of others are deleted.
    async fn retain_layers(&self, keys: &[String]) -> Result<()>;

    /// Bytes and inodes of the writable layer.
    async fn layer_usage(&self, key: &str) -> Result<(u64, u64)>;

    async fn pull(&self, request: &PullRequest) -> Result<String>;

    async fn status(&self, image: &str) -> Result<Option<ImageStatus>>;

    async fn list(&self) -> Result<Vec<ImageStatus>>;

    async fn remove(&self, image: &str) -> Result<()>;

    async fn filesystem(&self) -> Result<FilesystemUsage>;
}
