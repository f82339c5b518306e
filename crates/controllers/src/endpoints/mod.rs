//! The Endpoints controller: the older form of what EndpointSlices tell, which older clients still read.
//!
//! One object per service with a selector, named like it, with at most a thousand addresses of the primary family.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::gvr::{ENDPOINTS, PODS, SERVICES};
use api::view::Service;
use apimachinery::{Object, Status};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::expectations::OWN_WRITE_MAX;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Expectations, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::ownership;
use crate::service::{TriggerTimes, backends, trigger, wake_services};

const NAME: &str = "endpoints-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "endpoint-controller",
        event_source: "endpoint-controller",
        workers: 5,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let (services, pods, endpoints) =
        (informers.of(&SERVICES), informers.of(&PODS), informers.of(&ENDPOINTS));
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        services: services.clone(),
        pods: pods.clone(),
        endpoints: endpoints.clone(),
        expectations: Expectations::default(),
        times: TriggerTimes::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&services)
        .watches(&pods, move |delta, keys| wake_services(&services, delta, keys))
        // A deletion is made good; other people's edits stay until the next change, as upstream leaves them.
        .watches(&endpoints, |delta, keys| match delta {
            Delta::Delete { old } => keys.push(ObjectKey::from(&**old)),
            Delta::Upsert { .. } | Delta::Resync => {}
        });
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    services: Arc<Informer>,
    pods: Arc<Informer>,
    endpoints: Arc<Informer>,
    expectations: Expectations<ObjectKey>,
    times: TriggerTimes,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.services.get(&key.namespace, &key.name) else {
            return self.service_is_gone(key).await;
        };
        let service = view::<Service>(&object)?;
        if service.spec.selector.is_empty() || service.spec.type_ == "ExternalName" {
            return Ok(Action::await_change());
        }
        if !self.expectations.wait(key, &self.endpoints).await {
            let reason = "the cache lacks our last write".into();
            return Err(Error::Waiting { after: OWN_WRITE_MAX, reason });
        }
        self.sync(key, &object, &service).await
    }
}

impl Controller {
    async fn service_is_gone(&self, key: &ObjectKey) -> Result {
        self.expectations.forget(key);
        self.times.forget(key);
        if self.endpoints.get(&key.namespace, &key.name).is_some_and(|own| plan::is_ours(&own)) {
            match self.api.delete(&ENDPOINTS, &key.namespace, &key.name, &DeleteOptions::default()).await {
                Err(status) if !status.is_not_found() => return Err(status.into()),
                _ => {}
            }
        }
        Ok(Action::await_change())
    }

    async fn sync(&self, key: &ObjectKey, object: &Arc<Object>, service: &Service) -> Result {
        let pods = backends::selected(&self.pods, service);
        let time = self.times.compute(key, service, &pods);
        let current = self.endpoints.get(&key.namespace, &key.name);
        let Some(mut tree) = plan::change(service, &pods, current.as_deref()) else {
            return Ok(Action::await_change());
        };
        trigger::annotate(&mut tree, time);
        let options = WriteOptions::default();
        let result = match &current {
            None => self.api.create(&ENDPOINTS, &key.namespace, tree, &options).await,
            Some(_) => self.api.update(&ENDPOINTS, &key.namespace, &key.name, None, tree, &options).await,
        };
        match result {
            Ok(written) => {
                self.expectations.written(key, written.revision());
                Ok(Action::await_change())
            }
            Err(status) if ownership::is_namespace_terminating(&status) => Ok(Action::await_change()),
            Err(status) => {
                self.report(key, object, current.is_some(), &status);
                Err(status.into())
            }
        }
    }

    fn report(&self, key: &ObjectKey, service: &Object, exists: bool, status: &Status) {
        if status.is_conflict() || status.is_already_exists() {
            return;
        }
        let (reason, message) = if exists {
            ("FailedToUpdateEndpoint", format!("Failed to update endpoint {key}: {status}"))
        } else {
            ("FailedToCreateEndpoint", format!("Failed to create endpoint for service {key}: {status}"))
        };
        self.recorder.warning(&Reference::of(service), reason, message);
    }
}
