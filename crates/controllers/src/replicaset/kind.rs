//! What differs between the kinds that keep a number of pods.

use api::gvr::{REPLICA_SETS, REPLICATION_CONTROLLERS};
use api::view::{ReplicaSet, ReplicationController};
use apimachinery::GroupVersionResource;
use serde::de::DeserializeOwned;

pub(super) struct Kind {
    pub(super) controller: &'static str,
    /// The service account under which it writes.
    pub(super) account: &'static str,
    pub(super) event_source: &'static str,
    pub(super) resource: GroupVersionResource,
    pub(super) kind: &'static str,
    /// Its status has `terminatingReplicas`.
    pub(super) tells_terminating: bool,
}

static REPLICA_SET: Kind = Kind {
    controller: "replicaset-controller",
    account: "replicaset-controller",
    event_source: "replicaset-controller",
    resource: REPLICA_SETS,
    kind: "ReplicaSet",
    tells_terminating: true,
};

static REPLICATION_CONTROLLER: Kind = Kind {
    controller: "replicationcontroller-controller",
    account: "replication-controller",
    event_source: "replication-controller",
    resource: REPLICATION_CONTROLLERS,
    kind: "ReplicationController",
    tells_terminating: false,
};

/// The view of such a kind.
pub(super) trait Replicated: DeserializeOwned + Send + Sync + 'static {
    fn kind() -> &'static Kind;

    /// What it says, in the terms of a ReplicaSet.
    fn set(&self) -> &ReplicaSet;
}

impl Replicated for ReplicaSet {
    fn kind() -> &'static Kind {
        &REPLICA_SET
    }

    fn set(&self) -> &ReplicaSet {
        self
    }
}

impl Replicated for ReplicationController {
    fn kind() -> &'static Kind {
        &REPLICATION_CONTROLLER
    }

    fn set(&self) -> &ReplicaSet {
        self.as_replica_set()
    }
}
