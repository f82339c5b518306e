//! The volume expander. No volume grows by Kubernetes' own hand any more: claims that ask for more say whom they wait
//! for.

use std::sync::Arc;

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use api::view::{PersistentVolume, PersistentVolumeClaim};
use apimachinery::Object;
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, Recorder};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;

const NAME: &str = "persistentvolume-expander-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "expand-controller",
        event_source: "volume_expand",
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let claims = context.informers.of(&PERSISTENT_VOLUME_CLAIMS);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        claims: claims.clone(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler).watches(&claims, observe);
    boxed(controller.run())
}

/// A bound claim that is new, or that asks for more or got more than before.
fn observe(delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let Delta::Upsert { old, new } = delta else { return };
    let claim_of = |object: &Arc<Object>| object.view::<PersistentVolumeClaim>().ok();
    let Some(claim) = claim_of(new).filter(|claim| claim.status.phase == "Bound") else { return };
    let grew = old
        .as_ref()
        .and_then(claim_of)
        .is_none_or(|old| claim.requested() > old.requested() || claim.granted() > old.granted());
    if grew {
        keys.push(ObjectKey::from(&**new));
    }
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    claims: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.claims.get(&key.namespace, &key.name) else {
            return Ok(Action::await_change());
        };
        let claim = view::<PersistentVolumeClaim>(&object)?;
        if claim.requested() <= claim.granted() {
            return Ok(Action::await_change());
        }
        let volume =
            self.api.get_view::<PersistentVolume>(&PERSISTENT_VOLUMES, "", &claim.spec.volume_name).await?;
        let reference = volume.spec.claim_ref.as_ref();
        if reference.is_none_or(|own| own.namespace != claim.metadata.namespace || own.uid != object.uid()) {
            let reason = format!("persistent Volume is not bound to PVC being updated : {key}");
            return Err(Error::failed(reason));
        }
        let message = "waiting for an external controller to expand this PVC";
        self.recorder.normal(&Reference::of(&object), "ExternalExpanding", message);
        Ok(Action::await_change())
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::testing::World;

    fn claim(name: &str, requested: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "ns", "uid": name},
            "spec": {"volumeName": name, "resources": {"requests": {"storage": requested}}},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}})
    }

    fn volume(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {"claimRef": {"namespace": "ns", "name": name, "uid": name}}})
    }

    #[tokio::test]
    async fn a_claim_that_wants_more_says_for_whom_it_waits() {
        let seeds =
            vec![volume("enough"), volume("more"), claim("enough", "1024Mi"), claim("more", "1025Mi")];
        let world = World::start(vec![descriptor()], seeds);
        world.wait_for("it is said", |fake| !fake.peek_all(&api::gvr::EVENTS).is_empty()).await;
        let of = |fake: &client::fake::FakeApi, name: &str| {
            let events = fake.peek_all(&api::gvr::EVENTS);
            events.iter().filter(|e| e.to_value().str_at(&["involvedObject", "name"]) == name).count()
        };
        assert_eq!(
            world.events(),
            ["ExternalExpanding: waiting for an external controller to expand this PVC"]
        );
        world.fake.edit(&PERSISTENT_VOLUME_CLAIMS, "ns", "enough", |claim| {
            claim.set_at(&["spec", "resources", "requests", "storage"], "2Gi");
        });
        world.wait_for("it grew", |fake| of(fake, "enough") == 1).await;
        assert_eq!(of(&world.fake, "more"), 1);
    }
}
