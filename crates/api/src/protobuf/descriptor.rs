//! What each message looks like: field numbers of `data/protobuf.txt` joined with the types of the schema.
//!
//! Owns: [`Descriptors`], made once on first use. A malformed table is a bug in the build, which the tests of this
//! crate find, so the reader here may panic on one.

use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::OnceLock;

use apimachinery::schema::{NodeKind, Scalar, SchemaRef};

const TABLE: &str = include_str!("../../data/protobuf.txt");
/// What all definition names begin with; the table leaves it out.
const DEFINITION_PREFIX: &str = crate::builtin::tables::DEFINITION_PREFIX;
/// The schema of custom resources, the one recursive type.
const JSON_SCHEMA_PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// Index of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageId(u32);

pub(super) struct Descriptors {
    messages: Vec<Message>,
    /// By full definition name. Inlined messages have none.
    named: HashMap<&'static str, MessageId>,
}

pub(super) struct Message {
    /// The definition; for an inlined message that of the type it is inlined into.
    pub name: &'static str,
    /// Ascending by number.
    pub fields: Box<[Field]>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub number: u32,
    /// The JSON property; for an inlined message the name it has in Go.
    pub name: &'static str,
    pub kind: Kind,
    pub repeated: Repeated,
    /// A pointer in Go: absence and zero differ.
    pub pointer: bool,
}

/// How often a field can occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeated {
    Once,
    List,
    Map,
}

/// What a field, item or map value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    Double,
    String,
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// `RawExtension`, `FieldsV1` and `JSON`: a message that holds JSON text in field 1.
    Raw,
    /// A list of strings that is a message with repeated field 1.
    Strings,
    /// `JSONSchemaPropsOrBool`: allows = 1, schema = 2.
    PropsOrBool(MessageId),
    /// `JSONSchemaPropsOrArray`: schema = 1, list = 2.
    PropsOrArray(MessageId),
    /// `JSONSchemaPropsOrStringArray`: schema = 1, strings = 2.
    PropsOrStrings(MessageId),
    Message(MessageId),
    /// A message whose fields are properties of the outer object.
    Inline(MessageId),
}

impl Descriptors {
    pub(super) fn get() -> &'static Self {
        static DESCRIPTORS: OnceLock<Descriptors> = OnceLock::new();
        DESCRIPTORS.get_or_init(build)
    }

    pub(super) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    /// By definition name.
    pub(super) fn named(&self, name: &str) -> Option<MessageId> {
        self.named.get(name).copied()
    }

    /// Number and message of the items of a list kind. They come last in it.
    pub(super) fn items(&self, list: MessageId) -> Option<(u32, MessageId)> {
        let field = self.message(list).fields.last()?;
        match (field.name, field.kind) {
            ("items", Kind::Message(item)) => Some((field.number, item)),
            _ => None,
        }
    }

    /// The message of a schema node.
    pub(super) fn of_node(&self, node: SchemaRef<'_>) -> Option<MessageId> {
        self.named(node.node().definition.as_deref()?)
    }
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| &self.fields[at])
    }
}

// === making them ===

fn build() -> Descriptors {
    let mut builder = Builder { messages: Vec::new(), named: HashMap::new() };
    let blocks: Vec<(&'static str, &'static str)> = blocks().collect();
    // Types refer to each other, so all have a place before any is filled.
    for (name, _) in &blocks {
        let full = crate::builtin::schemas()
            .definition(&format!("{DEFINITION_PREFIX}{name}"))
            .and_then(|schema| schema.node().definition.as_deref())
            .unwrap_or_else(|| panic!("protobuf.txt has {name}, schema.txt has not"));
        let id = builder.push(Message { name: full, fields: Box::default() });
        builder.named.insert(full, id);
    }
    for (at, (_, body)) in blocks.iter().enumerate() {
        let name = builder.messages[at].name;
        let owner = crate::builtin::schemas().definition(name).expect("found above");
        let mut rows = body.lines().peekable();
        builder.messages[at].fields = builder.fields(owner, name, &mut rows, 1);
    }
    Descriptors { messages: builder.messages, named: builder.named }
}

/// Heads, and the indented lines below them.
fn blocks() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE
        .split("\n\n")
        .skip(1)
        .map(|block| block.trim_end().split_once('\n').unwrap_or((block.trim_end(), "")))
}

fn indent(row: &str) -> usize {
    row.len() - row.trim_start_matches(' ').len()
}

struct Builder {
    messages: Vec<Message>,
    named: HashMap<&'static str, MessageId>,
}

impl Builder {
    fn push(&mut self, message: Message) -> MessageId {
        let id = MessageId(u32::try_from(self.messages.len()).expect("fewer than 2^32 messages"));
        self.messages.push(message);
        id
    }

    /// Takes the rows that are indented by at least `depth`.
    fn fields(
        &mut self,
        owner: SchemaRef<'static>,
        name: &'static str,
        rows: &mut Peekable<std::str::Lines<'static>>,
        depth: usize,
    ) -> Box<[Field]> {
        let mut fields = Vec::new();
        while let Some(row) = rows.next_if(|row| indent(row) == depth) {
            let (number, rest) = row.trim_start().split_once(' ').expect("protobuf.txt: a number and a name");
            let number = number.parse().expect("protobuf.txt: a number");
            fields.push(match rest.strip_suffix(':') {
                Some(inlined) => {
                    let inner = self.fields(owner, name, rows, depth + 1);
                    let id = self.push(Message { name, fields: inner });
                    Field {
                        number,
                        name: inlined,
                        kind: Kind::Inline(id),
                        repeated: Repeated::Once,
                        pointer: false,
                    }
                }
                None => self.property(owner, number, rest),
            });
        }
        fields.into()
    }

    fn property(&self, owner: SchemaRef<'static>, number: u32, rest: &'static str) -> Field {
        let (name, wrapped) = match rest.split_once(' ') {
            Some((name, "wrapped")) => (name, true),
            Some((_, other)) => panic!("protobuf.txt: unknown attribute {other:?}"),
            None => (rest, false),
        };
        let field = owner.field(name).unwrap_or_else(|| panic!("protobuf.txt has {name}, its type has not"));
        let node = owner.schemas.at(field.node);
        let (kind, repeated) = match node.kind() {
            NodeKind::List { .. } if wrapped => (Kind::Strings, Repeated::Once),
            NodeKind::Map { .. } if wrapped => (Kind::Strings, Repeated::Map),
            NodeKind::List { items, .. } => (self.kind(owner.schemas.at(*items)), Repeated::List),
            NodeKind::Map { values, .. } => (self.kind(owner.schemas.at(*values)), Repeated::Map),
            _ => (self.kind(node), Repeated::Once),
        };
        Field { number, name, kind, repeated, pointer: field.pointer }
    }

    fn kind(&self, node: SchemaRef<'_>) -> Kind {
        let definition = node.node().definition.as_deref().unwrap_or_default();
        match node.kind() {
            NodeKind::Scalar(Scalar::Boolean) => Kind::Bool,
            NodeKind::Scalar(Scalar::Int32) => Kind::Int32,
            NodeKind::Scalar(Scalar::Int64) => Kind::Int64,
            NodeKind::Scalar(Scalar::Double) => Kind::Double,
            NodeKind::Scalar(Scalar::String) => Kind::String,
            NodeKind::Scalar(Scalar::Bytes) => Kind::Bytes,
            NodeKind::Scalar(Scalar::Quantity) => Kind::Quantity,
            NodeKind::Scalar(Scalar::IntOrString) => Kind::IntOrString,
            NodeKind::Scalar(Scalar::Time) => Kind::Time,
            NodeKind::Scalar(Scalar::MicroTime) => Kind::MicroTime,
            NodeKind::Any | NodeKind::Holding(_) => match definition.rsplit('.').next() {
                Some("RawExtension" | "FieldsV1" | "JSON") => Kind::Raw,
                Some("JSONSchemaPropsOrBool") => Kind::PropsOrBool(self.id(JSON_SCHEMA_PROPS)),
                Some("JSONSchemaPropsOrArray") => Kind::PropsOrArray(self.id(JSON_SCHEMA_PROPS)),
                Some("JSONSchemaPropsOrStringArray") => Kind::PropsOrStrings(self.id(JSON_SCHEMA_PROPS)),
                _ => panic!("no protobuf form is known for {definition}"),
            },
            NodeKind::Struct(_) => Kind::Message(self.id(definition)),
            other => panic!("no protobuf form is known for {other:?}"),
        }
    }

    fn id(&self, definition: &str) -> MessageId {
        *self.named.get(definition).unwrap_or_else(|| panic!("protobuf.txt lacks {definition}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_ascend_and_every_message_is_whole() {
        let descriptors = Descriptors::get();
        assert!(descriptors.named.len() > 700, "{} messages", descriptors.named.len());
        for message in &descriptors.messages {
            assert!(message.fields.is_sorted_by(|a, b| a.number < b.number), "{}", message.name);
        }
    }

    #[test]
    fn inlined_structs_are_messages_of_their_own() {
        let descriptors = Descriptors::get();
        let volume = descriptors.message(descriptors.named("io.k8s.api.core.v1.Volume").unwrap());
        assert_eq!(
            volume.fields.iter().map(|field| field.name).collect::<Vec<_>>(),
            ["name", "volumeSource"]
        );
        let Kind::Inline(source) = volume.fields[1].kind else { panic!("{:?}", volume.fields[1]) };
        assert_eq!(descriptors.message(source).field(1).unwrap().name, "hostPath");
    }
}
