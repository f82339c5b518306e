//! Writes OpenAPI 2.0 (Swagger) as JSON.

use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::VERSION;
use super::definitions::{Dialect, Kinds, Types, reference};
use super::parameters::Parameter;
use super::paths::{self, Answer, Body, Operation, PathItem};
use crate::Resource;
use crate::builtin::tables;

pub(super) fn json(types: &Types, resources: &[Arc<Resource>], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"{\"swagger\":\"2.0\",\"info\":")?;
    write(&info(), out)?;
    out.write_all(b",\"paths\":")?;
    let mut needed = types.needed();
    write_entries(
        paths::all(types, resources).map(|item| {
            needed.add_path(&item);
            (path_item(&item), item.path)
        }),
        out,
    )?;
    out.write_all(b",\"definitions\":")?;
    let definitions = needed.types();
    write_entries(
        definitions.into_iter().map(|(name, own)| (types.schema(&own, Dialect::V2, Kinds::All), name)),
        out,
    )?;
    out.write_all(b",\"parameters\":")?;
    write_entries(types.shared.all().iter().map(|own| (shared_parameter(own), own.key)), out)?;
    out.write_all(b",\"securityDefinitions\":")?;
    write(&security_definitions(), out)?;
    out.write_all(b",\"security\":[{\"BearerToken\":[]}]}")
}

pub(super) fn info() -> Value {
    json!({ "title": "Kubernetes", "version": VERSION })
}

pub(super) fn security_definitions() -> Value {
    json!({ "BearerToken": { "type": "apiKey", "name": "authorization", "in": "header" } })
}

pub(super) fn path_item(path: &PathItem) -> Value {
    let mut item: Map<String, Value> =
        path.operations.iter().map(|own| (own.method.to_owned(), operation(own))).collect();
    if !path.parameters.is_empty() {
        item.insert("parameters".into(), path.parameters.iter().map(parameter).collect());
    }
    item.into()
}

pub(super) fn shared_parameter(own: &tables::Parameter) -> Value {
    let mut parameter = json!({ "name": own.name, "in": own.place });
    if own.place == "body" {
        parameter["schema"] = reference(own.kind, Dialect::V2);
    } else {
        parameter["type"] = own.kind.into();
        parameter["uniqueItems"] = true.into();
    }
    if own.required {
        parameter["required"] = true.into();
    }
    parameter
}

/// What a status code means, as a response must say.
pub(super) fn code_description(code: u16) -> &'static str {
    match code {
        201 => "Created",
        202 => "Accepted",
        401 => "Unauthorized",
        _ => "OK",
    }
}

fn operation(own: &Operation) -> Value {
    let mut operation = json!({
        "operationId": own.id,
        "tags": [own.tag],
        "schemes": ["https"],
        "responses": responses(own),
    });
    if !own.consumes.is_empty() {
        operation["consumes"] = own.consumes.into();
    }
    if !own.produces.is_empty() {
        operation["produces"] = own.produces.into();
    }
    let parameters: Vec<Value> =
        own.body.iter().map(body).chain(own.parameters.iter().map(parameter)).collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some((action, gvk)) = &own.action {
        operation["x-kubernetes-action"] = (*action).into();
        operation["x-kubernetes-group-version-kind"] = json!({ "group": gvk.group.as_str(), "version": gvk.version.as_str(), "kind": gvk.kind.as_str() });
    }
    operation
}

fn responses(own: &Operation) -> Value {
    let mut responses = json!({ "401": { "description": code_description(401) } });
    let schema = match &own.answer {
        Answer::Type(name) => name.reference(Dialect::V2),
        Answer::Text => json!({ "type": "string" }),
        Answer::Unknown => return responses,
    };
    for code in own.codes {
        responses[code.to_string()] = json!({ "description": code_description(*code), "schema": schema });
    }
    responses
}

fn body(body: &Body) -> Value {
    match body {
        Body::Shared(key) => shared(key),
        Body::Type(name) => {
            json!({ "name": "body", "in": "body", "required": true, "schema": name.reference(Dialect::V2) })
        }
    }
}

fn parameter(own: &Parameter) -> Value {
    if let Some(key) = own.key {
        return shared(key);
    }
    let mut parameter = json!({ "name": own.name, "in": own.place, "type": own.kind, "uniqueItems": true });
    if own.place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

fn shared(key: &str) -> Value {
    json!({ "$ref": format!("#/parameters/{key}") })
}

/// Writes an object entry by entry, so that only one is in memory at a time.
pub(super) fn write_entries(
    entries: impl Iterator<Item = (Value, impl AsRef<str>)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    out.write_all(b"{")?;
    for (index, (value, key)) in entries.enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *out, key.as_ref())?;
        out.write_all(b":")?;
        write(&value, out)?;
    }
    out.write_all(b"}")
}

pub(super) fn write(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    Ok(serde_json::to_writer(out, value)?)
}
