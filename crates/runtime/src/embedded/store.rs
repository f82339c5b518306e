//! Images of the content store of crate `image`, as the runtime asks for them.
//!
//! A container's writable layer is the snapshot with its ID; images among its mounts are snapshots whose names begin with
//! its ID and a full stop.

use std::collections::HashSet;
use std::error::Error as _;

use async_trait::async_trait;
use camino::Utf8Path;
use image::registry::Credential;
use image::{ImageRecord, Pull, Rootfs, Store};

use super::blocking;
use super::images::{ImageConfig, Images};
use crate::spec::{FilesystemUsage, ImageStatus, PullRequest};
use crate::{Error, Result};

/// Between the ID of a container and what tells its mounts apart.
const SEPARATOR: char = '.';

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

    async fn mount(&self, image: &str, key: &str, target: &Utf8Path) -> Result<()> {
        mount(self.prepare(image, key).await.map_err(translate)?, target, false).await
    }

    async fn mount_read_only(&self, image: &str, key: &str, target: &Utf8Path) -> Result<()> {
        let name = target.file_name().unwrap_or_default();
        let view = self.view(image, &format!("{key}{SEPARATOR}{name}")).await.map_err(translate)?;
        mount(view, target, true).await
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

async fn mount(root: Rootfs, target: &Utf8Path, read_only: bool) -> Result<()> {
    let target = target.to_owned();
    let mounted = blocking(move || Ok(root.mount(&target, read_only))).await;
    mounted.map_err(|error| Error::Failed(error.to_string()))?.map_err(translate)
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
        let source = std::io::ErrorKind::NotFound.into();
        let io = translate(image::Error::Io { operation: "read x".into(), source });
        assert_eq!(io.to_string(), "read x: entity not found");
    }
}
