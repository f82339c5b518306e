//! Sets of tolerations: joining them so that none says what another says already.

use api::validation::fields::same;
use apimachinery::Value;

/// Both lists in one, without those that another covers. Of equals the first stays.
pub fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<&Value> = Vec::with_capacity(all.len());
    for (index, own) in all.iter().enumerate() {
        let redundant = merged.iter().any(|kept| covers(kept, own))
            || all[index + 1..].iter().any(|later| !same(own, later) && covers(later, own));
        if !redundant {
            merged.push(own);
        }
    }
    merged.into_iter().cloned().collect()
}

/// Whether each toleration is covered by one of an allow list; an empty list allows everything.
pub fn are_allowed(tolerations: &[Value], allowed: &[Value]) -> bool {
    allowed.is_empty() || tolerations.iter().all(|own| allowed.iter().any(|wide| covers(wide, own)))
}

/// Whether whatever `narrow` tolerates `wide` tolerates as well.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if same(wide, narrow) {
        return true;
    }
    let text = |value: &Value, key: &str| value.str_at(&[key]).to_owned();
    let (key, operator, effect) = (text(wide, "key"), text(wide, "operator"), text(wide, "effect"));
    let any_key = key.is_empty() && operator == "Exists";
    if key != text(narrow, "key") && !any_key {
        return false;
    }
    if !effect.is_empty() && effect != text(narrow, "effect") {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match operator.as_str() {
        "" | "Equal" => text(narrow, "operator") == "Equal" && text(narrow, "value") == text(wide, "value"),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn wider_tolerations_cover_narrower_ones() {
        let all = json!({"operator": "Exists"});
        let key = json!({"key": "k", "operator": "Exists"});
        let value = json!({"key": "k", "operator": "Equal", "value": "v"});
        let minute =
            json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60});
        let hour =
            json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3600});
        for (wide, narrow, expected) in [
            (&all, &key, true),
            (&key, &all, false),
            (&key, &value, true),
            (&value, &key, false),
            (&value, &value, true),
            (&hour, &minute, true),
            (&minute, &hour, false),
            (&key, &minute, true),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn merging_keeps_the_widest_and_the_first_of_equals() {
        let key = json!({"key": "k", "operator": "Exists"});
        let value = json!({"key": "k", "operator": "Equal", "value": "v"});
        let other = json!({"key": "o", "operator": "Exists"});
        let merged = merge(&[value.clone(), other.clone()], &[key.clone(), other.clone()]);
        assert_eq!(merged, [other.clone(), key.clone()]);
        assert!(are_allowed(std::slice::from_ref(&value), std::slice::from_ref(&key)));
        assert!(!are_allowed(&[value, other.clone()], std::slice::from_ref(&key)));
        assert!(are_allowed(&[other], &[]));
    }
}
