//! One connection: name to address, TCP, TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{TransportProblem, tls};

/// Opens connections for hyper's pool. `https` addresses get TLS.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    /// The name to check the peer's certificate for, where it is not the address.
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    pub(crate) fn new(config: rustls::ClientConfig, server_name: Option<ServerName<'static>>) -> Self {
        Self { tls: TlsConnector::from(Arc::new(config)), server_name }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, TransportProblem> {
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = dial(&host, port).await?;
        if !secure {
            return Ok(TokioIo::new(Stream::Plain(tcp)));
        }
        let name = match self.server_name {
            Some(name) => name,
            None => {
                ServerName::try_from(host).map_err(|error| TransportProblem::Tls(format!("tls: {error}")))?
            }
        };
        let stream = self.tls.connect(name, tcp).await.map_err(|error| handshake_problem(&error))?;
        Ok(TokioIo::new(Stream::Tls(Box::new(stream))))
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, TransportProblem> {
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|_| TransportProblem::NoSuchHost { host: host.to_owned() })?;
    let mut problem = TransportProblem::NoSuchHost { host: host.to_owned() };
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                // Calls are short and waited for; a socket that refuses the option works without it.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Err(error) => {
                let (address, source) = (address.to_string(), Arc::new(error));
                problem = TransportProblem::Dial { address, source };
            }
        }
    }
    Err(problem)
}

fn handshake_problem(error: &io::Error) -> TransportProblem {
    match error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>()) {
        Some(error) => tls::problem(error),
        None => io_problem(error),
    }
}

/// A connection that broke, as Go sees it.
pub(crate) fn io_problem(error: &io::Error) -> TransportProblem {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => TransportProblem::Closed,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => TransportProblem::Reset,
        _ => TransportProblem::Other(error.to_string()),
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = TransportProblem;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connected socket, with TLS or without.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, ctx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(ctx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(ctx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, ctx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(ctx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(ctx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(ctx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(ctx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(ctx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(ctx),
        }
    }
}
