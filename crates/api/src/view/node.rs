//! `v1.Node`: what the scheduler, the node agent and the controllers read of it.

use apimachinery::Str;
use serde::Deserialize;

use super::{Condition, ObjectMeta, ResourceList};

/// `v1.Node`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    pub metadata: ObjectMeta,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

/// `v1.NodeSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Str,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<Str>,
    #[serde(rename = "providerID")]
    pub provider_id: Str,
    /// Cordoned.
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
}

/// `v1.Taint`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Taint {
    pub key: Str,
    pub value: Str,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: Str,
    pub time_added: Option<Str>,
}

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    pub capacity: ResourceList,
    pub allocatable: ResourceList,
    pub conditions: Vec<Condition>,
    pub addresses: Vec<NodeAddress>,
    pub images: Vec<ContainerImage>,
    pub node_info: NodeSystemInfo,
    pub declared_features: Vec<Str>,
}

/// `v1.NodeAddress`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, …
    #[serde(rename = "type")]
    pub type_: Str,
    pub address: Str,
}

/// `v1.ContainerImage`: an image present on the node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerImage {
    pub names: Vec<Str>,
    pub size_bytes: i64,
}

/// `v1.NodeSystemInfo`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSystemInfo {
    pub kubelet_version: Str,
    pub architecture: Str,
    pub operating_system: Str,
}

/// KWOK's mark of a node that no machine stands behind, and what it says.
pub const SIMULATED_ANNOTATION: &str = "kwok.x-k8s.io/node";
pub const SIMULATED: &str = "fake";

impl Node {
    /// Simulated, whoever made it.
    pub fn is_simulated(&self) -> bool {
        self.metadata.annotations.get(SIMULATED_ANNOTATION).is_some_and(|value| value == SIMULATED)
    }

    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// The `Ready` condition is true.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(Condition::is_true)
    }

    /// The first address of a type; `None` when the node has none.
    pub fn address(&self, type_: &str) -> Option<&str> {
        self.status
            .addresses
            .iter()
            .find(|address| address.type_ == type_)
            .map(|address| address.address.as_str())
    }
}
