//! A served, bootstrapped cluster in memory, and its administrator's connection.
//!
//! One for all inputs of a process, because it takes long to start. What is sent is therefore sent as a dry run: the
//! next input finds what the one before it found.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use apiserver::{ApiServer, Parts, bootstrap};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use registry::ServiceNetwork;
use rustls_pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

/// Whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(8);

/// What there is besides what every cluster has.
const OBJECTS: [(&str, &str); 5] = [
    ("/api/v1/namespaces", r#"{"metadata":{"name":"t"}}"#),
    ("/api/v1/namespaces/t/serviceaccounts", r#"{"metadata":{"name":"default"}}"#),
    ("/api/v1/namespaces/t/configmaps", r#"{"metadata":{"name":"a"},"data":{"a":"b"}}"#),
    (
        "/api/v1/namespaces/t/pods",
        r#"{"metadata":{"name":"a","labels":{"app":"a"}},"spec":{"containers":[{"name":"a","image":"a"}]}}"#,
    ),
    (
        "/apis/apps/v1/namespaces/t/deployments",
        r#"{"metadata":{"name":"a"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{
            "metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"a","image":"a"}]}}}}"#,
    ),
];

pub struct Server {
    runtime: Runtime,
    address: SocketAddr,
    tls: TlsConnector,
    connection: Option<SendRequest<Full<Bytes>>>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let (address, tls) = runtime.block_on(launch(&folder));
        let mut server = Self { runtime, address, tls, connection: None, _folder: folder };
        for (path, object) in OBJECTS {
            let request = Request::post(path).header("content-type", "application/json");
            server.send(request.body(Full::from(object)).expect("a request"));
        }
        server
    }

    /// Sends a request and reads the answer, but for that of a watch, which has no end. A request that is no HTTP is
    /// not sent.
    pub fn send(&mut self, request: Request<Full<Bytes>>) {
        let endless = request.uri().query().is_some_and(|query| query.contains("watch"));
        let Self { runtime, address, tls, connection, .. } = self;
        runtime.block_on(async {
            let mut sender = match connection.take() {
                Some(sender) if !sender.is_closed() => sender,
                _ => connect(*address, tls).await,
            };
            let answered = tokio::time::timeout(PATIENCE, answer(&mut sender, request, endless));
            let usable = answered.await.expect("an answer in time");
            *connection = usable.then_some(sender);
        });
    }
}

/// Whether the connection may be used again.
async fn answer(
    sender: &mut SendRequest<Full<Bytes>>,
    mut request: Request<Full<Bytes>>,
    endless: bool,
) -> bool {
    request.headers_mut().insert("host", http::HeaderValue::from_static("localhost"));
    if sender.ready().await.is_err() {
        return false;
    }
    let Ok(response) = sender.send_request(request).await else { return false };
    !endless && whole(response).await
}

async fn whole(response: Response<Incoming>) -> bool {
    response.into_body().collect().await.is_ok()
}

async fn connect(address: SocketAddr, tls: &TlsConnector) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::from(address.ip());
    let stream = tls.connect(name, stream).await.expect("a handshake");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

async fn launch(folder: &tempfile::TempDir) -> (SocketAddr, TlsConnector) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let keys = camino::Utf8Path::from_path(folder.path()).expect("a UTF-8 path");
    let now = SystemTime::now();
    let authority = Arc::new(pki::Authority::load_or_create(keys, now).expect("keys"));
    let front_proxy = Arc::new(pki::Authority::load_or_create(&keys.join("front-proxy"), now).expect("keys"));
    let options = apiserver::Options::default();
    let names = pki::ServerNames::in_cluster().with(&address.ip().to_string());
    let certificate = authority.serving_certificate(names, now).expect("a certificate");
    let clients = options.authentication.clients(&authority).expect("a verifier");
    let tls = pki::server_config_for(certificate, &clients, &options.authentication.proxies()).expect("TLS");
    let network = ServiceNetwork::default();
    let facts = bootstrap::ClusterFacts::new(&network, address, &authority, &options.apis.features);
    let shutdown = rt::Shutdown::new();
    let api = ApiServer::assemble(Parts {
        store: Arc::new(storage_embedded::memory()),
        network,
        authority: authority.clone(),
        front_proxy,
        address,
        options,
        shutdown: shutdown.clone(),
    })
    .expect("an assembled server");
    rt::spawn("https", api.listen(listener, Arc::new(tls)).run(shutdown.clone()));
    rt::spawn("custom resources", api.run_extensions(shutdown.clone()));
    bootstrap::run(api.door(), &facts, &shutdown).await.expect("bootstrap");
    let admin = authority.issue_admin(now).expect("a client certificate");
    let client = pki::client_config(authority.ca_pem(), Some(&admin)).expect("TLS");
    (address, TlsConnector::from(Arc::new(client)))
}
