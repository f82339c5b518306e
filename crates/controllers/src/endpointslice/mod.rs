//! The EndpointSlice controller: the addresses behind each service, in slices of at most a hundred.
//!
//! Start at [`Controller::sync`]; [`plan`] turns pods into endpoints and endpoints into changes of slices. Services
//! without a selector, and external names, are somebody else's.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::gvr::{NODES, PODS, SERVICES};
use api::view::Service;
use apimachinery::Object;
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Informer, ObjectKey, Recorder};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::service::{Slices, TriggerTimes, backends, trigger, wake_services};

const NAME: &str = "endpointslice-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: NAME,
        event_source: "endpoint-slice-controller",
        workers: 5,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let (services, pods) = (informers.of(&SERVICES), informers.of(&PODS));
    let nodes = informers.of(&NODES);
    let slices = Arc::new(Slices::new(context.api.clone(), informers, plan::MANAGER));
    let reconciler = Arc::new(Controller {
        recorder: context.recorder.clone(),
        services: services.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        slices: slices.clone(),
        times: TriggerTimes::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&services)
        .watches(&pods, {
            let services = services.clone();
            move |delta, keys| wake_services(&services, delta, keys)
        })
        // A slice of ours that somebody changes or deletes is put right.
        .watches(&slices.informer, {
            let slices = slices.clone();
            move |delta, keys| slices.observe(delta, keys)
        })
        .reads(&nodes);
    boxed(controller.run())
}

struct Controller {
    recorder: Recorder,
    services: Arc<Informer>,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
    slices: Arc<Slices>,
    times: TriggerTimes,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.services.get(&key.namespace, &key.name) else {
            // The garbage collector takes the slices, which the service owns.
            self.slices.forget(key);
            self.times.forget(key);
            return Ok(Action::await_change());
        };
        let service = view::<Service>(&object)?;
        let not_ours = service.spec.selector.is_empty() || service.spec.type_ == "ExternalName";
        if not_ours || !self.slices.is_current(key) {
            return Ok(Action::await_change());
        }
        self.sync(key, &object, &service).await
    }
}

impl Controller {
    async fn sync(&self, key: &ObjectKey, object: &Arc<Object>, service: &Service) -> Result {
        let existing = self.slices.of(key);
        let pods = backends::selected(&self.pods, service);
        let time = self.times.compute(key, service, &pods);
        let zone = |node: &str| self.nodes.get("", node).map(|node| plan::zone(&node));
        let wanted = plan::wanted(service, &pods, zone);
        let mut changes = plan::changes(object, service, &wanted, &existing);
        changes.create.iter_mut().chain(&mut changes.update).for_each(|tree| trigger::annotate(tree, time));
        if let Err(status) = self.slices.apply(key, object, changes).await {
            let message = format!("Error updating Endpoint Slices for Service {key}: {status}");
            self.recorder.warning(&Reference::of(object), "FailedToUpdateEndpointSlices", message);
            return Err(status.into());
        }
        match wanted.skipped.first() {
            Some(reason) => Err(Error::failed(reason.clone())),
            None => Ok(Action::await_change()),
        }
    }
}
