//! Pods that have addresses here before the API says so.
//!
//! Owns: the addresses of pods that were attached and whose status may not show it yet, and the wait until policies
//! hold for them. Never touches: rules.
//!
//! Who starts a pod attaches its network first; without this, its containers would run unprotected until the status
//! is written, read again, and planned for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use client::{Informer, ObjectKey};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Shared by who attaches pods and by [`super::run`].
pub struct AttachedPods {
    state: Mutex<State>,
    changed: Notify,
    /// The version of `state` for which policies hold.
    enforced: watch::Sender<u64>,
    /// While it is known that there are none, none has to hold.
    policies: OnceLock<Arc<Informer>>,
}

impl std::fmt::Debug for AttachedPods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachedPods").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    pods: HashMap<ObjectKey, Vec<IpAddr>>,
}

impl Default for AttachedPods {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            enforced: watch::Sender::new(0),
            policies: OnceLock::new(),
        }
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
        if self.policies.get().is_some_and(|policies| policies.is_synced() && policies.is_empty()) {
            return;
        }
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

    /// These are the policies that there are.
    pub(super) fn follow(&self, policies: Arc<Informer>) {
        // The first who enforces them says so for all.
        let _ = self.policies.set(policies);
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

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use client::fake::FakeApi;
    use client::{Discovered, Informers};
    use futures::FutureExt;
    use rt::Shutdown;

    use super::super::NETWORK_POLICIES;
    use super::*;

    #[tokio::test]
    async fn only_where_there_are_policies_a_pod_waits_for_them() {
        for has_policies in [false, true] {
            let (fake, shutdown) = (FakeApi::new(), Shutdown::new());
            fake.register(Discovered {
                gvr: NETWORK_POLICIES,
                kind: "NetworkPolicy".into(),
                namespaced: true,
                verbs: vec!["list".into(), "watch".into()],
            });
            if has_policies {
                fake.seed(json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "metadata": {"namespace": "x", "name": "policy"}, "spec": {"podSelector": {}},
                }));
            }
            let attached = AttachedPods::default();
            let attach = |name: &str| attached.attach(ObjectKey::new("x", name), Vec::new());
            assert!(attach("a").now_or_never().is_none(), "nobody knows yet");
            let policies = Informers::new(fake, shutdown.clone()).of(&NETWORK_POLICIES);
            attached.follow(policies.clone());
            policies.synced().await;
            assert_eq!(attach("b").now_or_never().is_some(), !has_policies);
            attached.enforced(2);
            assert!(attach("b").now_or_never().is_some());
            shutdown.cancel();
        }
    }
}
