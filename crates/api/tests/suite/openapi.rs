use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use api::openapi::{Tables, v2_json, v2_protobuf, v3_documents, v3_index};
use api::resource::{Custom, Resource, Subresource};
use api::strategy::Columns;
use apimachinery::object::FieldPaths;
use apimachinery::{GroupVersionKind, Str};
use serde_json::Value;

use crate::recorded::{exchanges, folder};

/// The published document of Kubernetes 1.36 with everything switched on, without prose.
fn published() -> Option<Value> {
    let path = folder("PINTLE_REFERENCE", "reference")?.join("openapi-v2.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

/// The document of version 2.
fn v2(resources: &[Arc<Resource>]) -> Vec<u8> {
    let mut out = Vec::new();
    v2_json(resources, &mut out).unwrap();
    out
}

/// The documents of version 3 by their keys.
fn v3(resources: &[Arc<Resource>], wanted: &dyn Fn(&str) -> bool) -> BTreeMap<String, Vec<u8>> {
    let mut documents = BTreeMap::new();
    v3_documents(&Tables::unpack(), resources, wanted, &mut |key, bytes| {
        documents.insert(key.to_owned(), bytes);
    });
    documents
}

fn v3_json(key: &str, resources: &[Arc<Resource>]) -> Option<Vec<u8>> {
    v3(resources, &|own| own == key).remove(key)
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Removes what the published document is stripped of.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("description").is_some_and(Value::is_string) {
                map.remove("description");
            }
            map.values_mut().for_each(normalize);
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        _ => {}
    }
}

fn sort_required(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(sort_required);
            if let Some(Value::Array(required)) = map.get_mut("required") {
                required.sort_by_key(ToString::to_string);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_required),
        _ => {}
    }
}

/// The recorder wrote a placeholder wherever something is called so.
fn hide_resource_versions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(version) = map.get_mut("resourceVersion") {
                *version = "<rv>".into();
            }
            map.values_mut().for_each(hide_resource_versions);
        }
        Value::Array(items) => items.iter_mut().for_each(hide_resource_versions),
        _ => {}
    }
}

/// One line for each place where two trees differ.
fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(own), Value::Object(other)) => {
            for key in own.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{path} > {key}"), &value(own), &value(other), found);
            }
        }
        (Value::Array(own), Value::Array(other)) if own.len() == other.len() => {
            for (index, (own, other)) in own.iter().zip(other).enumerate() {
                differences(&format!("{path}[{index}]"), own, other, found);
            }
        }
        (own, other) if own == other => {}
        (own, other) => found.push(format!("{path}: {own:.120} instead of {other:.120}")),
    }
}

#[test]
fn version_2_is_the_published_document() {
    let Some(mut theirs) = published() else { return };
    let mut ours = parse(&v2(&api::builtin::all_resources()));
    for document in [&mut ours, &mut theirs] {
        normalize(document);
        sort_required(document);
    }
    // The published file is not of a running server, and a running server shows its logs only when told to.
    ours["info"]["version"] = theirs["info"]["version"].clone();
    theirs["paths"].as_object_mut().unwrap().retain(|path, _| !path.starts_with("/logs/"));
    theirs["parameters"].as_object_mut().unwrap().retain(|key, _| !key.starts_with("logpath"));
    let mut found = Vec::new();
    differences("", &ours, &theirs, &mut found);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(60)].join("\n"));
}

/// All references of a document, as pointers.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn what_is_not_served_is_not_described_and_nothing_dangles() {
    let document = parse(&v2(&api::builtin::resources()));
    assert!(document["paths"].get("/apis/storage.k8s.io/v1beta1/").is_none());
    assert!(document["definitions"].get("io.k8s.api.scheduling.v1alpha2.PodGroup").is_none());
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for target in found {
        let pointer = target.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{target} dangles");
    }
}

#[test]
fn every_document_of_version_3_is_complete() {
    let resources = api::builtin::resources();
    for (key, document) in v3(&resources, &|_| true) {
        let document = parse(&document);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for target in found {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} dangles in {key}");
        }
    }
    assert!(v3_json("apis/nope/v1", &resources).is_none());
}

#[test]
fn the_index_of_version_3_has_the_keys_of_upstream() {
    let Some(exchanges) = exchanges("discovery.jsonl") else { return };
    let recorded = exchanges.iter().find(|own| own.path == "/openapi/v3").unwrap();
    let ours = v3(&api::builtin::resources(), &|_| true);
    let ours = ours.keys().map(|key| (key.as_str(), "7"));
    let theirs = recorded.body["paths"].as_object().unwrap().keys().map(|key| {
        (key.clone(), serde_json::json!({ "serverRelativeURL": format!("/openapi/v3/{key}?hash=7") }))
    });
    assert_eq!(parse(&v3_index(ours))["paths"], Value::Object(theirs.collect()));
}

#[test]
fn version_3_says_which_field_is_what() {
    let mut document = parse(&v3_json("apis/apps/v1", &api::builtin::resources()).unwrap());
    let described = &document["components"]["schemas"]["io.k8s.api.core.v1.Container"];
    assert!(described["description"].as_str().unwrap().starts_with("A single application container"));
    assert!(
        described["properties"]["args"]["description"]
            .as_str()
            .unwrap()
            .starts_with("Arguments to the entrypoint")
    );
    normalize(&mut document);
    let schema = |name: &str| &document["components"]["schemas"][format!("io.k8s.api.{name}")];
    let field = |name: &str, field: &str| schema(name)["properties"][field].clone();
    assert_eq!(
        field("apps.v1.Deployment", "spec"),
        serde_json::json!({ "allOf": [{ "$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec" }],
            "default": {} })
    );
    assert_eq!(field("core.v1.ContainerPort", "protocol")["default"], "TCP");
    assert_eq!(field("core.v1.Container", "name"), serde_json::json!({ "type": "string", "default": "" }));
    assert_eq!(field("core.v1.Container", "args")["items"], serde_json::json!({ "type": "string" }));
    let meta = &document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    assert_eq!(
        meta["properties"]["preconditions"],
        serde_json::json!({ "allOf": [{ "$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Preconditions" }] })
    );
    let groups: Vec<_> = meta["x-kubernetes-group-version-kind"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|kind| kind["group"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(groups, ["", "apps"]);
    assert_eq!(
        document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["post"]["requestBody"]["content"]
            ["*/*"]["schema"]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.Deployment"
    );
}

/// A protobuf message as field numbers and their raw contents.
fn decode(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        if key & 7 == 0 {
            varint(&mut bytes);
            fields.push((key >> 3, &bytes[..0]));
            continue;
        }
        assert_eq!(key & 7, 2, "only numbers and lengths are used");
        let length = usize::try_from(varint(&mut bytes)).unwrap();
        let (content, rest) = bytes.split_at(length);
        fields.push((key >> 3, content));
        bytes = rest;
    }
    fields
}

#[test]
fn the_protobuf_form_has_the_same_paths_and_types() {
    let resources = api::builtin::resources();
    let json = parse(&v2(&resources));
    let bytes = v2_protobuf(&resources);
    let document = decode(&bytes);
    let names = |field: u64, entries: u64| -> BTreeSet<String> {
        let (_, content) = document.iter().find(|(own, _)| *own == field).unwrap();
        let name = |entry: &[u8]| String::from_utf8(decode(entry)[0].1.to_vec()).unwrap();
        decode(content).iter().filter(|(own, _)| *own == entries).map(|(_, entry)| name(entry)).collect()
    };
    let keys = |section: &str| json[section].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(8, 2), keys("paths"));
    assert_eq!(names(9, 1), keys("definitions"));
    assert_eq!(names(10, 1), keys("parameters"));
}

struct Definition(apimachinery::Value);

impl api::Strategy for Definition {
    fn published_schema(&self) -> Option<apimachinery::Value> {
        Some(self.0.clone())
    }
}

/// The descriptor of a definition's only version.
fn custom(definition: &Value) -> Arc<Resource> {
    let text = |path: &str| Str::from(definition.pointer(path).and_then(Value::as_str).unwrap_or_default());
    let strs = |list: &[&str]| list.iter().map(|text| Str::from(*text)).collect::<Vec<_>>();
    let (group, version, kind) =
        (text("/spec/group"), text("/spec/versions/0/name"), text("/spec/names/kind"));
    let subresource = |name: &str, kind: GroupVersionKind| Subresource {
        name: name.into(),
        kind,
        verbs: strs(&["get", "patch", "update"]),
    };
    let gvk = GroupVersionKind::new(&group, &version, &kind);
    let schema = apimachinery::Value::from(
        definition.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().expect("a schema"),
    );
    Arc::new(Resource {
        plural: text("/spec/names/plural"),
        singular: text("/spec/names/singular"),
        list_kind: format!("{kind}List").into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: strs(&["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
        subresources: vec![
            subresource("scale", GroupVersionKind::new("autoscaling", "v1", "Scale")),
            subresource("status", gvk),
        ],
        storage_version: version.clone(),
        storage_prefix: "/registry/x/".into(),
        schema: api::builtin::schema(&GroupVersionKind::new("", "v1", "ConfigMap")).expect("built in"),
        selectable_fields: FieldPaths::Fixed(&["metadata.name", "metadata.namespace"]),
        columns: Columns::Fixed { definitions: &[], cells: |_, _| Vec::new() },
        strategy: Arc::new(Definition(schema)),
        deprecation: None,
        custom: Some(Custom::default()),
        type_meta: apimachinery::object::type_meta(&format!("{group}/{version}"), &kind),
        bare_list_items: false,
        group,
        version,
        kind,
    })
}

#[test]
fn a_custom_resource_is_published_as_upstream_does() {
    let (Some(created), Some(read)) =
        (exchanges("create-minimal.jsonl"), exchanges("conversions-and-subresources.jsonl"))
    else {
        return;
    };
    let definition = created.iter().find(|own| own.case.ends_with("widgets.example.com")).expect("recorded");
    let mut theirs =
        read.into_iter().find(|own| own.case == "/openapi/v3/apis/example.com/v1").expect("recorded").body;
    let mut resources = api::builtin::resources();
    resources.push(custom(&definition.body));
    let mut ours = parse(&v3_json("apis/example.com/v1", &resources).expect("is served"));
    for document in [&mut ours, &mut theirs] {
        // Only types have prose here.
        normalize(&mut document["paths"]);
        sort_required(document);
        hide_resource_versions(document);
    }
    let mut found = Vec::new();
    differences("", &ours, &theirs, &mut found);
    assert_eq!(found, Vec::<String>::new());

    let document = parse(&v2(&resources));
    let widget = &document["definitions"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["size"]["maximum"], 9);
    assert!(!v2_protobuf(&resources).is_empty());
}
