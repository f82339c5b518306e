//! The token cleaner: bootstrap tokens are deleted when they expire.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::SECRETS;
use apimachinery::Object;
use async_trait::async_trait;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use super::{Expiration, is_token};
use crate::Options;

const NAME: &str = "token-cleaner-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "token-cleaner",
        event_source: "token-cleaner",
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let secrets = context.informers.of(&SECRETS);
    let reconciler = Arc::new(Controller { api: context.api.clone(), secrets: secrets.clone() });
    let controller =
        controller_runtime::Controller::new(&context, reconciler).watches(&secrets, |delta, keys| {
            if let Delta::Upsert { new, .. } = delta
                && is_token(new)
            {
                keys.push(ObjectKey::from(&**new));
            }
        });
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    secrets: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name).filter(|own| is_token(own)) else {
            return Ok(Action::await_change());
        };
        let (expiration, now) = (Expiration::of(&secret.to_value()), rt::now());
        if expiration.is_over(now) {
            self.delete(&secret).await?;
        } else if let Expiration::At(end) = expiration {
            // A moment later than the end, which is a time at which the token is still good.
            let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
            return Ok(Action::requeue(left + Duration::from_millis(1)));
        }
        Ok(Action::await_change())
    }
}

impl Controller {
    async fn delete(&self, secret: &Object) -> Result<()> {
        let options = DeleteOptions::of(secret);
        match self.api.delete(&SECRETS, secret.namespace(), secret.name(), &options).await {
            // Gone, or another one of its name by now.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            result => Ok(result?),
        }
    }
}
