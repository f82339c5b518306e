//! What validating and mutating policies have in common: what they match, their bindings, their parameters.

use std::sync::Arc;

use apimachinery::{Object, Status, Value};
use registry::Endpoint;

use super::matching::{Constraints, Match};
use super::params::{ParamKind, ParamRef};
use super::request::Request;
use super::source::Compiled;

/// One policy with its bindings; `R` is what it does.
pub(crate) struct Policy<R> {
    pub name: String,
    /// `failurePolicy: Ignore`
    pub fails_open: bool,
    pub rules: R,
    constraints: Constraints,
    param_kind: Option<ParamKind>,
    bindings: Vec<Binding>,
}

/// Where a policy applies, and with which parameters.
pub(crate) struct Binding {
    pub name: String,
    /// Of validating policies.
    pub actions: Vec<String>,
    /// Everywhere the policy does, if it does not say.
    constraints: Option<Constraints>,
    params: Option<ParamRef>,
}

/// A policy that applies to a request, through one of its bindings.
pub(crate) struct Applied<'p> {
    pub binding: &'p Binding,
    /// One evaluation each; `None` stands for no parameters.
    pub params: Vec<Option<Value>>,
}

/// What is wrong with a policy, or with one binding of it.
pub(crate) struct Misconfigured<'p> {
    pub binding: Option<&'p Binding>,
    pub why: String,
}

/// Which bindings of a policy apply to a request.
pub(crate) struct Application<'p> {
    pub matched: Match,
    pub applied: Vec<Applied<'p>>,
    pub wrong: Vec<Misconfigured<'p>>,
}

/// Policies by their names, each with what `rules` makes of its `spec`.
pub(crate) fn compiled<R: 'static>(
    policies: Endpoint,
    bindings: Endpoint,
    rules: fn(&Value) -> R,
) -> Compiled<Vec<Policy<R>>> {
    Compiled::new(vec![policies, bindings], move |collections| {
        let [policies, bindings] = collections else { return Vec::new() };
        let bindings: Vec<Value> = bindings.iter().map(|binding| binding.to_value()).collect();
        policies.iter().map(|policy| Policy::new(policy, &bindings, rules)).collect()
    })
}

impl<R> Policy<R> {
    fn new(policy: &Arc<Object>, bindings: &[Value], rules: fn(&Value) -> R) -> Self {
        let tree = policy.to_value();
        let spec = &tree["spec"];
        let own = bindings.iter().filter(|binding| binding.str_at(&["spec", "policyName"]) == policy.name());
        Self {
            name: policy.name().to_owned(),
            fails_open: spec.str_at(&["failurePolicy"]) == "Ignore",
            rules: rules(spec),
            constraints: Constraints::of_policy(&spec["matchConstraints"]),
            param_kind: ParamKind::from_value(&spec["paramKind"]),
            bindings: own.map(Binding::new).collect(),
        }
    }

    /// Which bindings apply; `None` when the policy is about something else. Hot path.
    pub fn applies(&self, request: &Request<'_>, object: Option<&Value>) -> Option<Application<'_>> {
        if self.bindings.is_empty() {
            return None;
        }
        let mut wrong = Vec::new();
        let of_policy = |why: Status| Misconfigured { binding: None, why: configure("policy", &why.message) };
        let matched = match self.constraints.matches(request, object) {
            Ok(None) => return None,
            Ok(Some(matched)) => matched,
            Err(status) => {
                let wrong = vec![of_policy(status)];
                return Some(Application { matched: Match::Own, applied: Vec::new(), wrong });
            }
        };
        let collection = self.param_kind.as_ref().map(|kind| kind.collection(request)).transpose();
        let collection = match collection {
            Ok(collection) => collection,
            Err(why) => {
                wrong.push(Misconfigured { binding: None, why: configure("policy", &why) });
                return Some(Application { matched, applied: Vec::new(), wrong });
            }
        };
        let mut applied = Vec::new();
        for binding in &self.bindings {
            match binding.applies(request, object, collection.as_ref()) {
                Ok(None) => {}
                Ok(Some(params)) => applied.push(Applied { binding, params }),
                Err(why) => {
                    wrong.push(Misconfigured { binding: Some(binding), why: configure("binding", &why) });
                }
            }
        }
        Some(Application { matched, applied, wrong })
    }
}

fn configure(what: &str, why: &str) -> String {
    format!("failed to configure {what}: {why}")
}

impl Binding {
    fn new(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let actions = spec.array_at(&["validationActions"]).iter().filter_map(Value::as_str);
        Self {
            name: binding.str_at(&["metadata", "name"]).to_owned(),
            actions: actions.map(str::to_owned).collect(),
            constraints: spec["matchResources"]
                .is_object()
                .then(|| Constraints::of_policy(&spec["matchResources"])),
            params: ParamRef::from_value(&spec["paramRef"]),
        }
    }

    /// The parameters with which this binding applies, if it does.
    fn applies(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        collection: Option<&Endpoint>,
    ) -> Result<Option<Vec<Option<Value>>>, String> {
        if let Some(constraints) = &self.constraints
            && constraints.matches(request, object).map_err(|status| status.message)?.is_none()
        {
            return Ok(None);
        }
        let (Some(collection), Some(params)) = (collection, &self.params) else {
            return Ok(Some(vec![None]));
        };
        params.find(collection, request).map(|found| Some(found.into_iter().map(Some).collect()))
    }
}
