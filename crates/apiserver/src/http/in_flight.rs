//! How many requests are served at a time: by priority and fairness, or by two plain limits.

use std::sync::Arc;
use std::time::Duration;

use auth::{Attributes, user};
use flow_control::{Rejected, Seats, Width};
use http::{Response, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::path::Target;
use super::render;
use crate::door::Door;
use crate::fairness::Fairness;
use crate::options::Requests;

/// Who may be served now, and for how long.
pub struct InFlight {
    by: By,
    /// What a request may take that is not a watch or a stream.
    pub(super) timeout: Duration,
}

/// What decides.
enum By {
    Fairness(Arc<Fairness>),
    Limits(Limits),
}

/// At most so many that read and so many that write; `None` is no limit.
struct Limits {
    reading: Option<Arc<Semaphore>>,
    writing: Option<Arc<Semaphore>>,
}

/// A place among the requests that are served; given back when it is dropped.
pub enum Place {
    Seats { _seats: Seats, _counted: telemetry::InFlight },
    Permit { _permit: Option<OwnedSemaphorePermit>, _counted: telemetry::InFlight },
}

/// What whoever is sent away reads; plain text, as upstream.
const TOO_MANY: &str = "Too many requests, please try again later.\n";

impl InFlight {
    pub(crate) fn new(options: &Requests, fairness: Option<Arc<Fairness>>) -> Self {
        let semaphore = |limit: u32| (limit > 0).then(|| Arc::new(Semaphore::new(limit as usize)));
        let limits = || Limits {
            reading: semaphore(options.in_flight_max),
            writing: semaphore(options.mutating_in_flight_max),
        };
        Self { by: fairness.map_or_else(|| By::Limits(limits()), By::Fairness), timeout: options.timeout }
    }

    pub(super) fn fairness(&self) -> Option<&Fairness> {
        match &self.by {
            By::Fairness(fairness) => Some(fairness),
            By::Limits(_) => None,
        }
    }

    /// A place for the request, which may have to wait for one.
    pub(super) async fn place(
        &self,
        door: &Door,
        exchange: &mut Exchange<'_>,
        counted: telemetry::InFlight,
    ) -> Result<Place, Rejected> {
        match &self.by {
            By::Fairness(fairness) => {
                let control = fairness.control();
                let request = exchange.attributes();
                let (classified, outcome) =
                    control.admit(&request, |max| width(door, exchange, &request, max)).await;
                exchange.classified = Some(classified);
                outcome.map(|seats| Place::Seats { _seats: seats, _counted: counted })
            }
            By::Limits(limits) => {
                limits.place(exchange).map(|_permit| Place::Permit { _permit, _counted: counted })
            }
        }
    }
}

impl Limits {
    fn place(&self, exchange: &Exchange<'_>) -> Result<Option<OwnedSemaphorePermit>, Rejected> {
        let limit = if exchange.is_mutating() { &self.writing } else { &self.reading };
        match limit.as_ref().map(|limit| limit.clone().try_acquire_owned()).transpose() {
            Ok(permit) => Ok(permit),
            // An administrator always gets an answer.
            Err(_) if exchange.user.in_group(user::MASTERS) => Ok(None),
            Err(_) => Err(Rejected { retry_after_seconds: 1 }),
        }
    }
}

/// The answer to a request that gets no place.
pub(super) fn too_many(rejected: Rejected) -> Response<ResponseBody> {
    let mut response = render::bytes(429, "text/plain; charset=utf-8", TOO_MANY);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, rejected.retry_after_seconds.into());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

/// How many seats a request takes, of at most `seats_max`.
fn width(door: &Door, exchange: &Exchange<'_>, request: &Attributes<'_>, seats_max: u32) -> Width {
    let Target::Resource(path) = &exchange.target else { return Width::ONE };
    let counts = match request.verb {
        "list" => true,
        "watch" => begins_with_a_list(exchange),
        "create" | "update" | "patch" | "delete" => true,
        _ => false,
    };
    if !counts {
        return Width::ONE;
    }
    let Some(endpoint) = exchange.endpoint(door) else { return Width::ONE };
    match request.verb {
        // One object's width.
        "list" | "watch" if !request.name.is_empty() => Width::ONE,
        "list" | "watch" => {
            let (objects, bytes) = endpoint.cache.size();
            let limit: Result<usize, _> = exchange.query.get("limit").parse();
            Width::of_list(objects, bytes, limit.unwrap_or_default(), seats_max)
        }
        // Tokens are no events.
        _ if (path.resource, path.subresource) == ("serviceaccounts", "token") => Width::ONE,
        _ => Width::of_write(endpoint.cache.watchers(), seats_max),
    }
}

/// Whether a watch sends what there is before what happens.
fn begins_with_a_list(exchange: &Exchange<'_>) -> bool {
    let query = &exchange.query;
    query.flag("sendInitialEvents") || matches!(query.get("resourceVersion"), "" | "0")
}
