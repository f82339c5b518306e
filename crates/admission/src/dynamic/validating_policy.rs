//! `ValidatingAdmissionPolicy`: rules in CEL that refuse objects, warn, or note in the audit log.

use std::sync::Arc;

use apimachinery::status::Cause;
use apimachinery::{Status, Value, json};
use async_trait::async_trait;
use cel::{Activation, Budget, Type, limits};
use registry::admission::Attributes;
use telemetry::MatchConditionLabels;

use super::conditions::{Conditions, Holds};
use super::expression::{Expression, Failure, INVALID_ERROR, NO_ERROR, Reads, Scope};
use super::inputs::{Converted, Inputs, Shared};
use super::policy::{Application, Applied, Binding, Policies, Policy, compiled};
use super::request::Request;
use super::source::Compiled;
use super::{DynamicPlugin, World};
use crate::{BuildError, Environment, forbidden};

/// Failures beyond this many are left out of the audit log.
const AUDITED_FAILURES_MAX: usize = 50;
/// Bytes of an audit annotation's value.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

pub(crate) struct ValidatingAdmissionPolicy {
    policies: Compiled<Policies<Rules>>,
    world: World,
    authorizer: Arc<dyn auth::Authorizer>,
}

/// What a policy says, compiled.
pub(crate) struct Rules {
    scope: Scope,
    conditions: Conditions,
    validations: Vec<Validation>,
    annotations: Vec<Annotation>,
    /// Of validations and annotations.
    reads: Reads,
    fails_open: bool,
}

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

struct Annotation {
    key: String,
    value: Expression,
}

/// A rule that does not hold, or could not be evaluated.
#[derive(Debug)]
struct Violation {
    message: String,
    /// Empty where a rule failed rather than said no.
    reason: String,
    /// Its place among the validations.
    index: usize,
    /// As metrics name it.
    error_type: &'static str,
}

/// What one policy with one set of parameters makes of a request.
#[derive(Debug, Default)]
struct Findings {
    violations: Vec<Violation>,
    annotations: Vec<(String, String)>,
    /// Annotations that could not be made, of a policy that fails closed.
    failed_annotations: Vec<String>,
    /// Failures that a policy that fails open puts up with, as metrics name them.
    ignored: Vec<&'static str>,
}

impl ValidatingAdmissionPolicy {
    pub fn new(env: &Environment<'_>) -> Result<Self, BuildError> {
        let endpoint = |plural| env.named("admissionregistration.k8s.io", "v1", plural);
        let policies = endpoint("validatingadmissionpolicies")?;
        let bindings = endpoint("validatingadmissionpolicybindings")?;
        Ok(Self {
            policies: compiled(policies, bindings, Rules::new),
            world: env.world.clone(),
            authorizer: env.authorizer.clone(),
        })
    }
}

#[async_trait]
impl DynamicPlugin for ValidatingAdmissionPolicy {
    fn is_idle(&self) -> bool {
        self.policies.is_empty()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let request = Request::new(attributes, &self.world);
        if request.is_exempt() {
            return Ok(());
        }
        let shared = Shared::new(&request, &self.authorizer);
        let mut outcome = Outcome { attributes, refusal: None, audited: Vec::new() };
        for bound in &self.policies.get().bound {
            let Some(application) = bound.applies(&request, object).await else { continue };
            let policy = &*bound.policy;
            for wrong in &application.wrong {
                if !policy.fails_open {
                    outcome.refuse(policy, wrong.binding, &wrong.why, "");
                }
            }
            if application.applied.is_empty() {
                continue;
            }
            let converted = Converted::of_match(&request, &application.matched, object).await?;
            judge(policy, &application, converted.as_ref(), &shared, object, &mut outcome);
        }
        outcome.finish()
    }
}

/// Evaluates one policy for all its bindings and parameters. Hot path.
fn judge(
    policy: &Policy<Rules>,
    application: &Application<'_>,
    converted: Option<&Converted>,
    shared: &Shared<'_>,
    object: Option<&Value>,
    outcome: &mut Outcome<'_>,
) {
    let mut annotations: Vec<(String, Vec<String>)> = Vec::new();
    for Applied { binding, params } in &application.applied {
        for params in params {
            let inputs = shared.inputs(&application.matched, converted, object, params.as_deref());
            let began = rt::instant();
            let findings = policy.rules.evaluate(&inputs, &policy.condition_labels(shared.request));
            let count = |error_type: &str, action: &str| {
                let metrics = &telemetry::metrics().admission;
                metrics.validated(&policy.name, &binding.name, error_type, action, began.elapsed());
            };
            findings.ignored.iter().for_each(|error_type| count(error_type, "allow"));
            for violation in &findings.violations {
                outcome.violated(policy, binding, violation);
                for action in &binding.actions {
                    count(violation.error_type, &action.to_ascii_lowercase());
                }
            }
            for (key, value) in findings.annotations {
                match annotations.iter_mut().find(|(own, _)| *own == key) {
                    None => annotations.push((key, vec![value])),
                    Some((_, values)) if values.contains(&value) => {}
                    Some((_, values)) => values.push(value),
                }
            }
            for why in &findings.failed_annotations {
                outcome.refuse(policy, Some(binding), why, "");
                count(INVALID_ERROR, "deny");
            }
        }
    }
    for (key, values) in annotations {
        outcome.attributes.warnings.annotate(format!("{}/{key}", policy.name), values.join(", "));
    }
}

impl Rules {
    fn new(spec: &Value) -> Self {
        let fails_open = spec.str_at(&["failurePolicy"]) == "Ignore";
        let scope = Scope::new(spec["paramKind"].is_object(), spec.array_at(&["variables"]), false);
        let conditions = Conditions::new(&scope, spec.array_at(&["matchConditions"]), fails_open);
        let validation = |validation: &Value| {
            let text = |key: &str| validation.str_at(&[key]).trim().to_owned();
            let message = validation.str_at(&["messageExpression"]);
            Validation {
                expression: scope.compile(validation.str_at(&["expression"]), &[Type::Bool]),
                message: text("message"),
                message_expression: (!message.is_empty()).then(|| scope.compile(message, &[Type::String])),
                reason: match text("reason") {
                    none if none.is_empty() => "Invalid".to_owned(),
                    reason => reason,
                },
            }
        };
        let annotation = |annotation: &Value| Annotation {
            key: annotation.str_at(&["key"]).to_owned(),
            value: scope.compile(annotation.str_at(&["valueExpression"]), &[Type::String, Type::Null]),
        };
        let validations: Vec<Validation> = spec.array_at(&["validations"]).iter().map(validation).collect();
        let annotations: Vec<Annotation> =
            spec.array_at(&["auditAnnotations"]).iter().map(annotation).collect();
        let expressions = validations
            .iter()
            .flat_map(Validation::expressions)
            .chain(annotations.iter().map(|annotation| &annotation.value));
        Self { reads: scope.reads(expressions), validations, annotations, conditions, scope, fails_open }
    }

    /// Hot path.
    fn evaluate(&self, inputs: &Inputs<'_>, labels: &MatchConditionLabels<'_>) -> Findings {
        match self.conditions.hold(&self.scope, inputs, labels) {
            Holds::Yes => {}
            Holds::No => return Findings::default(),
            Holds::Unknown(why) => return Findings::failed(Failure::This(why)),
        }
        let activation = self.scope.activation(inputs, self.reads);
        let mut findings = Findings::default();
        if let Err(why) = self.validate(&activation, &mut findings) {
            // Nothing that was found before counts any more.
            return if self.fails_open { Findings::ignored(&why) } else { Findings::failed(why) };
        }
        if let Err(why) = self.annotate(&activation, &mut findings) {
            return if self.fails_open { Findings::ignored(&why) } else { Findings::failed(why) };
        }
        findings
    }

    /// An error ends the evaluation of the whole policy.
    fn validate<'a>(&'a self, activation: &Activation<'a>, findings: &mut Findings) -> Result<(), Failure> {
        let mut budget = Budget::new(limits::PER_OBJECT);
        for (index, validation) in self.validations.iter().enumerate() {
            let failure = match validation.expression.eval(activation, &mut budget) {
                Ok(value) if value.as_bool() == Some(true) => continue,
                Ok(_) => {
                    findings.violations.push(Violation {
                        message: String::new(),
                        reason: validation.reason.clone(),
                        index,
                        error_type: NO_ERROR,
                    });
                    continue;
                }
                Err(failure @ Failure::Budget(_)) => return Err(failure),
                Err(failure) => failure,
            };
            let error_type = validation.expression.error_type(&failure);
            if self.fails_open {
                findings.ignored.push(error_type);
            } else {
                let (message, reason) = (failure.text(), String::new());
                findings.violations.push(Violation { message, reason, index, error_type });
            }
        }
        // Messages are made with what is left, and only for those who need one.
        for violation in findings.violations.iter_mut().filter(|violation| violation.message.is_empty()) {
            match self.validations[violation.index].message(activation, &mut budget) {
                Ok(message) => violation.message = message,
                Err(why) if !self.fails_open => {
                    violation.message = format!("failed messageExpression: {why}");
                    violation.reason.clear();
                }
                Err(_) => {}
            }
        }
        findings.violations.retain(|violation| !violation.message.is_empty());
        Ok(())
    }

    fn annotate<'a>(&'a self, activation: &Activation<'a>, findings: &mut Findings) -> Result<(), Failure> {
        let mut budget = Budget::new(limits::PER_OBJECT);
        for annotation in &self.annotations {
            match annotation.value.eval(activation, &mut budget) {
                Ok(value) => {
                    let mut value = value.as_str().unwrap_or_default().trim().to_owned();
                    value.truncate(value.floor_char_boundary(ANNOTATION_BYTES_MAX));
                    if !value.is_empty() {
                        findings.annotations.push((annotation.key.clone(), value));
                    }
                }
                Err(failure @ Failure::Budget(_)) => return Err(failure),
                Err(Failure::This(_)) if self.fails_open => {}
                Err(Failure::This(why)) => findings.failed_annotations.push(why),
            }
        }
        Ok(())
    }
}

impl Validation {
    fn expressions(&self) -> impl Iterator<Item = &Expression> + Clone {
        std::iter::once(&self.expression).chain(self.message_expression.as_ref())
    }

    /// What a violation says: the expression's message if it is fit to be shown, else the fixed one, else the rule.
    /// An error is the end of the budget.
    fn message<'a>(&'a self, activation: &Activation<'a>, budget: &mut Budget) -> Result<String, String> {
        let made = match self.message_expression.as_ref().map(|message| message.eval(activation, budget)) {
            Some(Ok(value)) => value.as_str().unwrap_or_default().trim().to_owned(),
            Some(Err(Failure::Budget(why))) => return Err(why),
            Some(Err(Failure::This(why))) => {
                tracing::debug!(error = why, "Could not evaluate the messageExpression of a policy");
                String::new()
            }
            None => String::new(),
        };
        let fit = made.len() <= limits::MESSAGE_BYTES_MAX && !made.contains('\n');
        Ok(match (fit, made.is_empty(), self.message.is_empty()) {
            (true, false, _) => made,
            (_, _, false) => self.message.clone(),
            _ => format!("failed expression: {}", self.expression.text()),
        })
    }
}

impl Findings {
    /// The policy could not be evaluated and fails closed.
    fn failed(why: Failure) -> Self {
        let error_type = why.error_type();
        let violation = Violation { message: why.text(), reason: String::new(), index: 0, error_type };
        Self { violations: vec![violation], ..Self::default() }
    }

    /// The policy could not be evaluated and fails open.
    fn ignored(why: &Failure) -> Self {
        Self { ignored: vec![why.error_type()], ..Self::default() }
    }
}

/// What all policies together make of a request.
struct Outcome<'a> {
    attributes: &'a Attributes<'a>,
    /// The first one counts.
    refusal: Option<Status>,
    audited: Vec<Value>,
}

impl Outcome<'_> {
    fn violated(&mut self, policy: &Policy<Rules>, binding: &Binding, violation: &Violation) {
        let message = &violation.message;
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => self.refuse(policy, Some(binding), message, &violation.reason),
                "Warn" => self.attributes.warnings.add(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                    policy.name, binding.name
                )),
                "Audit" => self.audited.push(json!({
                    "message": message.as_str(), "policy": policy.name.as_str(),
                    "binding": binding.name.as_str(), "expressionIndex": violation.index,
                    "validationActions": binding.actions.as_slice(),
                })),
                _ => {}
            }
        }
    }

    fn refuse(&mut self, policy: &Policy<Rules>, binding: Option<&Binding>, why: &str, reason: &str) {
        if self.refusal.is_some() {
            return;
        }
        let policy = &policy.name;
        let message = match binding {
            Some(binding) => {
                let binding = &binding.name;
                format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {why}")
            }
            None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {why}"),
        };
        let mut status = forbidden(self.attributes, &message);
        let reason = if reason.is_empty() { "Invalid" } else { reason };
        status.code = match reason {
            "Unauthorized" => 401,
            "Forbidden" => 403,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        status.reason = reason.to_owned().into();
        if let Some(details) = &mut status.details {
            details.causes.push(Cause { message, ..Cause::default() });
        }
        self.refusal = Some(status);
    }

    fn finish(mut self) -> Result<(), Status> {
        if !self.audited.is_empty() {
            self.audited.truncate(AUDITED_FAILURES_MAX);
            let key = "validation.policy.admission.k8s.io/validation_failure";
            self.attributes.warnings.annotate(key, Value::Array(self.audited).to_json_string());
        }
        self.refusal.map_or(Ok(()), Err)
    }
}
