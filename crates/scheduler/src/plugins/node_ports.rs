//! Rejects nodes where a host port that the pod wants is taken.

use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    CycleState, EnqueueExtensions, Event, EventSet, Filter, Fragment, Hint, NotShareable, Plugin, PreFilter,
    Relevance, Sign, Signature, Status,
};
use crate::pod::{HostPort, PodInfo};

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }
}

impl Sign for NodePorts {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        signature.fragment(Fragment::HostPorts, |out| {
            out.number(pod.host_ports.len() as i64);
            for HostPort { ip, protocol, port } in &pod.host_ports {
                out.text(ip);
                out.text(protocol);
                out.number((*port).into());
            }
        });
        Ok(())
    }
}

impl PreFilter for NodePorts {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Cache) -> Result<Relevance, Status> {
        Ok(if pod.host_ports.is_empty() { Relevance::Skip } else { Relevance::EveryNode })
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if any_conflict(&pod.host_ports, &node.used_ports) {
            return Err(Status::unschedulable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}

fn any_conflict(wanted: &[HostPort], used: &[HostPort]) -> bool {
    wanted.iter().any(|wanted| used.iter().any(|used| wanted.conflicts(used)))
}

impl EnqueueExtensions for NodePorts {
    fn events(&self) -> EventSet {
        EventSet::NODE_ADD.with(EventSet::POD_DELETE)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        match event {
            Event::AssignedPodDeleted(gone) if !any_conflict(&pod.host_ports, &gone.host_ports) => Hint::Skip,
            _ => Hint::Queue,
        }
    }
}
