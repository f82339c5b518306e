//! The ephemeral volume controller: a claim for each volume of a pod that is described by a claim template.
//!
//! The claim is the pod's own and goes with it. One of its name that is somebody else's is never used: the pod waits,
//! and its events say why.

use std::sync::Arc;

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PODS};
use api::view::Pod;
use api::volumes::own_claim;
use apimachinery::{Object, Value, json};
use async_trait::async_trait;
use client::events::Reference;
use client::{Api, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::claims::{self, BY_CLAIM};
use crate::ownership;

const NAME: &str = "ephemeral-volume-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: NAME,
        event_source: "ephemeral_volume",
        workers: 5,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (claims, pods) = (context.informers.of(&PERSISTENT_VOLUME_CLAIMS), context.informers.of(&PODS));
    claims::index_by_claim(&pods);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        claims: claims.clone(),
        pods: pods.clone(),
    });
    let of_claims = pods.clone();
    let controller = controller_runtime::Controller::new(&context, reconciler)
        // A pod's volumes never change.
        .watches(&pods, |delta, keys| {
            if let Delta::Upsert { old: None, new } = delta
                && has_own_claims(new)
            {
                keys.push(ObjectKey::from(&**new));
            }
        })
        .watches(&claims, move |delta, keys| {
            if let Delta::Delete { old } = delta {
                let users = of_claims.by_index(BY_CLAIM, &ObjectKey::from(&**old).to_string());
                let affected = users.iter().filter(|pod| has_own_claims(pod));
                keys.extend(affected.map(|pod| ObjectKey::from(&**pod)));
            }
        });
    boxed(controller.run())
}

fn has_own_claims(pod: &Object) -> bool {
    let described = |pod: Arc<Pod>| pod.spec.volumes.iter().any(|volume| volume.ephemeral.is_some());
    !pod.is_deleting() && pod.view::<Pod>().is_ok_and(described)
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    claims: Arc<Informer>,
    pods: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|pod| has_own_claims(pod)) else {
            return Ok(Action::await_change());
        };
        let tree = pod.to_value();
        let volumes = tree.array_at(&["spec", "volumes"]);
        for volume in volumes.iter().filter(|volume| volume.get("ephemeral").is_some()) {
            if let Err(why) = self.provide(&pod, volume).await {
                let message = format!("ephemeral volume {}: {why}", volume.str_at(&["name"]));
                self.recorder.warning(&Reference::of(&pod), "FailedBinding", message.clone());
                return Err(Error::failed(format!("pod {key}, {message}")));
            }
        }
        Ok(Action::await_change())
    }
}

impl Controller {
    /// Makes a volume's claim if there is none.
    async fn provide(&self, pod: &Object, volume: &Value) -> Result<(), String> {
        let name = own_claim(pod.name(), volume.str_at(&["name"]));
        if let Some(claim) = self.claims.get(pod.namespace(), &name) {
            return check_owner(&claim, pod);
        }
        let (claim, options) = (claim_for(pod, &name, volume), WriteOptions::default());
        match self.api.create(&PERSISTENT_VOLUME_CLAIMS, pod.namespace(), claim, &options).await {
            Ok(_) => Ok(()),
            Err(status) => Err(format!("create PVC {name}: {status}")),
        }
    }
}

fn check_owner(claim: &Object, pod: &Object) -> Result<(), String> {
    if ownership::is_controlled_by(claim, pod.uid()) {
        return Ok(());
    }
    let (claim, pod) = (ObjectKey::from(claim), ObjectKey::from(pod));
    Err(format!("PVC {claim} was not created for pod {pod} (pod is not owner)"))
}

/// What the template says, owned by the pod.
fn claim_for(pod: &Object, name: &str, volume: &Value) -> Value {
    let template = &volume["ephemeral"]["volumeClaimTemplate"];
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}});
    for field in ["annotations", "labels"] {
        if let Some(value) = template.at(&["metadata", field]) {
            claim.set_at(&["metadata", field], value.clone());
        }
    }
    claim.set_at(&["metadata", "ownerReferences"], vec![ownership::controller_reference(pod)]);
    claim.set_at(&["spec"], template["spec"].clone());
    claim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn pod(name: &str, volumes: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {}});
        pod.set_at(&["spec", "volumes"], volumes);
        pod
    }

    fn described() -> Value {
        json!([{"name": "plain", "emptyDir": {}}, {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}}}])
    }

    #[tokio::test]
    async fn a_pod_gets_claims_of_its_own_again_when_they_are_deleted() {
        let leaving = pod("leaving", described());
        let mut leaving = leaving;
        leaving.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        leaving.set_at(&["metadata", "finalizers"], json!(["x/y"]));
        let world = World::start(vec![descriptor()], vec![leaving, pod("p", described())]);
        let exists = |fake: &client::fake::FakeApi, name: &str| {
            fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", name).is_some()
        };
        world.wait_for("a claim", |fake| exists(fake, "p-scratch")).await;
        let claim = world.tree(&PERSISTENT_VOLUME_CLAIMS, "ns", "p-scratch");
        assert_eq!(claim["spec"], json!({"accessModes": ["ReadWriteOnce"]}));
        assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
        let owner = &claim.array_at(&["metadata", "ownerReferences"])[0];
        assert_eq!((owner.str_at(&["kind"]), owner.str_at(&["uid"])), ("Pod", "p"));
        world.fake.drop_object(&PERSISTENT_VOLUME_CLAIMS, "ns", "p-scratch");
        world.wait_for("a claim again", |fake| exists(fake, "p-scratch")).await;
        assert!(!exists(&world.fake, "leaving-scratch") && !exists(&world.fake, "p-plain"));
    }

    #[tokio::test]
    async fn a_claim_of_somebody_else_is_not_used() {
        let other = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "p-scratch", "namespace": "ns"}, "spec": {}});
        let world = World::start(vec![descriptor()], vec![other, pod("p", described())]);
        world.wait_for("it is said", |fake| !fake.peek_all(&api::gvr::EVENTS).is_empty()).await;
        let why = "FailedBinding: ephemeral volume scratch: PVC ns/p-scratch was not created for pod ns/p (pod is not \
                   owner)";
        assert_eq!(world.events(), [why]);
    }
}
