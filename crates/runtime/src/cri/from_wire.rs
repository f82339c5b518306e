//! From CRI's words to ours.

use std::net::IpAddr;

use camino::Utf8PathBuf;
use grpc::{Code, Status};
use jiff::Timestamp;
use serde::Deserialize;

use super::messages::{self, SANDBOX_READY, container_state, namespace_mode, propagation};
use super::to_wire::CONFIG_ANNOTATION;
use crate::Error;
use crate::spec::{
    ContainerState, ContainerStats, ContainerStatus, ImageStatus, Mount, Propagation, RunningUser,
    SandboxState, SandboxStatus,
};

/// Nanoseconds since 1970; zero is "never".
fn time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds != 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}

/// A number that is not negative.
fn unsigned<N: TryInto<u32>>(number: N) -> u32 {
    number.try_into().unwrap_or_default()
}

pub(super) fn sandbox_status(wire: messages::PodSandboxStatus) -> SandboxStatus {
    let metadata = wire.metadata.unwrap_or_default();
    let options = wire.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    let host_network = options.is_some_and(|options| options.network == namespace_mode::NODE);
    let network = wire.network.filter(|_| !host_network).unwrap_or_default();
    let addresses = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|each| each.ip));
    let mut annotations = wire.annotations;
    annotations.remove(CONFIG_ANNOTATION);
    SandboxStatus {
        id: wire.id,
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        state: if wire.state == SANDBOX_READY { SandboxState::Ready } else { SandboxState::NotReady },
        created_at: time(wire.created_at).unwrap_or_default(),
        addresses: addresses.filter_map(|address| address.parse::<IpAddr>().ok()).collect(),
        host_network,
        labels: wire.labels,
        annotations,
    }
}

pub(super) fn container_state(state: i32) -> ContainerState {
    match state {
        container_state::CREATED => ContainerState::Created,
        container_state::RUNNING => ContainerState::Running,
        container_state::EXITED => ContainerState::Exited,
        _ => ContainerState::Unknown,
    }
}

/// What runtimes tell under `info` where they are asked for more; other fields are their own business.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VerboseInfo {
    pid: u32,
}

pub(super) fn container_status(
    wire: messages::ContainerStatusResponse,
    sandbox_id: String,
) -> Option<ContainerStatus> {
    let info = wire.info.get("info").and_then(|info| serde_json::from_str::<VerboseInfo>(info).ok());
    let wire = wire.status?;
    let metadata = wire.metadata.unwrap_or_default();
    let image = wire.image.unwrap_or_default();
    let state = container_state(wire.state);
    let user = wire.user.and_then(|user| user.linux);
    Some(ContainerStatus {
        id: wire.id,
        sandbox_id,
        name: metadata.name,
        attempt: metadata.attempt,
        state,
        created_at: time(wire.created_at).unwrap_or_default(),
        started_at: time(wire.started_at),
        finished_at: time(wire.finished_at),
        exit_code: wire.exit_code,
        reason: wire.reason,
        message: wire.message,
        image: if wire.image_id.is_empty() { wire.image_ref.clone() } else { wire.image_id },
        image_reference: image.image,
        image_digest: wire.image_ref,
        labels: wire.labels,
        annotations: wire.annotations,
        log_path: wire.log_path.into(),
        mounts: wire.mounts.into_iter().map(mount).collect(),
        pid: info.filter(|_| state == ContainerState::Running).unwrap_or_default().pid,
        user: user.map(|user| RunningUser {
            uid: unsigned(user.uid),
            gid: unsigned(user.gid),
            supplemental_groups: user.supplemental_groups.into_iter().map(unsigned).collect(),
        }),
    })
}

fn mount(wire: messages::Mount) -> Mount {
    Mount {
        source: wire.host_path.into(),
        target: wire.container_path.into(),
        read_only: wire.readonly,
        recursive_read_only: wire.recursive_read_only,
        propagation: match wire.propagation {
            propagation::HOST_TO_CONTAINER => Propagation::HostToContainer,
            propagation::BIDIRECTIONAL => Propagation::Bidirectional,
            _ => Propagation::Private,
        },
        image: wire.image.map(|image| (image.image, Utf8PathBuf::from(wire.image_sub_path))),
    }
}

pub(super) fn container_stats(wire: messages::ContainerStats, sandbox_id: String) -> ContainerStats {
    let value = |value: Option<messages::UInt64Value>| value.map_or(0, |value| value.value);
    let attributes = wire.attributes.unwrap_or_default();
    let (cpu, memory) = (wire.cpu.unwrap_or_default(), wire.memory.unwrap_or_default());
    let layer = wire.writable_layer.unwrap_or_default();
    ContainerStats {
        id: attributes.id,
        sandbox_id,
        name: attributes.metadata.unwrap_or_default().name,
        labels: attributes.labels,
        cpu_usage: value(cpu.usage_core_nano_seconds),
        memory_working_set: value(memory.working_set_bytes),
        memory_usage: value(memory.usage_bytes),
        memory_rss: value(memory.rss_bytes),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        // CRI counts processes per pod only.
        processes: 0,
        writable_layer: (value(layer.used_bytes), value(layer.inodes_used)),
        at: time(cpu.timestamp).or(time(memory.timestamp)).unwrap_or_default(),
    }
}

pub(super) fn image_status(wire: messages::Image) -> ImageStatus {
    ImageStatus {
        id: wire.id,
        tags: wire.repo_tags,
        digests: wire.repo_digests,
        size: wire.size,
        uid: wire.uid.map(|uid| unsigned(uid.value)),
        username: wire.username,
        pinned: wire.pinned,
    }
}

pub(super) fn error(status: Status) -> Error {
    let text = status.to_string();
    match status.code {
        Code::NotFound => Error::NotFound(text),
        Code::DeadlineExceeded => Error::Timeout(text),
        _ => Error::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_in_the_hosts_network_has_no_address_of_its_own() {
        let status = |network| {
            let options = messages::NamespaceOption { network, ..Default::default() };
            sandbox_status(messages::PodSandboxStatus {
                network: Some(messages::PodSandboxNetworkStatus {
                    ip: "10.0.0.1".to_owned(),
                    additional_ips: vec![messages::PodIp { ip: "fd00::1".to_owned() }],
                }),
                linux: Some(messages::LinuxPodSandboxStatus {
                    namespaces: Some(messages::Namespace { options: Some(options) }),
                }),
                annotations: [(CONFIG_ANNOTATION, "{}"), ("a", "b")]
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .into(),
                ..Default::default()
            })
        };
        let own = status(namespace_mode::POD);
        assert_eq!(own.addresses, ["10.0.0.1", "fd00::1"].map(|address| address.parse::<IpAddr>().unwrap()));
        assert_eq!(own.annotations.into_keys().collect::<Vec<_>>(), ["a"]);
        let host = status(namespace_mode::NODE);
        assert!(host.host_network && host.addresses.is_empty());
    }

    #[test]
    fn an_images_id_and_a_process_are_told_where_the_runtime_tells_them() {
        let wire = |state, image_id: &str, info: &str| messages::ContainerStatusResponse {
            status: Some(messages::ContainerStatus {
                state,
                image_id: image_id.to_owned(),
                image_ref: "repo@sha256:ref".to_owned(),
                image: Some(messages::ImageSpec {
                    image: "repo:1".to_owned(),
                    user_specified_image: "r:1".to_owned(),
                }),
                started_at: 5,
                ..Default::default()
            }),
            info: [("info".to_owned(), info.to_owned())].into(),
        };
        let status = |wire| container_status(wire, "s1".to_owned()).unwrap();
        let running = status(wire(1, "sha256:id", "{\"pid\": 42, \"other\": []}"));
        assert_eq!((running.pid, running.image.as_str()), (42, "sha256:id"));
        assert_eq!(running.image_digest, "repo@sha256:ref");
        assert_eq!(running.image_reference, "repo:1");
        assert_eq!(running.started_at, Timestamp::from_nanosecond(5).ok());
        assert_eq!(running.finished_at, None);
        let exited = status(wire(2, "", "{\"pid\": 42}"));
        assert_eq!(
            (exited.pid, exited.image.as_str(), exited.state),
            (0, "repo@sha256:ref", ContainerState::Exited)
        );
        assert_eq!(status(wire(1, "", "no JSON")).pid, 0);
        assert_eq!(container_status(messages::ContainerStatusResponse::default(), String::new()), None);
    }

    #[test]
    fn errors_have_the_classes_that_a_node_reacts_to() {
        let class = |code| error(Status::new(code, "why"));
        assert!(
            matches!(class(Code::NotFound), Error::NotFound(text) if text == "rpc error: code = NotFound desc = why")
        );
        assert!(matches!(class(Code::DeadlineExceeded), Error::Timeout(_)));
        assert!(matches!(class(Code::Unavailable), Error::Failed(_)));
    }
}
