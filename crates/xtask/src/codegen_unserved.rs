//! Types that upstream has in its scheme and serves nowhere: versions of the past, options that travel as query
//! parameters, reviews that a server sends to webhooks, and metadata without its object.
//!
//! No published document has them. What they look like follows from two facts: the names that Go writes in JSON
//! (`data/go_fields.txt`) and the types of the protobuf fields. The result has the form of a definition of the OpenAPI
//! document, so that everything after it need not care where a type came from.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::codegen::{DEFINITION_PREFIX, REFERENCE_PREFIX};
use crate::codegen_protobuf::{Field, Messages, same_name};

/// Groups whose packages are in no published document.
const GROUPS: [(&str, &str); 4] = [
    ("admission", "admission.k8s.io"),
    ("apidiscovery", "apidiscovery.k8s.io"),
    ("extensions", "extensions"),
    ("imagepolicy", "imagepolicy.k8s.io"),
];

/// Fields that make a struct a kind, as they stand in `go_fields.txt`.
const TYPE_META: &str = " kind:vo apiVersion:vo";

/// Adds a definition of every type of `go_fields` that has none.
pub fn add(definitions: &mut Map<String, Value>, messages: &Messages<'_>, go_fields: &str) -> Result<()> {
    let groups = groups(definitions);
    let mut added = Vec::new();
    for line in go_fields.lines().filter(|line| !line.starts_with('#')) {
        let (short, fields) = line.split_once(' ').unwrap_or((line, ""));
        let name = format!("{DEFINITION_PREFIX}{short}");
        if definitions.contains_key(&name) {
            continue;
        }
        let names: Vec<&str> =
            fields.split(' ').filter_map(|field| field.split_once(':')).map(|(name, _)| name).collect();
        let mut properties = Map::new();
        for own in names.iter().filter(|own| matches!(**own, "apiVersion" | "kind")) {
            properties.insert((*own).to_owned(), json!({"type": "string"}));
        }
        let message = message_name(short);
        add_fields(&mut properties, messages, &message, &names).with_context(|| format!("in type {name}"))?;
        let mut definition = json!({"type": "object", "properties": properties});
        if line[short.len()..].starts_with(TYPE_META) {
            definition["x-kubernetes-group-version-kind"] = kinds(short, &groups)?.into();
        }
        added.push((name, definition));
    }
    definitions.extend(added);
    definitions.sort_keys();
    Ok(())
}

/// The API group of each package `api.<this>`.
fn groups(definitions: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut groups: BTreeMap<String, String> =
        GROUPS.iter().map(|(package, group)| ((*package).to_owned(), (*group).to_owned())).collect();
    for (name, definition) in definitions {
        let package = name.strip_prefix(DEFINITION_PREFIX).and_then(|name| name.strip_prefix("api."));
        let Some(package) = package.and_then(|rest| rest.split('.').next()) else { continue };
        if let Some(group) = definition["x-kubernetes-group-version-kind"][0]["group"].as_str() {
            groups.insert(package.to_owned(), group.to_owned());
        }
    }
    groups
}

fn kinds(short: &str, groups: &BTreeMap<String, String>) -> Result<Vec<Value>> {
    let parts: Vec<&str> = short.rsplitn(3, '.').collect();
    let &[kind, version, package] = parts.as_slice() else { anyhow::bail!("{short} is in no package") };
    let kind = |group: &str, version: &str| json!({"group": group, "version": version, "kind": kind});
    Ok(match package.strip_prefix("api.") {
        Some(package) => {
            vec![kind(groups.get(package).with_context(|| format!("no group of {short}"))?, version)]
        }
        None if short.ends_with("Options") => vec![kind("", version)],
        None => vec![kind("meta.k8s.io", version), kind("meta.k8s.io", "v1beta1")],
    })
}

/// The properties that the fields of a message are; a field without a name of its own is a struct whose fields are
/// properties of this one.
fn add_fields(
    properties: &mut Map<String, Value>,
    messages: &Messages<'_>,
    message: &str,
    names: &[&str],
) -> Result<()> {
    for field in messages.get(message)? {
        match same_name(names.iter().copied(), field.name) {
            Some(name) => {
                properties.insert(name.to_owned(), schema(messages, message, field));
            }
            None => add_fields(properties, messages, &messages.resolve(message, field.element()), names)
                .with_context(|| format!("field {} is no property and no inlined struct", field.name))?,
        }
    }
    Ok(())
}

fn schema(messages: &Messages<'_>, message: &str, field: &Field<'_>) -> Value {
    let element = match field.element() {
        _ if messages.is_wrapped_list(message, field) => {
            json!({"type": "array", "items": {"type": "string"}})
        }
        "string" => json!({"type": "string"}),
        "bool" => json!({"type": "boolean"}),
        "bytes" => json!({"type": "string", "format": "byte"}),
        "double" => json!({"type": "number", "format": "double"}),
        format @ ("int32" | "int64") => json!({"type": "integer", "format": format}),
        other => {
            let name = messages.resolve(message, other);
            let name = name.trim_start_matches("k8s.io.").replace('_', "-");
            json!({"$ref": format!("{REFERENCE_PREFIX}{name}")})
        }
    };
    match field.label {
        "repeated" => json!({"type": "array", "items": element}),
        "map" => json!({"type": "object", "additionalProperties": element}),
        _ => element,
    }
}

fn message_name(short: &str) -> String {
    format!("k8s.io.{}", short.replace('-', "_"))
}
