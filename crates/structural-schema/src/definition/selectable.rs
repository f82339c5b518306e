//! `selectableFields`: paths to fields by which lists can be narrowed.

use std::collections::HashSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::FieldPath;
use crate::Structural;
use crate::structural::Kind;

/// Of one version.
const FIELDS_MAX: usize = 8;

/// All complaints about the selectable fields of a version with this schema. `tolerate_many` when there were as many
/// before, and they are the same.
pub fn selectable_fields(
    errors: &mut ErrorList,
    fields: &[Value],
    schema: &Value,
    tolerate_many: bool,
    path: &Path<'_>,
) {
    if fields.is_empty() {
        return;
    }
    let schema = Structural::parse(schema);
    let mut seen = HashSet::new();
    for (index, field) in fields.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("jsonPath");
        let text = field.str_at(&["jsonPath"]);
        if text.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        let found = match FieldPath::parse(text, &schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(Error::invalid(&path, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if found.root() == "metadata" {
            errors.push(Error::invalid(&path, text, "must not point to fields in metadata"));
        }
        let kind = found.target.as_ref().and_then(|target| target.kind);
        if !matches!(kind, Some(Kind::String | Kind::Boolean | Kind::Integer)) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(Error::invalid(&path, text, detail));
        }
        if !seen.insert(found.to_string()) {
            errors.push(Error::duplicate(&path, text));
        }
    }
    if seen.len() > FIELDS_MAX && !tolerate_many {
        errors.push(Error::too_many(path, seen.len(), FIELDS_MAX));
    }
}
