//! Decoding, patches, managed fields and server-side apply of built-in kinds against what upstream answered.
//!
//! Patches are not followed by defaults here: where upstream's answer has more than the request asked for, the
//! request's part of it is compared, and ownership is computed from upstream's own object.

use apimachinery::managed_fields::{FieldManager, Filter};
use apimachinery::patch::json::JsonPatch;
use apimachinery::patch::{PatchError, merge, strategic};
use apimachinery::{GroupVersion, GroupVersionKind, Status, Value, decode};
use jiff::Timestamp;

use crate::recorded::folder;

struct Exchange {
    case: String,
    path: String,
    media: String,
    request: Value,
    status: i64,
    answer: Value,
}

fn exchanges(file: &str) -> Option<Vec<Exchange>> {
    let path = folder("PINTLE_TESTDATA", "testdata")?.join("upstream-transcripts").join(file);
    let text =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    Some(text.lines().map(exchange).collect())
}

fn exchange(line: &str) -> Exchange {
    let line = Value::parse(line.as_bytes()).expect("a transcript is JSON");
    let text = |path: &[&str]| line.str_at(path).to_owned();
    let request = match &line["request"]["body"] {
        Value::String(body) => Value::parse_yaml(body).unwrap_or_default(),
        body => body.clone(),
    };
    Exchange {
        case: text(&["case"]),
        path: text(&["request", "path"]),
        media: text(&["request", "headers", "Content-Type"]),
        request,
        status: line["response"]["status"].as_i64().unwrap_or_default(),
        answer: line["response"]["body"].clone(),
    }
}

/// The schema of a built-in object's kind; `None` for custom resources.
fn kind_of(object: &Value) -> Option<(GroupVersionKind, api::resource::Schema)> {
    let kind = GroupVersion::parse(object.str_at(&["apiVersion"]))?.with_kind(object.str_at(&["kind"]));
    let schema = api::builtin::schema(&kind)?;
    Some((kind, schema))
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// Recorded times and ports are placeholders; good ones in their place let the object be decoded.
fn filled(mut object: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) if text == "<time>" => *text = "1970-01-01T00:00:00Z".into(),
            Value::String(text) if text == "<port>" => *value = 30_000.into(),
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(map) => {
                for name in ["eventTime", "renewTime", "acquireTime"] {
                    if let Some(time @ Value::String(_)) = map.get_mut(name) {
                        *time = "1970-01-01T00:00:00.000000Z".into();
                    }
                }
                map.values_mut().for_each(walk);
            }
            _ => {}
        }
    }
    walk(&mut object);
    object
}

/// Whether `whole` has all that `part` has; items of lists one by one.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), _) => part.iter().all(|(name, value)| is_part(value, &whole[name.as_str()])),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| is_part(part, whole))
        }
        _ => part == whole,
    }
}

fn entries(object: &Value) -> &[Value] {
    object.array_at(&["metadata", "managedFields"])
}

/// Entries but for their times, which upstream's clock made.
fn timeless(entry: &Value) -> Value {
    let mut entry = entry.clone();
    entry.remove_at(&["time"]);
    entry
}

fn entry_of(object: &Value, manager: &str) -> Value {
    entries(object)
        .iter()
        .find(|entry| entry.str_at(&["manager"]) == manager)
        .map(timeless)
        .unwrap_or_default()
}

#[test]
fn answers_of_upstream_are_in_canonical_form() {
    let mut seen = 0;
    for file in
        ["create-minimal.jsonl", "patches.jsonl", "conversions-and-subresources.jsonl", "update-rules.jsonl"]
    {
        let Some(exchanges) = exchanges(file) else { return };
        for exchange in exchanges.into_iter().filter(|exchange| exchange.status < 300) {
            let answer = filled(exchange.answer);
            let Some((_, schema)) = kind_of(&answer) else { continue };
            let mut decoded = answer.clone();
            let notes = decode::decode(&mut decoded, schema.root(), decode::FieldValidation::Warn, &[])
                .unwrap_or_else(|error| panic!("{}: {error}", exchange.case));
            assert_eq!(notes, Vec::<String>::new(), "{}", exchange.case);
            assert_eq!(decoded.to_yaml(), answer.to_yaml(), "{}", exchange.case);
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn what_cannot_be_decoded_is_refused_as_upstream_refuses_it() {
    let Some(exchanges) = exchanges("bad-input.jsonl") else { return };
    let mut seen = 0;
    for exchange in exchanges {
        let message = exchange.answer.str_at(&["message"]);
        let Some((what, why)) = message.split_once(" cannot be handled as a ") else { continue };
        let Some((kind, schema)) = kind_of(&exchange.request) else { continue };
        if !what.starts_with(&format!("{} in version", kind.kind)) || exchange.path.contains("widgets") {
            continue;
        }
        let Some((named, why)) = why.split_once(": ") else { continue };
        if named != kind.kind || why.contains("unknown conversion") || why.contains("is registered") {
            continue;
        }
        let mut object = exchange.request.clone();
        let error =
            decode::decode(&mut object, schema.root(), decode::FieldValidation::Strict, &[]).unwrap_err();
        assert_eq!(error.to_string(), why, "{}", exchange.case);
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn a_creator_owns_what_upstream_says() {
    let Some(exchanges) = exchanges("create-minimal.jsonl") else { return };
    let resources = api::builtin::resources();
    let mut seen = 0;
    for exchange in exchanges.into_iter().filter(|exchange| exchange.status < 300) {
        let answer = filled(exchange.answer);
        let (Some((kind, schema)), [recorded]) = (kind_of(&answer), entries(&answer)) else { continue };
        let Some(resource) = resources.iter().find(|resource| resource.gvk() == kind) else { continue };
        let mut object = exchange.request.clone();
        decode::normalize(&mut object, schema.root())
            .unwrap_or_else(|error| panic!("{}: {error}", exchange.case));
        resource.strategy.default(&mut object);
        let filter = Filter::except(&[&["status"]]);
        let manager = FieldManager { schema: schema.root(), kind: &kind, subresource: "", filter: &filter };
        manager.update(None, &mut object, "", now());
        let recorded = timeless(recorded);
        assert_eq!(entry_of(&object, "unknown").to_yaml(), recorded.to_yaml(), "{}", exchange.case);
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}

/// Upstream's samples of every kind, with every field filled.
fn samples() -> Option<Vec<(String, Value)>> {
    let root = folder("PINTLE_TESTDATA", "testdata")?.join("kubernetes-api-v1.36.0");
    let mut samples = Vec::new();
    for entry in
        std::fs::read_dir(&root).unwrap_or_else(|error| panic!("reading {}: {error}", root.display()))
    {
        let path = entry.expect("a folder entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".json") && !name.contains("after_roundtrip") {
            let json =
                std::fs::read(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
            samples.push((name, Value::parse(&json).expect("a sample is JSON")));
        }
    }
    Some(samples)
}

/// A `null` in a patch would be a request to remove.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, field)| !field.is_null())
            .map(|(name, field)| (name, without_nulls(field)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[test]
fn an_object_with_every_field_survives_decoding_patching_and_applying() {
    let Some(samples) = samples() else { return };
    let mut seen = 0;
    for (name, sample) in samples {
        let Some((kind, schema)) = kind_of(&sample) else { continue };
        let mut object = sample.clone();
        let notes = decode::decode(&mut object, schema.root(), decode::FieldValidation::Warn, &[])
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(notes, Vec::<String>::new(), "{name}");
        assert_eq!(object.to_yaml(), sample.to_yaml(), "{name}");
        if object.get("metadata").is_none() || kind.kind.ends_with("List") {
            continue;
        }
        let filter = Filter::default();
        let manager = FieldManager { schema: schema.root(), kind: &kind, subresource: "", filter: &filter };
        object.remove_at(&["metadata", "managedFields"]);
        manager.update(None, &mut object, "one", now());
        assert_eq!(entries(&object).len(), 1, "{name}");

        let mut again = object.clone();
        manager.update(Some(&object), &mut again, "two", now());
        assert_eq!(again, object, "{name}: an update that changes nothing");

        let mut config = without_nulls(object.clone());
        config.remove_at(&["metadata", "managedFields"]);
        let mut patched = object.clone();
        strategic::apply(&mut patched, config.clone(), schema.root())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(patched.to_yaml(), object.to_yaml(), "{name}: a strategic patch with the same");

        let mut applied = manager
            .apply(Some(&object), &config, "three", false, now())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(entries(&applied).len(), 2, "{name}");
        applied.set_at(&["metadata", "managedFields"], object["metadata"]["managedFields"].clone());
        assert_eq!(applied.to_yaml(), object.to_yaml(), "{name}: an apply of the same");
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}

/// Applies a recorded patch that is no apply to a state.
fn patched(exchange: &Exchange, live: &Value) -> Result<Value, Status> {
    let (_, schema) = kind_of(live).expect("a built-in kind");
    let mut object = live.clone();
    let patch = exchange.request.clone();
    let applied: Result<(), PatchError> = match exchange.media.as_str() {
        "application/json-patch+json" => {
            JsonPatch::parse(patch).and_then(|(patch, _)| patch.apply(&mut object))
        }
        "application/merge-patch+json" => merge::apply(&mut object, patch),
        _ => strategic::apply(&mut object, patch, schema.root()),
    };
    applied.map_err(PatchError::into_status)?;
    let notes = decode::decode(&mut object, schema.root(), decode::FieldValidation::Warn, &[])
        .map_err(|error| apimachinery::patch::undecodable("", &error.to_string()))?;
    assert_eq!(notes, Vec::<String>::new(), "{}", exchange.case);
    Ok(object)
}

#[test]
fn patches_have_upstreams_results_and_owners() {
    let Some(exchanges) = exchanges("patches.jsonl") else { return };
    let mut live: Option<Value> = None;
    let (mut patches, mut refusals) = (0, 0);
    for exchange in exchanges.iter().filter(|exchange| exchange.path.ends_with("/deployments/min")) {
        if !exchange.media.contains("patch+json") {
            continue;
        }
        let answer = filled(exchange.answer.clone());
        let Some(before) = live.clone() else {
            live = Some(answer);
            continue;
        };
        match patched(exchange, &before) {
            Ok(object) if exchange.status == 200 => {
                assert!(is_part(&object["spec"], &answer["spec"]), "{}: {}", exchange.case, object["spec"]);
                assert_eq!(object["metadata"]["labels"], answer["metadata"]["labels"], "{}", exchange.case);
                check_owners(exchange, &before, &answer);
                live = Some(answer);
                patches += 1;
            }
            Ok(_) => assert_eq!(exchange.case, "merge: invalid result", "only validation refuses this one"),
            Err(status) => {
                assert_eq!(i64::from(status.code), exchange.status, "{}", exchange.case);
                if exchange.case != "merge: wrong type" {
                    assert_eq!(status.message, answer.str_at(&["message"]), "{}", exchange.case);
                    let value = status.to_value();
                    for field in ["reason", "details"] {
                        assert_eq!(value[field], answer[field], "{}", exchange.case);
                    }
                }
                refusals += 1;
            }
        }
    }
    assert!(patches >= 11 && refusals >= 8, "{patches} {refusals}");
}

/// The owners after a write that made `after` of `before`. A controller wrote in between, so only the patch's manager
/// is compared.
fn check_owners(exchange: &Exchange, before: &Value, after: &Value) {
    let (kind, schema) = kind_of(after).expect("a built-in kind");
    let filter = Filter::except(&[&["status"]]);
    let manager = FieldManager { schema: schema.root(), kind: &kind, subresource: "", filter: &filter };
    let mut before = before.clone();
    let mut new = after.clone();
    new.set_at(&["metadata", "managedFields"], before["metadata"]["managedFields"].clone());
    // What the controller did is not the patch's doing.
    for object in [&mut before, &mut new] {
        object.remove_at(&["metadata", "annotations"]);
    }
    manager.update(Some(&before), &mut new, "", now());
    let owned = |object: &Value| {
        let mut entry = entry_of(object, "unknown");
        entry.remove_at(&["fieldsV1", "f:metadata", "f:annotations"]);
        if entry.at(&["fieldsV1", "f:metadata"]) == Some(&Value::object()) {
            entry.remove_at(&["fieldsV1", "f:metadata"]);
        }
        entry.to_yaml()
    };
    assert_eq!(owned(&new), owned(after), "{}", exchange.case);
}

fn apply(exchange: &Exchange, live: Option<&Value>) -> Result<Value, Status> {
    let config = &exchange.request;
    let (kind, schema) = kind_of(config).expect("a built-in kind");
    let filter = Filter::except(&[&["status"]]);
    let manager = FieldManager { schema: schema.root(), kind: &kind, subresource: "", filter: &filter };
    let name = exchange
        .path
        .split_once("fieldManager=")
        .map_or("", |(_, rest)| rest.split('&').next().unwrap_or(rest));
    let force = exchange.path.contains("force=true");
    manager.apply(live, config, name, force, now()).map_err(|error| error.into_status())
}

#[test]
fn applies_have_upstreams_results_and_owners() {
    let Some(exchanges) = exchanges("patches.jsonl") else { return };
    let mut live: Option<Value> = None;
    let mut seen = Vec::new();
    for exchange in &exchanges {
        if exchange.case == "apply: scale by another manager" {
            live = live.map(scaled);
            continue;
        }
        if exchange.media != "application/apply-patch+yaml"
            || kind_of(&exchange.request).is_none()
            || exchange.case == "apply: no manager"
        {
            continue;
        }
        let answer = filled(exchange.answer.clone());
        let is_deployment = exchange.path.contains("/deployments/");
        let before = live.as_ref().filter(|_| is_deployment);
        match apply(exchange, before) {
            Ok(object) => {
                assert!(matches!(exchange.status, 200 | 201), "{}", exchange.case);
                let mut spec = object["spec"].clone();
                spec.ensure_object().retain(|_, value| !value.is_null());
                assert!(is_part(&spec, &answer["spec"]), "{}: {spec}", exchange.case);
                for manager in ["one", "two"] {
                    assert_eq!(entry_of(&object, manager), entry_of(&answer, manager), "{}", exchange.case);
                }
                if exchange.case == "apply: same again" {
                    assert_eq!(Some(&object), before, "nothing changes");
                }
                if is_deployment {
                    live = Some(answer);
                }
            }
            Err(status) => {
                let value = status.to_value();
                assert_eq!(value["message"], answer["message"], "{}", exchange.case);
                assert_eq!(
                    (value["code"].clone(), value["reason"].clone()),
                    (answer["code"].clone(), answer["reason"].clone())
                );
                // Upstream lists causes by manager in no order.
                let causes = |status: &Value| {
                    let mut causes: Vec<String> =
                        status.array_at(&["details", "causes"]).iter().map(Value::to_string).collect();
                    causes.sort();
                    causes
                };
                assert_eq!(causes(&value), causes(&answer), "{}", exchange.case);
            }
        }
        seen.push(exchange.case.as_str());
    }
    assert!(seen.len() >= 11, "{seen:?}");
}

/// What a write through the scale subresource makes of the deployment.
fn scaled(live: Value) -> Value {
    let (kind, schema) = kind_of(&live).expect("a built-in kind");
    let filter = Filter::default();
    let manager = FieldManager { schema: schema.root(), kind: &kind, subresource: "scale", filter: &filter };
    let mut new = live.clone();
    new.set_at(&["spec", "replicas"], 9);
    manager.update(Some(&live), &mut new, "scaler", now());
    new
}
