//! [`Server`]: questions from sockets, answers to them.
//!
//! Hot path: what is known is answered by the loop that received the question. Only what others have to be asked gets
//! a task of its own, and there are at most [`FORWARDS_MAX`] of those; more questions are refused, as upstream does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rt::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use super::cache::Key;
use super::forward::Forwarder;
use super::index::Index;
use super::wire::{self, CLASS_IN, Name, Query, Reply, Suspended, Unanswerable, rcode};
use super::zone::{Outcome, Zone};

/// Questions that wait for others at a time.
const FORWARDS_MAX: usize = 1000;
const TCP_CONNECTIONS_MAX: usize = 1000;
/// How long a connection may be silent.
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_MAX: usize = 65_535;
/// Questions are short; what is longer is none.
const QUESTION_MAX: usize = 4096;
/// A version of EDNS that is not known; the upper bits of it are in `OPT`.
const BAD_VERSION: u8 = 16;
/// Transfers of whole zones are nobody's business.
const TRANSFERS: [u16; 2] = [251, 252];

pub(super) struct Server {
    pub zone: Zone,
    pub index: Arc<RwLock<Index>>,
    pub filled: watch::Receiver<bool>,
    pub forwarder: Forwarder,
    turn: AtomicUsize,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// What to do about a message.
pub(super) enum Step {
    Silence,
    /// The answer is written.
    Reply,
    /// Others have to be asked: about the question itself, or about what an alias in the answer so far leads to.
    Ask(Option<Box<(Name, Suspended)>>),
}

/// How an answer travels.
#[derive(Clone, Copy)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

impl Server {
    pub fn new(
        zone: Zone,
        index: Arc<RwLock<Index>>,
        filled: watch::Receiver<bool>,
        forwarder: Forwarder,
    ) -> Self {
        Self {
            zone,
            index,
            filled,
            forwarder,
            turn: AtomicUsize::new(0),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            connections: Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX)),
        }
    }

    pub fn handle(&self, message: &[u8], transport: Transport, out: &mut Vec<u8>) -> Step {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unanswerable::Silent) => return Step::Silence,
            Err(Unanswerable::With(code)) => {
                wire::write_refusal(message, code, out);
                return Step::Reply;
            }
        };
        let limit = transport.limit(&query);
        let say = |code: u8, out: &mut Vec<u8>| {
            Reply::to(&query, limit, out).finish(code);
            Step::Reply
        };
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return say(BAD_VERSION, out);
        }
        if self.zone.contains(&query.name) && !*self.filled.borrow() {
            return say(rcode::SERVER_FAILURE, out);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match self.zone.answer(&self.index.read(), &query, limit, turn, out) {
            Outcome::Answered => return Step::Reply,
            Outcome::Alias(_) if !self.forwarder.has_upstreams() => return say(rcode::SERVER_FAILURE, out),
            Outcome::Alias(alias) => return Step::Ask(Some(alias)),
            Outcome::Foreign => {}
        }
        let is_ours = query.class == CLASS_IN && query.wants_recursion() && !TRANSFERS.contains(&query.kind);
        if !is_ours || !self.forwarder.has_upstreams() {
            return say(rcode::REFUSED, out);
        }
        match self.forwarder.cached(&key(&query, &query.name)) {
            Some(answer) => {
                let age = answer.age(rt::instant());
                wire::write_foreign(&answer.message, &answer.foreign, age, &query, limit, out);
                Step::Reply
            }
            None => Step::Ask(None),
        }
    }

    /// Asks others. `out` is what [`Server::handle`] left there.
    pub async fn ask(
        &self,
        message: &[u8],
        alias: Option<Box<(Name, Suspended)>>,
        transport: Transport,
        out: &mut Vec<u8>,
    ) {
        // It could be read before.
        let Ok(query) = Query::read(message) else { return };
        let limit = transport.limit(&query);
        let name = alias.as_ref().map_or(&query.name, |alias| &alias.0);
        let Ok(answer) = self.forwarder.resolve(name, key(&query, name)).await else {
            Reply::to(&query, limit, out).finish(rcode::SERVER_FAILURE);
            return;
        };
        let age = answer.age(rt::instant());
        match alias {
            None => wire::write_foreign(&answer.message, &answer.foreign, age, &query, limit, out),
            Some(alias) => {
                let mut reply = Reply::resume(alias.1, out);
                reply.append(&answer.message, &answer.foreign, age);
                reply.finish(answer.foreign.rcode.min(0x0f) as u8);
            }
        }
    }

    pub async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>, shutdown: Shutdown) {
        let (mut message, mut out) = (vec![0; QUESTION_MAX], Vec::with_capacity(wire::UDP_MAX));
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut message) => received,
                () = shutdown.cancelled() => return,
            };
            let (len, client) = match received {
                Ok(received) => received,
                // Of an earlier answer that could not be delivered.
                Err(error) => {
                    tracing::debug!(%error, "Receiving a question failed");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            match self.handle(&message[..len], Transport::Udp, &mut out) {
                Step::Silence => {}
                Step::Reply => send(&socket, &out, client).await,
                Step::Ask(alias) => {
                    let Ok(permit) = self.forwards.clone().try_acquire_owned() else {
                        refuse(&message[..len], &mut out);
                        send(&socket, &out, client).await;
                        continue;
                    };
                    let (server, socket) = (self.clone(), socket.clone());
                    let (message, mut out) = (message[..len].to_vec(), std::mem::take(&mut out));
                    let shutdown = shutdown.clone();
                    rt::spawn("dns-forward", async move {
                        let _permit = permit;
                        tokio::select! {
                            () = server.ask(&message, alias, Transport::Udp, &mut out) => {
                                send(&socket, &out, client).await;
                            }
                            () = shutdown.cancelled() => {}
                        }
                    });
                }
            }
        }
    }

    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener, shutdown: Shutdown) {
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "Accepting a connection for DNS failed");
                    // Mostly there are no file descriptors: those that are in use come back with time.
                    rt::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, shutdown) = (self.clone(), shutdown.clone());
            rt::spawn("dns-connection", async move {
                let _permit = permit;
                tokio::select! {
                    // Whoever left, left; there is nobody to tell.
                    _ = server.serve_connection(stream) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
    }

    async fn serve_connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let (mut message, mut out, mut framed) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let len = usize::from(rt::timeout(TCP_IDLE, stream.read_u16()).await??);
            if len > QUESTION_MAX {
                return Ok(());
            }
            message.resize(len, 0);
            rt::timeout(TCP_IDLE, stream.read_exact(&mut message)).await??;
            match self.handle(&message, Transport::Tcp, &mut out) {
                Step::Silence => return Ok(()),
                Step::Reply => {}
                Step::Ask(alias) => match self.forwards.try_acquire() {
                    Ok(_permit) => self.ask(&message, alias, Transport::Tcp, &mut out).await,
                    Err(_) => refuse(&message, &mut out),
                },
            }
            framed.clear();
            framed.extend((out.len() as u16).to_be_bytes());
            framed.extend(&out);
            rt::timeout(TCP_IDLE, stream.write_all(&framed)).await??;
        }
    }
}

impl Transport {
    fn limit(self, query: &Query<'_>) -> usize {
        match self {
            Self::Udp => query.udp_limit(),
            Self::Tcp => TCP_MAX,
        }
    }
}

fn key(query: &Query<'_>, name: &Name) -> Key {
    let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
    Key::new(name, query.kind, dnssec_ok, query.checking_disabled())
}

fn refuse(message: &[u8], out: &mut Vec<u8>) {
    if let Ok(query) = Query::read(message) {
        Reply::to(&query, wire::UDP_MIN, out).finish(rcode::REFUSED);
    }
}

async fn send(socket: &UdpSocket, out: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(out, client).await {
        tracing::debug!(%client, %error, "An answer could not be sent");
    }
}
