//! The machinery every Kubernetes object shares, and nothing about any single kind.
//!
//! Owns: the generic tree ([`Value`]), the stored form ([`Object`]), names of kinds and resources ([`gvk`]),
//! the API's error type ([`Status`]), selectors, quantities, schemas, patches and managed fields.
//! Never touches: storage, network, clocks, or the rules of a particular kind (those live in `api`).
//!
//! Start at [`Object`] for what is in memory and at [`Value`] for what is edited on the way there.

pub mod cbor;
pub mod decode;
pub mod dns;
pub mod duration;
pub mod field;
pub mod gvk;
pub mod ip;
pub mod label;
pub mod managed_fields;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;
pub mod value;

pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use object::Object;
pub use quantity::Quantity;
pub use selector::{FieldSelector, Selector};
pub use status::Status;
pub use value::{Map, Number, Str, Value};

/// For the [`json!`] macro, so that its users need not name the crate.
#[doc(hidden)]
pub use serde_json as __serde_json;
