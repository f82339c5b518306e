//! Probes and hooks against servers that these tests start, and a runtime that runs nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus as ToldStatus, ExecAction, GRPCAction, HTTPGetAction, HTTPHeader,
    LifecycleHandler, Pod, PodStatus, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use runtime::{
    Attached, ContainerConfig, ContainerEvent, ContainerStats, ContainerStatus, Duplex, ExecOutput,
    FilesystemUsage, ImageStatus, PullRequest, Resources, Runtime, SandboxConfig, SandboxStatus, Streams,
    Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use super::check::{self, CheckError, Outcome};
use super::health::{HealthCheckRequest, HealthCheckResponse};
use super::{Change, HookError, HookTarget, Hooked, Kind, Prober, Recorder, Target, Warning, run_hook};

/// Answers the commands of probes, in order; the last answer stays.
#[derive(Default)]
struct Commands {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<(String, String)>>,
}

#[derive(Clone)]
enum Answer {
    Exit(i32, &'static str, &'static str),
    Long(usize),
    Timeout,
    Fail(&'static str),
}

impl Commands {
    fn new(answers: &[Answer]) -> Arc<Commands> {
        Arc::new(Commands { answers: Mutex::new(answers.iter().cloned().collect()), ..Commands::default() })
    }
}

#[async_trait]
impl Runtime for Commands {
    async fn exec_sync(
        &self,
        container: &str,
        command: &[String],
        _timeout: Duration,
    ) -> runtime::Result<ExecOutput> {
        self.asked.lock().push((container.to_owned(), command.join(" ")));
        let mut answers = self.answers.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        match answer.expect("a test that runs commands gives answers") {
            Answer::Exit(exit_code, stdout, stderr) => {
                Ok(ExecOutput { stdout: stdout.into(), stderr: stderr.into(), exit_code })
            }
            Answer::Long(length) => {
                Ok(ExecOutput { stdout: vec![b'x'; length], stderr: vec![], exit_code: 1 })
            }
            Answer::Timeout => Err(runtime::Error::Timeout("too late".to_owned())),
            Answer::Fail(message) => Err(runtime::Error::Failed(message.to_owned())),
        }
    }

    async fn version(&self) -> runtime::Result<Version> {
        unreachable!("probes only run commands")
    }
    async fn run_sandbox(&self, _: &SandboxConfig) -> runtime::Result<String> {
        unreachable!("probes only run commands")
    }
    async fn stop_sandbox(&self, _: &str) -> runtime::Result<()> {
        unreachable!("probes only run commands")
    }
    async fn remove_sandbox(&self, _: &str) -> runtime::Result<()> {
        unreachable!("probes only run commands")
    }
    async fn sandboxes(&self) -> runtime::Result<Vec<SandboxStatus>> {
        unreachable!("probes only run commands")
    }
    async fn create_container(&self, _: &str, _: &ContainerConfig) -> runtime::Result<String> {
        unreachable!("probes only run commands")
    }
    async fn start_container(&self, _: &str) -> runtime::Result<()> {
        unreachable!("probes only run commands")
    }
    async fn stop_container(&self, _: &str, _: Duration) -> runtime::Result<()> {
        unreachable!("probes only run commands")
    }
    async fn remove_container(&self, _: &str) -> runtime::Result<()> {
        unreachable!("probes only run commands")
    }
    async fn containers(&self) -> runtime::Result<Vec<ContainerStatus>> {
        unreachable!("probes only run commands")
    }
    async fn container_status(&self, _: &str) -> runtime::Result<ContainerStatus> {
        unreachable!("probes only run commands")
    }
    async fn update_resources(&self, _: &str, _: &Resources) -> runtime::Result<()> {
        unreachable!("probes only run commands")
    }
    async fn reopen_log(&self, _: &str) -> runtime::Result<()> {
        unreachable!("probes only run commands")
    }
    async fn exec(&self, _: &str, _: &[String], _: Streams) -> runtime::Result<Attached> {
        unreachable!("probes only run commands")
    }
    async fn attach(&self, _: &str, _: Streams) -> runtime::Result<Attached> {
        unreachable!("probes only run commands")
    }
    async fn port_forward(&self, _: &str, _: u16) -> runtime::Result<Box<dyn Duplex>> {
        unreachable!("probes only run commands")
    }
    async fn container_stats(&self) -> runtime::Result<Vec<ContainerStats>> {
        unreachable!("probes only run commands")
    }
    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        unreachable!("probes only run commands")
    }
    async fn pull_image(&self, _: &PullRequest) -> runtime::Result<String> {
        unreachable!("probes only run commands")
    }
    async fn image_status(&self, _: &str) -> runtime::Result<Option<ImageStatus>> {
        unreachable!("probes only run commands")
    }
    async fn images(&self) -> runtime::Result<Vec<ImageStatus>> {
        unreachable!("probes only run commands")
    }
    async fn remove_image(&self, _: &str) -> runtime::Result<()> {
        unreachable!("probes only run commands")
    }
    async fn image_filesystem(&self) -> runtime::Result<FilesystemUsage> {
        unreachable!("probes only run commands")
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn pod() -> Arc<Pod> {
    let mut pod = Pod::default();
    pod.metadata.name = Some("web".to_owned());
    pod.metadata.namespace = Some("shop".to_owned());
    pod.metadata.uid = Some("u1".to_owned());
    Arc::new(pod)
}

fn target(container: Container, id: &str) -> Target {
    Target {
        pod: pod(),
        container: Arc::new(Container { name: "main".to_owned(), ..container }),
        container_id: id.to_owned(),
        pod_ip: Some(LOOPBACK),
        started_at: rt::now(),
    }
}

fn http_probe(port: u16, path: &str) -> Probe {
    let http_get = HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(port.into()),
        ..HTTPGetAction::default()
    };
    Probe { http_get: Some(http_get), ..Probe::default() }
}

fn exec_probe(command: &[&str]) -> Probe {
    let command = command.iter().map(|argument| (*argument).to_owned()).collect();
    Probe { exec: Some(ExecAction { command: Some(command) }), ..Probe::default() }
}

async fn check(probe: &Probe) -> Result<Outcome, CheckError> {
    check_with(Commands::new(&[]), probe).await
}

async fn check_with(commands: Arc<Commands>, probe: &Probe) -> Result<Outcome, CheckError> {
    let runtime: runtime::SharedRuntime = commands;
    check::run(&runtime, &target(Container::default(), "c1"), probe).await
}

/// A server that answers each path as the table says, and remembers what it was asked. It lives as long as the test.
struct Web {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    stop: rt::Shutdown,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Web {
    async fn start(answers: &[(&str, &str)]) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let web = Web { port, requests: Arc::default(), stop: rt::Shutdown::new() };
        let answers: BTreeMap<String, String> = answers
            .iter()
            .map(|(path, answer)| ((*path).to_owned(), answer.replace("PORT", &port.to_string())))
            .collect();
        let (requests, stop) = (web.requests.clone(), web.stop.clone());
        drop(rt::spawn("test server", async move {
            let serve = async {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n")
                        && stream.read_buf(&mut request).await.unwrap_or(0) > 0
                    {}
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    requests.lock().push(request);
                    match answers.get(&path).map(String::as_str) {
                        Some("never") => {
                            let mut rest = Vec::new();
                            let _until_the_client_leaves = stream.read_to_end(&mut rest).await;
                        }
                        Some("hang up") => {}
                        answer => {
                            let answer =
                                answer.unwrap_or("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
                            let _the_client_may_have_left = stream.write_all(answer.as_bytes()).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = serve => {}
                () = stop.cancelled() => {}
            }
        }));
        web
    }
}

/// A port where nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn an_http_probe_is_judged_by_its_status_and_follows_its_own_host_only() {
    let web = Web::start(&[
        ("/ok", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("/error", "HTTP/1.1 500 Oh\r\ncontent-length: 6\r\n\r\nsecret"),
        ("/to-ok", "HTTP/1.1 302 Found\r\nlocation: ok\r\n\r\n"),
        (
            "/to-ok-absolute",
            "HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:PORT/ok\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "/away",
            "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 4\r\n\r\naway",
        ),
        ("/unchanged", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("/loop", "HTTP/1.1 302 Found\r\nlocation: /loop\r\ncontent-length: 0\r\n\r\n"),
        ("/never", "never"),
        ("/hang-up", "hang up"),
    ])
    .await;
    let port = web.port;
    let failure = |text: String| Ok(Outcome::Failure(text));
    let warning =
        |body: &str| Ok(Outcome::Warning(format!("Probe terminated redirects, Response body: {body}")));
    for (path, expected) in [
        ("/ok", Ok(Outcome::Success)),
        ("/to-ok", Ok(Outcome::Success)),
        ("/to-ok-absolute", Ok(Outcome::Success)),
        ("/error", failure("HTTP probe failed with statuscode: 500".to_owned())),
        ("/missing", failure("HTTP probe failed with statuscode: 404".to_owned())),
        ("/away", warning("away")),
        ("/unchanged", warning("")),
        ("/loop", failure(format!("Get \"http://127.0.0.1:{port}/loop\": stopped after 10 redirects"))),
        ("/hang-up", failure(format!("Get \"http://127.0.0.1:{port}/hang-up\": EOF"))),
        (
            "/never",
            failure(format!(
                "Get \"http://127.0.0.1:{port}/never\": context deadline exceeded (Client.Timeout exceeded while \
                 awaiting headers)"
            )),
        ),
    ] {
        assert_eq!(check(&http_probe(port, path)).await, expected, "{path}");
    }
}

#[tokio::test]
async fn an_http_probe_says_who_it_is_and_what_it_was_told() {
    let web = Web::start(&[("/ok?a=b", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let mut probe = http_probe(web.port, "/ok?a=b");
    assert_eq!(check(&probe).await, Ok(Outcome::Success));
    let header = |name: &str, value: &str| HTTPHeader { name: name.to_owned(), value: value.to_owned() };
    probe.http_get.as_mut().unwrap().http_headers =
        Some(vec![header("Host", "shop.example"), header("X-A", "1")]);
    assert_eq!(check(&probe).await, Ok(Outcome::Success));
    let requests = web.requests.lock();
    let lines = |request: &str| {
        let mut lines: Vec<_> = request.trim_end().lines().map(str::to_owned).collect();
        lines[1..].sort();
        lines
    };
    let host = format!("host: 127.0.0.1:{}", web.port);
    let first =
        ["GET /ok?a=b HTTP/1.1", "accept: */*", "connection: close", &host, "user-agent: kube-probe/1.36"];
    assert_eq!(lines(&requests[0]), first);
    assert!(requests[1].contains("\r\nhost: shop.example\r\n") && requests[1].contains("\r\nx-a: 1\r\n"));
}

#[tokio::test]
async fn https_takes_any_certificate_and_tells_plain_http_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let authority =
        pki::Authority::load_or_create(camino::Utf8Path::from_path(folder.path()).unwrap(), rt::now().into())
            .unwrap();
    let certificate =
        authority.serving_certificate(pki::ServerNames::in_cluster(), rt::now().into()).unwrap();
    let config = pki::server_config(certificate, &authority.client_verifier().unwrap());
    let server = rt::spawn("test server", async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap()));
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let https = |port| {
        let mut probe = http_probe(port, "/");
        probe.http_get.as_mut().unwrap().scheme = Some("HTTPS".to_owned());
        probe
    };
    assert_eq!(check(&https(port)).await, Ok(Outcome::Success));
    server.await.unwrap();

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    let answer = async {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _until_the_client_leaves = stream.read_to_end(&mut rest).await;
    };
    let probe = https(port);
    let (outcome, ()) = tokio::join!(check(&probe), answer);
    let text = format!("Get \"https://127.0.0.1:{port}/\": http: server gave HTTP response to HTTPS client");
    assert_eq!(outcome, Ok(Outcome::Failure(text)));
}

#[tokio::test]
async fn a_tcp_probe_needs_a_connection_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe = |port: IntOrString, host: Option<&str>| Probe {
        tcp_socket: Some(TCPSocketAction { port, host: host.map(str::to_owned) }),
        ..Probe::default()
    };
    let open = IntOrString::Int(listener.local_addr().unwrap().port().into());
    assert_eq!(check(&probe(open.clone(), None)).await, Ok(Outcome::Success));
    assert_eq!(check(&probe(open, Some("localhost"))).await, Ok(Outcome::Success));
    let port = closed_port().await;
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(check(&probe(IntOrString::Int(port.into()), None)).await, Ok(Outcome::Failure(refused)));
    let unknown = check(&probe(IntOrString::String("web".to_owned()), None)).await.unwrap_err();
    assert_eq!(unknown.message, "strconv.Atoi: parsing \"web\": invalid syntax");
    assert_eq!(unknown.state, "unknown");
}

#[tokio::test]
async fn a_grpc_probe_asks_for_the_health_of_a_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router =
        grpc::Router::new().unary("/grpc.health.v1.Health/Check", |request: HealthCheckRequest| async move {
            match request.service.as_str() {
                "" => Ok(HealthCheckResponse { status: 1 }),
                "ill" => Ok(HealthCheckResponse { status: 2 }),
                "slow" => std::future::pending().await,
                _ => Err(grpc::Status::new(grpc::Code::NotFound, "unknown service")),
            }
        });
    let stop = rt::Shutdown::new();
    let _stop_with_the_test = stop.clone().drop_guard();
    drop(rt::spawn("test server", grpc::Server::tcp(listener).serve(router, stop.clone())));
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other_port = other.local_addr().unwrap().port();
    drop(rt::spawn("test server", grpc::Server::tcp(other).serve(grpc::Router::new(), stop)));
    let closed = closed_port().await;
    let failure = |text: &str| Ok(Outcome::Failure(text.to_owned()));
    for (port, service, expected) in [
        (port, None, Ok(Outcome::Success)),
        (port, Some("ill"), failure("service unhealthy (responded with \"NOT_SERVING\")")),
        (port, Some("slow"), failure("timeout: health rpc did not complete within 1s")),
        (
            port,
            Some("other"),
            failure("error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
        ),
        (
            other_port,
            None,
            failure(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown \
                 method Check for service grpc.health.v1.Health",
            ),
        ),
        (
            closed,
            None,
            failure(&format!(
                "timeout: failed to connect service \"127.0.0.1:{closed}\" within 1s: context deadline exceeded"
            )),
        ),
    ] {
        let action = GRPCAction { port: port.into(), service: service.map(str::to_owned) };
        let probe = Probe { grpc: Some(action), ..Probe::default() };
        assert_eq!(check(&probe).await, expected, "{service:?}");
    }
}

#[tokio::test]
async fn a_command_passes_with_exit_code_zero_and_else_its_output_is_the_reason() {
    let probe = exec_probe(&["cat", "/ready"]);
    for (answer, expected) in [
        (Answer::Exit(0, "fine", ""), Ok(Outcome::Success)),
        (Answer::Exit(1, "out ", "and err"), Ok(Outcome::Failure("out and err".to_owned()))),
        (Answer::Long(20_000), Ok(Outcome::Failure("x".repeat(10 * 1024)))),
        (
            Answer::Timeout,
            Ok(Outcome::Failure("command timed out: \"cat /ready\" timed out after 1s".to_owned())),
        ),
        (Answer::Fail("it is away"), Err(CheckError { state: "unknown", message: "it is away".to_owned() })),
    ] {
        assert_eq!(check_with(Commands::new(&[answer]), &probe).await, expected);
    }
    let nothing = check(&Probe::default()).await.unwrap_err();
    assert_eq!(nothing.message, "missing probe handler for web_shop(u1):main");
}

/// A prober whose warnings are kept.
fn prober(commands: Arc<Commands>) -> (Prober, Arc<Mutex<Vec<Warning>>>) {
    let warnings: Arc<Mutex<Vec<Warning>>> = Arc::default();
    let kept = warnings.clone();
    let recorder: Recorder = Arc::new(move |pod: &Pod, container: &str, warning| {
        assert_eq!((pod.metadata.name.as_deref(), container), (Some("web"), "main"));
        kept.lock().push(warning);
    });
    (Prober::new(commands, recorder, rt::Shutdown::new()), warnings)
}

fn change(id: &str, kind: Kind, passed: Option<bool>) -> Change {
    let (pod_uid, container) = ("u1".to_owned(), "main".to_owned());
    Change { pod_uid, container, container_id: id.to_owned(), kind, passed }
}

#[tokio::test(start_paused = true)]
async fn startup_comes_first_and_a_new_container_begins_anew() {
    let commands = Commands::new(&[
        Answer::Exit(1, "not yet", ""),
        Answer::Fail("a"),
        Answer::Fail("b"),
        Answer::Fail("c"),
        Answer::Exit(0, "", ""),
    ]);
    let (prober, warnings) = prober(commands.clone());
    let mut changes = prober.results().changed();
    let container = Container {
        startup_probe: Some(exec_probe(&["started"])),
        readiness_probe: Some(exec_probe(&["ready"])),
        liveness_probe: Some(exec_probe(&["alive"])),
        ..Container::default()
    };
    let first = target(container.clone(), "c1");
    prober.add_container(first.clone());
    assert_eq!(prober.results().get("c1", Kind::Liveness), Some(true));
    assert_eq!(prober.results().get("c1", Kind::Readiness), Some(false));
    assert_eq!(prober.results().get("c1", Kind::Startup), None);
    assert!(!prober.results().started("c1", &first.container));
    for expected in [
        change("c1", Kind::Liveness, Some(true)),
        change("c1", Kind::Readiness, Some(false)),
        change("c1", Kind::Startup, None),
        change("c1", Kind::Startup, Some(true)),
        change("c1", Kind::Readiness, Some(true)),
    ] {
        assert_eq!(changes.recv().await.unwrap(), expected);
    }
    assert!(prober.results().ready("c1", &first.container));
    let asked: Vec<_> = commands.asked.lock().iter().map(|(_, command)| command.clone()).collect();
    assert_eq!(asked[..5], ["started"; 5], "nothing else is asked before it started");
    let warning = |message: &str| Warning { reason: "Unhealthy", message: message.to_owned() };
    assert_eq!(
        warnings.lock()[..],
        [
            warning("Startup probe failed: not yet"),
            warning("Startup probe errored and resulted in unknown state: c")
        ]
    );

    // The same one again is no news, and another ID is.
    prober.add_container(first);
    prober.add_container(target(container, "c2"));
    assert_eq!(prober.results().get("c1", Kind::Readiness), None);
    let mut next = changes.recv().await.unwrap();
    while next.container_id == "c1" {
        next = changes.recv().await.unwrap();
    }
    assert_eq!(next, change("c2", Kind::Liveness, Some(true)));
    assert_eq!(changes.recv().await.unwrap(), change("c2", Kind::Readiness, Some(false)));
}

#[tokio::test(start_paused = true)]
async fn what_was_found_of_a_container_before_this_process_holds_until_a_probe_finds_otherwise() {
    let commands = Commands::new(&[Answer::Exit(1, "not now", "")]);
    let (prober, _) = prober(commands.clone());
    let container = Container {
        startup_probe: Some(exec_probe(&["started"])),
        readiness_probe: Some(Probe { failure_threshold: Some(1), ..exec_probe(&["ready"]) }),
        ..Container::default()
    };
    let with_status = |id: &str, told: &str| {
        let mut target = target(container.clone(), id);
        let status = ToldStatus {
            name: "main".to_owned(),
            container_id: Some(format!("pintle://{told}")),
            ready: true,
            started: Some(true),
            ..ToldStatus::default()
        };
        let status = PodStatus { container_statuses: Some(vec![status]), ..PodStatus::default() };
        target.pod = Arc::new(Pod { status: Some(status), ..Pod::clone(&target.pod) });
        target
    };
    let mut changes = prober.results().changed();
    prober.add_container(with_status("c1", "c1"));
    assert!(prober.results().ready("c1", &container));
    assert_eq!(changes.recv().await.unwrap(), change("c1", Kind::Readiness, Some(true)));
    assert_eq!(changes.recv().await.unwrap(), change("c1", Kind::Startup, Some(true)));
    assert_eq!(changes.recv().await.unwrap(), change("c1", Kind::Readiness, Some(false)));
    let asked: Vec<_> = commands.asked.lock().iter().map(|(_, command)| command.clone()).collect();
    assert_eq!(asked, ["ready"], "it has started");

    prober.add_container(with_status("c2", "c1"));
    assert_eq!(prober.results().get("c2", Kind::Readiness), Some(false), "another container was meant");
    assert_eq!(prober.results().get("c2", Kind::Startup), None);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_not_alive_is_left_alone_after_the_last_failure() {
    let commands = Commands::new(&[Answer::Exit(1, "dead", "")]);
    let (prober, warnings) = prober(commands.clone());
    let mut changes = prober.results().changed();
    let probe = Probe {
        initial_delay_seconds: Some(30),
        period_seconds: Some(5),
        failure_threshold: Some(2),
        ..exec_probe(&["alive"])
    };
    let began_at = rt::instant();
    prober.add_container(target(Container { liveness_probe: Some(probe), ..Container::default() }, "c1"));
    assert_eq!(changes.recv().await.unwrap(), change("c1", Kind::Liveness, Some(true)));
    assert_eq!(changes.recv().await.unwrap(), change("c1", Kind::Liveness, Some(false)));
    let took = began_at.elapsed().as_secs();
    assert!((34..=45).contains(&took), "30 s of delay, one period, up to one of jitter: {took}");
    rt::sleep(Duration::from_secs(100)).await;
    assert_eq!(commands.asked.lock().len(), 2);
    assert_eq!(warnings.lock().len(), 2);
    prober.remove("u1");
    assert_eq!(prober.results().get("c1", Kind::Liveness), None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_is_still_asked_whether_it_is_ready_and_nothing_else() {
    let commands = Commands::new(&[Answer::Exit(1, "no", "")]);
    let (prober, _) = prober(commands.clone());
    let container = Container {
        liveness_probe: Some(exec_probe(&["alive"])),
        readiness_probe: Some(exec_probe(&["ready"])),
        startup_probe: Some(exec_probe(&["started"])),
        ..Container::default()
    };
    prober.add_container(target(container, "c1"));
    prober.stop_liveness("u1");
    assert_eq!(prober.results().get("c1", Kind::Liveness), Some(true));
    assert_eq!(prober.results().get("c1", Kind::Startup), Some(true));
    rt::sleep(Duration::from_secs(60)).await;
    let asked = commands.asked.lock().clone();
    assert!(!asked.is_empty() && asked.iter().all(|(_, command)| command == "ready"), "{asked:?}");
    prober.remove_container("u1", "main");
    rt::sleep(Duration::from_secs(60)).await;
    assert_eq!(commands.asked.lock().len(), asked.len());
    assert_eq!(prober.results().get("c1", Kind::Readiness), None);
}

async fn hook(commands: Arc<Commands>, handler: LifecycleHandler) -> Result<Hooked, HookError> {
    let runtime: runtime::SharedRuntime = commands;
    let (pod, container) = (pod(), Container { name: "main".to_owned(), ..Container::default() });
    let target = HookTarget { pod: &pod, container: &container, container_id: "c1", pod_ip: Some(LOOPBACK) };
    run_hook(&runtime, target, &handler).await
}

#[tokio::test]
async fn a_hook_runs_a_command_and_tells_how_it_failed() {
    let handler =
        || LifecycleHandler { exec: exec_probe(&["save", "all"]).exec, ..LifecycleHandler::default() };
    assert_eq!(hook(Commands::new(&[Answer::Exit(0, "", "")]), handler()).await, Ok(Hooked::default()));
    assert_eq!(
        hook(Commands::new(&[Answer::Exit(3, "out", "err")]), handler()).await,
        Err(HookError(
            "Exec lifecycle hook ([save all]) for Container \"main\" in Pod \"web_shop(u1)\" failed - error: command \
             'save all' exited with 3: err, message: \"outerr\""
                .to_owned()
        ))
    );
    assert_eq!(
        hook(Commands::new(&[Answer::Fail("away")]), handler()).await,
        Err(HookError(
            "Exec lifecycle hook ([save all]) for Container \"main\" in Pod \"web_shop(u1)\" failed - error: away, \
             message: \"\""
                .to_owned()
        ))
    );
    let socket = TCPSocketAction { port: IntOrString::Int(1), ..TCPSocketAction::default() };
    let socket = LifecycleHandler { tcp_socket: Some(socket), ..LifecycleHandler::default() };
    assert!(
        hook(Commands::new(&[]), socket).await.is_err_and(|error| error.0.starts_with("Cannot run handler"))
    );
}

#[tokio::test]
async fn a_hook_over_http_is_content_with_any_answer() {
    let web = Web::start(&[("/", "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")]).await;
    let handler =
        |port| LifecycleHandler { http_get: http_probe(port, "/").http_get, ..LifecycleHandler::default() };
    assert_eq!(hook(Commands::new(&[]), handler(web.port)).await, Ok(Hooked::default()));
    assert!(web.requests.lock()[0].contains("user-agent: kube-lifecycle/1.36"));
    let closed = closed_port().await;
    assert_eq!(
        hook(Commands::new(&[]), handler(closed)).await,
        Err(HookError(format!(
            "HTTP lifecycle hook (/) for Container \"main\" in Pod \"web_shop(u1)\" failed - error: Get \
             \"http://127.0.0.1:{closed}/\": dial tcp 127.0.0.1:{closed}: connect: connection refused"
        )))
    );
}

#[tokio::test]
async fn a_hook_over_https_falls_back_to_http_without_credentials() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _until_the_client_leaves = stream.read_to_end(&mut rest).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap() > 0 {}
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(request).unwrap()
    };
    let mut action = http_probe(port, "/").http_get.unwrap();
    action.scheme = Some("HTTPS".to_owned());
    let header = |name: &str| HTTPHeader { name: name.to_owned(), value: "secret".to_owned() };
    action.http_headers = Some(vec![header("Authorization"), header("X-A")]);
    let handler = LifecycleHandler { http_get: Some(action), ..LifecycleHandler::default() };
    let (hooked, request) = tokio::join!(hook(Commands::new(&[]), handler), serve);
    let fallback = format!(
        "request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry with HTTP succeeded"
    );
    assert_eq!(hooked, Ok(Hooked { fallback: Some(fallback) }));
    assert!(request.contains("x-a: secret") && !request.contains("authorization"), "{request}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_sleeps_takes_its_time() {
    let began_at = rt::instant();
    let handler = LifecycleHandler { sleep: Some(SleepAction { seconds: 7 }), ..LifecycleHandler::default() };
    assert_eq!(hook(Commands::new(&[]), handler).await, Ok(Hooked::default()));
    assert_eq!(began_at.elapsed().as_secs(), 7);
}
