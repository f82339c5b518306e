//! Every built-in kind of the Kubernetes API: what it is called, what it looks like, what its rules are.
//!
//! Owns: the table of resources ([`builtin`]), their schemas, defaults and validation ([`strategy`]), table columns,
//! and the typed [`view`]s that components read. Never touches: storage, network, clocks, identities.
//!
//! Data where data will do (generated tables under `data/`), small pure functions where it will not. Nothing here
//! tells a built-in kind from a custom resource: both are a [`Resource`].

pub mod amounts;
pub mod builtin;
pub mod columns;
pub mod conditions;
pub mod conversion;
pub mod devices;
pub mod discovery;
pub mod features;
pub mod gvr;
pub mod kinds;
pub mod openapi;
pub mod placement;
pub mod pod_resources;
pub mod protobuf;
pub mod quota;
pub mod resource;
pub mod strategy;
pub mod table;
pub mod validation;
pub mod view;
pub mod volumes;

pub use features::Features;
pub use resource::{Resource, Subresource};
pub use strategy::Strategy;
