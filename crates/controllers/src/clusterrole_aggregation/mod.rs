//! The cluster role aggregation controller: a role with an `aggregationRule` has the rules of all roles that its
//! selectors choose. `admin`, `edit` and `view` are such roles, so that a new API can add itself to them.
//!
//! Which roles choose which is not kept: roles are few, so every change of one looks at all that aggregate, as upstream.

mod plan;

use std::sync::Arc;

use api::gvr::CLUSTER_ROLES;
use apimachinery::json;
use async_trait::async_trait;
use client::{Api, Informer, ObjectKey, Patch, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;

const NAME: &str = "clusterrole-aggregation-controller";
/// Index of the roles that have an `aggregationRule`.
const AGGREGATING: &str = "aggregating";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor { name: NAME, service_account: NAME, event_source: NAME, workers: 1, start }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let roles = context.informers.of(&CLUSTER_ROLES);
    roles.add_index(AGGREGATING, |role| match role.to_value()["aggregationRule"].is_object() {
        true => vec!["".into()],
        false => Vec::new(),
    });
    let reconciler = Arc::new(Controller { api: context.api.clone(), roles: roles.clone() });
    let all = roles.clone();
    let controller =
        controller_runtime::Controller::new(&context, reconciler).watches(&roles, move |_, keys| {
            keys.extend(all.by_index(AGGREGATING, "").iter().map(|role| ObjectKey::from(&**role)));
        });
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    roles: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    /// The role that aggregates.
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let Some(object) = self.roles.get("", &key.name) else { return Ok(Action::await_change()) };
        let role = object.to_value();
        if !role["aggregationRule"].is_object() {
            return Ok(Action::await_change());
        }
        let selectors = role.array_at(&["aggregationRule", "clusterRoleSelectors"]);
        let all = self.roles.list();
        let rules = plan::aggregate(&key.name, selectors, all.iter().map(Arc::as_ref));
        if rules == role.array_at(&["rules"]) {
            return Ok(Action::await_change());
        }
        let applied = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": key.name.as_str()}, "rules": rules,
        });
        let options = WriteOptions { field_manager: NAME.into(), force: true, ..WriteOptions::default() };
        self.api.patch(&CLUSTER_ROLES, "", &key.name, None, Patch::Apply(applied), &options).await?;
        Ok(Action::await_change())
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::Value;

    use super::*;
    use crate::testing::World;

    fn role(name: &str, label: &str, resource: &str) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {label: "true"}},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}],
        })
    }

    #[tokio::test]
    async fn a_role_has_the_rules_of_those_it_chooses_as_they_change() {
        let mut all = role("all", "other", "own");
        all.set_at(
            &["aggregationRule"],
            json!({"clusterRoleSelectors": [{"matchLabels": {"to-all": "true"}}]}),
        );
        let seeds = vec![all, role("a", "to-all", "pods"), role("b", "elsewhere", "secrets")];
        let world = World::start(vec![descriptor()], seeds);
        let resources = |fake: &client::fake::FakeApi| {
            let all = fake.peek(&CLUSTER_ROLES, "", "all").map(|all| all.to_value()).unwrap_or_default();
            let rules: Vec<_> =
                all.array_at(&["rules"]).iter().map(|rule| rule["resources"].to_string()).collect();
            rules.join(" ")
        };
        world.wait_for("the rules of a", |fake| resources(fake) == r#"["pods"]"#).await;
        world.fake.seed(role("c", "to-all", "nodes"));
        world.wait_for("those of c as well", |fake| resources(fake) == r#"["pods"] ["nodes"]"#).await;
        world.fake.drop_object(&CLUSTER_ROLES, "", "a");
        world.wait_for("those of c alone", |fake| resources(fake) == r#"["nodes"]"#).await;
    }
}
