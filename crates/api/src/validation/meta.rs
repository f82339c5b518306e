//! The rules of `metadata`, the same for every kind but for its scope and the form of its names.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::object::METADATA_FIELDS;
use apimachinery::{Map, Value};

use super::fields::{Fields, NOT_NEGATIVE, Verbatim, immutable, invalid_each, item_text};
use super::{selector, text};
use crate::strategy::NameRule;

/// Keys and values of all annotations together may not be longer, in bytes.
pub const ANNOTATIONS_MAX: usize = 256 << 10;
/// A field manager's name may not be longer, in bytes.
const FIELD_MANAGER_MAX: usize = 128;
/// The `subresource` of a managed fields entry may not be longer, in bytes.
const SUBRESOURCE_MAX: usize = 256;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What metadata validation has to know about a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectMetaRules {
    pub namespaced: bool,
    pub name: NameRule,
    /// Finalizers must be standard or carry a domain; custom resources may do as they like.
    pub qualified_finalizers: bool,
}

/// All complaints about the metadata of a new object, after its name was generated.
pub fn object_meta(rules: ObjectMetaRules, metadata: &Value, path: &Path<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    let generate_name = metadata.text("generateName");
    if !generate_name.is_empty() {
        let messages = text::object_name(rules.name, generate_name, true);
        invalid_each(&mut errors, &path.child("generateName"), generate_name, messages);
    }
    let name = metadata.text("name");
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        invalid_each(&mut errors, &path.child("name"), name, text::object_name(rules.name, name, false));
    }
    namespace(&mut errors, rules, metadata, path);
    let generation = metadata.int("generation");
    if generation < 0 {
        errors.push(Error::invalid(&path.child("generation"), generation, NOT_NEGATIVE));
    }
    common(&mut errors, metadata, path);
    finalizers(&mut errors, rules, metadata, path);
    managed_fields(&mut errors, metadata, path);
    errors
}

/// All complaints about a change of an object's metadata.
pub fn object_meta_update(rules: ObjectMetaRules, new: &Value, old: &Value, path: &Path<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.has("deletionTimestamp") {
        no_new_finalizers(&mut errors, new, old, path);
    }
    if new.text("resourceVersion").is_empty() {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    let generation = new.int("generation");
    if generation < old.int("generation") {
        errors.push(Error::invalid(&path.child("generation"), generation, "must not be decremented"));
    }
    for key in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        immutable(&mut errors, new, old, key, &path.child(key));
    }
    common(&mut errors, new, path);
    finalizers(&mut errors, rules, new, path);
    managed_fields(&mut errors, new, path);
    errors
}

/// Puts back what an update can never change: identity, timestamps and, unless `new` names one, the UID. Upstream
/// does this before it validates, so that clients may leave these fields out.
pub fn keep_system_fields(new: &mut Value, old: &Value) {
    let new = new.ensure_object();
    if new.text("uid").is_empty()
        && let Some(uid) = old.maybe("uid")
    {
        new.insert("uid", uid.clone());
    }
    for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        match old.maybe(key) {
            Some(value) => {
                new.insert(key, value.clone());
            }
            // A deletion is started by DELETE only.
            None if key != "creationTimestamp" => {
                new.remove(key);
            }
            None => {}
        }
    }
}

fn namespace(errors: &mut ErrorList, rules: ObjectMetaRules, metadata: &Value, path: &Path<'_>) {
    let namespace = metadata.text("namespace");
    match (rules.namespaced, namespace.is_empty()) {
        (true, true) => errors.push(Error::required(&path.child("namespace"), "")),
        (true, false) => {
            invalid_each(errors, &path.child("namespace"), namespace, text::dns1123_label(namespace));
        }
        (false, false) => errors.push(Error::forbidden(&path.child("namespace"), "not allowed on this type")),
        (false, true) => {}
    }
}

fn common(errors: &mut ErrorList, metadata: &Value, path: &Path<'_>) {
    selector::labels(errors, metadata.map("labels"), &path.child("labels"));
    annotations(errors, metadata.map("annotations"), &path.child("annotations"));
    owner_references(errors, metadata.list("ownerReferences"), &path.child("ownerReferences"));
}

/// Keys must be qualified names (in any case), and all together may not be too large.
pub fn annotations(errors: &mut ErrorList, annotations: Option<&Map>, path: &Path<'_>) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        let messages = if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            text::qualified_name(&key.to_lowercase())
        } else {
            text::qualified_name(key)
        };
        invalid_each(errors, path, key.as_str(), messages);
        size += key.len() + item_text(value).len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(Error::too_long(path, ANNOTATIONS_MAX));
    }
}

fn owner_references(errors: &mut ErrorList, references: &[Value], path: &Path<'_>) {
    let mut controller: Option<&Value> = None;
    for reference in references {
        let api_version = reference.text("apiVersion");
        let version = api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() || api_version.matches('/').count() > 1 {
            errors.push(Error::invalid(&path.child("apiVersion"), api_version, "version must not be empty"));
        }
        for key in ["kind", "name", "uid"] {
            if reference.text(key).is_empty() {
                errors.push(Error::invalid(&path.child(key), "", "must not be empty"));
            }
        }
        if api_version == "v1" && reference.text("kind") == "Event" {
            errors.push(Error::invalid(path, reference, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if !reference.truth("controller") {
            continue;
        }
        match controller {
            None => controller = Some(reference),
            Some(first) => errors.push(Error::invalid(
                path,
                Value::from(references.to_vec()),
                format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                    first.text("kind"),
                    first.text("name"),
                    reference.text("kind"),
                    reference.text("name"),
                ),
            )),
        }
    }
}

fn finalizers(errors: &mut ErrorList, rules: ObjectMetaRules, metadata: &Value, path: &Path<'_>) {
    let path = path.child("finalizers");
    let finalizers = metadata.list("finalizers");
    let (mut orphan, mut foreground) = (false, false);
    for finalizer in finalizers {
        let finalizer = item_text(finalizer);
        invalid_each(errors, &path, finalizer, text::qualified_name(finalizer));
        orphan |= finalizer == ORPHAN;
        foreground |= finalizer == FOREGROUND;
    }
    if orphan && foreground {
        let shown = Value::from(finalizers.to_vec());
        errors.push(Error::invalid(
            &path,
            shown,
            format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        ));
    }
    if rules.qualified_finalizers {
        for (index, finalizer) in finalizers.iter().enumerate() {
            standard_or_qualified_finalizer(errors, item_text(finalizer), &path.index(index));
        }
    }
}

/// A finalizer without a domain must be one of Kubernetes' own.
pub fn standard_or_qualified_finalizer(errors: &mut ErrorList, finalizer: &str, path: &Path<'_>) {
    if !finalizer.contains('/') && ![ORPHAN, FOREGROUND, "kubernetes"].contains(&finalizer) {
        errors.push(Error::invalid(
            path,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
}

fn no_new_finalizers(errors: &mut ErrorList, new: &Value, old: &Value, path: &Path<'_>) {
    let held = old.list("finalizers");
    let mut added: Vec<&str> =
        new.list("finalizers").iter().filter(|finalizer| !held.contains(finalizer)).map(item_text).collect();
    if added.is_empty() {
        return;
    }
    added.sort_unstable();
    added.dedup();
    let list: Vec<String> = added.into_iter().map(apimachinery::field::go_quote).collect();
    errors.push(Error::forbidden(
        &path.child("finalizers"),
        format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            list.join(", ")
        ),
    ));
}

fn managed_fields(errors: &mut ErrorList, metadata: &Value, path: &Path<'_>) {
    let path = path.child("managedFields");
    for (index, entry) in metadata.list("managedFields").iter().enumerate() {
        let path = path.index(index);
        let operation = entry.text("operation");
        if !matches!(operation, "Apply" | "Update") {
            errors.push(Error::invalid(&path.child("operation"), operation, "must be `Apply` or `Update`"));
        }
        let fields_type = entry.text("fieldsType");
        if !matches!(fields_type, "" | "FieldsV1") {
            errors.push(Error::invalid(&path.child("fieldsType"), fields_type, "must be `FieldsV1`"));
        }
        field_manager(errors, entry.text("manager"), &path.child("manager"));
        if entry.text("subresource").len() > SUBRESOURCE_MAX {
            errors.push(Error::too_long(&path.child("subresource"), SUBRESOURCE_MAX));
        }
    }
}

/// The name of a field manager, also as a query parameter: short and printable.
pub fn field_manager(errors: &mut ErrorList, manager: &str, path: &Path<'_>) {
    if manager.len() > FIELD_MANAGER_MAX {
        errors.push(Error::too_long(path, FIELD_MANAGER_MAX));
    }
    for (position, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        errors.push(Error::invalid(
            path,
            manager,
            format!("invalid character U+{:04X} (at position {position})", c as u32),
        ));
    }
}

/// The metadata of a template inside another object, of which only labels and annotations may be set.
pub fn template_object_meta(errors: &mut ErrorList, metadata: &Value, path: &Path<'_>) {
    annotations(errors, metadata.map("annotations"), &path.child("annotations"));
    selector::labels(errors, metadata.map("labels"), &path.child("labels"));
    for key in METADATA_FIELDS.into_iter().filter(|key| !matches!(*key, "labels" | "annotations")) {
        if !super::fields::is_empty(metadata.get(key)) {
            errors.push(Error::forbidden(&path.child(key), "cannot be set"));
        }
    }
}

/// A label map shown in a message.
pub fn shown_labels(labels: Option<&Map>) -> Verbatim {
    Verbatim(labels.map_or_else(|| "null".to_owned(), |labels| Value::from(labels.clone()).to_json_string()))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    const RULES: ObjectMetaRules =
        ObjectMetaRules { namespaced: true, name: NameRule::DnsSubdomain, qualified_finalizers: true };

    fn complaints(errors: ErrorList) -> Vec<String> {
        errors.into_iter().map(|error| error.to_string()).collect()
    }

    fn on_create(metadata: Value) -> Vec<String> {
        complaints(object_meta(RULES, &metadata, &Path::root("metadata")))
    }

    #[test]
    fn good_metadata_passes() {
        let metadata = json!({
            "name": "a.b", "namespace": "n", "labels": {"app": "x", "a.b/c": ""},
            "annotations": {"Example.com/A": "any text"}, "finalizers": ["foregroundDeletion", "a.b/c"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "K", "name": "n", "uid": "u", "controller": true}],
        });
        assert_eq!(on_create(metadata), Vec::<String>::new());
    }

    #[test]
    fn bad_metadata_is_reported_field_by_field() {
        let cases = [
            (
                json!({"namespace": "n"}),
                vec!["metadata.name: Required value: name or generateName is required"],
            ),
            (json!({"name": "a"}), vec!["metadata.namespace: Required value"]),
            (
                json!({"name": "a", "namespace": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod"}]}),
                vec![
                    "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
                    "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
                ],
            ),
            (
                json!({"name": "a", "namespace": "n", "finalizers": ["mine"]}),
                vec![
                    "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
                ],
            ),
            (
                json!({"name": "a", "namespace": "n", "annotations": {"a": "x".repeat(ANNOTATIONS_MAX)}}),
                vec!["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
        ];
        for (metadata, expected) in cases {
            assert_eq!(on_create(metadata), expected);
        }
    }

    #[test]
    fn identity_never_changes() {
        let old = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1", "creationTimestamp": "t"});
        let update = |new: Value| complaints(object_meta_update(RULES, &new, &old, &Path::root("metadata")));
        assert_eq!(update(old.clone()), Vec::<String>::new());
        let mut new = old.clone();
        new.set_at(&["uid"], "other");
        assert_eq!(update(new), ["metadata.uid: Invalid value: \"other\": field is immutable"]);
    }

    #[test]
    fn a_dying_object_takes_no_new_finalizers() {
        let old = json!({"name": "a", "namespace": "n", "resourceVersion": "1", "deletionTimestamp": "t", "finalizers": ["a.b/c"]});
        let mut new = old.clone();
        new.set_at(&["finalizers"], json!(["a.b/c", "a.b/d"]));
        assert_eq!(
            complaints(object_meta_update(RULES, &new, &old, &Path::root("metadata"))),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.b/d\"}"
            ]
        );
    }

    #[test]
    fn system_fields_are_carried_over() {
        let old = json!({"uid": "u", "creationTimestamp": "t", "deletionTimestamp": "d"});
        let mut new = json!({"name": "a", "creationTimestamp": "z"});
        keep_system_fields(&mut new, &old);
        assert_eq!(new, json!({"name": "a", "uid": "u", "creationTimestamp": "t", "deletionTimestamp": "d"}));
    }
}
