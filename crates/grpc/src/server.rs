//! A small server: methods by path, over a Unix socket or TCP.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::client::{CONTENT_TYPE, Streaming};
use crate::executor::Executor;
use crate::frame::{self, MESSAGE_BYTES_MAX};
use crate::status::{Code, Status};
use crate::timeout::{self, TIMEOUT_HEADER};

/// Who connects while this many are connected waits.
const CONNECTIONS_MAX: usize = 128;

/// Calls at a time on one connection.
const STREAMS_MAX: u32 = 256;

/// After an accept that failed for want of something (descriptors, memory).
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

type Answers = BoxStream<'static, Result<Bytes, Status>>;
type Handler =
    Arc<dyn Fn(Incoming) -> Pin<Box<dyn Future<Output = Result<Answers, Status>> + Send>> + Send + Sync>;
type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// Which method is served by what. Paths are `/package.Service/Method`.
#[derive(Clone, Default)]
pub struct Router {
    handlers: HashMap<&'static str, Handler>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.handlers.keys()).finish()
    }
}

impl Router {
    pub fn new() -> Router {
        Router::default()
    }

    /// One message comes, one goes.
    #[must_use]
    pub fn unary<Q, A, H, F>(self, path: &'static str, handler: H) -> Router
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        H: Fn(Q) -> F + Send + Sync + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        self.server_streaming(path, move |request| {
            let answer = handler(request);
            async move {
                let answer = answer.await?;
                Ok(futures::stream::once(async move { Ok(answer) }))
            }
        })
    }

    /// One message comes, any number go.
    #[must_use]
    pub fn server_streaming<Q, A, S, H, F>(self, path: &'static str, handler: H) -> Router
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        S: Stream<Item = Result<A, Status>> + Send + 'static,
        H: Fn(Q) -> F + Send + Sync + 'static,
        F: Future<Output = Result<S, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.streaming(path, move |mut requests: Streaming<Q>| {
            let handler = handler.clone();
            async move {
                let request = requests.message().await?;
                let request =
                    request.ok_or_else(|| Status::new(Code::Internal, "the client sent no message"))?;
                handler(request).await
            }
        })
    }

    /// Any number of messages come, any number go.
    #[must_use]
    pub fn streaming<Q, A, S, H, F>(mut self, path: &'static str, handler: H) -> Router
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        S: Stream<Item = Result<A, Status>> + Send + 'static,
        H: Fn(Streaming<Q>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<S, Status>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |body| {
            let answers = handler(Streaming::of_request(body, MESSAGE_BYTES_MAX));
            Box::pin(async move {
                let answers = answers.await?;
                Ok(answers.map(|answer| answer.map(|message| frame::encode(&message))).boxed())
            })
        });
        self.handlers.insert(path, handler);
        self
    }

    async fn answer(&self, request: http::Request<Incoming>) -> http::Response<ResponseBody> {
        let (head, body) = request.into_parts();
        let content_type =
            head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if head.method != Method::POST || !content_type.starts_with(CONTENT_TYPE) {
            let mut response = http::Response::new(Empty::new().boxed_unsync());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let timeout =
            head.headers.get(TIMEOUT_HEADER).and_then(|value| timeout::decode(value.to_str().ok()?));
        let ends_at = timeout.map(|timeout| rt::instant() + timeout);
        let answers = match self.handlers.get(head.uri.path()) {
            Some(handler) => before(ends_at, handler(body)).await.and_then(|answers| answers),
            None => Err(Status::new(Code::Unimplemented, unknown_method(head.uri.path()))),
        };
        match answers {
            Ok(answers) => respond(StreamBody::new(frames(answers, ends_at)).boxed_unsync()),
            Err(status) => {
                let mut response = respond(Empty::new().boxed_unsync());
                Status::write(Err(&status), response.headers_mut());
                response
            }
        }
    }
}

fn unknown_method(path: &str) -> String {
    match path.trim_start_matches('/').rsplit_once('/') {
        Some((service, method)) => format!("unknown method {method} for service {service}"),
        None => format!("malformed method name: \"{path}\""),
    }
}

fn respond(body: ResponseBody) -> http::Response<ResponseBody> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

async fn before<T>(ends_at: Option<rt::Instant>, future: impl Future<Output = T>) -> Result<T, Status> {
    match ends_at {
        Some(ends_at) => {
            let left = ends_at.saturating_duration_since(rt::instant());
            rt::timeout(left, future).await.map_err(|_| Status::deadline())
        }
        None => Ok(future.await),
    }
}

/// The answers, and the trailers behind the last of them or the first error.
fn frames(
    answers: Answers,
    ends_at: Option<rt::Instant>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    futures::stream::unfold(Some(answers), move |answers| async move {
        let mut answers = answers?;
        let outcome = match before(ends_at, answers.next()).await {
            Ok(Some(Ok(message))) => return Some((Ok(Frame::data(message)), Some(answers))),
            Ok(Some(Err(status))) | Err(status) => Err(status),
            Ok(None) => Ok(()),
        };
        let mut trailers = HeaderMap::new();
        Status::write(outcome.as_ref().copied(), &mut trailers);
        Some((Ok(Frame::trailers(trailers)), None))
    })
}

/// A socket that listens. A Unix socket's file goes away with it.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener, Utf8PathBuf),
    Tcp(TcpListener),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _gone_already_is_fine = std::fs::remove_file(path);
        }
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Server {
    /// Listens at `path`; the file that a former process left there is replaced.
    pub fn unix(path: &Utf8Path) -> io::Result<Server> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Server { listener: Listener::Unix(UnixListener::bind(path)?, path.to_owned()) })
    }

    pub fn tcp(listener: TcpListener) -> Server {
        Server { listener: Listener::Tcp(listener) }
    }

    /// Serves until `shutdown`, then lets running calls end.
    pub async fn serve(self, router: Router, shutdown: rt::Shutdown) {
        let router = Arc::new(router);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accept = async {
                let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
                (self.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = accept => accepted,
            };
            match accepted {
                Ok(stream) => {
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    drop(rt::spawn("grpc server", async move {
                        serve_connection(stream, router, shutdown).await;
                        drop(place);
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "Cannot accept a gRPC connection");
                    rt::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Connection>> {
        match &self.listener {
            Listener::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
            Listener::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

async fn serve_connection(stream: Box<dyn Connection>, router: Arc<Router>, shutdown: rt::Shutdown) {
    let service = service_fn(move |request| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.answer(request).await) }
    });
    let connection = http2::Builder::new(Executor)
        .max_concurrent_streams(STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A gRPC connection ended");
    }
}
