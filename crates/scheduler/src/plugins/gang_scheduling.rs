//! Keeps the pods of a group out of the active queue until the PodGroup is there and, if it is a gang, as many pods as
//! it needs. That a gang is then placed all or none is the engine's part of it (`engine::group`).

use std::sync::Arc;

use api::view::Node;
use apimachinery::{GroupVersionResource, Object};

use crate::framework::{EnqueueExtensions, Event, EventSet, Hint, Plugin, PreEnqueue, Status};
use crate::groups::{GroupKey, Groups, are_together};
use crate::pod::PodInfo;

pub struct GangScheduling {
    groups: Groups,
}

/// The plugin's name, upstream's.
pub const GANG_SCHEDULING: &str = "GangScheduling";

impl GangScheduling {
    pub fn new(groups: Groups) -> Self {
        Self { groups }
    }

    /// The node is in some domain.
    fn node_helps(&self, key: &GroupKey, node: &Node) -> bool {
        let topology = self.groups.terms(key).and_then(|terms| terms.topology_key);
        topology.is_some_and(|label| node.metadata.labels.contains_key(&label))
    }
}

impl Plugin for GangScheduling {
    fn name(&self) -> &'static str {
        GANG_SCHEDULING
    }
}

impl PreEnqueue for GangScheduling {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status> {
        let Some(key) = GroupKey::of(pod) else { return Ok(()) };
        match self.groups.not_ready(&key) {
            None => Ok(()),
            Some(why) => Err(Status::unresolvable(why)),
        }
    }
}

impl EnqueueExtensions for GangScheduling {
    fn events(&self) -> EventSet {
        EventSet::POD_ADD
            .with(EventSet::POD_ASSIGNED)
            .with(EventSet::POD_GROUP)
            .with(EventSet::POD_DELETE)
            .with(EventSet::NODE_ADD)
            .with(EventSet::NODE_LABEL)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let Some(key) = GroupKey::of(pod) else { return Hint::Skip };
        let helps = match event {
            // All but the last of a gang's pods would only be sent back.
            Event::PodAdded(added) | Event::PodAssigned(added) => {
                are_together(pod, added) && self.groups.not_ready(&key).is_none()
            }
            Event::Object { old: None, new: Some(group), .. } => GroupKey::of_object(group) == key,
            Event::AssignedPodDeleted(gone) => self.groups.was_last_victim(&key, gone.uid()),
            Event::NodeAdded(node) => self.groups.awaits_victims(&key) || self.node_helps(&key, node),
            Event::NodeUpdated { new, .. } => self.node_helps(&key, new),
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }

    fn on_object(&self, event: &Event<'_>) {
        match event {
            Event::Object { new: Some(group), .. } => self.groups.upsert(group),
            Event::Object { old: Some(group), new: None, .. } => {
                self.groups.remove(&GroupKey::of_object(group));
            }
            _ => {}
        }
    }

    fn on_objects(&self, _: &GroupVersionResource, objects: &[Arc<Object>]) {
        self.groups.replace_all(objects);
    }
}
