//! The group protection controller: a PodGroup that is deleted stays while pods that have not ended are in it.
//!
//! It only takes the finalizer off; admission adds it.

use std::sync::Arc;

use api::gvr::{POD_GROUPS, PODS};
use api::view::Pod;
use apimachinery::{Object, Str};
use async_trait::async_trait;
use client::{Api, Delta, Informer, ObjectKey};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::protection::Plan;
use crate::{Options, protection};

pub const NAME: &str = "podgroup-protection-controller";
const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";

/// Index of the pods that have not ended by the group that they are in.
const BY_GROUP: &str = "active-pod-scheduling-group";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "podgroup-protection-controller",
        event_source: NAME,
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (groups, pods) = (context.informers.of(&POD_GROUPS), context.informers.of(&PODS));
    pods.add_index(BY_GROUP, |pod| match has_ended(pod) {
        true => Vec::new(),
        false => group_of(pod).map(|group| Str::from(group.to_string())).into_iter().collect(),
    });
    let reconciler =
        Arc::new(Controller { api: context.api.clone(), groups: groups.clone(), pods: pods.clone() });
    let controller = controller_runtime::Controller::new(&context, reconciler).for_kind(&groups).watches(
        &pods,
        |delta, keys| match delta {
            Delta::Delete { old } => keys.extend(group_of(old)),
            Delta::Upsert { old, new } => {
                // A deletion and a creation of the same name may show as one change.
                keys.extend(old.as_ref().filter(|old| old.uid() != new.uid()).and_then(|old| group_of(old)));
                keys.extend(Some(new).filter(|new| has_ended(new)).and_then(|new| group_of(new)));
            }
            Delta::Resync => {}
        },
    );
    boxed(controller.run())
}

fn group_of(pod: &Object) -> Option<ObjectKey> {
    let view = pod.view::<Pod>().ok()?;
    let group = view.spec.scheduling_group.as_ref()?;
    Some(ObjectKey::new(pod.namespace(), &group.pod_group_name))
}

fn has_ended(pod: &Object) -> bool {
    pod.view::<Pod>().is_ok_and(|pod| pod.is_terminal())
}

struct Controller {
    api: Arc<dyn Api>,
    groups: Arc<Informer>,
    pods: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(group) = self.groups.get(&key.namespace, &key.name) else {
            return Ok(Action::await_change());
        };
        let is_used = || self.pods.index_len(BY_GROUP, &key.to_string()) > 0;
        match protection::plan(&group, FINALIZER, is_used) {
            Plan::Add => Ok(Action::await_change()),
            plan => protection::act(&*self.api, &POD_GROUPS, &group, FINALIZER, plan).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};
    use client::DeleteOptions;

    use super::*;
    use crate::testing::World;

    fn group(name: &str, finalizers: Value) -> Value {
        json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
            "metadata": {"name": name, "namespace": "ns", "finalizers": finalizers},
            "spec": {"schedulingPolicy": {"basic": {}}}})
    }

    fn member(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
            "spec": {"schedulingGroup": {"podGroupName": "used"}}, "status": {"phase": "Running"}})
    }

    #[tokio::test]
    async fn a_group_stays_until_its_last_pod_has_ended_or_is_gone() {
        let own = || json!([FINALIZER]);
        let seeds = vec![
            group("used", own()),
            group("empty", own()),
            group("bare", json!([])),
            member("a"),
            member("b"),
        ];
        let world = World::start(vec![descriptor()], seeds);
        for name in ["used", "empty"] {
            let options = DeleteOptions::default();
            world.fake.delete(&POD_GROUPS, "ns", name, &options).await.expect("it is there");
        }
        let there = |name: &'static str| {
            move |fake: &client::fake::FakeApi| fake.peek(&POD_GROUPS, "ns", name).is_some()
        };
        world.wait_for("the empty group gone", |fake| !there("empty")(fake)).await;
        assert!(there("used")(&world.fake) && there("bare")(&world.fake));
        world.fake.edit(&PODS, "ns", "a", |pod| pod.set_at(&["status", "phase"], "Succeeded"));
        world.fake.drop_object(&PODS, "ns", "b");
        world.wait_for("the other one gone", |fake| !there("used")(fake)).await;
        let bare = world.tree(&POD_GROUPS, "ns", "bare");
        assert!(bare.array_at(&["metadata", "finalizers"]).is_empty(), "nobody but admission protects");
    }
}
