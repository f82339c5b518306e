//! Where a pod may run: affinity, tolerations, topology spread, gates.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::validation::fields::{Fields, invalid_each, item_text, supported};
use crate::validation::{selector, text};

pub const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const NOT_AN_OPERATOR: &str = "not a valid selector operator";
const IN_BOTH: &str = "exists in both matchLabelKeys and labelSelector";

pub fn affinity(errors: &mut ErrorList, affinity: &Value, path: &Path<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = affinity.maybe("nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) = node.maybe(REQUIRED) {
            node_selector(errors, required, &path.child(REQUIRED));
        }
        let preferred = path.child(PREFERRED);
        for (index, term) in node.list(PREFERRED).iter().enumerate() {
            let path = preferred.index(index);
            weight(errors, term, &path);
            // Bad values are harmless in a preference, and were once allowed.
            node_selector_term(errors, &term["preference"], false, &path.child("preference"));
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.maybe(key) else { continue };
        let path = path.child(key);
        let required = path.child(REQUIRED);
        for (index, term) in pods.list(REQUIRED).iter().enumerate() {
            pod_affinity_term(errors, term, &required.index(index));
        }
        let preferred = path.child(PREFERRED);
        for (index, term) in pods.list(PREFERRED).iter().enumerate() {
            let path = preferred.index(index);
            weight(errors, term, &path);
            pod_affinity_term(errors, &term["podAffinityTerm"], &path.child("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut ErrorList, term: &Value, path: &Path<'_>) {
    let weight = term.int("weight");
    if !(1..=100).contains(&weight) {
        errors.push(Error::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// A `NodeSelector`; it has at least one term.
pub fn node_selector(errors: &mut ErrorList, selector: &Value, path: &Path<'_>) {
    let path = path.child("nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(Error::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_selector_term(errors, term, true, &path.index(index));
    }
}

/// One of its terms, or a preferred one.
pub fn node_selector_term(errors: &mut ErrorList, term: &Value, check_values: bool, path: &Path<'_>) {
    let expressions = path.child("matchExpressions");
    for (index, requirement) in term.list("matchExpressions").iter().enumerate() {
        node_requirement(errors, requirement, check_values, &expressions.index(index));
    }
    let fields = path.child("matchFields");
    for (index, requirement) in term.list("matchFields").iter().enumerate() {
        node_field_requirement(errors, requirement, &fields.index(index));
    }
}

fn node_requirement(errors: &mut ErrorList, requirement: &Value, check_values: bool, path: &Path<'_>) {
    let values = requirement.list("values");
    let values_path = path.child("values");
    match requirement.text("operator") {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors.push(Error::required(
                    &values_path,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                errors.push(Error::forbidden(
                    &values_path,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                errors.push(Error::required(
                    &values_path,
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                ));
            }
        }
        other => errors.push(Error::invalid(&path.child("operator"), other, NOT_AN_OPERATOR)),
    }
    selector::label_name(errors, requirement.text("key"), &path.child("key"));
    if check_values {
        selector::label_values(errors, values, &values_path);
    }
}

fn node_field_requirement(errors: &mut ErrorList, requirement: &Value, path: &Path<'_>) {
    let values = requirement.list("values");
    let values_path = path.child("values");
    match requirement.text("operator") {
        "In" | "NotIn" => {
            if values.len() != 1 {
                errors.push(Error::required(
                    &values_path,
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                ));
            }
        }
        other => errors.push(Error::invalid(&path.child("operator"), other, NOT_AN_OPERATOR)),
    }
    let key = requirement.text("key");
    if key != "metadata.name" {
        errors.push(Error::invalid(&path.child("key"), key, "not a valid field selector key"));
        return;
    }
    for (index, value) in values.iter().enumerate() {
        let value = item_text(value);
        invalid_each(errors, &values_path.index(index), value, text::dns1123_subdomain(value));
    }
}

fn pod_affinity_term(errors: &mut ErrorList, term: &Value, path: &Path<'_>) {
    for key in ["labelSelector", "namespaceSelector"] {
        selector::label_selector(errors, term.maybe(key), &path.child(key));
    }
    for namespace in term.list("namespaces") {
        let namespace = item_text(namespace);
        invalid_each(errors, &path.child("namespace"), namespace, text::dns1123_label(namespace));
    }
    match_label_keys(errors, term, path);
    let key = term.text("topologyKey");
    if key.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    }
    selector::label_name(errors, key, &path.child("topologyKey"));
}

/// `matchLabelKeys` and `mismatchLabelKeys`, which are merged into the selector when a pod is created.
fn match_label_keys(errors: &mut ErrorList, term: &Value, path: &Path<'_>) {
    let (matched, mismatched) = (term.list("matchLabelKeys"), term.list("mismatchLabelKeys"));
    if matched.is_empty() && mismatched.is_empty() {
        return;
    }
    let selector = term.maybe("labelSelector");
    for (key, list) in [("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)] {
        let path = path.child(key);
        if selector.is_none() && !list.is_empty() {
            errors.push(Error::forbidden(&path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (index, name) in list.iter().enumerate() {
            selector::label_name(errors, item_text(name), &path.index(index));
        }
    }
    if let Some(selector) = selector {
        // Merging adds one expression per key; one that is there twice, or is also a label, was written by hand.
        let mut seen: Vec<&str> = selector.entries("matchLabels").map(|(key, _)| key).collect();
        for expression in selector.list("matchExpressions") {
            let key = expression.text("key");
            if let Some(index) = matched.iter().position(|name| name.as_str() == Some(key))
                && seen.contains(&key)
            {
                errors.push(Error::invalid(&path.index(index), key, IN_BOTH));
            }
            seen.push(key);
        }
    }
    let list_path = path.child("matchLabelKeys");
    for (index, name) in matched.iter().enumerate().filter(|(_, name)| mismatched.contains(name)) {
        errors.push(Error::invalid(
            &list_path.index(index),
            item_text(name),
            "exists in both matchLabelKeys and mismatchLabelKeys",
        ));
    }
}

pub fn topology_spread(errors: &mut ErrorList, constraints: &[Value], path: &Path<'_>) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let (key, action) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        let skew = constraint.int("maxSkew");
        if skew <= 0 {
            errors.push(Error::invalid(&path.child("maxSkew"), skew, "must be greater than zero"));
        }
        if key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        }
        supported(errors, action, &path.child("whenUnsatisfiable"), &["DoNotSchedule", "ScheduleAnyway"]);
        let again = constraints[index + 1..]
            .iter()
            .any(|other| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == action);
        if again {
            errors.push(Error::duplicate(
                &path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{key}, {action}}}"),
            ));
        }
        if let Some(domains) = constraint.maybe_int("minDomains") {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.push(Error::invalid(&path, domains, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                errors.push(Error::invalid(
                    &path,
                    domains,
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"),
                ));
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(value) = constraint.maybe_text(policy) {
                supported(errors, value, &path.child(policy), &["Honor", "Ignore"]);
            }
        }
        match_label_keys(errors, constraint, &path);
        selector::label_selector(errors, constraint.maybe("labelSelector"), &path.child("labelSelector"));
    }
}

pub fn tolerations(errors: &mut ErrorList, tolerations: &[Value], path: &Path<'_>) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, operator, value) =
            (toleration.text("key"), toleration.text("operator"), toleration.text("value"));
        let effect = toleration.text("effect");
        let operator_path = path.child("operator");
        if !key.is_empty() {
            selector::label_name(errors, key, &path.child("key"));
        } else if operator != "Exists" {
            errors.push(Error::invalid(
                &operator_path,
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            errors.push(Error::invalid(
                &path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        match operator {
            "Equal" | "" => {
                let messages = text::label_value(value);
                if !messages.is_empty() {
                    errors.push(Error::invalid(&operator_path, value, messages.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.push(Error::invalid(
                        &operator_path,
                        value,
                        "value must be empty when `operator` is 'Exists'",
                    ));
                }
            }
            // The comparisons come with a feature gate that is off.
            "Lt" | "Gt" => {
                errors.push(Error::not_supported(&operator_path, operator, &["Equal", "Exists", "Lt", "Gt"]));
            }
            _ => errors.push(Error::not_supported(&operator_path, operator, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            supported(errors, effect, &path.child("effect"), &TAINT_EFFECTS);
        }
    }
}

pub fn scheduling_gates(errors: &mut ErrorList, gates: &[Value], path: &Path<'_>) {
    for (index, gate) in gates.iter().enumerate() {
        let path = path.index(index);
        let name = gate.text("name");
        invalid_each(errors, &path, name, text::qualified_name(name));
        if gates[..index].iter().any(|other| other.text("name") == name) {
            errors.push(Error::duplicate(&path, name));
        }
    }
}

/// The group that a pod is scheduled with: for now it can only be named.
pub fn scheduling_group(errors: &mut ErrorList, group: &Value, path: &Path<'_>) {
    let path = path.child("podGroupName");
    match group.maybe_text("podGroupName") {
        None => errors.push(Error::invalid(&path, &Value::Null, "must specify one of: `podGroupName`")),
        Some(name) => invalid_each(errors, &path, name, text::dns1123_subdomain(name)),
    }
}

/// Merges `matchLabelKeys` of all terms with the pod's labels into their selectors, so that the scheduler needs to
/// look at selectors only.
pub fn merge_label_keys(spec: &mut Value, labels: &Value) {
    let merge = |term: &mut Value| {
        for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
            let wanted: Vec<Value> = term
                .list(list)
                .iter()
                .filter_map(|key| {
                    let value = labels.maybe(item_text(key))?.clone();
                    let requirement = [
                        ("key".into(), key.clone()),
                        ("operator".into(), operator.into()),
                        ("values".into(), Value::Array(vec![value])),
                    ];
                    Some(requirement.into_iter().collect())
                })
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_object_mut) else {
                continue;
            };
            let expressions = selector.get_or_insert_with("matchExpressions", || Value::Array(Vec::new()));
            if let Some(expressions) = expressions.as_array_mut() {
                expressions.extend(wanted);
            }
        }
    };
    let each = |holder: Option<&mut Value>, inner: Option<&str>| {
        for item in holder.and_then(Value::as_array_mut).into_iter().flatten() {
            match inner {
                Some(key) => {
                    if let Some(term) = item.get_mut(key) {
                        merge(term);
                    }
                }
                None => merge(item),
            }
        }
    };
    each(spec.get_mut("topologySpreadConstraints"), None);
    if !spec.has("affinity") {
        return;
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        each(
            spec.at_mut(&["affinity", kind, "preferredDuringSchedulingIgnoredDuringExecution"]),
            Some("podAffinityTerm"),
        );
        each(spec.at_mut(&["affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution"]), None);
    }
}
