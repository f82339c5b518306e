//! The approver: kubelets get their client certificates without a person, if RBAC says that who asks may have one.

use std::sync::Arc;

use api::gvr::{CERTIFICATE_SIGNING_REQUESTS, NODES, SUBJECT_ACCESS_REVIEWS};
use api::view::Node;
use apimachinery::{Value, json};
use async_trait::async_trait;
use client::typed::view;
use client::{Api, Informer, ObjectKey, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;
use pki::SigningRequest;

use super::rules::{NODE_PREFIX, Signer};
use super::{APPROVED, CertificateSigningRequest, DENIED, Spec, add_condition, role_of_account};
use crate::Options;

const NAME: &str = "certificatesigningrequest-approving-controller";

pub(crate) fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "certificate-controller",
        event_source: NAME,
        workers: 1,
        start,
    }
}

/// What this controller may beyond upstream's role: to see whether a node is there.
pub(crate) fn policy() -> [Value; 2] {
    let nodes = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]);
    role_of_account("certificate-controller-nodes", "certificate-controller", nodes)
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let requests = context.informers.of(&CERTIFICATE_SIGNING_REQUESTS);
    let reconciler = Arc::new(Controller { api: context.api.clone(), requests: requests.clone() });
    boxed(controller_runtime::Controller::new(&context, reconciler).for_kind(&requests).run())
}

/// A sort of request that is approved if its sender may `create` this subresource of certificatesigningrequests.
pub(super) struct Recognizer {
    pub(super) subresource: &'static str,
    message: &'static str,
    recognizes: fn(&Spec, &SigningRequest) -> bool,
}

static RECOGNIZERS: [Recognizer; 2] = [
    Recognizer {
        subresource: "selfnodeclient",
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
        recognizes: |spec, request| spec.username == request.user && is_node_client(spec, request),
    },
    Recognizer {
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
        recognizes: is_node_client,
    },
];

/// The sorts that a request is of, in the order in which they are tried.
pub(super) fn recognized(spec: &Spec, request: &SigningRequest) -> impl Iterator<Item = &'static Recognizer> {
    RECOGNIZERS.iter().filter(move |sort| (sort.recognizes)(spec, request))
}

fn is_node_client(spec: &Spec, request: &SigningRequest) -> bool {
    Signer::of_name(&spec.signer_name) == Some(Signer::KubeletClient)
        && Signer::KubeletClient.check(request, &spec.usages).is_ok()
}

struct Controller {
    api: Arc<dyn Api>,
    requests: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.requests.get("", &key.name) else { return Ok(Action::await_change()) };
        let csr = view::<CertificateSigningRequest>(&object)?;
        if csr.status.is_issued() || csr.status.has(APPROVED) || csr.status.has(DENIED) {
            return Ok(Action::await_change());
        }
        // Validation let it in, so this is a request of before.
        let request = SigningRequest::from_pem(&csr.spec.request)
            .map_err(|error| Error::Stalled { reason: format!("unable to parse csr: {error}") })?;
        let mut tried = Vec::new();
        for recognizer in recognized(&csr.spec, &request) {
            tried.push(recognizer.subresource);
            if self.may(&csr.spec, recognizer.subresource).await? {
                if csr.spec.username != request.user && self.is_taken(&request.user).await? {
                    return Err(Error::failed(format!("{} is a node that is ready", request.user)));
                }
                let mut approved = object.to_value();
                add_condition(&mut approved, APPROVED, "AutoApproved", recognizer.message);
                let (gvr, options) = (&CERTIFICATE_SIGNING_REQUESTS, WriteOptions::default());
                self.api.update(gvr, "", &key.name, Some("approval"), approved, &options).await?;
                return Ok(Action::await_change());
            }
        }
        if tried.is_empty() {
            return Ok(Action::await_change());
        }
        // Roles may change at any time, so it is asked again.
        let tried = tried.join(" ");
        let reason = format!("recognized csr as [{tried}] but subject access review was not approved");
        Err(Error::failed(reason))
    }
}

impl Controller {
    /// Whether a user is a node that is there and well: nobody else becomes that node. kubeadm asks the same, but on the
    /// machine that joins.
    async fn is_taken(&self, user: &str) -> Result<bool> {
        let Some(name) = user.strip_prefix(NODE_PREFIX) else { return Ok(false) };
        match self.api.get(&NODES, "", name).await {
            Ok(node) => Ok(view::<Node>(&node)?.is_ready()),
            Err(status) if status.is_not_found() => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    async fn may(&self, spec: &Spec, subresource: &str) -> Result<bool> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.username.as_str(), "uid": spec.uid.as_str(), "groups": spec.groups.clone(),
                "extra": Value::from(serde_json::Value::from(spec.extra.clone())),
                "resourceAttributes": {
                    "group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                    "subresource": subresource, "verb": "create", "version": "*",
                },
            },
        });
        let answer = self.api.create(&SUBJECT_ACCESS_REVIEWS, "", review, &WriteOptions::default()).await?;
        Ok(answer.to_value()["status"]["allowed"].as_bool() == Some(true))
    }
}
