//! Requests that are handed on to another server, and connections that are handed over.
//!
//! Owns: what of a request's head goes on and what stays ([`onward`]), upgrades in both directions, the words of what
//! goes wrong. Never touches: whom to reach (`connect` knows, and the aggregation layer).
//!
//! An upgraded connection (SPDY, WebSocket) is bytes in both directions until one side ends; nothing here reads them.

use std::sync::Arc;

use apimachinery::Status;
use auth::authenticator::WEB_SOCKET_TOKEN_PREFIX;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use webhook::{Client, ClientCertificate, ClientConfig, NoServices, ServiceResolver, Target};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::render;
use crate::aggregation::Aggregator;
use crate::client_certificate::{self, Renewed};
use crate::connect::{Backend, KubeletOptions, Location, Purpose, is_global_unicast};

/// Of a failed log request's answer, this much becomes the text of the failure; upstream's limit.
const ERROR_BYTES_MAX: usize = 50 << 10;

/// What a kubelet says of some hundred pods is a tenth of this.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// Headers of one hop, which are never handed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Everybody that requests are handed on to: other API servers, kubelets, and whatever else is in the cluster.
pub struct Backends {
    pub aggregator: Arc<Aggregator>,
    options: KubeletOptions,
    authority: Arc<pki::Authority>,
    kubelet: Renewed<Arc<Client>>,
    unchecked_kubelet: Renewed<Arc<Client>>,
    cluster: Renewed<Arc<Client>>,
}

impl Backends {
    pub fn new(options: KubeletOptions, authority: Arc<pki::Authority>, aggregator: Arc<Aggregator>) -> Self {
        Self {
            aggregator,
            options,
            authority,
            kubelet: Renewed::default(),
            unchecked_kubelet: Renewed::default(),
            cluster: Renewed::default(),
        }
    }

    pub(crate) fn options(&self) -> &KubeletOptions {
        &self.options
    }

    /// The text at a location, which this server itself asks for.
    pub(crate) async fn text(&self, location: &Location) -> Result<String, Status> {
        let mut request = Request::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync());
        *request.version_mut() = Version::HTTP_11;
        let client = self.client(location.backend)?;
        let (scheme, authority) = (location.scheme.as_str(), location.authority());
        let sent = client.forward_to(scheme, &authority, &location.path, request).await;
        let response = sent.map_err(|error| unreachable_backend(Purpose::Proxy, &error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), TEXT_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Status::internal(format!("reading the answer: {error}")))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() { Ok(text) } else { Err(Status::new(status.as_u16(), "", text)) }
    }

    fn client(&self, backend: Backend) -> Result<Arc<Client>, Status> {
        let client = match backend {
            Backend::Kubelet => &self.kubelet,
            Backend::UncheckedKubelet => &self.unchecked_kubelet,
            Backend::Cluster => &self.cluster,
        };
        client.get_or_make(|| self.connect(backend).map(Arc::new))
    }

    fn connect(&self, backend: Backend) -> Result<Client, Status> {
        // The address is the location's, each time another.
        let mut config = ClientConfig::new(Target::Url("https://backend".to_owned()));
        // Upgrades are HTTP/1.1's.
        config.http2 = false;
        let trusted = self.options.certificate_authority.clone().filter(|_| backend == Backend::Kubelet);
        config.insecure_skip_verify = trusted.is_none();
        config.ca_bundle = trusted;
        if backend != Backend::Cluster {
            config.client_certificate = Some(self.client_certificate()?);
        }
        let resolver: Arc<dyn ServiceResolver> = Arc::new(NoServices);
        Client::new(&config, &resolver).map_err(|error| Status::internal(error.to_string()))
    }

    fn client_certificate(&self) -> Result<ClientCertificate, Status> {
        if let Some((certificate_pem, key_pem)) = self.options.client_certificate.clone() {
            return Ok(ClientCertificate { certificate_pem, key_pem });
        }
        client_certificate::issue(&self.authority, auth::user::KUBELET_CLIENT, &[auth::user::MASTERS])
            .map_err(|error| Status::internal(telemetry::chain(&error)))
    }
}

/// A request to be handed on.
pub(crate) struct Onward<'a> {
    pub exchange: &'a Exchange<'a>,
    /// Counts the request for as long as its answer or its connection lasts.
    pub running: telemetry::InFlight,
    pub shutdown: &'a rt::Shutdown,
}

impl Onward<'_> {
    /// Hands a request on to a location and answers what comes back.
    pub(crate) async fn send(
        self,
        backends: &Backends,
        purpose: Purpose,
        location: &Location,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        let exchange = self.exchange;
        if purpose == Purpose::Proxy {
            check_reachable(location).await?;
        }
        let upgrade = exchange.take_upgrade().filter(|_| is_upgrade(&exchange.headers));
        if purpose == Purpose::Stream && upgrade.is_none() {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let ends_with_slash = exchange.uri().path().ends_with('/');
        let is_root = purpose == Purpose::Proxy && location.path.is_empty() && !ends_with_slash;
        // Without the slash a page's relative links would point beside the proxy.
        if is_root && upgrade.is_none() && matches!(exchange.method, Method::GET | Method::HEAD) {
            return Ok(redirect_to_root(exchange));
        }
        let mut headers = onward(&exchange.headers, upgrade.is_some());
        append_forwarded_for(&mut headers, exchange);
        if purpose == Purpose::Proxy {
            add_forwarded(&mut headers, exchange);
        }
        let body = if purpose == Purpose::Log {
            Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
        } else {
            incoming.map_err(Into::into).boxed_unsync()
        };
        let mut request = Request::new(body);
        *request.method_mut() = exchange.method.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        let client = backends.client(location.backend)?;
        let target = path_and_query(location, exchange);
        let (scheme, authority) = (location.scheme.as_str(), location.authority());
        let sent = client.forward_to(scheme, &authority, &target, request).await;
        let response = sent.map_err(|error| unreachable_backend(purpose, &error))?;
        match purpose {
            Purpose::Log => self.log_answer(response).await,
            _ => self.answer(upgrade, response),
        }
    }

    /// Hands a response on; one that switches protocols is followed by bytes in both directions.
    pub(crate) fn answer(
        self,
        upgrade: Option<OnUpgrade>,
        mut response: Response<Incoming>,
    ) -> Result<Response<ResponseBody>, Status> {
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match upgrade {
            Some(client) if switched => {
                let backend = hyper::upgrade::on(&mut response);
                let (shutdown, running) = (self.shutdown.clone(), self.running);
                rt::spawn("upgraded connection", async move {
                    tunnel(client, backend, shutdown).await;
                    drop(running);
                });
                let (head, _) = response.into_parts();
                Ok(Response::from_parts(head, ResponseBody::empty()))
            }
            Some(_) if response.status().as_u16() < 400 => {
                let code = response.status().as_u16();
                Err(Status::new(500, "", format!("invalid upgrade response: status code {code}")))
            }
            None if switched => Err(Status::new(500, "", "unexpected upgrade response")),
            _ => {
                let (mut head, body) = response.into_parts();
                head.headers = without_hop_by_hop(&head.headers);
                // The connection to the client has a version of its own.
                head.version = Version::default();
                Ok(Response::from_parts(head, ResponseBody::Forwarded(body, self.running)))
            }
        }
    }

    /// The log as it comes, or the kubelet's complaint as a `Status`.
    async fn log_answer(self, response: Response<Incoming>) -> Result<Response<ResponseBody>, Status> {
        let code = response.status().as_u16();
        if response.status().is_success() {
            let mut answer = Response::new(ResponseBody::Forwarded(response.into_body(), self.running));
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            return Ok(answer);
        }
        let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
        let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Err(match code {
            500 => Status::internal(text),
            400 => Status::bad_request(text),
            _ => Status::of_response(code, self.exchange.method.as_str(), &text, None),
        })
    }
}

/// Refuses a host that has any address which is this machine or its neighbours: a node says itself what its name is.
async fn check_reachable(location: &Location) -> Result<(), Status> {
    let host = location.host.as_str();
    let addresses = tokio::net::lookup_host((host, 0))
        .await
        .map_err(|_| Status::bad_request(format!("lookup {host}: no such host")))?;
    if addresses.into_iter().all(|address| is_global_unicast(address.ip())) {
        return Ok(());
    }
    Err(Status::bad_request("address not allowed"))
}

/// Path and query of the request that is handed on.
fn path_and_query(location: &Location, exchange: &Exchange<'_>) -> String {
    let mut path = location.path.clone();
    if !path.ends_with('/') && exchange.uri().path().ends_with('/') {
        path.push('/');
    }
    if path.is_empty() {
        path.push('/');
    }
    match location.query.as_deref().unwrap_or_else(|| exchange.uri().query().unwrap_or_default()) {
        "" => path,
        query => format!("{path}?{query}"),
    }
}

/// Copies in both directions until one side ends.
async fn tunnel(client: OnUpgrade, backend: OnUpgrade, shutdown: rt::Shutdown) {
    let (Ok(client), Ok(backend)) = (client.await, backend.await) else { return };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    tokio::select! {
        () = shutdown.cancelled() => {}
        result = tokio::io::copy_bidirectional(&mut client, &mut backend) => {
            if let Err(error) = result {
                tracing::debug!(%error, "An upgraded connection ended early");
            }
        }
    }
    let _ = client.shutdown().await;
    let _ = backend.shutdown().await;
}

/// The failure to reach a backend in upstream's words, which differ by what it was for.
fn unreachable_backend(purpose: Purpose, error: &webhook::Error) -> Status {
    let problem = match error {
        webhook::Error::Transport { problem, .. } => problem.to_string(),
        other => other.to_string(),
    };
    match purpose {
        Purpose::Log => Status::new(500, "", error.to_string()),
        Purpose::Stream => Status::new(500, "", format!("error dialing backend: {problem}")),
        Purpose::Proxy => Status::unavailable(format!("error trying to reach service: {problem}")),
    }
}

/// The headers that go on: not those of one hop, nor who the client is, which is this server's business.
pub(crate) fn onward(headers: &HeaderMap, is_upgrade: bool) -> HeaderMap {
    let mut kept = without_hop_by_hop(headers);
    kept.remove(header::AUTHORIZATION);
    kept.remove(header::HOST);
    let credentials = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("impersonate-") || name.starts_with("x-remote-")
    };
    let named: Vec<HeaderName> = kept.keys().filter(|name| credentials(name)).cloned().collect();
    for name in named {
        kept.remove(name);
    }
    drop_token_protocol(&mut kept);
    if is_upgrade {
        kept.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(protocol) = headers.get(header::UPGRADE) {
            kept.insert(header::UPGRADE, protocol.clone());
        }
    }
    kept
}

fn without_hop_by_hop(headers: &HeaderMap) -> HeaderMap {
    let listed: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let stays =
        |name: &HeaderName| HOP_BY_HOP.contains(name) || listed.iter().any(|own| own == name.as_str());
    headers
        .iter()
        .filter(|(name, _)| !stays(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Browsers put a bearer token among the WebSocket protocols; it must not go on.
fn drop_token_protocol(headers: &mut HeaderMap) {
    let Some(given) = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok())
    else {
        return;
    };
    let protocols = given.split(',').map(str::trim);
    let kept: Vec<&str> = protocols.filter(|name| !name.starts_with(WEB_SOCKET_TOKEN_PREFIX)).collect();
    match HeaderValue::from_str(&kept.join(", ")) {
        Ok(value) if !kept.is_empty() => headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value),
        _ => headers.remove(header::SEC_WEBSOCKET_PROTOCOL),
    };
}

/// Whether the client wants another protocol on this connection.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

fn redirect_to_root(exchange: &Exchange<'_>) -> Response<ResponseBody> {
    let query = exchange.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = render::bytes(301, "text/plain; charset=utf-8", "");
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", exchange.uri().path())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub(crate) fn append_forwarded_for(headers: &mut HeaderMap, exchange: &Exchange<'_>) {
    const NAME: HeaderName = HeaderName::from_static("x-forwarded-for");
    let before = headers.get(&NAME).and_then(|value| value.to_str().ok()).map(|own| format!("{own}, "));
    let all = format!("{}{}", before.unwrap_or_default(), exchange.peer.ip());
    if let Ok(value) = HeaderValue::from_str(&all) {
        headers.insert(NAME, value);
    }
}

/// What a backend needs to make links that work from the client's side.
fn add_forwarded(headers: &mut HeaderMap, exchange: &Exchange<'_>) {
    let host = exchange.header(header::HOST);
    let host = if host.is_empty() { exchange.uri().authority().map_or("", |own| own.as_str()) } else { host };
    let pairs = [
        ("x-forwarded-uri", exchange.uri().path()),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", "https"),
    ];
    for (name, value) in pairs {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_the_client_is_stays_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("connection", "Upgrade, X-Own"),
            ("upgrade", "websocket"),
            ("x-own", "1"),
            ("impersonate-user", "root"),
            ("x-remote-user", "root"),
            ("host", "server"),
            ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
            ("accept", "text/html"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let names = |headers: &HeaderMap| -> Vec<String> {
            let mut all: Vec<String> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
                .collect();
            all.sort();
            all
        };
        assert_eq!(
            names(&onward(&headers, true)),
            [
                "accept: text/html",
                "connection: Upgrade",
                "sec-websocket-protocol: v5.channel.k8s.io",
                "upgrade: websocket"
            ]
        );
        assert_eq!(
            names(&onward(&headers, false)),
            ["accept: text/html", "sec-websocket-protocol: v5.channel.k8s.io"]
        );
    }
}
