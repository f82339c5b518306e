//! A registry that serves one image of a store and misbehaves as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use image::{Digest, Store};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const TOKEN: &str = "a-token";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `user:right`.
const BASIC: &str = "Basic dXNlcjpyaWdodA==";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Open,
    Basic,
    Token,
}

#[derive(Clone, Default)]
pub struct Behaviour {
    pub access: Access,
    /// A blob's connection breaks after so many bytes.
    pub break_after: Option<usize>,
    /// So often; 0 is always.
    pub breaks: usize,
    pub ignores_ranges: bool,
    /// So many requests fail.
    pub failures: usize,
    pub corrupts: bool,
    pub stalls: bool,
    pub redirects_to: Option<String>,
    /// Architectures that the image is there for; none for no index.
    pub index: Vec<String>,
}

struct Seen {
    line: String,
    range_start: Option<u64>,
    has_authorization: bool,
}

struct State {
    blobs: Utf8PathBuf,
    manifest: String,
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
}

pub struct Fake {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl Fake {
    pub async fn start(source: &Store) -> Self {
        let blobs = source.root().join("blobs/sha256");
        let state = Arc::new(State {
            manifest: manifest_of(&blobs),
            blobs,
            behaviour: Mutex::default(),
            seen: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        let task = rt::spawn("fake registry", async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = shared.clone();
                rt::spawn("fake registry's connection", async move {
                    let service = service_fn(move |request| {
                        let answer = shared.answer(address, request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { address, state, task }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.behaviour.lock());
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        let seen = self.state.seen.lock();
        seen.iter().filter(|seen| seen.line.starts_with(method) && seen.line.contains(part)).count()
    }

    pub fn range_starts(&self) -> Vec<u64> {
        self.state.seen.lock().iter().filter_map(|seen| seen.range_start).collect()
    }

    pub fn saw_authorization(&self) -> bool {
        self.state.seen.lock().iter().any(|seen| seen.has_authorization)
    }

    /// What the tag means.
    pub fn top(&self) -> Digest {
        Digest::of(&self.state.top().0)
    }
}

/// The one blob that is a manifest.
fn manifest_of(blobs: &Utf8Path) -> String {
    let is_manifest = |path: &std::path::Path| {
        serde_json::from_slice::<Value>(&std::fs::read(path).unwrap())
            .is_ok_and(|value| value["layers"].is_array())
    };
    let mut paths = std::fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().path());
    let path = paths.find(|path| is_manifest(path)).expect("the store has an image");
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl State {
    fn top(&self) -> (Vec<u8>, &'static str) {
        let manifest = std::fs::read(self.blobs.join(&self.manifest)).unwrap();
        let architectures = self.behaviour.lock().index.clone();
        if architectures.is_empty() {
            return (manifest, MANIFEST);
        }
        let entries: Vec<Value> = architectures
            .iter()
            .map(|architecture| {
                json!({
                    "mediaType": MANIFEST,
                    "digest": format!("sha256:{}", self.manifest),
                    "size": manifest.len(),
                    "platform": {"os": "linux", "architecture": architecture},
                })
            })
            .collect();
        (
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes(),
            INDEX,
        )
    }

    fn answer(&self, address: SocketAddr, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let range_start: Option<u64> = header(RANGE)
            .map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap());
        let authorization = header(AUTHORIZATION);
        self.seen.lock().push(Seen {
            line: format!("{} {}", request.method(), request.uri()),
            range_start,
            has_authorization: authorization.is_some(),
        });
        let mut behaviour = self.behaviour.lock().clone();
        if path == "/token" {
            // Who asks by identity posts it, and this one knows everybody.
            let is_known = authorization.as_deref() == Some(BASIC) || request.method() == Method::POST;
            return if is_known {
                plain(StatusCode::OK, json!({"token": TOKEN}).to_string())
            } else {
                plain(StatusCode::UNAUTHORIZED, "")
            };
        }
        if behaviour.failures > 0 {
            behaviour.failures -= 1;
            self.behaviour.lock().failures = behaviour.failures;
            return plain(StatusCode::SERVICE_UNAVAILABLE, "");
        }
        let (wanted, challenge) = match behaviour.access {
            Access::Open => (None, String::new()),
            Access::Basic => (Some(BASIC.to_owned()), "Basic realm=\"here\"".to_owned()),
            Access::Token => (
                Some(format!("Bearer {TOKEN}")),
                format!(
                    "Bearer realm=\"http://{address}/token\",service=\"here\",scope=\"repository:app:pull\""
                ),
            ),
        };
        if wanted.is_some() && authorization != wanted {
            let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]});
            let mut response = plain(StatusCode::UNAUTHORIZED, body.to_string());
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
            return response;
        }
        let Some(rest) = path.strip_prefix("/v2/app/") else { return plain(StatusCode::NOT_FOUND, "") };
        if let Some(selector) = rest.strip_prefix("manifests/") {
            let own = format!("sha256:{}", self.manifest);
            let (bytes, kind) = if selector == own {
                (std::fs::read(self.blobs.join(&self.manifest)).unwrap(), MANIFEST)
            } else {
                self.top()
            };
            let digest = Digest::of(&bytes).to_string();
            let bytes = if request.method() == Method::HEAD { Vec::new() } else { bytes };
            let mut response = plain(StatusCode::OK, bytes);
            response.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
            response.headers_mut().insert("docker-content-digest", digest.parse().unwrap());
            return response;
        }
        let Some(hex) = rest.strip_prefix("blobs/sha256:") else { return plain(StatusCode::NOT_FOUND, "") };
        if let Some(elsewhere) = &behaviour.redirects_to {
            let mut response = plain(StatusCode::TEMPORARY_REDIRECT, "");
            response.headers_mut().insert(LOCATION, format!("http://{elsewhere}{path}").parse().unwrap());
            return response;
        }
        self.blob(hex, range_start, &behaviour)
    }

    fn blob(&self, hex: &str, range_start: Option<u64>, behaviour: &Behaviour) -> Response<Body> {
        let mut bytes = std::fs::read(self.blobs.join(hex)).unwrap();
        let size = bytes.len();
        if behaviour.corrupts {
            bytes[size / 2] ^= 1;
        }
        let start = range_start.filter(|_| !behaviour.ignores_ranges);
        let mut rest = bytes.split_off(start.unwrap_or(0) as usize);
        let mut ends: Vec<Option<std::io::Error>> = Vec::new();
        let mut hangs = false;
        if behaviour.stalls && rest.len() > 1000 {
            rest.truncate(1000);
            hangs = true;
        } else if let Some(after) = behaviour.break_after
            && rest.len() > after
        {
            rest.truncate(after);
            ends.push(Some(std::io::Error::other("broken")));
            if behaviour.breaks > 0 {
                let mut own = self.behaviour.lock();
                own.breaks -= 1;
                if own.breaks == 0 {
                    own.break_after = None;
                }
            }
        }
        let parts: Vec<std::io::Result<Frame<Bytes>>> = rest
            .chunks(50_000)
            .map(|part| Ok(Frame::data(Bytes::copy_from_slice(part))))
            .chain(ends.into_iter().flatten().map(Err))
            .collect();
        let parts = futures::stream::iter(parts);
        let body = if hangs {
            StreamBody::new(parts.chain(futures::stream::pending())).boxed_unsync()
        } else {
            // What was sent before a break arrives before it.
            let slow = parts.then(|part| async move {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                part
            });
            StreamBody::new(slow).boxed_unsync()
        };
        let mut response = Response::new(body);
        if let Some(start) = start {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{size}", size - 1);
            response.headers_mut().insert(CONTENT_RANGE, range.parse().unwrap());
        }
        response
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let body = http_body_util::Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
