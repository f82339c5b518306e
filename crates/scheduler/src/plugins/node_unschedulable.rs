//! Rejects cordoned nodes, unless the pod tolerates the taint that cordoning stands for.

use api::placement::is_tolerated;
use api::view::Taint;

use super::taint_toleration::sign_tolerations;
use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    CycleState, EnqueueExtensions, Event, EventSet, Filter, Hint, NotShareable, Plugin, Sign, Signature,
    Status,
};
use crate::pod::PodInfo;

pub struct NodeUnschedulable;

const TAINT: &str = "node.kubernetes.io/unschedulable";

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }
}

impl Sign for NodeUnschedulable {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        sign_tolerations(pod, signature);
        Ok(())
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if node.is_unschedulable() && !tolerates_cordoning(pod) {
            return Err(Status::unresolvable("node(s) were unschedulable"));
        }
        Ok(())
    }
}

fn tolerates_cordoning(pod: &PodInfo) -> bool {
    let taint = Taint { key: TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
    is_tolerated(&taint, &pod.pod.spec.tolerations)
}

impl EnqueueExtensions for NodeUnschedulable {
    fn events(&self) -> EventSet {
        EventSet::NODE_ADD.with(EventSet::NODE_TAINT).with(EventSet::POD_TOLERATION)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let helps = match event {
            Event::NodeAdded(node) => !node.spec.unschedulable,
            Event::NodeUpdated { old, new } => old.spec.unschedulable && !new.spec.unschedulable,
            Event::PodUpdated { new, .. } => new.uid() == pod.uid() && tolerates_cordoning(new),
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
