//! Pods that were to be disrupted and were not: their condition `DisruptionTarget` is taken back.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::PODS;
use api::view::Pod;
use apimachinery::{Object, Value, json, time};
use async_trait::async_trait;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, Patch, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use super::plan;
use crate::Options;

const CONDITION: &str = "DisruptionTarget";

/// The kubelet's own, which may stand long before the pod is deleted.
const BY_KUBELET: &str = "TerminationByKubelet";

pub(crate) fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: "stale-pod-disruption",
        service_account: super::NAME,
        event_source: "controllermanager",
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let pods = context.informers.of(&PODS);
    let reconciler = Arc::new(Stale { api: context.api.clone(), pods: pods.clone() });
    let controller =
        controller_runtime::Controller::new(&context, reconciler).watches(&pods, |delta, keys| {
            if let Delta::Upsert { new, .. } = delta
                && new.view::<Pod>().is_ok_and(|pod| until_stale(&pod, rt::now()).is_some())
            {
                keys.push(ObjectKey::from(&**new));
            }
        });
    boxed(controller.run())
}

struct Stale {
    api: Arc<dyn Api>,
    pods: Arc<Informer>,
}

/// When the condition of a pod that stays is stale; zero when it is now, `None` when it will not be.
fn until_stale(pod: &Pod, now: jiff::Timestamp) -> Option<Duration> {
    let condition = pod.condition(CONDITION)?;
    if pod.is_deleting() || pod.is_terminal() || !condition.is_true() || condition.reason == BY_KUBELET {
        return None;
    }
    let since = crate::pods::timestamp(condition.last_transition_time.as_ref());
    Some(since.and_then(|at| plan::left(at, now)).unwrap_or_default())
}

#[async_trait]
impl Reconcile for Stale {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.pods.get(&key.namespace, &key.name) else {
            return Ok(Action::await_change());
        };
        match until_stale(&*view::<Pod>(&object)?, rt::now()) {
            None => Ok(Action::await_change()),
            Some(wait) if !wait.is_zero() => Ok(Action::requeue(wait)),
            Some(_) => self.take_back(&object).await,
        }
    }
}

impl Stale {
    async fn take_back(&self, pod: &Object) -> Result {
        let patch = Patch::Strategic(taken_back(pod));
        let (namespace, name, options) = (pod.namespace(), pod.name(), WriteOptions::default());
        match self.api.patch(&PODS, namespace, name, Some("status"), patch, &options).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(Action::await_change()),
        }
    }
}

/// Only this version of the pod: it may be evicted again in this moment.
fn taken_back(pod: &Object) -> Value {
    json!({
        "metadata": {"uid": pod.uid(), "resourceVersion": pod.revision().to_string()},
        "status": {"conditions": [{"type": CONDITION, "status": "False", "reason": null, "message": null,
            "lastTransitionTime": time::format_seconds(rt::now())}]},
    })
}
