//! [`Object`]: the one form in which an object is kept in memory.
//!
//! Owns: canonical JSON, where its metadata lies in it, and a typed view made on first use.
//! Law (one-copy): the watch cache, controllers, the scheduler and every reader share one `Arc<Object>`.
//!
//! The bytes are the stored bytes. They never contain `resourceVersion`, because it is known only once the write is
//! committed; it stands beside them and is spliced in while copying to a response. They begin with `apiVersion`
//! and `kind`, so a list can leave those out and another served version can replace them, without encoding again:
//!
//! ```text
//!     {"apiVersion":"v1","kind":"Pod","metadata":{…,│"uid":"…"},"spec":{…},"status":{…}}
//!      └──────── type meta ────────┘└─ body_at      └─ revision_at
//! ```
//!
//! **Invariant (object-canonical):** `apiVersion`, `kind`, `metadata` first, all other fields sorted, no white space.

use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::schema::SchemaRef;
use crate::value::DecodeError;
use crate::{Map, Str, Value};

mod scan;

/// Room that a thread keeps for encoding its next object.
const ROOM_KEPT: usize = 64 << 10;

/// An API object as stored and shared.
pub struct Object {
    json: Bytes,
    revision: u64,
    layout: Arc<Layout>,
    view: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// Where the parts that everyone asks for lie in the JSON.
#[derive(Debug, Default)]
struct Layout {
    /// First byte after the type meta (of `"metadata"`).
    body_at: u32,
    /// Where `"resourceVersion":"…",` belongs, inside `metadata`.
    revision_at: u32,
    /// Something follows at `revision_at` (so a comma is needed after), or precedes it (before).
    revision_comma_after: bool,
    revision_comma_before: bool,
    name: Span,
    namespace: Span,
    uid: Span,
    creation_timestamp: Span,
    deletion_timestamp: Span,
    generation: i64,
    labels: Box<[(Span, Span)]>,
    owners: Box<[OwnerSpan]>,
    finalizers: Box<[Span]>,
    /// Raw tokens of the resource's selectable fields, in the order they were asked for; empty when absent.
    fields: Box<[Span]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct OwnerSpan {
    api_version: Span,
    kind: Span,
    name: Span,
    uid: Span,
    controller: bool,
    block_owner_deletion: bool,
}

/// The fields of `metav1.ObjectMeta`, in the order of the Go type, in which complaints name and show them.
pub const METADATA_FIELDS: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// The selectable fields of a resource as dotted paths, shared by everybody who indexes its objects.
#[derive(Clone, Debug)]
pub enum FieldPaths {
    /// Of a built-in kind.
    Fixed(&'static [&'static str]),
    /// Of a custom resource.
    Own(Arc<[Str]>),
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

/// Bytes that are not an object in canonical form.
#[derive(Debug, thiserror::Error)]
#[error("stored object is malformed at byte {at}: {what}")]
pub struct MalformedObject {
    pub at: usize,
    pub what: &'static str,
}

/// How much of an object a reader wants written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// With `apiVersion` and `kind` as stored.
    Full,
    /// With another `apiVersion` and `kind`: the already encoded `"apiVersion":"…","kind":"…",`.
    As(&'a [u8]),
    /// Without `apiVersion` and `kind`, as items of a built-in kind's list are.
    ListItem,
}

impl FieldPaths {
    /// No field at all.
    pub const NONE: Self = Self::Fixed(&[]);

    pub fn len(&self) -> usize {
        match self {
            Self::Fixed(paths) => paths.len(),
            Self::Own(paths) => paths.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<&str> {
        match self {
            Self::Fixed(paths) => paths.get(index).copied(),
            Self::Own(paths) => paths.get(index).map(Str::as_str),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The index of a field for [`Object::field`].
    pub fn position(&self, path: &str) -> Option<usize> {
        self.iter().position(|own| own == path)
    }
}

/// Two lists are the same when they name the same fields in the same order.
impl PartialEq for FieldPaths {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for FieldPaths {}

impl Object {
    /// Reads where things lie in canonical JSON. `fields` are dotted paths of selectable fields
    /// (`spec.nodeName`), whose values [`Object::field`] then finds at once.
    pub fn from_json(json: Bytes, revision: u64, fields: &[&str]) -> Result<Self, MalformedObject> {
        let layout = Arc::new(scan::layout(&json, fields.iter().copied())?);
        Ok(Self { json, revision, layout, view: OnceLock::new() })
    }

    /// As [`Object::from_json`], for the fields of a resource.
    pub fn indexed(json: Bytes, revision: u64, fields: &FieldPaths) -> Result<Self, MalformedObject> {
        let layout = match fields {
            FieldPaths::Fixed(paths) => scan::layout(&json, paths.iter().copied()),
            FieldPaths::Own(paths) => scan::layout(&json, paths.iter().map(Str::as_str)),
        };
        Ok(Self { json, revision, layout: Arc::new(layout?), view: OnceLock::new() })
    }

    /// Encodes a tree in canonical form. `metadata.resourceVersion` in it is left out.
    pub fn from_value(value: &Value, revision: u64, fields: &[&str]) -> Result<Self, MalformedObject> {
        Self::from_json(encode(value), revision, fields)
    }

    /// The same object at another revision: what a committed write or a deletion event carries.
    pub fn at_revision(&self, revision: u64) -> Self {
        Self { json: self.json.clone(), revision, layout: self.layout.clone(), view: OnceLock::new() }
    }

    /// The stored bytes: canonical, without `resourceVersion`.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The revision of the write that made this state; `metadata.resourceVersion` in decimal.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn name(&self) -> &str {
        self.text(self.layout.name)
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.text(self.layout.namespace)
    }

    pub fn uid(&self) -> &str {
        self.text(self.layout.uid)
    }

    pub fn generation(&self) -> i64 {
        self.layout.generation
    }

    /// RFC 3339; empty when unset.
    pub fn creation_timestamp(&self) -> &str {
        self.text(self.layout.creation_timestamp)
    }

    /// RFC 3339; `None` while the object is not being deleted.
    pub fn deletion_timestamp(&self) -> Option<&str> {
        let text = self.text(self.layout.deletion_timestamp);
        (!text.is_empty()).then_some(text)
    }

    pub fn is_deleting(&self) -> bool {
        self.layout.deletion_timestamp != Span::default()
    }

    /// Labels in key order.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.layout.labels.iter().map(|&(key, value)| (self.text(key), self.text(value)))
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(own, _)| *own == key).map(|(_, value)| value)
    }

    pub fn finalizers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.layout.finalizers.iter().map(|&span| self.text(span))
    }

    pub fn owners(&self) -> impl ExactSizeIterator<Item = OwnerReference<'_>> {
        self.layout.owners.iter().map(|owner| OwnerReference {
            api_version: self.text(owner.api_version),
            kind: self.text(owner.kind),
            name: self.text(owner.name),
            uid: self.text(owner.uid),
            controller: owner.controller,
            block_owner_deletion: owner.block_owner_deletion,
        })
    }

    /// The owner that manages this object, if any.
    pub fn controller_owner(&self) -> Option<OwnerReference<'_>> {
        self.owners().find(|owner| owner.controller)
    }

    /// The value of the selectable field with this index in the list given at construction; the empty string when
    /// it is absent, as upstream's field labels are.
    pub fn field(&self, index: usize) -> Cow<'_, str> {
        let raw = self.layout.fields.get(index).map(|&span| self.text(span)).unwrap_or_default();
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(text) if !text.contains('\\') => Cow::Borrowed(text),
            Some(_) => Cow::Owned(serde_json::from_str(raw).unwrap_or_default()),
            None if raw == "null" => Cow::Borrowed(""),
            None => Cow::Borrowed(raw),
        }
    }

    /// How many selectable fields this object was indexed by.
    pub fn field_count(&self) -> usize {
        self.layout.fields.len()
    }

    /// The stored `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.type_meta().0
    }

    /// The stored `kind`.
    pub fn kind(&self) -> &str {
        self.type_meta().1
    }

    /// The tree, with `metadata.resourceVersion` set.
    pub fn to_value(&self) -> Value {
        let mut value = Value::parse(&self.json).expect("stored JSON was scanned when the object was made");
        if self.revision > 0 {
            value.set_at(&["metadata", "resourceVersion"], self.revision.to_string());
        }
        value
    }

    /// The typed view of this object, decoded on first use and then shared. A kind has one view type; asking for a
    /// second type decodes anew each time.
    pub fn view<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, DecodeError> {
        if let Some(view) = self.view.get()
            && let Ok(typed) = view.clone().downcast::<T>()
        {
            return Ok(typed);
        }
        // One check of the whole text instead of one of every string in it.
        let json =
            simdutf8::basic::from_utf8(&self.json).map_err(<DecodeError as serde::de::Error>::custom)?;
        let typed: T = serde_json::from_str(json).map_err(<DecodeError as serde::de::Error>::custom)?;
        let typed = Arc::new(typed);
        // Losing the race is fine: both decoded the same bytes.
        let _ = self.view.set(typed.clone());
        Ok(typed)
    }

    /// Length of [`Object::write`]'s output, at most a few bytes too high.
    pub fn written_len(&self) -> usize {
        self.json.len() + "\"resourceVersion\":\"\",".len() + 20
    }

    /// Hot path: appends the object as JSON with its `resourceVersion`.
    pub fn write(&self, form: Form<'_>, out: &mut Vec<u8>) {
        out.reserve(self.written_len());
        let body_at = self.layout.body_at as usize;
        let revision_at = self.layout.revision_at as usize;
        out.push(b'{');
        match form {
            Form::Full => out.extend_from_slice(&self.json[1..body_at]),
            Form::As(type_meta) => out.extend_from_slice(type_meta),
            Form::ListItem => {}
        }
        out.extend_from_slice(&self.json[body_at..revision_at]);
        if self.revision > 0 {
            if self.layout.revision_comma_before {
                out.push(b',');
            }
            out.extend_from_slice(b"\"resourceVersion\":\"");
            out.extend_from_slice(itoa::Buffer::new().format(self.revision).as_bytes());
            out.push(b'"');
            if self.layout.revision_comma_after {
                out.push(b',');
            }
        }
        out.extend_from_slice(&self.json[revision_at..]);
    }

    /// The raw JSON of `metadata` without `resourceVersion`, for PartialObjectMetadata.
    pub fn metadata_value(&self) -> Value {
        let json = &self.json[self.layout.body_at as usize..];
        let start = b"\"metadata\":".len();
        let end = scan::end_of_value(json, start).unwrap_or(json.len());
        let mut metadata = Value::parse(&json[start..end]).unwrap_or_default();
        if self.revision > 0 {
            metadata.set_at(&["resourceVersion"], self.revision.to_string());
        }
        metadata
    }

    fn type_meta(&self) -> (&str, &str) {
        let head = std::str::from_utf8(&self.json[..self.layout.body_at as usize]).unwrap_or_default();
        let mut texts = head.split('"');
        // {"apiVersion":"X","kind":"Y", splits into: { apiVersion : X , kind : Y ,
        (texts.nth(3).unwrap_or_default(), texts.nth(3).unwrap_or_default())
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(&self.json[span.start as usize..span.end as usize]).unwrap_or_default()
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}@{}", self.kind(), self.namespace(), self.name(), self.revision)
    }
}

/// Canonical JSON of an object tree, in no more memory than it has bytes: it is kept.
pub fn encode(value: &Value) -> Bytes {
    thread_local! {
        static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    ROOM.with_borrow_mut(|room| {
        // Something is left there when writing panicked.
        room.clear();
        write_canonical(value, room);
        let json = Bytes::copy_from_slice(room);
        // Room never shrinks below what is in it.
        room.clear();
        room.shrink_to(ROOM_KEPT);
        json
    })
}

fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    out.extend_from_slice(b"{\"apiVersion\":");
    value["apiVersion"].write_json(out);
    out.extend_from_slice(b",\"kind\":");
    value["kind"].write_json(out);
    out.extend_from_slice(b",\"metadata\":");
    encode_metadata(&value["metadata"], out);
    for (key, field) in map {
        if matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        out.push(b',');
        crate::value::write_string(key, out);
        out.push(b':');
        field.write_json(out);
    }
    out.push(b'}');
}

/// [`encode`] of a built-in object, in the form in which a store in protobuf would give it back.
pub fn encode_like_protobuf(mut value: Value, schema: SchemaRef<'_>) -> Bytes {
    let encoded = encode(&value);
    // Empty lists are rare, and so the tree is hardly ever walked.
    if memchr::memmem::find(&encoded, b":[]").is_none() {
        return encoded;
    }
    crate::decode::forget_empty_lists(&mut value, schema);
    encode(&value)
}

fn encode_metadata(metadata: &Value, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for (key, field) in metadata.as_object().into_iter().flatten() {
        if key == "resourceVersion" {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        crate::value::write_string(key, out);
        out.push(b':');
        field.write_json(out);
    }
    out.push(b'}');
}

/// The encoded `"apiVersion":"…","kind":"…",` for [`Form::As`].
pub fn type_meta(api_version: &str, kind: &str) -> Bytes {
    let mut out = Vec::new();
    out.extend_from_slice(b"\"apiVersion\":");
    crate::value::write_string(api_version, &mut out);
    out.extend_from_slice(b",\"kind\":");
    crate::value::write_string(kind, &mut out);
    out.push(b',');
    out.into()
}

/// Labels of a tree, for selectors, in key order.
pub fn labels_of(value: &Value) -> impl Iterator<Item = (&Str, &str)> {
    value
        .at(&["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
