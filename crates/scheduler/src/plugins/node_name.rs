//! Requires the node that the pod names. A pod that names one is bound already, so this matters for what-ifs only.

use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    CycleState, EnqueueExtensions, EventSet, Filter, Fragment, NotShareable, Plugin, Sign, Signature, Status,
};
use crate::pod::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
}

impl Sign for NodeName {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        signature.fragment(Fragment::NodeName, |out| out.text(pod.node_name()));
        Ok(())
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if pod.node_name().is_empty() || *pod.node_name() == node.name {
            return Ok(());
        }
        Err(Status::unresolvable("node(s) didn't match the requested node name"))
    }
}

impl EnqueueExtensions for NodeName {
    fn events(&self) -> EventSet {
        EventSet::NODE_ADD
    }
}
