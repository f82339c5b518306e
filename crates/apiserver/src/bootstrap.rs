//! What a cluster holds before anyone touches it: namespaces, RBAC policy, priority classes, its own Service.
//!
//! Level-driven: run at every start, it creates what is missing and reconciles the RBAC policy as upstream does
//! (nothing is taken away, `autoupdate: "false"` is respected). Writes pass the same door as everyone's, as
//! `system:apiserver`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::Features;
use apimachinery::{GroupVersionResource, Status, Value, json};
use auth::UserInfo;
use auth::rbac::bootstrap::{self, Reconciled};
use client::{Api, DeleteOptions, WriteOptions};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use registry::ServiceNetwork;

use crate::{Door, LocalApi};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// What the cluster's own Service and configuration say.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// First address of the Service network.
    pub service_ip: IpAddr,
    pub service_cidrs: Vec<String>,
    /// Where the API server listens.
    pub address: IpAddr,
    pub port: u16,
    pub ca_pem: String,
    pub features: Features,
}

impl ClusterFacts {
    /// Of a server that listens at `address`.
    pub fn new(
        network: &ServiceNetwork,
        address: SocketAddr,
        authority: &pki::Authority,
        features: &Features,
    ) -> Self {
        Self {
            service_ip: network.first(),
            service_cidrs: network.cidrs(),
            address: address.ip(),
            port: address.port(),
            ca_pem: authority.ca_pem().to_owned(),
            features: features.clone(),
        }
    }
}

/// Creates or reconciles everything; returns when it is stored.
pub async fn run(door: &Arc<Door>, facts: &ClusterFacts, shutdown: &rt::Shutdown) -> Result<(), Status> {
    let api = LocalApi::new(door.clone(), UserInfo::api_server(), shutdown.clone());
    let api = &api;
    let namespaces =
        NAMESPACES.map(|name| (api::gvr::NAMESPACES, "", json!({ "metadata": { "name": name } })));
    ensure_all(api, namespaces).await?;
    let policy = bootstrap::objects(|gate| facts.features.enabled(gate));
    reconcile_all(api, policy.into_iter().map(Value::from)).await?;
    ensure_all(api, objects(facts)).await?;
    if door.endpoint(&api::gvr::FLOW_SCHEMAS).is_ok() {
        crate::fairness::ensure(api).await?;
    }
    ready_network(api, facts).await
}

/// The block of addresses that the server was started with says that it is ready, unless something was said about it.
async fn ready_network(api: &LocalApi, facts: &ClusterFacts) -> Result<(), Status> {
    let name = "kubernetes";
    let current = api.get(&api::gvr::SERVICE_CIDRS, "", name).await?.to_value();
    let said = current.array_at(&["status", "conditions"]).iter().any(|own| own.str_at(&["type"]) == "Ready");
    if said || current["spec"]["cidrs"] != Value::from(facts.service_cidrs.clone()) {
        return Ok(());
    }
    let status = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": apimachinery::time::format_seconds(rt::now()),
        }]},
    });
    let options = WriteOptions {
        field_manager: "kubernetes-service-cidr-controller".into(),
        force: true,
        ..WriteOptions::default()
    };
    let patch = client::Patch::Apply(status);
    api.patch(&api::gvr::SERVICE_CIDRS, "", name, Some("status"), patch, &options).await.map(drop)
}

/// Brings roles and bindings up to date that are not upstream's but a component's own.
pub async fn policy(
    door: &Arc<Door>,
    objects: impl IntoIterator<Item = Value>,
    shutdown: &rt::Shutdown,
) -> Result<(), Status> {
    let api = LocalApi::new(door.clone(), UserInfo::api_server(), shutdown.clone());
    reconcile_all(&api, objects).await
}

async fn reconcile_all(api: &LocalApi, objects: impl IntoIterator<Item = Value>) -> Result<(), Status> {
    let mut running = FuturesUnordered::new();
    for object in objects {
        running.push(reconcile(api, object));
    }
    while let Some(result) = running.next().await {
        result?;
    }
    Ok(())
}

/// All at once, so that they share a few syncs.
async fn ensure_all(
    api: &LocalApi,
    objects: impl IntoIterator<Item = (GroupVersionResource, &'static str, Value)>,
) -> Result<(), Status> {
    let mut running = FuturesUnordered::new();
    for (gvr, namespace, object) in objects {
        running.push(ensure(api, gvr, namespace, object));
    }
    while let Some(result) = running.next().await {
        result?;
    }
    Ok(())
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "kube-apiserver".into(), ..WriteOptions::default() }
}

async fn ensure(
    api: &LocalApi,
    gvr: GroupVersionResource,
    namespace: &str,
    object: Value,
) -> Result<(), Status> {
    let name = object.str_at(&["metadata", "name"]).to_owned();
    if api.get(&gvr, namespace, &name).await.is_ok() {
        return Ok(());
    }
    match api.create(&gvr, namespace, object, &options()).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

async fn reconcile(api: &LocalApi, wanted: Value) -> Result<(), Status> {
    let gvr = match wanted.str_at(&["kind"]) {
        "ClusterRole" => api::gvr::CLUSTER_ROLES,
        "ClusterRoleBinding" => api::gvr::CLUSTER_ROLE_BINDINGS,
        "Role" => api::gvr::ROLES,
        _ => api::gvr::ROLE_BINDINGS,
    };
    let namespace = wanted.str_at(&["metadata", "namespace"]).to_owned();
    let name = wanted.str_at(&["metadata", "name"]).to_owned();
    let Ok(existing) = api.get(&gvr, &namespace, &name).await else {
        return ensure(api, gvr, &namespace, wanted).await;
    };
    let existing = existing.to_value();
    match bootstrap::reconcile(&(&existing).into(), &(&wanted).into()) {
        Reconciled::Keep => Ok(()),
        Reconciled::Update(merged) => {
            api.update(&gvr, &namespace, &name, None, merged.into(), &options()).await.map(drop)
        }
        Reconciled::Recreate(fresh) => {
            api.delete(&gvr, &namespace, &name, &DeleteOptions::default()).await?;
            ensure(api, gvr, &namespace, fresh.into()).await
        }
    }
}

fn objects(facts: &ClusterFacts) -> Vec<(GroupVersionResource, &'static str, Value)> {
    let class = |name: &str, value: i64, description: &str| {
        let object = json!({"metadata": {"name": name}, "value": value, "description": description});
        (api::gvr::PRIORITY_CLASSES, "", object)
    };
    // From when on the use of tokens kept in Secrets has been watched.
    let today = rt::now().strftime("%Y-%m-%d").to_string();
    let mut objects = vec![
        class(
            "system-cluster-critical",
            2_000_000_000,
            "For pods the cluster cannot do without, wherever they run.",
        ),
        class("system-node-critical", 2_000_001_000, "For pods their node cannot do without."),
        (
            api::gvr::CONFIG_MAPS,
            "kube-system",
            json!({
                "metadata": {"name": "extension-apiserver-authentication"},
                "data": {"client-ca-file": facts.ca_pem.as_str()},
            }),
        ),
        (
            api::gvr::CONFIG_MAPS,
            "kube-system",
            json!({
                "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking"},
                "data": {"since": today.as_str()},
            }),
        ),
        (
            api::gvr::SERVICE_CIDRS,
            "",
            json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": facts.service_cidrs.clone()}}),
        ),
        (
            api::gvr::SERVICES,
            "default",
            json!({
                "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
                "spec": {
                    "type": "ClusterIP", "clusterIP": facts.service_ip.to_string(), "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack",
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": facts.port}],
                },
            }),
        ),
    ];
    // An endpoint on the loopback would mislead whoever reads it on another machine, and the API refuses it.
    if !facts.address.is_loopback() && !facts.address.is_unspecified() {
        objects.extend(endpoints(SocketAddr::new(facts.address, facts.port)));
    }
    objects
}

/// Where the Service `kubernetes` leads.
fn endpoints(at: SocketAddr) -> [(GroupVersionResource, &'static str, Value); 2] {
    let ports = json!([{"name": "https", "port": at.port(), "protocol": "TCP"}]);
    let address = at.ip().to_string();
    let mut endpoints = json!({
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address.as_str()}]}],
    });
    if let Some(subset) =
        endpoints.at_mut(&["subsets"]).and_then(Value::as_array_mut).and_then(|list| list.first_mut())
    {
        subset.set_at(&["ports"], ports.clone());
    }
    let mut slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if at.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.as_str()], "conditions": {"ready": true}}],
    });
    slice.set_at(&["ports"], ports);
    [(api::gvr::ENDPOINTS, "default", endpoints), (api::gvr::ENDPOINT_SLICES, "default", slice)]
}

/// From now on the Service `kubernetes` leads to this address, which pods can reach.
pub async fn advertise(door: &Arc<Door>, at: SocketAddr, shutdown: &rt::Shutdown) -> Result<(), Status> {
    let local = LocalApi::new(door.clone(), UserInfo::api_server(), shutdown.clone());
    let api: &dyn Api = &local;
    for (gvr, namespace, wanted) in endpoints(at) {
        match api.get(&gvr, namespace, "kubernetes").await {
            Err(status) if status.is_not_found() => ensure(&local, gvr, namespace, wanted).await?,
            Err(status) => return Err(status),
            Ok(_) => {
                api.edit(&gvr, namespace, "kubernetes", None, |current| {
                    let before = current.clone();
                    for field in ["subsets", "endpoints", "ports", "addressType"] {
                        if let Some(value) = wanted.get(field) {
                            current.set_at(&[field], value.clone());
                        }
                    }
                    *current != before
                })
                .await?;
            }
        }
    }
    Ok(())
}
