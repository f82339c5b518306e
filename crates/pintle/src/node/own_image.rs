//! The image of this very program, which a cluster has without any registry.
//!
//! Owns: what `pintle.dev/pintle`, with whatever tag, means on this node: this executable with the libraries that it
//! needs. It is made when it is first asked for, and anew when the executable is another one. Never touches: all other
//! images, which are the store's.

use std::collections::HashSet;

use async_trait::async_trait;
use camino::Utf8Path;
use image::Reference;
use image::build::Build;
use runtime::embedded::{ImageConfig, Images, Owner};
use runtime::spec::{FilesystemUsage, ImageStatus, PullRequest};
use runtime::{Error, Result};
use tokio::sync::Mutex;

/// The repository.
pub const NAME: &str = "pintle.dev/pintle";

/// Tells which executable an image was made from.
const EXECUTABLE: &str = "dev.pintle.executable";

/// A store in which this program is an image.
pub(super) struct OwnImage {
    store: image::Store,
    /// References that are known to be of this executable.
    made: Mutex<HashSet<String>>,
}

impl OwnImage {
    pub(super) fn new(store: image::Store) -> Self {
        Self { store, made: Mutex::default() }
    }

    fn is_own(image: &str) -> bool {
        image.strip_prefix(NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// Makes the image where it is missing or another executable's.
    async fn make(&self, image: &str) -> Result<()> {
        let mut made = self.made.lock().await;
        if made.contains(image) {
            return Ok(());
        }
        let failed = |error: &dyn std::fmt::Display| {
            Error::Failed(format!("making an image of this program: {error}"))
        };
        let reference: Reference = image.parse().map_err(|error: image::Error| failed(&error))?;
        let executable = executable().map_err(|error| failed(&error))?;
        let current = self.store.resolve(image).await.map_err(|error| failed(&error))?;
        if current.is_none_or(|current| current.config.labels.get(EXECUTABLE) != Some(&executable)) {
            let build =
                tokio::task::spawn_blocking(Build::of_this_process).await.map_err(|error| failed(&error))?;
            let mut build = build.map_err(|error| failed(&error))?;
            build.config.labels.insert(EXECUTABLE.to_owned(), executable);
            self.store.build(build, &reference).await.map_err(|error| failed(&error))?;
        }
        made.insert(image.to_owned());
        Ok(())
    }
}

/// What changes with the executable: its size and when it was written.
fn executable() -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata("/proc/self/exe")?;
    Ok(format!("{}-{}.{}", metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

#[async_trait]
impl Images for OwnImage {
    async fn config(&self, image: &str) -> Result<ImageConfig> {
        Images::config(&self.store, image).await
    }

    async fn mount(&self, image: &str, key: &str, target: &Utf8Path, owner: Option<&Owner>) -> Result<()> {
        Images::mount(&self.store, image, key, target, owner).await
    }

    async fn mount_read_only(
        &self,
        image: &str,
        key: &str,
        target: &Utf8Path,
        owner: Option<&Owner>,
    ) -> Result<()> {
        self.store.mount_read_only(image, key, target, owner).await
    }

    async fn remove_layer(&self, key: &str) -> Result<()> {
        self.store.remove_layer(key).await
    }

    async fn retain_layers(&self, keys: &[String]) -> Result<()> {
        self.store.retain_layers(keys).await
    }

    async fn layer_usage(&self, key: &str) -> Result<(u64, u64)> {
        self.store.layer_usage(key).await
    }

    async fn pull(&self, request: &PullRequest) -> Result<String> {
        if Self::is_own(&request.image) {
            self.make(&request.image).await?;
            let status = Images::status(&self.store, &request.image).await?;
            return status.map(|status| status.id).ok_or_else(|| Error::NotFound(request.image.clone()));
        }
        Images::pull(&self.store, request).await
    }

    async fn status(&self, image: &str) -> Result<Option<ImageStatus>> {
        if Self::is_own(image) {
            self.make(image).await?;
        }
        Images::status(&self.store, image).await
    }

    async fn list(&self) -> Result<Vec<ImageStatus>> {
        Images::list(&self.store).await
    }

    async fn remove(&self, image: &str) -> Result<()> {
        self.made.lock().await.clear();
        Images::remove(&self.store, image).await
    }

    async fn filesystem(&self) -> Result<FilesystemUsage> {
        Images::filesystem(&self.store).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_repository_is_made_here() {
        for (image, own) in
            [(NAME, true), ("pintle.dev/pintle:1", true), ("pintle.dev/pintle2:1", false), ("nginx", false)]
        {
            assert_eq!(OwnImage::is_own(image), own, "{image}");
        }
    }
}
