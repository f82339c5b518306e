//! The disruption controller: how many pods of a PodDisruptionBudget may go at this moment.
//!
//! ```text
//!     budget, its pods ──> how many there should be (scale) ──> plan: healthy, desired, allowed ──> status
//!     pod that was to be disrupted and still lives ──────────────────────────────────────────────> stale
//! ```
//!
//! The eviction subresource takes from `status.disruptionsAllowed` and notes the pod in `status.disruptedPods`; here
//! that debt is counted until the pod is gone, or forgiven after [`plan::DELETION_MAX`]. A budget that cannot be
//! judged allows nothing and says why in its condition.
//!
//! Start at [`Controller::sync`]. Behaviour: upstream's `pkg/controller/disruption`, KEP-85 and KEP-3329.

mod plan;
mod scale;
pub(crate) mod stale;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::gvr::{
    DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS,
};
use api::view::{Pod, PodDisruptionBudget};
use apimachinery::{Object, Selector, Str};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use plan::{Disrupted, Health};
use scale::{Expected, Scales};

const NAME: &str = "disruption-controller";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: NAME,
        event_source: "controllermanager",
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let [budgets, pods] = [&POD_DISRUPTION_BUDGETS, &PODS].map(|gvr| context.informers.of(gvr));
    let workloads = [&REPLICA_SETS, &DEPLOYMENTS, &STATEFUL_SETS, &REPLICATION_CONTROLLERS];
    let [sets, deployments, stateful_sets, replication_controllers] =
        workloads.map(|gvr| context.informers.of(gvr));
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        budgets: budgets.clone(),
        pods: pods.clone(),
        scales: Scales {
            api: context.api.clone(),
            sets: sets.clone(),
            deployments: deployments.clone(),
            stateful_sets: stateful_sets.clone(),
            replication_controllers: replication_controllers.clone(),
        },
    });
    let all = budgets.clone();
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .for_kind(&budgets)
        .watches(&pods, move |delta, keys| match delta {
            Delta::Upsert { old, new } => {
                wake_covering(&all, old.as_deref(), keys);
                wake_covering(&all, Some(new), keys);
            }
            Delta::Delete { old } => wake_covering(&all, Some(old), keys),
            Delta::Resync => {}
        })
        .reads(&sets)
        .reads(&deployments)
        .reads(&stateful_sets)
        .reads(&replication_controllers);
    boxed(controller.run())
}

/// The budgets that cover a pod. One whose selector is broken covers nothing.
fn wake_covering(budgets: &Informer, pod: Option<&Object>, keys: &mut Vec<ObjectKey>) {
    let Some(pod) = pod else { return };
    let covers = |object: &Arc<Object>| {
        let selector = object.view::<PodDisruptionBudget>().ok().and_then(|budget| selector_of(&budget).ok());
        selector.flatten().is_some_and(|selector| selector.matches_object(pod))
    };
    let covering = budgets.list_namespace(pod.namespace()).into_iter().filter(covers);
    keys.extend(covering.map(|budget| ObjectKey::from(&*budget)));
}

/// `None` is a budget without a selector, which covers nothing.
fn selector_of(budget: &PodDisruptionBudget) -> Result<Option<Selector>> {
    let selector = budget.spec.selector.as_ref().map(|selector| selector.selector());
    selector.transpose().map_err(|error| Error::Stalled { reason: error.to_string() })
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    budgets: Arc<Informer>,
    pods: Arc<Informer>,
    scales: Scales,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.budgets.get(&key.namespace, &key.name) else {
            return Ok(Action::await_change());
        };
        match self.sync(&object).await {
            Err(error) if !is_about_versions(&error) => {
                let refused = plan::refused(&object.to_value(), &error.to_string(), rt::now());
                self.write(&object, refused).await?;
                Err(error)
            }
            result => result,
        }
    }
}

/// A write that met a newer version says nothing about the budget.
fn is_about_versions(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.is_conflict())
}

impl Controller {
    async fn sync(&self, object: &Arc<Object>) -> Result {
        let budget = view::<PodDisruptionBudget>(object)?;
        let reference = Reference::of(object);
        let pods = self.covered(object.namespace(), &budget)?;
        if pods.is_empty() {
            self.recorder.normal(&reference, "NoPods", "No matching pods found".to_owned());
        }
        let expected = self.expected(&reference, &budget, &pods).await?;
        let now = rt::now();
        let views = || pods.iter().map(|(_, pod)| &**pod);
        let disrupted = Disrupted::of(&budget.status.disrupted_pods, views(), now);
        self.complain(object, &pods, &disrupted.overdue);
        let health = Health {
            current: plan::healthy(views(), &disrupted.going),
            desired: plan::desired(&budget.spec, expected),
            expected,
        };
        let recheck = disrupted.recheck;
        self.write(object, plan::judged(&object.to_value(), &health, &disrupted.going, now)).await?;
        Ok(recheck.map_or(Action::await_change(), Action::requeue))
    }

    fn covered(&self, namespace: &str, budget: &PodDisruptionBudget) -> Result<Vec<(Arc<Object>, Arc<Pod>)>> {
        let Some(selector) = selector_of(budget)? else { return Ok(Vec::new()) };
        let mut covered = Vec::new();
        for object in self.pods.list_namespace(namespace) {
            if selector.matches_object(&object) {
                let pod = view::<Pod>(&object)?;
                covered.push((object, pod));
            }
        }
        Ok(covered)
    }

    /// How many pods there should be: those that there are if the budget names a number that must stay, else what
    /// their controllers are told to run.
    async fn expected(
        &self,
        reference: &Reference,
        budget: &PodDisruptionBudget,
        pods: &[(Arc<Object>, Arc<Pod>)],
    ) -> Result<i32> {
        if !plan::depends_on_scale(&budget.spec) {
            return Ok(i32::try_from(pods.len()).unwrap_or(i32::MAX));
        }
        match self.scales.expected(pods.iter().map(|(object, _)| &**object)).await {
            Ok(Expected { count, unmanaged }) => {
                if !unmanaged.is_empty() {
                    self.recorder.warning(reference, "UnmanagedPods", unmanaged_message(&unmanaged));
                }
                Ok(count)
            }
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                self.recorder.warning(reference, "CalculateExpectedPodCountFailed", message);
                Err(error)
            }
        }
    }

    /// Tells of pods that were to be deleted and were not.
    fn complain(&self, budget: &Object, pods: &[(Arc<Object>, Arc<Pod>)], overdue: &[Str]) {
        for (object, _) in pods.iter().filter(|(object, _)| overdue.iter().any(|name| name == object.name()))
        {
            let message =
                format!("Pod was expected by PDB {} to be deleted but it wasn't", ObjectKey::from(budget));
            self.recorder.warning(&Reference::of(object), "NotDeleted", message);
        }
    }

    /// Writes the status, unless it is there already.
    async fn write(&self, object: &Arc<Object>, wanted: Option<apimachinery::Value>) -> Result<()> {
        let Some(tree) = wanted else { return Ok(()) };
        let options = WriteOptions::default();
        let (namespace, name) = (object.namespace(), object.name());
        match self.api.update(&POD_DISRUPTION_BUDGETS, namespace, name, Some("status"), tree, &options).await
        {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(()),
        }
    }
}

fn unmanaged_message(pods: &[Str]) -> String {
    let names: Vec<&str> = pods.iter().map(Str::as_str).collect();
    format!(
        "Pods selected by this PodDisruptionBudget (selector: [{}]) were found to be unmanaged. As a result, the status \
         of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
         please set \".spec.minAvailable\" field of the PDB to an integer value.",
        names.join(" ")
    )
}
