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
use super::expression::{Expression, Scope};
use super::inputs::{Converted, Shared};
use super::matching::Match;
use super::mutating_webhook::{decoded, returned};
use super::policy::{Binding, Policy, compiled};
use super::request::Request;
use super::source::Compiled;
use super::{DynamicPlugin, Pass, World};
use crate::{BuildError, Environment, forbidden};

pub(crate) struct MutatingAdmissionPolicy {
    policies: Compiled<Vec<Policy<Rules>>>,
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

enum Mutation {
    Apply(Expression),
    JsonPatch(Expression),
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
        let mut refusal = Refusal { attributes, status: None };
        for policy in self.policies.get().iter() {
            let Some(application) = policy.applies(&request, Some(object)) else { continue };
            for wrong in application.wrong.iter().filter(|_| !policy.fails_open) {
                refusal.add(policy, wrong.binding, &wrong.why, "");
            }
            for applied in &application.applied {
                for params in &applied.params {
                    let turn = Turn {
                        policy,
                        binding: applied.binding,
                        matched: &application.matched,
                        params: params.as_ref(),
                    };
                    self.take(&turn, &request, object, pass, &mut refusal).await?;
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
}

impl MutatingAdmissionPolicy {
    async fn take(
        &self,
        turn: &Turn<'_>,
        request: &Request<'_>,
        object: &mut Value,
        pass: &mut Pass,
        refusal: &mut Refusal<'_>,
    ) -> Result<(), Status> {
        let Turn { policy, binding, matched, params } = turn;
        let rules = &policy.rules;
        let own = request.attributes.resource;
        let holds = {
            let shared = Shared::new(request, &self.authorizer);
            let converted = Converted::of_match(request, matched, Some(object)).await?;
            let inputs = shared.inputs(matched, converted.as_ref(), Some(object), *params);
            rules.conditions.hold(&rules.scope, &inputs)
        };
        match holds {
            Holds::Yes => {}
            Holds::No => return Ok(()),
            Holds::Unknown(why) => {
                refusal.add(policy, Some(binding), &why, "Invalid");
                return Ok(());
            }
        }
        let key = turn.key();
        if pass.is_second() && !pass.policies.is_to_ask(&key) {
            return Ok(());
        }
        let before = object.clone();
        for mutation in &rules.mutations {
            let target = matched.resource(own);
            let shared = Shared::new(request, &self.authorizer);
            let converted = Converted::of_match(request, matched, Some(object)).await?;
            let after = {
                let inputs = shared.inputs(matched, converted.as_ref(), Some(object), *params);
                mutation.carry_out(&rules.scope, &inputs, request, target)
            };
            match after {
                Ok(after) if inputs_object(converted.as_ref(), object) == Some(&after) => {}
                Ok(after) => *object = returned(object, after, request, target).await?,
                Err(Problem::Status(status)) => return Err(status),
                Err(Problem::Text(_)) if policy.fails_open => {}
                Err(Problem::Text(why)) => refusal.add(policy, Some(binding), &why, "Invalid"),
            }
        }
        if *object != before {
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
    Text(String),
    Status(Status),
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Rules {
    fn new(spec: &Value) -> Self {
        let fails_open = spec.str_at(&["failurePolicy"]) == "Ignore";
        let scope = Scope::new(spec["paramKind"].is_object(), spec.array_at(&["variables"]), true);
        let conditions = Conditions::new(&scope, spec.array_at(&["matchConditions"]), fails_open);
        let object = || scope.type_named("Object");
        let patch = || Type::list(scope.type_named("JSONPatch"));
        let mutation = |mutation: &Value| match mutation.str_at(&["patchType"]) {
            "JSONPatch" => {
                let text = mutation.str_at(&["jsonPatch", "expression"]);
                Mutation::JsonPatch(scope.compile(text, &[patch()]))
            }
            _ => {
                let text = mutation.str_at(&["applyConfiguration", "expression"]);
                Mutation::Apply(scope.compile(text, &[object()]))
            }
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
        let (Self::Apply(expression) | Self::JsonPatch(expression)) = self;
        if let Some(why) = expression.compile_error() {
            return Err(Problem::Text(why.to_owned()));
        }
        let before = inputs.object.ok_or_else(|| Problem::Text("there is no object to change".to_owned()))?;
        let activation = scope.activation(inputs, &[expression]);
        let mut budget = Budget::new(limits::PER_OBJECT);
        let value = expression.eval(&activation, &mut budget).map_err(|failure| failure.text())?;
        let mut after = match self {
            Self::Apply(_) => applied(&value, before, request, target)?,
            Self::JsonPatch(_) => patched(&value, before)?,
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
