//! The approver of kubelets' serving certificates: a node gets one for exactly those names and addresses that its own
//! Node object has. Upstream leaves this to a person or an add-on; without it nobody could check who answers at a
//! kubelet's address.
//!
//! The only host name is the node's own. A node writes its addresses itself, so that one that was taken over can report an
//! address that nobody else reports; it gets none for another node's address, nor for that of the Service `kubernetes`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use api::gvr::{CERTIFICATE_SIGNING_REQUESTS, NODES, SERVICES};
use api::view::Node;
use apimachinery::{Object, Value, json};
use async_trait::async_trait;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;
use pki::SigningRequest;

use super::rules::{self, NODE_PREFIX, Signer};
use super::{APPROVED, CertificateSigningRequest, DENIED, Spec, add_condition, role_of_account};
use crate::Options;

const NAME: &str = "kubelet-serving-certificate-approving-controller";
const SERVICE_ACCOUNT: &str = "kubelet-serving-certificate-approver";
const MESSAGE: &str = "Auto approving kubelet serving certificate for the addresses of its own node.";

pub(crate) fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: SERVICE_ACCOUNT,
        event_source: NAME,
        workers: 1,
        start,
    }
}

/// What this controller may; upstream's roles know nothing of it.
pub(crate) fn policy() -> [Value; 2] {
    role_of_account(
        SERVICE_ACCOUNT,
        SERVICE_ACCOUNT,
        json!([
            {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["update"]},
            {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
                "resourceNames": ["kubernetes.io/kubelet-serving"], "verbs": ["approve"]},
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["services"], "resourceNames": ["kubernetes"], "verbs": ["get"]},
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
        ]),
    )
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let requests = context.informers.of(&CERTIFICATE_SIGNING_REQUESTS);
    let nodes = context.informers.of(&NODES);
    let reconciler =
        Arc::new(Controller { api: context.api.clone(), requests: requests.clone(), nodes: nodes.clone() });
    let waiting = requests.clone();
    let controller = controller_runtime::Controller::new(&context, reconciler).for_kind(&requests);
    // A node often asks before it has reported its addresses.
    let controller = controller.watches(&nodes, move |delta, keys| {
        if let Delta::Upsert { new: node, .. } = delta {
            waiting.for_each(|request| {
                if asks_as(request, node.name()) {
                    keys.push((&**request).into());
                }
            });
        }
    });
    boxed(controller.run())
}

fn asks_as(request: &Object, node: &str) -> bool {
    view::<CertificateSigningRequest>(request)
        .is_ok_and(|csr| csr.spec.username.strip_prefix(NODE_PREFIX) == Some(node) && !csr.is_decided())
}

struct Controller {
    api: Arc<dyn Api>,
    requests: Arc<Informer>,
    nodes: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.requests.get("", &key.name) else { return Ok(Action::await_change()) };
        let csr = view::<CertificateSigningRequest>(&object)?;
        if csr.is_decided() {
            return Ok(Action::await_change());
        }
        let request = SigningRequest::from_pem(&csr.spec.request)
            .map_err(|error| Error::Stalled { reason: format!("unable to parse csr: {error}") })?;
        let Some(name) = node_of(&csr.spec, &request) else { return Ok(Action::await_change()) };
        let node = match self.api.get(&NODES, "", name).await {
            Ok(node) => view::<Node>(&node)?,
            // It comes, or the request grows old.
            Err(status) if status.is_not_found() => return Ok(Action::await_change()),
            Err(status) => return Err(status.into()),
        };
        let taken = self.taken(name).await?;
        if let Err(problem) = check(&request, &node, &taken) {
            tracing::debug!(request = %key.name, node = name, problem, "A serving certificate waits for a person");
            return Ok(Action::await_change());
        }
        let mut approved = object.to_value();
        add_condition(&mut approved, APPROVED, "AutoApproved", MESSAGE);
        let (gvr, options) = (&CERTIFICATE_SIGNING_REQUESTS, WriteOptions::default());
        self.api.update(gvr, "", &key.name, Some("approval"), approved, &options).await?;
        Ok(Action::await_change())
    }
}

impl Controller {
    /// Addresses that are somebody else's than this node's.
    async fn taken(&self, name: &str) -> Result<HashSet<IpAddr>> {
        let mut taken = HashSet::new();
        self.nodes.for_each(|node| {
            if node.name() != name
                && let Ok(node) = node.view::<Node>()
            {
                taken.extend(addresses(&node));
            }
        });
        match self.api.get(&SERVICES, "default", "kubernetes").await {
            Ok(service) => {
                let ips = service.to_value();
                let ips = ips.array_at(&["spec", "clusterIPs"]).iter();
                taken.extend(ips.filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok()));
            }
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status.into()),
        }
        Ok(taken)
    }
}

impl CertificateSigningRequest {
    fn is_decided(&self) -> bool {
        self.status.is_issued() || self.status.has(APPROVED) || self.status.has(DENIED)
    }
}

/// The node that asks for a serving certificate of its own; `None` for every other request.
pub(super) fn node_of<'a>(spec: &'a Spec, request: &SigningRequest) -> Option<&'a str> {
    let is_serving = Signer::of_name(&spec.signer_name) == Some(Signer::KubeletServing)
        && Signer::KubeletServing.check(request, &spec.usages).is_ok();
    let is_node = spec.username == request.user && spec.groups.iter().any(|group| group == rules::NODES);
    spec.username.strip_prefix(NODE_PREFIX).filter(|name| is_serving && is_node && !name.is_empty())
}

/// Whether all that the certificate would say is said of the node, too, and of nobody else.
pub(super) fn check(request: &SigningRequest, node: &Node, taken: &HashSet<IpAddr>) -> Result<(), String> {
    let own: HashSet<IpAddr> = addresses(node).collect();
    let name = node.metadata.name.as_str();
    if let Some(other) = request.dns_names.iter().find(|own| *own != name) {
        return Err(format!("the node is not called {other}"));
    }
    if let Some(ip) = request.ips.iter().find(|ip| !own.contains(ip)) {
        return Err(format!("the node has no address {ip}"));
    }
    match request.ips.iter().find(|ip| taken.contains(ip)) {
        Some(ip) => Err(format!("the address {ip} is somebody else's, too")),
        None => Ok(()),
    }
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    node.status.addresses.iter().filter_map(|address| address.address.parse().ok())
}
