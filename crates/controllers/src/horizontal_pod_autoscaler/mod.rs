//! The autoscaler: as many replicas as metrics ask for.
//!
//! ```text
//!     scale target ──> its replicas and pods ─┐
//!     metrics ────────────────────────────────┴─> replicas: the most that one asks for ──> limits ──> scale
//! ```
//!
//! Nothing tells of a metric that changes, so every autoscaler is looked at [`Settings::sync_period`] after it was
//! last. What was recommended and done lately is kept in memory, as upstream does; a restart forgets it.
//!
//! Start at [`Controller::sync`]. Behaviour: upstream's `pkg/controller/podautoscaler`, KEP-117, KEP-853, KEP-1610,
//! KEP-2021 and KEP-4951.

mod limits;
mod metrics;
mod replicas;
mod selectors;
mod source;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::conditions::{self, Condition};
use api::gvr::{HORIZONTAL_POD_AUTOSCALERS, PODS};
use api::view::HorizontalPodAutoscaler;
use apimachinery::{GroupVersion, GroupVersionResource, Object, Selector, Status, Value, time};
use async_trait::async_trait;
use client::events::Reference;
use client::typed::view;
use client::{Api, Delta, Informer, ObjectKey, Recorder, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Error, Reconcile, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use telemetry::AutoscalerAction;

use crate::Options;
use crate::pods::PodOf;
use limits::{History, Wish};
use metrics::Metrics;
use selectors::Selectors;
use source::{Asked, Unable};

/// Upstream's settings of this controller.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Between two looks at an autoscaler.
    pub sync_period: Duration,
    /// How long a high recommendation keeps a target from shrinking, unless its behaviour says otherwise.
    pub downscale_stabilization: Duration,
    /// How far use may be from its target, as a fraction.
    pub tolerance: f64,
    /// After a pod's start, during which its use of processors counts only while it is ready.
    pub cpu_initialization_period: Duration,
    /// After a pod's start, during which a change to not ready is taken for never having been ready.
    pub initial_readiness_delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sync_period: Duration::from_secs(15),
            downscale_stabilization: Duration::from_secs(5 * 60),
            tolerance: 0.1,
            cpu_initialization_period: Duration::from_secs(5 * 60),
            initial_readiness_delay: Duration::from_secs(30),
        }
    }
}

/// Tries of a rescale against newer versions, and the pause between them; client-go's default.
const CONFLICT_TRIES: u32 = 5;
const CONFLICT_PAUSE: Duration = Duration::from_millis(10);

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: "horizontal-pod-autoscaler-controller",
        service_account: "horizontal-pod-autoscaler",
        event_source: "horizontal-pod-autoscaler",
        workers: 5,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let [autoscalers, pods] = [&HORIZONTAL_POD_AUTOSCALERS, &PODS].map(|gvr| context.informers.of(gvr));
    let features = &context.options.features;
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        recorder: context.recorder.clone(),
        metrics: Metrics { api: context.api.clone() },
        autoscalers: autoscalers.clone(),
        pods: pods.clone(),
        settings: context.options.autoscaler.clone(),
        scales_to_zero: features.enabled("HPAScaleToZero"),
        has_own_tolerances: features.enabled("HPAConfigurableTolerance"),
        selectors: Selectors::default(),
        histories: Mutex::default(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler.clone());
    let queue = controller.queue().clone();
    let controller = controller
        .watches(&autoscalers, move |delta, keys| match delta {
            // No sooner than everything else about it, or its own status would bring it back at once.
            Delta::Upsert { new, .. } => {
                let key = ObjectKey::from(&**new);
                reconciler.meet(&key);
                queue.add_after(key, reconciler.settings.sync_period);
            }
            Delta::Delete { old } => keys.push(ObjectKey::from(&**old)),
            Delta::Resync => {}
        })
        .reads(&pods);
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    recorder: Recorder,
    metrics: Metrics,
    autoscalers: Arc<Informer>,
    pods: Arc<Informer>,
    settings: Settings,
    /// `HPAScaleToZero`.
    scales_to_zero: bool,
    /// `HPAConfigurableTolerance`.
    has_own_tolerances: bool,
    selectors: Selectors,
    histories: Mutex<HashMap<ObjectKey, History>>,
}

/// One look at an autoscaler.
struct Look<'a> {
    key: &'a ObjectKey,
    reference: Reference,
    autoscaler: &'a HorizontalPodAutoscaler,
    /// The autoscaler as it will be written.
    tree: Value,
}

/// What a look came to. Why it did not succeed says whose fault it was.
#[derive(Debug)]
enum Failure {
    Spec(String),
    Internal(String),
}

/// The `scale` subresource of a target.
struct Scale {
    resource: GroupVersionResource,
    tree: Value,
}

/// Replicas that metrics ask for.
struct Recommended {
    replicas: i32,
    /// The metric that asked for the most.
    metric: String,
    statuses: Vec<Value>,
    /// Of metrics that could not be read.
    error: Option<String>,
}

/// No metric, or not enough of them, could be read.
struct NothingRecommended {
    statuses: Value,
    error: String,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.autoscalers.get(&key.namespace, &key.name) else {
            self.forget(key);
            return Ok(Action::await_change());
        };
        self.meet(key);
        let started = rt::instant();
        let mut action = AutoscalerAction::None;
        let outcome = self.sync(key, &object, &mut action).await;
        let error = outcome.as_ref().err().map(Failure::label);
        telemetry::metrics().autoscaler.reconciled(action, error, started.elapsed());
        let after = self.settings.sync_period;
        match outcome {
            Ok(()) => Ok(Action::requeue(after)),
            Err(Failure::Spec(reason) | Failure::Internal(reason)) => Err(Error::Waiting { after, reason }),
        }
    }
}

impl Failure {
    fn label(&self) -> &'static str {
        match self {
            Self::Spec(_) => "spec",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Internal(status.to_string())
    }
}

impl Scale {
    fn replicas(&self) -> i32 {
        integer(&self.tree["spec"]["replicas"])
    }

    fn status_replicas(&self) -> i32 {
        integer(&self.tree["status"]["replicas"])
    }
}

fn integer(value: &Value) -> i32 {
    value.as_i64().unwrap_or_default().clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

impl Look<'_> {
    fn set(&mut self, condition: &Condition) {
        condition.set(&mut self.tree, rt::now());
    }

    fn remove(&mut self, kind: &str) {
        if let Some(all) = self.tree.at_mut(&["status", "conditions"]).and_then(Value::as_array_mut) {
            all.retain(|own| own.str_at(&["type"]) != kind);
        }
    }

    /// All of the status but its conditions.
    fn set_status(&mut self, current: i32, desired: i32, metrics: Value) {
        let mut status = Value::object();
        for kept in ["conditions", "lastScaleTime"] {
            if let Some(value) = self.tree.at(&["status", kept]) {
                status.set_at(&[kept], value.clone());
            }
        }
        if current != 0 {
            status.set_at(&["currentReplicas"], i64::from(current));
        }
        status.set_at(&["desiredReplicas"], i64::from(desired));
        status.set_at(&["currentMetrics"], metrics);
        self.tree.set_at(&["status"], status);
    }
}

impl Controller {
    fn meet(&self, key: &ObjectKey) {
        if self.selectors.register(key) {
            telemetry::metrics().autoscaler.autoscalers.inc();
        }
    }

    fn forget(&self, key: &ObjectKey) {
        if self.selectors.forget(key) {
            telemetry::metrics().autoscaler.autoscalers.dec();
        }
        self.histories.lock().remove(key);
    }

    async fn sync(
        &self,
        key: &ObjectKey,
        object: &Object,
        action: &mut AutoscalerAction,
    ) -> Result<(), Failure> {
        let autoscaler = view::<HorizontalPodAutoscaler>(object)?;
        let reference = Reference::of(object);
        let mut look = Look { key, reference, autoscaler: &autoscaler, tree: object.to_value() };
        let outcome = self.scale(&mut look, action).await;
        let written = self.write(object, &look).await;
        // An error that was met first is told first, but one of writing is the last word of a look that went well.
        outcome.and(written)
    }

    async fn scale(&self, look: &mut Look<'_>, action: &mut AutoscalerAction) -> Result<(), Failure> {
        let spec = &look.autoscaler.spec;
        let target = &spec.scale_target_ref;
        let reference = format!("{}/{}/{}", target.kind, look.key.namespace, target.name);
        let mut scale = self.scale_of_target(look, &reference).await?;
        look.set(&Condition::new(
            "AbleToScale",
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        ));
        let current = scale.replicas();
        self.with_history(look.key, |history| history.begin(current, rt::instant()));

        let min = spec.min_replicas.unwrap_or(1);
        let was_scaled_to_zero = self.scales_to_zero && conditions::is_true(&look.tree, "ScaledToZero");
        let mut statuses = Value::Null;
        let mut error = None;
        let (desired, why) = if current == 0 && !leaves_zero(look.autoscaler, min, was_scaled_to_zero) {
            look.set(&Condition::new(
                "ScalingActive",
                false,
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            ));
            if !self.scales_to_zero {
                look.remove("ScaledToZero");
            }
            (0, String::new())
        } else if current > spec.max_replicas {
            (spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current != 0 && current < min {
            (min, BELOW_MIN.to_owned())
        } else {
            let recommended = match self.recommend(look, &scale).await {
                Ok(recommended) => recommended,
                Err(NothingRecommended { statuses, error }) => {
                    look.set_status(current, look.autoscaler.status.desired_replicas, statuses);
                    self.recorder.warning(&look.reference, "FailedComputeMetricsReplicas", error.as_str());
                    return Err(Failure::Internal(format!(
                        "failed to compute desired number of replicas based on listed metrics for {reference}: {error}"
                    )));
                }
            };
            let chosen = self.within_limits(look, current, min, &recommended, was_scaled_to_zero);
            statuses = recommended.statuses.into();
            error = recommended.error;
            chosen
        };

        let rescale = desired != current;
        if rescale {
            if let Err(status) = self.rescale(look, &mut scale, desired).await {
                let message = format!("New size: {desired}; reason: {why}; error: {status}");
                self.recorder.warning(&look.reference, "FailedRescale", message);
                look.set(&Condition::new(
                    "AbleToScale",
                    false,
                    "FailedUpdateScale",
                    format!("the HPA controller was unable to update the target scale: {status}"),
                ));
                look.set_status(current, look.autoscaler.status.desired_replicas, statuses);
                return Err(Failure::Internal(format!("failed to rescale {reference}: {status}")));
            }
            *action = AutoscalerAction::between(current, desired);
            self.tell_of_rescale(look, (current, desired), min, &why);
        }
        look.set_status(current, desired, statuses);
        if rescale {
            look.tree.set_at(&["status", "lastScaleTime"], time::format_seconds(rt::now()));
        }
        telemetry::metrics().autoscaler.desired(&look.key.namespace, &look.key.name, desired.into());
        error.map_or(Ok(()), |error| Err(Failure::Internal(error)))
    }

    async fn scale_of_target(&self, look: &mut Look<'_>, reference: &str) -> Result<Scale, Failure> {
        let target = &look.autoscaler.spec.scale_target_ref;
        let (why, failure) = match GroupVersion::parse(&target.api_version) {
            None => {
                let why = format!("unexpected GroupVersion string: {}", target.api_version);
                let failure = format!("invalid API version in scale target reference: {why}");
                (why, Failure::Spec(failure))
            }
            Some(version) => {
                match self.scale_of(&look.key.namespace, &version.group, &target.kind, &target.name).await {
                    Ok(scale) => return Ok(scale),
                    Err(why) => {
                        let failure = format!("failed to query scale subresource for {reference}: {why}");
                        (why, Failure::Internal(failure))
                    }
                }
            }
        };
        self.recorder.warning(&look.reference, "FailedGetScale", why.as_str());
        look.set(&Condition::new(
            "AbleToScale",
            false,
            "FailedGetScale",
            format!("the HPA controller was unable to get the target's current scale: {why}"),
        ));
        Err(failure)
    }

    /// The scale of an object, of the first resource of its kind that has such a one.
    async fn scale_of(&self, namespace: &str, group: &str, kind: &str, name: &str) -> Result<Scale, String> {
        let resources = self.metrics.resources(group, kind).await.map_err(|status| status.to_string())?;
        let mut first = None;
        for resource in resources.into_iter().map(|own| own.gvr) {
            match self.api.get_subresource(&resource, namespace, name, "scale").await {
                Ok(tree) => return Ok(Scale { resource, tree }),
                Err(status) => first = first.or(Some(status)),
            }
        }
        Err(first.map_or_else(|| metrics::no_matches(group, kind), |status| status.to_string()))
    }

    /// The most replicas that a metric asks for. Metrics that cannot be read are passed over, unless there would be
    /// fewer replicas for it.
    async fn recommend(&self, look: &mut Look<'_>, scale: &Scale) -> Result<Recommended, NothingRecommended> {
        let (selector, pods) =
            self.select(look, scale).map_err(|error| NothingRecommended { statuses: Value::Null, error })?;
        let (key, autoscaler) = (look.key, look.autoscaler);
        let asked = Asked {
            namespace: &key.namespace,
            selector: &selector,
            pods: &pods,
            replicas: scale.replicas(),
            status_replicas: scale.status_replicas(),
            tolerances: self.tolerances(autoscaler),
            settings: &self.settings,
        };
        let specs = &autoscaler.spec.metrics;
        let mut recommended =
            Recommended { replicas: 0, metric: String::new(), statuses: Vec::new(), error: None };
        let mut first: Option<Unable> = None;
        let mut invalid = 0;
        for spec in specs {
            let started = rt::instant();
            let computed = self.metrics.compute(spec, &asked).await;
            self.count_computation(look, &spec.type_, &computed, started.elapsed());
            match computed {
                Ok(own) => {
                    if recommended.replicas == 0 || own.replicas > recommended.replicas {
                        recommended.replicas = own.replicas;
                        recommended.metric = own.name;
                    }
                    recommended.statuses.push(own.status);
                }
                Err(unable) => {
                    self.recorder.warning(&look.reference, unable.reason, unable.why.as_str());
                    invalid += 1;
                    first = first.or(Some(unable));
                    // Its place is kept, as upstream's is.
                    recommended.statuses.push(apimachinery::json!({"type": ""}));
                }
            }
        }
        let error = first.as_ref().map(|unable| {
            format!(
                "invalid metrics ({invalid} invalid out of {}), first error is: {}",
                specs.len(),
                unable.error
            )
        });
        if let Some(unable) =
            first.filter(|_| invalid >= specs.len() || recommended.replicas < scale.replicas())
        {
            look.set(&Condition::new(
                "ScalingActive",
                false,
                unable.reason,
                format!("the HPA was unable to compute the replica count: {}", unable.why),
            ));
            let (statuses, error) = (recommended.statuses.into(), error.unwrap_or_default());
            return Err(NothingRecommended { statuses, error });
        }
        look.set(&Condition::new(
            "ScalingActive",
            true,
            "ValidMetricFound",
            format!("the HPA was able to successfully calculate a replica count from {}", recommended.metric),
        ));
        Ok(Recommended { error, ..recommended })
    }

    /// The pods of the target, which must be no other autoscaler's.
    fn select(&self, look: &mut Look<'_>, scale: &Scale) -> Result<(Selector, Vec<PodOf>), String> {
        let (key, text) = (look.key, scale.tree.str_at(&["status", "selector"]));
        let mut refuse = |event: &str, reason: &'static str, why: &str, message: &str| {
            self.recorder.warning(&look.reference, event, why);
            look.set(&Condition::new("ScalingActive", false, reason, message));
            why.to_owned()
        };
        if text.is_empty() {
            let message = "the HPA target's scale is missing a selector";
            return Err(refuse("SelectorRequired", "InvalidSelector", "selector is required", message));
        }
        let selector = Selector::parse(text).map_err(|error| {
            let why =
                format!("couldn't convert selector into a corresponding internal selector object: {error}");
            refuse("InvalidSelector", "InvalidSelector", &why, &why)
        })?;
        self.selectors.update(key, &selector);
        let namespace = &key.namespace;
        let mut pods = self.pods.list_namespace(namespace);
        pods.retain(|pod| selector.matches_object(pod));
        let others = self.selectors.controlling(namespace, pods.iter().map(|pod| &**pod));
        if others.len() > 1 {
            // Upstream's keys, as Go prints them.
            let keys: Vec<String> = others.iter().map(|name| format!("{{{name} {namespace}}}")).collect();
            let keys = keys.join(" ");
            let why = format!("pods by selector {text} are controlled by multiple HPAs: [{keys}]");
            return Err(refuse("AmbiguousSelector", "AmbiguousSelector", &why, &why));
        }
        let pods = pods.into_iter().map(PodOf::read).collect::<Result<_, Status>>();
        Ok((selector, pods.map_err(|status| status.to_string())?))
    }

    fn tolerances(&self, autoscaler: &HorizontalPodAutoscaler) -> replicas::Tolerances {
        let behavior = autoscaler.spec.behavior.as_ref().filter(|_| self.has_own_tolerances);
        let own = |rules: Option<&api::view::HpaScalingRules>| {
            rules
                .and_then(|rules| rules.tolerance)
                .map_or(self.settings.tolerance, |own| own.0.approximate_f64())
        };
        replicas::Tolerances {
            down: own(behavior.map(|own| &own.scale_down)),
            up: own(behavior.map(|own| &own.scale_up)),
        }
    }

    fn count_computation(
        &self,
        look: &Look<'_>,
        kind: &str,
        computed: &Result<source::Computed, Unable>,
        took: Duration,
    ) {
        let (action, error) = match computed {
            Ok(own) => {
                (AutoscalerAction::between(look.autoscaler.status.current_replicas, own.replicas), None)
            }
            Err(unable) => (AutoscalerAction::None, Some(if unable.is_spec { "spec" } else { "internal" })),
        };
        telemetry::metrics().autoscaler.computed(action, error, kind, took);
    }

    /// How many replicas there will be, and why.
    fn within_limits(
        &self,
        look: &mut Look<'_>,
        current: i32,
        min: i32,
        recommended: &Recommended,
        was_scaled_to_zero: bool,
    ) -> (i32, String) {
        let spec = &look.autoscaler.spec;
        let wish = Wish { current, desired: recommended.replicas, min, max: spec.max_replicas };
        let mut why = match wish.desired.cmp(&current) {
            std::cmp::Ordering::Greater => format!("{} above target", recommended.metric),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let window = self.settings.downscale_stabilization;
        let behavior = spec.behavior.as_ref();
        let normalized = self.with_history(look.key, |history| {
            limits::normalize(history, wish, behavior, window, rt::instant())
        });
        look.set(&normalized.able_to_scale);
        look.set(&normalized.scaling_limited);
        let mut desired = normalized.replicas;
        if current == 0 && was_scaled_to_zero && desired < min {
            desired = min;
            if why.is_empty() {
                BELOW_MIN.clone_into(&mut why);
            }
        }
        (desired, why)
    }

    /// Writes the scale, again on conflict.
    async fn rescale(&self, look: &Look<'_>, scale: &mut Scale, desired: i32) -> Result<(), Status> {
        let (namespace, name) = (&look.key.namespace, &look.autoscaler.spec.scale_target_ref.name);
        let mut tries = 0;
        loop {
            tries += 1;
            scale.tree.set_at(&["spec", "replicas"], i64::from(desired));
            let (tree, options) = (scale.tree.clone(), WriteOptions::default());
            let written =
                self.api.update(&scale.resource, namespace, name, Some("scale"), tree, &options).await;
            let Err(status) = written else { return Ok(()) };
            if !status.is_conflict() || tries == CONFLICT_TRIES {
                return Err(status);
            }
            rt::sleep(rt::jittered(CONFLICT_PAUSE, 0.1)).await;
            if let Ok(latest) = self.api.get_subresource(&scale.resource, namespace, name, "scale").await {
                scale.tree = latest;
            }
        }
    }

    fn tell_of_rescale(&self, look: &mut Look<'_>, (current, desired): (i32, i32), min: i32, why: &str) {
        look.set(&Condition::new(
            "AbleToScale",
            true,
            "SucceededRescale",
            format!("the HPA controller was able to update the target scale to {desired}"),
        ));
        let message = format!("New size: {desired}; reason: {why}");
        self.recorder.normal(&look.reference, "SuccessfulRescale", message);
        let behavior = look.autoscaler.spec.behavior.as_ref();
        self.with_history(look.key, |history| {
            history.rescaled(behavior, (current, desired), rt::instant());
        });
        tracing::info!(autoscaler = %look.key, current, desired, reason = why, "Rescaled target");
        if !self.scales_to_zero {
            look.remove("ScaledToZero");
        } else if current > 0 && desired == 0 && min == 0 && has_metric_without_pods(look.autoscaler) {
            let message = "the HPA controller scaled the workload to zero";
            look.set(&Condition::new("ScaledToZero", true, "ScaledToZero", message));
        } else {
            let message = "the HPA controller did not scale the workload to zero";
            look.set(&Condition::new("ScaledToZero", false, "NotScaledToZero", message));
        }
    }

    fn with_history<T>(&self, key: &ObjectKey, look: impl FnOnce(&mut History) -> T) -> T {
        look(self.histories.lock().entry(key.clone()).or_default())
    }

    /// Writes the status, unless it is there already.
    async fn write(&self, object: &Object, look: &Look<'_>) -> Result<(), Failure> {
        if look.tree == object.to_value() {
            return Ok(());
        }
        let (namespace, name, options) = (object.namespace(), object.name(), WriteOptions::default());
        let (gvr, tree) = (&HORIZONTAL_POD_AUTOSCALERS, look.tree.clone());
        match self.api.update(gvr, namespace, name, Some("status"), tree, &options).await {
            Ok(_) => Ok(()),
            Err(status) => {
                self.recorder.warning(&look.reference, "FailedUpdateStatus", status.to_string());
                Err(Failure::Internal(format!("failed to update status for {name}: {status}")))
            }
        }
    }
}

const BELOW_MIN: &str = "Current number of replicas below Spec.MinReplicas";

/// Whether a target without replicas may get some: only if it lost them here.
fn leaves_zero(autoscaler: &HorizontalPodAutoscaler, min: i32, was_scaled_to_zero: bool) -> bool {
    was_scaled_to_zero && (min != 0 || has_metric_without_pods(autoscaler))
}

/// Whether a metric says something also when there are no pods.
fn has_metric_without_pods(autoscaler: &HorizontalPodAutoscaler) -> bool {
    autoscaler.spec.metrics.iter().any(|own| matches!(own.type_.as_str(), "Object" | "External"))
}
