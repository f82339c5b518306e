//! One HTTPS connection: HTTP/1.1 with keep-alive, the client certificate of a kubeconfig.

use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use camino::Utf8Path;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where a server listens and who we are to it.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// `host:port`
    authority: String,
    server_name: ServerName<'static>,
    connector: TlsConnector,
}

/// A connection that carries one request at a time.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    /// The form in which answers are asked for.
    accept: &'static str,
    /// Whom the requests impersonate.
    user: Option<&'static str>,
}

/// What is left of an answer that was read and thrown away.
pub(super) struct Drained {
    pub(super) status: StatusCode,
    pub(super) retry_after_seconds: Option<u64>,
}

pub(super) const JSON: &str = "application/json";
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// An answer read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

impl Endpoint {
    /// Reads the first cluster and user of a kubeconfig with embedded certificates.
    pub(super) fn from_kubeconfig(path: &Utf8Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        let config: Kubeconfig = serde_saphyr::from_str(&text).with_context(|| format!("parsing {path}"))?;
        let (Some(cluster), Some(user)) = (config.clusters.first(), config.users.first()) else {
            bail!("{path} names no cluster or no user");
        };
        let authority =
            cluster.cluster.server.trim_start_matches("https://").trim_end_matches('/').to_owned();
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
        let server_name =
            ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).context("server name")?;
        let connector = TlsConnector::from(Arc::new(tls(&cluster.cluster, &user.user)?));
        Ok(Self { authority, server_name, connector })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(&self.authority)
            .await
            .with_context(|| format!("connecting to {}", self.authority))?;
        tcp.set_nodelay(true).context("setting TCP_NODELAY")?;
        let tls = self.connector.connect(self.server_name.clone(), tcp).await.context("TLS handshake")?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.context("HTTP handshake")?;
        tokio::spawn(async move {
            // Its end shows as an error of the request that needed it.
            let _ = connection.with_upgrades().await;
        });
        Ok(Connection { sender, authority: self.authority.clone(), accept: JSON, user: None })
    }
}

fn tls(cluster: &Cluster, user: &User) -> anyhow::Result<ClientConfig> {
    let decode = |what: &str, data: &str| STANDARD.decode(data).with_context(|| format!("decoding {what}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&decode("the CA", &cluster.certificate_authority_data)?)
    {
        roots.add(certificate.context("reading the CA")?).context("trusting the CA")?;
    }
    let certificate = decode("the client certificate", &user.client_certificate_data)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .context("reading the client certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&decode("the client key", &user.client_key_data)?)
        .context("reading the client key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .context("using the client certificate")
}

impl Connection {
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, "", Bytes::new()).await
    }

    /// Whether the server closed it, as it does with one that is not used for a while.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// The same, for answers in another form.
    pub(super) fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    /// A POST that must create.
    pub(super) async fn create(&mut self, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        self.call(Method::POST, path, JSON, body).await?.expect(path, StatusCode::CREATED)
    }

    /// Server-side apply of an object, which must create it or find it.
    pub(super) async fn apply(&mut self, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        let path = format!("{path}?fieldManager=bench&force=true");
        let answer = self.call(Method::PATCH, &path, "application/apply-patch+yaml", body).await?;
        if answer.status == StatusCode::CREATED { Ok(answer) } else { answer.expect(&path, StatusCode::OK) }
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let response = self.send(method, path, content_type, body).await?;
        let status = response.status();
        let body =
            response.into_body().collect().await.with_context(|| format!("reading {path}"))?.to_bytes();
        Ok(Answer { status, body })
    }

    /// Reads an answer of any length and returns only that length.
    pub(super) async fn measure(&mut self, path: &str) -> anyhow::Result<u64> {
        let response = self.stream(path).await?;
        read_through(response.into_body(), path).await
    }

    /// The same connection, on behalf of another user.
    pub(super) fn acting_as(self, user: &'static str) -> Self {
        Self { user: Some(user), ..self }
    }

    /// Reads an answer of any length and status.
    pub(super) async fn drain(&mut self, path: &str) -> anyhow::Result<Drained> {
        let response = self.send(Method::GET, path, "", Bytes::new()).await?;
        let (head, body) = response.into_parts();
        read_through(body, path).await?;
        let after = head.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Drained { status: head.status, retry_after_seconds: after })
    }

    /// A GET whose body is read while it comes.
    pub(super) async fn stream(&mut self, path: &str) -> anyhow::Result<Response<Incoming>> {
        let response = self.send(Method::GET, path, "", Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            bail!("GET {path} answered {}", response.status());
        }
        Ok(response)
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.authority);
        request = request.header("accept", self.accept).header("user-agent", "pintle-bench");
        if let Some(user) = self.user {
            request = request.header("impersonate-user", user);
        }
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request =
            request.body(Full::new(body)).with_context(|| format!("building a request for {path}"))?;
        self.sender.ready().await.context("waiting for the connection")?;
        self.sender.send_request(request).await.with_context(|| format!("sending {path}"))
    }

    /// Sends a request of one's own making, the last one of this connection.
    pub(super) async fn request(
        mut self,
        mut request: Request<Full<Bytes>>,
        path: &str,
    ) -> anyhow::Result<Response<Incoming>> {
        let host = self.authority.parse().context("the server's address as a header")?;
        request.headers_mut().insert("host", host);
        self.sender.ready().await.context("waiting for the connection")?;
        self.sender.send_request(request).await.with_context(|| format!("sending {path}"))
    }
}

/// Reads a body to its end; how many bytes it has.
async fn read_through(mut body: Incoming, path: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.with_context(|| format!("reading {path}"))?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

impl Answer {
    pub(super) fn expect(self, path: &str, status: StatusCode) -> anyhow::Result<Self> {
        if self.status != status {
            let text = String::from_utf8_lossy(&self.body);
            bail!(
                "{path} answered {} instead of {status}: {}",
                self.status,
                text.chars().take(500).collect::<String>()
            );
        }
        Ok(self)
    }
}

/// The lines of a watch stream. Owns its connection, so that dropping one closes both.
pub(super) struct Lines {
    _connection: Connection,
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// Starts a watch of a collection; `query` is added to `watch=true`.
    pub(super) async fn watch(
        mut connection: Connection,
        collection: &str,
        query: &str,
    ) -> anyhow::Result<Self> {
        let body = connection.stream(&format!("{collection}?watch=true{query}")).await?.into_body();
        Ok(Self { _connection: connection, body, buffer: BytesMut::new() })
    }

    /// The next line without its end; `None` when the server closed the stream.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                let line = self.buffer.split_to(searched + at + 1).freeze();
                return Ok(Some(line.slice(..line.len() - 1)));
            }
            searched = self.buffer.len();
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Some(data) = frame.context("reading a watch")?.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
