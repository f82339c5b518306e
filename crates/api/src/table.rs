//! Answers in `meta.k8s.io`: `Table` as `kubectl get` asks for, and `PartialObjectMetadata` of metadata-only readers.
//!
//! Owns: the shape of these answers, in both their versions. Never touches: which representation a client wants, or
//! the cells of a kind ([`crate::columns`]). Answers are appended to a buffer object by object; nothing is built up
//! for a whole list.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::object::Form;
use apimachinery::{Object, Value};
use jiff::Timestamp;

use crate::kinds::apps::daemon_set::TEMPLATE_GENERATION;
use crate::{Resource, conversion};

/// Version of the `meta.k8s.io` group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    V1,
    V1Beta1,
}

/// What a row carries beside its cells (`includeObject` of the request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// How a table is wanted.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    pub version: MetaVersion,
    pub include: IncludeObject,
    /// Column definitions are left out of all but the first event of a watch.
    pub definitions: bool,
}

impl MetaVersion {
    /// Reads the `v` of an `Accept` header.
    pub fn parse(version: &str) -> Option<Self> {
        match version {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

impl IncludeObject {
    /// Reads the query parameter; absent and empty mean metadata. `None` for a value that upstream refuses.
    pub fn parse(parameter: &str) -> Option<Self> {
        match parameter {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// Appends a `Table` of objects of one resource. `metadata` is that of the list, or of the single object's answer
/// (its `resourceVersion`).
pub fn write_table<'o>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'o Object>,
    metadata: &Value,
    now: Timestamp,
    options: TableOptions,
    out: &mut Vec<u8>,
) {
    begin_table(resource, metadata, options, out);
    for (index, object) in objects.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_row(resource, object, now, options, out);
    }
    out.extend_from_slice(b"]}");
}

/// Appends what stands before the rows of a `Table`; `]}` ends it.
pub fn begin_table(resource: &Resource, metadata: &Value, options: TableOptions, out: &mut Vec<u8>) {
    head("Table", options.version, metadata, out);
    if options.definitions {
        out.extend_from_slice(b",\"columnDefinitions\":");
        Value::from(resource.columns.definitions()).write_json(out);
    }
    out.extend_from_slice(b",\"rows\":[");
}

/// Appends a `PartialObjectMetadata`.
pub fn write_partial(resource: &Resource, object: &Object, version: MetaVersion, out: &mut Vec<u8>) {
    partial(&shown_metadata(resource, object.metadata_value()), version, out);
}

/// A `PartialObjectMetadata` as a tree, for encodings other than JSON.
pub fn partial_value(resource: &Resource, object: &Object, version: MetaVersion) -> Value {
    let mut value = Value::object();
    let map = value.ensure_object();
    map.insert("apiVersion", version.api_version());
    map.insert("kind", "PartialObjectMetadata");
    map.insert("metadata", shown_metadata(resource, object.metadata_value()));
    value
}

/// Appends what stands before the items of a `PartialObjectMetadataList`; `]}` ends it.
pub fn begin_partial_list(metadata: &Value, version: MetaVersion, out: &mut Vec<u8>) {
    head("PartialObjectMetadataList", version, metadata, out);
    out.extend_from_slice(b",\"items\":[");
}

/// Flow schemas are shown in the order in which they are tried; everything else as it comes.
pub fn sort_rows(resource: &Resource, objects: &mut [Arc<Object>]) {
    if resource.kind == "FlowSchema" {
        objects.sort_by_cached_key(|schema| {
            let precedence = schema.to_value().at(&["spec", "matchingPrecedence"]).and_then(Value::as_i64);
            (precedence, schema.name().to_owned())
        });
    }
}

/// Appends a row of a `Table`.
pub fn write_row(
    resource: &Resource,
    object: &Object,
    now: Timestamp,
    options: TableOptions,
    out: &mut Vec<u8>,
) {
    let value = object.to_value();
    out.extend_from_slice(b"{\"cells\":");
    Value::from(resource.columns.cells(&value, now)).write_json(out);
    if let Some(condition) = completion(resource, &value) {
        out.extend_from_slice(b",\"conditions\":[");
        condition.write_json(out);
        out.push(b']');
    }
    out.extend_from_slice(b",\"object\":");
    match options.include {
        IncludeObject::None => out.extend_from_slice(b"null"),
        IncludeObject::Metadata => {
            partial(&shown_metadata(resource, value["metadata"].clone()), options.version, out);
        }
        IncludeObject::Object => write_whole(resource, object, value, out),
    }
    out.push(b'}');
}

/// The object in the version that `resource` serves.
fn write_whole(resource: &Resource, object: &Object, mut value: Value, out: &mut Vec<u8>) {
    let (stored, served) = (conversion::storage_gvk(resource), resource.gvk());
    if conversion::is_needed(&stored, &served) {
        conversion::convert(&mut value, &stored, &served);
        value.write_json(out);
    } else {
        object.write(Form::As(&resource.type_meta), out);
    }
}

/// The condition by which clients may hide pods that are done.
fn completion(resource: &Resource, value: &Value) -> Option<Value> {
    if resource.kind != "Pod" || !resource.group.is_empty() {
        return None;
    }
    let (reason, message) = match value.str_at(&["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    let mut condition = Value::object();
    for (key, text) in [("type", "Completed"), ("status", "True"), ("reason", reason), ("message", message)] {
        condition.ensure_object().insert(key, text);
    }
    Some(condition)
}

/// Everything up to the end of `metadata`, the closing brace left to the caller.
fn head(kind: &str, version: MetaVersion, metadata: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{}\"", version.api_version()).as_bytes(),
    );
    out.extend_from_slice(b",\"metadata\":");
    let metadata = if metadata.is_object() { Cow::Borrowed(metadata) } else { Cow::Owned(Value::object()) };
    metadata.write_json(out);
}

/// Metadata without its object. A DaemonSet's counter is a field in Go, which only the whole object shows as the
/// annotation that it is in JSON.
fn shown_metadata(resource: &Resource, mut metadata: Value) -> Value {
    if resource.kind == "DaemonSet"
        && resource.group == "apps"
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(TEMPLATE_GENERATION);
        if annotations.is_empty() {
            metadata.remove_at(&["annotations"]);
        }
    }
    metadata
}

fn partial(metadata: &Value, version: MetaVersion, out: &mut Vec<u8>) {
    head("PartialObjectMetadata", version, metadata, out);
    out.push(b'}');
}
