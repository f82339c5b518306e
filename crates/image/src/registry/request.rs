//! Requests to a registry: redirects, authentication, and what an answer means.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;

use super::authorize::Authorizer;
use super::hosts::Endpoint;
use super::{Credential, challenge, connect};
use crate::{Error, Reference, Result};

pub(super) const USER_AGENT_TEXT: &str = concat!("pintle/", env!("CARGO_PKG_VERSION"));
const REDIRECTS_MAX: usize = 10;
/// Of an answer that is not what was asked for, so much is read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// And so much of it is shown.
const REFUSAL_SHOWN_MAX: usize = 512;
/// A question is asked so often when the answer may be another one.
const ATTEMPTS_MAX: u32 = 4;
const BACKOFF: Duration = Duration::from_millis(500);
/// Registries that want to be left alone for longer are asked by the next pull.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// Fetches one image.
pub(crate) struct Session {
    pub(super) reference: Reference,
    /// In the order in which they are asked.
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) stall_timeout: Duration,
}

/// One address, and what it is shown in this session.
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    client: connect::Client,
    authorizer: Authorizer,
    /// Whether nobody else is left to ask: then it is worth asking again.
    pub(super) is_last: bool,
    /// Whether it could not be reached in this session.
    pub(super) is_down: AtomicBool,
}

/// Whom a request goes to.
pub(super) struct Peer<'a> {
    client: &'a connect::Client,
    pub(super) scheme: &'a Scheme,
    stall_timeout: Duration,
}

pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// Whether it comes from where a redirect led to.
    pub(super) is_redirected: bool,
}

impl Session {
    pub(super) fn new(reference: Reference, hosts: Vec<Arc<Host>>, stall_timeout: Duration) -> Self {
        Self { reference, hosts, stall_timeout }
    }

    /// Asks for `kind/name` of the image's repository, again while that may help. What is returned is a success.
    pub(super) async fn ask(
        &self,
        host: &Host,
        method: &Method,
        kind: &str,
        name: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>> {
        let uri = self.uri(host, kind, name)?;
        let mut attempt = 0;
        loop {
            let (error, wait) = match self.ask_once(host, method, &uri, headers).await {
                Ok(response) => return Ok(response),
                Err(refused) => refused,
            };
            attempt += 1;
            if !error.is_passing() || !host.is_last || attempt >= ATTEMPTS_MAX {
                return Err(error);
            }
            rt::sleep(wait.unwrap_or_else(|| backoff(attempt))).await;
        }
    }

    fn uri(&self, host: &Host, kind: &str, name: &str) -> Result<Uri> {
        let endpoint = &host.endpoint;
        let mut path = format!("{}/{}/{kind}/{name}", endpoint.path, self.reference.path());
        if let Some(namespace) = &endpoint.namespace {
            path.push_str("?ns=");
            path.push_str(namespace);
        }
        let path: PathAndQuery =
            path.parse().map_err(|_| Error::Invalid(format!("{path:?} is no path of a registry")))?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(endpoint.scheme.clone());
        parts.authority = Some(endpoint.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|error| Error::Invalid(format!("the registry has no URL: {error}")))
    }

    /// Once for each credential. With an error comes how long the registry wants to be left alone.
    async fn ask_once(
        &self,
        host: &Host,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> std::result::Result<Response<Incoming>, (Error, Option<Duration>)> {
        let peer = host.peer(self.stall_timeout);
        loop {
            let shown = host.authorizer.shown();
            let mut headers = headers.clone();
            headers.extend(host.endpoint.headers.clone());
            headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
            if let Some(value) = &shown.header {
                headers.insert(AUTHORIZATION, value.clone());
            }
            let ask = Ask { method: method.clone(), uri: uri.clone(), headers, body: Bytes::new() };
            let answer = peer.exchange(ask).await.map_err(|error| (error, None))?;
            let status = answer.response.status();
            if status.is_success() {
                return Ok(answer.response);
            }
            let challenges = challenge::parse(
                answer
                    .response
                    .headers()
                    .get_all(WWW_AUTHENTICATE)
                    .iter()
                    .filter_map(|value| value.to_str().ok()),
            );
            let wait = retry_after(answer.response.headers());
            let body = peer.read(answer.response.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
            let is_unauthorized = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if is_unauthorized && !answer.is_redirected {
                let scope = format!("repository:{}:pull", self.reference.path());
                let again = host.authorizer.refused(&peer, &shown, challenges, &scope).await;
                if again.map_err(|error| (error, None))? {
                    continue;
                }
            }
            let refusal = refusal(status, &body);
            let error = match status {
                StatusCode::NOT_FOUND => Error::NotFound(format!("{}: not found", self.reference)),
                // What a redirect leads to is signed for a short time; the next one is another one.
                _ if is_unauthorized && answer.is_redirected => {
                    Error::Unavailable(unexpected(method, uri, &refusal))
                }
                _ if is_unauthorized => Error::Unauthorized(format!(
                    "pull access denied, repository does not exist or may require authorization: server message: \
                     {refusal}"
                )),
                _ => by_status(status, unexpected(method, uri, &refusal)),
            };
            return Err((error, wait));
        }
    }
}

/// As containerd says it.
fn unexpected(method: &Method, uri: &Uri, refusal: &str) -> String {
    format!("unexpected status from {method} request to {uri}: {refusal}")
}

pub(super) fn backoff(attempt: u32) -> Duration {
    rt::jittered(BACKOFF * 2_u32.pow(attempt.min(6) - 1), 0.5)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

impl Host {
    pub(super) fn new(
        endpoint: Endpoint,
        client: connect::Client,
        credentials: &[Credential],
        is_last: bool,
    ) -> Self {
        // They are for the registry; what its mirrors are shown stands in their configuration.
        let credentials = if endpoint.namespace.is_none() { credentials } else { &[] };
        let authorizer = Authorizer::new(credentials);
        Self { endpoint, client, authorizer, is_last, is_down: AtomicBool::new(false) }
    }

    pub(super) fn peer(&self, stall_timeout: Duration) -> Peer<'_> {
        Peer { client: &self.client, scheme: &self.endpoint.scheme, stall_timeout }
    }
}

impl Peer<'_> {
    /// Sends a request and follows redirects. What was meant for the first host is shown to no other.
    pub(super) async fn exchange(&self, ask: Ask) -> Result<Answer> {
        let first = ask.uri.clone();
        let mut uri = ask.uri;
        for redirects in 0..=REDIRECTS_MAX {
            let mut request = Request::new(Full::new(ask.body.clone()));
            *request.method_mut() = ask.method.clone();
            *request.uri_mut() = uri.clone();
            let is_first = uri.scheme() == first.scheme() && uri.authority() == first.authority();
            *request.headers_mut() = if is_first { ask.headers.clone() } else { public(&ask.headers) };
            let sent = rt::timeout(self.stall_timeout, self.client.request(request)).await;
            let response = sent
                .map_err(|_| self.stalled(&ask.method, &uri))?
                .map_err(|error| transport_problem(&ask.method, &uri, &error))?;
            let location = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(location) = location.and_then(|location| location.to_str().ok()) else {
                return Ok(Answer { response, is_redirected: redirects > 0 });
            };
            uri = target(&uri, location)?;
        }
        Err(Error::Invalid(format!("{} {first}: stopped after {REDIRECTS_MAX} redirects", ask.method)))
    }

    /// Reads a whole answer that is not to be long.
    pub(super) async fn read(&self, mut body: Incoming, bytes_max: usize) -> Result<Bytes> {
        let mut read = Vec::new();
        while let Some(part) = self.part(&mut body).await? {
            if read.len() + part.len() > bytes_max {
                return Err(Error::Invalid(format!("the registry's answer has more than {bytes_max} bytes")));
            }
            read.extend_from_slice(&part);
        }
        Ok(read.into())
    }

    /// The next bytes of an answer; none at its end.
    pub(super) async fn part(&self, body: &mut Incoming) -> Result<Option<Bytes>> {
        loop {
            let seconds = self.stall_timeout.as_secs_f32();
            let frame = rt::timeout(self.stall_timeout, body.frame()).await.map_err(|_| {
                Error::Stalled(format!("no progress for {seconds} s while reading from the registry"))
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| {
                Error::Unavailable(format!("the connection to the registry broke: {}", innermost(&error)))
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    fn stalled(&self, method: &Method, uri: &Uri) -> Error {
        let seconds = self.stall_timeout.as_secs_f32();
        Error::Stalled(format!("no progress for {seconds} s: {method} {uri} was not answered"))
    }
}

/// Without what says who asks.
fn public(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [http::header::ACCEPT, http::header::RANGE, USER_AGENT] {
        for value in headers.get_all(&name) {
            kept.append(&name, value.clone());
        }
    }
    kept
}

/// Where a redirect leads.
fn target(from: &Uri, location: &str) -> Result<Uri> {
    let refused = |problem: &str| Error::Invalid(format!("{from} redirects to {location:?}, {problem}"));
    let plain = location.split('#').next().unwrap_or_default();
    // Another host by the same scheme, which the crate `http` takes for a path.
    let scheme = if plain.starts_with("//") { from.scheme_str().unwrap_or_default() } else { "" };
    let absolute = if scheme.is_empty() { plain.to_owned() } else { format!("{scheme}:{plain}") };
    let parsed: Uri = absolute.parse().map_err(|_| refused("which is no URL"))?;
    let mut parts = parsed.into_parts();
    if parts.authority.is_none() {
        let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
        if !path.starts_with('/') {
            return Err(refused("which is relative"));
        }
        parts.authority = from.authority().cloned();
        parts.scheme = None;
    }
    parts.scheme = parts.scheme.or_else(|| from.scheme().cloned());
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    let target = Uri::from_parts(parts).map_err(|_| refused("which is no URL"))?;
    match (from.scheme_str(), target.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(target),
        (_, Some("http")) => Err(refused("which has no TLS")),
        _ => Err(refused("which is neither http nor https")),
    }
}

fn transport_problem(method: &Method, uri: &Uri, error: &hyper_util::client::legacy::Error) -> Error {
    let (first, rest) = method.as_str().split_at(1);
    let verb = format!("{first}{}", rest.to_ascii_lowercase());
    Error::Unavailable(format!("failed to do request: {verb} \"{uri}\": {}", innermost(error)))
}

/// The cause that says what happened; those around it say that it did.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// What a registry says is wrong.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<RefusalError>,
}

#[derive(Deserialize)]
struct RefusalError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// One line about an answer that is not a success.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> String {
    if let Ok(Refusal { errors }) = serde_json::from_slice(body)
        && let Some(first) = errors.first()
    {
        return format!("{status}: {}: {}", first.code, first.message);
    }
    let text = String::from_utf8_lossy(body);
    let line: String =
        text.trim().chars().take(REFUSAL_SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.is_empty() { status.to_string() } else { format!("{status}: {line}") }
}

pub(super) fn by_status(status: StatusCode, problem: String) -> Error {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Error::Unavailable(problem),
        status if status.is_server_error() => Error::Unavailable(problem),
        _ => Error::Invalid(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_may() {
        for (from, location, wanted) in [
            ("https://a/v2/x", "https://b/y?z#f", Ok("https://b/y?z")),
            ("https://a/v2/x", "/y", Ok("https://a/y")),
            ("https://a:1/v2/x", "//b/y", Ok("https://b/y")),
            ("http://a/v2/x", "http://b/y", Ok("http://b/y")),
            ("https://a/v2/x", "http://b/y", Err("no TLS")),
            ("https://a/v2/x", "ftp://b/y", Err("neither")),
            ("https://a/v2/x", "", Err("no URL")),
        ] {
            match (target(&from.parse().unwrap(), location), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found.to_string(), wanted),
                (Err(found), Err(wanted)) => assert!(found.to_string().contains(wanted), "{found}"),
                (found, wanted) => panic!("{location}: {found:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_is_one_line() {
        let json = br#"{"errors":[{"code":"DENIED","message":"no","detail":null}]}"#;
        assert_eq!(refusal(StatusCode::FORBIDDEN, json), "403 Forbidden: DENIED: no");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"<html>\n"), "502 Bad Gateway: <html>");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b""), "502 Bad Gateway");
    }
}
