//! Where cluster DNS is, for all who look: the Service `kube-system/kube-dns` and an endpoint of it on each node.
//!
//! Owns: that Service, and one EndpointSlice for each node whose names this crate serves. A node's slice goes with its
//! Node object, which owns it. Nothing is written before there is a node that answers: simulated ones do not.
//!
//! Runs once in a cluster. Start at [`run`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{ENDPOINT_SLICES, NODES, SERVICES};
use api::view::Node;
use apimachinery::{GroupVersionResource, Object, Status, Str, Value, json};
use client::{Api, Delta, Informers, Patch, WriteOptions};
use rt::Shutdown;

use super::PORT;
use crate::pod_network::{self, Cidr};

const NAMESPACE: &str = "kube-system";
/// The name that everybody looks for.
const SERVICE: &str = "kube-dns";
const MANAGER: &str = "dns.pintle.dev";
const RETRY: Duration = Duration::from_secs(2);
/// How often all of it is written again when nothing happens.
const RESYNC: Duration = Duration::from_secs(600);

/// What a node's slice says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    node: String,
    uid: String,
    address: IpAddr,
}

impl Endpoint {
    /// `None` for a node that answers nothing: a simulated one, one that is going, or one that has no addresses yet.
    fn of(object: &Object) -> Option<Self> {
        let node = object.view::<Node>().ok()?;
        if node.is_simulated() || object.is_deleting() {
            return None;
        }
        let block = node.spec.pod_cidrs.first().unwrap_or(&node.spec.pod_cidr);
        let address = pod_network::address_of_node(&Cidr::parse(block)?)?;
        Some(Self { node: object.name().to_owned(), uid: object.uid().to_owned(), address })
    }
}

/// Keeps the Service at `cluster_ip`, and its endpoints those of the nodes, until `shutdown`.
pub async fn run(informers: &Informers, api: Arc<dyn Api>, cluster_ip: IpAddr, shutdown: Shutdown) {
    let nodes = informers.of(&NODES);
    let mut changes = nodes.subscribe();
    let mut publication = Publication { api, cluster_ip, is_service_there: false, published: HashMap::new() };
    let work = async {
        nodes.synced().await;
        let mut waiting = HashMap::new();
        let mut resync = rt::instant() + RESYNC;
        loop {
            waiting = publication.publish(waiting).await;
            let delta = tokio::select! {
                delta = changes.recv() => delta,
                // Written again: somebody may have taken it away.
                () = rt::sleep_until(resync) => {
                    resync = rt::instant() + RESYNC;
                    publication.forget();
                    Some(Delta::Resync)
                }
                () = rt::sleep(rt::jittered(RETRY, 0.5)), if !waiting.is_empty() => continue,
            };
            let mut note = |node: &Object| {
                let endpoint = Endpoint::of(node).filter(|endpoint| publication.is_news(endpoint));
                waiting.extend(endpoint.map(|endpoint| (endpoint.node.clone(), endpoint)));
            };
            match delta {
                Some(Delta::Resync) => nodes.for_each(|node| note(node)),
                Some(Delta::Upsert { new, .. }) => note(&new),
                Some(Delta::Delete { old }) => {
                    waiting.remove(old.name());
                    publication.published.remove(old.name());
                }
                None => return,
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

struct Publication {
    api: Arc<dyn Api>,
    cluster_ip: IpAddr,
    is_service_there: bool,
    /// By node.
    published: HashMap<String, Endpoint>,
}

impl Publication {
    fn is_news(&self, endpoint: &Endpoint) -> bool {
        self.published.get(&endpoint.node) != Some(endpoint)
    }

    fn forget(&mut self) {
        self.is_service_there = false;
        self.published.clear();
    }

    /// Returns those that have to be tried again.
    async fn publish(&mut self, waiting: HashMap<String, Endpoint>) -> HashMap<String, Endpoint> {
        let mut again = HashMap::new();
        for (node, endpoint) in waiting {
            match self.publish_one(&endpoint).await {
                Ok(()) => _ = self.published.insert(node, endpoint),
                Err(error) => {
                    tracing::warn!(node, %error, "A node's endpoint of cluster DNS was not written; trying again");
                    again.insert(node, endpoint);
                }
            }
        }
        again
    }

    async fn publish_one(&mut self, endpoint: &Endpoint) -> Result<(), Status> {
        if !self.is_service_there {
            self.apply(&SERVICES, service(self.cluster_ip)).await?;
            self.is_service_there = true;
        }
        self.apply(&ENDPOINT_SLICES, slice(endpoint)).await
    }

    async fn apply(&self, resource: &GroupVersionResource, object: Value) -> Result<(), Status> {
        let name = object.str_at(&["metadata", "name"]).to_owned();
        let options = WriteOptions { field_manager: Str::from("pintle-dns"), force: true, dry_run: false };
        self.api.patch(resource, NAMESPACE, &name, None, Patch::Apply(object), &options).await.map(drop)
    }
}

fn ports() -> Value {
    json!([
        {"name": "dns", "port": i64::from(PORT), "protocol": "UDP"},
        {"name": "dns-tcp", "port": i64::from(PORT), "protocol": "TCP"},
    ])
}

/// Pods ask the server of their own node.
fn service(cluster_ip: IpAddr) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
        }},
        "spec": {"clusterIP": cluster_ip.to_string(), "internalTrafficPolicy": "Local"},
    });
    service.set_at(&["spec", "ports"], ports());
    service
}

fn slice(endpoint: &Endpoint) -> Value {
    let node = endpoint.node.as_str();
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{SERVICE}-{node}"), "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": SERVICE, "endpointslice.kubernetes.io/managed-by": MANAGER,
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": endpoint.uid.as_str()}],
        },
        "addressType": if endpoint.address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [
            {"addresses": [endpoint.address.to_string()], "conditions": {"ready": true}, "nodeName": node},
        ],
    });
    slice.set_at(&["ports"], ports());
    slice
}

#[cfg(test)]
mod tests {
    use client::fake::FakeApi;

    use super::*;

    fn node(name: &str, block: &str, annotations: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations},
            "spec": {"podCIDR": block, "podCIDRs": [block]}})
    }

    async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if holds() {
                return;
            }
            rt::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what}: not within 5 s");
    }

    #[tokio::test]
    async fn each_node_that_answers_is_an_endpoint() {
        let fake = FakeApi::new();
        let simulated = json!({api::view::SIMULATED_ANNOTATION: api::view::SIMULATED});
        fake.seed(node("simulated", "10.244.9.0/24", simulated));
        let shutdown = Shutdown::new();
        let informers = Informers::new(fake.clone(), shutdown.child_token());
        let (api, ending): (Arc<dyn Api>, _) = (fake.clone(), shutdown.clone());
        let cluster_ip = IpAddr::from([10, 96, 0, 10]);
        let running = rt::spawn("publication", async move { run(&informers, api, cluster_ip, ending).await });

        let slices = |fake: &FakeApi| {
            let mut all: Vec<String> = fake
                .peek_all(&ENDPOINT_SLICES)
                .iter()
                .map(|slice| {
                    let tree = slice.to_value();
                    let endpoint = &tree["endpoints"][0];
                    let address = endpoint["addresses"][0].as_str().unwrap_or_default().to_owned();
                    format!("{} {} {address}", slice.name(), endpoint.str_at(&["nodeName"]))
                })
                .collect();
            all.sort_unstable();
            all
        };
        fake.seed(node("a", "10.244.0.0/24", json!({})));
        wait_for("a's slice", || slices(&fake) == ["kube-dns-a a 10.244.0.1"]).await;
        let service = fake.peek(&SERVICES, NAMESPACE, SERVICE).expect("the Service is there").to_value();
        assert_eq!(service["spec"].str_at(&["clusterIP"]), "10.96.0.10");

        // One whose first attempt fails, and one that gets its addresses later.
        let mut failures = 1;
        fake.fail(move |call| {
            let is_first = call.resource == "endpointslices" && failures > 0;
            failures -= i32::from(is_first);
            is_first.then(|| Status::unavailable("not now"))
        });
        fake.seed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "c"}, "spec": {}}));
        fake.seed(node("b", "10.244.1.0/24", json!({})));
        fake.edit(&NODES, "", "c", |node| {
            node.set_at(&["spec", "podCIDR"], "10.244.2.0/24");
        });
        let expected = ["kube-dns-a a 10.244.0.1", "kube-dns-b b 10.244.1.1", "kube-dns-c c 10.244.2.1"];
        wait_for("all slices", || slices(&fake) == expected).await;
        shutdown.cancel();
        running.await.expect("it ends");
    }
}
