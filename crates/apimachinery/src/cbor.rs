//! CBOR (RFC 8949) as Kubernetes speaks it (KEP-4222): reading and writing a [`Value`].
//!
//! Owns: the bytes. Never touches: negotiation and schemas. CBOR says more than JSON; what JSON cannot say is refused
//! (bignums, `undefined`, numbers that are none) or becomes what JSON says (times and encoded bytes become texts).
//!
//! Start at [`decode`] and [`encode`]. Everything written begins with the tag that marks CBOR, and what is equal is
//! written alike: shortest heads, fields in bytewise order. Texts are written as byte strings, as upstream does, and
//! read from either. The contents of a Secret are therefore byte strings of base64, which readers expect.

mod decode;
mod encode;

pub use decode::{Error, decode};
pub use encode::{encode, encode_item};

/// The media type of one item.
pub const CONTENT_TYPE: &str = "application/cbor";
/// The media type of items one after the other (RFC 8742), as a watch sends them.
pub const SEQUENCE_CONTENT_TYPE: &str = "application/cbor-seq";
/// The media type of a configuration to apply.
pub const APPLY_CONTENT_TYPE: &str = "application/apply-patch+cbor";

/// "Self-described CBOR", tag 55799: what all output begins with.
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];

/// The upper three bits of an item's first byte.
mod major {
    pub const UNSIGNED: u8 = 0;
    pub const NEGATIVE: u8 = 1;
    pub const BYTES: u8 = 2;
    pub const TEXT: u8 = 3;
    pub const ARRAY: u8 = 4;
    pub const MAP: u8 = 5;
    pub const TAG: u8 = 6;
    pub const SIMPLE: u8 = 7;
}

/// The first bytes of items of major type 7.
mod simple {
    pub const FALSE: u8 = 0xf4;
    pub const TRUE: u8 = 0xf5;
    pub const NULL: u8 = 0xf6;
    pub const HALF: u8 = 0xf9;
    pub const SINGLE: u8 = 0xfa;
    pub const DOUBLE: u8 = 0xfb;
    pub const BREAK: u8 = 0xff;
}

#[cfg(test)]
mod tests;
