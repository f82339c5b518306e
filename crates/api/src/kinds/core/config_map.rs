//! `v1.ConfigMap`: keys that can be file names, 1 MiB together, and no change once `immutable`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, invalid_each, item_text, same};
use crate::validation::text;

/// Values of one Secret or ConfigMap together may not be longer, in bytes.
pub const SIZE_MAX: usize = 1 << 20;

pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut size = 0;
        let path = Path::root("data");
        for (key, value) in object.entries("data") {
            let path = path.key(key);
            invalid_each(&mut errors, &path, key, text::config_map_key(key));
            if object.map("binaryData").is_some_and(|data| data.contains_key(key)) {
                errors.push(Error::invalid(&path, key, "duplicate of key present in binaryData"));
            }
            size += item_text(value).len();
        }
        let path = Path::root("binaryData");
        for (key, value) in object.entries("binaryData") {
            invalid_each(&mut errors, &path.key(key), key, text::config_map_key(key));
            size += decoded_len(item_text(value));
        }
        if size > SIZE_MAX {
            errors.push(Error::too_long(&Path::root(""), SIZE_MAX));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable_data(&mut errors, new, old, &["data", "binaryData"]);
        errors.extend(self.validate(ctx, new));
        errors
    }
}

/// Complains about changes of an object that was made `immutable`.
pub fn immutable_data(errors: &mut ErrorList, new: &Value, old: &Value, fields: &[&str]) {
    const WHEN_SET: &str = "field is immutable when `immutable` is set";
    if !old.truth("immutable") {
        return;
    }
    if !new.truth("immutable") {
        errors.push(Error::forbidden(&Path::root("immutable"), WHEN_SET));
    }
    for &key in fields.iter().filter(|&&key| !same(&new[key], &old[key])) {
        errors.push(Error::forbidden(&Path::root(key), WHEN_SET));
    }
}

/// Length of what base64 text stands for.
pub fn decoded_len(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|&byte| byte == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(padding)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn base64_is_measured_by_its_content() {
        for (text, length) in [("", 0), ("YQ==", 1), ("YWI=", 2), ("YWJj", 3), ("YWJjZA==", 4)] {
            assert_eq!(decoded_len(text), length, "{text}");
        }
    }

    #[test]
    fn immutable_maps_stay_as_they_are() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let complaints = |new: Value| {
            let mut errors = ErrorList::new();
            immutable_data(&mut errors, &new, &old, &["data", "binaryData"]);
            errors.into_iter().map(|error| error.path).collect::<Vec<_>>()
        };
        assert_eq!(complaints(old.clone()), Vec::<String>::new());
        assert_eq!(complaints(json!({"data": {"a": "1"}})), ["immutable"]);
        assert_eq!(
            complaints(json!({"immutable": true, "data": {"a": "2"}, "binaryData": {"b": "YQ=="}})),
            ["data", "binaryData"]
        );
    }
}
