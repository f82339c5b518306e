//! The controller of the status of ValidatingAdmissionPolicies: holds the expressions of a policy against the schemas of
//! the kinds that it is about, and writes what does not fit into `status.typeChecking`.
//!
//! Warnings change nothing about what the policy does. A policy is checked once for each generation, as upstream; a
//! definition that comes or changes later does not have it checked again.
//!
//! [`kinds`] says which kinds that are, [`check`] what is wrong.

mod check;
mod kinds;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api::gvr::VALIDATING_ADMISSION_POLICIES;
use apimachinery::{GroupVersion, GroupVersionKind, Status, Value, json};
use async_trait::async_trait;
use cel::Decl;
use client::{Api, Informer, ObjectKey, Patch, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;
use structural_schema::published;

use self::check::Subject;
use crate::Options;

const NAME: &str = "validatingadmissionpolicy-status-controller";
const FIELD_MANAGER: &str = "validatingadmissionpolicy-status";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 5, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let policies = context.informers.of(&VALIDATING_ADMISSION_POLICIES);
    let reconciler = Arc::new(Controller { api: context.api.clone(), policies: policies.clone() });
    boxed(controller_runtime::Controller::new(&context, reconciler).for_kind(&policies).run())
}

struct Controller {
    api: Arc<dyn Api>,
    policies: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.policies.get("", &key.name) else { return Ok(Action::await_change()) };
        let policy = object.to_value();
        if object.generation() <= policy["status"]["observedGeneration"].as_i64().unwrap_or_default() {
            return Ok(Action::await_change());
        }
        let spec = &policy["spec"];
        let warnings = check::warnings(spec, &self.subject(spec).await?);
        self.write(&key.name, object.generation(), warnings).await?;
        Ok(Action::await_change())
    }
}

impl Controller {
    /// What is known of the objects and of the parameters. Kinds that are not served, or not described, are left out.
    async fn subject(&self, spec: &Value) -> Result<Subject, Status> {
        let served = self.api.discover_all().await?;
        let mut documents = Documents { api: &*self.api, known: HashMap::new(), declared: 0 };
        let mut subject = Subject::default();
        for kind in kinds::of_objects(spec.array_at(&["matchConstraints", "resourceRules"]), &served) {
            if let Some(decl) = documents.declaration(&kind).await? {
                subject.kinds.push((kind, decl));
            }
        }
        if let Some(kind) = kinds::of_params(&spec["paramKind"]) {
            let decl = documents.declaration(&kind).await?;
            subject.params = Some(decl.unwrap_or_else(Decl::dynamic));
        }
        Ok(subject)
    }

    async fn write(&self, name: &str, generation: i64, warnings: Vec<Value>) -> Result<(), Status> {
        let mut status = json!({"observedGeneration": generation, "typeChecking": {}});
        if !warnings.is_empty() {
            status.set_at(&["typeChecking", "expressionWarnings"], warnings);
        }
        let applied = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name}, "status": status,
        });
        let options =
            WriteOptions { field_manager: FIELD_MANAGER.into(), force: true, ..WriteOptions::default() };
        let (policies, patch) = (&VALIDATING_ADMISSION_POLICIES, Patch::Apply(applied));
        self.api.patch(policies, "", name, Some("status"), patch, &options).await.map(drop)
    }
}

/// The OpenAPI documents that one policy needs; `None` for group versions of which nothing is served.
struct Documents<'a> {
    api: &'a dyn Api,
    known: HashMap<GroupVersion, Option<Value>>,
    declared: usize,
}

impl Documents<'_> {
    /// What expressions know of objects of a kind. Its types are told from those of other kinds by a number, as upstream.
    async fn declaration(&mut self, kind: &GroupVersionKind) -> Result<Option<Decl>, Status> {
        let group_version = kind.group_version();
        if !self.known.contains_key(&group_version) {
            let document = match self.api.openapi(&group_version).await {
                Ok(document) => Some(document),
                Err(status) if status.is_not_found() => None,
                Err(status) => return Err(status),
            };
            self.known.insert(group_version.clone(), document);
        }
        self.declared += 1;
        let name = format!("{}{}", kind.kind, self.declared);
        let document = self.known.get(&group_version).and_then(Option::as_ref);
        Ok(document.and_then(|document| published::declaration(document, kind, &name)))
    }
}
