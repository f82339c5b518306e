//! `MutatingAdmissionPolicy`: changes in CEL, as a configuration to apply or as a JSON patch.

use std::sync::Arc;

use api::Resource;
use apimachinery::managed_fields;
use apimachinery::patch::json::JsonPatch;
use apimachinery::status::Cause;
use apimachinery::{Status, Value};
use async_trait::async_trait;
use cel::{Budget, Type, limits};
use registry::admission::Attributes;

use super::conditions::{Conditions, Holds};
use super::expression::{COMPILE_ERROR, Expression, Failure, INVALID_ERROR, NO_ERROR, Reads, Scope};
use super::inputs::{Converted, Shared};
use super::matching::Match;
use super::mutating_webhook::{decoded, returned};
use super::policy::{Binding, Policies, Policy, compiled};
use super::request::Request;
use super::source::Compiled;
use super::{DynamicPlugin, Pass, World};
use crate::{BuildError, Environment, forbidden};

pub(crate) struct MutatingAdmissionPolicy {
    policies: Compiled<Policies<Rules>>,
    world: World,
    authorizer: Arc<dyn auth::Authorizer>,
}

/// What a policy says, compiled.
pub(crate) struct Rules {
    scope: Scope,
    conditions: Conditions,
    mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`
    reinvocable: bool,
}

struct Mutation {
    patch_type: PatchType,
    expression: Expression,
    reads: Reads,
}

enum PatchType {
    ApplyConfiguration,
    JsonPatch,
}

impl MutatingAdmissionPolicy {
    pub fn new(env: &Environment<'_>) -> Result<Self, BuildError> {
        let endpoint = |plural| env.named("admissionregistration.k8s.io", "v1", plural);
        let policies = endpoint("mutatingadmissionpolicies")?;
        let bindings = endpoint("mutatingadmissionpolicybindings")?;
        Ok(Self {
            policies: compiled(policies, bindings, Rules::new),
            world: env.world.clone(),
            authorizer: env.authorizer.clone(),
        })
    }
}

#[async_trait]
impl DynamicPlugin for MutatingAdmissionPolicy {
    fn is_idle(&self) -> bool {
        self.policies.is_empty()
    }

    async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        pass: &mut Pass,
    ) -> Result<(), Status> {
        // A delete has nothing to change.
        let Some(object) = object else { return Ok(()) };
        let request = Request::new(attributes, &self.world);
        if request.is_exempt() {
            return Ok(());
        }
        pass.policies.begin(pass.is_second(), Some(object));
        let shared = Shared::new(&request, &self.authorizer);
        let mut refusal = Refusal { attributes, status: None };
        for bound in &self.policies.get().bound {
            let Some(application) = bound.applies(&request, Some(object)).await else { continue };
            let policy = &*bound.policy;
            for wrong in application.wrong.iter().filter(|_| !policy.fails_open) {
                refusal.add(policy, wrong.binding, &wrong.why, "");
            }
            for applied in &application.applied {
                for params in &applied.params {
                    let turn = Turn {
                        policy,
                        binding: applied.binding,
                        matched: &application.matched,
                        params: params.as_deref(),
                    };
                    turn.take(&shared, object, pass, &mut refusal).await?;
                }
            }
        }
        pass.policies.end(Some(object));
        refusal.status.map_or(Ok(()), Err)
    }
}

/// One policy with one binding and one set of parameters.
struct Turn<'t> {
    policy: &'t Policy<Rules>,
    binding: &'t Binding,
    matched: &'t Match,
    params: Option<&'t Value>,
}

impl Turn<'_> {
    /// Who it is over two passes.
    fn key(&self) -> String {
        let params = self.params.map_or(("", ""), |params| {
            (params.str_at(&["metadata", "namespace"]), params.str_at(&["metadata", "name"]))
        });
        format!("{}/{}/{}/{}", self.policy.name, self.binding.name, params.0, params.1)
    }

    async fn take(
        &self,
        shared: &Shared<'_>,
        object: &mut Value,
        pass: &mut Pass,
        refusal: &mut Refusal<'_>,
    ) -> Result<(), Status> {
        let Self { policy, binding, matched, params } = self;
        let (rules, request) = (&policy.rules, shared.request);
        let target = matched.resource(request.attributes.resource);
        let holds = {
            let converted = Converted::of_match(request, matched, Some(object)).await?;
            let inputs = shared.inputs(matched, converted.as_ref(), Some(object), *params);
            rules.conditions.hold(&rules.scope, &inputs, &policy.condition_labels(request))
        };
        match holds {
            Holds::Yes => {}
            Holds::No => return Ok(()),
            Holds::Unknown(why) => {
                refusal.add(policy, Some(binding), &why, "Invalid");
                return Ok(());
            }
        }
        let key = self.key();
        if pass.is_second() && !pass.policies.is_to_ask(&key) {
            return Ok(());
        }
        let mut before: Option<Value> = None;
        for mutation in &rules.mutations {
            let converted = Converted::of_match(request, matched, Some(object)).await?;
            let began = rt::instant();
            let after = {
                let inputs = shared.inputs(matched, converted.as_ref(), Some(object), *params);
                mutation.carry_out(&rules.scope, &inputs, request, target)
            };
            let error_type = after.as_ref().err().map_or(NO_ERROR, Problem::error_type);
            let metrics = &telemetry::metrics().admission;
            metrics.mutated(&policy.name, &binding.name, error_type, began.elapsed());
            match after {
                Ok(after) if inputs_object(converted.as_ref(), object) == Some(&after) => {}
                Ok(after) => {
                    let changed = returned(object, after, request, target).await?;
                    let present = std::mem::replace(object, changed);
                    before.get_or_insert(present);
                }
                Err(Problem::Status(status)) => return Err(status),
                Err(Problem::Text { .. }) if policy.fails_open => {}
                Err(Problem::Text { why, .. }) => refusal.add(policy, Some(binding), &why, "Invalid"),
            }
        }
        if before.is_some_and(|before| *object != before) {
            pass.policies.ask_again();
            pass.want_second();
        }
        if rules.reinvocable {
            pass.policies.asked(&key);
        }
        Ok(())
    }
}

fn inputs_object<'o>(converted: Option<&'o Converted>, object: &'o Value) -> Option<&'o Value> {
    converted.map_or(Some(object), Converted::object)
}

/// Why a mutation was not carried out.
enum Problem {
    /// The policy's failure policy decides.
    Text {
        why: String,
        /// As metrics name it.
        error_type: &'static str,
    },
    Status(Status),
}

impl Problem {
    fn error_type(&self) -> &'static str {
        match self {
            Self::Text { error_type, .. } => error_type,
            Self::Status(_) => INVALID_ERROR,
        }
    }
}

impl From<String> for Problem {
    fn from(why: String) -> Self {
        Self::Text { why, error_type: INVALID_ERROR }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let error_type = failure.error_type();
        Self::Text { why: failure.text(), error_type }
    }
}

impl Rules {
    fn new(spec: &Value) -> Self {
        let fails_open = spec.str_at(&["failurePolicy"]) == "Ignore";
        let scope = Scope::new(spec["paramKind"].is_object(), spec.array_at(&["variables"]), true);
        let conditions = Conditions::new(&scope, spec.array_at(&["matchConditions"]), fails_open);
        let object = || scope.type_named("Object");
        let patch = || Type::list(scope.type_named("JSONPatch"));
        let mutation = |mutation: &Value| {
            let (patch_type, place, output) = match mutation.str_at(&["patchType"]) {
                "JSONPatch" => (PatchType::JsonPatch, "jsonPatch", patch()),
                _ => (PatchType::ApplyConfiguration, "applyConfiguration", object()),
            };
            let expression = scope.compile(mutation.str_at(&[place, "expression"]), &[output]);
            Mutation { reads: scope.reads(std::iter::once(&expression)), patch_type, expression }
        };
        Self {
            mutations: spec.array_at(&["mutations"]).iter().map(mutation).collect(),
            reinvocable: spec.str_at(&["reinvocationPolicy"]) == "IfNeeded",
            conditions,
            scope,
        }
    }
}

impl Mutation {
    /// The object afterwards, in the version of `target`.
    fn carry_out(
        &self,
        scope: &Scope,
        inputs: &super::inputs::Inputs<'_>,
        request: &Request<'_>,
        target: &Resource,
    ) -> Result<Value, Problem> {
        let Self { patch_type, expression, reads } = self;
        if let Some(why) = expression.compile_error() {
            return Err(Problem::Text { why: why.to_owned(), error_type: COMPILE_ERROR });
        }
        let before = inputs.object.ok_or_else(|| "there is no object to change".to_owned())?;
        let activation = scope.activation(inputs, *reads);
        let mut budget = Budget::new(limits::PER_OBJECT);
        let value = expression.eval(&activation, &mut budget)?;
        let mut after = match patch_type {
            PatchType::ApplyConfiguration => applied(&value, before, request, target)?,
            PatchType::JsonPatch => patched(&value, before)?,
        };
        decoded(&mut after, request, target).map_err(Problem::Status)?;
        Ok(after)
    }
}

/// The object with an `Object{…}` laid over it.
fn applied(
    value: &cel::Value<'_>,
    before: &Value,
    request: &Request<'_>,
    target: &Resource,
) -> Result<Value, String> {
    check_names(value, "Object")?;
    let mut config = value.to_json().map_err(|error| error.to_string())?;
    let map = config.ensure_object();
    for field in ["apiVersion", "kind"] {
        map.insert(field, before[field].clone());
    }
    let kind = request.kind_of(target);
    let overlaid = if kind == target.gvk() {
        managed_fields::overlay(before, &config, target.schema.root())
    } else {
        let schema = api::builtin::schema(&kind).ok_or_else(|| format!("Resource kind {kind} not found"))?;
        managed_fields::overlay(before, &config, schema.root())
    };
    overlaid.map_err(|error| format!("error applying patch: {error}"))
}

/// The object after a list of `JSONPatch{…}`.
fn patched(value: &cel::Value<'_>, before: &Value) -> Result<Value, String> {
    let cel::Value::List(operations) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    for operation in operations.iter() {
        let operation = operation.map_err(|error| error.to_string())?;
        if let Ok(Some(value)) = operation.field("value") {
            check_root(&value)?;
        }
    }
    let document = value.to_json().map_err(|error| {
        format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
    })?;
    let mut after = before.clone();
    let (patch, _) = JsonPatch::parse(document).map_err(|error| format!("JSON Patch: {error}"))?;
    match patch.apply(&mut after) {
        Ok(()) => Ok(after),
        // A test that fails is how a patch says that it does not apply.
        Err(error) if error.to_string().ends_with("test failed") => Ok(before.clone()),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}

/// `Object.spec{}` may stand anywhere in a patch, but what it holds must be named after it.
fn check_root(value: &cel::Value<'_>) -> Result<(), String> {
    match value.type_of() {
        Type::Object(object) => check_names(value, object.name()),
        _ => Ok(()),
    }
}

/// Whether every object is of the type that its place in the whole asks for.
fn check_names(value: &cel::Value<'_>, expected: &str) -> Result<(), String> {
    match value {
        cel::Value::Map(map) => {
            if let Type::Object(object) = value.type_of()
                && object.name() != expected
            {
                return Err(format!(
                    "type mismatch: unexpected type name {:?}, expected {expected:?}, which matches field name path \
                     from root Object type",
                    object.name()
                ));
            }
            map.entries().try_for_each(|(key, value)| {
                let value = value.map_err(|error| error.to_string())?;
                check_names(&value, &format!("{expected}.{key}"))
            })
        }
        cel::Value::List(list) => {
            list.iter().try_for_each(|item| check_names(&item.map_err(|error| error.to_string())?, expected))
        }
        _ => Ok(()),
    }
}

/// The answer to a request that policies refuse: the first one's words, all of them as causes.
struct Refusal<'a> {
    attributes: &'a Attributes<'a>,
    status: Option<Status>,
}

impl Refusal<'_> {
    fn add(&mut self, policy: &Policy<Rules>, binding: Option<&Binding>, why: &str, reason: &'static str) {
        let policy = &policy.name;
        let message = match binding {
            Some(binding) => {
                format!("policy '{policy}' with binding '{}' denied request: {why}", binding.name)
            }
            None => format!("policy {policy:?} denied request: {why}"),
        };
        let attributes = self.attributes;
        let status = self.status.get_or_insert_with(|| {
            let mut status = forbidden(attributes, "");
            status.message = message.clone();
            if !reason.is_empty() {
                status.reason = reason.into();
            }
            status
        });
        if let Some(details) = &mut status.details {
            details.causes.push(Cause { message, ..Cause::default() });
        }
    }
}
