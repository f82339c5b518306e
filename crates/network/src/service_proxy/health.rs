//! Health checks: a load balancer outside asks whether this node has endpoints of a Service.
//!
//! Owns: one small HTTP server for each Service with a `healthCheckNodePort`. Never touches: rules.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::ObjectKey;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rt::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use super::plan::HealthCheck;

/// Requests that one Service's server answers at a time; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// A connection has this long for its request and our answer.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// After an accept that failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    local_endpoints: usize,
    /// The rules are what they should be.
    proxy_healthy: bool,
}

struct Server {
    port: u16,
    state: watch::Sender<State>,
    shutdown: Shutdown,
}

/// The servers that run now.
#[derive(Default)]
pub(super) struct HealthServers {
    servers: HashMap<ObjectKey, Server>,
    shutdown: Shutdown,
}

impl HealthServers {
    pub(super) fn new(shutdown: &Shutdown) -> Self {
        Self { servers: HashMap::new(), shutdown: shutdown.child_token() }
    }

    /// Makes the servers those that are wanted. A port that is taken is tried again with the next call.
    pub(super) async fn update(&mut self, wanted: HashMap<ObjectKey, HealthCheck>, proxy_healthy: bool) {
        self.servers.retain(|key, server| {
            let keep = wanted.get(key).is_some_and(|check| check.port == server.port);
            if !keep {
                server.shutdown.cancel();
            }
            keep
        });
        for (key, check) in wanted {
            let state = State { local_endpoints: check.local_endpoints, proxy_healthy };
            if let Some(server) = self.servers.get(&key) {
                server.state.send_replace(state);
                continue;
            }
            match listen(check.port).await {
                Ok(listener) => {
                    let (sender, receiver) = watch::channel(state);
                    let shutdown = self.shutdown.child_token();
                    rt::spawn(
                        "service-health",
                        serve(listener, Arc::new(key.clone()), receiver, shutdown.clone()),
                    );
                    self.servers.insert(key, Server { port: check.port, state: sender, shutdown });
                }
                Err(error) => {
                    warn!(service = %key, port = check.port, %error, "Health check port not opened");
                }
            }
        }
    }
}

impl Drop for HealthServers {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// On every address; on those of IPv4 where there is no IPv6.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        result => result,
    }
}

async fn serve(
    listener: TcpListener,
    service: Arc<ObjectKey>,
    state: watch::Receiver<State>,
    shutdown: Shutdown,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (service, state) = (service.clone(), state.clone());
                rt::spawn("service-health-connection", async move {
                    let _place = place;
                    answer_connection(stream, &service, &state).await;
                });
            }
            Err(error) => {
                warn!(service = %service, %error, "Health check connection not accepted");
                rt::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer_connection(stream: TcpStream, service: &ObjectKey, state: &watch::Receiver<State>) {
    let handler = service_fn(|_request: Request<hyper::body::Incoming>| {
        let response = answer(service, *state.borrow());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), handler);
    match rt::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(service = %service, %error, "Health check connection ended"),
        Err(_) => debug!(service = %service, "Health check connection took too long"),
    }
}

fn answer(service: &ObjectKey, state: State) -> Response<Full<Bytes>> {
    let State { local_endpoints, proxy_healthy } = state;
    let body = serde_json::json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": proxy_healthy,
    });
    let mut response = Response::new(Full::new(body.to_string().into()));
    if local_endpoints == 0 || !proxy_healthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    headers.insert(WEIGHT, HeaderValue::from(local_endpoints));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(port: u16) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_node_says_how_many_endpoints_it_has_until_nobody_asks_for_it() {
        let free = listen(0).await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let shutdown = Shutdown::new();
        let mut servers = HealthServers::new(&shutdown);
        let key = ObjectKey::new("ns", "web");
        for (local_endpoints, healthy, status) in [(2, true, "200"), (0, true, "503"), (1, false, "503")] {
            let check = HealthCheck { port, local_endpoints };
            servers.update(HashMap::from([(key.clone(), check)]), healthy).await;
            let answer = get(port).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(
                answer.contains(&format!("x-load-balancing-endpoint-weight: {local_endpoints}\r\n")),
                "{answer}"
            );
            let body: serde_json::Value =
                serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
            let wanted = serde_json::json!({
                "service": {"namespace": "ns", "name": "web"},
                "localEndpoints": local_endpoints, "serviceProxyHealthy": healthy,
            });
            assert_eq!(body, wanted);
        }
        servers.update(HashMap::new(), true).await;
        // The listener's task ends on its own; whoever still gets through is the last.
        let closed = async {
            while get(port).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        rt::timeout(Duration::from_secs(5), closed).await.expect("the port is closed");
    }
}
