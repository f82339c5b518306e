//! The admission chain and its built-in plugins.
//!
//! Owns: policy that needs to look at other objects: does the namespace exist, which service account does a pod run
//! as, what priority does a class mean. Never touches: storage (it reads the watch cache), HTTP, kinds' own rules
//! (those are validation, in `api`).
//!
//! All plugins mutate first, in order; the object is validated; then all plugins validate, as upstream does
//! (KEP-1872 and the order of `pkg/kubeapiserver/options/plugins.go`). [`plugins`] has the one list.

mod always;
mod certificates;
mod configuration;
pub mod dynamic;
mod event_rate_limit;
mod ingress_class;
mod limit_ranger;
mod namespace_defaults;
mod namespace_lifecycle;
mod namespace_provision;
mod node_restriction;
mod owner_references;
pub mod plugins;
mod pod_groups;
mod pod_security;
mod pods;
mod pods_on_nodes;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod services;
mod storage;
mod taint_nodes;
mod tolerations;

use std::sync::Arc;

use apimachinery::{Object, Status, Value};
use async_trait::async_trait;
use registry::admission::{Admission, Attributes, Operation};
use registry::{Endpoint, Registry};

use dynamic::{DynamicPlugin, Pass};
use plugins::Link;
use telemetry::{AdmissionHandle, AdmissionOperation};

pub use configuration::{Configuration, ConfigurationError, Options};
pub use plugins::{BuildError, Environment};

/// A step of the chain. Both methods see every operation and must leave alone what is none of their business.
pub trait Plugin: Send + Sync + 'static {
    /// Changes or refuses a new object.
    fn mutate(&self, _attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses; `object` is `None` for a delete.
    fn validate(&self, _attributes: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// What a chain is made of. Most plugins decide at once, and what they cost is a call; those that may have to wait are
/// asked only if they have something to do.
pub(crate) enum Step {
    Plain(Box<dyn Plugin>),
    Dynamic(Box<dyn DynamicPlugin>),
}

/// The phases, as metrics name them.
const MUTATION: &str = "admit";
const VALIDATION: &str = "validate";

/// Plugins in order.
pub struct Chain {
    plugins: Vec<Link>,
    mutation: AdmissionHandle,
    validation: AdmissionHandle,
}

impl Chain {
    /// The plugins that are on, in upstream's order.
    pub fn new(environment: &Environment<'_>, options: &Options) -> Result<Self, BuildError> {
        let metrics = &telemetry::metrics().admission;
        let (mutation, validation) = (metrics.step(MUTATION), metrics.step(VALIDATION));
        Ok(Self { plugins: plugins::build(environment, options)?, mutation, validation })
    }

    /// Makes this the chain of a registry.
    pub fn install(self, registry: &Registry) {
        registry.set_admission(Arc::new(self));
    }

    /// Names in order, for logs and documentation.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|link| link.name)
    }
}

#[async_trait]
impl Admission for Chain {
    async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Value>,
    ) -> Result<(), Status> {
        let mut pass = Pass::default();
        let mut clock = Clock::start(attributes.operation);
        let mut outcome = self.mutate_once(attributes, object.as_deref_mut(), &mut pass, &mut clock).await;
        if outcome.is_ok() && pass.begin_second() {
            outcome = self.mutate_once(attributes, object, &mut pass, &mut clock).await;
        }
        clock.total(&self.mutation, &outcome);
        outcome
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let mut clock = Clock::start(attributes.operation);
        let outcome = self.validate_all(attributes, object, &mut clock).await;
        clock.total(&self.validation, &outcome);
        outcome
    }
}

impl Chain {
    async fn mutate_once(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Value>,
        pass: &mut Pass,
        clock: &mut Clock,
    ) -> Result<(), Status> {
        for Link { step, mutating, .. } in &self.plugins {
            let Some(durations) = mutating else { continue };
            let outcome = match (step, object.as_deref_mut()) {
                (Step::Plain(plugin), Some(object)) => plugin.mutate(attributes, object),
                (Step::Plain(_), None) => continue,
                (Step::Dynamic(plugin), _) if plugin.is_idle() => Ok(()),
                (Step::Dynamic(plugin), object) => plugin.mutate(attributes, object, pass).await,
            };
            clock.lap(durations, &outcome);
            outcome?;
        }
        Ok(())
    }

    async fn validate_all(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        clock: &mut Clock,
    ) -> Result<(), Status> {
        for Link { step, validating, .. } in &self.plugins {
            let Some(durations) = validating else { continue };
            let outcome = match step {
                Step::Plain(plugin) => plugin.validate(attributes, object),
                Step::Dynamic(plugin) if plugin.is_idle() => Ok(()),
                Step::Dynamic(plugin) => plugin.validate(attributes, object).await,
            };
            clock.lap(durations, &outcome);
            outcome?;
        }
        Ok(())
    }
}

/// How long the plugins of one phase take. The end of one is the start of the next, so that each costs one look.
struct Clock {
    operation: AdmissionOperation,
    started: rt::Instant,
    last: rt::Instant,
}

impl Clock {
    fn start(operation: Operation) -> Self {
        let now = rt::instant();
        Self { operation: AdmissionOperation::named(operation.name()), started: now, last: now }
    }

    fn lap(&mut self, durations: &AdmissionHandle, outcome: &Result<(), Status>) {
        let now = rt::instant();
        durations.observe(self.operation, outcome.is_err(), now - self.last);
        self.last = now;
    }

    /// The whole phase up to the last lap.
    fn total(&self, durations: &AdmissionHandle, outcome: &Result<(), Status>) {
        durations.observe(self.operation, outcome.is_err(), self.last - self.started);
    }
}

/// The refusal of a plugin, about the object it looks at.
fn forbidden(attributes: &Attributes<'_>, why: impl std::fmt::Display) -> Status {
    Status::forbidden(&attributes.resource.group_resource(), attributes.shown_name(), why)
}

/// An object another one refers to.
fn look_up(endpoint: &Endpoint, namespace: &str, name: &str) -> Option<Arc<Object>> {
    endpoint.cache.get(&endpoint.resource.key(namespace, name))
}

/// Adds a finalizer that keeps an object for as long as it is in use.
fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = object
        .ensure_object_at(&["metadata"])
        .get_or_insert_with("finalizers", || Value::Array(Vec::new()))
        .as_array_mut();
    if let Some(finalizers) = finalizers
        && !finalizers.iter().any(|own| own.as_str() == Some(finalizer))
    {
        finalizers.push(finalizer.into());
    }
}

/// The newest object that an annotation marks as the default; the first by name of those made in the same second.
fn newest_default(endpoint: &Endpoint, marks: &[&str]) -> Option<Arc<Object>> {
    let snapshot = endpoint.cache.snapshot();
    let marked = snapshot.objects.values().filter(|object| {
        let annotations = &object.metadata_value()["annotations"];
        marks.iter().any(|mark| annotations.str_at(&[mark]) == "true")
    });
    marked
        .min_by_key(|object| {
            (std::cmp::Reverse(object.creation_timestamp().to_owned()), object.name().to_owned())
        })
        .cloned()
}

fn is_write(attributes: &Attributes<'_>) -> bool {
    matches!(attributes.operation, Operation::Create | Operation::Update)
}

/// Several complaints as one, in the form of upstream's aggregated errors: each said once, in brackets when there are
/// more of them.
fn aggregate(mut complaints: Vec<String>) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    complaints.retain(|complaint| seen.insert(complaint.clone()));
    match complaints.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}
