//! `MutatingAdmissionWebhook`: webhooks that change objects, one after the other.

use std::sync::Arc;

use api::Resource;
use apimachinery::decode::{self, FieldValidation};
use apimachinery::patch::json::JsonPatch;
use apimachinery::{Status, Value, field, json};
use async_trait::async_trait;
use registry::admission::Attributes;

use super::inputs::Shared;
use super::matching::Match;
use super::request::Request;
use super::review::Verdict;
use super::source::{Compiled, Kept};
use super::webhook::{Caller, Failure, Webhook, compiled};
use super::{DynamicPlugin, Pass, World, users};
use crate::configuration::Configuration;
use crate::{BuildError, Environment};

/// As metrics name these webhooks.
const KIND: &str = "admit";

pub struct MutatingAdmissionWebhook {
    configurations: Compiled<Vec<Kept<Vec<Webhook>>>>,
    world: World,
    authorizer: Arc<dyn auth::Authorizer>,
}

impl MutatingAdmissionWebhook {
    pub(crate) fn new(env: &Environment<'_>, config: &Configuration) -> Result<Self, BuildError> {
        let users = config.of("MutatingAdmissionWebhook", users::parse)?;
        let configurations =
            env.named("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations")?;
        Ok(Self {
            configurations: compiled(configurations, Caller { resolver: env.resolver.clone(), users }),
            world: env.world.clone(),
            authorizer: env.authorizer.clone(),
        })
    }
}

#[async_trait]
impl DynamicPlugin for MutatingAdmissionWebhook {
    fn is_idle(&self) -> bool {
        self.configurations.is_empty()
    }

    async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Value>,
        pass: &mut Pass,
    ) -> Result<(), Status> {
        let request = Request::new(attributes, &self.world);
        if request.is_exempt() {
            return Ok(());
        }
        pass.webhooks.begin(pass.is_second(), object.as_deref());
        let shared = Shared::new(&request, &self.authorizer);
        let configurations = self.configurations.get();
        let hooks = configurations.iter().flat_map(|configuration| &*configuration.made);
        for (index, hook) in hooks.enumerate() {
            let Some(matched) = hook.matches(KIND, &shared, object.as_deref()).await? else {
                continue;
            };
            // Who was not asked the first time is not asked the second time either.
            if pass.is_second() && !pass.webhooks.is_to_ask(&hook.key) {
                continue;
            }
            let notes = Notes { attributes, hook, round: u8::from(pass.is_second()), index };
            let began = rt::instant();
            let asked = ask(hook, &request, &matched, object.as_deref_mut(), &notes).await;
            hook.observe(KIND, attributes.operation.name(), began, asked.as_ref().err());
            let changed = match asked {
                Ok(changed) => changed,
                Err(failure) => {
                    let open = matches!(failure, Failure::Calling(_)) && hook.fails_open;
                    notes.mutated(false);
                    hook.settle(failure)?;
                    if open {
                        notes.failed_open();
                    }
                    false
                }
            };
            if changed {
                pass.webhooks.ask_again();
                pass.want_second();
            }
            if hook.reinvocable {
                pass.webhooks.asked(&hook.key);
            }
        }
        pass.webhooks.end(object.as_deref());
        Ok(())
    }
}

/// Asks one webhook and carries out its patch. True if that changed the object.
async fn ask(
    hook: &Webhook,
    request: &Request<'_>,
    matched: &Match,
    object: Option<&mut Value>,
    notes: &Notes<'_>,
) -> Result<bool, Failure> {
    let own = request.attributes.resource;
    let target = matched.resource(own);
    let versioned = match object.as_deref() {
        Some(object) => Some(request.versioned(object, target).await.map_err(Failure::Broken)?),
        None => None,
    };
    let verdict = hook.ask(request, target, versioned.clone(), true).await?;
    let Some(patch) = patch_of(hook, verdict)? else {
        notes.mutated(false);
        return Ok(false);
    };
    let (Some(object), Some(before)) = (object, versioned) else {
        let name = field::go_quote(&hook.name);
        return Err(Failure::Broken(Status::internal(format_args!(
            "admission webhook {name} attempted to modify the object, which is not supported for this operation"
        ))));
    };
    let shown = patch.clone();
    let after = patched(patch, &before, request, target).map_err(Failure::Broken)?;
    let changed = before != after;
    if changed {
        *object = returned(object, after, request, target).await.map_err(Failure::Broken)?;
    }
    notes.mutated(changed);
    notes.patched(shown);
    Ok(changed)
}

/// The patch in an answer; `None` for one without operations.
fn patch_of(hook: &Webhook, verdict: Verdict) -> Result<Option<Value>, Failure> {
    let calling = |why: String| Failure::Calling(why);
    if verdict.patch.is_empty() {
        return Ok(None);
    }
    let document = Value::parse(&verdict.patch)
        .map_err(|error| calling(format!("received undecodable patch in webhook response: {error}")))?;
    match document.as_array().map(Vec::len) {
        None => {
            let found = document.json_type();
            let why = format!("json: cannot unmarshal {found} into Go value of type jsonpatch.Patch");
            Err(calling(format!("received undecodable patch in webhook response: {why}")))
        }
        Some(0) => Ok(None),
        Some(_) if verdict.patch_type != "JSONPatch" => {
            tracing::debug!(webhook = hook.name, patch_type = verdict.patch_type, "Webhook answered a patch");
            Err(calling(format!("unsupported patch type {}", field::go_quote(&verdict.patch_type))))
        }
        Some(_) => Ok(Some(document)),
    }
}

/// The object after a patch, decoded and defaulted like one that a client sent.
fn patched(patch: Value, before: &Value, request: &Request<'_>, target: &Resource) -> Result<Value, Status> {
    let mut after = before.clone();
    let (patch, _) = JsonPatch::parse(patch).map_err(Status::internal)?;
    patch.apply(&mut after).map_err(Status::internal)?;
    decoded(&mut after, request, target)?;
    Ok(after)
}

/// Makes what somebody else wrote an object of the kind again.
pub(crate) fn decoded(object: &mut Value, request: &Request<'_>, target: &Resource) -> Result<(), Status> {
    let kind = request.kind_of(target);
    if kind == target.gvk() {
        decode::decode(object, target.schema.root(), FieldValidation::Ignore, &[])
            .map_err(Status::internal)?;
        target.strategy.default(object);
    } else if let Some(schema) = api::builtin::schema(&kind) {
        decode::decode(object, schema.root(), FieldValidation::Ignore, &[]).map_err(Status::internal)?;
    }
    Ok(())
}

/// A changed object back in the version that the request came in.
pub(crate) async fn returned(
    current: &Value,
    changed: Value,
    request: &Request<'_>,
    target: &Resource,
) -> Result<Value, Status> {
    let own = request.attributes.resource;
    let served = &request.world.served;
    if request.subresource() == "scale" {
        return served.rescaled(own, current, &changed);
    }
    if request.is_own(target) {
        return Ok(changed);
    }
    served.convert(changed, target, own).await
}

/// What the audit log is told about one webhook's part in a request.
struct Notes<'a> {
    attributes: &'a Attributes<'a>,
    hook: &'a Webhook,
    round: u8,
    index: usize,
}

impl Notes<'_> {
    fn note(&self, what: &str, value: &Value) {
        let key = format!("{what}.webhook.admission.k8s.io/round_{}_index_{}", self.round, self.index);
        self.attributes.warnings.annotate(key, value.to_json_string());
    }

    fn mutated(&self, mutated: bool) {
        let (configuration, webhook) = (self.hook.configuration.as_str(), self.hook.name.as_str());
        self.note(
            "mutation",
            &json!({"configuration": configuration, "webhook": webhook, "mutated": mutated}),
        );
    }

    fn patched(&self, patch: Value) {
        let mut value = json!({
            "configuration": self.hook.configuration.as_str(), "webhook": self.hook.name.as_str(),
            "patchType": "JSONPatch",
        });
        value.ensure_object().insert("patch", patch);
        self.note("patch", &value);
    }

    fn failed_open(&self) {
        let (round, index) = (self.round, self.index);
        let key = format!("failed-open.mutation.webhook.admission.k8s.io/round_{round}_index_{index}");
        self.attributes.warnings.annotate(key, &self.hook.name);
    }
}
