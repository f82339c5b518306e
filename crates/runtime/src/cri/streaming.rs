//! Exec, attach and port-forward: the runtime names a URL of its own streaming server, and SPDY/3.1 is spoken there.
//!
//! Owns: the client's side of such a connection. Why not WebSocket, which the same servers speak: its channel protocol
//! cannot close stdin of a command and go on listening, up to its version 5, which they do not know.
//!
//! All streams of a connection are served by one task. It ends with the connection, or at once when everything that it
//! gave out was dropped: whose last words shall arrive ends its direction and reads the other to its end. Who does not read a stream holds up the others behind it, once its pipe is full.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::streaming::spdy::frame::{Encoder, Frame, FrameReader};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::{Attached, Duplex, Error, Reader, Result, Streams, TerminalSize, Writer};

/// The streaming server is on this machine and was just told of us.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);

/// What is read of a refusal.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// What waits in a stream for its reader.
const PIPE_BYTES: usize = 64 << 10;

/// Most bytes of one data frame.
const CHUNK_BYTES_MAX: usize = 32 << 10;

/// Frames that wait to be written.
const FRAMES_MAX: usize = 8;

/// Sizes of a terminal that wait to be sent.
const RESIZES_MAX: usize = 4;

/// What a command's end may tell.
const STATUS_BYTES_MAX: u64 = 64 << 10;

const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

/// What is spoken inside of SPDY.
const REMOTE_COMMAND: &str = "v4.channel.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";

/// Connects to a command that waits at `url` for its streams.
pub(super) async fn exec(url: &str, streams: Streams) -> Result<Attached> {
    let (session, exit) = command(url, streams).await?;
    let exit = async move { exit_code(&exit.read().await).ok_or_else(broken)? };
    Ok(session.attached(Box::pin(exit)))
}

/// Connects to a container that waits at `url`.
pub(super) async fn attach(url: &str, streams: Streams) -> Result<Attached> {
    let (session, exit) = command(url, streams).await?;
    // That the connection ends is how a container's end is told.
    let exit = async move { exit_code(&exit.read().await).unwrap_or(Ok(0)) };
    Ok(session.attached(Box::pin(exit)))
}

fn broken() -> Error {
    Error::Failed(
        "the connection to the runtime's streaming server broke before the command ended".to_owned(),
    )
}

/// Connects to a port that waits at `url`.
pub(super) async fn port_forward(url: &str, port: u16) -> Result<Box<dyn Duplex>> {
    let io = upgrade(url, PORT_FORWARD).await?;
    let mut session = Session::new();
    let headers = |kind: &str| {
        let pairs = [("streamtype", kind), ("port", &port.to_string()), ("requestid", "0")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    };
    let (error, nothing) = session.open(headers("error"));
    // There is nothing to say on it.
    drop(nothing);
    let (data, writer) = session.open(headers("data"));
    let guard = session.start(io);
    Ok(Box::new(Forwarded { data, writer, error, _session: guard }))
}

/// What a command is connected with.
struct Command {
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    resize: Option<mpsc::Sender<TerminalSize>>,
}

impl Command {
    fn attached(self, exit: Pin<Box<dyn Future<Output = Result<i32>> + Send>>) -> Attached {
        let Command { stdin, stdout, stderr, resize } = self;
        Attached { stdin, stdout, stderr, resize, exit }
    }
}

/// Where the end of a command will be told.
struct Exit(Held<DuplexStream>);

impl Exit {
    async fn read(self) -> Vec<u8> {
        let mut told = Vec::new();
        // What arrived before it broke is what there is.
        let _ = self.0.take(STATUS_BYTES_MAX).read_to_end(&mut told).await;
        told
    }
}

async fn command(url: &str, streams: Streams) -> Result<(Command, Exit)> {
    let io = upgrade(url, REMOTE_COMMAND).await?;
    let mut session = Session::new();
    let headers = |kind: &str| vec![("streamtype".to_owned(), kind.to_owned())];
    let (error, nothing) = session.open(headers("error"));
    drop(nothing);
    // The order is that of client-go.
    let stdin = streams.stdin.then(|| session.open(headers("stdin")).1);
    let stdout = streams.stdout.then(|| session.open(headers("stdout")).0);
    let stderr = (streams.stderr && !streams.tty).then(|| session.open(headers("stderr")).0);
    let resize = streams.tty.then(|| {
        let (_, writer) = session.open(headers("resize"));
        let (sender, sizes) = mpsc::channel(RESIZES_MAX);
        session.sizes = Some((sizes, writer));
        sender
    });
    let guard = session.start(io);
    let read = |io| Box::pin(Held { io, _session: guard.clone() }) as Reader;
    let command = Command {
        stdin: stdin.map(|io| Box::pin(Held { io, _session: guard.clone() }) as Writer),
        stdout: stdout.map(read),
        stderr: stderr.map(read),
        resize,
    };
    Ok((command, Exit(Held { io: error, _session: guard.clone() })))
}

/// Asks for a connection that is a SPDY session of `protocol`.
async fn upgrade(url: &str, protocol: &'static str) -> Result<TokioIo<Upgraded>> {
    let failed =
        |why: String| Error::Failed(format!("connecting to the runtime's streaming server at {url}: {why}"));
    let connect = async {
        let uri: Uri = url.parse().map_err(|error| failed(format!("{error}")))?;
        if uri.scheme_str() != Some("http") {
            let why = "only http is spoken there: turn TLS off for the runtime's streaming server, which listens on the \
                       loopback";
            return Err(failed(why.to_owned()));
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await;
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        drop(rt::spawn("cri streaming upgrade", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "A connection to the runtime's streaming server ended");
            }
        }));
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
            .header(header::HOST, authority)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "SPDY/3.1")
            .header(PROTOCOL_HEADER, protocol)
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(failed(format!("it answered {status}: {}", String::from_utf8_lossy(&body).trim())));
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(|error| failed(error.to_string()))
    };
    let timeout = || Error::Timeout(format!("the runtime's streaming server at {url} did not answer"));
    rt::timeout(UPGRADE_TIMEOUT, connect).await.unwrap_or_else(|_| Err(timeout()))
}

/// A connection before its streams are used.
struct Session {
    /// To be sent first.
    opening: Vec<Frame>,
    /// What the server sends, by stream.
    incoming: HashMap<u32, DuplexStream>,
    /// What we send, by stream.
    outgoing: Vec<(u32, DuplexStream)>,
    sizes: Option<(mpsc::Receiver<TerminalSize>, DuplexStream)>,
    next_id: u32,
}

impl Session {
    fn new() -> Session {
        Session { opening: vec![], incoming: HashMap::new(), outgoing: vec![], sizes: None, next_id: 1 }
    }

    /// A new stream: what is read from it and what is written to it. Dropping the writer ends that direction.
    fn open(&mut self, headers: Vec<(String, String)>) -> (DuplexStream, DuplexStream) {
        let id = self.next_id;
        self.next_id += 2;
        self.opening.push(Frame::SynStream { id, fin: false, headers });
        let (reader, filler) = tokio::io::duplex(PIPE_BYTES);
        let (writer, source) = tokio::io::duplex(PIPE_BYTES);
        self.incoming.insert(id, filler);
        self.outgoing.push((id, source));
        (reader, writer)
    }

    /// Serves the streams until the last guard is dropped.
    fn start(self, io: TokioIo<Upgraded>) -> Arc<DropGuard> {
        let stop = rt::Shutdown::new();
        let guard = Arc::new(stop.clone().drop_guard());
        let (read, write) = tokio::io::split(io);
        let (frames, queue) = mpsc::channel(FRAMES_MAX);
        let sending = futures::future::join_all(
            self.outgoing.into_iter().map(|(id, source)| send(id, source, frames.clone())),
        );
        let resizing = async {
            if let Some((sizes, writer)) = self.sizes {
                resize(sizes, writer).await;
            }
        };
        let speaking = async move {
            tokio::join!(sending, resizing);
            std::future::pending::<()>().await;
        };
        let writing = write_frames(write, self.opening, queue);
        let reading = read_frames(FrameReader::new(read), self.incoming, frames);
        drop(rt::spawn("cri streaming", async move {
            tokio::select! {
                () = reading => {}
                () = writing => {}
                () = speaking => {}
                () = stop.cancelled() => {}
            }
        }));
        guard
    }
}

/// Sends what is written to a stream, and that it ended.
async fn send(id: u32, mut source: DuplexStream, frames: mpsc::Sender<Frame>) {
    loop {
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES_MAX);
        let fin = !matches!(source.read_buf(&mut bytes).await, Ok(1..));
        if frames.send(Frame::Data { id, fin, bytes: bytes.freeze() }).await.is_err() || fin {
            return;
        }
    }
}

async fn resize(mut sizes: mpsc::Receiver<TerminalSize>, mut writer: DuplexStream) {
    while let Some(TerminalSize { width, height }) = sizes.recv().await {
        let line = format!("{{\"Width\":{width},\"Height\":{height}}}\n");
        if writer.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn write_frames<W>(mut to: W, opening: Vec<Frame>, mut queue: mpsc::Receiver<Frame>)
where
    W: AsyncWrite + Unpin,
{
    let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
    let mut batch = opening;
    loop {
        for frame in batch.drain(..) {
            if let Err(error) = encoder.encode(&frame, &mut bytes) {
                return tracing::debug!(%error, "A SPDY frame cannot be sent");
            }
        }
        let written = async {
            to.write_all_buf(&mut bytes).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return tracing::debug!(%error, "The runtime's streaming server takes no more");
        }
        if queue.recv_many(&mut batch, FRAMES_MAX).await == 0 {
            return;
        }
    }
}

/// Gives every stream what is its own, until the connection ends.
async fn read_frames<R>(
    mut from: FrameReader<R>,
    mut streams: HashMap<u32, DuplexStream>,
    frames: mpsc::Sender<Frame>,
) where
    R: AsyncRead + Unpin,
{
    loop {
        let ended = match from.next().await {
            Ok(Some(Frame::Data { id, fin, bytes })) => {
                let unread = match streams.get_mut(&id) {
                    Some(stream) => stream.write_all(&bytes).await.is_err(),
                    None => false,
                };
                (fin || unread).then_some(id)
            }
            Ok(Some(Frame::Headers { id, fin: true, .. } | Frame::SynReply { id, fin: true, .. })) => {
                Some(id)
            }
            Ok(Some(Frame::RstStream { id, .. })) => Some(id),
            Ok(Some(Frame::Ping(id))) if id % 2 == 0 => {
                let _who_writes_is_gone = frames.send(Frame::Ping(id)).await;
                None
            }
            Ok(Some(_)) => None,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "The runtime's streaming server broke off"),
        };
        if let Some(id) = ended {
            streams.remove(&id);
        }
    }
}

/// A side of a stream that keeps its connection open.
struct Held<T> {
    io: T,
    _session: Arc<DropGuard>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Held<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(ctx, to)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Held<T> {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(ctx)
    }
}

/// A forwarded port. Where the runtime could not connect to it, or lost it, reading says why.
struct Forwarded {
    data: DuplexStream,
    writer: DuplexStream,
    error: DuplexStream,
    _session: Arc<DropGuard>,
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        ready!(Pin::new(&mut self.data).poll_read(ctx, to))?;
        if to.filled().len() > before || to.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // The end. What was the matter, if anything, is told on the other stream, which ends then too.
        let mut told = [0; 1024];
        let mut told = ReadBuf::new(&mut told);
        ready!(Pin::new(&mut self.error).poll_read(ctx, &mut told))?;
        if told.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        let why = String::from_utf8_lossy(told.filled()).trim().to_owned();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, why)))
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(ctx)
    }
}

/// `metav1.Status`, as far as a command's end is told in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExitStatus {
    status: String,
    message: String,
    reason: String,
    details: ExitDetails,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExitDetails {
    causes: Vec<ExitCause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExitCause {
    reason: String,
    message: String,
}

/// How a command ended, as the stream for errors told it; `None` where nothing was told.
fn exit_code(told: &[u8]) -> Option<Result<i32>> {
    if told.is_empty() {
        return None;
    }
    let Ok(status) = serde_json::from_slice::<ExitStatus>(told) else {
        return Some(Err(Error::Failed(String::from_utf8_lossy(told).trim().to_owned())));
    };
    if status.status == "Success" {
        return Some(Ok(0));
    }
    let code = status.details.causes.iter().find(|cause| cause.reason == "ExitCode");
    match code.and_then(|cause| cause.message.parse().ok()) {
        Some(code) if status.reason == "NonZeroExitCode" => Some(Ok(code)),
        _ => Some(Err(Error::Failed(status.message))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_command_is_a_code_or_a_reason() {
        let failure = |text: &str| Some(Err(text.to_owned()));
        for (told, expected) in [
            ("", None),
            (r#"{"status":"Success"}"#, Some(Ok(0))),
            (
                r#"{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code",
                    "details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#,
                Some(Ok(7)),
            ),
            (
                r#"{"status":"Failure","reason":"InternalError","message":"no such file"}"#,
                failure("no such file"),
            ),
            (r#"{"status":"Failure","reason":"NonZeroExitCode","message":"odd"}"#, failure("odd")),
            ("plain words\n", failure("plain words")),
        ] {
            let code = exit_code(told.as_bytes()).map(|code| code.map_err(|error| error.to_string()));
            assert_eq!(code, expected, "{told}");
        }
    }
}
