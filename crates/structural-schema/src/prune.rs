//! Pruning: fields that the schema does not specify go.

use apimachinery::Value;

use crate::Structural;
use crate::metadata::is_meta;
use crate::structural::Additional;

/// Paths of unknown fields are listed up to here, as for built-in kinds.
const PATHS_MAX: usize = 100;

/// Removes what `schema` does not specify from an object of its own kind. `apiVersion`, `kind` and `metadata` are
/// specified for every object. The paths of what went are appended to `unknown`, sorted, where somebody wants them.
pub fn prune(object: &mut Value, schema: &Structural, unknown: Option<&mut Vec<String>>) {
    let mut pruner = Pruner { path: String::new(), unknown: unknown.is_some().then(Vec::new) };
    pruner.level(object, Some(schema), Keep { meta: true, unknown: false });
    if let (Some(mut found), Some(unknown)) = (pruner.unknown, unknown) {
        found.sort();
        unknown.append(&mut found);
    }
}

/// Removes what `schema` does not specify from a value that need not be an object of a kind.
pub fn prune_value(value: &mut Value, schema: &Structural) {
    Pruner { path: String::new(), unknown: None }.level(value, Some(schema), Keep::default());
}

struct Pruner {
    /// Where the pruner is; kept only when paths are wanted.
    path: String,
    unknown: Option<Vec<String>>,
}

/// What stays at one level, whatever its own schema says.
#[derive(Clone, Copy, Default)]
struct Keep {
    /// `apiVersion`, `kind` and `metadata`.
    meta: bool,
    /// Everything: items of a list whose unknown fields are preserved.
    unknown: bool,
}

impl Pruner {
    /// Without a schema everything goes.
    fn level(&mut self, value: &mut Value, schema: Option<&Structural>, keep: Keep) {
        let preserved = keep.unknown || schema.is_some_and(|schema| schema.preserve_unknown);
        let embedded = keep.meta || schema.is_some_and(|schema| schema.embedded);
        match value {
            Value::Object(map) => map.retain(|name, value| {
                if embedded && is_meta(name) {
                    return true;
                }
                let next = match schema {
                    Some(schema) => match (schema.property(name), &schema.additional) {
                        (Some(property), _) => Some(Some(&**property)),
                        (None, Additional::Schema(schema)) => Some(Some(&**schema)),
                        (None, Additional::Any) => Some(None),
                        (None, Additional::None) => None,
                    },
                    None => None,
                };
                let length = self.path.len();
                match next {
                    Some(next) => {
                        self.enter(name);
                        self.level(value, next, Keep::default());
                        self.path.truncate(length);
                        true
                    }
                    None if preserved => true,
                    None => {
                        self.note(name);
                        false
                    }
                }
            }),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let length = self.path.len();
                    if self.unknown.is_some() {
                        self.path.push_str(&format!("[{index}]"));
                    }
                    match schema.and_then(|schema| schema.items.as_deref()) {
                        None if preserved => {}
                        next => self.level(item, next, Keep { meta: false, unknown: preserved }),
                    }
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn enter(&mut self, name: &str) {
        if self.unknown.is_none() {
            return;
        }
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }

    fn note(&mut self, name: &str) {
        let length = self.path.len();
        self.enter(name);
        if let Some(unknown) = &mut self.unknown
            && unknown.len() < PATHS_MAX
        {
            unknown.push(self.path.clone());
        }
        self.path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[track_caller]
    fn check(schema: Value, mut object: Value, expected: Value, paths: &[&str]) {
        let mut unknown = Vec::new();
        prune(&mut object, &Structural::parse(&schema), Some(&mut unknown));
        assert_eq!(object, expected);
        assert_eq!(unknown, paths);
    }

    #[test]
    fn fields_that_are_not_specified_go() {
        check(
            json!({"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"a": {"type": "string"}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "string"}}}},
                "any": {"type": "object", "additionalProperties": true},
            }}),
            json!({
                "apiVersion": "a/v1", "kind": "K", "metadata": {"odd": 1}, "x": 1,
                "spec": {"a": "1", "b": 2, "apiVersion": "gone"},
                "list": [{"n": "1"}, {"n": "2", "m": {}}],
                "map": {"k": {"v": "1", "w": 2}},
                "any": {"k": 1, "deep": {"gone": 1}},
            }),
            json!({
                "apiVersion": "a/v1", "kind": "K", "metadata": {"odd": 1},
                "spec": {"a": "1"},
                "list": [{"n": "1"}, {"n": "2"}],
                "map": {"k": {"v": "1"}},
                "any": {"k": 1, "deep": {}},
            }),
            &["any.deep.gone", "list[1].m", "map.k.w", "spec.apiVersion", "spec.b", "x"],
        );
    }

    #[test]
    fn preserved_fields_stay_and_what_is_specified_below_them_is_pruned() {
        check(
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "spec": {"type": "object", "properties": {"a": {"type": "string"}}},
                "free": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {
                    "type": "object", "properties": {"p": {"type": "object"}},
                }},
            }}),
            json!({"other": {"deep": [1]}, "spec": {"a": "", "b": 1}, "free": [{"c": 1, "p": {"x": 1}}]}),
            json!({"other": {"deep": [1]}, "spec": {"a": ""}, "free": [{"c": 1, "p": {}}]}),
            &["free[0].p.x", "spec.b"],
        );
    }

    #[test]
    fn embedded_objects_keep_their_type_and_metadata() {
        check(
            json!({"type": "object", "properties": {
                "t": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            }}),
            json!({"t": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}, "status": {}}}),
            json!({"t": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}}),
            &["t.status"],
        );
    }
}
