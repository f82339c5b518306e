//! Images of the content store of crate `image`, as the runtime asks for them.
//!
//! A container's writable layer is the snapshot with its ID; images among its mounts are snapshots whose names begin with
//! its ID and a full stop.

use std::collections::HashSet;
use std::error::Error as _;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use image::registry::Credential;
use image::{ImageRecord, Pull, Rootfs, Store};

use super::blocking;
use super::images::{ImageConfig, Images};
use super::user_namespace::Owner;
use crate::spec::{FilesystemUsage, ImageStatus, PullRequest};
use crate::{Error, Result};

/// Between the ID of a container and what tells its mounts apart.
const SEPARATOR: char = '.';
/// What the name of the folder ends with in which layers are mounted while a root is put together.
const LAYERS: &str = ".layers";

#[async_trait]
impl Images for Store {
    async fn config(&self, image: &str) -> Result<ImageConfig> {
        let record = self.resolve(image).await.map_err(translate)?;
        let record = record.ok_or_else(|| Error::NotFound(format!("image \"{image}\" is not present")))?;
        let config = record.config;
        Ok(ImageConfig {
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            env: config.env,
            working_dir: config.working_dir,
            user: config.user,
            stop_signal: config.stop_signal,
        })
    }

    async fn mount(&self, image: &str, key: &str, target: &Utf8Path, owner: Option<&Owner>) -> Result<()> {
        mount(self.prepare(image, key).await.map_err(translate)?, target, false, owner).await
    }

    async fn mount_read_only(
        &self,
        image: &str,
        key: &str,
        target: &Utf8Path,
        owner: Option<&Owner>,
    ) -> Result<()> {
        let name = target.file_name().unwrap_or_default();
        let view = self.view(image, &format!("{key}{SEPARATOR}{name}")).await.map_err(translate)?;
        mount(view, target, true, owner).await
    }

    async fn remove_layer(&self, key: &str) -> Result<()> {
        self.remove_snapshot(key).await.map_err(translate)?;
        for own in self.snapshot_keys().await.map_err(translate)? {
            if owner(&own) == key {
                self.remove_snapshot(&own).await.map_err(translate)?;
            }
        }
        Ok(())
    }

    async fn retain_layers(&self, keys: &[String]) -> Result<()> {
        let keys: HashSet<&str> = keys.iter().map(String::as_str).collect();
        for own in self.snapshot_keys().await.map_err(translate)? {
            if !keys.contains(owner(&own)) {
                self.remove_snapshot(&own).await.map_err(translate)?;
            }
        }
        Ok(())
    }

    async fn layer_usage(&self, key: &str) -> Result<(u64, u64)> {
        let usage = self.usage(key).await.map_err(translate)?;
        Ok((usage.bytes, usage.inodes))
    }

    async fn pull(&self, request: &PullRequest) -> Result<String> {
        let mut pull = Pull {
            credentials: request
                .credentials
                .iter()
                .map(|credential| Credential {
                    username: credential.username.clone(),
                    password: credential.password.clone(),
                    identity_token: String::new(),
                    registry_token: credential.token.clone(),
                })
                .collect(),
            ..Pull::default()
        };
        if let Some(timeout) = request.stall_timeout {
            pull.stall_timeout = timeout;
        }
        Ok(Self::pull(self, &request.image, pull).await.map_err(translate)?.id)
    }

    async fn status(&self, image: &str) -> Result<Option<ImageStatus>> {
        let found = self.resolve(image).await.map_err(translate)?;
        if found.is_none() {
            // What names no image at all is not merely absent.
            image.parse::<image::Reference>().map_err(translate)?;
        }
        Ok(found.map(status))
    }

    async fn list(&self) -> Result<Vec<ImageStatus>> {
        Ok(self.images().await.map_err(translate)?.into_iter().map(status).collect())
    }

    async fn remove(&self, image: &str) -> Result<()> {
        match Store::remove(self, image).await {
            // What is gone is removed.
            Err(image::Error::NotFound(_)) => Ok(()),
            outcome => outcome.map_err(translate),
        }
    }

    async fn filesystem(&self) -> Result<FilesystemUsage> {
        let filesystem = Store::filesystem(self).await.map_err(translate)?;
        Ok(FilesystemUsage {
            path: filesystem.path,
            used_bytes: filesystem.used_bytes,
            capacity_bytes: filesystem.capacity_bytes,
            available_bytes: filesystem.available_bytes,
            used_inodes: filesystem.used_inodes,
            inodes: filesystem.inodes,
        })
    }
}

async fn mount(root: Rootfs, target: &Utf8Path, read_only: bool, owner: Option<&Owner>) -> Result<()> {
    let (target, owner) = (target.to_owned(), owner.cloned());
    let mounted = blocking(move || match owner {
        Some(owner) => mount_owned(root, &target, read_only, &owner),
        None => Ok(root.mount(&target, read_only)),
    });
    mounted.await.map_err(|error| Error::Failed(error.to_string()))?.map_err(translate)
}

/// Overlayfs cannot show owners as others itself, but the layers below it can; they are mounted so until it is.
fn mount_owned(
    mut root: Rootfs,
    target: &Utf8Path,
    read_only: bool,
    owner: &Owner,
) -> io::Result<image::Result<()>> {
    let layers = Utf8PathBuf::from(format!("{target}{LAYERS}"));
    std::fs::create_dir_all(&layers)?;
    let mounted: io::Result<_> = (|| {
        if let (Some(upper), Some(top)) = (&root.upper, root.lower.first()) {
            give_like(top, upper, owner)?;
        }
        for (index, lower) in root.lower.iter_mut().enumerate() {
            let own = layers.join(index.to_string());
            owner.mount(lower, &own)?;
            *lower = own;
        }
        Ok(root.mount(target, read_only))
    })();
    let cleared = super::clear(&layers);
    let mounted = mounted?;
    cleared.map(|()| mounted)
}

/// Gives the folder on top to whom the topmost of the image is: it is the root that a container sees.
fn give_like(top: &Utf8Path, upper: &Utf8Path, owner: &Owner) -> io::Result<()> {
    let metadata = std::fs::metadata(top)?;
    match (owner.host_id(metadata.uid()), owner.host_id(metadata.gid())) {
        (Some(uid), Some(gid)) => chown(upper, Some(uid), Some(gid)),
        _ => owner.give(upper),
    }
}

/// The container that a snapshot belongs to.
fn owner(key: &str) -> &str {
    key.split(SEPARATOR).next().unwrap_or(key)
}

fn status(record: ImageRecord) -> ImageStatus {
    let user = record.config.user.split(':').next().unwrap_or_default();
    let uid = user.parse().ok();
    ImageStatus {
        uid,
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        id: record.id,
        tags: record.tags,
        digests: record.digests,
        size: record.size,
        pinned: false,
    }
}

fn translate(error: image::Error) -> Error {
    let message = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    match error {
        image::Error::InvalidName { .. } => Error::Refused { reason: "InvalidImageName", message },
        image::Error::NotFound(_) => Error::NotFound(message),
        image::Error::Stalled(_) => Error::Timeout(message),
        _ => Error::Failed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_belong_to_the_container_whose_id_they_begin_with() {
        for (key, want) in [("abc", "abc"), ("abc.0", "abc"), ("abcd.0", "abcd")] {
            assert_eq!(owner(key), want);
        }
    }

    #[test]
    fn errors_keep_what_a_node_tells_apart() {
        let name = translate(image::Error::InvalidName { name: "A".into(), problem: "x".into() });
        assert!(matches!(name, Error::Refused { reason: "InvalidImageName", .. }));
        assert!(matches!(translate(image::Error::Stalled("s".into())), Error::Timeout(_)));
        let source = io::ErrorKind::NotFound.into();
        let io = translate(image::Error::Io { operation: "read x".into(), source });
        assert_eq!(io.to_string(), "read x: entity not found");
    }
}
