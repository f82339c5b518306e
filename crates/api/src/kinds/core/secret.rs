//! `v1.Secret`: its type decides which keys it must have.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

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
            data.insert(key.clone(), base64(item_text(value).as_bytes()));
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
        "kubernetes.io/service-account-token" => {
            if object["metadata"]["annotations"].text(ACCOUNT_ANNOTATION).is_empty() {
                errors.push(Error::required(
                    &Path::root("metadata").child("annotations").key(ACCOUNT_ANNOTATION),
                    "",
                ));
            }
        }
        "kubernetes.io/dockercfg" => json_object(errors, object, ".dockercfg", path),
        "kubernetes.io/dockerconfigjson" => json_object(errors, object, ".dockerconfigjson", path),
        "kubernetes.io/basic-auth" => {
            if held("username").is_none() && held("password").is_none() {
                require("username");
                require("password");
            }
        }
        "kubernetes.io/ssh-auth" => {
            if object["data"].text("ssh-privatekey").is_empty() {
                errors.push(Error::required(&path.key("ssh-privatekey"), ""));
            }
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
    let complaint = match unbase64(text).map(|bytes| Value::parse(&bytes)) {
        Some(Ok(Value::Object(_) | Value::Null)) => return,
        Some(Ok(_)) => "must be a JSON object".to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "must be base64".to_owned(),
    };
    errors.push(Error::invalid(&path, "<secret contents redacted>", complaint));
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            if index <= chunk.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for byte in chunk {
            bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|own| own == byte)?).ok()?;
        }
        bits <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
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
    fn base64_goes_both_ways() {
        for text in ["", "a", "ab", "abc", "abcd", "\u{ff}{}"] {
            assert_eq!(unbase64(&base64(text.as_bytes())).as_deref(), Some(text.as_bytes()), "{text}");
        }
        assert_eq!(unbase64("*"), None);
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
