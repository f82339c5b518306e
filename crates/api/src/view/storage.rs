//! Volumes, claims and what says how they are served.

use apimachinery::{Quantity, Str};
use serde::Deserialize;

use super::{LabelSelector, NodeSelector, ObjectMeta, ResourceList, ResourceRequirements};

/// How claims and volumes named their class before they had a field for it; it still wins.
pub const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";

/// `v1.PersistentVolumeClaim`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeClaim {
    pub metadata: ObjectMeta,
    pub spec: PersistentVolumeClaimSpec,
    pub status: PersistentVolumeClaimStatus,
}

/// `v1.PersistentVolumeClaimSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeClaimSpec {
    pub access_modes: Vec<Str>,
    pub selector: Option<LabelSelector>,
    pub resources: ResourceRequirements,
    /// The volume it is bound to, or shall be.
    pub volume_name: Str,
    /// Not set and empty are two things: the first may still get the default class.
    pub storage_class_name: Option<Str>,
    pub volume_mode: Option<Str>,
    pub volume_attributes_class_name: Option<Str>,
}

/// `v1.PersistentVolumeClaimStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: Str,
    pub access_modes: Vec<Str>,
    pub capacity: ResourceList,
    pub current_volume_attributes_class_name: Option<Str>,
}

/// `v1.PersistentVolume`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolume {
    pub metadata: ObjectMeta,
    pub spec: PersistentVolumeSpec,
    pub status: PersistentVolumeStatus,
}

/// `v1.PersistentVolumeSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeSpec {
    pub capacity: ResourceList,
    pub access_modes: Vec<Str>,
    pub claim_ref: Option<ClaimReference>,
    /// `Retain`, `Recycle` or `Delete`.
    pub persistent_volume_reclaim_policy: Str,
    pub storage_class_name: Str,
    pub volume_mode: Option<Str>,
    pub volume_attributes_class_name: Option<Str>,
    pub csi: Option<CsiVolumeSource>,
    pub host_path: Option<HostPathVolumeSource>,
    pub nfs: Option<OtherVolumeSource>,
    pub gce_persistent_disk: Option<Box<GcePersistentDiskVolumeSource>>,
    pub aws_elastic_block_store: Option<Box<AwsElasticBlockStoreVolumeSource>>,
    pub azure_disk: Option<Box<AzureDiskVolumeSource>>,
    pub cinder: Option<Box<CinderVolumeSource>>,
    pub portworx_volume: Option<Box<PortworxVolumeSource>>,
    /// Nodes that can reach it; all of them when it says nothing.
    pub node_affinity: Option<VolumeNodeAffinity>,
}

/// `v1.VolumeNodeAffinity`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeNodeAffinity {
    pub required: Option<NodeSelector>,
}

/// What is read of `v1.ObjectReference` where a volume names its claim. Without a uid anybody who has the name may
/// bind it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimReference {
    pub namespace: Str,
    pub name: Str,
    pub uid: Str,
}

/// `v1.CSIPersistentVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiVolumeSource {
    pub driver: Str,
    pub volume_handle: Str,
}

/// `v1.HostPathVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HostPathVolumeSource {
    pub path: Str,
}

/// `v1.GCEPersistentDiskVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct GcePersistentDiskVolumeSource {
    pub pd_name: Str,
    pub read_only: bool,
}

/// `v1.AWSElasticBlockStoreVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct AwsElasticBlockStoreVolumeSource {
    #[serde(rename = "volumeID")]
    pub volume_id: Str,
}

/// `v1.AzureDiskVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct AzureDiskVolumeSource {
    #[serde(rename = "diskURI")]
    pub disk_uri: Str,
    /// `Shared`, `Dedicated` or `Managed`.
    pub kind: Option<Str>,
}

/// `v1.CinderVolumeSource`, of volumes and of pods.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CinderVolumeSource {
    #[serde(rename = "volumeID")]
    pub volume_id: Str,
}

/// `v1.PortworxVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PortworxVolumeSource {
    #[serde(rename = "volumeID")]
    pub volume_id: Str,
}

/// A source of which only its presence matters.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct OtherVolumeSource {}

/// `v1.PersistentVolumeStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeStatus {
    /// `Pending`, `Available`, `Bound`, `Released` or `Failed`.
    pub phase: Str,
}

/// `storage/v1.StorageClass`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct StorageClass {
    pub metadata: ObjectMeta,
    pub provisioner: Str,
    pub reclaim_policy: Str,
    pub mount_options: Vec<Str>,
    /// `Immediate` or `WaitForFirstConsumer`.
    pub volume_binding_mode: Str,
    /// Where volumes can be made; everywhere when it says nothing.
    pub allowed_topologies: Vec<TopologySelectorTerm>,
}

/// `v1.TopologySelectorTerm`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct TopologySelectorTerm {
    pub match_label_expressions: Vec<TopologySelectorLabelRequirement>,
}

/// `v1.TopologySelectorLabelRequirement`: the label has one of the values.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct TopologySelectorLabelRequirement {
    pub key: Str,
    pub values: Vec<Str>,
}

/// `storage/v1.CSINode`: the drivers on the node of its name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiNode {
    pub metadata: ObjectMeta,
    pub spec: CsiNodeSpec,
}

/// `storage/v1.CSINodeSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiNodeSpec {
    pub drivers: Vec<CsiNodeDriver>,
}

/// `storage/v1.CSINodeDriver`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiNodeDriver {
    pub name: Str,
    pub allocatable: Option<VolumeNodeResources>,
}

/// `storage/v1.VolumeNodeResources`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeNodeResources {
    /// How many volumes the node can have; no limit when not set.
    pub count: Option<i32>,
}

/// `storage/v1.CSIDriver`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiDriver {
    pub metadata: ObjectMeta,
    pub spec: CsiDriverSpec,
}

/// `storage/v1.CSIDriverSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiDriverSpec {
    /// Absent is true.
    pub attach_required: Option<bool>,
    /// The driver says by [`CsiStorageCapacity`] where there is how much room.
    pub storage_capacity: Option<bool>,
}

/// `storage/v1.CSIStorageCapacity`: room for volumes of one class on some nodes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiStorageCapacity {
    pub metadata: ObjectMeta,
    pub storage_class_name: Str,
    /// No node at all when not set.
    pub node_topology: Option<LabelSelector>,
    pub capacity: Option<Str>,
    pub maximum_volume_size: Option<Str>,
}

/// `storage/v1.VolumeAttachment`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeAttachment {
    pub metadata: ObjectMeta,
    pub spec: VolumeAttachmentSpec,
    pub status: VolumeAttachmentStatus,
}

/// `storage/v1.VolumeAttachmentSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeAttachmentSpec {
    /// The driver.
    pub attacher: Str,
    pub node_name: Str,
    pub source: VolumeAttachmentSource,
}

/// `storage/v1.VolumeAttachmentSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeAttachmentSource {
    /// Absent for a volume that is written out in the attachment itself.
    pub persistent_volume_name: Option<Str>,
}

/// `storage/v1.VolumeAttachmentStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeAttachmentStatus {
    pub attached: bool,
    pub attach_error: Option<VolumeError>,
}

/// `storage/v1.VolumeError`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeError {
    pub message: Str,
}

// === impl PersistentVolumeClaim ===

impl PersistentVolumeClaim {
    /// The class that is asked for; empty is none.
    pub fn class(&self) -> &str {
        match self.metadata.annotations.get(CLASS_BETA) {
            Some(class) => class,
            None => self.spec.storage_class_name.as_deref().unwrap_or_default(),
        }
    }

    /// Whether anything was said about a class, be it that none is wanted.
    pub fn has_class(&self) -> bool {
        self.metadata.annotations.contains_key(CLASS_BETA) || self.spec.storage_class_name.is_some()
    }

    pub fn requested(&self) -> Quantity {
        storage(&self.spec.resources.requests)
    }

    /// The size that it has by now.
    pub fn granted(&self) -> Quantity {
        storage(&self.status.capacity)
    }

    /// Empty is what is not set.
    pub fn attributes_class(&self) -> &str {
        self.spec.volume_attributes_class_name.as_deref().unwrap_or_default()
    }

    pub fn mode(&self) -> &str {
        self.spec.volume_mode.as_deref().unwrap_or(FILESYSTEM)
    }
}

// === impl PersistentVolume ===

impl PersistentVolume {
    /// The class it belongs to; empty is none.
    pub fn class(&self) -> &str {
        self.metadata.annotations.get(CLASS_BETA).unwrap_or(&self.spec.storage_class_name)
    }

    pub fn capacity(&self) -> Quantity {
        storage(&self.spec.capacity)
    }

    /// Empty is what is not set.
    pub fn attributes_class(&self) -> &str {
        self.spec.volume_attributes_class_name.as_deref().unwrap_or_default()
    }

    pub fn mode(&self) -> &str {
        self.spec.volume_mode.as_deref().unwrap_or(FILESYSTEM)
    }
}

// === impl StorageClass ===

impl StorageClass {
    /// Claims without a class get this one.
    pub fn is_default(&self) -> bool {
        const MARKS: [&str; 2] = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        MARKS.iter().any(|mark| self.metadata.annotations.get(mark).is_some_and(|value| value == "true"))
    }

    /// Volumes are chosen once a pod that uses the claim has a node.
    pub fn waits_for_consumer(&self) -> bool {
        self.volume_binding_mode == "WaitForFirstConsumer"
    }
}

// === impl CsiStorageCapacity ===

impl CsiStorageCapacity {
    /// The largest volume there is room for; `None` when it is not known.
    pub fn volume_limit(&self) -> Option<i64> {
        let limit = self.maximum_volume_size.as_ref().or(self.capacity.as_ref())?;
        Quantity::parse(limit).ok().map(|limit| limit.value())
    }
}

/// `volumeMode` of what names none.
const FILESYSTEM: &str = "Filesystem";

fn storage(amounts: &ResourceList) -> Quantity {
    amounts.get("storage").and_then(|amount| Quantity::parse(amount).ok()).unwrap_or(Quantity::ZERO)
}
