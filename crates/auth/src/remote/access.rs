//! A webhook that says who may do what, by SubjectAccessReviews.
//!
//! [`Authorizer::authorize`] does not wait, and expressions ask it in their midst; so a question that has to go out
//! occupies its thread for that time, and the runtime puts another in its place. Questions of which the answer is kept
//! do not.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use apimachinery::selector::Operator;
use cel::{Activation, Budget, Decl, Environment, Field, ListKind, ObjectType, Program, Type, limits};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use webhook::Client;

use super::review;
use crate::authorizer::{Attributes, Authorizer, Decision, Reason, ResolvedRules};
use crate::kept::Kept;
use crate::secret::fingerprint;
use crate::user::UserInfo;

/// Longer questions are asked every time.
const KEPT_QUESTION_BYTES_MAX: usize = 10_000;

/// How a webhook is asked.
#[derive(Clone, Debug)]
pub struct AccessWebhookOptions {
    /// `v1` or `v1beta1`.
    pub version: String,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
    pub timeout: Duration,
    /// What it comes to if the webhook does not answer: a refusal, or a question for the next authorizer.
    pub deny_on_error: bool,
}

/// Asks about requests.
pub struct AccessWebhook {
    name: String,
    client: Client,
    options: AccessWebhookOptions,
    conditions: Vec<MatchCondition>,
    kept: Kept<Decision>,
}

/// A condition under which the webhook is asked at all.
pub struct MatchCondition(Program);

/// The variable `request` of match conditions.
struct Request {
    environment: Environment,
    variable: usize,
    decl: Decl,
}

static REQUEST: LazyLock<Request> = LazyLock::new(|| {
    let strings = || Decl::list(Decl::string(), 0, ListKind::Atomic);
    let object = |name: &str, fields: Vec<Field>| {
        Decl::object(Arc::new(ObjectType::new(&format!("kubernetes.{name}"), fields)))
    };
    let text = |name: &str| Field::new(name, Decl::string());
    let requirement = |name: &str| {
        let fields = vec![text("key"), text("operator"), Field::new("values", strings())];
        Decl::list(object(name, fields), 0, ListKind::Atomic)
    };
    let selector = |name: &str, item: &str| {
        object(name, vec![text("rawSelector"), Field::new("requirements", requirement(item))])
    };
    let resource = vec![
        text("namespace"),
        text("verb"),
        text("group"),
        text("version"),
        text("resource"),
        text("subresource"),
        text("name"),
        Field::new("fieldSelector", selector("FieldSelectorAttributes", "FieldSelectorRequirement")),
        Field::new("labelSelector", selector("LabelSelectorAttributes", "LabelSelectorRequirement")),
    ];
    let fields = vec![
        Field::new("resourceAttributes", object("ResourceAttributes", resource)),
        Field::new(
            "nonResourceAttributes",
            object("NonResourceAttributes", vec![text("path"), text("verb")]),
        ),
        text("user"),
        Field::new("groups", strings()),
        Field::new("extra", Decl::map(Decl::string(), strings(), 0)),
        text("uid"),
    ];
    let decl = object("SubjectAccessReviewSpec", fields);
    let environment = Environment::new().variable("request", decl.clone());
    let variable = environment.index_of("request").expect("it was declared one line above");
    Request { environment, variable, decl }
});

impl MatchCondition {
    /// The error is upstream's.
    pub fn compile(text: &str) -> Result<Self, String> {
        let program = REQUEST.environment.compile(text);
        let program = program.map_err(|error| format!("compilation failed: {error}"))?;
        match program.output() {
            Type::Bool => Ok(Self(program)),
            _ => Err("must evaluate to bool".to_owned()),
        }
    }

    fn holds(&self, request: &apimachinery::Value, budget: &mut Budget) -> Result<bool, String> {
        let mut activation = Activation::new(&REQUEST.environment);
        let value = cel::Value::declared(request, &REQUEST.decl).map_err(|error| error.to_string())?;
        activation.bind(REQUEST.variable, value);
        let result = self.0.eval(&activation, budget).map_err(|error| error.to_string())?;
        Ok(result.as_bool() == Some(true))
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    allowed: bool,
    denied: bool,
    reason: String,
    evaluation_error: String,
}

impl AccessWebhook {
    pub fn new(
        name: &str,
        client: Client,
        options: AccessWebhookOptions,
        conditions: Vec<MatchCondition>,
    ) -> Self {
        Self { name: name.to_owned(), client, options, conditions, kept: Kept::new() }
    }

    /// As the configuration names it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the webhook is to be asked. Of several conditions one that does not hold counts more than one that
    /// fails.
    fn matches(&self, spec: &Value) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let spec = apimachinery::Value::from(spec.clone());
        let (mut budget, mut failed) = (Budget::new(limits::MATCH_CONDITIONS), None);
        for condition in &self.conditions {
            match condition.holds(&spec, &mut budget) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(problem) => failed = failed.or(Some(problem)),
            }
        }
        failed.map_or(Ok(true), Err)
    }

    fn failed(&self, problem: &str) -> Decision {
        tracing::warn!(webhook = self.name, problem, "An authorization webhook did not answer");
        if self.options.deny_on_error {
            return Decision::Deny { reason: problem.into() };
        }
        Decision::NoOpinion { reason: Reason::NONE }
    }

    fn ask(&self, spec: Value) -> Decision {
        let text = spec.to_string();
        let key = fingerprint(text.as_bytes());
        let now = rt::now().into();
        if let Some(known) = self.kept.get(&key, now) {
            return known;
        }
        let short = text.len() <= KEPT_QUESTION_BYTES_MAX;
        let version = &self.options.version;
        let question = json!({
            "apiVersion": format!("authorization.k8s.io/{version}"), "kind": "SubjectAccessReview",
            "metadata": {"creationTimestamp": null}, "spec": renamed(spec, version),
        });
        let asking = review::<Status>(&self.client, &question, self.options.timeout);
        let answer = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asking));
        let decision = match answer.and_then(decision) {
            Ok(decision) => decision,
            Err(problem) => return self.failed(&problem),
        };
        let ttl =
            if decision.is_allowed() { self.options.authorized_ttl } else { self.options.unauthorized_ttl };
        if short {
            self.kept.put(key, decision.clone(), ttl, now);
        }
        decision
    }
}

fn decision(status: Status) -> Result<Decision, String> {
    let Status { allowed, denied, reason, evaluation_error } = status;
    if !evaluation_error.is_empty() {
        tracing::debug!(error = evaluation_error, "An authorization webhook could not look at everything");
    }
    let reason = reason.into();
    match (allowed, denied) {
        (true, true) => Err("webhook subject access review returned both allow and deny response".to_owned()),
        (true, false) => Ok(Decision::Allow { reason }),
        (false, true) => Ok(Decision::Deny { reason }),
        (false, false) => Ok(Decision::NoOpinion { reason }),
    }
}

/// The first version called the groups by another name.
fn renamed(mut spec: Value, version: &str) -> Value {
    if version == "v1beta1"
        && let Some(groups) = spec.as_object_mut().and_then(|fields| fields.remove("groups"))
    {
        spec["group"] = groups;
    }
    spec
}

/// The `spec` of the review that asks about a request; what is empty is left out.
pub(super) fn spec(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut spec = Map::new();
    if attributes.resource_request {
        let mut resource = texts(&[
            ("namespace", attributes.namespace),
            ("verb", attributes.verb),
            ("group", attributes.api_group),
            ("version", attributes.api_version),
            ("resource", attributes.resource),
            ("subresource", attributes.subresource),
            ("name", attributes.name),
        ]);
        for (field, requirements) in selectors(attributes) {
            resource.insert(field.to_owned(), json!({ "requirements": requirements }));
        }
        spec.insert("resourceAttributes".to_owned(), resource.into());
    } else {
        let path = texts(&[("path", attributes.path), ("verb", attributes.verb)]);
        spec.insert("nonResourceAttributes".to_owned(), path.into());
    }
    spec.extend(texts(&[("user", user.name()), ("uid", user.uid())]));
    if !user.groups().is_empty() {
        spec.insert("groups".to_owned(), user.groups().into());
    }
    if !user.extra().is_empty() {
        spec.insert("extra".to_owned(), json!(user.extra()));
    }
    spec.into()
}

fn texts(fields: &[(&str, &str)]) -> Map<String, Value> {
    let given = fields.iter().filter(|(_, text)| !text.is_empty());
    given.map(|(field, text)| ((*field).to_owned(), (*text).into())).collect()
}

fn selectors(attributes: &Attributes<'_>) -> impl Iterator<Item = (&'static str, Vec<Value>)> {
    let fields = attributes.field_selector.iter().map(|requirement| {
        let operator = if requirement.negated { "NotIn" } else { "In" };
        json!({"key": requirement.field.as_str(), "operator": operator, "values": [requirement.value.as_str()]})
    });
    let labels = attributes.label_selector.iter().filter_map(|requirement| {
        let operator = match requirement.operator() {
            Operator::In | Operator::Equals | Operator::DoubleEquals => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // Reviews have no word for these; without them more is asked for than was meant.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let values: Vec<_> = requirement.values().iter().map(|value| value.as_str()).collect();
        let mut shown = json!({"key": requirement.key(), "operator": operator});
        if !values.is_empty() {
            shown["values"] = json!(values);
        }
        Some(shown)
    });
    let both = [("fieldSelector", fields.collect::<Vec<_>>()), ("labelSelector", labels.collect())];
    both.into_iter().filter(|(_, requirements)| !requirements.is_empty())
}

impl Authorizer for AccessWebhook {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let spec = spec(attributes);
        match self.matches(&spec) {
            Ok(true) => self.ask(spec),
            Ok(false) => Decision::NoOpinion { reason: Reason::NONE },
            Err(problem) => self.failed(&problem),
        }
    }

    fn rules_for(&self, _: &UserInfo, _: &str) -> ResolvedRules {
        let errors = vec!["webhook authorizer does not support user rule resolution".to_owned()];
        ResolvedRules { incomplete: true, errors, ..ResolvedRules::default() }
    }
}
