//! The `resource.k8s.io` group: classes of devices, claims for devices, and the devices that drivers offer.
//!
//! Rules are about the newest form. `v1beta1`, which writes a request and a device flat, is brought into it first, so
//! that complaints about all versions name the same places, as upstream's do.

mod attribute;
mod claim;
mod class;
mod device;
mod pools;
mod selector;
mod slice;
mod status;
mod taint;

use std::borrow::Cow;
use std::collections::HashSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::conversion::resource::from_v1beta1;
use crate::devices::{DOMAIN_MAX, ENTRIES_MAX, IDENTIFIER_MAX, VALUE_MAX};
use crate::strategy::{Context, Strategy, keep_status_apart};
use crate::validation::fields::{Fields, IMMUTABLE, immutable, invalid_each, same};
use crate::validation::text;

const CONFIGURATIONS_MAX: usize = 32;
/// Bytes of JSON that only the driver understands.
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;
const POOL_NAME_MAX: usize = 253;
/// Of a taint rule, and of a device that a claim was given.
const CONDITIONS_MAX: usize = 8;

/// Where the devices of a slice have their taints, and where they have them in `v1beta1`.
const SLICE_TAINTS: &str = "spec.devices[].taints[]";
const OLD_SLICE_TAINTS: &str = "spec.devices[].basic.taints[]";

/// The label of namespaces whose claims may ask for access to devices that are in use by others.
pub const ADMIN_ACCESS: &str = "resource.kubernetes.io/admin-access";

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[
    ("DeviceClass", &DeviceClass),
    ("DeviceTaintRule", &DeviceTaintRule),
    ("ResourceClaim", &ResourceClaim),
    ("ResourceClaimTemplate", &ResourceClaimTemplate),
    ("ResourcePoolStatusRequest", &ResourcePoolStatusRequest),
    ("ResourceSlice", &ResourceSlice),
];

/// The object in the form of `v1`.
fn newest(object: &Value) -> Cow<'_, Value> {
    if object.text("apiVersion") != "resource.k8s.io/v1beta1" {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    from_v1beta1(&mut object);
    Cow::Owned(object)
}

/// The place of the first request or result for administrative access in a claim or a template of claims, if this
/// write is the one that brings it. Upstream names the same place in both.
pub fn new_admin_access(object: &Value, old: Option<&Value>) -> Option<String> {
    let object = newest(object);
    match old {
        None => {
            let spec = if object.text("kind") == "ResourceClaim" { &["spec"][..] } else { &["spec", "spec"] };
            let requests = object.at(spec)?["devices"].list("requests");
            let index = requests.iter().position(|request| request["exactly"].truth("adminAccess"))?;
            Some(format!("spec.devices.requests[{index}].adminAccess"))
        }
        Some(old) => {
            let granted = |claim: &Value| {
                let results = claim["status"]["allocation"]["devices"].list("results");
                results.iter().position(|result| result.truth("adminAccess"))
            };
            let index = granted(&object).filter(|_| granted(old).is_none())?;
            Some(format!("status.allocation.devices.results[{index}].adminAccess"))
        }
    }
}

pub struct DeviceClass;

impl Strategy for DeviceClass {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        class::spec(&object["spec"])
    }
}

pub struct DeviceTaintRule;

impl Strategy for DeviceTaintRule {
    fn prepare_for_create(&self, ctx: &Context<'_>, object: &mut Value) {
        taint::stamp(object, "spec.taint", ctx);
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
        taint::stamp(new, "spec.taint", ctx);
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        taint::rule(&object["spec"], None)
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        match ctx.subresource {
            None => taint::rule(&new["spec"], Some(&old["spec"])),
            Some(_) => taint::rule_status(&new["status"]),
        }
    }
}

pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        claim::spec(&newest(object)["spec"], &Path::root("spec"))
    }

    /// What is said about devices that are no longer allocated goes with them.
    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep_status_apart(ctx, new, old);
        if ctx.subresource.is_some() {
            status::forget_deallocated(new, old);
        }
    }

    /// What is asked for never changes, so nothing else of it is worth saying.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        match ctx.subresource {
            None => unchanged(new, old),
            Some(_) => status::update(&newest(new), old),
        }
    }
}

pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let object = newest(object);
        let spec = &object["spec"];
        let mut errors = ErrorList::new();
        let path = Path::root("spec");
        crate::validation::meta::template_object_meta(
            &mut errors,
            &spec["metadata"],
            &path.child("metadata"),
        );
        errors.extend(claim::spec(&spec["spec"], &path.child("spec")));
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        unchanged(new, old)
    }
}

/// A question about pools, answered once.
pub struct ResourcePoolStatusRequest;

impl Strategy for ResourcePoolStatusRequest {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        pools::spec(&object["spec"])
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::root("status");
        if ctx.subresource.is_none() {
            if !same(&new["spec"], &old["spec"]) {
                // Upstream does not show it.
                errors.push(Error::invalid(&Path::root("spec"), &Value::Null, IMMUTABLE));
            }
        } else if same(&old["status"], &Value::object()) {
            errors = pools::status(&new["status"], &path);
        } else {
            immutable(&mut errors, new, old, "status", &path);
        }
        errors
    }
}

pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn prepare_for_create(&self, ctx: &Context<'_>, object: &mut Value) {
        taint::stamp(object, SLICE_TAINTS, ctx);
        taint::stamp(object, OLD_SLICE_TAINTS, ctx);
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, _old: &Value) {
        self.prepare_for_create(ctx, new);
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        slice::spec(&newest(object)["spec"], None)
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        slice::spec(&newest(new)["spec"], Some(&newest(old)["spec"]))
    }
}

fn unchanged(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    immutable(&mut errors, new, old, "spec", &Path::root("spec"));
    errors
}

/// Judges the items of a list, if it is short enough; says whether it is.
fn each(
    errors: &mut ErrorList,
    list: &[Value],
    max: usize,
    path: &Path<'_>,
    check: impl Fn(&mut ErrorList, &Value, &Path<'_>),
) -> bool {
    if list.len() > max {
        errors.push(Error::too_many(path, list.len(), max));
        return false;
    }
    list.iter().enumerate().for_each(|(index, item)| check(errors, item, &path.index(index)));
    true
}

/// Does the same for a list without duplicates, whose items are told apart by `key`.
fn each_once(
    errors: &mut ErrorList,
    list: &[Value],
    max: usize,
    path: &Path<'_>,
    key: impl Fn(&Value) -> &str,
    check: impl Fn(&mut ErrorList, &Value, &Path<'_>),
) {
    if !each(errors, list, max, path, check) {
        return;
    }
    let mut seen = HashSet::new();
    for (index, key) in list.iter().map(key).enumerate() {
        if !seen.insert(key) {
            errors.push(Error::duplicate(&path.index(index), key));
        }
    }
}

/// The name of a request, a device or a set of counters.
fn name(item: &Value) -> &str {
    item.text("name")
}

fn label(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    invalid_each(errors, path, name, text::dns1123_label(name));
}

fn required_label(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        label(errors, name, path);
    }
}

/// The name of a pool of devices: subdomains in any number.
fn pool_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    if name.len() > POOL_NAME_MAX {
        errors.push(Error::too_long(path, POOL_NAME_MAX));
    }
    for part in name.split('/') {
        invalid_each(errors, path, part, text::dns1123_subdomain(part));
    }
}

/// An object that only a driver understands.
fn raw_object(errors: &mut ErrorList, value: Option<&Value>, bytes_max: usize, path: &Path<'_>) {
    match value {
        None | Some(Value::Null) => errors.push(Error::required(path, "")),
        Some(value) if value.to_json_string().len() > bytes_max => {
            errors.push(Error::too_long(path, bytes_max));
        }
        Some(Value::Object(_)) => {}
        Some(_) => errors.push(Error::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    const CTX: Context<'static> =
        Context { now: jiff::Timestamp::UNIX_EPOCH, user: "u", subresource: None, allow_privileged: true };

    #[test]
    fn older_versions_are_judged_like_the_newest() {
        let request = json!({"name": "a", "deviceClassName": "gpu", "allocationMode": "Some"});
        let flat = json!({
            "apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceClaim",
            "spec": {"devices": {"requests": [request]}},
        });
        let exactly = json!({"deviceClassName": "gpu", "allocationMode": "Some"});
        let newest = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "spec": {"devices": {"requests": [{"name": "a", "exactly": exactly}]}},
        });
        let wanted = "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \
                      \"All\", \"ExactCount\"";
        for claim in [flat, newest] {
            let errors = ResourceClaim.validate(&CTX, &claim);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [wanted]);
        }
    }

    #[test]
    fn what_is_asked_for_never_changes() {
        let claim = |name: &str| json!({"spec": {"devices": {"requests": [{"name": name}]}}});
        assert!(unchanged(&claim("a"), &claim("a")).is_empty());
        let errors = unchanged(&claim("b"), &claim("a"));
        assert!(errors[0].to_string().ends_with(": field is immutable"), "{}", errors[0]);
    }

    #[test]
    fn administrative_access_is_noticed_when_it_is_new() {
        let exactly = |admin: bool| json!({"name": "a", "exactly": {"adminAccess": admin}});
        let claim = |admin| json!({"kind": "ResourceClaim", "spec": {"devices": {"requests": [exactly(false), exactly(admin)]}}});
        assert_eq!(new_admin_access(&claim(false), None), None);
        let place = Some("spec.devices.requests[1].adminAccess".to_owned());
        assert_eq!(new_admin_access(&claim(true), None), place);
        let template = json!({"kind": "ResourceClaimTemplate", "spec": claim(true)});
        assert_eq!(new_admin_access(&template, None), place);
        let flat = json!({
            "kind": "ResourceClaim", "apiVersion": "resource.k8s.io/v1beta1",
            "spec": {"devices": {"requests": [{"name": "a"}, {"name": "b", "adminAccess": true}]}},
        });
        assert_eq!(new_admin_access(&flat, None), place);
        let status = |admin: bool| json!({"status": {"allocation": {"devices": {"results": [{"adminAccess": admin}]}}}});
        assert_eq!(new_admin_access(&status(true), Some(&status(true))), None);
        assert_eq!(
            new_admin_access(&status(true), Some(&status(false))).as_deref(),
            Some("status.allocation.devices.results[0].adminAccess")
        );
    }

    #[test]
    fn taints_say_since_when() {
        let mut rule = json!({"spec": {"taint": {"key": "k"}}});
        DeviceTaintRule.prepare_for_create(&CTX, &mut rule);
        assert_eq!(rule.str_at(&["spec", "taint", "timeAdded"]), "1970-01-01T00:00:00Z");
        let taints = json!([{"key": "k"}, {"key": "l", "timeAdded": "2026-01-01T00:00:00Z"}]);
        let mut slice = json!({"spec": {"devices": [{"taints": taints}, {"basic": {"taints": taints}}]}});
        ResourceSlice.prepare_for_create(&CTX, &mut slice);
        let since = ["1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z"];
        let devices = slice.array_at(&["spec", "devices"]);
        for taints in [&devices[0]["taints"], &devices[1]["basic"]["taints"]] {
            let found: Vec<&str> =
                taints.as_array().unwrap().iter().map(|own| own.str_at(&["timeAdded"])).collect();
            assert_eq!(found, since);
        }
    }

    #[test]
    fn a_question_about_pools_is_answered_once() {
        let status = Context { subresource: Some("status"), ..CTX };
        let with = |status: Value| json!({"status": status});
        let answer = with(json!({"poolCount": 1}));
        let update =
            |new: &Value, old: &Value| ResourcePoolStatusRequest.validate_update(&status, new, old).len();
        assert_eq!(update(&answer, &with(json!({}))), 0);
        assert_eq!(update(&answer, &answer), 0);
        assert_eq!(update(&with(json!({"poolCount": 2})), &answer), 1);
        assert_eq!(update(&with(json!({"pools": []})), &with(json!({}))), 1);
        let asked = |driver: &str| json!({"spec": {"driver": driver, "limit": 1}});
        let errors = ResourcePoolStatusRequest.validate_update(&CTX, &asked("a"), &asked("b"));
        assert_eq!(errors[0].to_string(), "spec: Invalid value: null: field is immutable");
    }
}
