//! Cluster DNS: the names of Services and pods, and a way to everybody else's.
//!
//! Owns: the index of names ([`index`]), what is answered from it ([`zone`]), the sockets ([`server`]), and the
//! conversation with upstream resolvers ([`forward`], [`cache`]), and, once in a cluster, the Service that leads here
//! ([`publication`]). Never touches: the `resolv.conf` of pods. It reads the API through informers only, so it goes on
//! answering while the API is away.
//!
//! ```text
//!   Namespaces, Services, EndpointSlices ── feed ──> Index
//!                                                      │
//!   socket ── Query ── Zone::answer ───────────────────┴──> answer
//!                          └─ not the cluster's ── Cache ── Forwarder ──> upstream
//! ```
//!
//! Start at [`run`], then [`server::Server::handle`].

mod cache;
mod feed;
mod forward;
mod index;
mod objects;
pub mod publication;
mod server;
mod wire;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use client::Informers;
use rt::Shutdown;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;

use self::feed::Feed;
use self::forward::Forwarder;
use self::server::Server;
use self::zone::Zone;

pub const PORT: u16 = 53;
/// Tries to find a port that is free for both UDP and TCP, where any will do.
const BIND_TRIES: usize = 16;
/// Loops that receive from one UDP socket; more than one answers while another's thread is busy elsewhere.
const UDP_LOOPS: usize = 2;

/// What a DNS server is started with.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    /// Where it listens, over UDP and TCP. On a host with several addresses, name those that are asked: an answer from
    /// a wildcard address may come from another one than was asked.
    pub listen: Vec<SocketAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Who is asked about other names, in this order; [`upstreams`] reads them from the host's `resolv.conf`. Those
    /// that would be ourselves are left out.
    pub upstreams: Vec<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cluster domain {0:?} is not a domain name")]
    Domain(String),
    #[error("listening for DNS on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Answers until `shutdown`. `ready` gets the addresses in use, once the cluster's names are known; until then questions
/// about those fail, and others are answered already.
pub async fn run(
    informers: &Informers,
    options: DnsOptions,
    ready: oneshot::Sender<Vec<SocketAddr>>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let zone = Zone::new(&options.cluster_domain).ok_or(Error::Domain(options.cluster_domain))?;
    let mut sockets = Vec::new();
    for address in &options.listen {
        let listening = bind(*address).await;
        sockets.push(listening.map_err(|source| Error::Listen { address: *address, source })?);
    }
    let own: Vec<SocketAddr> = sockets.iter().map(|(address, ..)| *address).collect();
    let upstreams = without_ourselves(&options.upstreams, &own);
    if upstreams.is_empty() {
        tracing::warn!("There are no upstream resolvers: names outside of the cluster are refused");
    }
    let feed = Feed::new(informers);
    let mut filled = feed.filled();
    let server = Server::new(zone, feed.index(), filled.clone(), Forwarder::new(&upstreams));
    let server = Arc::new(server);
    rt::spawn("dns-feed", feed.run(shutdown.clone()));
    for (_, udp, tcp) in sockets {
        let udp = Arc::new(udp);
        for _ in 0..UDP_LOOPS {
            rt::spawn("dns-udp", server.clone().serve_udp(udp.clone(), shutdown.clone()));
        }
        rt::spawn("dns-tcp", server.clone().serve_tcp(tcp, shutdown.clone()));
    }
    tokio::select! {
        // An error says that the feed ended, which it does at shutdown.
        filled = filled.wait_for(|filled| *filled) => if filled.is_ok() {
            tracing::info!(addresses = ?own, ?upstreams, "Cluster DNS answers");
            // Nobody need be waiting.
            let _ = ready.send(own);
        },
        () = shutdown.cancelled() => {}
    }
    shutdown.cancelled().await;
    Ok(())
}

/// The name servers of a `resolv.conf`.
pub fn upstreams(resolv_conf: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok())
        {
            found.push(SocketAddr::new(address, PORT));
        }
    }
    found
}

/// A resolver that asks itself never comes to an end.
fn without_ourselves(upstreams: &[SocketAddr], own: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_own = |upstream: &SocketAddr| {
        own.iter().any(|own| {
            let everywhere = own.ip().is_unspecified() && upstream.ip().is_loopback();
            own.port() == upstream.port() && (own.ip() == upstream.ip() || everywhere)
        })
    };
    let (ourselves, others): (Vec<_>, Vec<_>) = upstreams.iter().copied().partition(is_own);
    for address in ourselves {
        tracing::warn!(%address, "An upstream resolver is this DNS server itself; it is left out");
    }
    others
}

async fn bind(address: SocketAddr) -> std::io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let udp = UdpSocket::bind(address).await?;
        let bound = udp.local_addr()?;
        match TcpListener::bind(bound).await {
            Ok(tcp) => return Ok((bound, udp, tcp)),
            Err(error) if address.port() != 0 || tries == BIND_TRIES => return Err(error),
            // Another one's TCP port has the number that was free for UDP.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
