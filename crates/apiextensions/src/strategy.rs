//! [`CustomResourceStrategy`]: the rules of a custom resource's objects.

use std::sync::Arc;

use api::Strategy;
use api::resource::ScalePaths;
use api::strategy::{Context, same_but};
use api::validation::text;
use apimachinery::decode::{DecodeError, FieldValidation};
use apimachinery::field::{Error, ErrorList, Path, go_quote};
use apimachinery::schema::SchemaRef;
use apimachinery::{Number, Value};
use structural_schema::CustomSchema;

/// Finalizers that are everybody's and need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

pub struct CustomResourceStrategy {
    pub schema: Arc<CustomSchema>,
    /// The version has the `status` subresource.
    pub has_status: bool,
    pub scale: Option<ScalePaths>,
}

impl Strategy for CustomResourceStrategy {
    fn decode(
        &self,
        value: &mut Value,
        _schema: SchemaRef<'_>,
        validation: FieldValidation,
        duplicates: &[String],
    ) -> Result<Vec<String>, DecodeError> {
        self.schema.decode(value, validation, duplicates)
    }

    fn published_schema(&self) -> Option<Value> {
        Some(self.schema.declared())
    }

    fn default(&self, object: &mut Value) {
        self.schema.default(object);
    }

    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        if self.has_status {
            object.remove_at(&["status"]);
        }
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if ctx.subresource == Some("status") {
            only_status(new, old);
        } else if self.has_status {
            restore(new, old, "status");
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        self.schema.validate(object, None, |errors| {
            self.scale_spec(errors, object);
            self.scale_status(errors, object);
        })
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        self.schema.validate(new, Some(old), |errors| {
            if ctx.subresource != Some("status") {
                self.scale_spec(errors, new);
            }
            self.scale_status(errors, new);
        })
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        if ctx.subresource == Some("status") {
            return Vec::new();
        }
        let before = old.map(|old| old.array_at(&["metadata", "finalizers"])).unwrap_or_default();
        let added = new.array_at(&["metadata", "finalizers"]).iter().filter(|own| !before.contains(own));
        let mut added: Vec<&str> = added.filter_map(Value::as_str).collect();
        added.sort_unstable();
        added.dedup();
        added.into_iter().flat_map(finalizer_warnings).collect()
    }

    fn has_status(&self) -> bool {
        self.has_status
    }

    fn is_same_generation(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> bool {
        ctx.subresource == Some("status") || same_but(new, old, &["metadata"])
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

impl CustomResourceStrategy {
    fn scale_spec(&self, errors: &mut ErrorList, object: &Value) {
        let Some(scale) = &self.scale else { return };
        replicas(errors, object, &scale.spec_replicas);
    }

    fn scale_status(&self, errors: &mut ErrorList, object: &Value) {
        let Some(scale) = &self.scale else { return };
        replicas(errors, object, &scale.status_replicas);
        let path = scale.label_selector.as_str();
        match scale_field(object, path) {
            Ok(None | Some(Value::String(_))) => {}
            Ok(Some(other)) => {
                let detail = accessor_error(path, other, "string");
                errors.push(Error::invalid(&Path::root(path), "", detail));
            }
            Err(detail) => errors.push(Error::invalid(&Path::root(path), "", detail)),
        }
    }
}

/// An update of the status changes nothing else, but for who is said to manage it.
fn only_status(new: &mut Value, old: &Value) {
    let status = new.remove_at(&["status"]);
    let managed = new.remove_at(&["metadata", "managedFields"]);
    let revision = new.remove_at(&["metadata", "resourceVersion"]);
    *new = old.clone();
    for (key, value) in [("managedFields", managed), ("resourceVersion", revision)] {
        match value {
            Some(value) => new.set_at(&["metadata", key], value),
            None => drop(new.remove_at(&["metadata", key])),
        }
    }
    match status {
        Some(status) => new.set_at(&["status"], status),
        None => drop(new.remove_at(&["status"])),
    }
}

fn restore(new: &mut Value, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => new.set_at(&[key], value.clone()),
        None => drop(new.remove_at(&[key])),
    }
}

fn replicas(errors: &mut ErrorList, object: &Value, path: &str) {
    let field = Path::root(path);
    match scale_field(object, path) {
        Err(detail) => errors.push(Error::invalid(&field, 0, detail)),
        Ok(None) => {}
        Ok(Some(Value::Number(Number::Int(replicas)))) => {
            if *replicas < 0 {
                errors.push(Error::invalid(&field, *replicas, "should be a non-negative integer"));
            } else if *replicas > i64::from(i32::MAX) {
                let detail = format!("should be less than or equal to {}", i32::MAX);
                errors.push(Error::invalid(&field, *replicas, detail));
            }
        }
        Ok(Some(other)) => errors.push(Error::invalid(&field, 0, accessor_error(path, other, "int64"))),
    }
}

/// The value at the path of a scale; an error when something on the way is no object. An empty path names nothing.
pub fn scale_field<'v>(object: &'v Value, path: &str) -> Result<Option<&'v Value>, String> {
    let path = path.strip_prefix('.').unwrap_or(path);
    if path.is_empty() {
        return Ok(None);
    }
    let mut found = object;
    for (at, name) in path.split('.').enumerate() {
        if !found.is_object() {
            let above: Vec<&str> = path.split('.').take(at).collect();
            return Err(accessor_error(&above.join("."), found, "map[string]interface {}"));
        }
        match found.get(name) {
            Some(value) => found = value,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// What Go says of a value of the wrong type.
pub fn accessor_error(path: &str, value: &Value, expected: &str) -> String {
    let path = path.strip_prefix('.').unwrap_or(path);
    let (shown, found) = match value {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(flag) => (flag.to_string(), "bool"),
        Value::Number(Number::Float(_)) => (value.to_json_string(), "float64"),
        Value::Number(_) => (value.to_json_string(), "int64"),
        Value::String(text) => (text.to_string(), "string"),
        Value::Array(_) => (value.to_json_string(), "[]interface {}"),
        Value::Object(_) => (value.to_json_string(), "map[string]interface {}"),
    };
    format!(".{path} accessor error: {shown} is of the type {found}, expected {expected}")
}

fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    let said = |why: &str| format!("metadata.finalizers: {}: {why}", go_quote(finalizer));
    let mut warnings: Vec<String> = text::qualified_name(finalizer).iter().map(|why| said(why)).collect();
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        let path = if finalizer.contains('.') { "including a path (/) " } else { "" };
        warnings.push(said(&format!(
            "prefer a domain-qualified finalizer name {path}to avoid accidental conflicts with other finalizer writers"
        )));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_status_update_changes_the_status_and_its_managers() {
        let old = json!({"metadata": {"name": "a", "labels": {"l": "1"}, "managedFields": [1]}, "spec": 1});
        let mut new = json!({"metadata": {"name": "a", "managedFields": [2]}, "spec": 2, "status": 3});
        only_status(&mut new, &old);
        let expected = json!({"metadata": {"name": "a", "labels": {"l": "1"}, "managedFields": [2]}, "spec": 1, "status": 3});
        assert_eq!(new, expected);
    }

    #[test]
    fn replicas_are_whole_small_and_not_negative() {
        let cases = [
            (json!({"spec": {"replicas": 1}}), ""),
            (json!({"spec": {}}), ""),
            (
                json!({"spec": {"replicas": -1}}),
                ".spec.replicas: Invalid value: -1: should be a non-negative integer",
            ),
            (
                json!({"spec": {"replicas": 2_147_483_648_i64}}),
                ".spec.replicas: Invalid value: 2147483648: should be less than or equal to 2147483647",
            ),
            (
                json!({"spec": {"replicas": "2"}}),
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: 2 is of the type string, expected int64",
            ),
            (
                json!({"spec": 1}),
                ".spec.replicas: Invalid value: 0: .spec accessor error: 1 is of the type int64, expected map[string]interface {}",
            ),
        ];
        for (object, expected) in cases {
            let mut errors = ErrorList::new();
            replicas(&mut errors, &object, ".spec.replicas");
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts.join(", "), expected, "{object:?}");
        }
    }

    #[test]
    fn new_finalizers_without_a_domain_are_warned_about() {
        let cases = [
            ("example.com/clean", ""),
            ("orphan", ""),
            (
                "clean",
                "metadata.finalizers: \"clean\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers",
            ),
            (
                "clean.example.com",
                "metadata.finalizers: \"clean.example.com\": prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers",
            ),
        ];
        for (finalizer, expected) in cases {
            assert_eq!(finalizer_warnings(finalizer).join("\n"), expected);
        }
    }
}
