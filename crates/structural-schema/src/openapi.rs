//! How a custom resource's schema is published in OpenAPI, from the definition's own text.
//!
//! Version 3 says everything. Version 2 cannot, and kubectl stumbles over what it half says: types that may be null,
//! or whose unknown fields are kept, are published without a type, and alternatives not at all.

use apimachinery::json;
use apimachinery::{Map, Str, Value};

/// Which OpenAPI version a schema is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

/// One version of a custom resource, as it is published.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub list_kind: &'a str,
    pub plural: &'a str,
    /// The `openAPIV3Schema`; anything else for a version without one.
    pub schema: &'a Value,
    /// Dotted paths, without those of the metadata.
    pub selectable_fields: &'a [&'a str],
    pub prose: &'a Prose,
}

/// What fields are for that every kind has; empty where nothing shall be said.
#[derive(Clone, Debug, Default)]
pub struct Prose {
    pub api_version: String,
    pub kind: String,
    pub metadata: String,
    pub list_metadata: String,
}

/// The name under which a kind is published: `com.example.v1.Widget`.
pub fn type_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

impl Publication<'_> {
    /// The schema of the kind.
    pub fn object(&self, dialect: Dialect) -> Value {
        let mut schema = self.body(dialect);
        self.mark(&mut schema, self.kind);
        schema
    }

    /// The schema of its list.
    pub fn list(&self, dialect: Dialect) -> Value {
        let item = type_name(self.group, self.version, self.kind);
        let of_items = format!("List of {}. More info: {CONVENTIONS}", self.plural);
        let mut schema = json!({
            "description": format!("{} is a list of {}", self.list_kind, self.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text(&self.prose.api_version),
                "items": {"description": of_items, "type": "array", "items": reference(&item, dialect)},
                "kind": text(&self.prose.kind),
                "metadata": meta("ListMeta", &self.prose.list_metadata, dialect),
            },
        });
        self.mark(&mut schema, self.list_kind);
        schema
    }

    fn body(&self, dialect: Dialect) -> Value {
        if !self.schema.is_object() || dialect == Dialect::V2 && is_true(self.schema, PRESERVE) {
            return json!({"type": "object"});
        }
        let mut schema = self.schema.clone();
        self.rewrite(&mut schema, dialect);
        let properties = schema.ensure_object().get_or_insert_with("properties", Value::object);
        self.add_meta(properties.ensure_object(), dialect);
        schema
    }

    /// What every whole object has.
    fn add_meta(&self, properties: &mut Map, dialect: Dialect) {
        properties.insert("apiVersion", text(&self.prose.api_version));
        properties.insert("kind", text(&self.prose.kind));
        properties.insert("metadata", meta("ObjectMeta", &self.prose.metadata, dialect));
    }

    /// Brings a schema and those in it into the words of a dialect.
    fn rewrite(&self, schema: &mut Value, dialect: Dialect) {
        match dialect {
            Dialect::V2 => reduce(schema),
            Dialect::V3 => unfold(schema),
        }
        let Value::Object(map) = schema else { return };
        if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
            properties.values_mut().for_each(|property| self.rewrite(property, dialect));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(below) = map.get_mut(key).filter(|below| below.is_object()) {
                self.rewrite(below, dialect);
            }
        }
        self.embed(schema, dialect);
    }

    /// Objects inside an object have type and metadata, too.
    fn embed(&self, schema: &mut Value, dialect: Dialect) {
        if !is_true(schema, "x-kubernetes-embedded-resource")
            || dialect == Dialect::V2 && is_true(schema, PRESERVE)
        {
            return;
        }
        let map = schema.ensure_object();
        self.add_meta(map.get_or_insert_with("properties", Value::object).ensure_object(), dialect);
        let required = map.get_or_insert_with("required", || Value::Array(Vec::new()));
        for name in ["kind", "apiVersion"] {
            let name = Value::from(name);
            if let Some(names) = required.as_array_mut()
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
    }

    fn mark(&self, schema: &mut Value, kind: &str) {
        let schema = schema.ensure_object();
        schema.insert(
            "x-kubernetes-group-version-kind",
            json!([{"group": self.group, "kind": kind, "version": self.version}]),
        );
        if !self.selectable_fields.is_empty() {
            let fields: Value =
                self.selectable_fields.iter().map(|path| json!({"fieldPath": *path})).collect();
            schema.insert("x-kubernetes-selectable-fields", fields);
        }
    }
}

fn is_true(schema: &Value, key: &str) -> bool {
    schema[key].as_bool() == Some(true)
}

fn reference(name: &str, dialect: Dialect) -> Value {
    let place = match dialect {
        Dialect::V2 => "#/definitions/",
        Dialect::V3 => "#/components/schemas/",
    };
    json!({"$ref": format!("{place}{name}")})
}

/// A text field.
fn text(description: &str) -> Value {
    described(json!({"type": "string"}), description)
}

/// A reference to a type of metadata, in the form that leaves room for a description.
fn meta(name: &str, description: &str, dialect: Dialect) -> Value {
    let reference = reference(&format!("{META}{name}"), dialect);
    let schema = match dialect {
        Dialect::V2 => reference,
        Dialect::V3 => json!({"allOf": [reference]}),
    };
    described(schema, description)
}

fn described(mut schema: Value, description: &str) -> Value {
    if !description.is_empty() {
        schema.set_at(&["description"], description);
    }
    schema
}

/// Says in plain OpenAPI what `x-kubernetes-int-or-string` means.
fn unfold(schema: &mut Value) {
    if !is_true(schema, "x-kubernetes-int-or-string") {
        return;
    }
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    if schema["anyOf"] == both || schema["allOf"][0]["anyOf"] == both {
        return;
    }
    let map = schema.ensure_object();
    if !map.contains_key("anyOf") {
        map.insert("anyOf", both);
        return;
    }
    let all_of = map.get_or_insert_with("allOf", || Value::Array(Vec::new()));
    if let Some(all_of) = all_of.as_array_mut() {
        all_of.insert(0, json!({"anyOf": both}));
    }
}

/// Leaves out what version 2 cannot say.
fn reduce(schema: &mut Value) {
    let nullable = is_true(schema, "nullable");
    let preserved = is_true(schema, PRESERVE);
    let nullable_fields: Vec<Str> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, property)| is_true(property, "nullable"))
        .map(|(name, _)| name.clone())
        .collect();
    let nullable_values = is_true(&schema["additionalProperties"], "nullable");
    let Value::Object(map) = schema else { return };
    for key in ["allOf", "oneOf", "anyOf", "not", "nullable", "default"] {
        map.remove(key);
    }
    if nullable || preserved {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
    let is_bare_array = kind == "array" && !map.contains_key("items");
    if nullable || is_bare_array || preserved && kind == "object" {
        map.remove("type");
    }
    if nullable_values {
        map.remove("required");
    }
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !nullable_fields.iter().any(|own| name.as_str() == Some(own)));
        if required.is_empty() {
            map.remove("required");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(schema: &Value, dialect: Dialect) -> Value {
        let publication = Publication {
            group: "example.com",
            version: "v1",
            kind: "Widget",
            list_kind: "WidgetList",
            plural: "widgets",
            schema,
            selectable_fields: &["spec.size"],
            prose: &Prose::default(),
        };
        publication.object(dialect)
    }

    #[test]
    fn names_are_reversed_groups() {
        assert_eq!(type_name("a.example.com", "v1", "Widget"), "com.example.a.v1.Widget");
    }

    #[test]
    fn version_3_says_everything() {
        let schema = json!({"type": "object", "properties": {
            "value": {"x-kubernetes-int-or-string": true, "description": "of it"},
            "ranged": {"x-kubernetes-int-or-string": true, "anyOf": [{"minimum": 1}, {"pattern": "^1$"}]},
            "n": {"type": "string", "nullable": true, "default": "x"},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        }});
        let published = publish(&schema, Dialect::V3);
        let both = json!([{"type": "integer"}, {"type": "string"}]);
        let properties = &published["properties"];
        assert_eq!(
            properties["value"],
            json!({"x-kubernetes-int-or-string": true, "description": "of it", "anyOf": both.clone()})
        );
        assert_eq!(properties["ranged"]["allOf"], json!([{"anyOf": both}]));
        assert_eq!(properties["n"], json!({"type": "string", "nullable": true, "default": "x"}));
        let meta = json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]});
        assert_eq!(properties["metadata"], meta);
        assert_eq!(properties["pod"]["properties"]["metadata"], meta);
        assert_eq!(properties["pod"]["required"], json!(["kind", "apiVersion"]));
        assert_eq!(
            published["x-kubernetes-group-version-kind"],
            json!([{"group": "example.com", "kind": "Widget", "version": "v1"}])
        );
        assert_eq!(published["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.size"}]));
    }

    #[test]
    fn version_2_leaves_out_what_it_cannot_say() {
        let schema = json!({"type": "object", "required": ["n", "m"], "properties": {
            "n": {"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}},
            "m": {"type": "string", "default": "x", "maxLength": 3, "anyOf": [{"minLength": 1}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
            "list": {"type": "array", "nullable": true, "items": {"type": "string"}},
        }});
        let published = publish(&schema, Dialect::V2);
        let properties = &published["properties"];
        assert_eq!(properties["n"], json!({}));
        assert_eq!(properties["m"], json!({"type": "string", "maxLength": 3}));
        assert_eq!(properties["free"], json!({"x-kubernetes-preserve-unknown-fields": true}));
        assert_eq!(properties["list"], json!({}));
        assert_eq!(published["required"], json!(["m"]));
        let preserved = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}});
        let published = publish(&preserved, Dialect::V2);
        assert_eq!(published.get("properties"), None);
        assert_eq!(published["type"], json!("object"));
    }
}
