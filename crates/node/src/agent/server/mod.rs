//! The kubelet's API: logs, exec, attach, port-forward, statistics.
//!
//! Owns: the HTTPS listener of a node ([`Server`]), who may do what there ([`access`]), what a path means ([`route`]),
//! and containers' logs on disk ([`logs`]). Never touches: the pods themselves, which [`Pods`] knows, and containers,
//! which a [`runtime::Runtime`] has. Who asks is nearly always the API server, on behalf of somebody else.
//!
//! Data flow: accept → TLS (client certificate optional) → route → authenticate → authorize → answer. Exec, attach and
//! port-forward go on in tasks of crate `streaming`; a log that is followed is a task that ends with its reader.

pub mod access;
mod answer;
mod container_log;
mod handler;
pub mod logs;
mod node_log;
pub mod pods;
mod query;
pub mod route;
mod streams;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use runtime::SharedRuntime;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::stats::Stats;
use access::Access;
use handler::Handler;
use logs::watch::Watches;
pub use pods::{PodView, Pods};

/// A client has this long to finish its TLS handshake and to send a request's head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// Requests that are under way at shutdown have this long to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// After so much silence the kernel asks whether a client is still there, so that exec does not outlive it for hours.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Text of metrics that others have.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Everything that requests are answered from.
pub struct Parts {
    pub node_name: String,
    pub pods: Arc<dyn Pods>,
    pub runtime: SharedRuntime,
    pub access: Access,
    pub stats: Arc<Stats>,
    /// What is wrong with the agent, for `/healthz`.
    pub health: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// The agent's `KubeletConfiguration`, for `/configz`.
    pub configuration: serde_json::Value,
    /// `/metrics/probes`.
    pub probe_metrics: MetricsText,
    /// What `/logs/` shows: `/var/log`; `None` where that is disabled (`enableSystemLogHandler: false`).
    pub node_logs: Option<Utf8PathBuf>,
    /// `streamingConnectionIdleTimeout`; upstream's default is four hours.
    pub streaming_idle_timeout: Duration,
}

/// An HTTPS listener that is bound but not yet serving.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
}

impl Server {
    /// `tls` asks clients for certificates and takes those without one, as [`pki::server_config`] makes it; what a
    /// certificate is worth is decided by [`Access`]. Must be called inside a Tokio runtime. Connections that were handed
    /// over to exec and the like end with `shutdown`.
    pub fn new(
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        parts: Parts,
        shutdown: rt::Shutdown,
    ) -> std::io::Result<Self> {
        let watches = Arc::new(Watches::new()?);
        let handler = Arc::new(Handler::new(parts, watches, shutdown));
        Ok(Self { listener, acceptor: TlsAcceptor::from(tls), handler })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the shutdown that it was made with, then drains.
    pub async fn run(self) {
        let shutdown = self.handler.shutdown().clone();
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (acceptor, handler) = (self.acceptor.clone(), self.handler.clone());
                    connections.spawn(serve(acceptor, handler, stream, address));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to be closed instead of spinning.
                    tracing::warn!(%error, "Could not accept a connection");
                    rt::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        connections.close();
        if rt::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::debug!(left = connections.len(), "Connections were cut at shutdown");
        }
    }
}

async fn serve(acceptor: TlsAcceptor, handler: Arc<Handler>, stream: TcpStream, address: SocketAddr) {
    // Small answers should not wait for more to come.
    let _ = stream.set_nodelay(true);
    if let Err(error) = keep_alive(&stream) {
        tracing::debug!(peer = %address, %error, "Could not turn on keep-alive");
    }
    let stream = match rt::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(peer = %address, %error, "TLS handshake failed"),
        Err(_) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates: Arc<[_]> =
        certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let shutdown = handler.shutdown().clone();
    let service = service_fn(move |request| {
        let (handler, certificates) = (handler.clone(), certificates.clone());
        async move { Ok::<_, Infallible>(handler.handle(&certificates, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).half_close(false);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %address, %error, "Connection ended early");
    }
}

fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE / 3)?;
    Ok(sockopt::set_tcp_keepcnt(stream, 3)?)
}
