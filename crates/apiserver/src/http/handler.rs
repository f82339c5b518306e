//! One request: who asks, what for, may they, and the answer.
//!
//! The order is upstream's filter chain, [`Handler::filter`]: authentication, impersonation, in-flight limit,
//! authorization, then the verb (`verbs`). What is known about a request is an [`Exchange`].

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use apimachinery::{Status, Value};
use auth::UserInfo;
use auth::authenticator::PeerCertificate;
use futures::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::identity::Identifier;
use super::path::Target;
use super::proxy::Backends;
use super::{compress, nonresource, render};
use crate::door::{self, Door};
use crate::health::Readiness;

/// Requests being answered at a time, watches aside. Far above what two cores can use; it keeps a flood from
/// taking all memory (3 MiB a body at worst).
const IN_FLIGHT_MAX: usize = 1_024;

/// Everything the handlers need.
pub struct Handler {
    pub(super) door: Arc<Door>,
    pub(super) identifier: Identifier,
    pub(super) readiness: Arc<Readiness>,
    pub(super) version: Value,
    pub(super) backends: Backends,
    pub(super) shutdown: rt::Shutdown,
    in_flight: tokio::sync::Semaphore,
    /// How many of them read and how many write.
    reading: Arc<telemetry::Gauge>,
    writing: Arc<telemetry::Gauge>,
}

/// The other end of a connection.
pub struct Peer {
    pub address: SocketAddr,
    /// What it showed in the handshake; checked once and remembered.
    pub(super) certificate: Option<PeerCertificate>,
}

impl Peer {
    pub fn new(address: SocketAddr, certificates: &[CertificateDer<'_>]) -> Self {
        Self { address, certificate: PeerCertificate::new(certificates) }
    }
}

/// A place among the requests that are answered at a time; watches have none.
struct Place<'a> {
    _permit: tokio::sync::SemaphorePermit<'a>,
    _counted: telemetry::InFlight,
}

impl Handler {
    pub fn new(
        door: Arc<Door>,
        identifier: Identifier,
        readiness: Arc<Readiness>,
        version: Value,
        backends: Backends,
        shutdown: rt::Shutdown,
    ) -> Self {
        let in_flight = tokio::sync::Semaphore::new(IN_FLIGHT_MAX);
        let metrics = &telemetry::metrics().apiserver;
        let (reading, writing) = (metrics.inflight(false), metrics.inflight(true));
        Self { door, identifier, readiness, version, backends, shutdown, in_flight, reading, writing }
    }

    /// Answers one request; every failure becomes a `Status`. A panic, which no input should cause, ends the request
    /// and not the connection with everything else on it.
    pub async fn handle(&self, peer: &Peer, request: Request<Incoming>) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        let path = percent_encoding::percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned();
        let mut exchange = Exchange::new(head, &path, peer.address);
        let outcome = AssertUnwindSafe(self.filter(peer, &mut exchange, body)).catch_unwind().await;
        let answer = outcome.unwrap_or_else(|_| {
            tracing::error!(peer = %peer.address, "A request panicked");
            Err(Status::internal("the request could not be served"))
        });
        let response = answer.unwrap_or_else(|status| render::status(&status, exchange.error_encoding()));
        exchange.finish(response)
    }

    /// The chain that every request passes, outermost first. What a filter takes, a place among the requests in
    /// flight say, it keeps until the answer is there.
    async fn filter(
        &self,
        peer: &Peer,
        exchange: &mut Exchange<'_>,
        body: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        exchange.check_escapes()?;
        let (headers, path) = (&exchange.headers, exchange.path);
        let known = self.identifier.identify(peer, headers, path, rt::now().into()).await?;
        known.notes.warnings.into_iter().for_each(|warning| exchange.warnings.add(warning));
        exchange.user = known.user;
        exchange.user = self.impersonated(exchange)?;
        let _place = self.place(exchange)?;
        self.authorize(exchange)?;
        self.dispatch(exchange, body).await
    }

    /// The user that the request goes on as.
    fn impersonated(&self, exchange: &Exchange<'_>) -> Result<UserInfo, Status> {
        self.identifier.impersonate(&self.door, &exchange.attributes(), &exchange.headers)
    }

    fn place(&self, exchange: &Exchange<'_>) -> Result<Option<Place<'_>>, Status> {
        if exchange.is_long_running() {
            return Ok(None);
        }
        let permit = self
            .in_flight
            .try_acquire()
            .map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))?;
        let gauge = if exchange.is_mutating() { &self.writing } else { &self.reading };
        Ok(Some(Place { _permit: permit, _counted: gauge.track() }))
    }

    /// The right to do it is checked before whether it exists, so that a stranger learns nothing.
    fn authorize(&self, exchange: &Exchange<'_>) -> Result<(), Status> {
        if exchange.verb.is_empty() {
            return Err(door::not_allowed());
        }
        self.door.check(&exchange.attributes())
    }

    async fn dispatch(
        &self,
        exchange: &Exchange<'_>,
        body: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        match &exchange.target {
            Target::Resource(path) => self.resource(exchange, path, body).await,
            Target::NonResource(path) => {
                let response =
                    nonresource::answer(self, &exchange.method, path, &exchange.query, &exchange.headers);
                Ok(compress::maybe(response, &exchange.headers))
            }
        }
    }
}
