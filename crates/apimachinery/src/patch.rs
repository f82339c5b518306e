//! The three kinds of patch documents, applied to a tree.
//!
//! Owns: [`json`] (RFC 6902), [`merge`] (RFC 7386), [`strategic`] (Kubernetes' own, directed by the schema), their
//! errors and the answers these become. Never touches: managed fields, defaults, validation; what comes out of a
//! patch is an object as a client might have sent it and goes through decoding like one.
//! The fourth kind, server-side apply, merges by ownership: see [`crate::managed_fields`].

use std::fmt::Write;

use crate::field::go_quote;
use crate::status::Details;
use crate::{Status, Value};

pub mod json;
pub mod merge;
pub mod strategic;

/// A patch that cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// The document is not a patch of its kind.
    #[error("{0}")]
    Malformed(String),
    #[error("The allowed maximum operations in a JSON patch is {most}, got {count}")]
    TooManyOperations { count: usize, most: usize },
    /// The patch does not fit the object; a client learns no more than that, as from upstream.
    #[error("{0}")]
    Inapplicable(String),
    /// Upstream answers with status 500 and this text.
    #[error("{0}")]
    Unworkable(String),
}

impl PatchError {
    /// The answer upstream gives.
    pub fn into_status(self) -> Status {
        match self {
            Self::Malformed(text) => Status::bad_request(text),
            Self::TooManyOperations { .. } => {
                Status::too_large(self.to_string()).with_details(Details::default())
            }
            Self::Inapplicable(_) => {
                Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
                    .with_details(Details::default())
            }
            Self::Unworkable(text) => Status::new(500, "", text),
        }
    }

    fn malformed(text: impl Into<String>) -> Self {
        Self::Malformed(text.into())
    }

    fn unworkable(text: impl Into<String>) -> Self {
        Self::Unworkable(text.into())
    }

    /// The document has another JSON type than patches of its kind.
    fn not_a(wanted: &str, found: &Value) -> Self {
        Self::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type {wanted}",
            found.json_type()
        ))
    }
}

/// Go's `%v` of a decoded JSON value: `map[a:1 b:[x y]]`.
pub(crate) fn go_print(value: &Value) -> String {
    let mut out = String::new();
    go_print_into(value, &mut out);
    out
}

fn go_print_into(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_json_string()),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                go_print_into(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (index, (key, item)) in map.iter().enumerate() {
                let space = if index > 0 { " " } else { "" };
                // Writing to a string cannot fail.
                let _ = write!(out, "{space}{key}:");
                go_print_into(item, out);
            }
            out.push(']');
        }
    }
}

/// The text of a quoted value in an `Invalid value` message about a patch.
pub fn invalid_result(patched: &str, why: &str) -> String {
    format!(" \"\" is invalid: patch: Invalid value: {}: {why}", go_quote(patched))
}

/// The answer for a patch whose result cannot be decoded: `patched` is the result (or, for a strategic merge patch,
/// the patch) as text, `why` the decoder's message.
pub fn undecodable(patched: &str, why: &str) -> Status {
    let detail = format!("Invalid value: {}: {why}", go_quote(patched));
    let cause =
        crate::status::Cause { reason: "FieldValueInvalid".into(), message: detail, field: "patch".into() };
    Status::new(422, "Invalid", invalid_result(patched, why))
        .with_details(Details { causes: vec![cause], ..Details::default() })
}
