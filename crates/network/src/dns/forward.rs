//! [`Forwarder`]: asks others about names that are not the cluster's.
//!
//! One after the other, in their order; those that were silent lately come last. Each question has a socket of its own,
//! and with it a port that nobody can guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rt::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::cache::{Answer, Cache, Key};
use super::wire::{self, Foreign, Name, rcode};

/// For one try. Resolvers wait 5 s for all of it.
const TRY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Of one question: each upstream once, and then again from the first.
const TRIES: usize = 3;
/// After that, one who was silent is an upstream like others.
const SILENT_TIME: Duration = Duration::from_secs(10);
const UDP_BUFFER: usize = 4096;

pub(super) struct Forwarder {
    upstreams: Vec<Upstream>,
    cache: Mutex<Cache>,
}

struct Upstream {
    address: SocketAddr,
    silent_until: Mutex<Option<Instant>>,
}

/// Nobody answered. (Who they were was logged.)
#[derive(Debug)]
pub(super) struct Silence;

impl Forwarder {
    pub fn new(upstreams: &[SocketAddr]) -> Self {
        let upstream = |address: &SocketAddr| Upstream { address: *address, silent_until: Mutex::default() };
        Self { upstreams: upstreams.iter().map(upstream).collect(), cache: Mutex::default() }
    }

    pub fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty()
    }

    pub fn cached(&self, key: &Key) -> Option<Arc<Answer>> {
        self.cache.lock().get(key, rt::instant())
    }

    pub async fn resolve(&self, name: &Name, key: Key) -> Result<Arc<Answer>, Silence> {
        if let Some(answer) = self.cached(&key) {
            return Ok(answer);
        }
        let mut failed = None;
        for upstream in self.in_order() {
            match upstream.ask(name, &key).await {
                // Another one may know better.
                Ok((message, foreign)) if foreign.rcode == u16::from(rcode::SERVER_FAILURE) => {
                    failed = Some(Arc::new(Answer::new(message, foreign, rt::instant())));
                }
                Ok((message, foreign)) => {
                    let answer = Arc::new(Answer::new(message, foreign, rt::instant()));
                    self.cache.lock().insert(key, answer.clone());
                    return Ok(answer);
                }
                Err(error) => {
                    *upstream.silent_until.lock() = Some(rt::instant() + SILENT_TIME);
                    tracing::debug!(upstream = %upstream.address, ?name, %error, "An upstream resolver is silent");
                }
            }
        }
        failed.ok_or(Silence)
    }

    fn in_order(&self) -> impl Iterator<Item = &Upstream> {
        let now = rt::instant();
        let (mut talking, silent): (Vec<_>, Vec<_>) = self
            .upstreams
            .iter()
            .partition(|upstream| upstream.silent_until.lock().is_none_or(|until| until <= now));
        talking.extend(silent);
        let len = talking.len();
        talking.into_iter().cycle().take(if len == 0 { 0 } else { TRIES })
    }
}

impl Upstream {
    async fn ask(&self, name: &Name, key: &Key) -> std::io::Result<(Vec<u8>, Foreign)> {
        let id = rt::below(1 << 16) as u16;
        let mut query = Vec::with_capacity(wire::UDP_MIN);
        wire::write_query(id, name, key.kind, key.dnssec_ok, key.checking_disabled, &mut query);
        let is_ours =
            |foreign: &Foreign| foreign.id == id && foreign.name == *name && foreign.kind == key.kind;
        let answer = rt::timeout(TRY_TIMEOUT, self.ask_udp(&query, is_ours)).await??;
        if !answer.1.is_truncated() {
            *self.silent_until.lock() = None;
            return Ok(answer);
        }
        let whole = rt::timeout(TRY_TIMEOUT, self.ask_tcp(&query, is_ours)).await;
        // Without TCP, the client is told that there is more.
        Ok(whole.ok().and_then(Result::ok).unwrap_or(answer))
    }

    async fn ask_udp(
        &self,
        query: &[u8],
        is_ours: impl Fn(&Foreign) -> bool,
    ) -> std::io::Result<(Vec<u8>, Foreign)> {
        let any: IpAddr = match self.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(self.address).await?;
        socket.send(query).await?;
        let mut message = vec![0; UDP_BUFFER];
        loop {
            let len = socket.recv(&mut message).await?;
            // What answers another question is somebody's guess.
            if let Some(foreign) = Foreign::read(&message[..len]).filter(&is_ours) {
                message.truncate(len);
                return Ok((message, foreign));
            }
        }
    }

    async fn ask_tcp(
        &self,
        query: &[u8],
        is_ours: impl Fn(&Foreign) -> bool,
    ) -> std::io::Result<(Vec<u8>, Foreign)> {
        let mut stream = TcpStream::connect(self.address).await?;
        let mut framed = (query.len() as u16).to_be_bytes().to_vec();
        framed.extend(query);
        stream.write_all(&framed).await?;
        let len = stream.read_u16().await?;
        let mut message = vec![0; usize::from(len)];
        stream.read_exact(&mut message).await?;
        let foreign = Foreign::read(&message).filter(is_ours);
        foreign.map(|foreign| (message, foreign)).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }
}
