//! The server over TLS, as the API server speaks to it.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use camino::Utf8Path;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use runtime::ContainerStatus;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use streaming::spdy::frame::{Encoder, Frame, FrameReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::access::{Attributes, Authenticator, Authorizer, User};
use super::testing::{TestPods, TestRuntime, pod};
use super::*;
use crate::agent::stats::{Sources, VolumeUsage, Volumes};

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// Nobody knows how full volumes are.
struct NoVolumes;

#[async_trait]
impl Volumes for NoVolumes {
    async fn usage(&self, _: &str) -> Vec<VolumeUsage> {
        Vec::new()
    }
}

/// The token `jane` is jane's, who may see metrics; masters may do everything.
struct Rules;

#[async_trait]
impl Authenticator for Rules {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, apimachinery::Status> {
        match token {
            "jane" => Ok(Some(User { name: "jane".to_owned(), ..User::default() })),
            "broken" => Err(apimachinery::Status::internal("the API server is away")),
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl Authorizer for Rules {
    async fn is_allowed(&self, user: &User, attributes: &Attributes) -> Result<bool, apimachinery::Status> {
        assert_eq!(attributes.node, "n");
        let master = user.groups.iter().any(|group| group == "system:masters");
        Ok(master || attributes.subresource == "metrics")
    }
}

struct Scene {
    runtime: Arc<TestRuntime>,
    folder: tempfile::TempDir,
    authority: pki::Authority,
    address: SocketAddr,
    shutdown: rt::Shutdown,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Scene {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap();
        let runtime = TestRuntime::new();
        runtime.runs("c1", path.join("0.log"));
        std::fs::write(path.join("0.log"), "2026-01-01T00:00:00Z stdout F hello\n").unwrap();
        let now = rt::now().into();
        let authority = pki::Authority::load_or_create(&path.join("pki"), now).unwrap();
        let serving = authority.serving_certificate(pki::ServerNames::in_cluster(), now).unwrap();
        let clients = authority.client_verifier().unwrap();
        let tls = pki::server_config(serving, &clients).unwrap();
        let pods = Arc::new(TestPods(vec![pod()]));
        let stats = Stats::new(Sources {
            node_name: "n".to_owned(),
            runtime: runtime.clone(),
            pods: pods.clone(),
            volumes: Arc::new(NoVolumes),
            root: path.to_owned(),
            cgroups: path.join("no-cgroups"),
            proc: "/proc".into(),
        });
        let rules = Arc::new(Rules);
        let parts = Parts {
            node_name: "n".to_owned(),
            pods,
            runtime: runtime.clone(),
            access: Access { clients: Some(clients), authenticator: rules.clone(), authorizer: rules },
            stats: Arc::new(stats),
            health: Arc::new(|| Ok(())),
            configuration: json!({"maxPods": 110}),
            probe_metrics: Arc::new(|| "prober_probe_total 1\n".to_owned()),
            node_logs: None,
            streaming_idle_timeout: HOUR,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = rt::Shutdown::new();
        let server = Server::new(listener, Arc::new(tls), parts, shutdown.clone()).unwrap();
        let address = server.address().unwrap();
        rt::spawn("server", server.run());
        Self { runtime, folder, authority, address, shutdown }
    }

    fn certificate(&self, groups: &[&str], since: std::time::SystemTime) -> pki::IssuedCertificate {
        self.authority.issue_client("kube-apiserver-kubelet-client", groups, HOUR, since).unwrap()
    }

    async fn send(
        &self,
        certificate: Option<&pki::IssuedCertificate>,
        request: Request<Empty<Bytes>>,
    ) -> Response<Incoming> {
        let mut tls = pki::client_config(self.authority.ca_pem(), certificate).unwrap();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        rt::spawn("client", async move {
            let _ = connection.with_upgrades().await;
        });
        rt::timeout(PATIENCE, sender.send_request(request)).await.expect("it answers").unwrap()
    }

    /// As the API server.
    async fn ask(&self, method: Method, path: &str) -> Response<Incoming> {
        let certificate = self.certificate(&["system:masters"], rt::now().into());
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        self.send(Some(&certificate), request.body(Empty::new()).unwrap()).await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        body(self.ask(Method::GET, path).await).await
    }

    /// Switches to SPDY.
    async fn upgrade(&self, path: &str, version: &str) -> TokioIo<hyper::upgrade::Upgraded> {
        let certificate = self.certificate(&["system:masters"], rt::now().into());
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", "localhost")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "SPDY/3.1")
            .header("x-stream-protocol-version", version);
        let answer = self.send(Some(&certificate), request.body(Empty::new()).unwrap()).await;
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["x-stream-protocol-version"], version);
        TokioIo::new(hyper::upgrade::on(answer).await.unwrap())
    }
}

async fn body(answer: Response<Incoming>) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = rt::timeout(PATIENCE, answer.into_body().collect()).await.expect("it ends").unwrap();
    (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

fn open(id: u32, headers: &[(&str, &str)]) -> Frame {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Frame::SynStream { id, fin: false, headers }
}

/// Sends frames and returns what came on each stream until `streams` of them have ended.
async fn talk(
    connection: TokioIo<hyper::upgrade::Upgraded>,
    frames: &[Frame],
    streams: usize,
) -> std::collections::BTreeMap<u32, String> {
    let (read, mut write) = tokio::io::split(connection);
    let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
    for frame in frames {
        encoder.encode(frame, &mut bytes).unwrap();
    }
    write.write_all(&bytes).await.unwrap();
    let mut reader = FrameReader::new(read);
    let mut said = std::collections::BTreeMap::<u32, String>::new();
    let mut ended = 0;
    while ended < streams {
        let frame = rt::timeout(PATIENCE, reader.next()).await.expect("more comes").unwrap();
        if let Frame::Data { id, fin, bytes } = frame.expect("it goes on") {
            said.entry(id).or_default().push_str(std::str::from_utf8(&bytes).unwrap());
            ended += usize::from(fin);
        }
    }
    said
}

#[tokio::test]
async fn only_those_who_are_known_and_may_are_let_in() {
    let scene = Scene::start().await;
    let get = async |token: Option<&str>, certificate: Option<&pki::IssuedCertificate>, path: &str| {
        let mut request = Request::builder().uri(path).header("host", "localhost");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        body(scene.send(certificate, request.body(Empty::new()).unwrap()).await).await
    };
    let unauthorized = (401, "Unauthorized".to_owned());
    assert_eq!(get(None, None, "/healthz").await, unauthorized);
    assert_eq!(get(Some("nobody"), None, "/metrics").await, unauthorized);
    assert_eq!(get(Some("broken"), None, "/metrics").await, unauthorized);
    let now: std::time::SystemTime = rt::now().into();
    let expired = scene.certificate(&["system:masters"], now - 2 * HOUR);
    assert_eq!(get(None, Some(&expired), "/metrics").await, unauthorized);
    assert_eq!(get(Some("jane"), None, "/metrics/probes").await, (200, "prober_probe_total 1\n".to_owned()));
    let refused = "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
    assert_eq!(get(Some("jane"), None, "/pods").await, (403, refused.to_owned()));
    let master = scene.certificate(&["system:masters"], now);
    assert_eq!(get(None, Some(&master), "/healthz").await, (200, "ok".to_owned()));
    assert_eq!(get(None, Some(&master), "/nothing").await.0, 404);
}

#[tokio::test]
async fn a_node_tells_about_itself_and_its_pods() {
    let scene = Scene::start().await;
    let (status, pods) = scene.get("/pods").await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!(
        (status, &pods["kind"], &pods["items"][0]["metadata"]["name"]),
        (200, &json!("PodList"), &json!("p"))
    );
    assert_eq!(scene.get("/configz").await, (200, r#"{"kubeletconfig":{"maxPods":110}}"#.to_owned()));
    let (status, summary) = scene.get("/stats/summary").await;
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((status, &summary["node"]["nodeName"]), (200, &json!("n")));
    for (path, wanted) in [
        ("/metrics/resource", "resource_scrape_error 0"),
        ("/metrics/cadvisor", "machine_cpu_cores"),
        ("/metrics", "process_start_time_seconds"),
    ] {
        let (status, text) = scene.get(path).await;
        assert!(status == 200 && text.contains(wanted), "{path}: {status} {text}");
    }
    assert_eq!(scene.get("/logs/").await, (405, "logs endpoint is disabled.\n".to_owned()));
    assert_eq!(body(scene.ask(Method::POST, "/pods").await).await.0, 405);
    let run = async |command: &str| {
        body(scene.ask(Method::POST, &format!("/run/default/p/c?cmd={command}")).await).await
    };
    assert_eq!(run("echo%20hi").await, (200, "hi\n".to_owned()));
    assert_eq!(run("false").await, (500, "command 'false' exited with 1: ".to_owned()));
}

#[tokio::test]
async fn logs_are_shown_or_refused_in_upstreams_words() {
    let scene = Scene::start().await;
    assert_eq!(scene.get("/containerLogs/default/p/c").await, (200, "hello\n".to_owned()));
    let stamped = "2026-01-01T00:00:00.000000000Z hello\n";
    assert_eq!(scene.get("/containerLogs/default/p/c?timestamps=true").await, (200, stamped.to_owned()));
    let cases = [
        ("default/x/c", 404, r#"pod "x" does not exist"#),
        ("default/p/x", 404, r#"container "x" not found in pod "p""#),
        ("default/p/b", 400, r#"container "b" in pod "p" is waiting to start: image can't be pulled"#),
        ("default/p/c?previous=true", 400, r#"previous terminated container "c" in pod "p" not found"#),
        ("default/p/c?tailLines=x", 400, r#"{"message": "Unable to decode query."}"#),
        ("default/p/c?tailLines=-1", 422, r#"{"message": "Invalid request."}"#),
    ];
    for (path, status, message) in cases {
        let path = format!("/containerLogs/{path}");
        assert_eq!(scene.get(&path).await, (status, message.to_owned()), "{path}");
    }
    // Followed until the container ends.
    let mut answer = scene.ask(Method::GET, "/containerLogs/default/p/c?follow=true").await.into_body();
    let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "hello\n");
    let path = scene.folder.path().join("0.log");
    let mut log = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut log, b"2026-01-01T00:00:01Z stderr F bye\n").unwrap();
    scene.runtime.exits("c1");
    let rest = rt::timeout(PATIENCE, answer.collect()).await.expect("it ends").unwrap();
    assert_eq!(rest.to_bytes(), "bye\n");
    *scene.runtime.containers.lock() = [("c2".to_owned(), ContainerStatus::default())].into();
    let (status, message) = scene.get("/containerLogs/default/p/c").await;
    assert_eq!((status, &*message), (400, "unable to retrieve container logs for c1"));
}

#[tokio::test]
async fn a_command_runs_in_a_container_and_returns_its_code() {
    let scene = Scene::start().await;
    let path =
        "/exec/default/p/c?command=sh&command=-c&command=cat;echo+err%3E%262;exit+7&input=1&output=1&error=1";
    let connection = scene.upgrade(path, "v4.channel.k8s.io").await;
    let frames = [
        open(1, &[("streamtype", "error")]),
        open(3, &[("streamtype", "stdin")]),
        open(5, &[("streamtype", "stdout")]),
        open(7, &[("streamtype", "stderr")]),
        Frame::Data { id: 3, fin: true, bytes: Bytes::from_static(b"typed") },
    ];
    // Stdin's other direction ends with the rest.
    let said = talk(connection, &frames, 4).await;
    assert_eq!((&*said[&5], &*said[&7]), ("typed", "err\n"));
    let status: Value = serde_json::from_str(&said[&1]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");

    let connection = scene.upgrade("/attach/default/p/c?input=1&output=1", "v4.channel.k8s.io").await;
    let frames = [
        open(1, &[("streamtype", "error")]),
        open(3, &[("streamtype", "stdin")]),
        open(5, &[("streamtype", "stdout")]),
        Frame::Data { id: 3, fin: true, bytes: Bytes::from_static(b"hello") },
    ];
    let said = talk(connection, &frames, 3).await;
    assert_eq!((&*said[&5], &*said[&1]), ("hello", r#"{"metadata":{},"status":"Success"}"#));

    assert_eq!(scene.get("/exec/default/x/c?output=1").await, (404, "pod does not exist".to_owned()));
    assert_eq!(
        scene.get("/exec/default/p/b?output=1").await,
        (500, r#"container not found ("b")"#.to_owned())
    );
    assert_eq!(scene.get("/exec/default/p/other/c?output=1").await, (404, "pod not found".to_owned()));
    let (status, message) = scene.get("/exec/default/p/c").await;
    assert_eq!((status, &*message), (400, "you must specify at least 1 of stdin, stdout, stderr\n"));
    assert_eq!(scene.get("/exec/default/p/c?output=1").await.0, 400, "it is no upgrade");
}

#[tokio::test]
async fn a_port_of_a_pod_is_forwarded() {
    let scene = Scene::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    rt::spawn("echo", async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut heard = String::new();
        socket.read_to_string(&mut heard).await.unwrap();
        socket.write_all(format!("heard {heard}").as_bytes()).await.unwrap();
    });
    let connection = scene.upgrade("/portForward/default/p", "portforward.k8s.io").await;
    let of = |kind, port| [("streamtype", kind), ("port", port), ("requestid", "0")];
    let frames = [
        open(1, &of("error", &*port)),
        open(3, &of("data", &*port)),
        Frame::Data { id: 3, fin: true, bytes: Bytes::from_static(b"you") },
    ];
    let said = talk(connection, &frames, 2).await;
    assert_eq!((&*said[&3], &*said[&1]), ("heard you", ""));

    // Nobody listens at that port any more.
    let connection = scene.upgrade("/portForward/default/p/u", "portforward.k8s.io").await;
    let said = talk(connection, &[open(1, &of("error", &*port)), open(3, &of("data", &*port))], 2).await;
    let wanted = format!("error forwarding port {port} to pod p_default, uid u: ");
    assert!(said[&1].starts_with(&wanted) && said[&1].contains("refused"), "{}", said[&1]);
}
