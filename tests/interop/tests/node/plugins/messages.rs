//! What plugins and nodes say to each other, as far as these plugins use it.

use std::collections::HashMap;

use prost::Message;

pub const GET_INFO: &str = "/pluginregistration.Registration/GetInfo";
pub const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";

#[derive(Clone, PartialEq, Message)]
pub struct InfoRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct PluginInfo {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub supported_versions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    pub plugin_registered: bool,
    #[prost(string, tag = "2")]
    pub error: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct RegistrationStatusResponse {}

#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

/// `csi.v1`
pub mod csi {
    use super::{HashMap, Message};

    #[derive(Clone, PartialEq, Message)]
    pub struct NodeInfo {
        #[prost(string, tag = "1")]
        pub node_id: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Capabilities {
        #[prost(message, repeated, tag = "1")]
        pub capabilities: Vec<Capability>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Capability {
        #[prost(message, optional, tag = "1")]
        pub rpc: Option<Rpc>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Rpc {
        #[prost(int32, tag = "1")]
        pub r#type: i32,
    }

    /// Of staging: the target of publishing has another number.
    #[derive(Clone, PartialEq, Message)]
    pub struct Stage {
        #[prost(string, tag = "1")]
        pub volume_id: String,
        #[prost(string, tag = "3")]
        pub staging_target_path: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Undo {
        #[prost(string, tag = "1")]
        pub volume_id: String,
        #[prost(string, tag = "2")]
        pub path: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Publish {
        #[prost(string, tag = "1")]
        pub volume_id: String,
        #[prost(string, tag = "3")]
        pub staging_target_path: String,
        #[prost(string, tag = "4")]
        pub target_path: String,
        #[prost(map = "string, string", tag = "8")]
        pub volume_context: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Expand {
        #[prost(string, tag = "1")]
        pub volume_id: String,
        #[prost(string, tag = "2")]
        pub volume_path: String,
        #[prost(message, optional, tag = "3")]
        pub capacity_range: Option<CapacityRange>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct CapacityRange {
        #[prost(int64, tag = "1")]
        pub required_bytes: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Stats {
        #[prost(message, repeated, tag = "1")]
        pub usage: Vec<Usage>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Usage {
        #[prost(int64, tag = "1")]
        pub available: i64,
        #[prost(int64, tag = "2")]
        pub total: i64,
        #[prost(int64, tag = "3")]
        pub used: i64,
        #[prost(int32, tag = "4")]
        pub unit: i32,
    }
}

/// `v1beta1` of device plugins
pub mod devices {
    use super::{HashMap, Message};

    #[derive(Clone, PartialEq, Message)]
    pub struct Register {
        #[prost(string, tag = "1")]
        pub version: String,
        #[prost(string, tag = "2")]
        pub endpoint: String,
        #[prost(string, tag = "3")]
        pub resource_name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct DeviceList {
        #[prost(message, repeated, tag = "1")]
        pub devices: Vec<Device>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Device {
        #[prost(string, tag = "1")]
        pub id: String,
        #[prost(string, tag = "2")]
        pub health: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Allocate {
        #[prost(message, repeated, tag = "1")]
        pub containers: Vec<Ids>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Ids {
        #[prost(string, repeated, tag = "1")]
        pub ids: Vec<String>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Allocated {
        #[prost(message, repeated, tag = "1")]
        pub containers: Vec<OfContainer>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct OfContainer {
        #[prost(map = "string, string", tag = "1")]
        pub envs: HashMap<String, String>,
        #[prost(message, repeated, tag = "2")]
        pub mounts: Vec<Mount>,
        #[prost(message, repeated, tag = "3")]
        pub devices: Vec<DeviceSpec>,
        #[prost(message, repeated, tag = "5")]
        pub cdi_devices: Vec<CdiDevice>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Mount {
        #[prost(string, tag = "1")]
        pub container_path: String,
        #[prost(string, tag = "2")]
        pub host_path: String,
        #[prost(bool, tag = "3")]
        pub read_only: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct DeviceSpec {
        #[prost(string, tag = "1")]
        pub container_path: String,
        #[prost(string, tag = "2")]
        pub host_path: String,
        #[prost(string, tag = "3")]
        pub permissions: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct CdiDevice {
        #[prost(string, tag = "1")]
        pub name: String,
    }
}

/// `dra.v1`
pub mod dynamic_resources {
    use super::{HashMap, Message};

    #[derive(Clone, PartialEq, Message)]
    pub struct Claims {
        #[prost(message, repeated, tag = "1")]
        pub claims: Vec<Claim>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Claim {
        #[prost(string, tag = "2")]
        pub uid: String,
        #[prost(string, tag = "3")]
        pub name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Prepared {
        #[prost(map = "string, message", tag = "1")]
        pub claims: HashMap<String, PreparedClaim>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PreparedClaim {
        #[prost(message, repeated, tag = "1")]
        pub devices: Vec<Device>,
        #[prost(string, tag = "2")]
        pub error: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Device {
        #[prost(string, repeated, tag = "1")]
        pub request_names: Vec<String>,
        #[prost(string, tag = "2")]
        pub pool_name: String,
        #[prost(string, tag = "3")]
        pub device_name: String,
        #[prost(string, repeated, tag = "4")]
        pub cdi_device_ids: Vec<String>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Unprepared {
        #[prost(map = "string, message", tag = "1")]
        pub claims: HashMap<String, UnpreparedClaim>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct UnpreparedClaim {
        #[prost(string, tag = "1")]
        pub error: String,
    }
}
