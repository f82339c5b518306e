//! Replays what a real kube-apiserver was sent, and compares what the kinds' rules make of it with what it answered.
//!
//! The answers stand in `upstream-transcripts` of the folder that `PINTLE_TESTDATA` names; without it the tests are
//! skipped. A case either agrees, or it is listed in [`KNOWN`] with the reason; a listed case that agrees fails too,
//! so that the list only shrinks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use api::builtin;
use api::resource::Resource;
use api::strategy::Context;
use api::validation::{ObjectMetaRules, meta, object_meta, object_meta_update};
use apimachinery::decode::{FieldValidation, decode};
use apimachinery::field::Path;
use apimachinery::{Status, Value};
use jiff::Timestamp;

/// A case in which we differ: where, why, and what every line of the difference says.
struct Known(&'static str, &'static str, &'static [&'static str]);

const ALLOCATOR: &str = "the registry allocates addresses and ports, and complains about their ranges";
const OPTIONS: &str = "query parameters are checked where requests are read";
const ADMISSION: &str = "an admission plugin does this";

/// Cases in which we differ.
const KNOWN: &[Known] = &[
    Known(
        "admission.jsonl: limit range defaults a pod",
        ADMISSION,
        &[".metadata.annotations", ".resources.", ".status.qosClass"],
    ),
    Known("admission.jsonl: policy: message", ADMISSION, &["accepted"]),
    Known(
        "bad-input.jsonl: bad generateName",
        "the registry generates the name before it validates",
        &["metadata.name"],
    ),
    Known("bad-input.jsonl: dryRun bogus", OPTIONS, &["accepted"]),
    Known("bad-input.jsonl: service: nodePort out of range", ALLOCATOR, &["accepted"]),
    Known("bad-input.jsonl: service: outside range", ALLOCATOR, &["accepted"]),
    Known("bad-input.jsonl: unknown field Bogus", OPTIONS, &["accepted"]),
    Known(
        "create-minimal.jsonl: certificates.k8s.io/v1 CertificateSigningRequest min",
        "the registry knows groups and UID of the user",
        &[".spec.groups", ".spec.uid", ".spec.username"],
    ),
    Known(
        "create-minimal.jsonl: storage.k8s.io/v1 CSINode min",
        "upstream's protobuf storage turns an empty list into null",
        &[".spec.drivers"],
    ),
    Known("create-minimal.jsonl: v1 Service affinity", ALLOCATOR, &[".spec.ipFamilies"]),
    Known("create-minimal.jsonl: v1 Service headless", ALLOCATOR, &[".spec.ipFamilies"]),
    Known("create-minimal.jsonl: v1 Service lb", ALLOCATOR, &[".spec.ipFamilies"]),
    Known("create-minimal.jsonl: v1 Service min", ALLOCATOR, &[".spec.ipFamilies"]),
    Known("create-minimal.jsonl: v1 Service nodeport", ALLOCATOR, &[".spec.ipFamilies"]),
    Known("update-rules.jsonl: job: parallelism", "the job controller had run in between", &[".status."]),
    Known(
        "update-rules.jsonl: spec through status is ignored",
        "the deployment controller had run in between",
        &[".status.", ".metadata.annotations"],
    ),
    Known(
        "validate-nonsense.jsonl: events.k8s.io.v1.Event",
        "upstream names the kind of the core group in the message",
        &["order or wording", "Event"],
    ),
    Known(
        "validate-nonsense.jsonl: resource.k8s.io.v1.ResourceClaim",
        "whether a namespace allows admin access is decided where namespaces are known",
        &["spec.devices.requests[0].adminAccess Forbidden"],
    ),
];

/// Stands for every UID.
const UID: &str = "0a1b2c3d";

/// One recorded exchange.
struct Case {
    name: String,
    method: String,
    path: String,
    body: Value,
    change: Value,
    status: i64,
    answer: Value,
}

/// What a path names.
struct Target {
    resource: Arc<Resource>,
    namespace: String,
    name: String,
    subresource: String,
}

fn testdata() -> Option<PathBuf> {
    let folder = match std::env::var_os("PINTLE_TESTDATA") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata"),
    };
    let folder = folder.join("upstream-transcripts");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: PINTLE_TESTDATA is unset");
    None
}

fn cases(file: &str) -> Vec<Case> {
    let Some(folder) = testdata() else { return Vec::new() };
    let text = std::fs::read_to_string(folder.join(file)).expect("a transcript");
    let read = |line: &str| {
        let line = Value::parse(line.as_bytes()).expect("a line of JSON");
        Case {
            name: line.str_at(&["case"]).to_owned(),
            method: line.str_at(&["request", "method"]).to_owned(),
            path: line.str_at(&["request", "path"]).split('?').next().unwrap_or_default().to_owned(),
            body: line["request"]["body"].clone(),
            change: line["change"].clone(),
            status: line["response"]["status"].as_i64().unwrap_or_default(),
            answer: line["response"]["body"].clone(),
        }
    };
    text.lines().map(read).collect()
}

fn target(path: &str) -> Option<Target> {
    let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, version) = match parts.as_slice() {
        ["api", version, ..] => ("", *version),
        ["apis", group, version, ..] => (*group, *version),
        _ => return None,
    };
    parts.drain(..if group.is_empty() { 2 } else { 3 });
    let mut namespace = "";
    if let ["namespaces", own, _, ..] = parts.as_slice() {
        namespace = own;
        parts.drain(..2);
    }
    let plural = *parts.first()?;
    let resource = builtin::resources().into_iter().find(|resource| {
        resource.group == group && resource.version == version && resource.plural == plural
    })?;
    let part = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
    Some(Target { resource, namespace: namespace.to_owned(), name: part(1), subresource: part(2) })
}

fn rules(resource: &Resource) -> ObjectMetaRules {
    ObjectMetaRules {
        namespaced: resource.namespaced,
        name: resource.strategy.name_rule(),
        qualified_finalizers: true,
    }
}

fn context<'a>(target: &'a Target) -> Context<'a> {
    Context {
        now: Timestamp::UNIX_EPOCH,
        user: "recorder",
        subresource: Some(target.subresource.as_str()).filter(|name| !name.is_empty()),
        allow_privileged: false,
    }
}

/// Decoded and defaulted, as every object is on its way in.
fn taken_in(target: &Target, mut object: Value) -> Result<Value, String> {
    decode(&mut object, target.resource.schema.root(), FieldValidation::Ignore, &[])
        .map_err(|error| error.to_string())?;
    let map = object.ensure_object();
    map.insert("apiVersion", target.resource.api_version());
    map.insert("kind", target.resource.kind.clone());
    if target.resource.namespaced {
        object.set_at(&["metadata", "namespace"], target.namespace.as_str());
    }
    target.resource.strategy.default(&mut object);
    if target.resource.kind == "Pod" && object.str_at(&["spec", "serviceAccountName"]).is_empty() {
        // Admission does this before a kind's own rules.
        object.set_at(&["spec", "serviceAccountName"], "default");
    }
    Ok(object)
}

fn created(target: &Target, body: &Value) -> Result<Value, Status> {
    let mut object = taken_in(target, body.clone()).map_err(Status::bad_request)?;
    object.set_at(&["metadata", "uid"], UID);
    let strategy = &target.resource.strategy;
    strategy.prepare_for_create(&context(target), &mut object);
    let mut errors = object_meta(rules(&target.resource), &object["metadata"], &Path::root("metadata"));
    errors.extend(strategy.validate(&context(target), &object));
    finish(target, object, &errors)
}

fn updated(target: &Target, body: &Value, old: &Value) -> Result<Value, Status> {
    let mut object = taken_in(target, body.clone()).map_err(Status::bad_request)?;
    let strategy = &target.resource.strategy;
    meta::keep_system_fields(
        object.ensure_object().get_or_insert_with("metadata", Value::object),
        &old["metadata"],
    );
    strategy.prepare_for_update(&context(target), &mut object, old);
    let path = Path::root("metadata");
    let mut errors =
        object_meta_update(rules(&target.resource), &object["metadata"], &old["metadata"], &path);
    errors.extend(strategy.validate_update(&context(target), &object, old));
    finish(target, object, &errors)
}

fn finish(
    target: &Target,
    mut object: Value,
    errors: &[apimachinery::field::Error],
) -> Result<Value, Status> {
    if errors.is_empty() {
        decode(&mut object, target.resource.schema.root(), FieldValidation::Ignore, &[])
            .map_err(|error| Status::bad_request(error.to_string()))?;
        return Ok(object);
    }
    Err(Status::invalid(&target.resource.group_kind(), object.str_at(&["metadata", "name"]), errors))
}

/// What the two answers differ in; empty when they agree.
fn difference(ours: Result<Value, Status>, case: &Case) -> String {
    match (ours, case.status) {
        (Ok(mut object), 200 | 201) => {
            let mut expected = case.answer.clone();
            for side in [&mut object, &mut expected] {
                strip(side);
            }
            let mut differences = Vec::new();
            compare(&object, &expected, "", &mut differences);
            differences.join("\n")
        }
        (Err(status), 422) => {
            let causes = |status: &Value| {
                let read = |cause: &Value| {
                    format!(
                        "{} {} {}",
                        cause.str_at(&["reason"]),
                        cause.str_at(&["field"]),
                        masked(cause.str_at(&["message"])).replace('\n', " ")
                    )
                };
                let mut causes: Vec<String> =
                    status.array_at(&["details", "causes"]).iter().map(read).collect();
                causes.sort_unstable();
                causes
            };
            let ours = status.to_value();
            let (own, expected) = (causes(&ours), causes(&case.answer));
            let missing =
                expected.iter().filter(|cause| !own.contains(cause)).map(|cause| format!("missing: {cause}"));
            let extra =
                own.iter().filter(|cause| !expected.contains(cause)).map(|cause| format!("extra: {cause}"));
            let mut lines: Vec<String> = missing.chain(extra).collect();
            if lines.is_empty() && own.len() != expected.len() {
                lines.push(format!("{} causes instead of {}", own.len(), expected.len()));
            }
            let (message, wanted) =
                (masked(ours.str_at(&["message"])), masked(case.answer.str_at(&["message"])));
            if lines.is_empty() && message != wanted {
                lines.push(format!("order or wording:\n  {message}\n  {wanted}"));
            }
            lines.join("\n")
        }
        (Ok(_), status) => {
            let message = case.answer.str_at(&["message"]);
            format!("accepted instead of {status}: {}", message.replace('\n', " "))
        }
        (Err(status), wanted) => format!("{} instead of {wanted}", status.message),
    }
}

/// The text with addresses masked as the recorder did, and a pod's diff without the numbers of its lines.
fn masked(text: &str) -> String {
    let mut words = String::new();
    for piece in text.split_inclusive(['"', ' ', ']']) {
        match piece.strip_prefix("10.96.") {
            Some(rest) => {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
                words.push_str("<clusterIP>");
                words.push_str(&rest[end..]);
            }
            None => words.push_str(piece),
        }
    }
    if words.contains("pod updates may not change fields") { without_line_numbers(&words) } else { words }
}

/// The stored pods were recorded without a source of their token's volume (18 lines), so upstream's numbers in
/// `@@ -a,b +c,d @@` are other ones than ours. Only those are masked: the lines themselves are compared.
fn without_line_numbers(text: &str) -> String {
    let word = |word: &str| match word.split_once(',') {
        Some((_, count)) => format!("<line>,{count}"),
        None => word.to_owned(),
    };
    let line = |line: &str| match line.starts_with("@@ ") {
        true => line.split(' ').map(word).collect::<Vec<_>>().join(" "),
        false => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Removes what other layers fill: identity, managed fields, and what admission adds.
fn strip(object: &mut Value) {
    for key in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "namespace"] {
        object.remove_at(&["metadata", key]);
    }
    if let Some(finalizers) = object.at_mut(&["metadata", "finalizers"]).and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| !finalizer.as_str().is_some_and(|name| name.ends_with("-protection")));
        if finalizers.is_empty() {
            object.remove_at(&["metadata", "finalizers"]);
        }
    }
    if object.str_at(&["kind"]) == "Node" {
        object.remove_at(&["spec", "taints"]);
    }
    if object.str_at(&["kind"]) != "Pod" {
        return;
    }
    for key in ["serviceAccountName", "serviceAccount", "priority", "preemptionPolicy", "tolerations"] {
        object.remove_at(&["spec", key]);
    }
    let is_token = |item: &Value| item.str_at(&["name"]).starts_with("kube-api-access-");
    let drop_tokens = |holder: &mut Value, key: &str| {
        if let Some(items) = holder.get_mut(key).and_then(Value::as_array_mut) {
            items.retain(|item| !is_token(item));
            if items.is_empty() {
                holder.ensure_object().remove(key);
            }
        }
    };
    if let Some(spec) = object.get_mut("spec") {
        drop_tokens(spec, "volumes");
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                drop_tokens(container, "volumeMounts");
            }
        }
    }
}

/// Compares trees; a masked text on the right matches anything, also nothing.
fn compare(ours: &Value, theirs: &Value, path: &str, differences: &mut Vec<String>) {
    let is_mask = |value: &Value| match value {
        Value::String(text) => text.starts_with('<') && text.ends_with('>'),
        Value::Array(items) => matches!(items.as_slice(), [Value::String(text)] if text.starts_with('<')),
        _ => false,
    };
    match (ours, theirs) {
        _ if is_mask(theirs) => {}
        (Value::Object(a), Value::Object(b)) => {
            let null = Value::Null;
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(key))) {
                let (a, b) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
                compare(a, b, &format!("{path}.{key}"), differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(a, b, &format!("{path}[{index}]"), differences);
            }
        }
        (a, b) if a == b => {}
        (a, b) => differences.push(format!("{path}: {a} instead of {b}")),
    }
}

/// Checks a file's cases: how many agree, and that those that differ are exactly the known ones.
fn check(file: &str, results: Vec<(String, String)>) {
    let known = |name: &str| KNOWN.iter().find(|known| known.0 == format!("{file}: {name}"));
    let differing: Vec<&(String, String)> =
        results.iter().filter(|(_, difference)| !difference.is_empty()).collect();
    println!("{file}: {} of {} cases agree", results.len() - differing.len(), results.len());
    let mut problems = Vec::new();
    for (name, difference) in &differing {
        let allowed = known(name).map_or(&[][..], |known| known.2);
        let unexpected = difference.lines().filter(|line| !allowed.iter().any(|part| line.contains(part)));
        if unexpected.count() > 0 {
            let reason = known(name).map_or("not known", |known| known.1);
            problems.push(format!("{file}: {name} ({reason})\n{difference}"));
        }
    }
    for (name, difference) in &results {
        if difference.is_empty() && known(name).is_some() {
            problems.push(format!("{file}: {name} agrees now; remove it from KNOWN"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

/// Answers that other layers give: routing, decoding, admission, quota.
fn is_ours(case: &Case) -> bool {
    matches!(case.status, 200 | 201 | 422) && matches!(case.method.as_str(), "POST" | "PUT")
}

fn replay_creates(file: &str) {
    let mut results = Vec::new();
    for case in
        cases(file).iter().filter(|case| is_ours(case) && case.method == "POST" && case.body.is_object())
    {
        let Some(target) = target(&case.path) else { continue };
        if !target.resource.is_stored() || !target.name.is_empty() {
            continue;
        }
        results.push((case.name.clone(), difference(created(&target, &case.body), case)));
    }
    check(file, results);
}

#[test]
fn minimal_objects_get_upstreams_defaults() {
    replay_creates("create-minimal.jsonl");
}

#[test]
fn bad_input_is_refused_in_upstreams_words() {
    replay_creates("bad-input.jsonl");
}

#[test]
fn nonsense_in_every_field_is_refused_in_upstreams_words() {
    replay_creates("validate-nonsense.jsonl");
}

#[test]
fn admitted_objects_agree() {
    replay_creates("admission.jsonl");
}

#[test]
fn changes_are_accepted_and_refused_as_upstream_does() {
    let mut stored: BTreeMap<String, Value> = BTreeMap::new();
    for case in cases("create-minimal.jsonl").into_iter().filter(|case| case.status == 201) {
        let name = case.answer.str_at(&["metadata", "name"]).to_owned();
        stored.insert(format!("{}/{name}", case.path), unmasked(case.answer));
    }
    let mut results = Vec::new();
    for case in cases("update-rules.jsonl").iter().filter(|case| is_ours(case)) {
        let Some(target) = target(&case.path) else { continue };
        let key = case.path.trim_end_matches(&format!("/{}", target.subresource)).to_owned();
        let Some(old) = stored.get(&key).cloned() else { continue };
        let mut body = old.clone();
        for step in case.change.as_array().into_iter().flatten() {
            let path =
                |key: &str| -> Vec<&str> { step.array_at(&[key]).iter().filter_map(Value::as_str).collect() };
            if step.get("set").is_some() {
                body.set_at(&path("set"), step["value"].clone());
            } else {
                body.remove_at(&path("remove"));
            }
        }
        let ours = updated(&target, &body, &old);
        if matches!(case.status, 200) {
            stored.insert(key, unmasked(case.answer.clone()));
        }
        results.push((case.name.clone(), difference(ours, case)));
    }
    check("update-rules.jsonl", results);
}

/// A stored object with values where the recorder put masks.
fn unmasked(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) => {
                let replaced = match text.as_str() {
                    "<clusterIP>" => Value::from("10.96.0.1"),
                    "<port>" => Value::from(30_001),
                    "<uid>" => Value::from(UID),
                    "<time>" => Value::from("2026-01-01T00:00:00Z"),
                    _ => return,
                };
                *value = replaced;
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(map) => map.values_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}
