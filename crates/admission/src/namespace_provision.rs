//! `NamespaceAutoProvision`: a namespace that is missing is made for whoever creates something in it.

use apimachinery::{Status, Value, json};
use async_trait::async_trait;
use auth::UserInfo;
use registry::admission::{Attributes, Operation};
use registry::{Endpoint, WriteContext};

use crate::dynamic::{DynamicPlugin, Pass};
use crate::plugins::{BuildError, Environment};
use crate::{forbidden, look_up};

pub struct NamespaceAutoProvision {
    namespaces: Endpoint,
}

impl NamespaceAutoProvision {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { namespaces: environment.endpoint(&api::gvr::NAMESPACES)? })
    }
}

#[async_trait]
impl DynamicPlugin for NamespaceAutoProvision {
    fn is_idle(&self) -> bool {
        false
    }

    async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        _object: Option<&mut Value>,
        _pass: &mut Pass,
    ) -> Result<(), Status> {
        let namespaced = attributes.resource.namespaced && !attributes.namespace.is_empty();
        if attributes.operation != Operation::Create
            || attributes.dry_run
            || !namespaced
            || look_up(&self.namespaces, "", attributes.namespace).is_some()
        {
            return Ok(());
        }
        let user = UserInfo::api_server();
        let warnings = registry::Warnings::default();
        let ctx = WriteContext {
            user: &user,
            namespace: "",
            subresource: None,
            dry_run: false,
            field_manager: "kube-apiserver",
            now: rt::now(),
            warnings: &warnings,
        };
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": attributes.namespace}});
        match attributes.registry.create(&self.namespaces, &ctx, namespace).await {
            Err(status) if !status.is_already_exists() => Err(forbidden(attributes, status)),
            _ => Ok(()),
        }
    }
}
