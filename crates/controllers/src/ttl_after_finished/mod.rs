//! The TTL-after-finished controller: deletes Jobs `ttlSecondsAfterFinished` after they ended.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::gvr::JOBS;
use api::view::Job;
use apimachinery::Object;
use async_trait::async_trait;
use client::typed::view;
use client::{Api, DeleteOptions, Informer, ObjectKey, Propagation};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use crate::Options;
use crate::pods::timestamp;

const NAME: &str = "ttl-after-finished-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let jobs = context.informers.of(&JOBS);
    let reconciler = Arc::new(Controller { api: context.api.clone(), jobs: jobs.clone() });
    boxed(controller_runtime::Controller::new(&context, reconciler).for_kind(&jobs).run())
}

struct Controller {
    api: Arc<dyn Api>,
    jobs: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(cached) = self.jobs.get(&key.namespace, &key.name) else {
            return Ok(Action::await_change());
        };
        if let Some(action) = before_end(&cached, rt::now())? {
            return Ok(action);
        }
        // Its time may have been prolonged, and the cache not know it yet.
        let Some(fresh) = self.api.find(&JOBS, &key.namespace, &key.name).await? else {
            return Ok(Action::await_change());
        };
        if let Some(action) = before_end(&fresh, rt::now())? {
            return Ok(action);
        }
        let propagation = Some(Propagation::Foreground);
        let options = DeleteOptions { propagation, ..DeleteOptions::of(&fresh) };
        self.api.delete(&JOBS, &key.namespace, &key.name, &options).await?;
        Ok(Action::await_change())
    }
}

/// What happens to a Job whose time has not come; `None` when it has.
fn before_end(object: &Object, now: Timestamp) -> Result<Option<Action>> {
    if object.is_deleting() {
        return Ok(Some(Action::await_change()));
    }
    let left = until_end(&*view::<Job>(object)?, now)?;
    Ok(match left {
        None => Some(Action::await_change()),
        Some(Duration::ZERO) => None,
        Some(left) => Some(Action::requeue(left)),
    })
}

/// How long a Job stays; `None` for ever, or until it has ended.
fn until_end(job: &Job, now: Timestamp) -> Result<Option<Duration>, Error> {
    let (Some(ttl), Some(end)) = (job.spec.ttl_seconds_after_finished, job.finished()) else {
        return Ok(None);
    };
    let Some(ended) = timestamp(end.last_transition_time.as_ref()) else {
        let (namespace, name) = (&job.metadata.namespace, &job.metadata.name);
        let reason = format!("unable to find the time when the Job {namespace}/{name} finished");
        return Err(Error::Stalled { reason });
    };
    let left = SignedDuration::from_secs(ttl.into()) - now.duration_since(ended);
    Ok(Some(Duration::try_from(left).unwrap_or_default()))
}
