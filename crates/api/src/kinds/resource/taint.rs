//! Taints of devices, what tolerates them, and rules that taint.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::time::format_seconds;

use super::{CONDITIONS_MAX, label, pool_name};
use crate::kinds::core::pod::volumes::csi_driver_name;
use crate::kinds::defaults;
use crate::strategy::Context;
use crate::validation::conditions;
use crate::validation::fields::{Fields, invalid_each, one_of, supported};
use crate::validation::selector::label_name;
use crate::validation::text;

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Taints that do not say since when they are there are there since this write.
pub(super) fn stamp(object: &mut Value, path: &str, ctx: &Context<'_>) {
    defaults::each(object, path, &mut |taint| {
        if !taint.has("timeAdded") {
            taint.set_at(&["timeAdded"], format_seconds(ctx.now));
        }
    });
}

/// A taint; an effect that it had before stays accepted.
pub(super) fn taint(errors: &mut ErrorList, taint: &Value, old: Option<&Value>, path: &Path<'_>) {
    label_name(errors, taint.text("key"), &path.child("key"));
    label_value(errors, taint, path);
    let effect = taint.text("effect");
    if old.is_none_or(|old| old.text("effect") != effect) {
        one_of(errors, effect, &path.child("effect"), EFFECTS);
    }
}

fn label_value(errors: &mut ErrorList, holder: &Value, path: &Path<'_>) {
    let value = holder.text("value");
    invalid_each(errors, &path.child("value"), value, text::label_value(value));
}

pub(super) fn toleration(errors: &mut ErrorList, toleration: &Value, path: &Path<'_>) {
    let key = toleration.text("key");
    if !key.is_empty() {
        label_name(errors, key, &path.child("key"));
    }
    let value = toleration.text("value");
    match toleration.text("operator") {
        "Exists" if !value.is_empty() => {
            let why = "must be empty for operator `Exists`";
            errors.push(Error::invalid(&path.child("value"), value, why));
        }
        "Exists" => {}
        "Equal" => label_value(errors, toleration, path),
        other => one_of(errors, other, &path.child("operator"), &["Equal", "Exists"]),
    }
    let effect = toleration.text("effect");
    if !effect.is_empty() {
        supported(errors, effect, &path.child("effect"), EFFECTS);
    }
}

/// The spec of a `DeviceTaintRule`.
pub(super) fn rule(spec: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("spec");
    let (selector, place) = (&spec["deviceSelector"], path.child("deviceSelector"));
    if let Some(driver) = selector.maybe_text("driver") {
        csi_driver_name(&mut errors, driver, &place.child("driver"));
    }
    if let Some(pool) = selector.maybe_text("pool") {
        pool_name(&mut errors, pool, &place.child("pool"));
    }
    if let Some(device) = selector.maybe_text("device") {
        label(&mut errors, device, &place.child("device"));
    }
    taint(&mut errors, &spec["taint"], old.map(|old| &old["taint"]), &path.child("taint"));
    errors
}

pub(super) fn rule_status(status: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::root("status");
    let (list, place) = (status.list("conditions"), path.child("conditions"));
    conditions::check(&mut errors, list, &place);
    if list.len() > CONDITIONS_MAX {
        errors.push(Error::too_many(&place, list.len(), CONDITIONS_MAX));
    }
    errors
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_rule_taints_with_an_effect_that_there_is() {
        let complaints = |spec: Value, old: Option<&Value>| -> Vec<String> {
            rule(&spec, old).iter().map(ToString::to_string).collect()
        };
        let good = json!({"deviceSelector": {"driver": "d.example.com", "pool": "a/b", "device": "gpu-0"}, "taint": {"key": "k", "effect": "None"}});
        assert_eq!(complaints(good, None), Vec::<String>::new());
        let bad = json!({"deviceSelector": {"pool": ""}, "taint": {"key": "", "value": "-", "effect": "x"}});
        let found = complaints(bad.clone(), None);
        let paths: Vec<&str> = found.iter().filter_map(|text| text.split(": ").next()).collect();
        assert_eq!(
            paths,
            [
                "spec.deviceSelector.pool",
                "spec.taint.key",
                "spec.taint.key",
                "spec.taint.value",
                "spec.taint.effect"
            ]
        );
        assert_eq!(complaints(bad.clone(), Some(&bad)).len(), found.len() - 1);
    }
}
