//! `v1.Secret`: its type decides which keys it must have.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::config_map::{SIZE_MAX, decoded_len, immutable_data};
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, immutable, invalid_each, item_text};
use crate::validation::text;

const ACCOUNT_ANNOTATION: &str = "kubernetes.io/service-account.name";

pub struct Secret;

impl Strategy for Secret {
    /// `stringData` is a way to write `data` and is never read back.
    fn default(&self, object: &mut Value) {
        let Some(strings) = object.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
        let Some(strings) = strings.as_object().filter(|strings| !strings.is_empty()) else { return };
        let data = object.ensure_object_at(&["data"]);
        for (key, value) in strings {
            data.insert(key.clone(), STANDARD.encode(item_text(value)));
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::root("data");
        let mut size = 0;
        for (key, value) in object.entries("data") {
            invalid_each(&mut errors, &path.key(key), key, text::config_map_key(key));
            size += decoded_len(item_text(value));
        }
        if size > SIZE_MAX {
            errors.push(Error::too_long(&path, SIZE_MAX));
        }
        keys_of_type(&mut errors, object, &path);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(&mut errors, new, old, "type", &Path::root("type"));
        immutable_data(&mut errors, new, old, &["data"]);
        errors.extend(self.validate(ctx, new));
        errors
    }
}

fn keys_of_type(errors: &mut ErrorList, object: &Value, path: &Path<'_>) {
    let held = |key: &str| object["data"].maybe(key);
    let mut require = |key: &str| {
        if held(key).is_none() {
            errors.push(Error::required(&path.key(key), ""));
        }
    };
    match object.text("type") {
        "kubernetes.io/service-account-token"
            if object["metadata"]["annotations"].text(ACCOUNT_ANNOTATION).is_empty() =>
        {
            errors.push(Error::required(
                &Path::root("metadata").child("annotations").key(ACCOUNT_ANNOTATION),
                "",
            ));
        }
        "kubernetes.io/dockercfg" => json_object(errors, object, ".dockercfg", path),
        "kubernetes.io/dockerconfigjson" => json_object(errors, object, ".dockerconfigjson", path),
        "kubernetes.io/basic-auth" if held("username").is_none() && held("password").is_none() => {
            require("username");
            require("password");
        }
        "kubernetes.io/ssh-auth" if object["data"].text("ssh-privatekey").is_empty() => {
            errors.push(Error::required(&path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        _ => {}
    }
}

/// The key must be there and hold a JSON object. The message never shows the content.
fn json_object(errors: &mut ErrorList, object: &Value, key: &str, path: &Path<'_>) {
    let path = path.key(key);
    let Some(text) = object["data"].maybe_text(key) else {
        errors.push(Error::required(&path, ""));
        return;
    };
    let complaint = match STANDARD.decode(text).map(|bytes| Value::parse(&bytes)) {
        Ok(Ok(Value::Object(_) | Value::Null)) => return,
        Ok(Ok(_)) => "must be a JSON object".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    errors.push(Error::invalid(&path, "<secret contents redacted>", complaint));
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn strings_become_data_and_win_over_it() {
        let mut secret = json!({"stringData": {"a": "v", "b": ""}, "data": {"a": "b2xk", "c": "eA=="}});
        Secret.default(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "dg==", "b": "", "c": "eA=="}}));
    }

    #[test]
    fn types_ask_for_their_keys() {
        let complaints = |secret: Value| {
            let mut errors = ErrorList::new();
            keys_of_type(&mut errors, &secret, &Path::root("data"));
            errors.into_iter().map(|error| error.path).collect::<Vec<_>>()
        };
        assert_eq!(
            complaints(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
            ["data[tls.key]"]
        );
        assert_eq!(
            complaints(json!({"type": "kubernetes.io/basic-auth"})),
            ["data[username]", "data[password]"]
        );
        assert_eq!(
            complaints(
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}})
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            complaints(
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}})
            ),
            ["data[.dockerconfigjson]"]
        );
        assert_eq!(
            complaints(json!({"type": "kubernetes.io/service-account-token"})),
            ["metadata.annotations[kubernetes.io/service-account.name]"]
        );
        assert_eq!(complaints(json!({"type": "anything/else"})), Vec::<String>::new());
    }
}
