//! The schema of a custom resource: what a CustomResourceDefinition says about its objects, and what follows from it.
//!
//! Owns: the parsed form ([`Structural`]), which fields stay ([`prune`]), which are filled in ([`default`]), what is
//! wrong with an object ([`validate`], [`rules`]) or with the schema itself ([`definition`]), how it is published
//! ([`openapi`]) and what expressions make of what is published ([`published`]), and the bridge to the schemas that
//! merge and apply walk ([`bridge`]).
//! Never touches: the definition object around the schema (names, versions, conditions), storage and network.
//!
//! Start at [`CustomSchema`], which is one version's schema with all that its objects need, ready to be shared.
//! Everything recurses along the schema or along the value, whichever ends first, and both are bounded: values by
//! the JSON reader, schemas by [`structural::DEPTH_MAX`].

pub mod bridge;
mod correlation;
mod custom;
pub mod default;
pub mod definition;
mod format;
pub mod list_type;
pub mod metadata;
pub mod openapi;
pub mod pattern;
pub mod prune;
pub mod published;
pub mod rules;
pub mod structural;
pub mod validate;

pub use custom::CustomSchema;
pub use structural::Structural;
