//! Plugins about namespaces: nothing is created in one that is missing or on its way out, and the system's own cannot
//! be deleted.

use apimachinery::status::{Cause, Details};
use apimachinery::{Status, Value};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::plugins::{BuildError, Environment};
use crate::{Plugin, forbidden, look_up};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// `NamespaceLifecycle`
pub struct NamespaceLifecycle {
    namespaces: Endpoint,
}

impl NamespaceLifecycle {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { namespaces: environment.endpoint(&api::gvr::NAMESPACES)? })
    }
}

impl Plugin for NamespaceLifecycle {
    fn mutate(&self, attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        let namespaced = attributes.resource.namespaced && !attributes.namespace.is_empty();
        // Asking whether one may do something has to work anywhere.
        let access_review = attributes.resource.group == "authorization.k8s.io";
        if !namespaced || access_review || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(namespace) = look_up(&self.namespaces, "", attributes.namespace) else {
            return Err(Status::not_found(&self.namespaces.resource.group_resource(), attributes.namespace));
        };
        if !namespace.is_deleting() {
            return Ok(());
        }
        Err(terminating(attributes))
    }

    fn validate(&self, attributes: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        let deletes_namespace = attributes.operation == Operation::Delete && attributes.is("", "namespaces");
        if deletes_namespace && IMMORTAL.contains(&attributes.name) {
            return Err(forbidden(attributes, "this namespace may not be deleted"));
        }
        Ok(())
    }
}

fn terminating(attributes: &Attributes<'_>) -> Status {
    let namespace = attributes.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let details = Details {
        name: attributes.name.into(),
        group: attributes.resource.group.clone(),
        kind: attributes.resource.plural.clone(),
        causes: vec![Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        }],
        ..Details::default()
    };
    forbidden(attributes, why).with_details(details)
}

/// `NamespaceExists`: no request about a namespace that is missing, also no update or delete.
pub struct NamespaceExists {
    namespaces: Endpoint,
}

impl NamespaceExists {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { namespaces: environment.endpoint(&api::gvr::NAMESPACES)? })
    }
}

impl Plugin for NamespaceExists {
    fn validate(&self, attributes: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        let namespaced = attributes.resource.namespaced && !attributes.namespace.is_empty();
        if !namespaced
            || attributes.operation == Operation::Connect
            || look_up(&self.namespaces, "", attributes.namespace).is_some()
        {
            return Ok(());
        }
        Err(Status::not_found(&self.namespaces.resource.group_resource(), attributes.namespace))
    }
}
