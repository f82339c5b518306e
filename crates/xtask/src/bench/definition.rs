//! CustomResourceDefinitions as bodies to send, and objects of them.

use bytes::Bytes;
use serde_json::{Value, json};

/// A CustomResourceDefinition as operators have them: a spec of nested objects with prose for each field, a status
/// with conditions, printer columns. No two have a name or a description in common.
pub(super) struct Definition {
    number: usize,
}

impl Definition {
    /// Definitions of one operator, which share a group.
    const IN_GROUP: usize = 10;
    /// Parts of a spec; their number is what makes a schema about 10 KiB.
    const SECTIONS: usize = 6;

    pub(super) fn new(number: usize) -> Self {
        Self { number }
    }

    fn group(&self) -> String {
        format!("operator-{}.example.com", self.number / Self::IN_GROUP)
    }

    fn plural(&self) -> String {
        format!("gadgets{}", self.number)
    }

    fn kind(&self) -> String {
        format!("Gadget{}", self.number)
    }

    pub(super) fn collection(&self, namespace: &str) -> String {
        format!("/apis/{}/v1/namespaces/{namespace}/{}", self.group(), self.plural())
    }

    pub(super) fn schema_bytes(&self) -> usize {
        self.schema().to_string().len()
    }

    pub(super) fn body(&self) -> Bytes {
        let (group, plural, kind) = (self.group(), self.plural(), self.kind());
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": [{
                    "name": "v1",
                    "served": true,
                    "storage": true,
                    "schema": {"openAPIV3Schema": self.schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                }],
            },
        })
        .to_string()
        .into()
    }

    pub(super) fn object(&self, name: &str) -> Bytes {
        json!({
            "apiVersion": format!("{}/v1", self.group()),
            "kind": self.kind(),
            "metadata": {"name": name, "labels": {"app": "bench"}},
            "spec": {
                self.section(0): {"enabled": true, "replicas": 3, "mode": "Automatic"},
                self.section(1): {"endpoints": [{"host": "a.example.com", "port": 443}]},
            },
        })
        .to_string()
        .into()
    }

    fn schema(&self) -> Value {
        let described = |what: &str, mut schema: Value| {
            schema["description"] = format!(
                "{what} of a {}. Changes are carried out one after the other, and take effect once the gadget is ready again.",
                self.kind()
            )
            .into();
            schema
        };
        let section = |index: usize| {
            let endpoint = json!({"type": "object", "required": ["host"], "properties": {
                "host": described("Name or address of an endpoint", json!({"type": "string", "minLength": 1, "maxLength": 253})),
                "port": described("Port of an endpoint", json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535})),
            }});
            let properties = json!({
                "enabled": described("Whether this part is in use", json!({"type": "boolean", "default": true})),
                "replicas": described("How many there are", json!({"type": "integer", "minimum": 0})),
                "mode": described("The way", json!({"type": "string", "enum": ["Automatic", "Manual", "Off"]})),
                "endpoints": described("Where to find the parts", json!({"type": "array", "items": endpoint})),
                "labels": described("What to select by", json!({"type": "object", "additionalProperties": {"type": "string"}})),
            });
            let section = json!({"type": "object", "properties": properties});
            (self.section(index), described("One part of the specification", section))
        };
        let spec: serde_json::Map<String, Value> = (0..Self::SECTIONS).map(section).collect();
        let text = json!({"type": "string"});
        let condition = json!({"type": "object", "required": ["type", "status"], "properties": {
            "type": text, "status": text, "reason": text, "message": text,
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        }});
        json!({"type": "object", "description": format!("{} is one thing that an operator runs.", self.kind()), "properties": {
            "apiVersion": text, "kind": text, "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": spec},
            "status": {"type": "object", "properties": {
                "observedGeneration": {"type": "integer", "format": "int64"},
                "conditions": {"type": "array", "items": condition,
                    "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            }},
        }})
    }

    /// The name of a field.
    fn section(&self, index: usize) -> String {
        format!("part{}Of{}", index, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_has_a_schema_of_the_size_that_operators_have() {
        let length = Definition::new(17).schema_bytes();
        assert!((9_500..11_000).contains(&length), "{length}");
    }
}
