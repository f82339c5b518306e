//! The runtime itself, and what it tells unasked.

use prost::Message;

use super::{ContainerStatus, PodSandboxStatus};

/// `CgroupDriver`
pub(in crate::cri) const CGROUP_DRIVER_SYSTEMD: i32 = 0;

/// `ContainerEventType`
pub(in crate::cri) mod event_type {
    pub const STARTED: i32 = 1;
    pub const STOPPED: i32 = 2;
    pub const DELETED: i32 = 3;
}

/// An answer that holds nothing, or nothing of interest.
#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct Nothing {}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct VersionRequest {
    #[prost(string, tag = "1")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct RuntimeCondition {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(bool, tag = "2")]
    pub status: bool,
    #[prost(string, tag = "3")]
    pub reason: String,
    #[prost(string, tag = "4")]
    pub message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    pub conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct RuntimeHandlerFeatures {
    #[prost(bool, tag = "1")]
    pub recursive_read_only_mounts: bool,
    #[prost(bool, tag = "2")]
    pub user_namespaces: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct RuntimeHandler {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub features: Option<RuntimeHandlerFeatures>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct RuntimeFeatures {
    #[prost(bool, tag = "1")]
    pub supplemental_groups_policy: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<RuntimeStatus>,
    #[prost(message, repeated, tag = "3")]
    pub runtime_handlers: Vec<RuntimeHandler>,
    #[prost(message, optional, tag = "4")]
    pub features: Option<RuntimeFeatures>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct RuntimeConfigRequest {}

#[derive(Clone, Copy, PartialEq, Message)]
pub(in crate::cri) struct LinuxRuntimeConfiguration {
    #[prost(int32, tag = "1")]
    pub cgroup_driver: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(in crate::cri) struct RuntimeConfigResponse {
    #[prost(message, optional, tag = "1")]
    pub linux: Option<LinuxRuntimeConfiguration>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct GetEventsRequest {}

#[derive(Clone, PartialEq, Message)]
pub(in crate::cri) struct ContainerEventResponse {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(int32, tag = "2")]
    pub container_event_type: i32,
    #[prost(message, optional, tag = "4")]
    pub pod_sandbox_status: Option<PodSandboxStatus>,
    #[prost(message, repeated, tag = "5")]
    pub containers_statuses: Vec<ContainerStatus>,
}
