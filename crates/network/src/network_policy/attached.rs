//! Pods that have addresses here before the API says so.
//!
//! Owns: the addresses of pods that were attached and whose status may not show it yet, and the wait until policies
//! hold for them. Never touches: rules.
//!
//! Who starts a pod attaches its network first; without this, its containers would run unprotected until the status
//! is written, read again, and planned for.

use std::collections::HashMap;
use std::net::IpAddr;

use client::ObjectKey;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Shared by who attaches pods and by [`super::run`].
#[derive(Debug)]
pub struct AttachedPods {
    state: Mutex<State>,
    changed: Notify,
    /// The version of `state` for which policies hold.
    enforced: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    pods: HashMap<ObjectKey, Vec<IpAddr>>,
}

impl Default for AttachedPods {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), enforced: watch::Sender::new(0) }
    }
}

impl AttachedPods {
    /// A pod has these addresses. Returns when policies hold for them; whoever cannot wait for ever drops this.
    pub async fn attach(&self, pod: ObjectKey, addresses: Vec<IpAddr>) {
        let version = {
            let mut state = self.state.lock();
            if state.pods.get(&pod) != Some(&addresses) {
                state.version += 1;
                state.pods.insert(pod, addresses);
            }
            state.version
        };
        self.changed.notify_one();
        let mut enforced = self.enforced.subscribe();
        // The sender is in `self`: the wait cannot fail.
        let _ = enforced.wait_for(|enforced| *enforced >= version).await;
    }

    /// A pod is gone.
    pub fn detach(&self, pod: &ObjectKey) {
        let mut state = self.state.lock();
        if state.pods.remove(pod).is_some() {
            state.version += 1;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Waits for a change since the last time.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All of them, and the version to report when policies hold for them.
    pub(super) fn snapshot(&self) -> (u64, HashMap<ObjectKey, Vec<IpAddr>>) {
        let state = self.state.lock();
        (state.version, state.pods.clone())
    }

    pub(super) fn enforced(&self, version: u64) {
        self.enforced.send_replace(version);
    }
}
