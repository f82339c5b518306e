//! Addresses for Services of type LoadBalancer, where no cloud gives any: those of the nodes.
//!
//! Owns: `status.loadBalancer.ingress` of Services without a `loadBalancerClass`. Never touches: Services of a class,
//! and rules; the proxy of each node serves the addresses like those of any load balancer.
//!
//! Runs once in a cluster. Start at [`plan`].

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{ENDPOINT_SLICES, NODES, SERVICES};
use api::view::Node;
use apimachinery::{Object, Status, json};
use client::{Delta, Informers, ObjectKey};
use rt::Shutdown;
use tracing::{debug, warn};

use super::objects::{EndpointSlice, LoadBalancerIngress, Service};
use super::{Dirty, Error, Sources, service_key_of_slice, service_of_slice, slices_of};

/// Changes that come within this time of the first are one round.
const GATHER: Duration = Duration::from_millis(20);
/// Services whose status could not be written are tried again after this long.
const RETRY: Duration = Duration::from_secs(2);
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// A node that may take traffic from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrance {
    pub node: String,
    pub addresses: Vec<IpAddr>,
}

/// The addresses that a Service should have; `None` when it is not ours.
pub fn plan(
    service: &Service,
    slices: &[&EndpointSlice],
    entrances: &[Entrance],
) -> Option<Vec<LoadBalancerIngress>> {
    if !service.is_load_balancer() || service.spec.load_balancer_class.is_some() || !service.is_proxied() {
        return None;
    }
    let with_endpoints: Option<HashSet<&str>> = service.is_external_local().then(|| {
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.filter(|own| own.is_ready()).filter_map(|own| own.node_name.as_deref()).collect()
    });
    let nodes = entrances.iter().filter(|entrance| {
        with_endpoints.as_ref().is_none_or(|nodes| nodes.contains(entrance.node.as_str()))
    });
    let families: HashSet<bool> = service.cluster_ips().map(|ip| ip.is_ipv4()).collect();
    let addresses: BTreeSet<IpAddr> = nodes.flat_map(|entrance| entrance.addresses.iter().copied()).collect();
    let of_family = addresses.into_iter().filter(|address| families.contains(&address.is_ipv4()));
    let ingress = |address: IpAddr| LoadBalancerIngress {
        ip: address.to_string().into(),
        ip_mode: Some("VIP".into()),
        ..LoadBalancerIngress::default()
    };
    Some(of_family.map(ingress).collect())
}

/// `None` for a node that takes no traffic from outside: not ready, excluded, or about to go.
pub fn entrance(node: &Node) -> Option<Entrance> {
    let ready = node.status.conditions.iter().any(|own| own.type_ == "Ready" && own.status == "True");
    let leaving = node.metadata.deletion_timestamp.is_some()
        || node.spec.taints.iter().any(|taint| taint.key == TO_BE_DELETED_TAINT);
    if !ready || leaving || node.metadata.labels.contains_key(EXCLUDE_LABEL) {
        return None;
    }
    let of_type = |wanted: &str| -> Vec<IpAddr> {
        let own = node.status.addresses.iter().filter(|address| address.type_ == wanted);
        own.filter_map(|address| address.address.parse().ok()).collect()
    };
    let external = of_type("ExternalIP");
    let addresses = if external.is_empty() { of_type("InternalIP") } else { external };
    (!addresses.is_empty()).then(|| Entrance { node: node.metadata.name.to_string(), addresses })
}

/// Gives addresses to Services until `shutdown`.
pub async fn run(informers: &Informers, shutdown: Shutdown) -> Result<(), Error> {
    let sources = Sources {
        services: informers.of(&SERVICES),
        slices: informers.of(&ENDPOINT_SLICES),
        nodes: informers.of(&NODES),
    };
    sources.slices.add_index(super::SLICES_BY_SERVICE, service_of_slice);
    let (mut services, mut slices, mut nodes) =
        (sources.services.subscribe(), sources.slices.subscribe(), sources.nodes.subscribe());
    for informer in [&sources.services, &sources.slices, &sources.nodes] {
        tokio::select! {
            () = informer.synced() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    let mut entrances = entrances(&sources);
    let mut dirty = Dirty { everything: true, ..Dirty::default() };
    loop {
        tokio::select! {
            () = rt::sleep(GATHER) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        while let Some(delta) = services.try_recv() {
            dirty.note(&delta, |object| Some(object.into()));
        }
        while let Some(delta) = slices.try_recv() {
            dirty.note(&delta, service_key_of_slice);
        }
        while nodes.try_recv().is_some() {}
        let now = self::entrances(&sources);
        if now != entrances {
            entrances = now;
            dirty.everything = true;
        }
        let mut keys = std::mem::take(&mut dirty).keys(&sources);
        let mut again = HashSet::new();
        for key in keys.drain() {
            if let Err(status) = reconcile(informers, &sources, &key, &entrances).await {
                warn!(service = %key, error = %status, "Addresses of the load balancer not written; trying again");
                again.insert(key);
            }
        }
        let retry = !again.is_empty();
        dirty.services = again;
        tokio::select! {
            // First: informers stop by the same token, and that is no error then.
            biased;
            () = shutdown.cancelled() => return Ok(()),
            delta = services.recv() => dirty.note(&delta.ok_or(Error::InformersStopped)?, |object| Some(object.into())),
            delta = slices.recv() => dirty.note(&delta.ok_or(Error::InformersStopped)?, service_key_of_slice),
            changed = entrance_changed(&mut nodes) => changed?,
            () = rt::sleep(rt::jittered(RETRY, 0.5)), if retry => {}
        }
    }
}

/// Waits for a change of nodes that could matter; heartbeats do not.
async fn entrance_changed(nodes: &mut client::informer::Subscription) -> Result<(), Error> {
    loop {
        match nodes.recv().await.ok_or(Error::InformersStopped)? {
            Delta::Upsert { old: Some(old), new } if entrance_of(&old) == entrance_of(&new) => {}
            _ => return Ok(()),
        }
    }
}

fn entrance_of(node: &Object) -> Option<Entrance> {
    node.view::<Node>().ok().and_then(|node| entrance(&node))
}

fn entrances(sources: &Sources) -> Vec<Entrance> {
    let mut all = Vec::new();
    sources.nodes.for_each(|node| all.extend(entrance_of(node)));
    all.sort_by(|a, b| a.node.cmp(&b.node));
    all
}

async fn reconcile(
    informers: &Informers,
    sources: &Sources,
    key: &ObjectKey,
    entrances: &[Entrance],
) -> Result<(), Status> {
    let Some(object) = sources.services.get(&key.namespace, &key.name) else { return Ok(()) };
    let Ok(service) = object.view::<Service>() else { return Ok(()) };
    let slices = slices_of(key, sources);
    let slices: Vec<&EndpointSlice> = slices.iter().map(Arc::as_ref).collect();
    let Some(wanted) = plan(&service, &slices, entrances) else { return Ok(()) };
    if object.is_deleting() || wanted == service.status.load_balancer.ingress {
        return Ok(());
    }
    let ingress: Vec<serde_json::Value> =
        wanted.iter().map(|own| serde_json::json!({"ip": own.ip, "ipMode": own.ip_mode})).collect();
    debug!(service = %key, addresses = ingress.len(), "Addresses of a load balancer change");
    let status = json!({"loadBalancer": {"ingress": serde_json::Value::from(ingress)}});
    match informers.api().patch_status(&SERVICES, &key.namespace, &key.name, status).await {
        Err(status) if status.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use client::fake::FakeApi;
    use serde_json::Value;

    use super::*;

    fn service(spec: Value) -> Value {
        let mut service = serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "ns", "name": "web"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"]},
        });
        for (field, value) in spec.as_object().unwrap() {
            service["spec"][field] = value.clone();
        }
        service
    }

    fn slice(node: &str, ready: bool) -> Value {
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": ["10.244.0.1"], "nodeName": node, "conditions": {"ready": ready}}],
        })
    }

    fn node(name: &str, addresses: &[(&str, &str)], ready: &str) -> Value {
        let address = |(kind, address): &(&str, &str)| serde_json::json!({"type": kind, "address": address});
        serde_json::json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": ready}],
                       "addresses": addresses.iter().map(address).collect::<Vec<_>>()},
        })
    }

    #[test]
    fn a_service_gets_the_addresses_of_the_nodes_that_serve_it() {
        let nodes = [
            node("a", &[("InternalIP", "192.0.2.1"), ("InternalIP", "2001:db8::1")], "True"),
            node("b", &[("InternalIP", "10.0.0.2"), ("ExternalIP", "203.0.113.2")], "True"),
            node("c", &[("InternalIP", "192.0.2.3")], "False"),
        ];
        let nodes = nodes.into_iter().map(|node| serde_json::from_value::<Node>(node).unwrap());
        let mut nodes: Vec<Node> = nodes.collect();
        let mut tainted = nodes[0].clone();
        tainted.spec.taints.push(api::view::Taint { key: TO_BE_DELETED_TAINT.into(), ..Default::default() });
        nodes.push(tainted);
        let entrances: Vec<Entrance> = nodes.iter().filter_map(entrance).collect();
        assert_eq!(entrances.len(), 2);
        let both = Some(vec!["192.0.2.1", "203.0.113.2"]);
        for (what, spec, slice, wanted) in [
            ("every node", serde_json::json!({}), slice("a", true), both.clone()),
            ("class", serde_json::json!({"loadBalancerClass": "x"}), slice("a", true), None),
            ("type", serde_json::json!({"type": "NodePort"}), slice("a", true), None),
            (
                "local",
                serde_json::json!({"externalTrafficPolicy": "Local"}),
                slice("a", true),
                Some(vec!["192.0.2.1"]),
            ),
            (
                "not ready",
                serde_json::json!({"externalTrafficPolicy": "Local"}),
                slice("a", false),
                Some(vec![]),
            ),
            (
                "families",
                serde_json::json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
                slice("a", true),
                Some(vec!["2001:db8::1"]),
            ),
        ] {
            let service: Service = serde_json::from_value(service(spec)).unwrap();
            let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
            let planned = plan(&service, &[&slice], &entrances);
            let planned =
                planned.as_ref().map(|all| all.iter().map(|own| own.ip.as_str()).collect::<Vec<_>>());
            assert_eq!(planned, wanted, "{what}");
        }
    }

    #[tokio::test]
    async fn the_status_follows_services_and_nodes() {
        let (fake, shutdown) = (FakeApi::new(), Shutdown::new());
        let informers = Informers::new(fake.clone(), shutdown.clone());
        fake.seed(service(serde_json::json!({})).into());
        let task = rt::spawn("load-balancer", {
            let (informers, shutdown) = (informers.clone(), shutdown.clone());
            async move { run(&informers, shutdown).await.unwrap() }
        });
        let services = informers.of(&SERVICES);
        let mut deltas = services.subscribe();
        let mut until = async |wanted: &[&str]| {
            let reached = async {
                loop {
                    let ips = services.get("ns", "web").map(|object| object.view::<Service>().unwrap());
                    let ips = ips.map(|own| own.status.load_balancer.ingress.clone()).unwrap_or_default();
                    if ips.iter().map(|own| own.ip.as_str()).eq(wanted.iter().copied()) {
                        return;
                    }
                    deltas.recv().await;
                }
            };
            rt::timeout(Duration::from_secs(10), reached).await.expect("the status is written");
        };
        fake.seed(node("a", &[("InternalIP", "192.0.2.1")], "True").into());
        until(&["192.0.2.1"]).await;
        fake.seed(node("b", &[("InternalIP", "192.0.2.2")], "True").into());
        until(&["192.0.2.1", "192.0.2.2"]).await;
        fake.drop_object(&NODES, "", "a");
        until(&["192.0.2.2"]).await;
        shutdown.cancel();
        task.await.unwrap();
    }
}
