//! Forwarded ports: for each connection of the client a pair of streams, one with data, one for what went wrong.
//!
//! Start at [`serve`]. A connection to a port in a pod is whatever the caller's `connect` returns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::channels::{self, Encoding};
use crate::negotiate::{Offer, Spoken, choose};
use crate::spdy::connection::{self, Accepted};
use crate::spdy::reset;
use crate::stream::{CHUNK_BYTES_MAX, Outgoing, StreamReader, StreamWriter};
use crate::tunnel::Tunnel;
use crate::{Answer, Limits, refusal, websocket};

/// What is spoken on a WebSocket.
#[derive(Clone, Copy)]
enum WebSocket {
    /// SPDY in binary messages.
    Tunnel,
    /// Two channels for each port that the query names.
    Channels(Encoding),
}

const SPDY: &[Offer<()>] = &[("portforward.k8s.io", ())];

const WEB_SOCKET: &[Offer<WebSocket>] = &[
    ("SPDY/3.1+portforward.k8s.io", WebSocket::Tunnel),
    ("v4.channel.k8s.io", WebSocket::Channels(Encoding::Binary)),
    ("v4.base64.channel.k8s.io", WebSocket::Channels(Encoding::Base64)),
    ("channel.k8s.io", WebSocket::Channels(Encoding::Binary)),
    ("base64.channel.k8s.io", WebSocket::Channels(Encoding::Base64)),
    ("", WebSocket::Channels(Encoding::Binary)),
];

/// Most ports of one WebSocket: each takes two channels, and a channel's number is a byte below 255.
const PORTS_MAX: usize = 127;

/// So many refused streams wait for the client to be told; meanwhile it opens no more.
const REFUSALS_MAX: usize = 64;

/// After one side of a connection ended, the other may be silent for so long. Upstream's runtimes give a second; a
/// client that only sends is not hurried by it, as each byte starts it again.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers a request for forwarded ports. `ports` are those of the query (`port=80&port=443`), which only old clients on
/// WebSockets have. `connect` is called once for each connection; what it complains of is told to the client, after
/// `pod`, which is how the pod is named in it.
pub fn serve<B, C, F, D, E>(
    mut request: http::Request<B>,
    ports: &[&str],
    pod: String,
    limits: Limits,
    connect: C,
) -> Answer
where
    C: Fn(u16) -> F + Send + Sync + 'static,
    F: Future<Output = Result<D, E>> + Send + 'static,
    D: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let (spoken, answer) = match choose(&request, SPDY, WEB_SOCKET) {
        Ok(chosen) => chosen,
        Err(refused) => return *refused,
    };
    let ports = match spoken {
        Spoken::WebSocket(WebSocket::Channels(_)) => match parse_ports(ports) {
            Ok(ports) => ports,
            Err(message) => return refusal(http::StatusCode::BAD_REQUEST, &message),
        },
        _ => Vec::new(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let forwarder = Forwarder { connect: Arc::new(connect), pod: pod.into() };
    rt::spawn("port forwarding", run(upgrade, spoken, ports, limits, forwarder));
    answer
}

fn parse_ports(given: &[&str]) -> Result<Vec<u16>, String> {
    let words: Vec<&str> =
        given.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    if words.len() > PORTS_MAX {
        return Err(format!("at most {PORTS_MAX} ports can be forwarded over one WebSocket"));
    }
    words.into_iter().map(parse_port).collect()
}

fn parse_port(word: &str) -> Result<u16, String> {
    match word.parse() {
        Ok(0) => Err(format!("port \"{word}\" must be > 0")),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("unable to parse \"{word}\" as a port")),
    }
}

/// How a port is reached, and the pod's name for what goes wrong.
struct Forwarder<C> {
    connect: Arc<C>,
    pod: Arc<str>,
}

impl<C> Clone for Forwarder<C> {
    fn clone(&self) -> Self {
        Self { connect: self.connect.clone(), pod: self.pod.clone() }
    }
}

impl<C, F, D, E> Forwarder<C>
where
    C: Fn(u16) -> F,
    F: Future<Output = Result<D, E>>,
    D: AsyncRead + AsyncWrite + Unpin,
    E: std::fmt::Display,
{
    /// Serves one connection to its end.
    async fn forward(
        self,
        port: u16,
        mut reader: StreamReader,
        mut writer: StreamWriter,
        mut error: StreamWriter,
    ) {
        let failed = match (self.connect)(port).await {
            Ok(target) => {
                let copied = copy_both(&mut reader, &mut writer, &mut error, target).await;
                copied.err().map(|error| error.to_string())
            }
            Err(failed) => Some(failed.to_string()),
        };
        if let Some(failed) = failed {
            let text = format!("error forwarding port {port} to pod {}: {failed}", self.pod);
            tracing::debug!(error = text, "Forwarding a port failed");
            let _ = error.write_all(text.as_bytes()).await;
        }
        let _ = writer.shutdown().await;
        let _ = error.shutdown().await;
    }
}

/// Copies in both directions, until the pod ends and the client has nothing more to say.
async fn copy_both<D: AsyncRead + AsyncWrite + Unpin>(
    reader: &mut StreamReader,
    writer: &mut StreamWriter,
    error: &mut StreamWriter,
    target: D,
) -> std::io::Result<()> {
    let (mut from_pod, mut to_pod) = tokio::io::split(target);
    let moved = crate::activity::Activity::new();
    let to_client = async {
        let copied = copy(&mut from_pod, writer, &moved).await;
        // The client learns at once that nothing more comes.
        let _ = writer.shutdown().await;
        copied
    };
    let to_pod = async {
        // A client that is gone is the end of what it sends.
        let _ = copy(reader, &mut to_pod, &moved).await;
        let _ = to_pod.shutdown().await;
    };
    tokio::pin!(to_client, to_pod);
    tokio::select! {
        copied = &mut to_client => {
            if copied.is_ok() {
                // The pod closed its side, and nothing failed: kubectl closes its own only when it knows of both.
                let _ = error.shutdown().await;
                // A client that still sends is heard until it is silent.
                tokio::select! {
                    () = &mut to_pod => {}
                    () = moved.idle(HALF_CLOSED_TIMEOUT) => {}
                }
            }
            copied
        }
        () = &mut to_pod => to_client.await,
    }
}

async fn copy<R, W>(from: &mut R, to: &mut W, moved: &crate::activity::Activity) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    use tokio::io::AsyncReadExt;
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        moved.touch();
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
}

async fn run<C, F, D, E>(
    upgrade: OnUpgrade,
    spoken: Spoken<(), WebSocket>,
    ports: Vec<u16>,
    limits: Limits,
    forwarder: Forwarder<C>,
) where
    C: Fn(u16) -> F + Send + Sync + 'static,
    F: Future<Output = Result<D, E>> + Send + 'static,
    D: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let Some(socket) = websocket::upgraded(upgrade).await else { return };
    match spoken {
        Spoken::Spdy(()) => {
            connection::serve(socket, &limits, |handle| over_spdy(handle, &limits, &forwarder)).await;
        }
        Spoken::WebSocket(WebSocket::Tunnel) => {
            let tunnel = Tunnel::new(websocket::accept(socket).await);
            connection::serve(tunnel, &limits, |handle| over_spdy(handle, &limits, &forwarder)).await;
        }
        Spoken::WebSocket(WebSocket::Channels(encoding)) => {
            let socket = websocket::accept(socket).await;
            let readable: Vec<u8> = (0..ports.len() as u8).map(|index| 2 * index).collect();
            let over = |handle| over_channels(handle, &ports, &forwarder);
            channels::serve(socket, encoding, &readable, &limits, over).await;
        }
    }
}

/// The channel `2 n` is the data of the n-th port, the next one its error; the first message of each is the port.
async fn over_channels<C, F, D, E>(mut handle: channels::Handle, ports: &[u16], forwarder: &Forwarder<C>)
where
    C: Fn(u16) -> F,
    F: Future<Output = Result<D, E>>,
    D: AsyncRead + AsyncWrite + Unpin,
    E: std::fmt::Display,
{
    let mut connections = FuturesUnordered::new();
    for (index, port) in ports.iter().enumerate() {
        let data = 2 * index as u8;
        let Some(reader) = handle.reader(data) else { continue };
        for channel in [data, data + 1] {
            let number = Bytes::copy_from_slice(&port.to_le_bytes());
            let _ = handle.outgoing.send(Outgoing::Data(channel.into(), number)).await;
        }
        let (writer, error) = (handle.writer(data), handle.writer(data + 1));
        connections.push(forwarder.clone().forward(*port, reader, writer, error));
    }
    while connections.next().await.is_some() {}
}

/// A connection of which one stream is there.
struct Half {
    stream: Accepted,
    since: rt::Instant,
}

/// Nothing but the one `select!` waits here: whoever has a place in the queue of what goes out must go on being polled,
/// or it keeps the place for ever and all others wait behind it.
async fn over_spdy<C, F, D, E>(mut handle: connection::Handle, limits: &Limits, forwarder: &Forwarder<C>)
where
    C: Fn(u16) -> F,
    F: Future<Output = Result<D, E>>,
    D: AsyncRead + AsyncWrite + Unpin,
    E: std::fmt::Display,
{
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut connections = FuturesUnordered::new();
    let mut refusals = FuturesUnordered::new();
    let refuse = |id, reason| say(handle.outgoing.clone(), Outgoing::Reset(id, reason));
    loop {
        let oldest = halves.values().map(|half| half.since + limits.creation_timeout).min();
        let overdue = async {
            match oldest {
                Some(due) => rt::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let stream = tokio::select! {
            stream = handle.accepted.recv(), if refusals.len() < REFUSALS_MAX => stream,
            Some(()) = connections.next() => continue,
            Some(()) = refusals.next() => continue,
            () = overdue => {
                let now = rt::instant();
                let late = halves.extract_if(|_, half| half.since + limits.creation_timeout <= now);
                for (_, half) in late {
                    tracing::info!("Timed out waiting for both streams of a forwarded connection");
                    refusals.push(refuse(half.stream.id, reset::CANCEL));
                }
                continue;
            }
        };
        let Some(stream) = stream else { return };
        let id = stream.id;
        let refused = match connection_of(&stream) {
            Err(refused) => refused,
            Ok(key) => match halves.remove(&key) {
                None => {
                    halves.insert(key, Half { stream, since: rt::instant() });
                    continue;
                }
                Some(half) => match pair(half.stream, stream) {
                    Ok((port, data, error)) => {
                        let (ids, outgoing) = ([data.id, error.id], handle.outgoing.clone());
                        let one = forwarder.clone().forward(port, data.reader, data.writer, error.writer);
                        connections.push(async move {
                            one.await;
                            for id in ids {
                                say(outgoing.clone(), Outgoing::Forget(id)).await;
                            }
                        });
                        continue;
                    }
                    Err(refused) => refused,
                },
            },
        };
        tracing::debug!(error = refused, "Refused a stream of a forwarded port");
        refusals.push(refuse(id, reset::REFUSED_STREAM));
    }
}

async fn say(outgoing: mpsc::Sender<Outgoing>, item: Outgoing) {
    // Who writes is gone only when all is over.
    let _ = outgoing.send(item).await;
}

/// What a stream belongs to. Clients that know no request IDs open the error stream first, and the data stream next.
fn connection_of(stream: &Accepted) -> Result<String, String> {
    let port = stream.header("port").filter(|port| !port.is_empty());
    parse_port(port.ok_or("\"port\" header is required")?)?;
    let kind = stream.header("streamtype").filter(|kind| !kind.is_empty());
    let kind = kind.ok_or("\"streamType\" header is required")?;
    match (stream.header("requestid").filter(|id| !id.is_empty()), kind) {
        (Some(id), "error" | "data") => Ok(id.to_owned()),
        (None, "error") => Ok(stream.id.to_string()),
        (None, "data") => Ok(stream.id.saturating_sub(2).to_string()),
        (_, kind) => Err(format!("invalid stream type \"{kind}\"")),
    }
}

/// The port, the data stream, and the error stream.
fn pair(one: Accepted, other: Accepted) -> Result<(u16, Accepted, Accepted), String> {
    let (data, error) = match (one.header("streamtype"), other.header("streamtype")) {
        (Some("data"), Some("error")) => (one, other),
        (Some("error"), Some("data")) => (other, one),
        (kind, _) => return Err(format!("{} stream already assigned", kind.unwrap_or_default())),
    };
    let port = parse_port(data.header("port").unwrap_or_default())?;
    Ok((port, data, error))
}
