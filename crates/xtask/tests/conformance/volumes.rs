//! The tests of volumes.

use super::Covered::{self, By, Not};
use super::{EVERY_VERB, STATUSES};

const CLAIMS: &str = "tests/interop/tests/kubectl/cassandra.rs";
const CONTENTS: &str = "tests/interop/tests/node/lifecycle/contents.rs";
const CSI: &str = "tests/interop/tests/node/plugins/csi.rs";
const EMPTY_DIRS: &str = "tests/interop/tests/node/conformance/empty_dirs.rs";
const FILES: &str = "tests/interop/tests/node/conformance/files.rs";
const SUB_PATHS: &str = "tests/interop/tests/node/conformance/sub_paths.rs";

pub fn table() -> Vec<(&'static str, Covered)> {
    vec![
        ("[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver", By(&[EVERY_VERB])),
        (
            "[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API",
            By(&[(CSI, "a pod has a driver's volume that is written into it")]),
        ),
        (
            "[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode",
            By(&[EVERY_VERB]),
        ),
        (
            "[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations",
            By(&[EVERY_VERB]),
        ),
        (
            "[sig-storage] ConfigMap binary data should be reflected in volume [NodeConformance]",
            By(&[(FILES, "binary data of a ConfigMap is in the volume as it is")]),
        ),
        (
            "[sig-storage] ConfigMap optional updates should be reflected in volume [NodeConformance]",
            By(&[(FILES, "optional objects come, change and go, and so do their files")]),
        ),
        (
            "[sig-storage] ConfigMap should be consumable from pods in volume [NodeConformance]",
            By(&[(FILES, "files of a ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] ConfigMap should be consumable from pods in volume as non-root [NodeConformance]",
            By(&[(FILES, "files of a ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] ConfigMap should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] ConfigMap should be consumable from pods in volume with mappings [NodeConformance]",
            By(&[(FILES, "files of a ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] ConfigMap should be consumable from pods in volume with mappings and Item mode set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] ConfigMap should be consumable from pods in volume with mappings as non-root [NodeConformance]",
            By(&[(FILES, "files of a ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] ConfigMap should be consumable in multiple volumes in the same pod [NodeConformance]",
            By(&[(FILES, "files of a ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] ConfigMap should be immutable if `immutable` field is set",
            By(&[(FILES, "what is immutable cannot be changed")]),
        ),
        (
            "[sig-storage] ConfigMap updates should be reflected in volume [NodeConformance]",
            By(&[(CONTENTS, "a changed ConfigMap is seen in the container")]),
        ),
        (
            "[sig-storage] Downward API volume should provide container's cpu limit [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should provide container's cpu request [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should provide container's memory limit [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should provide container's memory request [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should provide node allocatable (cpu) as default cpu limit if the limit is not set [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should provide node allocatable (memory) as default memory limit if the limit is not set [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should provide podname only [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should set DefaultMode on files [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should set mode on item file [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Downward API volume should update annotations on modification [NodeConformance]",
            By(&[(FILES, "changed labels and annotations are in the files")]),
        ),
        (
            "[sig-storage] Downward API volume should update labels on modification [NodeConformance]",
            By(&[(FILES, "changed labels and annotations are in the files")]),
        ),
        (
            "[sig-storage] EmptyDir volumes pod should support shared volumes between containers",
            By(&[
                (EMPTY_DIRS, "containers of a pod see the same emptyDir, whose size may be limited"),
                (CONTENTS, "containers share an emptyDir"),
            ]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (non-root,0644,default) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir on disk have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (non-root,0644,tmpfs) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir in memory have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (non-root,0666,default) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir on disk have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (non-root,0666,tmpfs) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir in memory have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (non-root,0777,default) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir on disk have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (non-root,0777,tmpfs) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir in memory have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (root,0644,default) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir on disk have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (root,0644,tmpfs) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir in memory have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (root,0666,default) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir on disk have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (root,0666,tmpfs) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir in memory have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (root,0777,default) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir on disk have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes should support (root,0777,tmpfs) [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir in memory have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes volume on default medium should have the correct mode [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir on disk have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir volumes volume on tmpfs should have the correct mode [LinuxOnly] [NodeConformance]",
            By(&[(EMPTY_DIRS, "files in an emptyDir in memory have the modes given, by root and others")]),
        ),
        (
            "[sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps [Serial]",
            By(&[(FILES, "volumes of many kinds stand beside one another")]),
        ),
        (
            "[sig-storage] EmptyDir wrapper volumes should not conflict",
            By(&[(FILES, "volumes of many kinds stand beside one another")]),
        ),
        (
            "[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status",
            By(&[STATUSES]),
        ),
        (
            "[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC",
            By(&[(CLAIMS, "cassandra: claims outlive the set, and their volumes go with them"), STATUSES]),
        ),
        (
            "[sig-storage] Projected combined should project all components that make up the projection API [Projection] [NodeConformance]",
            By(&[(FILES, "one volume has files of every source")]),
        ),
        (
            "[sig-storage] Projected configMap optional updates should be reflected in volume [NodeConformance]",
            By(&[(FILES, "optional objects come, change and go, and so do their files")]),
        ),
        (
            "[sig-storage] Projected configMap should be consumable from pods in volume [NodeConformance]",
            By(&[(FILES, "files of a projected ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected configMap should be consumable from pods in volume as non-root [NodeConformance]",
            By(&[(FILES, "files of a projected ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected configMap should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a projected ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected configMap should be consumable from pods in volume with mappings [NodeConformance]",
            By(&[(FILES, "files of a projected ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected configMap should be consumable from pods in volume with mappings and Item mode set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a projected ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected configMap should be consumable from pods in volume with mappings as non-root [NodeConformance]",
            By(&[(FILES, "files of a projected ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected configMap should be consumable in multiple volumes in the same pod [NodeConformance]",
            By(&[(FILES, "files of a projected ConfigMap have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected configMap updates should be reflected in volume [NodeConformance]",
            By(&[(FILES, "optional objects come, change and go, and so do their files")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should provide container's cpu limit [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should provide container's cpu request [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should provide container's memory limit [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should provide container's memory request [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should provide node allocatable (cpu) as default cpu limit if the limit is not set [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should provide node allocatable (memory) as default memory limit if the limit is not set [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should provide podname only [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should set DefaultMode on files [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should set mode on item file [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "projected files say what a pod's resources are, or the node's where it has none")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should update annotations on modification [NodeConformance]",
            By(&[(FILES, "changed labels and annotations are in the projected files")]),
        ),
        (
            "[sig-storage] Projected downwardAPI should update labels on modification [NodeConformance]",
            By(&[(FILES, "changed labels and annotations are in the projected files")]),
        ),
        (
            "[sig-storage] Projected secret optional updates should be reflected in volume [NodeConformance]",
            By(&[(FILES, "optional objects come, change and go, and so do their files")]),
        ),
        (
            "[sig-storage] Projected secret should be consumable from pods in volume [NodeConformance]",
            By(&[(FILES, "files of a projected Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected secret should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a projected Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected secret should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a projected Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected secret should be consumable from pods in volume with mappings [NodeConformance]",
            By(&[(FILES, "files of a projected Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected secret should be consumable from pods in volume with mappings and Item Mode set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a projected Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Projected secret should be consumable in multiple volumes in a pod [NodeConformance]",
            By(&[(FILES, "files of a projected Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Secrets optional updates should be reflected in volume [NodeConformance]",
            By(&[(FILES, "optional objects come, change and go, and so do their files")]),
        ),
        (
            "[sig-storage] Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace [NodeConformance]",
            By(&[(FILES, "a Secret is that of the pod's own namespace")]),
        ),
        (
            "[sig-storage] Secrets should be consumable from pods in volume [NodeConformance]",
            By(&[(FILES, "files of a Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Secrets should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Secrets should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Secrets should be consumable from pods in volume with mappings [NodeConformance]",
            By(&[(FILES, "files of a Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Secrets should be consumable from pods in volume with mappings and Item Mode set [LinuxOnly] [NodeConformance]",
            By(&[(FILES, "files of a Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Secrets should be consumable in multiple volumes in a pod [NodeConformance]",
            By(&[(FILES, "files of a Secret have names, modes and users as asked")]),
        ),
        (
            "[sig-storage] Secrets should be immutable if `immutable` field is set",
            By(&[(FILES, "what is immutable cannot be changed")]),
        ),
        (
            "[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass",
            By(&[EVERY_VERB]),
        ),
        (
            "[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod",
            By(&[(SUB_PATHS, "one file of each kind of volume is mounted, also over a file of the image")]),
        ),
        (
            "[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file",
            By(&[(SUB_PATHS, "one file of each kind of volume is mounted, also over a file of the image")]),
        ),
        (
            "[sig-storage] Subpath Atomic writer volumes should support subpaths with downward pod",
            By(&[(SUB_PATHS, "one file of each kind of volume is mounted, also over a file of the image")]),
        ),
        (
            "[sig-storage] Subpath Atomic writer volumes should support subpaths with projected pod",
            By(&[(SUB_PATHS, "one file of each kind of volume is mounted, also over a file of the image")]),
        ),
        (
            "[sig-storage] Subpath Atomic writer volumes should support subpaths with secret pod",
            By(&[(SUB_PATHS, "one file of each kind of volume is mounted, also over a file of the image")]),
        ),
        (
            "[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status",
            By(&[STATUSES]),
        ),
        (
            "[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment",
            By(&[EVERY_VERB]),
        ),
        (
            "[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass",
            Not(
                "Its finalizer is taken away by a controller only; the verbs before that are no test of their own.",
            ),
        ),
    ]
}
