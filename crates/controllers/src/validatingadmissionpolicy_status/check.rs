//! What is wrong with a policy's expressions, by the schemas of the kinds that it is about.
//!
//! As upstream, only validations and their messages are looked at. Variables matter for their types: what is wrong in
//! one of them is not said, and leaves it without a type.

use apimachinery::{GroupVersionKind, Value, json};
use cel::admission::typed_environment;
use cel::{Decl, Environment, Type};

/// What a policy's expressions are about.
#[derive(Default)]
pub(super) struct Subject {
    /// Kinds of objects, in order.
    pub kinds: Vec<(GroupVersionKind, Decl)>,
    /// If the policy has parameters.
    pub params: Option<Decl>,
}

/// The `expressionWarnings` of a policy.
pub(super) fn warnings(spec: &Value, subject: &Subject) -> Vec<Value> {
    let variables = spec.array_at(&["variables"]);
    let environments: Vec<_> = subject
        .kinds
        .iter()
        .map(|(kind, object)| (kind, environment(object, subject.params.as_ref(), variables)))
        .collect();
    let mut warnings = Vec::new();
    for (index, validation) in spec.array_at(&["validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(text) = validation[field].as_str().filter(|text| !text.is_empty()) else { continue };
            let warning = complaints(&environments, text);
            if !warning.is_empty() {
                let place = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": warning}));
            }
        }
    }
    warnings
}

/// Each variable sees those before it.
fn environment(object: &Decl, params: Option<&Decl>, variables: &[Value]) -> Environment {
    let mut declared: Vec<(&str, Type)> = Vec::new();
    for variable in variables {
        let before = typed_environment(object, params, &declared);
        let ty = before.check(variable.str_at(&["expression"])).unwrap_or(Type::Dyn);
        declared.push((variable.str_at(&["name"]), ty));
    }
    typed_environment(object, params, &declared)
}

/// One paragraph for each kind that an expression does not fit.
fn complaints(environments: &[(&GroupVersionKind, Environment)], text: &str) -> String {
    let complaint = |(kind, environment): &(&GroupVersionKind, Environment)| {
        environment.check(text).err().map(|error| format!("{kind}: {error}\n"))
    };
    environments.iter().filter_map(complaint).collect::<Vec<_>>().join("\n")
}
