//! OpenAPI documents of a set of resources: version 2 as JSON and protobuf, version 3 by group and version.
//!
//! Owns: paths, operations and type definitions as upstream publishes them. Never touches:
//! negotiation, the network, caching. Documents are large, asked for seldom and fully determined by the resources
//! and the tables, so they are made on demand, item by item, straight to where their bytes go.
//!
//! [`paths`] says which operations there are, [`definitions`] which types; [`v2`] and [`v3`] write them, [`protobuf`]
//! turns version 2 into the binary form that older clients ask for. The types of custom
//! resources are those of their definitions, with the prose of their authors.
//!
//! Start at [`v2_json`].

mod definitions;
mod descriptions;
mod parameters;
mod paths;
mod protobuf;
mod v2;
mod v3;

use std::io::{self, Write};
use std::sync::Arc;

use crate::Resource;
pub use definitions::Tables;
use definitions::Types;

/// The `Content-Type` of an answer with [`v2_protobuf`]. Clients refuse what they ask for themselves: `@` is not
/// allowed in a media type.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The media types by which clients ask for [`v2_protobuf`].
pub const V2_PROTOBUF_ACCEPTED: [&str; 2] =
    ["application/com.github.proto-openapi.spec.v2@v1.0+protobuf", V2_PROTOBUF];

/// The Kubernetes version whose API this is, as `info.version` gives it.
const VERSION: &str = "v1.36.2";

/// Writes the document of `/openapi/v2` as JSON; only one group's part of it is in memory at a time. An error is that of
/// `out`.
pub fn v2_json(resources: &[Arc<Resource>], out: &mut dyn Write) -> io::Result<()> {
    let tables = Tables::unpack();
    v2::json(&Types::of(&tables, resources), resources, out)
}

/// The document of `/openapi/v2` in gnostic's protobuf form.
pub fn v2_protobuf(resources: &[Arc<Resource>]) -> Vec<u8> {
    let tables = Tables::unpack();
    protobuf::document(&Types::of(&tables, resources), resources)
}

/// The documents below `/openapi/v3/` as JSON, one after the other: each with its key in the index (`api/v1`,
/// `apis/apps/v1`, `version`), of which only wanted ones are made.
pub fn v3_documents(
    tables: &Tables,
    resources: &[Arc<Resource>],
    wanted: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(&str, Vec<u8>),
) {
    v3::documents(&Types::of(tables, resources), resources, wanted, each);
}

/// The index of `/openapi/v3`: where each document is, by its key and a hash of its content.
pub fn v3_index<'d>(documents: impl IntoIterator<Item = (&'d str, &'d str)>) -> Vec<u8> {
    v3::index(documents)
}
