//! The attributes class protection controller: a VolumeAttributesClass that is deleted stays while a claim or a volume
//! has to do with it.

use std::sync::Arc;

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES};
use apimachinery::{Object, Str};
use async_trait::async_trait;
use client::{Api, Delta, Informer, ObjectKey};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::{Options, protection};

const NAME: &str = "volumeattributesclass-protection-controller";
const FINALIZER: &str = "kubernetes.io/vac-protection";

/// Index of claims and volumes by the classes they have to do with.
const BY_CLASS: &str = "volume-attributes-class";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "volumeattributesclass-protection-controller",
        event_source: NAME,
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let classes = context.informers.of(&VOLUME_ATTRIBUTES_CLASSES);
    let users = [context.informers.of(&PERSISTENT_VOLUME_CLAIMS), context.informers.of(&PERSISTENT_VOLUMES)];
    users.iter().for_each(|informer| informer.add_index(BY_CLASS, classes_of));
    let reconciler =
        Arc::new(Controller { api: context.api.clone(), classes: classes.clone(), users: users.clone() });
    let mut controller = controller_runtime::Controller::new(&context, reconciler).for_kind(&classes);
    for informer in &users {
        controller = controller.watches(informer, |delta, keys| {
            // What an object had to do with before is what may be free now.
            if let Delta::Delete { old } | Delta::Upsert { old: Some(old), .. } = delta {
                keys.extend(classes_of(old).iter().map(|class| ObjectKey::cluster(class)));
            }
        });
    }
    boxed(controller.run())
}

/// The class that is wanted, the one that is there, and the one that is being changed to.
fn classes_of(object: &Object) -> Vec<Str> {
    let tree = object.to_value();
    let named = [
        tree.str_at(&["spec", "volumeAttributesClassName"]),
        tree.str_at(&["status", "currentVolumeAttributesClassName"]),
        tree.str_at(&["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]),
    ];
    let mut names: Vec<Str> = named.into_iter().filter(|name| !name.is_empty()).map(Str::from).collect();
    names.dedup();
    names
}

struct Controller {
    api: Arc<dyn Api>,
    classes: Arc<Informer>,
    users: [Arc<Informer>; 2],
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(class) = self.classes.get("", &key.name) else { return Ok(Action::await_change()) };
        let is_used = || self.users.iter().any(|informer| informer.index_len(BY_CLASS, &key.name) > 0);
        let plan = protection::plan(&class, FINALIZER, is_used);
        protection::act(&*self.api, &VOLUME_ATTRIBUTES_CLASSES, &class, FINALIZER, plan).await
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};
    use client::DeleteOptions;

    use super::*;
    use crate::testing::World;

    fn class(name: &str, finalizers: Value) -> Value {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
            "metadata": {"name": name, "finalizers": finalizers}})
    }

    #[tokio::test]
    async fn a_class_goes_when_nothing_has_to_do_with_it() {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "ns"}, "spec": {"volumeAttributesClassName": "gold"}});
        let world = World::start(vec![descriptor()], vec![class("gold", json!([FINALIZER])), claim]);
        let options = DeleteOptions::default();
        world.fake.delete(&VOLUME_ATTRIBUTES_CLASSES, "", "gold", &options).await.expect("it is there");
        world.fake.seed(class("other", json!([])));
        world
            .wait_for("the other one protected", |fake| {
                let other = fake.peek(&VOLUME_ATTRIBUTES_CLASSES, "", "other");
                other.is_some_and(|other| other.finalizers().any(|own| own == FINALIZER))
            })
            .await;
        assert!(world.fake.peek(&VOLUME_ATTRIBUTES_CLASSES, "", "gold").is_some());
        world.fake.edit(&PERSISTENT_VOLUME_CLAIMS, "ns", "c", |tree| {
            tree.remove_at(&["spec", "volumeAttributesClassName"]);
        });
        world
            .wait_for("the class gone", |fake| fake.peek(&VOLUME_ATTRIBUTES_CLASSES, "", "gold").is_none())
            .await;
    }
}
