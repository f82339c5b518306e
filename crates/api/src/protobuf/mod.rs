//! Protobuf of the built-in kinds: from bytes to the tree that JSON would give, and back.
//!
//! Owns: the envelope `k8s\0` + `runtime.Unknown`, the [`descriptor`]s of messages, both directions of the transcoder,
//! and frames of a watch. Never touches: what is stored (that is JSON), defaults, validation, custom resources (they
//! have no protobuf).
//!
//! There are no types per kind. A message is walked together with its descriptor: field numbers come from
//! `data/protobuf.txt`, everything else (types, pointers, names) from the schema that JSON is checked with too.
//! Upstream's wire format is that of gogo/protobuf with Go's zero values, which is what makes the two directions
//! asymmetric:
//!
//! - written: all fields that are no pointer, lists or maps, even when zero; ascending by number, map keys sorted;
//! - read: a zero in such a field is no news and is dropped, then [`normalize`] adds what Go's JSON always shows.
//!
//! Start at [`decode`] and [`encode`]. Descriptors are made on first use; a server that only sees JSON has none.

mod decoder;
mod descriptor;
mod encoder;
mod error;
mod wire;

use apimachinery::decode::normalize;
use apimachinery::{GroupVersion, GroupVersionKind, Map, Str, Value};

pub use error::{Error, Fault};

use decoder::Decoder;
use descriptor::{Descriptors, MessageId};
use encoder::Encoder;
use wire::{Payload, Reader};

/// The content type of objects and lists.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The content type of watches.
pub const WATCH_CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What every envelope begins with.
const MAGIC: &[u8] = b"k8s\0";

/// An object out of its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub api_version: Str,
    pub kind: Str,
    /// With `apiVersion` and `kind`, in the form in which Go's JSON encoding of the decoded object would be.
    pub value: Value,
}

/// Reads an object in its envelope.
///
/// Unknown fields are skipped, as in Go. Fails for bytes that are no envelope, for kinds without protobuf, and for
/// bytes that do not have the form of their message; the error then names message and field.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    decode_within(bytes, 0)
}

/// `depth` is that of the message that embeds this one.
fn decode_within(bytes: &[u8], depth: usize) -> Result<Decoded, Error> {
    let envelope = Envelope::read(bytes)?;
    let gvk = envelope.gvk()?;
    let root = root(&gvk)?;
    let mut value = decode_root(root, envelope.raw, depth)?;
    let fields = value.ensure_object();
    fields.insert("apiVersion", envelope.api_version.clone());
    fields.insert("kind", envelope.kind.clone());
    Ok(Decoded { api_version: envelope.api_version, kind: envelope.kind, value })
}

/// Reads a message without envelope; `name` is its definition's, e.g. `io.k8s.api.core.v1.PodSpec`.
pub fn decode_message(name: &str, bytes: &[u8]) -> Result<Value, Error> {
    decode_root(Descriptors::get().named(name).ok_or_else(|| Error::Message(name.to_owned()))?, bytes, 0)
}

fn decode_root(root: MessageId, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let descriptors = Descriptors::get();
    let mut map = Map::new();
    Decoder { descriptors }.message(root, bytes, &mut map, depth)?;
    let mut value = Value::Object(map);
    let message = descriptors.message(root).name;
    match crate::builtin::schemas().definition(message) {
        Some(schema) => normalize(&mut value, schema)
            .map_err(|fault| Error::at(message, "its beginning", Fault::Normalize(fault)))?,
        None => return Err(Error::Message(message.to_owned())),
    }
    Ok(value)
}

/// Whether a kind has a protobuf form: all built-in kinds have, and only they.
pub fn has_kind(gvk: &GroupVersionKind) -> bool {
    crate::builtin::schema(gvk).is_some()
}

/// Writes an object or list with its envelope; `apiVersion` and `kind` say which message it is.
///
/// Bytes are those that Go would write for the same object. Fails for kinds without protobuf and for trees that do
/// not have the shape of their kind.
pub fn encode(value: &Value) -> Result<Vec<u8>, Error> {
    let mut out = MAGIC.to_vec();
    let (api_version, kind) = (value.str_at(&["apiVersion"]), value.str_at(&["kind"]));
    let root = root(&gvk(api_version, kind)?)?;
    write_type_meta(api_version, kind, &mut out)?;
    wire::write_delimited(&mut out, 2, |out| encode_root(root, value, out))?;
    // No content encoding, no content type.
    wire::write_bytes(&mut out, 3, b"");
    wire::write_bytes(&mut out, 4, b"");
    Ok(out)
}

/// Writes a list whose items are made one at a time, so that never all of their trees are in memory: only their bytes
/// are, since the envelope begins with the length of it all. `list` is the list without items; the answer's pieces
/// follow each other.
pub fn encode_list(list: &Value, items: impl Iterator<Item = Value>) -> Result<Vec<Vec<u8>>, Error> {
    /// About as large as a piece is.
    const PIECE_BYTES: usize = 128 << 10;
    let (api_version, kind) = (list.str_at(&["apiVersion"]), list.str_at(&["kind"]));
    let root = root(&gvk(api_version, kind)?)?;
    let descriptors = Descriptors::get();
    let (number, item_root) = descriptors.items(root).ok_or_else(|| Error::Message(kind.to_owned()))?;
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    encode_root(root, list, &mut piece)?;
    for item in items {
        wire::write_delimited(&mut piece, number, |out| encode_root(item_root, &item, out))?;
        if piece.len() >= PIECE_BYTES {
            pieces.push(std::mem::take(&mut piece));
        }
    }
    let length = pieces.iter().map(Vec::len).sum::<usize>() + piece.len();
    wire::write_bytes(&mut piece, 3, b"");
    wire::write_bytes(&mut piece, 4, b"");
    pieces.push(piece);
    let mut head = MAGIC.to_vec();
    write_type_meta(api_version, kind, &mut head)?;
    wire::write_length(&mut head, 2, length);
    head.append(&mut pieces[0]);
    pieces[0] = head;
    Ok(pieces)
}

fn write_type_meta(api_version: &str, kind: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    wire::write_delimited(out, 1, |out| {
        wire::write_bytes(out, 1, api_version.as_bytes());
        wire::write_bytes(out, 2, kind.as_bytes());
        Ok(())
    })
}

/// Writes a message without envelope; `name` is its definition's, e.g. `io.k8s.api.core.v1.PodSpec`.
pub fn encode_raw(name: &str, value: &Value) -> Result<Vec<u8>, Error> {
    let root = Descriptors::get().named(name).ok_or_else(|| Error::Message(name.to_owned()))?;
    let mut out = Vec::new();
    encode_root(root, value, &mut out)?;
    Ok(out)
}

fn encode_root(root: MessageId, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let descriptors = Descriptors::get();
    let Some(map) = value.as_object() else {
        return Err(Error::at(
            descriptors.message(root).name,
            "its beginning",
            Fault::Type { wanted: "object" },
        ));
    };
    Encoder { descriptors }.message(root, Some(map), out, 0)
}

/// One frame of a watch: its length in four bytes, then a `WatchEvent` whose object is in an envelope of its own.
/// `event` is `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
pub fn watch_frame(event: &str, object: &Value) -> Result<Vec<u8>, Error> {
    let object = encode(object)?;
    let mut frame = vec![0; 4];
    wire::write_bytes(&mut frame, 1, event.as_bytes());
    wire::write_delimited(&mut frame, 2, |out| {
        wire::write_bytes(out, 1, &object);
        Ok(())
    })?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| Error::TooLong)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

fn gvk(api_version: &str, kind: &str) -> Result<GroupVersionKind, Error> {
    if kind.is_empty() {
        return Err(Error::KindMissing);
    }
    let unknown = || Error::Kind { api_version: api_version.to_owned(), kind: kind.to_owned() };
    let GroupVersion { group, version } = GroupVersion::parse(api_version).ok_or_else(unknown)?;
    Ok(GroupVersionKind { group, version, kind: kind.into() })
}

/// The message of a kind. Shared kinds (`DeleteOptions`, `Status`) are known by the core group too.
fn root(gvk: &GroupVersionKind) -> Result<MessageId, Error> {
    let shared = || match gvk.group.as_str() {
        "meta.k8s.io" => crate::builtin::schema(&GroupVersionKind { group: Str::default(), ..gvk.clone() }),
        _ => None,
    };
    crate::builtin::schema(gvk)
        .or_else(shared)
        .and_then(|schema| Descriptors::get().of_node(schema.root()))
        .ok_or_else(|| Error::Kind { api_version: gvk.api_version().to_string(), kind: gvk.kind.to_string() })
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'b> {
    api_version: Str,
    kind: Str,
    raw: &'b [u8],
}

impl<'b> Envelope<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, Error> {
        const MESSAGE: &str = "io.k8s.apimachinery.pkg.runtime.Unknown";
        let mut reader = Reader::new(bytes.strip_prefix(MAGIC).ok_or(Error::Magic)?);
        let mut envelope = Self::default();
        while let Some((number, payload)) =
            reader.next().map_err(|fault| Error::at(MESSAGE, "a tag", fault))?
        {
            match (number, payload) {
                (1, Payload::Bytes(type_meta)) => envelope.read_type_meta(type_meta)?,
                (2, Payload::Bytes(raw)) => envelope.raw = raw,
                (3, Payload::Bytes(encoding)) if !encoding.is_empty() => {
                    return Err(Error::at(MESSAGE, "contentEncoding", Fault::ContentEncoding));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type_meta(&mut self, bytes: &[u8]) -> Result<(), Error> {
        const MESSAGE: &str = "io.k8s.apimachinery.pkg.runtime.TypeMeta";
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) =
            reader.next().map_err(|fault| Error::at(MESSAGE, "a tag", fault))?
        {
            match (number, payload) {
                (1, Payload::Bytes(text)) => self.api_version = Str::from_utf8_lossy(text),
                (2, Payload::Bytes(text)) => self.kind = Str::from_utf8_lossy(text),
                _ => {}
            }
        }
        Ok(())
    }

    fn gvk(&self) -> Result<GroupVersionKind, Error> {
        gvk(&self.api_version, &self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_message() {
        let mut kinds = 0;
        for kind in crate::builtin::tables::definitions().flat_map(crate::builtin::tables::Definition::kinds)
        {
            let gvk = GroupVersionKind::new(kind.group, kind.version, kind.kind);
            assert!(has_kind(&gvk) && root(&gvk).is_ok(), "{gvk:?}");
            kinds += 1;
        }
        assert!(kinds > 200, "{kinds} kinds");
    }

    #[test]
    fn shared_kinds_are_found_in_their_own_group() {
        assert!(root(&GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions")).is_ok());
        assert!(root(&GroupVersionKind::new("example.com", "v1", "DeleteOptions")).is_err());
    }
}
