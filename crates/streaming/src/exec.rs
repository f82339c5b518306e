//! Exec and attach: the streams of a process, a terminal's sizes, and how it ended.
//!
//! Start at [`serve`].

use hyper::upgrade::OnUpgrade;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::channels::{self, Encoding};
use crate::negotiate::{Offer, Spoken, choose};
use crate::resize::Resizes;
use crate::spdy::connection::{self, Accepted};
use crate::spdy::reset;
use crate::status::Outcome;
use crate::stream::{Outgoing, StreamReader, StreamWriter};
use crate::tunnel::Tunnel;
use crate::{Answer, Limits, refusal, websocket};

/// The streams that a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    /// A terminal has one output.
    fn normalized(self) -> Self {
        Self { stderr: self.stderr && !self.tty, ..self }
    }
}

/// The client's side of a process. Only what was asked for is there.
#[derive(Debug, Default)]
pub struct Streams {
    pub stdin: Option<StreamReader>,
    pub stdout: Option<StreamWriter>,
    pub stderr: Option<StreamWriter>,
    /// With a terminal, if the client's protocol has it.
    pub resizes: Option<Resizes>,
}

/// What is spoken on a WebSocket: a version and how its messages look.
#[derive(Clone, Copy)]
enum WebSocket {
    Channels(u8, Encoding),
    /// SPDY in binary messages, of this version.
    Tunnel(u8),
}

const SPDY: &[Offer<u8>] =
    &[("v4.channel.k8s.io", 4), ("v3.channel.k8s.io", 3), ("v2.channel.k8s.io", 2), ("channel.k8s.io", 1)];

const WEB_SOCKET: &[Offer<WebSocket>] = &[
    ("v5.channel.k8s.io", WebSocket::Channels(5, Encoding::BinaryWithClose)),
    ("v4.channel.k8s.io", WebSocket::Channels(4, Encoding::Binary)),
    ("v4.base64.channel.k8s.io", WebSocket::Channels(4, Encoding::Base64)),
    ("channel.k8s.io", WebSocket::Channels(1, Encoding::Binary)),
    ("base64.channel.k8s.io", WebSocket::Channels(1, Encoding::Base64)),
    ("SPDY/3.1+v4.channel.k8s.io", WebSocket::Tunnel(4)),
    ("", WebSocket::Channels(1, Encoding::Binary)),
];

/// The channels of a WebSocket.
mod channel {
    pub(super) const STDIN: u8 = 0;
    pub(super) const STDOUT: u8 = 1;
    pub(super) const STDERR: u8 = 2;
    pub(super) const ERROR: u8 = 3;
    pub(super) const RESIZE: u8 = 4;
}

/// Answers a request for exec or attach. When it is an upgrade to a protocol that is spoken here, `handler` runs with
/// the client's streams in a task of its own, and what it returns is told to the client. It is dropped when the client
/// leaves.
pub fn serve<B, H, F>(mut request: http::Request<B>, wanted: Wanted, limits: Limits, handler: H) -> Answer
where
    H: FnOnce(Streams) -> F + Send + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let wanted = wanted.normalized();
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return refusal(http::StatusCode::BAD_REQUEST, message);
    }
    let (spoken, answer) = match choose(&request, SPDY, WEB_SOCKET) {
        Ok(chosen) => chosen,
        Err(refused) => return *refused,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    rt::spawn("remote command", run(upgrade, spoken, wanted, limits, handler));
    answer
}

async fn run<H, F>(
    upgrade: OnUpgrade,
    spoken: Spoken<u8, WebSocket>,
    wanted: Wanted,
    limits: Limits,
    handler: H,
) where
    H: FnOnce(Streams) -> F + Send,
    F: Future<Output = Outcome> + Send,
{
    let Some(socket) = websocket::upgraded(upgrade).await else { return };
    match spoken {
        Spoken::Spdy(version) => {
            let over = |handle| over_spdy(handle, version, wanted, &limits, handler);
            connection::serve(socket, &limits, over).await;
        }
        Spoken::WebSocket(WebSocket::Tunnel(version)) => {
            let tunnel = Tunnel::new(websocket::accept(socket).await);
            let over = |handle| over_spdy(handle, version, wanted, &limits, handler);
            connection::serve(tunnel, &limits, over).await;
        }
        Spoken::WebSocket(WebSocket::Channels(version, encoding)) => {
            let socket = websocket::accept(socket).await;
            let mut readable = Vec::new();
            if wanted.stdin {
                readable.push(channel::STDIN);
            }
            if wanted.tty {
                readable.push(channel::RESIZE);
            }
            let over = |handle| over_channels(handle, version, wanted, handler);
            channels::serve(socket, encoding, &readable, &limits, over).await;
        }
    }
}

async fn over_channels<H, F>(mut handle: channels::Handle, version: u8, wanted: Wanted, handler: H)
where
    H: FnOnce(Streams) -> F,
    F: Future<Output = Outcome>,
{
    let streams = Streams {
        stdin: handle.reader(channel::STDIN),
        stdout: wanted.stdout.then(|| handle.writer(channel::STDOUT)),
        stderr: wanted.stderr.then(|| handle.writer(channel::STDERR)),
        resizes: handle.reader(channel::RESIZE).map(Resizes::new),
    };
    // An empty message tells clients that they are connected.
    let lowest = match wanted {
        Wanted { stdout: true, .. } => channel::STDOUT,
        Wanted { stderr: true, .. } => channel::STDERR,
        _ => channel::ERROR,
    };
    let _ = handle.outgoing.send(Outgoing::Data(lowest.into(), bytes::Bytes::new())).await;
    let outcome = handler(streams).await;
    tell(&outcome, version, handle.writer(channel::ERROR)).await;
}

async fn over_spdy<H, F>(
    mut handle: connection::Handle,
    version: u8,
    wanted: Wanted,
    limits: &Limits,
    handler: H,
) where
    H: FnOnce(Streams) -> F,
    F: Future<Output = Outcome>,
{
    let mut opened = Opened::default();
    let outgoing = handle.outgoing.clone();
    let opening = opened.fill(&mut handle.accepted, &outgoing, wanted, version);
    match rt::timeout(limits.creation_timeout, opening).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(_) => return tracing::info!("Timed out waiting for client to create streams"),
    }
    // Streams that come later are refused.
    drop(handle);
    let ids = opened.ids;
    let Some(error) = opened.error else { return };
    let outcome = handler(opened.streams).await;
    for id in ids.into_iter().flatten() {
        let _ = outgoing.send(Outgoing::End(id)).await;
    }
    tell(&outcome, version, error).await;
}

async fn tell(outcome: &Outcome, version: u8, mut error: StreamWriter) {
    if let Some(text) = outcome.encode(version) {
        // Who left does not want to know.
        let _ = error.write_all(text.as_bytes()).await;
    }
    let _ = error.shutdown().await;
}

/// The streams that a client opened so far.
#[derive(Default)]
struct Opened {
    streams: Streams,
    error: Option<StreamWriter>,
    /// Of stdin, stdout, stderr and the terminal's sizes.
    ids: [Option<u32>; 4],
}

impl Opened {
    /// Returns when all that are wanted are there; false when the client opens no more.
    async fn fill(
        &mut self,
        accepted: &mut mpsc::Receiver<Accepted>,
        outgoing: &mpsc::Sender<Outgoing>,
        wanted: Wanted,
        version: u8,
    ) -> bool {
        while !self.is_complete(wanted, version) {
            let Some(stream) = accepted.recv().await else { return false };
            let id = stream.id;
            if let Err(stream) = self.add(stream, wanted) {
                tracing::debug!(kind = ?stream.header("streamtype"), "Refused a stream");
                let _ = outgoing.send(Outgoing::Reset(id, reset::REFUSED_STREAM)).await;
            }
        }
        true
    }

    fn is_complete(&self, wanted: Wanted, version: u8) -> bool {
        let streams = &self.streams;
        // Sizes came with version 3.
        let sizes = wanted.tty && version >= 3;
        self.error.is_some()
            && streams.stdin.is_some() >= wanted.stdin
            && streams.stdout.is_some() >= wanted.stdout
            && streams.stderr.is_some() >= wanted.stderr
            && streams.resizes.is_some() >= sizes
    }

    /// Takes a stream for what it says it is; gives it back where that is not wanted, or there already.
    fn add(&mut self, stream: Accepted, wanted: Wanted) -> Result<(), Box<Accepted>> {
        let streams = &mut self.streams;
        let id = Some(stream.id);
        match stream.header("streamtype") {
            Some("error") if self.error.is_none() => self.error = Some(stream.writer),
            Some("stdin") if wanted.stdin && streams.stdin.is_none() => {
                streams.stdin = Some(stream.reader);
                self.ids[0] = id;
            }
            Some("stdout") if wanted.stdout && streams.stdout.is_none() => {
                streams.stdout = Some(stream.writer);
                self.ids[1] = id;
            }
            Some("stderr") if wanted.stderr && streams.stderr.is_none() => {
                streams.stderr = Some(stream.writer);
                self.ids[2] = id;
            }
            Some("resize") if wanted.tty && streams.resizes.is_none() => {
                streams.resizes = Some(Resizes::new(stream.reader));
                self.ids[3] = id;
            }
            _ => return Err(Box::new(stream)),
        }
        Ok(())
    }
}
