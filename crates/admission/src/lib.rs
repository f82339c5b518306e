//! The admission chain and its built-in plugins.
//!
//! Owns: policy that needs to look at other objects: does the namespace exist, which service account does a pod run
//! as, what priority does a class mean. Never touches: storage (it reads the watch cache), HTTP, kinds' own rules
//! (those are validation, in `api`).
//!
//! All plugins mutate first, in order; the object is validated; then all plugins validate, as upstream does
//! (KEP-1872 and the order of `pkg/kubeapiserver/options/plugins.go`). [`Chain::default_plugins`] is the one list.

mod namespace_lifecycle;
mod pods;
mod priority;
mod service_account;
mod taint_nodes;

use std::sync::Arc;

use apimachinery::{Object, Status, Value};
use async_trait::async_trait;
use registry::admission::{Admission, Attributes};
use registry::{Endpoint, Registry};

pub use namespace_lifecycle::NamespaceLifecycle;
pub use pods::{DefaultTolerationSeconds, RuntimeClass};
pub use priority::Priority;
pub use service_account::ServiceAccount;
pub use taint_nodes::TaintNodesByCondition;

/// A step of the chain. Both methods see every operation and must leave alone what is none of their business.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Changes or refuses a new object.
    fn mutate(&self, _attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses; `object` is `None` for a delete.
    fn validate(&self, _attributes: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// Plugins in order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

/// Collections that plugins look things up in.
pub struct Lookups {
    pub namespaces: Endpoint,
    pub service_accounts: Endpoint,
    pub priority_classes: Endpoint,
    pub runtime_classes: Endpoint,
}

impl Chain {
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins }
    }

    /// The plugins that are on by default, in upstream's order.
    pub fn default_plugins(lookups: Lookups) -> Self {
        Self::new(vec![
            Box::new(NamespaceLifecycle::new(lookups.namespaces)),
            Box::new(ServiceAccount::new(lookups.service_accounts)),
            Box::new(TaintNodesByCondition),
            Box::new(Priority::new(lookups.priority_classes)),
            Box::new(DefaultTolerationSeconds),
            Box::new(RuntimeClass::new(lookups.runtime_classes)),
        ])
    }

    /// Makes this the chain of a registry.
    pub fn install(self, registry: &Registry) {
        registry.set_admission(Arc::new(self));
    }

    /// Names in order, for logs and documentation.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|plugin| plugin.name())
    }
}

#[async_trait]
impl Admission for Chain {
    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.mutate(attributes, object))
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.validate(attributes, object))
    }
}

/// The refusal of a plugin, about the object it looks at.
fn forbidden(attributes: &Attributes<'_>, why: impl std::fmt::Display) -> Status {
    Status::forbidden(&attributes.resource.group_resource(), attributes.name, why)
}

/// An object another one refers to.
fn look_up(endpoint: &Endpoint, namespace: &str, name: &str) -> Option<Arc<Object>> {
    endpoint.cache.get(&endpoint.resource.key(namespace, name))
}
