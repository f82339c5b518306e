//! Another API server behind this one: how it is called, and what it says it serves.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, Str, Value};
use auth::UserInfo;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use webhook::Client;

/// A server that is asked what it serves has this long.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that is asked for what it serves has this long.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// What it may answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The group version of another server. Requests and documents about two that are equal come out the same.
#[derive(PartialEq)]
pub(crate) struct Remote {
    pub group: Str,
    pub version: Str,
    pub group_priority: i64,
    pub version_priority: i64,
    /// From the last check, if that went well; requests are refused otherwise.
    pub answer: Option<Answer>,
}

/// How a server is called, and what it said it serves.
pub(crate) struct Answer {
    pub client: Arc<Client>,
    /// Its `APIResourceList`.
    pub resources: Value,
    /// Where its OpenAPI v3 document is, if it has one.
    pub openapi: Option<String>,
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client, &other.client)
            && (&self.resources, &self.openapi) == (&other.resources, &other.openapi)
    }
}

impl Remote {
    /// Where discovery begins.
    pub(super) fn discovery_path(&self) -> String {
        discovery_path(&self.group, &self.version)
    }
}

pub(super) fn discovery_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// Reads a JSON document of another server, as the aggregator itself.
pub(super) async fn read(client: &Client, path: &str) -> Result<Value, String> {
    let user = UserInfo::new("system:kube-aggregator").with_groups([auth::user::MASTERS]);
    match rt::timeout(DISCOVERY_TIMEOUT, get(client, &user, path)).await {
        Err(_) => Err("context deadline exceeded".to_owned()),
        Ok(Ok((StatusCode::OK, bytes))) => {
            Value::parse(&bytes).map_err(|error| format!("its answer cannot be read: {error}"))
        }
        Ok(Ok((status, _))) => Err(format!("bad status: {}", status.as_u16())),
        Ok(Err(error)) => Err(error),
    }
}

/// Reads a JSON document of another server, as `user`.
pub(super) async fn read_as(client: &Client, user: &UserInfo, path: &str) -> Result<Value, Status> {
    let failed = |error: String| Status::unavailable(format!("error trying to reach service: {error}"));
    let answer = rt::timeout(READ_TIMEOUT, get(client, user, path)).await;
    let (status, bytes) =
        answer.unwrap_or_else(|_| Err("context deadline exceeded".to_owned())).map_err(failed)?;
    let document = Value::parse(&bytes);
    match document {
        Ok(document) if status.is_success() => Ok(document),
        Err(error) if status.is_success() => Err(Status::internal(format!("reading {path}: {error}"))),
        document => {
            let told = document.ok().and_then(|document| Status::from_value(&document));
            let text = String::from_utf8_lossy(&bytes);
            Err(told.unwrap_or_else(|| Status::of_response(status.as_u16(), "GET", &text, None)))
        }
    }
}

/// What another server answers.
async fn get(client: &Client, user: &UserInfo, path: &str) -> Result<(StatusCode, Bytes), String> {
    let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let mut request = Request::new(body);
    *request.method_mut() = Method::GET;
    *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    identify(request.headers_mut(), user);
    let response = client.forward(request).await.map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok((head.status, body.map_err(|error| error.to_string())?.to_bytes()))
}

/// Says who the request is from, in headers that the other server believes because of the client certificate.
pub(super) fn identify(headers: &mut HeaderMap, user: &UserInfo) {
    let mut add = |name: String, value: &str| {
        let name = HeaderName::try_from(name);
        // A name that no header can carry is left out: the request then has less rights, never more.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user".to_owned(), user.name());
    if !user.uid().is_empty() {
        add("x-remote-uid".to_owned(), user.uid());
    }
    for group in user.groups() {
        add("x-remote-group".to_owned(), group);
    }
    /// What a header's name may hold; the rest is escaped, as upstream does.
    const NAME: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'!')
        .remove(b'#')
        .remove(b'$')
        .remove(b'&')
        .remove(b'\'')
        .remove(b'*')
        .remove(b'+')
        .remove(b'-')
        .remove(b'.')
        .remove(b'^')
        .remove(b'_')
        .remove(b'`')
        .remove(b'|')
        .remove(b'~');
    for (key, values) in user.extra() {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(&key.to_lowercase(), NAME));
        for value in values {
            add(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_told_in_headers() {
        let mut headers = HeaderMap::new();
        identify(&mut headers, &UserInfo::new("jane").with_groups(["dev", "qa"]));
        let all: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or("?"))).collect();
        assert_eq!(all, ["x-remote-user=jane", "x-remote-group=dev", "x-remote-group=qa"]);
    }
}
