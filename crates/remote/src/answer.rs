//! Answers: whole bodies as trees, objects and lists; failures as a `Status`.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{GroupVersionResource, Object, Status, Value};
use bytes::{Bytes, BytesMut};
use client::{Discovered, ObjectList};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use webhook::Client;

use crate::request::Request;

/// For a whole answer; the server's own limit for requests.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A list that is larger has to be read in pages.
const BYTES_MAX: usize = 512 << 20;

/// Discovery in one document for each of the two roots.
pub(crate) const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Sends a request and reads what a success answers.
pub(crate) async fn read(client: &Client, request: Request) -> Result<Value, Status> {
    let whole = async {
        let verb = request.method.to_string();
        let (head, body) = open(client, request).await?.into_parts();
        let body = read_body(body).await?;
        if head.status.is_success() {
            return Value::parse(&body)
                .map_err(|error| Status::internal(format!("reading the answer: {error}")));
        }
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(failure(head.status, &verb, &body, retry_after))
    };
    rt::timeout(TIMEOUT, whole)
        .await
        .unwrap_or_else(|_| Err(Status::timeout(format!("no answer within {} s", TIMEOUT.as_secs()))))
}

/// Sends a request; the body of its answer is still to come.
pub(crate) async fn open(client: &Client, request: Request) -> Result<Response<Incoming>, Status> {
    let body = Full::new(request.body.clone()).map_err(|never| match never {}).boxed_unsync();
    let mut sent = http::Request::new(body);
    *sent.method_mut() = request.method;
    *sent.uri_mut() =
        request.path.parse().map_err(|error| Status::bad_request(format!("{}: {error}", request.path)))?;
    sent.headers_mut().insert(ACCEPT, HeaderValue::from_static(request.accept));
    if !request.body.is_empty() {
        sent.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(request.content_type));
    }
    if let Some(user) = request.impersonated {
        sent.headers_mut().insert("impersonate-user", user);
    }
    client.open(sent).await.map_err(|error| Status::unavailable(error.to_string()))
}

async fn read_body(mut body: Incoming) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::unavailable(format!("reading the answer: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > BYTES_MAX {
            return Err(Status::too_large(format!("the answer is larger than {BYTES_MAX} bytes")));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

pub(crate) fn failure(code: StatusCode, verb: &str, body: &[u8], retry_after_seconds: Option<u32>) -> Status {
    let said = Value::parse(body).ok().and_then(|body| Status::from_value(&body));
    said.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        Status::of_response(code.as_u16(), verb, text.trim(), retry_after_seconds)
    })
}

pub(crate) fn object(tree: Value) -> Result<Arc<Object>, Status> {
    let revision = revision_of(&tree);
    let object = Object::from_value(&tree, revision, &[]);
    object.map(Arc::new).map_err(|error| Status::internal(format!("reading an object: {error}")))
}

/// `metadata.resourceVersion`. It is opaque, but a number for as long as there has been a Kubernetes; what is none
/// counts as unknown.
pub(crate) fn revision_of(tree: &Value) -> u64 {
    tree.str_at(&["metadata", "resourceVersion"]).parse().unwrap_or_default()
}

pub(crate) fn list(mut tree: Value) -> Result<ObjectList, Status> {
    let revision = revision_of(&tree);
    let continue_token = tree.str_at(&["metadata", "continue"]).to_owned();
    let api_version = tree.str_at(&["apiVersion"]).to_owned();
    let kind = tree.str_at(&["kind"]).trim_end_matches("List").to_owned();
    let items = tree.get_mut("items").map(Value::take).unwrap_or_default();
    let items = items.as_array().cloned().unwrap_or_default().into_iter();
    let items = items.map(|mut item| {
        // Upstream says once for all of them what they are.
        if item.str_at(&["kind"]).is_empty() {
            item.set_at(&["apiVersion"], api_version.as_str());
            item.set_at(&["kind"], kind.as_str());
        }
        object(item)
    });
    Ok(ObjectList { items: items.collect::<Result<_, _>>()?, revision, continue_token })
}

/// What an `APIGroupDiscoveryList` names, each with whether its version is the first of its group.
pub(crate) fn resources(groups: &Value) -> Vec<(Discovered, bool)> {
    let mut found = Vec::new();
    for group in groups.array_at(&["items"]) {
        for (index, version) in group.array_at(&["versions"]).iter().enumerate() {
            for resource in version.array_at(&["resources"]) {
                let gvr = GroupVersionResource::new(
                    group.str_at(&["metadata", "name"]),
                    version.str_at(&["version"]),
                    resource.str_at(&["resource"]),
                );
                let verbs =
                    resource.array_at(&["verbs"]).iter().filter_map(|verb| Some(verb.as_str()?.into()));
                let discovered = Discovered {
                    gvr,
                    kind: resource.str_at(&["responseKind", "kind"]).into(),
                    namespaced: resource.str_at(&["scope"]) == "Namespaced",
                    verbs: verbs.collect(),
                };
                found.push((discovered, index == 0));
            }
        }
    }
    found
}
