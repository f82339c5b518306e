//! The root CA publisher: every namespace has the ConfigMap `kube-root-ca.crt`, by which pods verify the API server.

use std::sync::Arc;

use api::gvr::{CONFIG_MAPS, NAMESPACES};
use apimachinery::{Value, json};
use async_trait::async_trait;
use client::{Api, Delta, Informer, ObjectKey, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::ownership;

const NAME: &str = "root-ca-certificate-publisher-controller";
const CONFIG_MAP: &str = "kube-root-ca.crt";
const CERTIFICATE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

/// What upstream's description tells users, in our words.
const DESCRIPTION_TEXT: &str = "CA bundle to verify the API server by its internal addresses, such as the internal \
    service IP or kubernetes.default.svc. Distributions promise no other use.";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "root-ca-cert-publisher",
        event_source: NAME,
        workers: 4,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    if context.options.root_ca.is_empty() {
        tracing::info!("No root CA was given to publish");
        return boxed(async {});
    }
    let (namespaces, config_maps) = (context.informers.of(&NAMESPACES), context.informers.of(&CONFIG_MAPS));
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        namespaces: namespaces.clone(),
        config_maps: config_maps.clone(),
        root_ca: context.options.root_ca.clone(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler).for_kind(&namespaces).watches(
        &config_maps,
        |delta, keys| match delta {
            Delta::Upsert { new: changed, .. } | Delta::Delete { old: changed }
                if changed.name() == CONFIG_MAP =>
            {
                keys.push(ObjectKey::cluster(changed.namespace()));
            }
            _ => {}
        },
    );
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    namespaces: Arc<Informer>,
    config_maps: Arc<Informer>,
    root_ca: String,
}

#[async_trait]
impl Reconcile for Controller {
    /// The namespace.
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let namespace = key.name.as_str();
        if self.namespaces.get("", namespace).is_none_or(|own| own.is_deleting()) {
            return Ok(Action::await_change());
        }
        let result = match self.config_maps.get(namespace, CONFIG_MAP) {
            None => {
                self.api.create_if_absent(&CONFIG_MAPS, namespace, self.wanted(namespace)).await.map(drop)
            }
            Some(present) => {
                let mut tree = present.to_value();
                if !self.correct(&mut tree) {
                    return Ok(Action::await_change());
                }
                let options = WriteOptions::default();
                self.api.update(&CONFIG_MAPS, namespace, CONFIG_MAP, None, tree, &options).await.map(drop)
            }
        };
        match result {
            Err(status) if !ownership::is_namespace_terminating(&status) => Err(status.into()),
            _ => Ok(Action::await_change()),
        }
    }
}

impl Controller {
    fn wanted(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": namespace, "annotations": {DESCRIPTION: DESCRIPTION_TEXT}},
            "data": {CERTIFICATE: self.root_ca.as_str()},
        })
    }

    /// True when the tree had to be changed.
    fn correct(&self, tree: &mut Value) -> bool {
        let data = json!({CERTIFICATE: self.root_ca.as_str()});
        let described = !tree["metadata"]["annotations"].str_at(&[DESCRIPTION]).is_empty();
        if tree["data"] == data && described {
            return false;
        }
        tree.set_at(&["data"], data);
        tree.set_at(&["metadata", "annotations", DESCRIPTION], DESCRIPTION_TEXT);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[tokio::test]
    async fn the_bundle_is_published_and_kept_as_it_is() {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}});
        let world = World::start(vec![descriptor()], vec![namespace]);
        let published = |fake: &client::fake::FakeApi| {
            let found =
                fake.peek(&CONFIG_MAPS, "ns", CONFIG_MAP).map(|own| own.to_value()).unwrap_or_default();
            found["data"].str_at(&[CERTIFICATE]) == "-----TEST CA-----" && found["data"]["other"].is_null()
        };
        world.wait_for("published", published).await;
        world.fake.edit(&CONFIG_MAPS, "ns", CONFIG_MAP, |tree| {
            tree.set_at(&["data"], json!({"other": "x"}));
        });
        world.wait_for("put right", published).await;
        world.fake.drop_object(&CONFIG_MAPS, "ns", CONFIG_MAP);
        world.wait_for("made anew", published).await;
    }
}
