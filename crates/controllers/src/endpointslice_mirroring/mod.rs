//! The mirroring controller: Endpoints that somebody keeps by hand, for a service without a selector, as
//! EndpointSlices, because that is what consumers read.
//!
//! Start at [`Controller::sync`]. Endpoints that ask not to be mirrored, those by which leaders were elected, and those
//! of services with a selector have no slices of ours.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::gvr::{ENDPOINTS, SERVICES};
use api::view::Service;
use apimachinery::Object;
use async_trait::async_trait;
use client::events::Reference;
use client::{Delta, Informer, ObjectKey, Recorder};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::service::Slices;

const NAME: &str = "endpointslice-mirroring-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "endpointslicemirroring-controller",
        event_source: "endpoint-slice-mirroring-controller",
        workers: 5,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (endpoints, services) = (context.informers.of(&ENDPOINTS), context.informers.of(&SERVICES));
    let slices = Arc::new(Slices::new(context.api.clone(), &context.informers, plan::MANAGER));
    let reconciler = Arc::new(Controller {
        recorder: context.recorder.clone(),
        endpoints: endpoints.clone(),
        services: services.clone(),
        slices: slices.clone(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .watches(&endpoints, observe_endpoints)
        .watches(&services, observe_service)
        .watches(&slices.informer, {
            let slices = slices.clone();
            move |delta, keys| slices.observe(delta, keys)
        });
    boxed(controller.run())
}

fn observe_endpoints(delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let (object, mirrored) = match delta {
        Delta::Upsert { old, new } => {
            (new, plan::is_mirrored(new) || old.as_ref().is_some_and(|old| plan::is_mirrored(old)))
        }
        Delta::Delete { old } => (old, plan::is_mirrored(old)),
        Delta::Resync => return,
    };
    if mirrored {
        keys.push(ObjectKey::from(&**object));
    }
}

/// A service without a selector comes or goes, or the selector does.
fn observe_service(delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let (object, concerned) = match delta {
        Delta::Upsert { old: Some(old), new } => (new, has_selector(old) != has_selector(new)),
        Delta::Upsert { old: None, new } => (new, !has_selector(new)),
        Delta::Delete { old } => (old, !has_selector(old)),
        Delta::Resync => return,
    };
    if concerned {
        keys.push(ObjectKey::from(&**object));
    }
}

fn has_selector(service: &Object) -> bool {
    service.view::<Service>().is_ok_and(|service| !service.spec.selector.is_empty())
}

struct Controller {
    recorder: Recorder,
    endpoints: Arc<Informer>,
    services: Arc<Informer>,
    slices: Arc<Slices>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let (namespace, name) = (&key.namespace, &key.name);
        let by_hand = self.services.get(namespace, name).is_some_and(|service| !has_selector(&service));
        let endpoints = self.endpoints.get(namespace, name).filter(|own| plan::is_mirrored(own));
        match endpoints.filter(|_| by_hand) {
            Some(endpoints) => self.sync(key, &endpoints).await,
            None => {
                let slices = self.slices.of(key);
                self.slices.forget(key);
                self.slices.delete(key, &slices).await?;
                Ok(Action::await_change())
            }
        }
    }
}

impl Controller {
    async fn sync(&self, key: &ObjectKey, endpoints: &Object) -> Result {
        if !self.slices.is_current(key) {
            return Ok(Action::await_change());
        }
        let existing = self.slices.of(key);
        let wanted = plan::wanted(&endpoints.to_value());
        self.tell(endpoints, &wanted);
        let changes = plan::changes(endpoints, wanted, &existing);
        self.slices.apply(key, endpoints, changes).await?;
        Ok(Action::await_change())
    }

    /// What cannot be mirrored.
    fn tell(&self, endpoints: &Object, wanted: &plan::Wanted) {
        let (invalid, skipped) = (wanted.invalid, wanted.skipped);
        if invalid > 0 {
            let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
            self.recorder.warning(&Reference::of(endpoints), "InvalidIPAddress", message);
        }
        if skipped > invalid {
            let message = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses \
                 were skipped",
                plan::ADDRESSES_MAX
            );
            self.recorder.warning(&Reference::of(endpoints), "TooManyAddressesToMirror", message);
        }
    }
}
