//! [`Network`]: the addresses of simulated nodes and pods, shared by all who play them.

use apimachinery::Str;
use parking_lot::Mutex;

use super::Plan;
use super::address::{Addresses, Cidr};

/// Locked for one look-up or one change at a time; neither lock is taken while the other is held.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// By uid of the pod.
    pub pods: Mutex<Addresses>,
    /// By uid of the node.
    pub nodes: Mutex<Addresses>,
}

impl Network {
    /// The pod's address out of its node's range: the one it has, or a free one.
    pub fn hold(&self, uid: &str, pod_cidr: &str) -> Option<Str> {
        self.hold_in(uid, Addresses::range(pod_cidr))
    }

    fn hold_in(&self, uid: &str, range: Cidr) -> Option<Str> {
        self.pods.lock().hold(&uid.into(), range).map(|address| address.to_string().into())
    }

    pub fn hold_for_node(&self, uid: &str) -> Option<Str> {
        self.nodes.lock().hold(&uid.into(), Plan::node_cidr()).map(|address| address.to_string().into())
    }
}
