//! The claim protection controller: a PersistentVolumeClaim that is deleted stays while a pod on a node uses it.

use std::sync::Arc;

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PODS};
use api::view::Pod;
use api::volumes::own_claim;
use apimachinery::Object;
use async_trait::async_trait;
use client::{Api, Delta, Informer, ListOptions, ObjectKey};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::claims::{self, BY_CLAIM, claims_of};
use crate::protection::Plan;
use crate::{Options, protection};

const NAME: &str = "persistentvolumeclaim-protection-controller";
const FINALIZER: &str = "kubernetes.io/pvc-protection";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "pvc-protection-controller",
        event_source: NAME,
        workers: 2,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (claims, pods) = (context.informers.of(&PERSISTENT_VOLUME_CLAIMS), context.informers.of(&PODS));
    claims::index_by_claim(&pods);
    let reconciler =
        Arc::new(Controller { api: context.api.clone(), claims: claims.clone(), pods: pods.clone() });
    let controller = controller_runtime::Controller::new(&context, reconciler).for_kind(&claims).watches(
        &pods,
        |delta, keys| match delta {
            Delta::Delete { old } => keys.extend(claims_of(old)),
            Delta::Upsert { new, .. } if is_shut_down(new) => keys.extend(claims_of(new)),
            _ => {}
        },
    );
    boxed(controller.run())
}

/// Done, and about to be removed: its volumes are unmounted.
fn is_shut_down(pod: &Object) -> bool {
    let finished = pod.view::<Pod>().is_ok_and(|pod| pod.is_terminal());
    finished
        && pod.is_deleting()
        && pod.metadata_value()["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// Whether a pod keeps a claim. A pod without a node cannot start once the claim is marked for deletion.
fn uses(pod: &Object, claim: &Object) -> bool {
    let Ok(view) = pod.view::<Pod>() else { return false };
    if view.spec.node_name.is_empty() {
        return false;
    }
    view.spec.volumes.iter().any(|volume| {
        let named = volume.persistent_volume_claim.as_ref().is_some_and(|own| own.claim_name == claim.name());
        let own = || {
            volume.ephemeral.is_some()
                && own_claim(pod.name(), &volume.name) == claim.name()
                && claim.controller_owner().is_some_and(|owner| owner.uid == pod.uid())
        };
        named || !is_shut_down(pod) && own()
    })
}

struct Controller {
    api: Arc<dyn Api>,
    claims: Arc<Informer>,
    pods: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else {
            return Ok(Action::await_change());
        };
        let is_used = || self.pods.by_index(BY_CLAIM, &key.to_string()).iter().any(|pod| uses(pod, &claim));
        let mut plan = protection::plan(&claim, FINALIZER, is_used);
        if plan == Plan::Remove {
            // A pod that was bound just before the claim was marked may not have been seen yet.
            let pods = self.api.list(&PODS, &key.namespace, &ListOptions::default()).await?;
            plan = protection::plan(&claim, FINALIZER, || pods.items.iter().any(|pod| uses(pod, &claim)));
        }
        protection::act(&*self.api, &PERSISTENT_VOLUME_CLAIMS, &claim, FINALIZER, plan).await
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};
    use client::DeleteOptions;

    use super::*;
    use crate::testing::{World, object};

    fn claim() -> Value {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "ns", "finalizers": [FINALIZER]}, "spec": {}})
    }

    fn pod(node: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": node, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}})
    }

    #[tokio::test]
    async fn a_claim_stays_while_a_pod_uses_it() {
        let world = World::start(vec![descriptor()], vec![claim(), pod("n")]);
        let options = DeleteOptions::default();
        world.fake.delete(&PERSISTENT_VOLUME_CLAIMS, "ns", "data", &options).await.expect("it is there");
        // An unprotected claim is noticed after the deletion was: then the deletion was looked at, too.
        world.fake.seed(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "other", "namespace": "ns"}, "spec": {}}));
        world
            .wait_for("the other one protected", |fake| {
                let other = fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "other");
                other.is_some_and(|other| other.finalizers().any(|own| own == FINALIZER))
            })
            .await;
        assert!(world.fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "data").is_some());
        world.fake.drop_object(&PODS, "ns", "p");
        world
            .wait_for("the claim gone", |fake| fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "data").is_none())
            .await;
    }

    #[test]
    fn only_pods_on_nodes_use_claims() {
        let claim = object(claim());
        assert!(uses(&object(pod("n")), &claim));
        assert!(!uses(&object(pod("")), &claim));
        let mut own = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"nodeName": "n", "volumes": [{"name": "v", "ephemeral": {}}]}});
        let mut generated = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "p-v", "namespace": "ns",
            "ownerReferences": [{"apiVersion": "v1", "uid": "u", "kind": "Pod", "name": "p", "controller": true}]}});
        assert!(uses(&object(own.clone()), &object(generated.clone())));
        assert_eq!(claims_of(&object(own.clone())), [ObjectKey::new("ns", "p-v")]);
        generated.remove_at(&["metadata", "ownerReferences"]);
        assert!(!uses(&object(own.clone()), &object(generated)), "somebody else's of that name");
        own.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        own.set_at(&["status", "phase"], "Succeeded");
        assert!(is_shut_down(&object(own)));
    }
}
