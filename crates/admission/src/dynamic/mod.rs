//! Admission that users bring along: webhooks and policies.
//!
//! Owns: which requests a configuration is about ([`matching`]), what a webhook is sent and may answer ([`review`]),
//! the calls, and the order in which what is changed is looked at again ([`Pass`]). Never touches: sockets (crate
//! `webhook`), validation of the configurations themselves (that is their kinds', in `api`).
//!
//! Configurations are read from the watch cache and compiled when they changed since the last request
//! ([`source::Compiled`]), so a request finds what was written before it, and pays nothing where nobody configured
//! anything.

mod conditions;
mod expression;
mod inputs;
mod matching;
mod mutating_policy;
mod mutating_webhook;
mod params;
mod pass;
mod policy;
mod request;
mod review;
mod rules;
mod source;
mod users;
mod validating_policy;
mod validating_webhook;
mod webhook;

use std::sync::Arc;

use api::Resource;
use apimachinery::{GroupVersionKind, Status, Value};
use async_trait::async_trait;
use registry::Endpoint;
use registry::admission::Attributes;

pub(crate) use mutating_policy::MutatingAdmissionPolicy;
pub(crate) use mutating_webhook::MutatingAdmissionWebhook;
pub use pass::Pass;
pub(crate) use validating_policy::ValidatingAdmissionPolicy;
pub(crate) use validating_webhook::ValidatingAdmissionWebhook;

/// A step of the chain that may have to wait for somebody else.
#[async_trait]
pub trait DynamicPlugin: Send + Sync + 'static {
    /// Nobody configured anything, so that there is nothing to ask. Hot path.
    fn is_idle(&self) -> bool;

    /// Changes or refuses; `object` is `None` for a delete.
    async fn mutate(
        &self,
        _attributes: &Attributes<'_>,
        _object: Option<&mut Value>,
        _pass: &mut Pass,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses; `object` is `None` for a delete.
    async fn validate(&self, _attributes: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// What is served at the moment. Custom resources come and go, so it is asked per request.
#[async_trait]
pub trait Served: Send + Sync + 'static {
    /// Every served version of what is stored together with `resource`, itself included.
    fn equivalents(&self, resource: &Resource) -> Arc<[Arc<Resource>]>;

    /// The collection of objects of a kind.
    fn of_kind(&self, kind: &GroupVersionKind) -> Option<Endpoint>;

    /// An object of one served version in another one.
    async fn convert(&self, object: Value, from: &Resource, to: &Resource) -> Result<Value, Status>;

    /// The `Scale` of a workload.
    fn scale(&self, resource: &Resource, workload: &Value) -> Value;

    /// The workload with the replicas of a `Scale`.
    fn rescaled(&self, resource: &Resource, workload: &Value, scale: &Value) -> Result<Value, Status>;
}

/// What configurations are matched against.
#[derive(Clone)]
pub struct World {
    pub namespaces: Endpoint,
    pub served: Arc<dyn Served>,
}
