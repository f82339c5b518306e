//! The `IPAddress` objects of Services: one for each cluster IP, made and taken away as Services come and go.
//!
//! The Services are the truth. Whatever happened while nobody looked (a crash between two writes, an object that
//! somebody edited) is put right from them: each address is looked at when a Service or an `IPAddress` changes, and all
//! of them at start. Objects that something else made are left alone; allocation keeps off them.

use std::net::IpAddr;
use std::sync::Arc;

use api::gvr::{IP_ADDRESSES, SERVICES};
use api::view::Service;
use apimachinery::{Object, Status, Str, Value, json};
use async_trait::async_trait;
use auth::UserInfo;
use client::{Api, DeleteOptions, Delta, Informer, Informers, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, Controller, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;
use registry::IP_ALLOCATOR;

use crate::{Door, LocalApi};

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Index of Services.
const BY_ADDRESS: &str = "cluster-ip";

/// Keeps the objects in step until `shutdown`.
pub async fn run(door: Arc<Door>, shutdown: rt::Shutdown) {
    let api: Arc<dyn Api> = Arc::new(LocalApi::new(door, UserInfo::api_server(), shutdown.clone()));
    let informers = Informers::new(api.clone(), shutdown.clone());
    let api_of = |_: &str| api.clone();
    let started =
        controller_runtime::start_all(vec![descriptor()], &api_of, &informers, &Arc::new(()), &shutdown);
    started.tasks.ended().await;
}

fn descriptor() -> ControllerDescriptor<()> {
    ControllerDescriptor {
        name: "service-ip-addresses",
        // It is part of the server, and acts as that.
        service_account: "",
        event_source: "service-ip-addresses",
        workers: 4,
        start,
    }
}

fn start(context: Context<()>) -> BoxFuture<'static, ()> {
    let (services, addresses) = (context.informers.of(&SERVICES), context.informers.of(&IP_ADDRESSES));
    services.add_index(BY_ADDRESS, cluster_ips);
    let keeper =
        Keeper { api: context.api.clone(), services: services.clone(), addresses: addresses.clone() };
    let controller = Controller::new(&context, Arc::new(keeper))
        .watches(&services, |delta, keys| touched(delta, cluster_ips, keys))
        .watches(&addresses, |delta, keys| touched(delta, own_address, keys));
    boxed(controller.run())
}

/// The addresses that a change was about, before and after.
fn touched(delta: &Delta, addresses_of: fn(&Object) -> Vec<Str>, keys: &mut Vec<Str>) {
    match delta {
        Delta::Upsert { old, new } => {
            keys.extend(old.iter().chain([new]).flat_map(|object| addresses_of(object)));
        }
        Delta::Delete { old } => keys.extend(addresses_of(old)),
        Delta::Resync => {}
    }
}

struct Keeper {
    api: Arc<dyn Api>,
    services: Arc<Informer>,
    addresses: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Keeper {
    /// An address.
    type Key = Str;

    async fn reconcile(&self, address: &Str) -> Result {
        let service = self.services.by_index(BY_ADDRESS, address).into_iter().next();
        let wanted = service.as_deref().map(|service| object(address, service));
        let actual = self.addresses.get("", address).map(|actual| actual.to_value());
        match actual {
            Some(actual) if !is_ours(&actual) || is_of(&actual, wanted.as_ref()) => {
                return Ok(Action::await_change());
            }
            Some(_) => self.delete(address).await?,
            None => {}
        }
        if let Some(wanted) = wanted {
            self.create(wanted).await?;
        }
        Ok(Action::await_change())
    }
}

impl Keeper {
    async fn delete(&self, address: &str) -> Result<(), Status> {
        match self.api.delete(&IP_ADDRESSES, "", address, &DeleteOptions::default()).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    async fn create(&self, object: Value) -> Result<(), Status> {
        let options = WriteOptions { field_manager: "kube-apiserver".into(), ..WriteOptions::default() };
        match self.api.create(&IP_ADDRESSES, "", object, &options).await {
            Err(status) if !status.is_already_exists() => Err(status),
            _ => Ok(()),
        }
    }
}

/// The addresses that a Service holds.
fn cluster_ips(service: &Object) -> Vec<Str> {
    let Ok(service) = service.view::<Service>() else { return Vec::new() };
    service.spec.cluster_ips.iter().filter(|text| text.parse::<IpAddr>().is_ok()).cloned().collect()
}

fn own_address(object: &Object) -> Vec<Str> {
    vec![object.name().into()]
}

fn is_ours(address: &Value) -> bool {
    address["metadata"]["labels"].str_at(&[MANAGED_BY]) == IP_ALLOCATOR
}

/// Whether an object stands for the Service that the wanted one does.
fn is_of(address: &Value, wanted: Option<&Value>) -> bool {
    wanted.is_some_and(|wanted| wanted["spec"]["parentRef"] == address["spec"]["parentRef"])
}

fn object(address: &str, service: &Object) -> Value {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address, "labels": {FAMILY: family, MANAGED_BY: IP_ALLOCATOR}},
        "spec": {"parentRef": {"resource": "services", "namespace": service.namespace(), "name": service.name()}},
    })
}
