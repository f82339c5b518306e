//! Names of attributes and capacities, and what they may be.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Quantity, Value};

use super::{IDENTIFIER_MAX, VALUE_MAX};
use crate::kinds::core::pod::volumes::csi_driver_name;
use crate::validation::fields::{Fields, as_go_struct, invalid_each, item_text};
use crate::validation::resources::quantity;
use crate::validation::text;

const CHOICES_MAX: usize = 10;
const NOT_A_VERSION: &str = "must be a string compatible with semver.org spec 2.0.0";

/// A name with or without the domain of who defines it.
pub(super) fn name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [only] => identifier(errors, only, path),
        [domain, name] => {
            if domain.is_empty() {
                errors.push(Error::invalid(path, "", "the domain must not be empty"));
            } else {
                csi_driver_name(errors, domain, path);
            }
            if name.is_empty() {
                errors.push(Error::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(errors, name, path);
            }
        }
        // Upstream lets these pass.
        _ => {}
    }
}

/// A name with its domain.
pub(super) fn full_name(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    self::name(errors, name, path);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(Error::invalid(path, name, why));
    }
}

fn identifier(errors: &mut ErrorList, name: &str, path: &Path<'_>) {
    if name.len() > IDENTIFIER_MAX {
        errors.push(Error::too_long(path, IDENTIFIER_MAX));
    }
    invalid_each(errors, path, name, text::c_identifier(name));
}

/// The fields of an attribute that are lists, in the order of the Go type.
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

/// How many values an attribute has.
pub(super) fn values(attribute: &Value) -> usize {
    let listed: usize = LISTS.iter().map(|key| attribute.list(key).len()).sum();
    listed.max(1)
}

/// Whether an attribute is a list.
pub(super) fn is_list(attribute: &Value) -> bool {
    LISTS.iter().any(|key| attribute.has(key))
}

/// The value of an attribute: one of one type.
pub(super) fn attribute(errors: &mut ErrorList, attribute: &Value, path: &Path<'_>) {
    let texts: [(&str, TextCheck); 2] = [("string", short), ("version", version)];
    for (key, check) in texts {
        if let Some(value) = attribute.maybe_text(key) {
            check(errors, value, &path.child(key));
        }
    }
    let lists: [(&str, Option<TextCheck>); 4] =
        [("bools", None), ("ints", None), ("strings", Some(short)), ("versions", Some(version))];
    for (key, check) in lists.into_iter().filter(|(key, _)| attribute.has(key)) {
        let (list, path) = (attribute.list(key), path.child(key));
        if list.is_empty() {
            errors.push(Error::invalid(&path, &attribute[key], "must not be empty if specified"));
        }
        for (index, item) in list.iter().enumerate() {
            if let Some(check) = check {
                check(errors, item_text(item), &path.index(index));
            }
        }
    }
    let set =
        ["int", "bool", "string", "version"].iter().chain(&LISTS).filter(|key| attribute.has(key)).count();
    let why = "exactly one value must be specified";
    match set {
        0 => errors.push(Error::invalid(path, "", why)),
        1 => {}
        _ => errors.push(Error::invalid(path, as_go_struct(attribute, GO_ATTRIBUTE), why)),
    }
}

/// `DeviceAttribute` as Go shows it.
const GO_ATTRIBUTE: &[(&str, &str, &str)] = &[
    ("int", "IntValue", "null"),
    ("bool", "BoolValue", "null"),
    ("string", "StringValue", "null"),
    ("version", "VersionValue", "null"),
    ("ints", "IntValues", "null"),
    ("bools", "BoolValues", "null"),
    ("strings", "StringValues", "null"),
    ("versions", "VersionValues", "null"),
];

type TextCheck = fn(&mut ErrorList, &str, &Path<'_>);

fn short(errors: &mut ErrorList, value: &str, path: &Path<'_>) {
    if value.len() > VALUE_MAX {
        errors.push(Error::too_long(path, VALUE_MAX));
    }
}

fn version(errors: &mut ErrorList, value: &str, path: &Path<'_>) {
    if !is_version(value) {
        errors.push(Error::invalid(path, value, NOT_A_VERSION));
    }
    short(errors, value, path);
}

/// `1.2.3-alpha.1+build.5`
fn is_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (numbers, pre) = rest.split_once('-').map_or((rest, None), |(rest, pre)| (rest, Some(pre)));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_number =
        |part: &str| is_digits(part) && !part.is_empty() && (part == "0" || !part.starts_with('0'));
    let is_pre = |part: &str| is_word(part) && (!is_digits(part) || is_number(part));
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

/// A capacity that claims may share, as its policy says.
pub(super) fn shared_capacity(errors: &mut ErrorList, capacity: &Value, path: &Path<'_>) {
    let Some(policy) = capacity.maybe("requestPolicy") else { return };
    let path = path.child("requestPolicy");
    let whole = quantity(&capacity["value"]).unwrap_or_default();
    let (choices, range) = (policy.list("validValues"), policy.maybe("validRange"));
    let default = quantity(&policy["default"]);
    let mut with_default = |what: &str, check: &dyn Fn(&mut ErrorList, Quantity)| match default {
        None => {
            errors.push(Error::required(&path.child("default"), format!("required when {what} is defined")))
        }
        Some(default) => check(errors, default),
    };
    match (choices, range) {
        ([], None) => {}
        ([], Some(range)) => with_default("validRange", &|errors, default| {
            in_range(errors, default, whole, range, &path.child("validRange"));
        }),
        (choices, None) => with_default("validValues", &|errors, default| {
            one_of_choices(errors, default, whole, choices, &path.child("validValues"));
        }),
        _ => {
            let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the \
                       same time";
            errors.push(Error::forbidden(&path, why));
        }
    }
}

/// A capacity that belongs to one claim at a time.
pub(super) fn exclusive_capacity(errors: &mut ErrorList, capacity: &Value, path: &Path<'_>) {
    if capacity.has("requestPolicy") {
        errors.push(Error::forbidden(&path.child("requestPolicy"), "allowMultipleAllocations must be true"));
    }
}

/// A quantity as messages show it.
fn shown(quantity: Quantity) -> String {
    quantity.to_string()
}

fn one_of_choices(
    errors: &mut ErrorList,
    default: Quantity,
    whole: Quantity,
    choices: &[Value],
    path: &Path<'_>,
) {
    let all: Vec<Quantity> = choices.iter().filter_map(quantity).collect();
    for (index, pair) in all.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let why = "values must be sorted in ascending order";
            errors.push(Error::invalid(&path.index(index + 1), shown(pair[1]), why));
        }
    }
    if all.len() > CHOICES_MAX {
        errors.push(Error::too_many(path, all.len(), CHOICES_MAX));
    } else {
        for (index, choice) in all.iter().enumerate().filter(|(_, choice)| **choice > whole) {
            let why = format!("option is larger than capacity value: {whole}");
            errors.push(Error::invalid(&path.index(index), shown(*choice), why));
        }
        let is_repeated = |index: &usize| all[..*index].iter().any(|own| own.value() == all[*index].value());
        for index in (0..all.len()).filter(is_repeated) {
            errors.push(Error::duplicate(&path.index(index), all[index].value().to_string()));
        }
    }
    // As upstream, a list that is too long has not been searched.
    if all.len() > CHOICES_MAX || !all.contains(&default) {
        let why = "default value is not valid according to the requestPolicy";
        errors.push(Error::invalid(path, shown(default), why));
    }
}

fn in_range(errors: &mut ErrorList, default: Quantity, whole: Quantity, range: &Value, path: &Path<'_>) {
    let Some(min) = quantity(&range["min"]) else {
        errors.push(Error::required(&path.child("min"), "required when validRange is defined"));
        return;
    };
    let (max, step) = (quantity(&range["max"]), quantity(&range["step"]));
    let mut complain = |key: &str, is_wrong: bool, value: Quantity, why: String| {
        if is_wrong {
            errors.push(Error::invalid(&path.child(key), shown(value), why));
        }
    };
    complain("min", min > whole, min, format!("min is larger than capacity value: {whole}"));
    complain("min", default < min, default, format!("default is less than min: {min}"));
    if let Some(max) = max {
        complain("max", min > max, min, format!("min is larger than max: {max}"));
        complain("max", max > whole, max, format!("max is larger than capacity value: {whole}"));
        complain("max", default > max, default, format!("default is more than max: {max}"));
    }
    let Some(step) = step else { return };
    let first = min.add(step);
    complain("step", first > whole, step, format!("one step {first} is larger than capacity value: {whole}"));
    for value in [Some(default), max].into_iter().flatten() {
        let distance = value.value().wrapping_sub(min.value());
        let is_whole = distance.checked_rem(step.value()) == Some(0);
        complain(
            "step",
            !is_whole,
            value,
            format!("value is not a multiple of a given step ({step}) from ({min})"),
        );
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[track_caller]
    fn check(judge: impl Fn(&mut ErrorList, &Path<'_>), wanted: &[&str]) {
        let mut errors = ErrorList::new();
        judge(&mut errors, &Path::root("x"));
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn names_are_identifiers_with_a_domain() {
        for good in ["a", "_a1", "example.com/name", "a/b/c"] {
            check(|errors, path| name(errors, good, path), &[]);
        }
        check(
            |errors, path| name(errors, "/a", path),
            &["x: Invalid value: \"\": the domain must not be empty"],
        );
        check(
            |errors, path| name(errors, "a.b/", path),
            &["x: Invalid value: \"\": the name must not be empty"],
        );
        check(
            |errors, path| name(errors, "1a", path),
            &[
                "x: Invalid value: \"1a\": a valid C identifier must start with alphabetic character or '_', followed \
               by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used \
               for validation is '[A-Za-z_][A-Za-z0-9_]*')",
            ],
        );
    }

    #[test]
    fn an_attribute_is_one_value() {
        for good in [json!({"bool": false}), json!({"version": "1.2.3-a.0+b-1.007"}), json!({"ints": [1, 2]})]
        {
            check(|errors, path| attribute(errors, &good, path), &[]);
        }
        for bad in ["1.2", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.3.4", "v1.2.3", ""] {
            assert!(!is_version(bad), "{bad}");
        }
        check(
            |errors, path| attribute(errors, &json!({}), path),
            &["x: Invalid value: \"\": exactly one value must be specified"],
        );
        check(
            |errors, path| attribute(errors, &json!({"int": 1, "strings": []}), path),
            &[
                "x.strings: Invalid value: []: must not be empty if specified",
                "x: Invalid value: {\"IntValue\":1,\"BoolValue\":null,\"StringValue\":null,\"VersionValue\":null,\
                 \"IntValues\":null,\"BoolValues\":null,\"StringValues\":[],\"VersionValues\":null}: exactly one \
                 value must be specified",
            ],
        );
    }

    #[test]
    fn shared_capacities_have_a_policy_that_works() {
        let capacity = |policy: Value| json!({"value": "10Gi", "requestPolicy": policy});
        let good = [
            json!({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}),
            json!({"default": "2Gi", "validRange": {"min": "1Gi", "max": "10Gi", "step": "1Gi"}}),
            json!({"default": "1Gi"}),
        ];
        for policy in good {
            check(|errors, path| shared_capacity(errors, &capacity(policy.clone()), path), &[]);
        }
        check(
            |errors, path| {
                let policy = json!({"default": "3Gi", "validValues": ["20Gi", "1Gi", "1Gi"]});
                shared_capacity(errors, &capacity(policy), path);
            },
            &[
                "x.requestPolicy.validValues[1]: Invalid value: \"1Gi\": values must be sorted in ascending order",
                "x.requestPolicy.validValues[0]: Invalid value: \"20Gi\": option is larger than capacity value: 10Gi",
                "x.requestPolicy.validValues[2]: Duplicate value: \"1073741824\"",
                "x.requestPolicy.validValues: Invalid value: \"3Gi\": default value is not valid according to the \
                 requestPolicy",
            ],
        );
        check(
            |errors, path| {
                let policy =
                    json!({"default": "1Gi", "validRange": {"min": "2Gi", "max": "30Gi", "step": "3Gi"}});
                shared_capacity(errors, &capacity(policy), path);
            },
            &[
                "x.requestPolicy.validRange.min: Invalid value: \"1Gi\": default is less than min: 2Gi",
                "x.requestPolicy.validRange.max: Invalid value: \"30Gi\": max is larger than capacity value: 10Gi",
                "x.requestPolicy.validRange.step: Invalid value: \"1Gi\": value is not a multiple of a given step \
                 (3Gi) from (2Gi)",
                "x.requestPolicy.validRange.step: Invalid value: \"30Gi\": value is not a multiple of a given step \
                 (3Gi) from (2Gi)",
            ],
        );
        check(
            |errors, path| exclusive_capacity(errors, &capacity(json!({})), path),
            &["x.requestPolicy: Forbidden: allowMultipleAllocations must be true"],
        );
    }
}
