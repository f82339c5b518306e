use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use apimachinery::GroupResource;
use camino::Utf8Path;
use pki::{Authority, ServerNames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// Longer than any call here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An HTTPS server that says the same to everybody.
struct Peer {
    port: u16,
    ca_pem: String,
    connections: Arc<AtomicUsize>,
}

/// What the peer does with a request.
#[derive(Clone, Copy)]
enum Manner {
    Says(&'static str),
    Hangs,
    Closes,
}

impl Peer {
    async fn start(manner: Manner) -> Self {
        Self::start_at(rt::now().into(), manner).await
    }

    /// With a certificate made at some time.
    async fn start_at(now: SystemTime, manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let authority = Authority::load_or_create(folder, rt::now().into()).unwrap();
        let serving =
            authority.serving_certificate(ServerNames::in_cluster().with("hook.ns.svc"), now).unwrap();
        let mut tls = pki::server_config(serving, &authority.client_verifier().unwrap()).unwrap();
        tls.alpn_protocols.clear();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        rt::spawn("peer", async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                rt::spawn("peer connection", async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        serve(stream, manner).await;
                    }
                });
            }
        });
        Self { port, ca_pem: authority.ca_pem().to_owned(), connections }
    }

    fn url(&self) -> Target {
        Target::Url(format!("https://127.0.0.1:{}/base/", self.port))
    }

    fn client(&self, target: Target) -> Client {
        let resolver: Arc<dyn ServiceResolver> = Arc::new(FixedPort(self.port));
        Client::new(&ClientConfig::hook(target, self.ca_pem.as_bytes()), &resolver).unwrap()
    }
}

/// Answers requests one after the other until the client goes.
async fn serve(mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, manner: Manner) {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        seen.extend_from_slice(&chunk[..count]);
        if !seen.ends_with(b"BODY") {
            continue;
        }
        match manner {
            Manner::Says(answer) => {
                // `{}` in the answer is what came in.
                let request = String::from_utf8_lossy(&seen).lines().next().unwrap_or_default().to_owned();
                let _ = stream.write_all(answer.replace("{}", &request).as_bytes()).await;
                seen.clear();
            }
            Manner::Hangs => {}
            Manner::Closes => return,
        }
    }
}

struct FixedPort(u16);

impl ServiceResolver for FixedPort {
    fn resolve(&self, _: &str, name: &str, port: u16) -> Result<String, Status> {
        match (name, port) {
            ("gone", _) => Err(Status::not_found(&GroupResource::new("", "services"), name)),
            _ => Ok(format!("127.0.0.1:{}", self.0)),
        }
    }
}

fn service(name: &str) -> Target {
    let (namespace, path) = ("ns".to_owned(), "/hook".to_owned());
    Target::Service(ServiceReference { namespace, name: name.to_owned(), port: 8443, path })
}

async fn post(client: &Client, timeout: Duration) -> Result<Bytes, Error> {
    let body = Bytes::from_static(b"BODY");
    let method = Method::POST;
    client.post(Call { method, path: "", query: "timeout=1s", body, timeout, answer_bytes_max: 100 }).await
}

async fn failure(client: &Client) -> String {
    post(client, PATIENCE).await.expect_err("this call cannot go well").to_string()
}

/// The first line of the request to `calls_reach_path_and_query_over_one_connection`, whose length this is.
const ECHO: Manner = Manner::Says("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{}");

#[tokio::test]
async fn calls_reach_path_and_query_over_one_connection() {
    let peer = Peer::start(ECHO).await;
    let by_url = peer.client(peer.url());
    for _ in 0..3 {
        assert_eq!(post(&by_url, PATIENCE).await.unwrap(), "POST /base?timeout=1s HTTP/1.1");
    }
    assert_eq!(peer.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_service_is_reached_where_it_is_and_checked_for_its_own_name() {
    let peer = Peer::start(Manner::Says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    assert!(post(&peer.client(service("hook")), PATIENCE).await.is_ok());
    assert_eq!(
        failure(&peer.client(service("gone"))).await,
        "Post \"https://gone.ns.svc:8443/hook?timeout=1s\": services \"gone\" not found"
    );
    let other = failure(&peer.client(service("other"))).await;
    let expected = "Post \"https://other.ns.svc:8443/hook?timeout=1s\": tls: failed to verify certificate: x509: \
                    certificate is valid for hook.ns.svc, ";
    assert!(other.starts_with(expected) && other.ends_with(", not other.ns.svc"), "{other}");
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_refused_in_go_s_words() {
    let peer = Peer::start(ECHO).await;
    let stranger = Peer::start(ECHO).await;
    let resolver: Arc<dyn ServiceResolver> = Arc::new(crate::NoServices);
    let fooled = Client::new(&ClientConfig::hook(peer.url(), stranger.ca_pem.as_bytes()), &resolver).unwrap();
    let text = failure(&fooled).await;
    let unknown = ": tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(text.ends_with(unknown), "{text}");

    let expired = Peer::start_at(SystemTime::from(rt::now()) - 24 * 400 * HOUR, ECHO).await;
    let text = failure(&expired.client(expired.url())).await;
    assert!(text.contains(": x509: certificate has expired or is not yet valid: current time 2"), "{text}");
    assert!(text.contains("Z is after 2"), "{text}");

    let mut careless = ClientConfig::hook(peer.url(), b"");
    careless.insecure_skip_verify = true;
    assert!(post(&Client::new(&careless, &resolver).unwrap(), PATIENCE).await.is_ok());
}

#[tokio::test]
async fn peers_that_do_not_answer_are_given_up() {
    let hanging = Peer::start(Manner::Hangs).await;
    let error = post(&hanging.client(hanging.url()), Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().ends_with("/base?timeout=1s\": context deadline exceeded"), "{error}");

    let closing = Peer::start(Manner::Closes).await;
    let text = failure(&closing.client(closing.url())).await;
    assert!(text.ends_with("/base?timeout=1s\": EOF"), "{text}");

    // A port that was just given back is one that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let nobody = hanging.client(Target::Url(format!("https://127.0.0.1:{port}/")));
    let refused = format!(
        "Post \"https://127.0.0.1:{port}/?timeout=1s\": dial tcp 127.0.0.1:{port}: connect: connection refused"
    );
    assert_eq!(failure(&nobody).await, refused);
}

#[tokio::test]
async fn answers_that_are_not_good_say_what_the_peer_said() {
    for (answer, text) in [
        (
            "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nboom\n",
            "an error on the server (\"boom\") has prevented the request from succeeding",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "the server could not find the requested resource",
        ),
        (
            "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
            "the server responded with the status code 302 but did not return more information",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 67\r\n\r\n{\"kind\":\"Status\",\"status\":\"Failure\",\
             \"message\":\"not you\",\"code\":403}",
            "not you",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
            "the response is larger than the 100 bytes that are allowed",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n\
             -----------------------------------------------------------------------------------------------------\
             \r\n0\r\n\r\n",
            "the response is larger than the 100 bytes that are allowed",
        ),
    ] {
        let peer = Peer::start(Manner::Says(answer)).await;
        assert_eq!(failure(&peer.client(peer.url())).await, text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_in_a_file_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap().join("token");
    std::fs::write(&path, "abc\n").unwrap();
    let authorization = Authorization::new(Some(&Credential::BearerFile(path.clone()))).unwrap();
    assert_eq!(authorization.header().unwrap().unwrap(), "Bearer abc");
    // For a while the one that was read is good enough, and longer if there is no other.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(authorization.header().unwrap().unwrap(), "Bearer abc");
    rt::sleep(TOKEN_FILE_LIFE).await;
    assert_eq!(authorization.header().unwrap().unwrap(), "Bearer abc");
    std::fs::write(&path, "def\n").unwrap();
    rt::sleep(TOKEN_FILE_LIFE).await;
    assert_eq!(authorization.header().unwrap().unwrap(), "Bearer def");
    std::fs::remove_file(&path).unwrap();
    let missing = Authorization::new(Some(&Credential::BearerFile(path))).unwrap();
    assert!(missing.header().is_err());
}

#[test]
fn a_configuration_that_reaches_nobody_is_refused() {
    let resolver: Arc<dyn ServiceResolver> = Arc::new(crate::NoServices);
    let refused = |config: ClientConfig| {
        Client::new(&config, &resolver).err().expect("nothing can be called with this").to_string()
    };
    let url = |url: &str| ClientConfig::new(Target::Url(url.to_owned()));
    assert_eq!(refused(url("")), "webhook configuration must have either service or URL");
    assert_eq!(refused(url("/path")), "Unparsable URL: host must be specified");
    let bundle = ClientConfig { ca_bundle: Some(b"x".to_vec()), ..url("https://a") };
    assert_eq!(
        refused(bundle.clone()),
        "unable to load root certificates: unable to parse bytes as PEM block"
    );
    assert_eq!(
        refused(ClientConfig { insecure_skip_verify: true, ..bundle }),
        "specifying a root certificates file with the insecure flag is not allowed"
    );
}
