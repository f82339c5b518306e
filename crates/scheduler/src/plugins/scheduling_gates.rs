//! Keeps pods with `spec.schedulingGates` out of the active queue.

use crate::framework::{EnqueueExtensions, Event, EventSet, Hint, Plugin, PreEnqueue, Status};
use crate::pod::PodInfo;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status> {
        let gates = &pod.pod.spec.scheduling_gates;
        if gates.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
        Err(Status::unresolvable(format!("waiting for scheduling gates: [{}]", names.join(" "))))
    }
}

impl EnqueueExtensions for SchedulingGates {
    fn events(&self) -> EventSet {
        EventSet::POD_GATES_ELIMINATED
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        match event {
            Event::PodUpdated { new, .. } if new.uid() == pod.uid() => Hint::Queue,
            _ => Hint::Skip,
        }
    }
}
