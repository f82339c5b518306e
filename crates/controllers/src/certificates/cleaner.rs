//! The cleaner: requests that nobody needs any more go, each at its time.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::CERTIFICATE_SIGNING_REQUESTS;
use apimachinery::time;
use async_trait::async_trait;
use client::typed::view;
use client::{Api, DeleteOptions, Informer, ObjectKey};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use super::{APPROVED, CertificateSigningRequest, DENIED, FAILED, Status};
use crate::Options;

const NAME: &str = "certificatesigningrequest-cleaner-controller";

/// After it was answered: with a certificate, a denial or a failure.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
/// Nobody answered it, or it was approved and nobody signed it.
const UNANSWERED: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "certificate-controller",
        event_source: NAME,
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let requests = context.informers.of(&CERTIFICATE_SIGNING_REQUESTS);
    let reconciler = Arc::new(Controller { api: context.api.clone(), requests: requests.clone() });
    boxed(controller_runtime::Controller::new(&context, reconciler).for_kind(&requests).run())
}

struct Controller {
    api: Arc<dyn Api>,
    requests: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.requests.get("", &key.name) else { return Ok(Action::await_change()) };
        let csr = view::<CertificateSigningRequest>(&object)?;
        let Some(due) = due(&csr.status, time::parse(object.creation_timestamp())) else {
            return Ok(Action::await_change());
        };
        let left = rt::now().duration_until(due);
        if left.is_positive() {
            return Ok(Action::requeue(Duration::try_from(left).unwrap_or_default()));
        }
        let options = DeleteOptions::of(&object);
        match self.api.delete(&CERTIFICATE_SIGNING_REQUESTS, "", &key.name, &options).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(Action::await_change()),
        }
    }
}

/// When a request is to go; `None` as long as nothing says so.
pub(super) fn due(status: &Status, created: Option<Timestamp>) -> Option<Timestamp> {
    let after = |kind: &str, wait: SignedDuration| {
        let conditions = status.conditions.iter().filter(move |condition| condition.kind == kind);
        conditions.filter_map(move |condition| later(time::parse(&condition.last_update_time)?, wait)).min()
    };
    let approved = after(APPROVED, if status.is_issued() { ANSWERED } else { UNANSWERED });
    let expired = status.has(APPROVED).then(|| pki::not_after(&status.certificate)).flatten();
    let expired = expired.and_then(|end| Timestamp::try_from(end).ok());
    let pending =
        created.filter(|_| status.conditions.is_empty()).and_then(|created| later(created, UNANSWERED));
    [approved, expired, pending, after(DENIED, ANSWERED), after(FAILED, ANSWERED)].into_iter().flatten().min()
}

/// `None` beyond the end of time, which a condition may be written to be at.
fn later(time: Timestamp, wait: SignedDuration) -> Option<Timestamp> {
    time.checked_add(wait).ok()
}
