//! TLS, connections and their end.
//!
//! Data flow: accept → TLS handshake (client certificate optional) → HTTP/1.1 or HTTP/2 by ALPN → [`super::handler`].
//! On shutdown no connection is accepted any more, watches end, and what is being answered is finished.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::handler::{Handler, Peer};

/// A client has this long to finish its TLS handshake and to send a request's head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// Requests that are under way at shutdown have this long to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of one HTTP/2 connection at a time; upstream's `--http2-max-streams-per-connection`.
const HTTP2_STREAMS_MAX: u32 = 250;
/// Pings find dead peers behind which watches would otherwise linger.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// An HTTPS listener that is bound but not yet serving.
pub struct HttpsServer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
}

impl HttpsServer {
    pub fn new(listener: TcpListener, tls: Arc<rustls::ServerConfig>, handler: Arc<Handler>) -> Self {
        Self { listener, acceptor: TlsAcceptor::from(tls), handler }
    }

    /// Serves until `shutdown`, then drains.
    pub async fn run(self, shutdown: rt::Shutdown) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let connection = Connection {
                        acceptor: self.acceptor.clone(),
                        handler: self.handler.clone(),
                        address,
                        shutdown: shutdown.clone(),
                    };
                    connections.spawn(connection.serve(stream));
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

struct Connection {
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    address: SocketAddr,
    shutdown: rt::Shutdown,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // Small answers should not wait for more to come.
        let _ = stream.set_nodelay(true);
        let handshake = rt::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                telemetry::metrics().apiserver.tls_handshake_failed();
                tracing::debug!(peer = %self.address, %error, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Arc::new(Peer::new(self.address, certificates));
        let handler = self.handler.clone();
        let service = service_fn(move |request| {
            let (handler, peer) = (handler.clone(), peer.clone());
            async move { Ok::<_, Infallible>(handler.handle(&peer, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).half_close(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .adaptive_window(false)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(peer = %self.address, %error, "Connection ended early");
        }
    }
}
