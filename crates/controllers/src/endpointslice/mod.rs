//! The EndpointSlice controller: the addresses behind each service, in slices of at most a hundred.
//!
//! Start at [`Controller::sync`]; [`plan`] turns pods into endpoints and endpoints into changes of slices. Services
//! without a selector, and external names, are somebody else's.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::gvr::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
use api::view::Service;
use apimachinery::{Object, Status};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, DeleteOptions, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Expectations, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use crate::ownership;
use crate::service::{TriggerTimes, backends, trigger, wake_services};
use plan::Changes;

const NAME: &str = "endpointslice-controller";
const BY_SERVICE: &str = "service";

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
    let (nodes, slices) = (informers.of(&NODES), informers.of(&ENDPOINT_SLICES));
    slices.add_index(BY_SERVICE, backends::service_index);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        services: services.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        slices: slices.clone(),
        expectations: Expectations::default(),
        times: TriggerTimes::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&services)
        .watches(&pods, {
            let services = services.clone();
            move |delta, keys| wake_services(&services, delta, keys)
        })
        .watches(&slices, wake_service_of_slice)
        .reads(&nodes);
    boxed(controller.run())
}

/// A slice of ours that somebody changes or deletes is put right.
fn wake_service_of_slice(delta: &Delta, keys: &mut Vec<ObjectKey>) {
    let slice = match delta {
        Delta::Upsert { new, .. } => new,
        Delta::Delete { old } => old,
        Delta::Resync => return,
    };
    if slice.label(plan::MANAGED_BY) == Some(plan::MANAGER)
        && let Some(service) = slice.label(plan::SERVICE_NAME)
    {
        keys.push(ObjectKey::new(slice.namespace(), service));
    }
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    services: Arc<Informer>,
    pods: Arc<Informer>,
    nodes: Arc<Informer>,
    slices: Arc<Informer>,
    expectations: Expectations<ObjectKey>,
    times: TriggerTimes,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.services.get(&key.namespace, &key.name) else {
            // The garbage collector takes the slices, which the service owns.
            self.expectations.forget(key);
            self.times.forget(key);
            return Ok(Action::await_change());
        };
        let service = view::<Service>(&object)?;
        let not_ours = service.spec.selector.is_empty() || service.spec.type_ == "ExternalName";
        if not_ours || !self.expectations.met(key, &self.slices) {
            return Ok(Action::await_change());
        }
        self.sync(key, &object, &service).await
    }
}

impl Controller {
    async fn sync(&self, key: &ObjectKey, object: &Arc<Object>, service: &Service) -> Result {
        let existing = self.existing(key);
        let pods = backends::selected(&self.pods, service);
        let time = self.times.compute(key, service, &pods);
        let zone = |node: &str| self.nodes.get("", node).map(|node| plan::zone(&node));
        let wanted = plan::wanted(service, &pods, zone);
        let mut changes = plan::changes(object, service, &wanted, &existing);
        changes.create.iter_mut().chain(&mut changes.update).for_each(|tree| trigger::annotate(tree, time));
        if let Err(status) = self.apply(key, object, changes).await {
            let message = format!("Error updating Endpoint Slices for Service {key}: {status}");
            self.recorder.warning(&Reference::of(object), "FailedToUpdateEndpointSlices", message);
            return Err(status.into());
        }
        match wanted.skipped.first() {
            Some(reason) => Err(Error::failed(reason.clone())),
            None => Ok(Action::await_change()),
        }
    }

    /// Our slices of the service, except those on their way out.
    fn existing(&self, key: &ObjectKey) -> Vec<Arc<Object>> {
        let mut slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        slices.retain(|slice| slice.label(plan::MANAGED_BY) == Some(plan::MANAGER) && !slice.is_deleting());
        self.expectations.settle(key, slices.iter().map(|slice| slice.uid()));
        slices.retain(|slice| !self.expectations.is_deleted(key, slice.uid()));
        slices.sort_by(|a, b| a.name().cmp(b.name()));
        slices
    }

    async fn apply(&self, key: &ObjectKey, service: &Object, changes: Changes) -> Result<(), Status> {
        let options = WriteOptions::default();
        if !service.is_deleting() {
            for tree in changes.create {
                match self.api.create(&ENDPOINT_SLICES, &key.namespace, tree, &options).await {
                    Ok(slice) => self.expectations.written(key, slice.revision()),
                    Err(status) if ownership::is_namespace_terminating(&status) => return Ok(()),
                    Err(status) => return Err(status),
                }
            }
        }
        for tree in changes.update {
            let name = tree.str_at(&["metadata", "name"]).to_owned();
            let slice =
                self.api.update(&ENDPOINT_SLICES, &key.namespace, &name, None, tree, &options).await?;
            self.expectations.written(key, slice.revision());
        }
        for slice in changes.delete {
            let options = DeleteOptions { uid: Some(slice.uid().into()), ..DeleteOptions::default() };
            match self.api.delete(&ENDPOINT_SLICES, &key.namespace, slice.name(), &options).await {
                Ok(()) => self.expectations.deleted(key, slice.uid()),
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }
}
