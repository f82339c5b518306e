//! Protobuf against upstream's own serialized objects: both directions, exactly; and against broken bytes.
//!
//! The objects are found through `PINTLE_TESTDATA`; without them the tests say so and pass.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::protobuf::{self, Error, Fault};
use apimachinery::decode::normalize;
use apimachinery::{GroupVersion, Value, cbor, json};

/// What reads unlike its JSON. Files `after_roundtrip` were written by the next minor version of upstream.
const READ_UNLIKE: &[&str] = &[
    // 1.37 leaves out empty `resources`, 1.36 writes `null`.
    "core.v1.Pod.after_roundtrip.status.nodeAllocatableResourceClaimStatuses[0].resources: Some(Null) instead of None",
    // 1.37 has a `status`, which 1.36 does not know.
    "storage.k8s.io.v1.CSINode.after_roundtrip.status: None instead of Some(Object(Map { entries: [] }))",
    "storage.k8s.io.v1beta1.CSINode.after_roundtrip.status: None instead of Some(Object(Map { entries: [] }))",
];

/// What is written unlike upstream, for the same reason.
const WRITTEN_UNLIKE: &[&str] =
    &["storage.k8s.io.v1.CSINode.after_roundtrip", "storage.k8s.io.v1beta1.CSINode.after_roundtrip"];

/// A watch event stands in an envelope without a kind; see its own test.
const WATCH_EVENT: &str = "core.v1.WatchEvent";

/// One serialized object: its name, its JSON, its YAML and its protobuf.
struct Fixture {
    name: String,
    json: Value,
    yaml: String,
    protobuf: Vec<u8>,
}

fn fixtures() -> Option<Vec<Fixture>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata");
    let folder =
        std::env::var_os("PINTLE_TESTDATA").map_or_else(beside, PathBuf::from).join("kubernetes-api-v1.36.0");
    if !folder.is_dir() {
        println!("skipped: PINTLE_TESTDATA is unset");
        return None;
    }
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".pb")?.to_owned()))
        .collect();
    names.sort();
    let read = |file: String| std::fs::read(folder.join(file)).unwrap();
    let fixture = |name: String| Fixture {
        json: Value::parse(&read(format!("{name}.json"))).unwrap(),
        yaml: String::from_utf8(read(format!("{name}.yaml"))).unwrap(),
        protobuf: read(format!("{name}.pb")),
        name,
    };
    Some(names.into_iter().map(fixture).collect())
}

/// All but the one that stands in an envelope without a kind.
fn objects() -> Option<Vec<Fixture>> {
    let mut fixtures = fixtures()?;
    fixtures.retain(|fixture| fixture.name != WATCH_EVENT);
    Some(fixtures)
}

/// The first place where two trees differ.
fn difference(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(own), Value::Object(other)) => {
            let keys: std::collections::BTreeSet<_> = own.keys().chain(other.keys()).collect();
            keys.into_iter().find_map(|key| match (own.get(key), other.get(key)) {
                (Some(own), Some(other)) => difference(&format!("{path}.{key}"), own, other),
                (own, other) => Some(format!("{path}.{key}: {own:?} instead of {other:?}")),
            })
        }
        (Value::Array(own), Value::Array(other)) if own.len() == other.len() => (own.iter().zip(other))
            .enumerate()
            .find_map(|(index, (own, other))| difference(&format!("{path}[{index}]"), own, other)),
        (own, other) if own == other => None,
        (own, other) => Some(format!("{path}: {own} instead of {other}")),
    }
}

#[test]
fn json_yaml_and_cbor_read_as_the_same_tree_and_are_written_again() {
    let Some(fixtures) = objects() else { return };
    let mut unlike = Vec::new();
    for fixture in &fixtures {
        let name = &fixture.name;
        unlike.extend(difference(name, &Value::parse_yaml(&fixture.yaml).unwrap(), &fixture.json));
        assert_eq!(fixture.json.to_yaml(), fixture.yaml, "{name}: the bytes that upstream writes");
        let kind = GroupVersion::parse(fixture.json.str_at(&["apiVersion"]))
            .unwrap()
            .with_kind(fixture.json.str_at(&["kind"]));
        let schema = api::builtin::schema(&kind).unwrap_or_else(|| panic!("{name} has no schema"));
        let mut typed = fixture.json.clone();
        normalize(&mut typed, schema.root()).unwrap_or_else(|error| panic!("{name}: {error}"));
        unlike.extend(difference(name, &typed, &fixture.json));
        let again = [
            Value::parse(&typed.to_json()).unwrap(),
            Value::parse_yaml(&typed.to_yaml()).unwrap(),
            cbor::decode(&cbor::encode(&typed)).unwrap(),
        ];
        unlike.extend(again.iter().filter_map(|again| difference(name, again, &typed)));
    }
    println!("{} objects, {} differences", fixtures.len(), unlike.len());
    assert_eq!(unlike, READ_UNLIKE);
}

#[test]
fn protobuf_reads_as_the_same_tree_as_json() {
    let Some(fixtures) = objects() else { return };
    let mut unlike = Vec::new();
    for fixture in &fixtures {
        match protobuf::decode(&fixture.protobuf) {
            Ok(decoded) => unlike.extend(difference(&fixture.name, &decoded.value, &fixture.json)),
            Err(error) => unlike.push(format!("{}: {error}", fixture.name)),
        }
    }
    println!("{} of {} objects read alike", fixtures.len() - unlike.len(), fixtures.len());
    assert_eq!(unlike, READ_UNLIKE);
}

#[test]
fn json_is_written_as_the_same_bytes_as_upstream_writes() {
    let Some(fixtures) = objects() else { return };
    let mut unlike = Vec::new();
    for fixture in &fixtures {
        let bytes =
            protobuf::encode(&fixture.json).unwrap_or_else(|error| panic!("{}: {error}", fixture.name));
        if bytes != fixture.protobuf {
            println!("{}\n  {}\n  {}", fixture.name, bytes.escape_ascii(), fixture.protobuf.escape_ascii());
            unlike.push(fixture.name.as_str());
        }
    }
    println!("{} of {} objects written alike", fixtures.len() - unlike.len(), fixtures.len());
    assert_eq!(unlike, WRITTEN_UNLIKE);
}

#[test]
fn a_watch_event_holds_any_object() {
    let Some(fixtures) = fixtures() else { return };
    let event = fixtures.iter().find(|fixture| fixture.name == WATCH_EVENT).unwrap();
    assert_eq!(protobuf::decode(&event.protobuf).unwrap_err(), Error::KindMissing);
    // Between the envelope's empty type and its empty content type.
    let message = &event.protobuf
        [b"k8s\0\x0a\x04\x0a\0\x12\0\x12\x71".len()..event.protobuf.len() - b"\x1a\0\x22\0".len()];
    let name = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
    assert_eq!(decode(name, message).unwrap(), event.json);
    assert_eq!(protobuf::encode_raw(name, &event.json).unwrap(), message);
}

/// A small generator of numbers, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn broken_bytes_never_panic_and_errors_name_message_and_field() {
    let Some(fixtures) = fixtures() else { return };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = BTreeMap::new();
    let note = |bytes: &[u8]| {
        let error = match protobuf::decode(bytes) {
            Ok(decoded) => {
                // What can be read can be written, and reads the same again.
                let written = protobuf::encode(&decoded.value).unwrap_or_else(|error| panic!("{error}"));
                let again = protobuf::decode(&written).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(difference("", &again.value, &decoded.value), None);
                return "none";
            }
            Err(error) => error,
        };
        match &error {
            Error::At { message, field, .. } => {
                assert!(message.starts_with("io.k8s.") && !field.is_empty(), "{error}");
                "a field"
            }
            _ => "the envelope",
        }
    };
    for fixture in &fixtures {
        for _ in 0..60 {
            let mut bytes = fixture.protobuf.clone();
            bytes.truncate(random.below(bytes.len()));
            *seen.entry(note(&bytes)).or_insert(0) += 1;
        }
        for _ in 0..60 {
            let mut bytes = fixture.protobuf.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            *seen.entry(note(&bytes)).or_insert(0) += 1;
        }
    }
    println!("errors found in: {seen:?}");
    assert!(["none", "a field", "the envelope"].iter().all(|place| seen.contains_key(place)), "{seen:?}");
}

// === without upstream's data ===

const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";

fn decode(name: &str, bytes: &[u8]) -> Result<Value, Error> {
    protobuf::decode_message(name, bytes)
}

#[test]
fn zeros_that_go_always_writes_are_no_news() {
    // name "", generateName "", creationTimestamp of no time.
    let metadata = [0x0a, 0x00, 0x12, 0x00, 0x42, 0x00];
    let mut bytes = vec![0x0a, metadata.len() as u8];
    bytes.extend_from_slice(&metadata);
    assert_eq!(decode(CONFIG_MAP, &bytes).unwrap(), json!({"metadata": {}}));
    // A pointer to false is something else than no pointer.
    bytes.extend_from_slice(&[0x20, 0x00]);
    assert_eq!(decode(CONFIG_MAP, &bytes).unwrap(), json!({"metadata": {}, "immutable": false}));
}

#[test]
fn entries_of_a_map_come_in_any_order_and_the_last_of_a_key_wins() {
    let bytes = [
        &[0x12, 0x06, 0x0a, 0x01, b'b', 0x12, 0x01, b'1'][..],
        &[0x12, 0x06, 0x0a, 0x01, b'a', 0x12, 0x01, b'2'],
        &[0x12, 0x06, 0x0a, 0x01, b'b', 0x12, 0x01, b'3'],
        &[0x12, 0x03, 0x0a, 0x01, b'c'],
    ]
    .concat();
    let read = decode(CONFIG_MAP, &bytes).unwrap();
    assert_eq!(read["data"], json!({"a": "2", "b": "3", "c": ""}));
}

#[test]
fn unknown_fields_are_skipped_and_groups_are_not() {
    let unknown = [0xa0, 0x06, 0x01, 0xaa, 0x06, 0x01, 0xff, 0x20, 0x01];
    assert_eq!(decode(CONFIG_MAP, &unknown).unwrap()["immutable"], json!(true));
    let error = decode(CONFIG_MAP, &[0x20, 0x01, 0x0b, 0x0c]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "protobuf message io.k8s.api.core.v1.ConfigMap, at the tag after immutable: wire type 3 is not allowed (groups are \
         not supported)"
    );
}

#[test]
fn a_wrong_wire_type_names_the_innermost_field() {
    let error = decode(CONFIG_MAP, &[0x0a, 0x02, 0x08, 0x01]).unwrap_err();
    let Error::At { message, field, fault } = error else { panic!("{error}") };
    assert_eq!((message, field.as_str()), ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "name"));
    assert_eq!(fault, Fault::OtherWireType { found: 0, wanted: 2 });
}

#[test]
fn lists_of_numbers_may_be_packed() {
    let unpacked = [0x20, 0x05, 0x20, 0x07];
    let packed = [0x22, 0x02, 0x05, 0x07];
    let name = "io.k8s.api.core.v1.PodSecurityContext";
    assert_eq!(decode(name, &unpacked).unwrap()["supplementalGroups"], json!([5, 7]));
    assert_eq!(decode(name, &packed).unwrap(), decode(name, &unpacked).unwrap());
}

#[test]
fn a_message_that_comes_in_parts_is_merged() {
    let bytes = [0x0a, 0x03, 0x0a, 0x01, b'n', 0x0a, 0x03, 0x1a, 0x01, b's'];
    assert_eq!(decode(CONFIG_MAP, &bytes).unwrap()["metadata"], json!({"name": "n", "namespace": "s"}));
}

/// A schema of a custom resource that is nested this deep.
fn nested_schema(depth: usize) -> Value {
    (0..depth).fold(json!({"type": "string"}), |inner, _| {
        let mut outer = json!({"type": "array"});
        outer.set_at(&["items"], inner);
        outer
    })
}

#[test]
fn nesting_has_an_end() {
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let fine = nested_schema(50);
    assert_eq!(decode(name, &protobuf::encode_raw(name, &fine).unwrap()).unwrap(), fine);
    let error = protobuf::encode_raw(name, &nested_schema(300)).unwrap_err();
    assert!(matches!(error, Error::At { fault: Fault::Depth(_), .. }), "{error}");
    let mut bytes = Vec::new();
    for _ in 0..400 {
        // not: { … }
        let mut outer = vec![0xe2, 0x01];
        let mut length = bytes.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut bytes);
        bytes = outer;
    }
    let error = decode(name, &bytes).unwrap_err();
    assert!(matches!(error, Error::At { fault: Fault::Depth(_), .. }), "{error}");
}

#[test]
fn schemas_that_are_a_boolean_a_list_or_strings_keep_their_form() {
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let schema = json!({
        "additionalItems": true,
        "additionalProperties": {"type": "string"},
        "default": {"a": [1, null]},
        "dependencies": {"a": ["b", "c"], "d": {"type": "object"}},
        "enum": ["a", null, 3],
        "items": [{"type": "string"}, {"type": "integer"}],
        "maximum": 1.5,
        "minimum": 3,
        "x-kubernetes-preserve-unknown-fields": false,
        "$ref": "#/x",
    });
    let bytes = protobuf::encode_raw(name, &schema).unwrap();
    assert_eq!(difference("", &decode(name, &bytes).unwrap(), &schema), None);
}

#[test]
fn a_tree_of_another_shape_is_refused_with_its_place() {
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": 3}]}});
    assert_eq!(
        protobuf::encode(&wrong).unwrap_err().to_string(),
        "protobuf message io.k8s.api.core.v1.Container, at name: the value is not of type string"
    );
}

#[test]
fn envelopes_say_what_they_hold() {
    assert_eq!(protobuf::decode(b"{}").unwrap_err(), Error::Magic);
    assert_eq!(protobuf::decode(b"k8s\0").unwrap_err(), Error::KindMissing);
    let custom = json!({"apiVersion": "example.com/v1", "kind": "Widget"});
    assert!(matches!(protobuf::encode(&custom).unwrap_err(), Error::Kind { .. }));
    let status =
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404});
    let decoded = protobuf::decode(&protobuf::encode(&status).unwrap()).unwrap();
    assert_eq!((decoded.api_version.as_str(), decoded.kind.as_str()), ("v1", "Status"));
    assert_eq!(decoded.value, status);
}

#[test]
fn a_frame_of_a_watch_begins_with_its_length() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let frame = protobuf::watch_frame("ADDED", &object).unwrap();
    let (length, event) = frame.split_first_chunk().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, event.len());
    let event = decode("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent", event).unwrap();
    assert_eq!(event["type"], json!("ADDED"));
    assert_eq!(event["object"], object);
}
