//! Typed views: the fields of a kind that components inside the platform read.
//!
//! Decoded from an object's bytes at most once and shared (`Object::view`), so they hold what is read and nothing
//! else: no managed fields, no annotations that nobody asks for. That is what keeps a decoded pod near a kilobyte.
//! A view is never written back: components write patches or `Value` trees, and so can never drop a field they do
//! not know.
//!
//! Every struct is `#[serde(default, rename_all = "camelCase")]`: unknown fields are ignored, missing ones are Go's
//! zero value. Add a field when a component needs it.

mod apps;
mod autoscaling;
mod batch;
mod meta;
mod node;
mod pod;
mod policy;
mod resource;
mod scheduling;
mod service;
mod storage;
mod string_map;

pub use apps::{
    ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, Deployment,
    DeploymentCondition, DeploymentSpec, DeploymentStatus, DeploymentStrategy, IntOrString,
    POD_TEMPLATE_HASH, PersistentVolumeClaimRetentionPolicy, PodTemplate, ReplicaSet, ReplicaSetSpec,
    ReplicaSetStatus, ReplicationController, RollingUpdateDaemonSet, RollingUpdateDeployment,
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetOrdinals, StatefulSetSpec, StatefulSetStatus,
    StatefulSetUpdateStrategy,
};
pub use autoscaling::{
    Amount, ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, HpaScalingPolicy, HpaScalingRules, MetricIdentifier, MetricSpec,
    MetricTarget, ObjectMetricSource, PodsMetricSource, ResourceMetricSource,
};
pub use batch::{
    CronJob, CronJobSpec, CronJobStatus, Job, JobCondition, JobSpec, JobStatus, ObjectReference,
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule, UncountedTerminatedPods,
};
pub use meta::{LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference};
pub use node::{
    ContainerImage, Node, NodeAddress, NodeSpec, NodeStatus, NodeSystemInfo, SIMULATED, SIMULATED_ANNOTATION,
    Taint,
};
pub use pod::{
    Affinity, Condition, Container, ContainerPort, ContainerState, ContainerStateRunning,
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, EphemeralVolumeSource,
    InlineCsiVolumeSource, IscsiVolumeSource, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, PersistentVolumeClaimVolumeSource, Pod, PodAffinity, PodAffinityTerm, PodIp,
    PodReadinessGate, PodResourceClaim, PodResourceClaimStatus, PodSchedulingGate, PodSchedulingGroup,
    PodSpec, PodStatus, PreferredSchedulingTerm, RbdVolumeSource, ResourceList, ResourceRequirements,
    Toleration, TopologySpreadConstraint, Volume, WeightedPodAffinityTerm,
};
pub use policy::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
pub use resource::{
    AllocatedDeviceStatus, AllocationResult, CapacityRequestPolicy, CapacityRequestPolicyRange,
    CapacityRequirements, CelDeviceSelector, Counter, CounterSet, Device, DeviceAllocationResult,
    DeviceAttribute, DeviceCapacity, DeviceClaim, DeviceClass, DeviceClassSpec, DeviceConstraint,
    DeviceCounterConsumption, DeviceRequest, DeviceRequestAllocationResult, DeviceSelector, DeviceTaint,
    DeviceToleration, ExactDeviceRequest, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimSpec,
    ResourceClaimStatus, ResourcePool, ResourceSlice, ResourceSliceSpec,
};
pub use scheduling::{
    GangSchedulingPolicy, PodGroup, PodGroupSchedulingConstraints, PodGroupSchedulingPolicy, PodGroupSpec,
    PodGroupStatus, TopologyConstraint,
};
pub use service::{Service, ServicePort, ServiceSpec};
pub use storage::{
    AwsElasticBlockStoreVolumeSource, AzureDiskVolumeSource, CLASS_BETA, CinderVolumeSource, ClaimReference,
    CsiDriver, CsiDriverSpec, CsiNode, CsiNodeDriver, CsiStorageCapacity, CsiVolumeSource,
    GcePersistentDiskVolumeSource, HostPathVolumeSource, OtherVolumeSource, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, PersistentVolumeSpec,
    PersistentVolumeStatus, PortworxVolumeSource, StorageClass, TopologySelectorLabelRequirement,
    TopologySelectorTerm, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
    VolumeAttachmentStatus, VolumeError, VolumeNodeAffinity,
};
pub use string_map::StringMap;
