//! The `storage.k8s.io` group.

pub mod classes;
pub mod csi;
pub mod volume_attachment;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("CSIDriver", &csi::CsiDriver),
    ("CSINode", &csi::CsiNode),
    ("CSIStorageCapacity", &csi::CsiStorageCapacity),
    ("StorageClass", &classes::StorageClass),
    ("VolumeAttachment", &volume_attachment::VolumeAttachment),
    ("VolumeAttributesClass", &classes::VolumeAttributesClass),
];
