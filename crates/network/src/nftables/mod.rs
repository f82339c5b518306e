//! A client of nf_tables: rules, sets and maps of the kernel's packet filter, over netlink.
//!
//! Owns: the encoding of tables, chains, rules, sets and their elements ([`Batch`]), and the socket that commits them
//! ([`Connection`]). Never touches: what the rules are for ([`super::service_proxy`] and [`super::network_policy`]
//! know), and the `nft` program, which need not be there.
//!
//! A [`Batch`] is one transaction: the kernel takes all of it or nothing, and packets see the state before it or the
//! state after it. A refusal names the thing it was about and carries the kernel's own words.
//!
//! ```text
//!     Batch: add_table, add_chain, add_rule(&[Expression]), add_set, add_elements …
//!        └── Connection::commit ── one sendmsg ──▶ kernel ── errors by sequence number ──▶ Error::Refused
//! ```
//!
//! Start at [`Batch`]. The socket belongs to the network namespace of the thread that opened it, and to it only.

mod attribute;
mod batch;
mod connection;
mod expression;
mod set;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use attribute::{Attributes, Reader};
pub use batch::{Base, Batch, ChainType, Family, Hook};
pub use connection::{Connection, Error, SUBSYSTEM_CONNTRACK, request};
pub use expression::{
    ADDRESS_LOCAL, CmpOp, CtDirection, CtKey, DynsetOp, Expression, MetaKey, PayloadBase, Register, Verdict,
};
pub use set::{Data, Element, Field, Set};
