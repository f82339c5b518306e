//! What validating and mutating policies have in common: what they match, their bindings, their parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, Status, Value};
use registry::Endpoint;
use telemetry::MatchConditionLabels;

use super::matching::{Constraints, Match};
use super::params::{ParamKind, ParamRef};
use super::request::Request;
use super::source::{Compiled, Kept, kept};

/// One policy; `R` is what it does.
pub(crate) struct Policy<R> {
    pub name: String,
    /// `failurePolicy: Ignore`
    pub fails_open: bool,
    pub rules: R,
    constraints: Constraints,
    param_kind: Option<ParamKind>,
}

/// The policies that are bound and all bindings, by their names.
pub(crate) struct Policies<R> {
    policies: Vec<Kept<Policy<R>>>,
    bindings: Vec<Kept<Binding>>,
    pub bound: Vec<Bound<R>>,
}

/// A policy with its bindings.
pub(crate) struct Bound<R> {
    pub policy: Arc<Policy<R>>,
    bindings: Vec<Arc<Binding>>,
}

/// Where a policy applies, and with which parameters.
pub(crate) struct Binding {
    pub name: String,
    policy: String,
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
    pub params: Vec<Option<Arc<Value>>>,
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

/// Bound policies, each with what `rules` makes of its `spec`. What is as it was is not compiled again.
pub(crate) fn compiled<R: Send + Sync + 'static>(
    policies: Endpoint,
    bindings: Endpoint,
    rules: fn(&Value) -> R,
) -> Compiled<Policies<R>> {
    Compiled::new(vec![policies, bindings], move |collections, before| match collections {
        [policies, bindings] => Policies::new(policies, bindings, before, rules),
        _ => Policies { policies: Vec::new(), bindings: Vec::new(), bound: Vec::new() },
    })
}

impl<R> Policies<R> {
    fn new(
        policies: &[Arc<Object>],
        bindings: &[Arc<Object>],
        before: Option<&Self>,
        rules: fn(&Value) -> R,
    ) -> Self {
        let bindings = kept(bindings, before.map_or(&[], |before| &before.bindings), Binding::new);
        let mut of_policy = BTreeMap::<&str, Vec<Arc<Binding>>>::new();
        for binding in bindings.iter().map(|binding| &binding.made) {
            of_policy.entry(&binding.policy).or_default().push(binding.clone());
        }
        let named = policies.iter().filter(|policy| of_policy.contains_key(policy.name()));
        let known = before.map_or(&[][..], |before| &before.policies);
        let policies = kept(named, known, |object| Policy::new(object, rules));
        let bound = policies.iter().filter_map(|policy| {
            let bindings = of_policy.remove(policy.made.name.as_str())?;
            Some(Bound { policy: policy.made.clone(), bindings })
        });
        let bound = bound.collect();
        Self { policies, bindings, bound }
    }
}

impl<R> Policy<R> {
    /// As metrics name its match conditions; upstream says `validate` of mutating policies, too.
    pub fn condition_labels(&self, request: &Request<'_>) -> MatchConditionLabels<'_> {
        let operation = request.attributes.operation.name();
        MatchConditionLabels { name: &self.name, kind: "policy", step: "validate", operation }
    }

    fn new(object: &Object, rules: fn(&Value) -> R) -> Self {
        let tree = object.to_value();
        let spec = &tree["spec"];
        Self {
            name: object.name().to_owned(),
            fails_open: spec.str_at(&["failurePolicy"]) == "Ignore",
            rules: rules(spec),
            constraints: Constraints::of_policy(&spec["matchConstraints"]),
            param_kind: ParamKind::from_value(&spec["paramKind"]),
        }
    }
}

impl<R> Bound<R> {
    /// Which bindings apply; `None` when the policy is about something else. Hot path.
    pub async fn applies(&self, request: &Request<'_>, object: Option<&Value>) -> Option<Application<'_>> {
        let mut wrong = Vec::new();
        let of_policy = |why: Status| Misconfigured { binding: None, why: configure("policy", &why.message) };
        let matched = match self.policy.constraints.matches(request, object) {
            Ok(None) => return None,
            Ok(Some(matched)) => matched,
            Err(status) => {
                let wrong = vec![of_policy(status)];
                return Some(Application { matched: Match::Own, applied: Vec::new(), wrong });
            }
        };
        let collection = self.policy.param_kind.as_ref().map(|kind| kind.collection(request)).transpose();
        let collection = match collection {
            Ok(collection) => collection,
            Err(why) => {
                wrong.push(Misconfigured { binding: None, why: configure("policy", &why) });
                return Some(Application { matched, applied: Vec::new(), wrong });
            }
        };
        let mut applied = Vec::new();
        for binding in &self.bindings {
            match binding.applies(request, object, collection.as_ref()).await {
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
    fn new(object: &Object) -> Self {
        let tree = object.to_value();
        let spec = &tree["spec"];
        let actions = spec.array_at(&["validationActions"]).iter().filter_map(Value::as_str);
        Self {
            name: object.name().to_owned(),
            policy: spec.str_at(&["policyName"]).to_owned(),
            actions: actions.map(str::to_owned).collect(),
            constraints: spec["matchResources"]
                .is_object()
                .then(|| Constraints::of_policy(&spec["matchResources"])),
            params: ParamRef::from_value(&spec["paramRef"]),
        }
    }

    /// The parameters with which this binding applies, if it does.
    async fn applies(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        collection: Option<&Endpoint>,
    ) -> Result<Option<Vec<Option<Arc<Value>>>>, String> {
        if let Some(constraints) = &self.constraints
            && constraints.matches(request, object).map_err(|status| status.message)?.is_none()
        {
            return Ok(None);
        }
        let (Some(collection), Some(params)) = (collection, &self.params) else {
            return Ok(Some(vec![None]));
        };
        let found = params.find(collection, request).await?;
        Ok(Some(found.into_iter().map(Some).collect()))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn object(kind: &str, name: &str, spec: Value) -> Arc<Object> {
        let mut tree = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}});
        tree.set_at(&["spec"], spec);
        Arc::new(Object::from_value(&tree, 1, &[] as &[&str]).expect("an object"))
    }

    fn policy(name: &str) -> Arc<Object> {
        object("ValidatingAdmissionPolicy", name, json!({}))
    }

    #[test]
    fn only_what_changed_is_compiled_again() {
        let binding = |name: &str, policy: &str| {
            object("ValidatingAdmissionPolicyBinding", name, json!({"policyName": policy}))
        };
        let bindings = [binding("1", "a"), binding("2", "b"), binding("3", "b"), binding("4", "of nothing")];
        let (a, b, unbound) = (policy("a"), policy("b"), policy("c"));
        let bind = |policies: &[Arc<Object>], bindings: &[Arc<Object>], before: Option<&Policies<()>>| {
            Policies::new(policies, bindings, before, |_| ())
        };
        let before = bind(&[a.clone(), b, unbound], &bindings, None);
        assert_eq!(before.bound.iter().map(|own| own.policy.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let [first, second, _, fourth] = bindings;
        let after = bind(&[a, policy("b")], &[first, second, binding("3", "b"), fourth], Some(&before));
        let keeps_policy = |at: usize| Arc::ptr_eq(&before.bound[at].policy, &after.bound[at].policy);
        assert!(keeps_policy(0) && !keeps_policy(1));
        let of_b = |policies: &Policies<()>, at: usize| policies.bound[1].bindings[at].clone();
        assert!(Arc::ptr_eq(&of_b(&before, 0), &of_b(&after, 0)), "with the parameters that it knows");
        assert!(!Arc::ptr_eq(&of_b(&before, 1), &of_b(&after, 1)));
    }
}
