//! The legacy token cleaner: tokens that were once made for every account and are kept in Secrets, but that nobody has
//! used for a year, are refused first, and after another year deleted.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS};
use apimachinery::{Object, Status, Str, json};
use async_trait::async_trait;
use client::{Api, DeleteOptions, Informer, Patch, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;
use tracing::warn;

use crate::Options;
use plan::{INVALID_SINCE, Limits, Plan};

const NAME: &str = "legacy-serviceaccount-token-cleaner-controller";

/// Dates are what counts, so that a look a day is enough.
const INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// Says since when uses are tracked; the API server's.
const TRACKING_NAMESPACE: &str = "kube-system";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";

const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "legacy-service-account-token-cleaner",
        event_source: NAME,
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let (secrets, pods) = (informers.of(&SECRETS), informers.of(&PODS));
    let accounts = informers.of(&SERVICE_ACCOUNTS);
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        secrets: secrets.clone(),
        pods: pods.clone(),
        accounts: accounts.clone(),
    });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .reads(&secrets)
        .reads(&pods)
        .reads(&accounts);
    controller.queue().add_all([()]);
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    secrets: Arc<Informer>,
    pods: Arc<Informer>,
    accounts: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    /// All of them at once, every [`INTERVAL`].
    type Key = ();

    async fn reconcile(&self, (): &()) -> Result {
        let tracking = self.api.get(&CONFIG_MAPS, TRACKING_NAMESPACE, TRACKING).await?.to_value();
        if let Some(limits) = Limits::at(rt::now(), tracking.str_at(&["data", "since"])) {
            self.look_at_all(&limits).await;
        }
        Ok(Action::requeue(INTERVAL))
    }
}

impl Controller {
    async fn look_at_all(&self, limits: &Limits) {
        let mut mounted: HashMap<Str, HashSet<Str>> = HashMap::new();
        for secret in self.secrets.list() {
            let tree = secret.to_value();
            if tree.str_at(&["type"]) != TOKEN_TYPE {
                continue;
            }
            let annotations = &tree["metadata"]["annotations"];
            let account = self.account(
                secret.namespace(),
                annotations.str_at(&["kubernetes.io/service-account.name"]),
                annotations.str_at(&["kubernetes.io/service-account.uid"]),
            );
            let in_use = || {
                let known = mounted.entry(secret.namespace().into());
                known.or_insert_with(|| self.secrets_in_use(secret.namespace())).clone()
            };
            let plan = plan::plan(&secret, limits, account.as_deref(), in_use);
            if let Err(status) = self.act(&secret, limits, plan).await {
                // The next turn tries again.
                let (namespace, name) = (secret.namespace(), secret.name());
                warn!(namespace, name, error = %status, "Could not clean up a legacy token");
            }
        }
    }

    fn account(&self, namespace: &str, name: &str, uid: &str) -> Option<Arc<Object>> {
        let account = self.accounts.get(namespace, name)?;
        (uid.is_empty() || uid == account.uid()).then_some(account)
    }

    fn secrets_in_use(&self, namespace: &str) -> HashSet<Str> {
        let mut names = HashSet::new();
        for pod in self.pods.list_namespace(namespace) {
            plan::add_secrets_of(&pod.to_value()["spec"], &mut names);
        }
        names
    }

    async fn act(&self, secret: &Object, limits: &Limits, plan: Plan) -> Result<(), Status> {
        let (namespace, name) = (secret.namespace(), secret.name());
        match plan {
            Plan::Keep => Ok(()),
            Plan::Invalidate => {
                let labels = json!({INVALID_SINCE: limits.today.to_string()});
                let patch = Patch::Merge(json!({"metadata": {"uid": secret.uid(), "labels": labels}}));
                self.api.patch(&SECRETS, namespace, name, None, patch, &WriteOptions::default()).await?;
                Ok(())
            }
            Plan::Delete => {
                let options =
                    DeleteOptions { resource_version: Some(secret.revision()), ..DeleteOptions::default() };
                match self.api.delete(&SECRETS, namespace, name, &options).await {
                    // Gone, or used or changed a moment ago.
                    Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
                    result => result,
                }
            }
        }
    }
}
