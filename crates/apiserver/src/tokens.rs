//! Service-account tokens: made at `serviceaccounts/{name}/token`, checked against what they are bound to.

use std::sync::Arc;
use std::time::SystemTime;

use apimachinery::time::format_seconds;
use apimachinery::{GroupKind, GroupResource, Object, Status, Value, field};
use auth::TokenIssuer;
use auth::token::request::{BoundObjectReference, FoundObject, TokenRequest};
use auth::token::{self, BoundKind, BoundObject, BoundObjects, Reference};
use registry::Endpoint;
use tokio::sync::mpsc;

use crate::door::{Call, Door, Mode};
use crate::legacy_tokens::Used;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

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
        check_metadata(call, &request)?;
        let account = door.registry().get(call.endpoint, call.namespace, call.name)?;
        let uid = request.str_at(&["metadata", "uid"]).to_owned();
        if !uid.is_empty() && uid != account.uid() {
            let why = format!(
                "the UID in the token request ({uid}) does not match the UID of the service account ({})",
                account.uid()
            );
            return Err(Status::conflict(&GroupResource::new(GROUP, KIND), call.name, why));
        }
        let mut asked = TokenRequest::read(&serde_json::Value::from(&request))?;
        let found = asked.bound_object.as_ref().map(|wanted| find(door, call, wanted)).transpose()?;
        let binding = asked.bind(call.name, found)?;
        let seconds = self.issuer.bounded(asked.expiration_seconds);
        if seconds < asked.expiration_seconds {
            let asked = asked.expiration_seconds;
            let text = format!("requested expiration of {asked} seconds shortened to {seconds} seconds");
            mode.warnings.add(text);
        }
        asked.expiration_seconds = seconds;
        let service_account = Reference::new(account.name(), account.uid());
        let issue = asked.issue_request(call.namespace, service_account, binding);
        let issued = self.issuer.issue(&issue, rt::now().into()).map_err(Status::internal)?;
        request.set_at(&["metadata", "name"], call.name);
        request.set_at(&["metadata", "namespace"], call.namespace);
        request.set_at(&["metadata", "uid"], account.uid());
        request.set_at(&["metadata", "creationTimestamp"], format_seconds(mode.now));
        request.set_at(&["spec", "expirationSeconds"], seconds as i64);
        request.set_at(&["spec", "audiences"], issued.audiences.clone());
        request.set_at(&["status"], Value::from(token::request::status(&issued)));
        Ok(request)
    }
}

/// Name and namespace may be left out, or must be those of the path.
fn check_metadata(call: &Call<'_>, request: &Value) -> Result<(), Status> {
    let expected = [("name", call.name, "name"), ("namespace", call.namespace, "namespace")];
    for (field, wanted, what) in expected {
        let given = request.str_at(&["metadata", field]);
        if given.is_empty() || given == wanted {
            continue;
        }
        let metadata = field::Path::root("metadata");
        let detail = format!("must match the service account {what} if specified");
        let error = field::Error::invalid(&metadata.child(field), given, detail);
        let kind = GroupKind { group: GROUP.into(), kind: KIND.into() };
        return Err(Status::invalid(&kind, call.name, &[error]));
    }
    Ok(())
}

/// What the token is to be bound to, as it is now.
fn find(door: &Door, call: &Call<'_>, wanted: &BoundObjectReference) -> Result<FoundObject, Status> {
    let (gvr, namespace) = match wanted.kind {
        BoundKind::Pod => (api::gvr::PODS, call.namespace),
        BoundKind::Secret => (api::gvr::SECRETS, call.namespace),
        BoundKind::Node => (api::gvr::NODES, ""),
        BoundKind::ServiceAccount => (api::gvr::SERVICE_ACCOUNTS, call.namespace),
    };
    let endpoint = door.endpoint(&gvr)?;
    let object = door.registry().get(&endpoint, namespace, &wanted.name)?;
    let mut found = FoundObject { uid: object.uid().to_owned(), ..FoundObject::default() };
    if wanted.kind == BoundKind::Pod {
        let pod = endpoint.served(&object);
        found.service_account = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
        found.node = node(door, pod.str_at(&["spec", "nodeName"]))?;
    }
    Ok(found)
}

/// The node of a pod; its name alone if there is no such node.
fn node(door: &Door, name: &str) -> Result<Option<Reference>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    let nodes = door.endpoint(&api::gvr::NODES)?;
    let uid = door.registry().get(&nodes, "", name).map(|node| node.uid().to_owned()).unwrap_or_default();
    Ok(Some(Reference::new(name, uid)))
}

/// Looks up bound objects in the watch cache.
pub struct CachedObjects {
    pub service_accounts: Endpoint,
    pub pods: Endpoint,
    pub secrets: Endpoint,
    pub nodes: Endpoint,
    /// Where Secrets go whose token was used.
    pub used: mpsc::Sender<Used>,
}

impl BoundObjects for CachedObjects {
    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<BoundObject> {
        let object = self.object(kind, namespace, name)?;
        let deletion = object.deletion_timestamp().and_then(apimachinery::time::parse).map(SystemTime::from);
        Some(BoundObject { uid: object.uid().to_owned(), deletion })
    }

    fn object(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let endpoint = match kind {
            BoundKind::ServiceAccount => &self.service_accounts,
            BoundKind::Pod => &self.pods,
            BoundKind::Secret => &self.secrets,
            BoundKind::Node => &self.nodes,
        };
        endpoint.cache.get(&endpoint.resource.key(namespace, name))
    }

    fn legacy_token_used(&self, secret: &Arc<Object>) {
        // Full: the next use of the token brings it again.
        _ = self.used.try_send(Used::of(secret));
    }
}
