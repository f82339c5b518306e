//! `ValidatingAdmissionWebhook`: webhooks that refuse objects, asked all at once.

use std::sync::Arc;

use apimachinery::{Status, Value};
use async_trait::async_trait;
use futures::future::join_all;
use registry::admission::Attributes;

use super::inputs::Shared;
use super::matching::Match;
use super::request::Request;
use super::source::{Compiled, Kept};
use super::webhook::{Caller, Failure, Webhook, compiled};
use super::{DynamicPlugin, World, users};
use crate::configuration::Configuration;
use crate::{BuildError, Environment};

/// As metrics name these webhooks.
const KIND: &str = "validating";

pub struct ValidatingAdmissionWebhook {
    configurations: Compiled<Vec<Kept<Vec<Webhook>>>>,
    world: World,
    authorizer: Arc<dyn auth::Authorizer>,
}

impl ValidatingAdmissionWebhook {
    pub(crate) fn new(env: &Environment<'_>, config: &Configuration) -> Result<Self, BuildError> {
        let users = config.of("ValidatingAdmissionWebhook", users::parse)?;
        let configurations =
            env.named("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations")?;
        Ok(Self {
            configurations: compiled(configurations, Caller { resolver: env.resolver.clone(), users }),
            world: env.world.clone(),
            authorizer: env.authorizer.clone(),
        })
    }
}

#[async_trait]
impl DynamicPlugin for ValidatingAdmissionWebhook {
    fn is_idle(&self) -> bool {
        self.configurations.is_empty()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let request = Request::new(attributes, &self.world);
        if request.is_exempt() {
            return Ok(());
        }
        let shared = Shared::new(&request, &self.authorizer);
        let configurations = self.configurations.get();
        let mut relevant = Vec::new();
        for hook in configurations.iter().flat_map(|configuration| &*configuration.made) {
            if let Some(matched) = hook.matches(KIND, &shared, object).await? {
                relevant.push((hook, matched));
            }
        }
        let calls = relevant
            .iter()
            .enumerate()
            .map(|(index, (hook, matched))| ask(hook, &request, matched, object, index));
        // Everybody is heard before the first refusal counts, as upstream waits for all of them.
        join_all(calls).await.into_iter().collect()
    }
}

async fn ask(
    hook: &Webhook,
    request: &Request<'_>,
    matched: &Match,
    object: Option<&Value>,
    index: usize,
) -> Result<(), Status> {
    let target = matched.resource(request.attributes.resource);
    let object = match object {
        Some(object) => Some(request.versioned(object, target).await?),
        None => None,
    };
    let began = rt::instant();
    let asked = hook.ask(request, target, object, false).await;
    hook.observe(KIND, request.attributes.operation.name(), began, asked.as_ref().err());
    let Err(failure) = asked else { return Ok(()) };
    let open = matches!(failure, Failure::Calling(_)) && hook.fails_open;
    hook.settle(failure)?;
    if open {
        let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
        request.attributes.warnings.annotate(key, &hook.name);
    }
    Ok(())
}
