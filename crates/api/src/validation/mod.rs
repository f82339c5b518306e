//! Checks that many kinds share: names, labels, annotations, object metadata, selectors, addresses, quantities.
//!
//! Owns: the rules of `metadata` ([`object_meta`], [`object_meta_update`]), which the registry applies to every kind,
//! and the building blocks of the per-kind rules in [`crate::kinds`]. Never touches: what only one kind needs.
//!
//! Paths, order and texts follow upstream's `k8s.io/apimachinery/pkg/{api,util}/validation`, because clients and
//! tests match on them. A check appends to an [`ErrorList`](apimachinery::field::ErrorList); on success it neither
//! allocates nor formats, since every write of every pod passes here. Patterns are therefore byte loops, and the
//! regular expressions in the messages are text only.
//!
//! Start at [`meta`] for metadata, [`text`] for string forms.

pub mod ca_bundle;
pub mod conditions;
pub mod diff;
pub mod expression;
pub mod fields;
mod internal;
pub mod ip;
pub mod meta;
pub(crate) mod pem;
pub mod resources;
pub mod selector;
pub mod text;

pub use meta::{ObjectMetaRules, object_meta, object_meta_update};
