//! One request: who asks, what for, may they, and the answer.
//!
//! The order is upstream's filter chain, [`Handler::filter`]: authentication, impersonation, a place among the
//! requests in flight, authorization, then the verb (`verbs`). What is known about a request is an [`Exchange`].

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use apimachinery::{Status, Value};
use auth::UserInfo;
use auth::authenticator::PeerCertificate;
use flow_control::Rejected;
use futures::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::identity::Identifier;
use super::in_flight::{self, InFlight};
use super::path::Target;
use super::proxy::{Backends, Onward};
use super::{compress, nonresource, render};
use crate::door::{self, Door};
use crate::health::Readiness;

/// Everything the handlers need.
pub struct Handler {
    pub(super) door: Arc<Door>,
    pub(super) identifier: Identifier,
    pub(super) readiness: Arc<Readiness>,
    pub(super) version: Value,
    pub(super) backends: Arc<Backends>,
    pub(super) shutdown: rt::Shutdown,
    pub(super) in_flight: InFlight,
    /// `None` where nothing is recorded.
    auditor: Option<Arc<audit::Auditor>>,
    /// Whether CBOR is read and written.
    cbor: bool,
    /// How many requests read and how many write.
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

impl Handler {
    pub fn new(
        door: Arc<Door>,
        identifier: Identifier,
        readiness: Arc<Readiness>,
        version: Value,
        backends: Arc<Backends>,
        in_flight: InFlight,
        shutdown: rt::Shutdown,
    ) -> Self {
        let metrics = &telemetry::metrics().apiserver;
        let (reading, writing) = (metrics.inflight(false), metrics.inflight(true));
        Self {
            door,
            identifier,
            readiness,
            version,
            backends,
            shutdown,
            in_flight,
            auditor: None,
            cbor: false,
            reading,
            writing,
        }
    }

    /// The same with a record of the requests.
    pub fn audited_by(self, auditor: Option<Arc<audit::Auditor>>) -> Self {
        Self { auditor, ..self }
    }

    /// The same with CBOR beside JSON, or without (`CBORServingAndStorage`).
    pub fn with_cbor(self, cbor: bool) -> Self {
        Self { cbor, ..self }
    }

    /// Answers one request; every failure becomes a `Status`. A panic, which no input should cause, ends the request
    /// and not the connection with everything else on it.
    pub async fn handle(&self, peer: &Peer, request: Request<Incoming>) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        let path = percent_encoding::percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned();
        let mut exchange = Exchange::new(head, &path, peer.address, self.cbor);
        let outcome = AssertUnwindSafe(self.filter(peer, &mut exchange, body)).catch_unwind().await;
        let panicked = outcome.is_err();
        let answer = outcome.unwrap_or_else(|_| {
            tracing::error!(peer = %peer.address, "A request panicked");
            Err(Status::internal("the request could not be served"))
        });
        let failure = answer.as_ref().err().filter(|_| exchange.record.is_some());
        let failure = failure.map(audit::ResponseStatus::failure);
        let response = answer.unwrap_or_else(|status| render::status(&status, exchange.error_encoding()));
        let response = exchange.finish(response);
        let (is_head, takes_gzip) =
            (exchange.method == Method::HEAD, compress::takes_gzip(&exchange.headers));
        // The record wants the answer as it is, so this comes last.
        let response = exchange.end_record(response, failure, panicked);
        let response = if takes_gzip { compress::large(response) } else { response };
        if is_head { without_body(response) } else { response }
    }

    /// The chain that every request passes, outermost first. A place among the requests in flight is kept until the
    /// answer is written, and by a watch until what there was is sent.
    async fn filter(
        &self,
        peer: &Peer,
        exchange: &mut Exchange<'_>,
        body: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        exchange.check_escapes()?;
        let (headers, path) = (&exchange.headers, exchange.path);
        let known = self.identifier.identify(peer, headers, path, rt::now().into()).await;
        let known =
            known.inspect_err(|_| exchange.begin_record(self.auditor.as_ref(), &UserInfo::new("")))?;
        known.notes.warnings.into_iter().for_each(|warning| exchange.warnings.add(warning));
        exchange.begin_record(self.auditor.as_ref(), &known.user);
        exchange.user = known.user.clone();
        let time_allowed = exchange.time_allowed(self.in_flight.timeout)?;
        exchange.user = self.impersonated(exchange)?;
        exchange.record_impersonation(&known.user);
        if let Err(rejected) = self.take_place(exchange).await {
            return Ok(in_flight::too_many(rejected));
        }
        self.authorize(exchange)?;
        let answer = self.dispatch(exchange, body);
        let response = match time_allowed {
            None => answer.await?,
            Some(allowed) => rt::timeout(allowed, answer).await.unwrap_or_else(|_| Err(out_of_time()))?,
        };
        Ok(match exchange.place.get_mut().take() {
            Some(place) => response.map(|body| body.holding(place)),
            None => response,
        })
    }

    /// The user that the request goes on as.
    fn impersonated(&self, exchange: &Exchange<'_>) -> Result<UserInfo, Status> {
        self.identifier.impersonate(&self.door, &exchange.attributes(), &exchange.headers)
    }

    async fn take_place(&self, exchange: &mut Exchange<'_>) -> Result<(), Rejected> {
        if exchange.is_stream() {
            return Ok(());
        }
        let gauge = if exchange.is_mutating() { &self.writing } else { &self.reading };
        let place = self.in_flight.place(&self.door, exchange, gauge.track()).await?;
        *exchange.place.get_mut() = Some(place);
        Ok(())
    }

    /// The right to do it is checked before whether it exists, so that a stranger learns nothing.
    fn authorize(&self, exchange: &Exchange<'_>) -> Result<(), Status> {
        if exchange.verb.is_empty() {
            return Err(door::not_allowed());
        }
        let began = rt::instant();
        let (decision, outcome) = self.door.decide(&exchange.attributes());
        telemetry::metrics().access.authorized(decision.word(), began.elapsed());
        if let Some(record) = &exchange.record {
            let word = if decision.is_allowed() { "allow" } else { "forbid" };
            record.annotate("authorization.k8s.io/decision", word);
            record.annotate("authorization.k8s.io/reason", decision.reason());
        }
        outcome
    }

    async fn dispatch(
        &self,
        exchange: &Exchange<'_>,
        body: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        if let Some(remote) = self.backends.aggregator.find(&exchange.target) {
            exchange.served.store(true, Ordering::Relaxed);
            let running = telemetry::metrics().apiserver.long_running(&exchange.labels()).track();
            let onward = Onward { exchange, running, shutdown: &self.shutdown };
            if exchange.is_long_running() {
                // It would keep its place here for good; the other server has limits of its own.
                drop(exchange.place.lock().take());
            }
            return self.backends.aggregator.forward(&remote, onward, body).await;
        }
        match &exchange.target {
            Target::Resource(path) => self.resource(exchange, path, body).await,
            Target::NonResource(path) => {
                Ok(nonresource::answer(self, &exchange.method, path, &exchange.query, &exchange.headers))
            }
        }
    }
}

fn out_of_time() -> Status {
    Status::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
        .with_details(Default::default())
}

/// What HEAD is answered with: the head of what GET would have been (RFC 9110, 9.3.2). Over HTTP/2 a body would be a
/// breach of the protocol. How long the body would have been is said only where it is there: another server's answer
/// to HEAD has none.
fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let never_has_one = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = response.body().bytes().map(|bytes| bytes.len());
    if let Some(length) = length.filter(|_| !never_has_one) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response.map(|_| ResponseBody::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_names_the_length_of_a_body_that_is_there() {
        let named = |status: u16, named: Option<u64>, body: ResponseBody| {
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).expect("a status code");
            if let Some(length) = named {
                response.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            let length = without_body(response).headers_mut().remove(CONTENT_LENGTH)?;
            length.to_str().ok()?.parse::<u64>().ok()
        };
        let stream = || ResponseBody::Stream(Box::pin(futures::stream::empty::<bytes::Bytes>()));
        assert_eq!(named(200, None, ResponseBody::full("abc")), Some(3));
        assert_eq!(named(200, Some(7), ResponseBody::empty()), Some(7), "the other server knows");
        assert_eq!(named(200, None, ResponseBody::empty()), None, "nobody knows");
        assert_eq!(named(200, None, stream()), None);
        assert_eq!(named(304, None, ResponseBody::full("abc")), None);
    }
}
