//! Compares an answer with a recorded one, apart from what differs each time.

use serde_json::Value;

/// Differences shown of one answer; the first ones tell the rest.
const DIFFERENCES_MAX: usize = 12;

/// Kinds whose status a controller has written in the recording and nobody writes here.
const CONTROLLED: [&str; 18] = [
    "APIService",
    "CertificateSigningRequest",
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "FlowSchema",
    "HorizontalPodAutoscaler",
    "Job",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "ReplicaSet",
    "ReplicationController",
    "ResourceClaim",
    "ResourceQuota",
    "ServiceCIDR",
    "StatefulSet",
];

const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// Takes out of a tree what controllers put in beside the recording: their status (unless this answers a create),
/// the managed fields of it, and objects they made.
pub fn without_controllers(value: &mut Value, is_create: bool) {
    if let Some(kind) = value["kind"].as_str().map(str::to_owned) {
        if CONTROLLED.contains(&kind.as_str()) && !is_create {
            value.as_object_mut().map(|map| map.remove("status"));
        }
        let item_kind = kind.strip_suffix("List").unwrap_or_default().to_owned();
        for key in ["items", "rows"] {
            let Some(items) = value.get_mut(key).and_then(Value::as_array_mut) else { continue };
            items.retain(|item| !is_made_by_controller(item));
            for item in items {
                if CONTROLLED.contains(&item_kind.as_str()) {
                    item.as_object_mut().map(|map| map.remove("status"));
                }
                without_controllers(item, is_create);
            }
        }
    }
    if let Some(object) = value.get_mut("object").filter(|object| object.is_object()) {
        without_controllers(object, is_create);
    }
    tidy_metadata(value);
    tidy_columns(value);
    tidy_order(value);
}

/// Go walks its maps in an order of chance.
fn tidy_order(value: &mut Value) {
    let causes = value.pointer_mut("/details/causes").and_then(Value::as_array_mut);
    if let Some(causes) = causes.filter(|causes| causes[0]["reason"] == "FieldManagerConflict") {
        causes.sort_by_key(Value::to_string);
    }
    if value["kind"] == "SelfSubjectRulesReview" {
        for key in ["resourceRules", "nonResourceRules"] {
            let rules = value.pointer_mut(&format!("/status/{key}")).and_then(Value::as_array_mut);
            let Some(rules) = rules else { continue };
            // The recorded server had a role of its own for these.
            rules.retain(|rule| rule["nonResourceURLs"][0] != "/.well-known");
            rules.sort_by_key(Value::to_string);
        }
    }
}

/// Columns are described in upstream's prose, which this server does not carry.
fn tidy_columns(value: &mut Value) {
    for column in value.get_mut("columnDefinitions").and_then(Value::as_array_mut).into_iter().flatten() {
        column.as_object_mut().map(|map| map.remove("description"));
    }
}

fn tidy_metadata(value: &mut Value) {
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(entries) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
        // The server is a controller of its own for definitions.
        let is_own = |entry: &Value| entry["manager"] == "kube-apiserver" && entry["subresource"] == "status";
        entries.retain(|entry| entry["manager"] != CONTROLLER_MANAGER && !is_own(entry));
        // They are ordered by time, which differs by chance.
        entries.sort_by_key(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            (text("manager"), text("operation"), text("subresource"), text("apiVersion"))
        });
        if entries.is_empty() {
            metadata.remove("managedFields");
        }
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("deployment.kubernetes.io/revision");
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

fn is_made_by_controller(item: &Value) -> bool {
    let metadata = if item["metadata"].is_object() { &item["metadata"] } else { &item["object"]["metadata"] };
    let owned = metadata["ownerReferences"]
        .as_array()
        .is_some_and(|list| list.iter().any(|own| own["controller"] == true));
    // A row without its object tells by its name alone.
    let row = item["cells"][0].as_str().is_some_and(|name| name.starts_with("min-"));
    owned || row
}

/// What differs, as `path: expected …, got …`.
pub fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", expected, actual, &mut found);
    found.truncate(DIFFERENCES_MAX);
    found
}

fn compare(path: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(given)) => {
            for (key, value) in wanted {
                match given.get(key) {
                    Some(own) => compare(&format!("{path}.{key}"), value, own, found),
                    None => found.push(format!("{path}.{key}: missing, expected {}", short(value))),
                }
            }
            for (key, value) in given.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
                found.push(format!("{path}.{key}: unexpected {}", short(value)));
            }
        }
        (Value::Array(wanted), Value::Array(given)) => {
            for (index, (value, own)) in wanted.iter().zip(given).enumerate() {
                compare(&format!("{path}[{index}]"), value, own, found);
            }
            if wanted.len() != given.len() {
                found.push(format!("{path}: expected {} items, got {}", wanted.len(), given.len()));
                let more =
                    wanted.iter().skip(given.len()).map(|value| format!("{path}: lacks {}", short(value)));
                found.extend(more);
                found.extend(
                    given.iter().skip(wanted.len()).map(|value| format!("{path}: has also {}", short(value))),
                );
            }
        }
        (Value::String(wanted), Value::String(given)) => {
            if !text_matches(wanted, given) {
                found.push(format!("{path}: expected {wanted:?}, got {given:?}"));
            }
        }
        (Value::String(wanted), Value::Number(number)) if wanted.starts_with('<') => {
            if !text_matches(wanted, &number.to_string()) {
                found.push(format!("{path}: expected {wanted:?}, got {number}"));
            }
        }
        _ if expected == actual => {}
        _ => found.push(format!("{path}: expected {}, got {}", short(expected), short(actual))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    let end = text.floor_char_boundary(200);
    if end < text.len() { format!("{}…", &text[..end]) } else { text }
}

/// Whether a text is the recorded one but for placeholders, identifiers, times, ages and random suffixes.
fn text_matches(expected: &str, actual: &str) -> bool {
    if expected == actual || (is_age(expected) && is_age(actual)) {
        return true;
    }
    let (expected, actual) = (normalize(expected), normalize(actual));
    glob(&expected, &actual)
}

/// `5s`, `3m20s`, `324d`: how long ago something was.
fn is_age(text: &str) -> bool {
    let mut digits = false;
    let well_formed = text.chars().all(|c| match c {
        '0'..='9' => {
            digits = true;
            true
        }
        's' | 'm' | 'h' | 'd' | 'y' => std::mem::take(&mut digits),
        _ => false,
    });
    !text.is_empty() && well_formed && !digits
}

/// Texts before numbers and suffixes that chance decides.
const BEFORE_CHANCE: [&str; 7] =
    ["Bad_", "kube-api-access-", "resourceVersion: \"", "in record (", ":3", "127.0.0.1:", "?hash="];

/// Replaces UUIDs, times and random suffixes by placeholders.
fn normalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(len) = uuid_len(rest) {
            out.push_str("<uid>");
            rest = &rest[len..];
        } else if let Some(len) = time_len(rest) {
            out.push_str("<time>");
            rest = &rest[len..];
        } else if let Some(prefix) = BEFORE_CHANCE.iter().find(|prefix| rest.starts_with(**prefix)) {
            out.push_str(prefix);
            rest = rest[prefix.len()..].trim_start_matches(|c: char| {
                c.is_ascii_digit() || c.is_ascii_lowercase() || ('A'..='F').contains(&c)
            });
            out.push('~');
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn shape_len(text: &str, shape: &str, fits: impl Fn(u8, u8) -> bool) -> Option<usize> {
    let bytes = text.as_bytes().get(..shape.len())?;
    shape.bytes().zip(bytes).all(|(wanted, given)| fits(wanted, *given)).then_some(shape.len())
}

fn uuid_len(text: &str) -> Option<usize> {
    shape_len(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", |wanted, given| match wanted {
        b'x' => given.is_ascii_hexdigit(),
        _ => given == wanted,
    })
}

fn time_len(text: &str) -> Option<usize> {
    let fits = |wanted: u8, given: u8| match wanted {
        b'0' => given.is_ascii_digit(),
        _ => given == wanted,
    };
    let shapes = ["0000-00-00T00:00:00.000000Z", "0000-00-00T00:00:00Z", "0000-00-00"];
    shapes.into_iter().find_map(|shape| shape_len(text, shape, fits))
}

/// Whether `text` is `pattern` with something in place of each `<placeholder>`.
fn glob(pattern: &str, text: &str) -> bool {
    const PLACEHOLDERS: [&str; 7] =
        ["<uid>", "<time>", "<rv>", "<clusterIP>", "<port>", "<continue>", "<certificate>"];
    let next = PLACEHOLDERS.iter().filter_map(|own| pattern.find(own).map(|at| (at, *own))).min();
    let Some((at, placeholder)) = next else { return pattern == text };
    let (literal, after) = (&pattern[..at], &pattern[at + placeholder.len()..]);
    let Some(rest) = text.strip_prefix(literal) else { return false };
    let allowed = |c: char| match placeholder {
        "<port>" => c.is_ascii_digit(),
        // Also what looks like none: the recorder replaced every `resourceVersion`.
        "<rv>" => c.is_ascii_alphanumeric(),
        "<clusterIP>" => c.is_ascii_digit() || c == '.',
        "<uid>" | "<time>" => c.is_ascii_alphanumeric() || "<>-:.".contains(c),
        _ => true,
    };
    let longest = rest.find(|c| !allowed(c)).unwrap_or(rest.len());
    (1..=longest).rev().filter(|end| rest.is_char_boundary(*end)).any(|end| glob(after, &rest[end..]))
}

#[test]
fn placeholders_stand_for_what_differs_each_time() {
    let same = [
        ("<rv>", "12"),
        ("uid <uid>.", "uid 320e3c8f-deec-4124-aac3-88a1bb1b8f81."),
        ("at <time>", "at 2026-11-21T02:48:45Z"),
        ("[\"<clusterIP>\"]", "[\"10.96.0.7\"]"),
        ("0s", "2m3s"),
        ("name: \"Bad_fbltr\"", "name: \"Bad_x7c2k\""),
        ("80:32646/TCP,81:31946/UDP", "80:30001/TCP,81:30002/UDP"),
    ];
    for (expected, actual) in same {
        assert!(text_matches(expected, actual), "{expected} {actual}");
    }
    for (expected, actual) in [("<rv>", "-"), ("a", "b"), ("0s", "0"), ("a <rv> b", "a 1 c"), ("min", "min2")]
    {
        assert!(!text_matches(expected, actual), "{expected} {actual}");
    }
}
