//! Orders the queue by priority, then by the time of queueing.

use crate::framework::{Plugin, QueueSort};
use crate::queue::QueuedPod;

pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }
}

impl QueueSort for PrioritySort {
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool {
        let (higher, lower) = (a.pod.priority(), b.pod.priority());
        higher > lower || (higher == lower && a.queued_at < b.queued_at)
    }
}
