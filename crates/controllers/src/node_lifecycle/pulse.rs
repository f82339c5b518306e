//! When each node last showed a sign of life, by our own clock: nodes' clocks may be wrong.

use std::collections::HashMap;
use std::time::Duration;

use apimachinery::Str;
use parking_lot::Mutex;
use rt::Instant;

#[derive(Default)]
pub(super) struct Pulses {
    nodes: Mutex<HashMap<Str, Pulse>>,
}

struct Pulse {
    last: Instant,
    registered: bool,
    ready: bool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { last: rt::instant(), registered: false, ready: false }
    }
}

impl Pulses {
    pub(super) fn beat(&self, node: &str) {
        self.with(node, |pulse| pulse.last = rt::instant());
    }

    /// Time since the last sign of life. A node not heard of before starts now.
    pub(super) fn silence(&self, node: &str) -> Duration {
        self.with(node, |pulse| pulse.last.elapsed())
    }

    /// True at the first call for a node.
    pub(super) fn register(&self, node: &str) -> bool {
        self.with(node, |pulse| !std::mem::replace(&mut pulse.registered, true))
    }

    pub(super) fn was_ready(&self, node: &str) -> bool {
        self.with(node, |pulse| pulse.ready)
    }

    pub(super) fn set_ready(&self, node: &str, ready: bool) {
        self.with(node, |pulse| pulse.ready = ready);
    }

    /// True when the node was registered.
    pub(super) fn forget(&self, node: &str) -> bool {
        self.nodes.lock().remove(node).is_some_and(|pulse| pulse.registered)
    }

    fn with<T>(&self, node: &str, change: impl FnOnce(&mut Pulse) -> T) -> T {
        let mut nodes = self.nodes.lock();
        match nodes.get_mut(node) {
            Some(pulse) => change(pulse),
            None => change(nodes.entry(node.into()).or_default()),
        }
    }
}
