//! Devices: what there are, what is asked for and what was given.

use std::collections::BTreeMap;

use apimachinery::{Quantity, Str};
use serde::Deserialize;

use super::{Condition, NodeSelector, ObjectMeta};

/// `resource/v1.DeviceClass`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceClass {
    pub metadata: ObjectMeta,
    pub spec: DeviceClassSpec,
}

/// `resource/v1.DeviceClassSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceClassSpec {
    pub selectors: Vec<DeviceSelector>,
    /// The extended resource that pods can ask for instead of making a claim.
    pub extended_resource_name: Option<Str>,
}

/// `resource/v1.DeviceSelector`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceSelector {
    pub cel: Option<CelDeviceSelector>,
}

/// `resource/v1.CELDeviceSelector`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CelDeviceSelector {
    pub expression: Str,
}

/// `resource/v1.ResourceSlice`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceSlice {
    pub metadata: ObjectMeta,
    pub spec: ResourceSliceSpec,
}

/// `resource/v1.ResourceSliceSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceSliceSpec {
    pub driver: Str,
    pub pool: ResourcePool,
    pub node_name: Option<Str>,
    pub node_selector: Option<NodeSelector>,
    pub all_nodes: bool,
    /// Each device says for itself where it can be reached.
    pub per_device_node_selection: bool,
    pub devices: Vec<Device>,
    /// A slice has these or devices, never both.
    pub shared_counters: Vec<CounterSet>,
}

/// `resource/v1.ResourcePool`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourcePool {
    pub name: Str,
    /// Slices of an older one are on their way out.
    pub generation: i64,
    /// How many slices of this generation make the pool whole.
    pub resource_slice_count: i64,
}

/// `resource/v1.Device`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    pub name: Str,
    /// By name, with or without a domain; without one it is the driver's.
    pub attributes: BTreeMap<Str, DeviceAttribute>,
    pub capacity: BTreeMap<Str, DeviceCapacity>,
    pub consumes_counters: Vec<DeviceCounterConsumption>,
    pub node_name: Option<Str>,
    pub node_selector: Option<NodeSelector>,
    pub all_nodes: bool,
    pub taints: Vec<DeviceTaint>,
    /// Once given away it can be reached from one node only.
    pub binds_to_node: bool,
    pub binding_conditions: Vec<Str>,
    pub binding_failure_conditions: Vec<Str>,
    /// Its capacity is shared out.
    pub allow_multiple_allocations: bool,
}

/// `resource/v1.DeviceAttribute`: one of them is set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceAttribute {
    pub int: Option<i64>,
    pub bool: Option<bool>,
    pub string: Option<Str>,
    pub version: Option<Str>,
}

/// `resource/v1.DeviceCapacity`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceCapacity {
    pub value: Quantity,
    pub request_policy: Option<CapacityRequestPolicy>,
}

/// `resource/v1.CapacityRequestPolicy`: what one share may be.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CapacityRequestPolicy {
    pub default: Option<Quantity>,
    /// In ascending order.
    pub valid_values: Vec<Quantity>,
    pub valid_range: Option<CapacityRequestPolicyRange>,
}

/// `resource/v1.CapacityRequestPolicyRange`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CapacityRequestPolicyRange {
    pub min: Option<Quantity>,
    pub max: Option<Quantity>,
    pub step: Option<Quantity>,
}

/// `resource/v1.CounterSet`: what several devices of a pool draw on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CounterSet {
    pub name: Str,
    pub counters: BTreeMap<Str, Counter>,
}

/// `resource/v1.DeviceCounterConsumption`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceCounterConsumption {
    pub counter_set: Str,
    pub counters: BTreeMap<Str, Counter>,
}

/// `resource/v1.Counter`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Counter {
    pub value: Quantity,
}

/// `resource/v1.DeviceTaint`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceTaint {
    pub key: Str,
    pub value: Str,
    /// `None`, `NoSchedule` or `NoExecute`.
    pub effect: Str,
    pub time_added: Option<Str>,
}

/// `resource/v1.DeviceToleration`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceToleration {
    pub key: Str,
    pub operator: Str,
    pub value: Str,
    pub effect: Str,
    pub toleration_seconds: Option<i64>,
}

/// `resource/v1.ResourceClaim`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceClaim {
    pub metadata: ObjectMeta,
    pub spec: ResourceClaimSpec,
    pub status: ResourceClaimStatus,
}

/// `resource/v1.ResourceClaimSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceClaimSpec {
    pub devices: DeviceClaim,
}

/// `resource/v1.DeviceClaim`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceClaim {
    pub requests: Vec<DeviceRequest>,
    pub constraints: Vec<DeviceConstraint>,
}

/// `resource/v1.DeviceRequest`: exactly this, or the first of these that can be had.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceRequest {
    pub name: Str,
    pub exactly: Option<ExactDeviceRequest>,
    pub first_available: Vec<ExactDeviceRequest>,
}

/// `resource/v1.ExactDeviceRequest` and `resource/v1.DeviceSubRequest`, which differ in two fields.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ExactDeviceRequest {
    /// Of a subrequest only.
    pub name: Str,
    pub device_class_name: Str,
    pub selectors: Vec<DeviceSelector>,
    /// `ExactCount` or `All`.
    pub allocation_mode: Str,
    pub count: i64,
    /// Not of a subrequest. Devices are looked at, not taken.
    pub admin_access: bool,
    pub tolerations: Vec<DeviceToleration>,
    pub capacity: CapacityRequirements,
}

/// `resource/v1.CapacityRequirements`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CapacityRequirements {
    pub requests: BTreeMap<Str, Quantity>,
}

/// `resource/v1.DeviceConstraint`: one of the attributes is set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceConstraint {
    /// Empty is all.
    pub requests: Vec<Str>,
    pub match_attribute: Option<Str>,
    pub distinct_attribute: Option<Str>,
}

/// `resource/v1.ResourceClaimStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceClaimStatus {
    pub allocation: Option<AllocationResult>,
    pub reserved_for: Vec<ResourceClaimConsumerReference>,
    pub devices: Vec<AllocatedDeviceStatus>,
}

/// `resource/v1.AllocationResult`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct AllocationResult {
    pub devices: DeviceAllocationResult,
    pub node_selector: Option<NodeSelector>,
    pub allocation_timestamp: Option<Str>,
}

/// `resource/v1.DeviceAllocationResult`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceAllocationResult {
    pub results: Vec<DeviceRequestAllocationResult>,
}

/// `resource/v1.DeviceRequestAllocationResult`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceRequestAllocationResult {
    /// Of a request, or `request/subrequest`.
    pub request: Str,
    pub driver: Str,
    pub pool: Str,
    pub device: Str,
    pub admin_access: bool,
    pub tolerations: Vec<DeviceToleration>,
    pub binding_conditions: Vec<Str>,
    pub binding_failure_conditions: Vec<Str>,
    /// Tells the shares of one device apart.
    #[serde(rename = "shareID")]
    pub share_id: Option<Str>,
    pub consumed_capacity: BTreeMap<Str, Quantity>,
}

/// `resource/v1.ResourceClaimConsumerReference`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceClaimConsumerReference {
    pub api_group: Str,
    pub resource: Str,
    pub name: Str,
    pub uid: Str,
}

/// `resource/v1.AllocatedDeviceStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct AllocatedDeviceStatus {
    pub driver: Str,
    pub pool: Str,
    pub device: Str,
    pub conditions: Vec<Condition>,
}

// === impl ResourceClaim ===

impl ResourceClaim {
    /// Whether somebody with this uid may use it.
    pub fn is_reserved_for(&self, uid: &str) -> bool {
        self.status.reserved_for.iter().any(|consumer| consumer.uid == uid)
    }
}

// === impl DeviceRequestAllocationResult ===

impl DeviceRequestAllocationResult {
    /// Whether this is about the same device.
    pub fn is_of(&self, driver: &str, pool: &str, device: &str) -> bool {
        self.driver == driver && self.pool == pool && self.device == device
    }
}
