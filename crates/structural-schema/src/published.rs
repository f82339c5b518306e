//! What expressions know of objects of a kind, from the OpenAPI document (version 3) that describes it.
//!
//! Whose kind it is makes no difference: built-in and custom ones are published alike. What stands in a document without
//! a type, such as quantities, expressions do not see; that is upstream's way.

use apimachinery::{GroupVersionKind, Map, Str, Value, json};
use cel::Decl;

use crate::Structural;
use crate::rules::declare;

const KINDS: &str = "x-kubernetes-group-version-kind";
const REFERENCES: &str = "#/components/schemas/";

/// The declaration of objects of `kind`, from the document of its group version; `None` if that does not describe the
/// kind. `name` tells its types from those of others.
pub fn declaration(document: &Value, kind: &GroupVersionKind, name: &str) -> Option<Decl> {
    let schemas = document["components"]["schemas"].as_object()?;
    let (root, schema) = schemas.iter().find(|(_, schema)| describes(schema, kind))?;
    let whole = Inlining { schemas, open: vec![root.as_str()] }.parts(schema)?;
    Some(declare(&Structural::parse(&whole), true, name).unwrap_or_else(Decl::dynamic))
}

fn describes(schema: &Value, wanted: &GroupVersionKind) -> bool {
    schema.array_at(&[KINDS]).iter().any(|kind| {
        let text = |key: &str| kind.str_at(&[key]);
        (text("group"), text("version"), text("kind"))
            == (wanted.group.as_str(), wanted.version.as_str(), wanted.kind.as_str())
    })
}

/// Puts the schemas that others refer to into their places.
struct Inlining<'d> {
    schemas: &'d Map,
    /// The references that are being followed, outermost first.
    open: Vec<&'d str>,
}

impl<'d> Inlining<'d> {
    /// `None` for a reference to what is not there. A type inside itself is an object without known fields.
    fn whole(&mut self, schema: &'d Value) -> Option<Value> {
        let Some(target) = reference(schema) else { return self.parts(schema) };
        if self.open.contains(&target) {
            return Some(json!({"type": "object"}));
        }
        self.open.push(target);
        let whole = self.parts(self.schemas.get(target)?);
        self.open.pop();
        whole
    }

    fn parts(&mut self, schema: &'d Value) -> Option<Value> {
        let mut parts = Map::new();
        for (key, part) in schema.as_object()? {
            match key.as_str() {
                "description" => {}
                "properties" => {
                    parts.insert(key.clone(), self.properties(part)?);
                }
                "items" | "additionalProperties" if part.is_object() => {
                    parts.insert(key.clone(), self.whole(part)?);
                }
                // Built-in types say it so, custom ones by the extension.
                "format" if part.as_str() == Some("int-or-string") => {
                    parts.insert("x-kubernetes-int-or-string", true);
                }
                _ => {
                    parts.insert(key.clone(), part.clone());
                }
            }
        }
        Some(parts.into())
    }

    fn properties(&mut self, properties: &'d Value) -> Option<Value> {
        let whole = |(name, schema): (&Str, &'d Value)| Some((name.clone(), self.whole(schema)?));
        properties.as_object()?.iter().map(whole).collect::<Option<Map>>().map(Value::from)
    }
}

/// The name of the schema that stands behind this one. A reference with anything beside it is wrapped in `allOf`.
fn reference(schema: &Value) -> Option<&str> {
    match schema["$ref"].as_str() {
        Some(target) => Some(target.strip_prefix(REFERENCES).unwrap_or(target)),
        None => schema.array_at(&["allOf"]).iter().find_map(reference),
    }
}

#[cfg(test)]
mod tests {
    use cel::Environment;

    use super::*;

    /// Widgets, and a type that has itself inside.
    fn document() -> Value {
        let reference = |name: &str| json!({"$ref": format!("{REFERENCES}{name}")});
        json!({"components": {"schemas": {
            "com.example.v1.Widget": {
                "type": "object",
                "properties": {
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                    "metadata": {"description": "standard", "allOf": [reference("ObjectMeta")]},
                    "spec": {"type": "object", "properties": {
                        "description": {"type": "string"},
                        "format": {"type": "string", "format": "date-time"},
                        "port": {"allOf": [reference("IntOrString")], "default": 1},
                        "limits": {"type": "object", "additionalProperties": reference("Quantity")},
                        "parts": {"type": "array", "items": reference("Part")},
                    }},
                },
                KINDS: [{"group": "example.com", "version": "v1", "kind": "Widget"}],
            },
            "com.example.v1.Anything": {KINDS: [{"group": "example.com", "version": "v1", "kind": "Anything"}]},
            "com.example.v1.Broken": {
                "type": "object", "properties": {"spec": reference("Nothing")},
                KINDS: [{"group": "example.com", "version": "v1", "kind": "Broken"}],
            },
            "ObjectMeta": {"type": "object", "properties": {
                "name": {"type": "string"}, "generateName": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
            "IntOrString": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
            "Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
            "Part": {"type": "object", "properties": {"size": {"type": "integer"}, "inner": reference("Part")}},
        }}})
    }

    fn declared(kind: &str) -> Option<Decl> {
        declaration(&document(), &GroupVersionKind::new("example.com", "v1", kind), "T")
    }

    #[test]
    fn expressions_see_what_is_published_with_a_type() {
        let environment = Environment::new().variable("object", declared("Widget").expect("it is there"));
        for (text, refused) in [
            ("object.metadata.labels['a'] == object.spec.description", None),
            ("object.spec.format < timestamp('2020-01-01T00:00:00Z')", None),
            ("object.spec.port == 1 || object.spec.port == 'http'", None),
            ("object.spec.parts.all(part, part.size > 1)", None),
            ("object.spec.parts[0].size == 'a'", Some("applied to '(int, string)'")),
            ("has(object.spec.parts[0].inner)", None),
            ("object.spec.parts[0].inner.size == 1", Some("undefined field 'size'")),
            ("has(object.spec.limits)", Some("undefined field 'limits'")),
            ("object.status", Some("undefined field 'status'")),
        ] {
            let complaint = environment.check(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(complaint.contains(refused.unwrap_or_default()), "{text}: {complaint}");
            assert_eq!(complaint.is_empty(), refused.is_none(), "{text}: {complaint}");
        }
    }

    #[test]
    fn a_kind_without_a_type_can_be_anything_and_one_that_is_not_described_is_nothing() {
        assert_eq!(declared("Anything").map(|decl| decl.ty), Some(cel::Type::Dyn));
        assert!(declared("Broken").is_none());
        assert!(declared("Gadget").is_none());
        let kind = GroupVersionKind::new("example.com", "v2", "Widget");
        assert!(declaration(&document(), &kind, "T").is_none());
        assert!(declaration(&Value::Null, &kind, "T").is_none());
    }
}
