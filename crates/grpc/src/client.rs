//! Calls to a server.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camino::Utf8PathBuf;
use futures::{Stream, StreamExt};
use http::{HeaderValue, Method, Uri, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::{TcpStream, UnixStream};

use crate::executor::Executor;
use crate::frame::{self, Decoder, MESSAGE_BYTES_MAX};
use crate::status::{Code, Status};
use crate::timeout::{self, TIMEOUT_HEADER};

pub(crate) const CONTENT_TYPE: &str = "application/grpc";

/// A server that does not finish a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A call is made again on a fresh connection this often, where the old one closed before the call was sent.
const ATTEMPTS_MAX: usize = 2;

/// Windows of a connection and of each stream on it; both sides are on one machine.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

type RequestBody = UnsyncBoxBody<Bytes, Status>;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Unix(Utf8PathBuf),
    /// `host:port`
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(formatter, "unix {path}"),
            Endpoint::Tcp(authority) => write!(formatter, "tcp {authority}"),
        }
    }
}

/// What one call may take.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Of the whole call, the connection included; `None` for no limit. The server is told.
    pub timeout: Option<Duration>,
    /// The largest answer that is taken.
    pub message_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { timeout: None, message_bytes_max: MESSAGE_BYTES_MAX }
    }
}

impl Options {
    pub fn timeout(timeout: Duration) -> Options {
        Options { timeout: Some(timeout), ..Options::default() }
    }
}

/// A connection to one server, made at the first call and again after it broke. Clones share it.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    user_agent: HeaderValue,
    connection: Mutex<Option<http2::SendRequest<RequestBody>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}

impl Client {
    pub fn new(endpoint: Endpoint) -> Client {
        Client::with_user_agent(endpoint, HeaderValue::from_static("grpc-pintle"))
    }

    pub fn with_user_agent(endpoint: Endpoint, user_agent: HeaderValue) -> Client {
        Client { shared: Arc::new(Shared { endpoint, user_agent, connection: Mutex::new(None) }) }
    }

    pub fn unix(path: impl Into<Utf8PathBuf>) -> Client {
        Client::new(Endpoint::Unix(path.into()))
    }

    pub fn tcp(authority: impl Into<String>) -> Client {
        Client::new(Endpoint::Tcp(authority.into()))
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Makes the connection now, where there is none.
    pub async fn connect(&self) -> Result<(), Status> {
        self.shared.connection().await.map(drop)
    }

    /// One message there, one back. `path` is `/package.Service/Method`.
    pub async fn unary<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        request: &Q,
        options: Options,
    ) -> Result<A, Status> {
        let within = options.timeout;
        let call = async {
            let mut answers = self.server_streaming(path, request, options).await?;
            let answer = answers.message().await?;
            let answer = answer
                .ok_or_else(|| Status::new(Code::Internal, "the server sent no message and no error"))?;
            match answers.message().await? {
                None => Ok(answer),
                Some(_) => Err(Status::new(Code::Internal, "the server sent more than one message")),
            }
        };
        deadline(within, call).await
    }

    /// One message there, any number back. The timeout is for the whole of the stream.
    pub async fn server_streaming<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        request: &Q,
        options: Options,
    ) -> Result<Streaming<A>, Status> {
        let body = Full::new(frame::encode(request)).map_err(|never| match never {}).boxed_unsync();
        self.call(path, body, options).await
    }

    /// Any number there, any number back. The call's side ends with `requests`.
    pub async fn streaming<Q, A, S>(
        &self,
        path: &str,
        requests: S,
        options: Options,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default,
        S: Stream<Item = Q> + Send + 'static,
    {
        let frames = requests.map(|request| Ok(Frame::data(frame::encode(&request))));
        self.call(path, StreamBody::new(frames).boxed_unsync(), options).await
    }

    async fn call<A>(&self, path: &str, body: RequestBody, options: Options) -> Result<Streaming<A>, Status> {
        let ends_at = options.timeout.map(|timeout| rt::instant() + timeout);
        let request = self.shared.request(path, body, options.timeout)?;
        let response = deadline(options.timeout, self.shared.send(request)).await?;
        let (head, body) = response.into_parts();
        if let Some(outcome) = Status::read(&head.headers) {
            // There is no body, and this is the end already.
            outcome?;
            return Ok(Streaming { body: None, ..Streaming::new(body, options, ends_at) });
        }
        let content_type =
            head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if head.status != http::StatusCode::OK {
            return Err(Status::of_http(head.status));
        }
        if !content_type.starts_with(CONTENT_TYPE) {
            return Err(Status::new(
                Code::Unknown,
                format!("unexpected content-type \"{content_type}\" in an answer"),
            ));
        }
        Ok(Streaming::new(body, options, ends_at))
    }
}

impl Shared {
    fn request(
        &self,
        path: &str,
        body: RequestBody,
        timeout: Option<Duration>,
    ) -> Result<http::Request<RequestBody>, Status> {
        let authority = match &self.endpoint {
            Endpoint::Unix(_) => "localhost",
            Endpoint::Tcp(authority) => authority,
        };
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
        let uri = uri.map_err(|error| {
            Status::new(Code::Internal, format!("{authority}{path} cannot be called: {error}"))
        })?;
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        if let Some(timeout) = timeout {
            let text = timeout::encode(timeout);
            headers.insert(TIMEOUT_HEADER, text.parse().expect("digits and a letter"));
        }
        Ok(request)
    }

    async fn send(
        &self,
        mut request: http::Request<RequestBody>,
    ) -> Result<http::Response<Incoming>, Status> {
        for attempt in 1.. {
            let mut connection = self.connection().await?;
            match connection.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) if attempt < ATTEMPTS_MAX => request = unsent,
                    _ => return Err(Status::of_transport(refused.error())),
                },
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The connection that is open, or a new one. Where two callers find none, both make one, and one is kept.
    async fn connection(&self) -> Result<http2::SendRequest<RequestBody>, Status> {
        let open = self.connection.lock().clone();
        if let Some(mut open) = open
            && open.ready().await.is_ok()
        {
            return Ok(open);
        }
        let made = rt::timeout(CONNECT_TIMEOUT, self.dial())
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")));
        let made = made.map_err(|error| {
            let endpoint = &self.endpoint;
            let message = format!(
                "connection error: desc = \"transport: Error while dialing: dial {endpoint}: {}\"",
                dial_text(&error)
            );
            Status::new(Code::Unavailable, message)
        })?;
        *self.connection.lock() = Some(made.clone());
        Ok(made)
    }

    async fn dial(&self) -> io::Result<http2::SendRequest<RequestBody>> {
        match &self.endpoint {
            Endpoint::Unix(path) => handshake(UnixStream::connect(path).await?).await,
            Endpoint::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                handshake(stream).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<http2::SendRequest<RequestBody>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(Executor)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    drop(rt::spawn("grpc client", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "A gRPC connection ended");
        }
    }));
    Ok(sender)
}

/// An error of a dial in Go's words: `connect: no such file or directory`.
fn dial_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => format!("connect: {}", words.to_lowercase()),
        None => text,
    }
}

async fn deadline<T>(
    timeout: Option<Duration>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match timeout {
        Some(timeout) => rt::timeout(timeout, call).await.unwrap_or_else(|_| Err(Status::deadline())),
        None => call.await,
    }
}

/// The messages of the other side. Where it is a server's, dropping it cancels the call.
pub struct Streaming<A> {
    /// `None` once the end was seen.
    body: Option<Incoming>,
    decoder: Decoder,
    ends_at: Option<rt::Instant>,
    /// An answer ends with a status in trailers, a request just ends.
    status_follows: bool,
    message: PhantomData<fn() -> A>,
}

impl<A> fmt::Debug for Streaming<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Streaming").field("ended", &self.body.is_none()).finish_non_exhaustive()
    }
}

impl<A> Streaming<A> {
    fn new(body: Incoming, options: Options, ends_at: Option<rt::Instant>) -> Streaming<A> {
        let decoder = Decoder::new(options.message_bytes_max);
        Streaming { body: Some(body), decoder, ends_at, status_follows: true, message: PhantomData }
    }

    /// What a client sends to a server of ours.
    pub(crate) fn of_request(body: Incoming, message_bytes_max: usize) -> Streaming<A> {
        let options = Options { timeout: None, message_bytes_max };
        Streaming { status_follows: false, ..Streaming::new(body, options, None) }
    }
}

impl<A: Message + Default> Streaming<A> {
    /// The next one; `None` after the last, where the server ended the call without an error.
    pub async fn message(&mut self) -> Result<Option<A>, Status> {
        let answer = match self.ends_at {
            Some(_) if self.body.is_none() => Ok(None),
            Some(ends_at) => {
                let timeout = ends_at.saturating_duration_since(rt::instant());
                rt::timeout(timeout, self.receive()).await.unwrap_or_else(|_| Err(Status::deadline()))
            }
            None => self.receive().await,
        };
        if !matches!(answer, Ok(Some(_))) {
            self.body = None;
        }
        answer
    }

    async fn receive(&mut self) -> Result<Option<A>, Status> {
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(Some(message));
            }
            let Some(piece) = body.frame().await else {
                if self.status_follows {
                    return Err(Status::new(
                        Code::Internal,
                        "server closed the stream without sending trailers",
                    ));
                }
                return self.end();
            };
            let piece = piece.map_err(|error| Status::of_transport(&error))?;
            match piece.into_data() {
                Ok(data) => self.decoder.push(&data),
                Err(other) => {
                    let Ok(trailers) = other.into_trailers() else { continue };
                    match Status::read(&trailers) {
                        Some(outcome) => outcome?,
                        None if self.status_follows => {
                            return Err(Status::new(Code::Unknown, "the server's trailers have no status"));
                        }
                        None => {}
                    }
                    return self.end();
                }
            }
        }
    }

    fn end(&self) -> Result<Option<A>, Status> {
        if self.decoder.is_empty() {
            Ok(None)
        } else {
            Err(Status::new(Code::Internal, "the stream ended inside a message"))
        }
    }
}
