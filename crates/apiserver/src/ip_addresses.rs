//! The `IPAddress` objects of Services: one for each cluster IP, made and taken away as Services come and go.
//!
//! The Services are the truth. Whatever happened while nobody looked (a crash between two writes, an object that
//! somebody edited) is put right from them: each address is looked at when a Service or an `IPAddress` changes, and all
//! of them at start. Objects that something else made are left alone; allocation keeps off them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{IP_ADDRESSES, SERVICES};
use api::view::Service;
use apimachinery::{Object, Status, Str, Value, json};
use auth::UserInfo;
use client::{Api, DeleteOptions, Delta, Informer, Informers, WriteOptions};
use registry::IP_ALLOCATOR;

use crate::{Door, LocalApi};

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Index of Services.
const BY_ADDRESS: &str = "cluster-ip";
/// After a write failed, before the next try.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Keeps the objects in step until `shutdown`.
pub async fn run(door: Arc<Door>, shutdown: rt::Shutdown) {
    let api: Arc<dyn Api> = Arc::new(LocalApi::new(door, UserInfo::api_server(), shutdown.clone()));
    let informers = Informers::new(api.clone(), shutdown.clone());
    let keeper = Keeper { api, services: informers.of(&SERVICES), addresses: informers.of(&IP_ADDRESSES) };
    keeper.services.add_index(BY_ADDRESS, cluster_ips);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = keeper.follow() => {}
    }
}

struct Keeper {
    api: Arc<dyn Api>,
    services: Arc<Informer>,
    addresses: Arc<Informer>,
}

impl Keeper {
    async fn follow(&self) {
        let (mut services, mut addresses) = (self.services.subscribe(), self.addresses.subscribe());
        self.services.synced().await;
        self.addresses.synced().await;
        loop {
            let touched = tokio::select! {
                delta = services.recv() => delta.map(|delta| self.touched(&delta, cluster_ips)),
                delta = addresses.recv() => delta.map(|delta| self.touched(&delta, own_address)),
            };
            let Some(touched) = touched else { return };
            for address in touched {
                self.settle(&address).await;
            }
        }
    }

    /// The addresses that a change was about, before and after.
    fn touched(&self, delta: &Delta, addresses_of: fn(&Object) -> Vec<Str>) -> BTreeSet<Str> {
        match delta {
            Delta::Upsert { old, new } => {
                old.iter().chain([new]).flat_map(|object| addresses_of(object)).collect()
            }
            Delta::Delete { old } => addresses_of(old).into_iter().collect(),
            Delta::Resync => {
                let (services, objects) = (self.services.list(), self.addresses.list());
                let held = services.iter().flat_map(|service| cluster_ips(service));
                held.chain(objects.iter().flat_map(|object| own_address(object))).collect()
            }
        }
    }

    /// Until the address's object is as it should be.
    async fn settle(&self, address: &str) {
        while let Err(status) = self.reconcile(address).await {
            tracing::warn!(address, error = %status, "Could not write the object of a Service's address");
            rt::sleep(RETRY_DELAY).await;
        }
    }

    async fn reconcile(&self, address: &str) -> Result<(), Status> {
        let service = self.services.by_index(BY_ADDRESS, address).into_iter().next();
        let wanted = service.as_deref().map(|service| object(address, service));
        let actual = self.addresses.get("", address).map(|actual| actual.to_value());
        match (wanted, actual) {
            (Some(wanted), None) => self.create(wanted).await,
            (wanted, Some(actual)) if is_ours(&actual) => {
                let parent = |object: &Value| object["spec"]["parentRef"].clone();
                if wanted.as_ref().is_some_and(|wanted| parent(wanted) == parent(&actual)) {
                    return Ok(());
                }
                let options = DeleteOptions::default();
                match self.api.delete(&IP_ADDRESSES, "", address, &options).await {
                    Err(status) if !status.is_not_found() => return Err(status),
                    _ => {}
                }
                match wanted {
                    Some(wanted) => self.create(wanted).await,
                    None => Ok(()),
                }
            }
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

fn object(address: &str, service: &Object) -> Value {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address, "labels": {FAMILY: family, MANAGED_BY: IP_ALLOCATOR}},
        "spec": {"parentRef": {"resource": "services", "namespace": service.namespace(), "name": service.name()}},
    })
}
