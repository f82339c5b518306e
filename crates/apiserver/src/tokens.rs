//! Service-account tokens: made at `serviceaccounts/{name}/token`, checked against what they are bound to.

use std::time::SystemTime;

use apimachinery::time::format_seconds;
use apimachinery::{GroupKind, Status, Value, field};
use auth::TokenIssuer;
use auth::token::{
    Binding, BoundKind, BoundObject, BoundObjects, IssueRequest, Reference, validate_expiration_seconds,
};
use registry::Endpoint;

use crate::door::{Call, Door, Mode};

/// `spec.expirationSeconds` when a request leaves it out.
const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;

/// Makes tokens for TokenRequests.
pub struct TokenMinter {
    issuer: TokenIssuer,
}

impl TokenMinter {
    pub fn new(issuer: TokenIssuer) -> Self {
        Self { issuer }
    }

    /// Answers a TokenRequest for the service account that the call names.
    pub(crate) fn request(
        &self,
        door: &Door,
        call: &Call<'_>,
        mode: &Mode<'_>,
        mut request: Value,
    ) -> Result<Value, Status> {
        let account = door.registry().get(call.endpoint, call.namespace, call.name)?;
        let expiration = request["spec"]["expirationSeconds"].as_i64().unwrap_or(EXPIRATION_SECONDS_DEFAULT);
        let kind = GroupKind { group: "authentication.k8s.io".into(), kind: "TokenRequest".into() };
        let expiration_seconds = validate_expiration_seconds(expiration).map_err(|why| {
            let path = field::Path::root("spec.expirationSeconds");
            Status::invalid(&kind, "", &[field::Error::invalid(&path, expiration, why)])
        })?;
        let audiences = request
            .array_at(&["spec", "audiences"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let binding = binding(door, call, &request["spec"]["boundObjectRef"])?;
        let issue = IssueRequest {
            namespace: call.namespace,
            service_account: Reference::new(account.name(), account.uid()),
            binding,
            audiences,
            expiration_seconds,
        };
        let issued = self.issuer.issue(&issue, rt::now().into()).map_err(Status::internal)?;
        let expires = jiff::Timestamp::try_from(issued.expires_at).unwrap_or(mode.now);
        request.set_at(&["metadata", "name"], call.name);
        request.set_at(&["metadata", "namespace"], call.namespace);
        request.set_at(&["metadata", "creationTimestamp"], format_seconds(mode.now));
        request.set_at(&["spec", "expirationSeconds"], expiration);
        request.set_at(&["spec", "audiences"], issued.audiences);
        request.set_at(&["status", "token"], issued.token);
        request.set_at(&["status", "expirationTimestamp"], format_seconds(expires));
        Ok(request)
    }
}

/// What the token is to be bound to, checked to exist and to be what the request takes it for.
fn binding(door: &Door, call: &Call<'_>, reference: &Value) -> Result<Binding, Status> {
    let kind = reference.str_at(&["kind"]);
    if kind.is_empty() {
        return Ok(Binding::None);
    }
    let (gvr, namespace) = match kind {
        "Pod" => (api::gvr::PODS, call.namespace),
        "Secret" => (api::gvr::SECRETS, call.namespace),
        "Node" => (api::gvr::NODES, ""),
        other => {
            let text =
                format!("cannot bind token for serviceaccount {} to object of type {other}", call.name);
            return Err(Status::bad_request(text));
        }
    };
    let endpoint = door.endpoint(&gvr)?;
    let object = door.registry().get(&endpoint, namespace, reference.str_at(&["name"]))?;
    let wanted = reference.str_at(&["uid"]);
    if !wanted.is_empty() && wanted != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The \
                           object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&endpoint.resource.group_resource(), object.name(), why));
    }
    let bound = Reference::new(object.name(), object.uid());
    Ok(match kind {
        "Secret" => Binding::Secret(bound),
        "Node" => Binding::Node(bound),
        _ => {
            let pod = endpoint.served(&object);
            let account = pod.str_at(&["spec", "serviceAccountName"]);
            if account != call.name {
                let text = format!(
                    "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                    field::go_quote(call.name)
                );
                return Err(Status::bad_request(text));
            }
            let node_name = pod.str_at(&["spec", "nodeName"]);
            let nodes = door.endpoint(&api::gvr::NODES)?;
            let node = door.registry().get(&nodes, "", node_name).ok();
            Binding::Pod { pod: bound, node: node.map(|node| Reference::new(node.name(), node.uid())) }
        }
    })
}

/// Looks up bound objects in the watch cache.
pub struct CachedObjects {
    pub service_accounts: Endpoint,
    pub pods: Endpoint,
    pub secrets: Endpoint,
    pub nodes: Endpoint,
}

impl BoundObjects for CachedObjects {
    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<BoundObject> {
        let endpoint = match kind {
            BoundKind::ServiceAccount => &self.service_accounts,
            BoundKind::Pod => &self.pods,
            BoundKind::Secret => &self.secrets,
            BoundKind::Node => &self.nodes,
        };
        let object = endpoint.cache.get(&endpoint.resource.key(namespace, name))?;
        let deletion = object.deletion_timestamp().and_then(apimachinery::time::parse).map(SystemTime::from);
        Some(BoundObject { uid: object.uid().to_owned(), deletion })
    }
}
