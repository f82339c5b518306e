//! As much of an API server as `kubectl exec`, `attach`, `port-forward` and `cp` ask, with processes of this machine in
//! place of containers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streaming::exec::{Streams, Wanted};
use streaming::status::Outcome;
use streaming::{Limits, exec, port_forward};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

type Upgrades = Arc<Mutex<BTreeSet<String>>>;

/// Where it listens, until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    /// What clients asked to speak, and on which terms.
    upgrades: Upgrades,
    shutdown: rt::Shutdown,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = rt::Shutdown::new();
        let limits = Limits::new(shutdown.clone());
        let upgrades = Upgrades::default();
        let recorded = upgrades.clone();
        let accepting = async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (limits, recorded) = (limits.clone(), recorded.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    if let Some(protocol) = request.headers().get(header::UPGRADE) {
                        recorded.lock().insert(protocol.to_str().unwrap().to_ascii_lowercase());
                    }
                    let answer = answer(request, limits.clone());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                let connection = builder.serve_connection(TokioIo::new(socket), service).with_upgrades();
                rt::spawn("connection", async move {
                    let _ = connection.await;
                });
            }
        };
        let ended = shutdown.clone();
        rt::spawn("server", async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = accepting => {}
            }
        });
        Self { address, upgrades, shutdown }
    }

    /// The protocols that clients upgraded to.
    pub fn upgrades(&self) -> Vec<String> {
        self.upgrades.lock().iter().cloned().collect()
    }
}

fn answer(request: Request<Incoming>, limits: Limits) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let query: Vec<(String, String)> =
        request.uri().query().unwrap_or_default().split('&').filter_map(parameter).collect();
    match path.as_str() {
        "/version" => json_answer(&json!({"major": "1", "minor": "33", "gitVersion": "v1.33.1"})),
        "/api" => json_answer(&json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => json_answer(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        "/api/v1" => json_answer(&resources()),
        "/api/v1/namespaces/default/pods/p" => json_answer(&pod()),
        "/api/v1/namespaces/default/pods/p/exec" => {
            let command =
                query.iter().filter(|(name, _)| name == "command").map(|(_, word)| word.clone()).collect();
            let wanted = wanted(&query);
            exec::serve(request, wanted, limits, move |streams| run(command, streams))
        }
        "/api/v1/namespaces/default/pods/p/attach" => {
            let command = vec!["sh".to_owned(), "-c".to_owned(), "echo attached; exec cat".to_owned()];
            exec::serve(request, wanted(&query), limits, move |streams| run(command, streams))
        }
        "/api/v1/namespaces/default/pods/p/portforward" => {
            port_forward::serve(request, &[], "p".to_owned(), limits, |port| async move {
                match port {
                    1 => Err(std::io::Error::other("nobody is at home")),
                    _ => TcpStream::connect(("127.0.0.1", port)).await,
                }
            })
        }
        _ => {
            let mut answer = json_answer(&json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "reason": "NotFound", "code": 404, "message": path}));
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            answer
        }
    }
}

fn wanted(query: &[(String, String)]) -> Wanted {
    let flag = |wanted: &str| query.iter().any(|(name, value)| name == wanted && value == "true");
    Wanted { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr"), tty: flag("tty") }
}

/// Runs a command with the client's streams; `size` tells the terminal's.
async fn run(command: Vec<String>, mut streams: Streams) -> Outcome {
    if command[0] == "size" {
        let (Some(mut resizes), Some(mut stdout)) = (streams.resizes, streams.stdout) else {
            return Outcome::Failure("no terminal".to_owned());
        };
        let size = resizes.next().await.unwrap();
        let _ = stdout.write_all(format!("{}x{}\r\n", size.width, size.height).as_bytes()).await;
        return Outcome::Success;
    }
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).kill_on_drop(true);
    process.stdin(if streams.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    process.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match process.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Failure(format!("error executing command in container: {error}")),
    };
    if let (Some(mut from), Some(mut to)) = (streams.stdin.take(), child.stdin.take()) {
        rt::spawn("stdin", async move {
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
    let stdout = copy(child.stdout.take(), streams.stdout);
    let stderr = copy(child.stderr.take(), streams.stderr);
    tokio::join!(stdout, stderr);
    Outcome::of_exit(child.wait().await.unwrap().code().unwrap_or(137))
}

async fn copy<R: tokio::io::AsyncRead + Unpin>(from: Option<R>, to: Option<streaming::StreamWriter>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        let _ = tokio::io::copy(&mut from, &mut to).await;
    }
}

fn parameter(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (code, after) = rest.split_at(2);
                rest = after;
                u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?
            }
            other => *other,
        });
    }
    Some((name.to_owned(), String::from_utf8(bytes).ok()?))
}

fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

fn resources() -> Value {
    let pods = |name: &str, kind: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs});
    json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
        pods("pods", "Pod", &["get", "list"]),
        pods("pods/exec", "PodExecOptions", &["create", "get"]),
        pods("pods/attach", "PodAttachOptions", &["create", "get"]),
        pods("pods/portforward", "PodPortForwardOptions", &["create", "get"]),
    ]})
}

fn pod() -> Value {
    let container = json!({"name": "c", "image": "i", "stdin": true, "tty": true});
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n", "containers": [container]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}}]}})
}

/// A server that says what it heard, and then `bye`, once its client has nothing more to say.
pub async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Arc::new(listener);
    rt::spawn("echo", async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            rt::spawn("echo connection", async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.write_all(b"bye").await;
            });
        }
    });
    address
}
