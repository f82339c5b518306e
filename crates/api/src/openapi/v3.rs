//! Writes OpenAPI 3.0 as JSON, one document for each group version, and their index.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::definitions::{Dialect, Kinds, Types, reference};
use super::parameters::Parameter;
use super::paths::{self, Answer, Body, Operation, PathItem};
use super::v2::{code_description, info, security_definitions, write, write_entries};
use crate::Resource;

const IN_MEMORY: &str = "writing to memory does not fail";

pub(super) fn index<'d>(documents: impl IntoIterator<Item = (&'d str, &'d str)>) -> Vec<u8> {
    let mut out = b"{\"paths\":".to_vec();
    let entry = |(key, hash): (&'d str, &'d str)| {
        (json!({ "serverRelativeURL": format!("/openapi/v3/{key}?hash={hash}") }), key)
    };
    write_entries(documents.into_iter().map(entry), &mut out).expect(IN_MEMORY);
    out.push(b'}');
    out
}

pub(super) fn documents(
    types: &Types,
    resources: &[Arc<Resource>],
    wanted: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(&str, Vec<u8>),
) {
    let mut by_key: BTreeMap<String, Vec<PathItem>> = BTreeMap::new();
    for path in paths::all(types, resources).filter(|path| wanted(key(&path.path))) {
        by_key.entry(key(&path.path).to_owned()).or_default().push(path);
    }
    for (key, own) in by_key {
        let mut out = Vec::with_capacity(1 << 18);
        document(types, &key, &own, &mut out).expect(IN_MEMORY);
        each(&key, out);
    }
}

/// The document that a path is described in: that of its group version, of its group, or its own.
fn key(path: &str) -> &str {
    let parts = match path.split('/').nth(1) {
        Some("api") => 2,
        Some("apis") => 3,
        _ => usize::MAX,
    };
    let path = path.trim_matches('/');
    let end = path.match_indices('/').nth(parts - 1).map_or(path.len(), |(at, _)| at);
    &path[..end]
}

fn document(types: &Types, key: &str, own: &[PathItem], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"{\"openapi\":\"3.0.0\",\"info\":")?;
    let is_custom = own.iter().all(|path| path.is_custom);
    write(&if is_custom { custom_info() } else { info() }, out)?;
    out.write_all(b",\"paths\":")?;
    write_entries(own.iter().map(|path| (path_item(types, path), path.path.as_str())), out)?;
    out.write_all(b",\"components\":{\"schemas\":")?;
    let kinds = if is_custom { Kinds::OfClients } else { kinds_of(key) };
    let mut needed = types.needed();
    own.iter().for_each(|path| needed.add_path(path));
    let needed = needed.types().into_iter();
    write_entries(needed.map(|(name, own)| (types.schema(&own, Dialect::V3, kinds), name)), out)?;
    if is_custom {
        return out.write_all(b"}}");
    }
    out.write_all(b",\"securitySchemes\":")?;
    write(&security_definitions(), out)?;
    out.write_all(b"},\"security\":[{\"BearerToken\":[]}]}")
}

/// The kinds of the group version whose document has this key (`api/v1`, `apis/apps/v1`).
fn kinds_of(key: &str) -> Kinds<'_> {
    let path = key.split_once('/').map_or("", |(_, path)| path);
    let (group, version) = path.split_once('/').unwrap_or(("", path));
    Kinds::Of { group, version }
}

/// Documents of custom resources say whose they are, and nothing of how to log in.
fn custom_info() -> Value {
    json!({ "title": "Kubernetes CRD Swagger", "version": "v0.1.0" })
}

fn path_item(types: &Types, path: &PathItem) -> Value {
    let mut item: Map<String, Value> =
        path.operations.iter().map(|own| (own.method.to_owned(), operation(types, own))).collect();
    if !path.parameters.is_empty() {
        item.insert("parameters".into(), path.parameters.iter().map(parameter).collect());
    }
    item.into()
}

fn operation(types: &Types, own: &Operation) -> Value {
    let mut operation = json!({ "operationId": own.id, "tags": [own.tag], "responses": responses(own) });
    if !own.parameters.is_empty() {
        operation["parameters"] = own.parameters.iter().map(parameter).collect();
    }
    if let Some(body) = &own.body {
        operation["requestBody"] = request_body(types, body, own.consumes);
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
        Answer::Type(name) => name.reference(Dialect::V3),
        Answer::Text => json!({ "type": "string" }),
        Answer::Unknown => return responses,
    };
    for code in own.codes {
        let content = content(own.produces, &schema);
        responses[code.to_string()] = json!({ "description": code_description(*code), "content": content });
    }
    responses
}

fn request_body(types: &Types, body: &Body, consumes: &[&str]) -> Value {
    let (schema, required) = match body {
        Body::Type(name) => (name.reference(Dialect::V3), true),
        Body::Shared(key) => {
            let shared = types.shared.all().iter().find(|own| own.key == *key);
            (reference(types.shared_body(key), Dialect::V3), shared.is_some_and(|own| own.required))
        }
    };
    let mut request = json!({ "content": content(consumes, &schema) });
    if required {
        request["required"] = true.into();
    }
    request
}

/// The same schema for every media type.
fn content(media_types: &[&str], schema: &Value) -> Value {
    media_types
        .iter()
        .map(|media| ((*media).to_owned(), json!({ "schema": schema })))
        .collect::<Map<_, _>>()
        .into()
}

fn parameter(own: &Parameter) -> Value {
    let schema = json!({ "type": own.kind, "uniqueItems": true });
    let mut parameter = json!({ "name": own.name, "in": own.place, "schema": schema });
    if own.place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_document_of_its_group_version() {
        for (path, expected) in [
            ("/api/", "api"),
            ("/api/v1/", "api/v1"),
            ("/api/v1/namespaces/{namespace}/pods", "api/v1"),
            ("/apis/", "apis"),
            ("/apis/apps/", "apis/apps"),
            ("/apis/apps/v1/deployments", "apis/apps/v1"),
            ("/version/", "version"),
            ("/openid/v1/jwks/", "openid/v1/jwks"),
            ("/.well-known/openid-configuration/", ".well-known/openid-configuration"),
        ] {
            assert_eq!(key(path), expected, "{path}");
        }
    }
}
