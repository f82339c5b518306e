//! Custom resources: from a CustomResourceDefinition to what the API server serves.
//!
//! Owns: the descriptors that a definition makes ([`descriptor`]), the rules of its objects ([`strategy`]), their
//! columns ([`columns`]) and versions ([`conversion`]), and what a definition's status has to say ([`status`]).
//! Never touches: storage, the network, tasks. Everything here is a function of definitions and objects; who calls
//! it when is the API server's affair. What a schema means is `structural-schema`'s.
//!
//! Start at [`descriptor::describe`].

pub mod columns;
pub mod conversion;
pub mod descriptor;
pub mod json_path;
pub mod status;
pub mod strategy;

pub use descriptor::{Described, describe};
pub use structural_schema::CustomSchema;
