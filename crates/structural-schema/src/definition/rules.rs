//! The rules of a schema: whether they compile, and what they may cost.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorKind, ErrorList, Path};
use cel::Decl;
use cel::limits::{ESTIMATED_PER_RESOURCE, ESTIMATED_PER_RULE};

use super::go_form;
use crate::Structural;
use crate::rules::{Compiled, Refusal, compile, declare, escape};
use crate::structural::{Additional, Kind, ListType, Rule};

/// The dearest rules are named when all together cost too much.
const DEAREST_MAX: usize = 4;

/// All complaints about the rules of a whole object's schema. Rules of parts that `errors` already finds fault with
/// are left out. `tolerate_cost` when the schema is not new, so that what was accepted once stays so.
pub(super) fn validate(errors: &mut ErrorList, schema: &Structural, tolerate_cost: bool, path: &Path<'_>) {
    let faults: Vec<String> = errors.iter().map(|error| error.path.clone()).collect();
    let mut walk = Walk { errors, faults, tolerate_cost, total: 0, dearest: Vec::new() };
    let top = Scope { decl: None, cardinality: Some(1), uncorrelated: None, is_root: true };
    walk.schema(schema, &top, path);
    if walk.total > ESTIMATED_PER_RESOURCE {
        for (path, _) in &walk.dearest {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            walk.errors.push(forbidden(path.clone(), detail.into()));
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let detail = too_dear(name, walk.total, ESTIMATED_PER_RESOURCE);
        walk.errors.push(forbidden(path.to_string(), detail));
    }
}

fn forbidden(path: String, detail: String) -> Error {
    Error { kind: ErrorKind::Forbidden, path, shown: None, detail }
}

fn too_dear(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        // So that nobody reads "by factor of 1.0x".
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// What the places above a schema decide for its rules.
struct Scope {
    /// What expressions know of the value, once there is a rule here or above.
    decl: Option<Decl>,
    /// How many values there can be; `None` without a limit.
    cardinality: Option<u64>,
    /// The outermost list whose items cannot be followed through a change.
    uncorrelated: Option<String>,
    is_root: bool,
}

struct Walk<'e> {
    errors: &'e mut ErrorList,
    /// Where there are other complaints.
    faults: Vec<String>,
    tolerate_cost: bool,
    total: u64,
    dearest: Vec<(String, u64)>,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Structural, scope: &Scope, path: &Path<'_>) {
        if !crate::rules::any(schema) {
            return;
        }
        let mut decl = scope.decl.clone();
        if decl.is_none() && !schema.rules.is_empty() {
            decl = declare(schema, scope.is_root || schema.embedded, "self");
        }
        let below = |decl: Option<Decl>, uncorrelated: Option<String>| Scope {
            decl,
            cardinality: scope.cardinality.and_then(|own| Some(own.saturating_mul(elements_max(schema)?))),
            uncorrelated,
            is_root: false,
        };
        let step = |name: &str| decl.as_ref().and_then(|decl| decl.step(name)).cloned();
        if let Some(values) = schema.additional.schema() {
            let scope = below(step("@values"), scope.uncorrelated.clone());
            self.schema(values, &scope, &path.child("additionalProperties"));
        }
        let properties = path.child("properties");
        for (name, property) in &schema.properties {
            let decl = escape(name).and_then(|escaped| step(&escaped));
            self.schema(property, &below(decl, scope.uncorrelated.clone()), &properties.key(name));
        }
        if let Some(items) = &schema.items {
            let own = || (!matches!(schema.list_type, ListType::Map(_))).then(|| path.to_string());
            let scope = below(step("@items"), scope.uncorrelated.clone().or_else(own));
            self.schema(items, &scope, &path.child("items"));
        }
        if !schema.rules.is_empty() {
            self.rules(schema, decl.as_ref(), scope, &path.child("x-kubernetes-validations"), path);
        }
    }

    fn rules(
        &mut self,
        schema: &Structural,
        decl: Option<&Decl>,
        scope: &Scope,
        path: &Path<'_>,
        own: &Path<'_>,
    ) {
        let own = own.to_string();
        let is_below = |fault: &String| {
            fault.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.faults.iter().any(is_below) {
            return;
        }
        let Some(decl) = decl else {
            let detail = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            let path = path.to_string();
            self.errors.push(Error { kind: ErrorKind::Internal, path, shown: None, detail: detail.into() });
            return;
        };
        for (index, rule) in schema.rules.iter().enumerate() {
            let compiled = compile(rule, decl, schema);
            self.rule(rule, &compiled, scope, &path.index(index));
        }
    }

    fn rule(&mut self, rule: &Rule, compiled: &Compiled, scope: &Scope, path: &Path<'_>) {
        let rule_path = path.child("rule");
        let go = |path: &Path<'_>, detail: String| Error {
            kind: ErrorKind::Invalid,
            path: path.to_string(),
            shown: Some(go_form::rule(&as_json(rule))),
            detail,
        };
        match &compiled.program {
            Ok(program) => {
                let cardinality = scope.cardinality.unwrap_or(compiled.cardinality_max);
                let cost = program.estimate().max.saturating_mul(cardinality);
                self.cost("estimated rule cost", cost, &rule_path);
            }
            Err(Refusal::Empty) => {}
            Err(Refusal::Invalid(why)) => self.errors.push(go(&rule_path, why.clone())),
        }
        let message_path = path.child("messageExpression");
        if let Some(why) = &compiled.message_refusal {
            self.errors.push(go(&message_path, why.clone()));
        } else if let Some(program) = &compiled.message {
            self.cost("estimated messageExpression cost", program.estimate().max, &message_path);
        }
        if compiled.uses_old_self {
            if let Some(list) = &scope.uncorrelated {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
                );
                self.errors.push(Error::invalid(&rule_path, &*rule.rule, detail));
            }
        } else if let Some(flag) = rule.optional_old_self {
            let path = path.child("optionalOldSelf");
            self.errors.push(Error::invalid(&path, flag, "may not be set if oldSelf is not used in rule"));
        }
    }

    fn cost(&mut self, name: &str, cost: u64, path: &Path<'_>) {
        if !self.tolerate_cost && cost > ESTIMATED_PER_RULE {
            self.errors.push(forbidden(path.to_string(), too_dear(name, cost, ESTIMATED_PER_RULE)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= ESTIMATED_PER_RESOURCE / 100 {
            self.dearest.push((path.to_string(), cost));
            self.dearest.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.dearest.truncate(DEAREST_MAX);
        }
    }
}

/// How many values a value of this schema has directly below it; `None` without a limit.
fn elements_max(schema: &Structural) -> Option<u64> {
    let validation = schema.validation.as_deref();
    let limit = |limit: Option<i64>| limit.map(|limit| u64::try_from(limit).unwrap_or_default());
    match schema.kind {
        Some(Kind::Object) if schema.additional != Additional::None => {
            validation.and_then(|own| limit(own.max_properties))
        }
        Some(Kind::Array) => validation.and_then(|own| limit(own.max_items)),
        _ => Some(1),
    }
}

fn as_json(rule: &Rule) -> Value {
    let mut json = Value::object();
    let map = json.ensure_object();
    map.insert("rule", &*rule.rule);
    map.insert("message", &*rule.message);
    map.insert("messageExpression", &*rule.message_expression);
    map.insert("reason", rule.reason.as_deref());
    map.insert("fieldPath", &*rule.field_path);
    map.insert("optionalOldSelf", rule.optional_old_self);
    json
}
