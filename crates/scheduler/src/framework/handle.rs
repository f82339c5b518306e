//! What plugins are made from: [`Handle`], the way to the world, and [`Arguments`], what a profile says about them.

use std::sync::Arc;

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

/// Arguments that a plugin does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ArgumentError(pub String);

// === impl Arguments ===

impl Arguments {
    pub fn new(fields: serde_json::Map<String, serde_json::Value>) -> Self {
        Self(fields)
    }

    /// As the plugin's own type, which names defaults and refuses unknown fields.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ArgumentError> {
        T::deserialize(serde_json::Value::Object(self.0.clone()))
            .map_err(|error| ArgumentError(error.to_string()))
    }
}
