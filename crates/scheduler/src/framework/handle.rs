//! What plugins are made from: [`Handle`], the way to the world, and [`Arguments`], what a profile says about them.

use std::sync::Arc;

use apimachinery::field::{self, ErrorKind, ErrorList};
use client::{Api, Informers, Recorder};
use serde::de::DeserializeOwned;

use crate::groups::Groups;

/// What the plugins of a profile may use. Cloning shares it.
#[derive(Clone)]
pub struct Handle {
    pub api: Arc<dyn Api>,
    /// `informers.of(…)` has the current objects of every resource that the plugin waits for: they have been read
    /// before the first pod is scheduled. Ask for one when it is needed, not when the plugin is made.
    pub informers: Informers,
    /// Speaks in the name of the profile's scheduler.
    pub recorder: Recorder,
    /// Where pods are scheduled in groups: what is known of those.
    pub groups: Option<Groups>,
}

/// The arguments that a profile has for a plugin; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments(serde_json::Map<String, serde_json::Value>);

/// Arguments that a plugin does not take: all that is wrong, by field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ArgumentError(pub ErrorList);

// === impl ArgumentError ===

impl ArgumentError {
    pub fn of(error: field::Error) -> Self {
        Self(vec![error])
    }
}

// === impl Arguments ===

impl Arguments {
    pub fn new(fields: serde_json::Map<String, serde_json::Value>) -> Self {
        Self(fields)
    }

    /// One field as it was written; nothing where it was not.
    pub fn field(&self, name: &str) -> &serde_json::Value {
        self.0.get(name).unwrap_or(&serde_json::Value::Null)
    }

    /// With a field in place of what was said about it.
    pub fn with(mut self, field: &str, value: serde_json::Value) -> Self {
        self.0.insert(field.to_owned(), value);
        self
    }

    /// As the plugin's own type, which names defaults and refuses unknown fields.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ArgumentError> {
        let mut track = serde_path_to_error::Track::new();
        let fields = serde_json::Value::Object(self.0.clone());
        let mut unknown = ErrorList::new();
        let decoded =
            serde_ignored::deserialize(serde_path_to_error::Deserializer::new(fields, &mut track), |path| {
                unknown.push(strange(&path.to_string()))
            });
        match decoded {
            Err(error) => {
                let error = serde_path_to_error::Error::new(track.path(), error);
                Err(ArgumentError(vec![misplaced(&error)]))
            }
            Ok(_) if !unknown.is_empty() => Err(ArgumentError(unknown)),
            Ok(decoded) => Ok(decoded),
        }
    }

    /// [`Arguments::decode`], checked by `validate`, which adds what is wrong.
    pub fn validated<T: DeserializeOwned>(
        &self,
        validate: impl FnOnce(&T, &mut ErrorList),
    ) -> Result<T, ArgumentError> {
        let decoded = self.decode()?;
        let mut errors = ErrorList::new();
        validate(&decoded, &mut errors);
        if errors.is_empty() { Ok(decoded) } else { Err(ArgumentError(errors)) }
    }
}

/// A field inside a type that is not strict itself, such as the affinity of pods.
fn strange(path: &str) -> field::Error {
    let mut shown = String::new();
    for step in path.split('.') {
        match step {
            // The inside of something optional.
            "?" => {}
            index if index.parse::<usize>().is_ok() => shown.push_str(&format!("[{index}]")),
            field if shown.is_empty() => shown.push_str(field),
            field => shown.push_str(&format!(".{field}")),
        }
    }
    let detail = "unknown field".to_owned();
    field::Error { kind: ErrorKind::Invalid, path: shown, shown: None, detail }
}

/// A document has not the shape that a type asks for: the field, and what it may be.
pub(crate) fn misplaced<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>) -> field::Error {
    let path = match error.path().to_string() {
        whole if whole == "." => String::new(),
        path => path,
    };
    let detail = error.inner().to_string();
    field::Error { kind: ErrorKind::Invalid, path, shown: None, detail }
}
