//! The `apps` group.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;
pub mod workload;

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("ControllerRevision", &controller_revision::ControllerRevision),
    ("DaemonSet", &daemon_set::DaemonSet),
    ("Deployment", &deployment::Deployment),
    ("ReplicaSet", &replica_set::ReplicaSet),
    ("StatefulSet", &stateful_set::StatefulSet),
];
