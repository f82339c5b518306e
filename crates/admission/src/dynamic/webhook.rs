//! One webhook: who is called, when, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use apimachinery::{Object, Status, Value, field};
use bytes::Bytes;
use registry::Endpoint;
use telemetry::{MatchConditionLabels, WebhookLabels, WebhookOutcome};
use webhook::{Call, Client, ClientConfig, ServiceResolver, Users};

use super::conditions::{Conditions, Holds};
use super::expression::Scope;
use super::inputs::{Converted, Shared};
use super::matching::{Constraints, Match};
use super::request::Request;
use super::review::{self, Verdict, Version};
use super::source::{Compiled, Kept, kept};

/// An answer holds a patch at most, and a patch writes one object.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// What upstream's defaults set; for configurations that were stored without.
const TIMEOUT_SECONDS: u64 = 10;

/// One webhook of a configuration, compiled.
pub(crate) struct Webhook {
    pub name: String,
    pub configuration: String,
    /// Configuration, name and place in it: who it is over two passes.
    pub key: String,
    pub fails_open: bool,
    pub reinvocable: bool,
    constraints: Constraints,
    /// With the variables that they may use; most webhooks have none.
    conditions: Option<Box<(Scope, Conditions)>>,
    side_effects: SideEffects,
    version: Option<Version>,
    timeout_seconds: u64,
    client: Result<Client, String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SideEffects {
    Unknown,
    /// None, or none in a dry run.
    Safe,
    Some,
}

/// What came of a call that did not end in permission.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The webhook could not be asked; its failure policy decides.
    Calling(String),
    /// It said no.
    Refused(Status),
    /// This server could not ask it, or could not do as it said.
    Broken(Status),
}

impl Failure {
    fn calling(why: impl std::fmt::Display) -> Self {
        Self::Calling(why.to_string())
    }
}

/// How webhooks are called.
pub(crate) struct Caller {
    pub resolver: Arc<dyn ServiceResolver>,
    pub users: Users,
}

/// The webhooks of all configurations of one kind, by the names of these. Those of one that is as it was keep their
/// clients, with their connections.
pub(crate) fn compiled(configurations: Endpoint, caller: Caller) -> Compiled<Vec<Kept<Vec<Webhook>>>> {
    Compiled::new(vec![configurations], move |collections, before: Option<&Vec<Kept<Vec<Webhook>>>>| {
        let before = before.map_or(&[][..], Vec::as_slice);
        kept(collections.iter().flatten(), before, |object| webhooks(object, &caller))
    })
}

fn webhooks(configuration: &Object, caller: &Caller) -> Vec<Webhook> {
    let tree = configuration.to_value();
    let hooks = tree.array_at(&["webhooks"]).iter().enumerate();
    hooks.map(|(index, hook)| Webhook::new(configuration.name(), index, hook, caller)).collect()
}

impl Caller {
    fn client(&self, config: &Value) -> Result<Client, String> {
        let config = self.users.identify(ClientConfig::of_hook(config)?)?;
        Client::new(&config, &self.resolver).map_err(|error| error.to_string())
    }
}

impl Webhook {
    fn new(configuration: &str, index: usize, hook: &Value, caller: &Caller) -> Self {
        let name = hook.str_at(&["name"]).to_owned();
        let fails_open = hook.str_at(&["failurePolicy"]) == "Ignore";
        let conditions = hook.array_at(&["matchConditions"]);
        let conditions = (!conditions.is_empty()).then(|| {
            let scope = Scope::new(false, &[], false);
            let conditions = Conditions::new(&scope, conditions, fails_open);
            Box::new((scope, conditions))
        });
        Self {
            key: format!("{configuration}/{name}/{index}"),
            configuration: configuration.to_owned(),
            fails_open,
            reinvocable: hook.str_at(&["reinvocationPolicy"]) == "IfNeeded",
            constraints: Constraints::of_webhook(hook),
            conditions,
            side_effects: match hook.str_at(&["sideEffects"]) {
                "" => SideEffects::Unknown,
                "None" | "NoneOnDryRun" => SideEffects::Safe,
                _ => SideEffects::Some,
            },
            version: Version::preferred(hook),
            timeout_seconds: hook["timeoutSeconds"]
                .as_i64()
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .unwrap_or(TIMEOUT_SECONDS),
            client: caller.client(&hook["clientConfig"]),
            name,
        }
    }

    /// Whether this webhook is to be asked, and in which version of the object. Hot path.
    pub async fn matches(
        &self,
        kind: &'static str,
        shared: &Shared<'_>,
        object: Option<&Value>,
    ) -> Result<Option<Match>, Status> {
        let request = shared.request;
        let Some(matched) = self.constraints.matches(request, object)? else { return Ok(None) };
        let Some(conditions) = &self.conditions else { return Ok(Some(matched)) };
        let converted = Converted::of_match(request, &matched, object).await?;
        let inputs = shared.inputs(&matched, converted.as_ref(), object, None);
        let (scope, conditions) = &**conditions;
        let operation = request.attributes.operation.name();
        let labels = MatchConditionLabels { name: &self.name, kind: "webhook", step: kind, operation };
        match conditions.hold(scope, &inputs, &labels) {
            Holds::Yes => Ok(Some(matched)),
            Holds::No => {
                // Only here upstream names the step and not the kind of webhook.
                let step = if kind == "validating" { "validate" } else { kind };
                let labels = MatchConditionLabels { step, ..labels };
                telemetry::metrics().admission.conditions_excluded(&labels);
                Ok(None)
            }
            Holds::Unknown(why) => Err(crate::forbidden(request.attributes, why)),
        }
    }

    /// Asks. `object` is in the version of `target`; what the webhook wants noted is noted.
    pub async fn ask(
        &self,
        request: &Request<'_>,
        target: &Resource,
        object: Option<Value>,
        mutating: bool,
    ) -> Result<Verdict, Failure> {
        let attributes = request.attributes;
        if attributes.dry_run {
            match self.side_effects {
                SideEffects::Safe => {}
                SideEffects::Unknown => return Err(Failure::calling("Webhook SideEffects is nil")),
                SideEffects::Some => {
                    let name = field::go_quote(&self.name);
                    let why = format!("admission webhook {name} does not support dry run");
                    return Err(Failure::Broken(Status::bad_request(why)));
                }
            }
        }
        let version = self.version.ok_or_else(|| {
            Failure::calling(
                "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, \
                 v1beta1)",
            )
        })?;
        let client = self
            .client
            .as_ref()
            .map_err(|why| Failure::calling(format_args!("could not get REST client: {why}")))?;
        let old = match request.old() {
            Some(old) => Some(request.versioned(old, target).await.map_err(Failure::Broken)?),
            None => None,
        };
        let uid = rt::uuid();
        let question = review::question(version, &uid, request, target, object, old);
        let call = Call {
            method: http::Method::POST,
            path: "",
            query: &format!("timeout={}s", self.timeout_seconds),
            body: Bytes::from(question.to_json()),
            timeout: Duration::from_secs(self.timeout_seconds),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let failed =
            |why: &dyn std::fmt::Display| Failure::calling(format_args!("failed to call webhook: {why}"));
        let answer = client.post(call).await.map_err(|error| failed(&error))?;
        let answer = Value::parse(&answer).map_err(|error| {
            let why = error.go_text(&answer);
            failed(&format_args!("couldn't get version/kind; json parse error: {why}"))
        })?;
        let verdict = review::verdict(version, &uid, mutating, &answer)
            .map_err(|why| Failure::calling(format_args!("received invalid webhook response: {why}")))?;
        for (key, value) in &verdict.annotations {
            attributes.warnings.annotate(format!("{}/{key}", self.name), value);
        }
        verdict.warnings.iter().for_each(|text| attributes.warnings.add(text));
        if verdict.allowed {
            Ok(verdict)
        } else {
            Err(Failure::Refused(review::refusal(&self.name, &verdict.status)))
        }
    }

    /// Counts what came of asking this webhook.
    pub fn observe(
        &self,
        kind: &'static str,
        operation: &'static str,
        began: rt::Instant,
        failure: Option<&Failure>,
    ) {
        let outcome = match failure {
            None => WebhookOutcome::Allowed,
            Some(Failure::Calling(_)) => WebhookOutcome::NotAsked { fails_open: self.fails_open },
            Some(Failure::Refused(status)) => WebhookOutcome::Refused(status.code),
            Some(Failure::Broken(_)) => WebhookOutcome::Broken,
        };
        let labels = WebhookLabels { name: &self.name, kind, operation };
        telemetry::metrics().admission.webhook(&labels, began.elapsed(), outcome);
    }

    /// What a failure means for the request: nothing, if the webhook may be left out.
    pub fn settle(&self, failure: Failure) -> Result<(), Status> {
        match failure {
            Failure::Refused(status) | Failure::Broken(status) => Err(status),
            Failure::Calling(why) if self.fails_open => {
                tracing::warn!(webhook = self.name, error = why, "Failed calling webhook, failing open");
                Ok(())
            }
            Failure::Calling(why) => {
                let name = field::go_quote(&self.name);
                Err(Status::internal(format_args!("failed calling webhook {name}: {why}")))
            }
        }
    }
}
