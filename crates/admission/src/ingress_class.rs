//! `DefaultIngressClass`: an Ingress that names no class gets the default one.

use apimachinery::{Status, Value};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::plugins::{BuildError, Environment};
use crate::{Plugin, newest_default};

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How classes were named before they were objects.
const LEGACY: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass {
    classes: Endpoint,
}

impl DefaultIngressClass {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { classes: environment.named("networking.k8s.io", "v1", "ingressclasses")? })
    }
}

impl Plugin for DefaultIngressClass {
    fn mutate(&self, attributes: &Attributes<'_>, ingress: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is("networking.k8s.io", "ingresses") {
            return Ok(());
        }
        let named = !ingress["spec"]["ingressClassName"].is_null()
            || ingress.at(&["metadata", "annotations", LEGACY]).is_some();
        if !named && let Some(class) = newest_default(&self.classes, &[IS_DEFAULT]) {
            ingress.set_at(&["spec", "ingressClassName"], class.name());
        }
        Ok(())
    }
}
