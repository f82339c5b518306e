//! A driver behind its socket: one call of [`CsiDriver`] is one call of CSI's node service, with a time limit.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8Path;
use grpc::{Client, Code, Options, Status};
use prost::Message;

use super::contract::{Abilities, CsiDriver, CsiVolume, Measured, NotExpanded};
use super::messages::{
    self, AccessMode, AccessType, Capabilities, CapacityRange, ExpandRequest, MountVolume, NodeInfo, Nothing,
    PublishRequest, StageRequest, StatsRequest, StatsResponse, UndoRequest, VolumeCapability, VolumeUsage,
    capability, mode, unit,
};

/// A call that is not answered within this time has failed, and is made again later.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

pub struct SocketDriver {
    client: Client,
    timeout: Duration,
}

impl SocketDriver {
    pub fn new(socket: &Utf8Path) -> Self {
        Self { client: Client::unix(socket), timeout: CALL_TIMEOUT }
    }

    #[cfg(test)]
    pub fn with_timeout(socket: &Utf8Path, timeout: Duration) -> Self {
        Self { timeout, ..Self::new(socket) }
    }

    async fn call<A: Message + Default>(&self, path: &str, request: &impl Message) -> Result<A, Status> {
        self.client.unary(path, request, Options::timeout(self.timeout)).await
    }

    /// Which node this is to the driver.
    ///
    /// # Errors
    /// The driver's, or that there was no answer.
    pub async fn info(&self) -> Result<NodeInfo, Status> {
        self.call(messages::GET_INFO, &Nothing {}).await
    }

    async fn capabilities(&self) -> Result<Vec<i32>, String> {
        let answer = self.call::<Capabilities>(messages::GET_CAPABILITIES, &Nothing {}).await;
        let answer = answer.map_err(text)?;
        Ok(answer.capabilities.into_iter().filter_map(|own| own.rpc).map(|own| own.r#type).collect())
    }
}

fn text(status: Status) -> String {
    status.to_string()
}

fn map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What is asked of a volume. Drivers that cannot tell one writer from several on a node hear `SINGLE_NODE_WRITER`.
fn volume_capability(volume: &CsiVolume, capabilities: &[i32]) -> VolumeCapability {
    let tells_writers = capabilities.contains(&capability::SINGLE_NODE_MULTI_WRITER);
    let mode = match (volume.access_mode.as_str(), tells_writers) {
        ("ReadWriteOnce", true) => mode::SINGLE_NODE_MULTI_WRITER,
        ("ReadWriteOncePod", true) => mode::SINGLE_NODE_SINGLE_WRITER,
        ("ReadWriteOnce" | "ReadWriteOncePod", false) => mode::SINGLE_NODE_WRITER,
        ("ReadOnlyMany", _) => mode::MULTI_NODE_READER_ONLY,
        ("ReadWriteMany", _) => mode::MULTI_NODE_MULTI_WRITER,
        _ => mode::UNKNOWN,
    };
    let group = volume.mount_group.filter(|_| capabilities.contains(&capability::VOLUME_MOUNT_GROUP));
    let access_type = if volume.block {
        AccessType::Block(Nothing {})
    } else {
        AccessType::Mount(MountVolume {
            fs_type: volume.fs_type.clone(),
            mount_flags: volume.mount_flags.clone(),
            volume_mount_group: group.map(|own| own.to_string()).unwrap_or_default(),
        })
    };
    VolumeCapability { access_type: Some(access_type), access_mode: Some(AccessMode { mode }) }
}

#[async_trait]
impl CsiDriver for SocketDriver {
    async fn abilities(&self) -> Result<Abilities, String> {
        let own = self.capabilities().await?;
        Ok(Abilities {
            stages: own.contains(&capability::STAGE_UNSTAGE_VOLUME),
            measures: own.contains(&capability::GET_VOLUME_STATS),
            expands: own.contains(&capability::EXPAND_VOLUME),
            mounts_groups: own.contains(&capability::VOLUME_MOUNT_GROUP),
        })
    }

    async fn stage(&self, volume: &CsiVolume, staging: &Utf8Path) -> Result<(), String> {
        let capabilities = self.capabilities().await?;
        let request = StageRequest {
            volume_id: volume.handle.clone(),
            publish_context: map(&volume.publish_context),
            staging_target_path: staging.to_string(),
            volume_capability: Some(volume_capability(volume, &capabilities)),
            secrets: map(&volume.secrets),
            volume_context: map(&volume.attributes),
        };
        self.call::<Nothing>(messages::STAGE, &request).await.map(drop).map_err(text)
    }

    async fn unstage(&self, handle: &str, staging: &Utf8Path) -> Result<(), String> {
        let request = UndoRequest { volume_id: handle.to_owned(), path: staging.to_string() };
        self.call::<Nothing>(messages::UNSTAGE, &request).await.map(drop).map_err(text)
    }

    async fn publish(
        &self,
        volume: &CsiVolume,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
    ) -> Result<(), String> {
        let capabilities = self.capabilities().await?;
        let request = PublishRequest {
            volume_id: volume.handle.clone(),
            publish_context: map(&volume.publish_context),
            staging_target_path: staging.map(ToString::to_string).unwrap_or_default(),
            target_path: target.to_string(),
            volume_capability: Some(volume_capability(volume, &capabilities)),
            readonly: volume.read_only,
            secrets: map(&volume.secrets),
            volume_context: map(&volume.attributes),
        };
        self.call::<Nothing>(messages::PUBLISH, &request).await.map(drop).map_err(text)
    }

    async fn unpublish(&self, handle: &str, target: &Utf8Path) -> Result<(), String> {
        let request = UndoRequest { volume_id: handle.to_owned(), path: target.to_string() };
        self.call::<Nothing>(messages::UNPUBLISH, &request).await.map(drop).map_err(text)
    }

    async fn expand(
        &self,
        volume: &CsiVolume,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
        bytes: i64,
    ) -> Result<(), NotExpanded> {
        let capabilities = self.capabilities().await;
        let capabilities = capabilities.map_err(|message| NotExpanded { message, is_final: false })?;
        let request = ExpandRequest {
            volume_id: volume.handle.clone(),
            volume_path: target.to_string(),
            capacity_range: Some(CapacityRange { required_bytes: bytes }),
            staging_target_path: staging.map(ToString::to_string).unwrap_or_default(),
            volume_capability: Some(volume_capability(volume, &capabilities)),
            secrets: map(&volume.secrets),
        };
        let expanded = self.call::<Nothing>(messages::EXPAND, &request).await;
        expanded.map(drop).map_err(|status| NotExpanded {
            is_final: matches!(status.code, Code::InvalidArgument | Code::OutOfRange | Code::NotFound),
            message: text(status),
        })
    }

    async fn measure(
        &self,
        handle: &str,
        staging: Option<&Utf8Path>,
        target: &Utf8Path,
    ) -> Result<Measured, String> {
        let request = StatsRequest {
            volume_id: handle.to_owned(),
            volume_path: target.to_string(),
            staging_target_path: staging.map(ToString::to_string).unwrap_or_default(),
        };
        let answer = self.call::<StatsResponse>(messages::GET_STATS, &request).await.map_err(text)?;
        measured(&answer)
    }
}

fn measured(answer: &StatsResponse) -> Result<Measured, String> {
    if answer.usage.is_empty() {
        return Err("failed to get usage from response. usage is nil".to_owned());
    }
    let mut measured =
        Measured { is_abnormal: answer.condition.as_ref().map(|own| own.abnormal), ..Measured::default() };
    let amount = |own: i64| u64::try_from(own).unwrap_or_default();
    let own = &mut measured.filesystem;
    for VolumeUsage { available, total, used, unit } in &answer.usage {
        let (available, total, used) = (amount(*available), amount(*total), amount(*used));
        match *unit {
            unit::BYTES => {
                (own.available_bytes, own.capacity_bytes, own.used_bytes) = (available, total, used);
            }
            unit::INODES => (own.free_inodes, own.inodes, own.used_inodes) = (available, total, used),
            other => return Err(format!("unknown unit {other} in a volume's usage")),
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::stats::Filesystem;

    #[test]
    fn what_a_driver_says_of_a_volume_is_read_by_its_units() {
        let usage = |available, total, used, unit| VolumeUsage { available, total, used, unit };
        let answer = StatsResponse {
            usage: vec![usage(1, 3, 2, unit::BYTES), usage(-1, 30, 20, unit::INODES)],
            condition: Some(messages::VolumeCondition { abnormal: true, message: "old".into() }),
        };
        let filesystem = Filesystem {
            available_bytes: 1,
            capacity_bytes: 3,
            used_bytes: 2,
            free_inodes: 0,
            inodes: 30,
            used_inodes: 20,
        };
        assert_eq!(measured(&answer), Ok(Measured { filesystem, is_abnormal: Some(true) }));
        measured(&StatsResponse::default()).expect_err("nothing is said");
        let odd = StatsResponse { usage: vec![usage(1, 1, 1, 7)], condition: None };
        assert_eq!(measured(&odd), Err("unknown unit 7 in a volume's usage".to_owned()));
    }

    #[test]
    fn a_driver_hears_of_writers_what_it_can_tell_apart() {
        let tells = [capability::SINGLE_NODE_MULTI_WRITER];
        for (mode_name, capabilities, wanted) in [
            ("ReadWriteOnce", &tells[..], 7),
            ("ReadWriteOncePod", &tells[..], 6),
            ("ReadWriteOnce", &[][..], 1),
            ("ReadWriteOncePod", &[][..], 1),
            ("ReadOnlyMany", &tells[..], 3),
            ("ReadWriteMany", &[][..], 5),
            ("", &[][..], 0),
        ] {
            let volume = CsiVolume { access_mode: mode_name.to_owned(), ..CsiVolume::default() };
            let made = volume_capability(&volume, capabilities);
            assert_eq!(made.access_mode.map(|own| own.mode), Some(wanted), "{mode_name}");
        }
        let volume = CsiVolume { mount_group: Some(7), ..CsiVolume::default() };
        let group = |capabilities: &[i32]| match volume_capability(&volume, capabilities).access_type {
            Some(AccessType::Mount(own)) => own.volume_mount_group,
            other => panic!("{other:?}"),
        };
        assert_eq!((group(&[]).as_str(), group(&[capability::VOLUME_MOUNT_GROUP]).as_str()), ("", "7"));
        let block = CsiVolume { block: true, ..CsiVolume::default() };
        assert!(matches!(volume_capability(&block, &[]).access_type, Some(AccessType::Block(_))));
    }
}
