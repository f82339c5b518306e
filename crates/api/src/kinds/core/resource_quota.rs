//! `v1.ResourceQuota`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, IMMUTABLE, item_text};
use crate::validation::resources;

const EXCLUSIVE: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const POD_RESOURCES: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

pub struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = &object["spec"];
        let path = Path::root("spec");
        resources::list(&mut errors, spec.map("hard"), resources::Owner::Quota, &path.child("hard"));
        scopes(&mut errors, spec, &path.child("scopes"));
        scope_selector(&mut errors, spec, &path);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        if ctx.subresource == Some("status") {
            let mut errors = ErrorList::new();
            let path = Path::root("status");
            for list in ["hard", "used"] {
                resources::list(
                    &mut errors,
                    new["status"].map(list),
                    resources::Owner::Quota,
                    &path.child(list),
                );
            }
            return errors;
        }
        let mut errors = self.validate(ctx, new);
        let sorted = |object: &Value| {
            let mut scopes: Vec<String> =
                object["spec"].list("scopes").iter().map(|scope| item_text(scope).to_owned()).collect();
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        };
        if sorted(new) != sorted(old) {
            errors.push(Error::invalid(
                &Path::root("spec").child("scopes"),
                &new["spec"]["scopes"],
                IMMUTABLE,
            ));
        }
        errors
    }

    /// Only new ones: whoever changes a quota has been told.
    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { crate::kinds::warnings::quota(new) }
    }
}

fn scope_fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => POD_RESOURCES.contains(&resource),
        _ => true,
    }
}

fn unfit<'a>(spec: &'a Value, scope: &'a str) -> impl Iterator<Item = &'a str> {
    spec.entries("hard")
        .map(|(name, _)| name)
        .filter(move |name| resources::is_standard_for_quota(name) && !scope_fits(scope, name))
}

fn scopes(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let scopes = spec.list("scopes");
    let mut complain = |detail: &str| errors.push(Error::invalid(path, &spec["scopes"], detail));
    for scope in scopes.iter().map(item_text) {
        if !SCOPES.contains(&scope) {
            complain("unsupported scope");
        }
        unfit(spec, scope).for_each(|_| complain("unsupported scope applied to resource"));
    }
    let named = |name: &&str| scopes.iter().any(|scope| scope.as_str() == Some(*name));
    for _ in EXCLUSIVE.iter().filter(|pair| pair.iter().all(named)) {
        complain("conflicting scopes");
    }
}

fn scope_selector(errors: &mut ErrorList, spec: &Value, path: &Path<'_>) {
    let Some(selector) = spec.maybe("scopeSelector") else { return };
    let path = path.child("scopeSelector");
    let path = path.child("matchExpressions");
    let requirements = selector.list("matchExpressions");
    for requirement in requirements {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        let values = requirement.list("values");
        if !SCOPES.contains(&scope) {
            errors.push(Error::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in unfit(spec, scope) {
            errors.push(Error::invalid(&path, selector, "unsupported scope applied to resource"));
        }
        let exists_only =
            SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if exists_only && operator != "Exists" {
            errors.push(Error::invalid(
                &path.child("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            ));
        }
        match operator {
            "In" | "NotIn" => {
                if values.is_empty() {
                    errors.push(Error::required(
                        &path.child("values"),
                        "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                    ));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    errors.push(Error::invalid(
                        &path.child("values"),
                        &requirement["values"],
                        "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                    ));
                }
            }
            _ => {
                errors.push(Error::invalid(
                    &path.child("operator"),
                    operator,
                    "not a valid selector operator",
                ));
            }
        }
    }
    let named = |name: &&str| requirements.iter().any(|requirement| requirement.text("scopeName") == *name);
    for _ in EXCLUSIVE.iter().filter(|pair| pair.iter().all(named)) {
        errors.push(Error::invalid(&path, &spec["scopes"], "conflicting scopes"));
    }
}
