//! OpenAPI 2.0 in the protobuf form of gnostic's `openapi.v2.Document`, which older clients ask for.
//!
//! Encodes the same JSON items that [`super::v2`] writes, one at a time. Only fields that our documents have are
//! known here; their numbers are those of the public `OpenAPIv2.proto`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::definitions::{Dialect, Kinds, Types};
use super::{paths, v2};
use crate::Resource;

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

pub(super) fn document(types: &Types, resources: &[Arc<Resource>]) -> Vec<u8> {
    let mut needed = types.needed();
    let paths = paths::all(types, resources).map(|item| {
        needed.add_path(&item);
        (path_item(&v2::path_item(&item)), item.path)
    });
    let mut document = Message(Vec::with_capacity(1 << 20));
    document.text(1, "2.0");
    document.message(2, &info(&v2::info()));
    document.message(8, &named(2, paths));
    let definition = |own| schema(&types.schema(own, Dialect::V2, Kinds::All));
    let definitions = needed.types();
    document.message(9, &named(1, definitions.iter().map(|(name, own)| (definition(own), name))));
    let shared = types.shared.all().iter();
    document.message(10, &named(1, shared.map(|own| (parameter(&v2::shared_parameter(own)), own.key))));
    document.message(12, &named(1, std::iter::once((Message::default(), "BearerToken"))));
    let definitions = v2::security_definitions();
    let entries = definitions.as_object().into_iter().flatten();
    document.message(13, &named(1, entries.map(|(name, own)| (Message::of(2, &api_key(own)), name))));
    document.0
}

impl Message {
    /// A message with one message in it: how alternatives are written.
    fn of(field: u32, inner: &Self) -> Self {
        let mut message = Self::default();
        message.message(field, inner);
        message
    }

    fn message(&mut self, field: u32, inner: &Self) {
        self.bytes(field, &inner.0);
    }

    /// Empty text is left out, as proto3 does.
    fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, list: &Value) {
        for text in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if value == true {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
    }

    fn integer(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number != 0) {
            self.varint(u64::from(field) << 3);
            self.varint(number.cast_unsigned());
        }
    }

    fn double(&mut self, field: u32, value: &Value) {
        const FIXED_64: u64 = 1;
        if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
            self.varint(u64::from(field) << 3 | FIXED_64);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Everything that is not part of OpenAPI itself, as entries of name and YAML; JSON is YAML too.
    fn extensions(&mut self, field: u32, value: &Value) {
        for (key, value) in fields(value).filter(|(key, _)| key.starts_with("x-")) {
            let mut entry = Self::default();
            entry.text(1, key);
            entry.message(2, &yaml(value));
            self.message(field, &entry);
        }
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        const LENGTH_DELIMITED: u64 = 2;
        self.varint(u64::from(field) << 3 | LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

/// Entries of name and message in a repeated field: protobuf's form of an object with arbitrary keys.
fn named(field: u32, entries: impl Iterator<Item = (Message, impl AsRef<str>)>) -> Message {
    let mut all = Message::default();
    for (value, name) in entries {
        let mut entry = Message::default();
        entry.text(1, name.as_ref());
        entry.message(2, &value);
        all.message(field, &entry);
    }
    all
}

fn info(value: &Value) -> Message {
    let mut info = Message::default();
    info.text(1, text(value, "title"));
    info.text(2, text(value, "version"));
    info
}

fn api_key(value: &Value) -> Message {
    let mut security = Message::default();
    security.text(1, text(value, "type"));
    security.text(2, text(value, "name"));
    security.text(3, text(value, "in"));
    security
}

fn path_item(value: &Value) -> Message {
    const METHODS: [(&str, u32); 7] =
        [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    let mut item = Message::default();
    for (method, field) in METHODS {
        if let Some(own) = value.get(method) {
            item.message(field, &operation(own));
        }
    }
    for own in list(&value["parameters"]) {
        item.message(9, &parameter_item(own));
    }
    item
}

fn operation(value: &Value) -> Message {
    let mut operation = Message::default();
    operation.texts(1, &value["tags"]);
    operation.text(5, text(value, "operationId"));
    operation.texts(6, &value["produces"]);
    operation.texts(7, &value["consumes"]);
    for own in list(&value["parameters"]) {
        operation.message(8, &parameter_item(own));
    }
    operation.message(9, &named(1, fields(&value["responses"]).map(|(code, own)| (response(own), code))));
    operation.texts(10, &value["schemes"]);
    operation.extensions(13, value);
    operation
}

/// A response, as one of the alternatives of a response value.
fn response(value: &Value) -> Message {
    let mut response = Message::default();
    response.text(1, text(value, "description"));
    if let Some(own) = value.get("schema") {
        response.message(2, &Message::of(1, &schema(own)));
    }
    Message::of(1, &response)
}

/// A parameter or a reference to a shared one.
fn parameter_item(value: &Value) -> Message {
    match text(value, "$ref") {
        "" => Message::of(1, &parameter(value)),
        target => {
            let mut reference = Message::default();
            reference.text(1, target);
            Message::of(2, &reference)
        }
    }
}

fn parameter(value: &Value) -> Message {
    match text(value, "in") {
        "body" => {
            let mut body = Message::default();
            body.text(2, text(value, "name"));
            body.text(3, "body");
            body.flag(4, &value["required"]);
            body.message(5, &schema(&value["schema"]));
            Message::of(1, &body)
        }
        "path" => {
            let mut path = Message::default();
            path.flag(1, &value["required"]);
            path.text(2, "path");
            path.text(4, text(value, "name"));
            path.text(5, text(value, "type"));
            path.flag(19, &value["uniqueItems"]);
            Message::of(2, &Message::of(4, &path))
        }
        place => {
            let mut query = Message::default();
            query.flag(1, &value["required"]);
            query.text(2, place);
            query.text(4, text(value, "name"));
            query.text(6, text(value, "type"));
            query.flag(20, &value["uniqueItems"]);
            Message::of(2, &Message::of(3, &query))
        }
    }
}

fn schema(value: &Value) -> Message {
    let mut own = Message::default();
    own.text(1, text(value, "$ref"));
    own.text(2, text(value, "format"));
    if let Some(default) = value.get("default") {
        own.message(5, &yaml(default));
    }
    own.text(3, text(value, "title"));
    own.text(4, text(value, "description"));
    for (key, field) in [("multipleOf", 6), ("maximum", 7), ("minimum", 9)] {
        own.double(field, &value[key]);
    }
    own.flag(8, &value["exclusiveMaximum"]);
    own.flag(10, &value["exclusiveMinimum"]);
    for (key, field) in [
        ("maxLength", 11),
        ("minLength", 12),
        ("maxItems", 14),
        ("minItems", 15),
        ("maxProperties", 17),
        ("minProperties", 18),
    ] {
        own.integer(field, &value[key]);
    }
    own.text(13, text(value, "pattern"));
    own.texts(19, &value["required"]);
    for choice in list(&value["enum"]) {
        own.message(20, &yaml(choice));
    }
    match value.get("additionalProperties") {
        Some(Value::Bool(any)) => {
            let mut item = Message::default();
            item.flag(2, &(*any).into());
            own.message(21, &item);
        }
        Some(values) => own.message(21, &Message::of(1, &schema(values))),
        None => {}
    }
    if let Some(kind) = value["type"].as_str() {
        let mut item = Message::default();
        item.text(1, kind);
        own.message(22, &item);
    }
    if let Some(items) = value.get("items") {
        own.message(23, &Message::of(1, &schema(items)));
    }
    if let Some(properties) = value.get("properties") {
        let properties = fields(properties).map(|(name, field)| (schema(field), name));
        own.message(25, &named(1, properties));
    }
    own.extensions(31, value);
    own
}

/// A value of any shape, as YAML text.
fn yaml(value: &Value) -> Message {
    let mut any = Message::default();
    any.text(2, &format!("{value}\n"));
    any
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}
