//! The service account controller: every namespace has the account `default`, which pods use that name none.

use std::sync::Arc;

use api::gvr::{NAMESPACES, SERVICE_ACCOUNTS};
use apimachinery::json;
use async_trait::async_trait;
use client::{Api, Delta, Informer, ObjectKey};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::ownership;

const NAME: &str = "serviceaccount-controller";
const ACCOUNT: &str = "default";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "service-account-controller",
        event_source: NAME,
        workers: 4,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (namespaces, accounts) = (context.informers.of(&NAMESPACES), context.informers.of(&SERVICE_ACCOUNTS));
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        namespaces: namespaces.clone(),
        accounts: accounts.clone(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler).for_kind(&namespaces).watches(
        &accounts,
        |delta, keys| match delta {
            Delta::Delete { old } if old.name() == ACCOUNT => keys.push(ObjectKey::cluster(old.namespace())),
            _ => {}
        },
    );
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    namespaces: Arc<Informer>,
    accounts: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    /// The namespace.
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let namespace = key.name.as_str();
        let lives = self.namespaces.get("", namespace).is_some_and(|own| !own.is_deleting());
        if !lives || self.accounts.get(namespace, ACCOUNT).is_some() {
            return Ok(Action::await_change());
        }
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": namespace},
        });
        match self.api.create_if_absent(&SERVICE_ACCOUNTS, namespace, account).await {
            Ok(_) => Ok(Action::await_change()),
            Err(status) if ownership::is_namespace_terminating(&status) => Ok(Action::await_change()),
            Err(status) => Err(status.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn namespace(name: &str) -> apimachinery::Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    }

    #[tokio::test]
    async fn every_living_namespace_has_the_default_account() {
        let mut dying = namespace("dying");
        dying.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        let world = World::start(vec![descriptor()], vec![dying, namespace("old")]);
        world.wait_for("the account", |fake| fake.peek(&SERVICE_ACCOUNTS, "old", "default").is_some()).await;
        world.fake.seed(namespace("new"));
        world.wait_for("the new one", |fake| fake.peek(&SERVICE_ACCOUNTS, "new", "default").is_some()).await;
        world.fake.drop_object(&SERVICE_ACCOUNTS, "old", "default");
        world.wait_for("made anew", |fake| fake.peek(&SERVICE_ACCOUNTS, "old", "default").is_some()).await;
        assert!(world.fake.peek(&SERVICE_ACCOUNTS, "dying", "default").is_none());
    }
}
