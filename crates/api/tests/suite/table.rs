use std::sync::Arc;

use api::Resource;
use api::table::{
    IncludeObject, MetaVersion, TableOptions, begin_partial_list, sort_rows, write_partial, write_table,
};
use apimachinery::{Object, Value};
use serde_json::Value as Json;
use serde_json::json;

use crate::recorded::{Exchange, exchanges};

const FIRST: TableOptions =
    TableOptions { version: MetaVersion::V1, include: IncludeObject::Metadata, definitions: true };

/// The resource and the object of a recorded `kind name` case, found by the object's collection path.
fn resource_at(path: &str) -> Option<Arc<Resource>> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let plural = match rest {
        ["namespaces", _, plural, ..] | [plural, ..] => *plural,
        [] => return None,
    };
    api::builtin::resources()
        .into_iter()
        .find(|own| own.group == group && own.version == version && own.plural == plural)
}

/// The objects that upstream answered with when the recording created them, in the version they were sent in.
fn created() -> Option<Vec<Exchange>> {
    exchanges("create-minimal.jsonl")
}

fn object(body: &Json) -> Object {
    let mut value = Value::from(body.clone());
    // Recorded times are blanked out.
    value.remove_at(&["metadata", "creationTimestamp"]);
    Object::from_value(&value, 7, &[]).unwrap()
}

fn table(resource: &Resource, objects: &[Object], options: TableOptions) -> Json {
    let mut out = Vec::new();
    let metadata = Value::from(json!({ "resourceVersion": "7" }));
    write_table(resource, objects, &metadata, "2026-01-02T00:00:00Z".parse().unwrap(), options, &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn column_headers_are_those_of_upstream() {
    let Some(exchanges) = exchanges("tables.jsonl") else { return };
    for exchange in exchanges.iter().filter(|own| own.status == 200) {
        let resource =
            resource_at(&exchange.path).unwrap_or_else(|| panic!("no resource at {}", exchange.path));
        let mut recorded = exchange.body["columnDefinitions"].clone();
        for column in recorded.as_array_mut().unwrap() {
            column["description"] = "".into();
        }
        assert_eq!(table(&resource, &[], FIRST)["columnDefinitions"], recorded, "{}", exchange.case);
    }
}

/// A cell that says something about a moment or a drawn number cannot be compared.
fn is_fixed(recorded: &Json) -> bool {
    let Some(text) = recorded.as_str() else { return true };
    let age = text.strip_suffix(['s', 'm', 'd']).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
    !(age || text.contains("<time>") || text.contains("<uid>") || text.contains(':'))
}

#[test]
fn cells_are_those_of_upstream() {
    let (Some(tables), Some(created)) = (exchanges("tables.jsonl"), created()) else { return };
    let mut compared = 0;
    for exchange in tables.iter().filter(|own| own.status == 200) {
        // Cells read the stored version; an older autoscaler is not stored as it was sent.
        let skipped =
            exchange.case.starts_with("autoscaling/v1 ") || exchange.case.starts_with("events.k8s.io/");
        let Some(sent) = created.iter().find(|own| own.case == exchange.case).filter(|_| !skipped) else {
            continue;
        };
        let resource = resource_at(&exchange.path).unwrap();
        let table = table(&resource, &[object(&sent.body)], FIRST);
        let cells = |table: &Json| table["rows"][0]["cells"].as_array().unwrap().clone();
        let (ours, recorded) = (cells(&table), cells(&exchange.body));
        assert_eq!(ours.len(), recorded.len(), "{}", exchange.case);
        for (column, (own, theirs)) in
            ours.iter().zip(&recorded).enumerate().filter(|(_, (_, cell))| is_fixed(cell))
        {
            assert_eq!(own, theirs, "{} column {column}", exchange.case);
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} cells were comparable");
}

#[test]
fn rows_carry_what_was_asked_for() {
    let pods = resource_at("/api/v1/pods").unwrap();
    let pod =
        object(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "n" },
        "status": { "phase": "Succeeded" } }));
    let row = |options| table(&pods, std::slice::from_ref(&pod), options)["rows"][0].clone();
    let metadata = row(FIRST);
    assert_eq!(
        metadata["object"],
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": { "name": "p", "namespace": "n", "resourceVersion": "7" } })
    );
    assert_eq!(metadata["conditions"][0]["reason"], "Succeeded");
    assert_eq!(row(TableOptions { include: IncludeObject::None, ..FIRST })["object"], Json::Null);
    assert_eq!(
        row(TableOptions { include: IncludeObject::Object, ..FIRST })["object"]["status"]["phase"],
        "Succeeded"
    );
    let later = TableOptions { version: MetaVersion::V1Beta1, definitions: false, ..FIRST };
    let later = table(&pods, &[], later);
    assert_eq!(
        later,
        json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1beta1",
        "metadata": { "resourceVersion": "7" }, "rows": [] })
    );
}

#[test]
fn a_row_may_carry_the_object_in_another_version_than_the_stored_one() {
    let events = resource_at("/apis/events.k8s.io/v1/events").unwrap();
    let event =
        object(&json!({ "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "message": "m" }));
    let whole = TableOptions { include: IncludeObject::Object, ..FIRST };
    let shown = table(&events, &[event], whole)["rows"][0]["object"].clone();
    assert_eq!((&shown["apiVersion"], &shown["note"]), (&json!("events.k8s.io/v1"), &json!("m")));
}

#[test]
fn flow_schemas_are_shown_in_the_order_in_which_they_are_tried() {
    let schemas = resource_at("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas").unwrap();
    let schema = |name: &str, precedence: i64| {
        object(&json!({ "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
            "metadata": { "name": name }, "spec": { "matchingPrecedence": precedence } }))
    };
    let mut objects = [("a", 9), ("c", 1), ("b", 1)].map(|(name, order)| Arc::new(schema(name, order)));
    sort_rows(&schemas, &mut objects);
    assert_eq!(objects.map(|own| own.name().to_owned()), ["b", "c", "a"]);
}

#[test]
fn metadata_alone_is_that_of_upstream() {
    let (Some(recorded), Some(created)) = (exchanges("partial-metadata.jsonl"), created()) else { return };
    for exchange in recorded.iter().filter(|own| own.status == 200) {
        let Some(sent) = created.iter().find(|own| own.case == exchange.case) else { continue };
        let mut value = Value::from(sent.body.clone());
        value.remove_at(&["metadata", "resourceVersion"]);
        let resource = resource_at(&exchange.path).unwrap();
        let mut out = Vec::new();
        let object = Object::from_value(&value, 0, &[]).unwrap();
        write_partial(&resource, &object, MetaVersion::V1, &mut out);
        let mut ours: Json = serde_json::from_slice(&out).unwrap();
        let mut theirs = exchange.body.clone();
        for metadata in [&mut ours["metadata"], &mut theirs["metadata"]] {
            for changing in ["resourceVersion", "managedFields", "generation", "uid"] {
                metadata.as_object_mut().unwrap().remove(changing);
            }
        }
        assert_eq!(ours, theirs, "{}", exchange.case);
    }
}

#[test]
fn items_of_a_metadata_list_say_what_they_are() {
    let map = object(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } }));
    let resource = resource_at("/api/v1/namespaces/rec/configmaps").unwrap();
    let mut out = Vec::new();
    begin_partial_list(&Value::from(json!({ "resourceVersion": "9" })), MetaVersion::V1, &mut out);
    write_partial(&resource, &map, MetaVersion::V1, &mut out);
    out.extend_from_slice(b"]}");
    let list: Json = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        list,
        json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": { "resourceVersion": "9" }, "items": [{ "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1", "metadata": { "name": "a", "resourceVersion": "7" } }] })
    );
}
