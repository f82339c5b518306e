//! Pods that have a node but wait for leave to be bound, e.g. for the rest of their gang.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Str;
use rt::Instant;

use crate::framework::{CycleState, Status};
use crate::pod::PodInfo;

/// The pods that `Permit` plugins hold back. Plugins release and reject them; the scheduling task acts on it after
/// each cycle.
#[derive(Default)]
pub struct Waiting {
    pods: HashMap<Str, WaitingPod>,
    decided: Vec<(WaitingPod, Result<(), Status>)>,
}

/// A pod that is held back, assumed to be on `node`.
pub struct WaitingPod {
    pub pod: Arc<PodInfo>,
    pub node: Str,
    /// Rejected when this has come.
    pub deadline: Instant,
    /// What `Reserve` and `Permit` kept, for the plugins of the binding part.
    pub state: CycleState,
}

impl Waiting {
    pub fn iter(&self) -> impl Iterator<Item = &WaitingPod> {
        self.pods.values()
    }

    /// Lets a pod be bound; one that does not wait is left alone.
    pub fn allow(&mut self, uid: &str) {
        self.decide(uid, Ok(()));
    }

    /// Sends a pod back to the queue; one that does not wait is left alone.
    pub fn reject(&mut self, uid: &str, status: Status) {
        self.decide(uid, Err(status));
    }

    fn decide(&mut self, uid: &str, decision: Result<(), Status>) {
        if let Some(pod) = self.pods.remove(uid) {
            self.decided.push((pod, decision));
        }
    }

    pub(crate) fn hold(&mut self, pod: WaitingPod) {
        self.pods.insert(pod.pod.uid().clone(), pod);
    }

    /// The pod was deleted while it waited.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// What was decided since the last call, overdue pods included.
    pub(crate) fn take_decided(&mut self, now: Instant) -> Vec<(WaitingPod, Result<(), Status>)> {
        let overdue: Vec<Str> =
            self.pods.iter().filter(|(_, pod)| pod.deadline <= now).map(|(uid, _)| uid.clone()).collect();
        overdue.iter().for_each(|uid| self.reject(uid, Status::unschedulable("timed out waiting on permit")));
        std::mem::take(&mut self.decided)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.pods.values().map(|pod| pod.deadline).min()
    }
}
