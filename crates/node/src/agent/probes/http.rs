//! GET requests to containers, with the rules of Go's client as the kubelet sets it up.
//!
//! No connection is used twice, and nothing is verified over TLS: the question is whether the container answers.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::check::OUTPUT_BYTES_MAX;
use super::dial::{connect, errno_text, resolve_port};
use super::url::Url;

/// As Go's client.
const REDIRECTS_MAX: usize = 10;

/// What a server on plain HTTP looks like to a client that begins with TLS.
pub(super) const HTTP_RESPONSE_TO_HTTPS: &str = "http: server gave HTTP response to HTTPS client";

/// A request that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Get {
    pub(super) url: Url,
    headers: HeaderMap,
    /// Instead of the URL's.
    host: Option<HeaderValue>,
}

/// What came back in the end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// As much of it as anybody reads.
    pub(super) body: Vec<u8>,
}

impl Get {
    /// `agent` is who asks: `kube-probe` or `kube-lifecycle`.
    pub(super) fn new(
        action: &HTTPGetAction,
        container: &Container,
        pod_host: &str,
        agent: &str,
    ) -> Result<Get, String> {
        let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_host);
        let port = resolve_port(&action.port, container)?;
        let (headers, host_header) = headers(action.http_headers.as_deref().unwrap_or_default(), agent);
        let url = Url::new(https, host, port, action.path.as_deref().unwrap_or_default());
        Ok(Get { url, headers, host: host_header })
    }

    /// The same question without TLS; whoever may listen there gets no credentials.
    pub(super) fn over_http(&mut self) {
        self.url.https = false;
        self.headers.remove(header::AUTHORIZATION);
    }

    /// Follows redirects, as long as they stay with the host. The error is of the form `Get "http://…": why`.
    pub(super) async fn send(&self, timeout: Duration) -> Result<Answer, String> {
        let ends_at = rt::instant() + timeout;
        let mut url = self.url.clone();
        let mut host = self.host.clone();
        for _ in 0..=REDIRECTS_MAX {
            let left = ends_at.saturating_duration_since(rt::instant());
            let sent = rt::timeout(left, self.send_once(&url, host.as_ref(), left));
            let (answer, location) = sent
                .await
                .unwrap_or_else(|_| {
                    Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                        .to_owned())
                })
                .map_err(|problem| format!("Get \"{url}\": {problem}"))?;
            let Some(next) = location.and_then(|location| Some((url.join(&location)?, location))) else {
                return Ok(answer);
            };
            let (next, location) = next;
            if next.host != self.url.host {
                return Ok(answer);
            }
            if location.contains("//") {
                host = None;
            }
            url = next;
        }
        Err(format!("Get \"{url}\": stopped after {REDIRECTS_MAX} redirects"))
    }

    /// One request: the answer, and where it says that another one is.
    async fn send_once(
        &self,
        url: &Url,
        host: Option<&HeaderValue>,
        timeout: Duration,
    ) -> Result<(Answer, Option<String>), String> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() =
            url.request_target().parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        *request.headers_mut() = self.headers.clone();
        let host = match host {
            Some(host) => host.clone(),
            None => HeaderValue::from_str(&url.host_header()).map_err(|_| "invalid host".to_owned())?,
        };
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));

        let stream = connect(&url.host, url.port, timeout).await?;
        if url.https {
            let name =
                ServerName::try_from(url.host.clone()).map_err(|_| "tls: invalid server name".to_owned())?;
            let connector = TlsConnector::from(TLS.clone());
            let stream = connector.connect(name, stream).await.map_err(|error| tls_text(&error))?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| http_text(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| http_text(&error))?;
        let (head, mut body) = response.into_parts();
        let location = redirects(head.status.as_u16())
            .then(|| head.headers.get(header::LOCATION)?.to_str().ok().map(str::to_owned))
            .flatten();
        let mut collected = BytesMut::new();
        while collected.len() < OUTPUT_BYTES_MAX
            && let Some(frame) = body.frame().await
        {
            if let Ok(data) = frame.map_err(|error| http_text(&error))?.into_data() {
                collected.extend_from_slice(&data);
            }
        }
        collected.truncate(OUTPUT_BYTES_MAX);
        Ok((Answer { status: head.status.as_u16(), body: collected.to_vec() }, location))
    };
    let exchange = std::pin::pin!(exchange);
    match futures::future::select(exchange, std::pin::pin!(connection)).await {
        futures::future::Either::Left((answer, _)) => answer,
        // The connection is done when everything was read from it; the answer is in memory then.
        futures::future::Either::Right((_, exchange)) => exchange.await,
    }
}

/// The statuses at which Go's client goes on.
fn redirects(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// The headers of a request, and what the header `Host` shall be.
fn headers(custom: &[HTTPHeader], agent: &str) -> (HeaderMap, Option<HeaderValue>) {
    let mut headers = HeaderMap::new();
    for HTTPHeader { name, value } in custom {
        // Validation admits only names that are valid; a value that cannot be sent is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    let host = headers.remove(header::HOST).filter(|host| !host.is_empty());
    let agent = HeaderValue::try_from(format!("{agent}/1.36")).expect("an agent's name is plain text");
    for (name, default) in [(header::USER_AGENT, agent), (header::ACCEPT, HeaderValue::from_static("*/*"))] {
        // An empty one is the way to send none.
        match headers.get(&name).map(HeaderValue::is_empty) {
            None => drop(headers.insert(name, default)),
            Some(true) => drop(headers.remove(name)),
            Some(false) => {}
        }
    }
    (headers, host)
}

/// Why an exchange failed, in Go's words where it has its own.
fn http_text(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause {
        Some(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        Some(cause) => format!("read: {}", errno_text(cause)),
        None if error.is_incomplete_message() || error.is_canceled() => "EOF".to_owned(),
        None if error.is_parse() => {
            format!("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {error}")
        }
        None => error.to_string(),
    }
}

fn tls_text(error: &std::io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            HTTP_RESPONSE_TO_HTTPS.to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        Some(cause) => format!("tls: {cause}"),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => format!("read: {}", errno_text(error)),
    }
}

static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of every version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyPeer(schemes)))
        .with_no_client_auth();
    Arc::new(config)
});

/// Takes whoever answers.
#[derive(Debug)]
struct AnyPeer(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_defaults_that_an_empty_value_takes_away() {
        let header = |name: &str, value: &str| HTTPHeader { name: name.to_owned(), value: value.to_owned() };
        let print = |custom: &[HTTPHeader]| {
            let (headers, host) = headers(custom, "kube-probe");
            let mut lines: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
            lines.sort();
            (lines.join(" "), host.map(|host| host.to_str().unwrap().to_owned()))
        };
        assert_eq!(print(&[]), ("accept=*/* user-agent=kube-probe/1.36".to_owned(), None));
        assert_eq!(
            print(&[
                header("X-A", "1"),
                header("x-a", "2"),
                header("Host", "name.example"),
                header("Accept", "")
            ]),
            ("user-agent=kube-probe/1.36 x-a=1 x-a=2".to_owned(), Some("name.example".to_owned()))
        );
        assert_eq!(
            print(&[header("User-Agent", "me"), header("Accept", "text/plain"), header("Host", "")]),
            ("accept=text/plain user-agent=me".to_owned(), None)
        );
    }
}
