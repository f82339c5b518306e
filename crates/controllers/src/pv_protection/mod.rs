//! The volume protection controller: a PersistentVolume that is deleted stays while a claim is bound to it.

use std::sync::Arc;

use api::gvr::PERSISTENT_VOLUMES;
use async_trait::async_trait;
use client::{Api, Informer, ObjectKey};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::{Options, protection};

const NAME: &str = "persistentvolume-protection-controller";
const FINALIZER: &str = "kubernetes.io/pv-protection";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "pv-protection-controller",
        event_source: NAME,
        workers: 2,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let volumes = context.informers.of(&PERSISTENT_VOLUMES);
    let reconciler = Arc::new(Controller { api: context.api.clone(), volumes: volumes.clone() });
    boxed(controller_runtime::Controller::new(&context, reconciler).for_kind(&volumes).run())
}

struct Controller {
    api: Arc<dyn Api>,
    volumes: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(volume) = self.volumes.get("", &key.name) else { return Ok(Action::await_change()) };
        let is_bound = || volume.to_value().str_at(&["status", "phase"]) == "Bound";
        let plan = protection::plan(&volume, FINALIZER, is_bound);
        protection::act(&*self.api, &PERSISTENT_VOLUMES, &volume, FINALIZER, plan).await
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use client::DeleteOptions;

    use super::*;
    use crate::testing::World;

    #[tokio::test]
    async fn a_volume_goes_when_no_claim_is_bound_to_it() {
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "v", "finalizers": [FINALIZER]}, "spec": {}, "status": {"phase": "Bound"}});
        let world = World::start(vec![descriptor()], vec![volume]);
        let options = DeleteOptions::default();
        world.fake.delete(&PERSISTENT_VOLUMES, "", "v", &options).await.expect("it is there");
        world
            .fake
            .seed(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "other"}}));
        world
            .wait_for("the other one protected", |fake| {
                let other = fake.peek(&PERSISTENT_VOLUMES, "", "other");
                other.is_some_and(|other| other.finalizers().any(|own| own == FINALIZER))
            })
            .await;
        assert!(world.fake.peek(&PERSISTENT_VOLUMES, "", "v").is_some());
        world.fake.edit(&PERSISTENT_VOLUMES, "", "v", |tree| {
            tree.set_at(&["status", "phase"], "Released");
        });
        world.wait_for("the volume gone", |fake| fake.peek(&PERSISTENT_VOLUMES, "", "v").is_none()).await;
    }
}
