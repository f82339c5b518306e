//! From bytes to a tree.

use apimachinery::time::{format_micros, format_seconds};
use apimachinery::{Map, Quantity, Str, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

use super::descriptor::{Descriptors, Field, Kind, Message, MessageId, Repeated};
use super::error::{Error, Fault};
use super::wire::{Payload, Reader};

/// Messages within messages. Real objects stay below 20; the JSON reader's limit of 128 levels lets schemas of custom
/// resources, which take two levels each, come to 64.
pub(super) const DEPTH_MAX: usize = 100;
/// The first instant of the year 1, which Go takes for no time at all, in seconds since 1970.
const GO_ZERO_TIME: i64 = -62_135_596_800;

/// Reads messages into maps without what Go would not hold: zeros of fields that are no pointers.
#[derive(Clone, Copy)]
pub(super) struct Decoder<'d> {
    pub descriptors: &'d Descriptors,
}

/// Entries of map fields, kept apart until the message ends so that unsorted keys cost one sort.
type Entries = Vec<(&'static str, Vec<(Str, Value)>)>;

impl Decoder<'_> {
    /// Adds the fields of a message to `map`, as Go merges a message that comes in parts.
    pub(super) fn message(
        self,
        id: MessageId,
        bytes: &[u8],
        map: &mut Map,
        depth: usize,
    ) -> Result<(), Error> {
        let message = self.descriptors.message(id);
        if depth > DEPTH_MAX {
            return Err(Error::at(message.name, "its beginning", Fault::Depth(DEPTH_MAX)));
        }
        let mut reader = Reader::new(bytes);
        let mut entries = Entries::new();
        let mut last = None;
        loop {
            let (number, payload) = match reader.next() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(fault) => return Err(Error::at(message.name, after(message, last), fault)),
            };
            last = Some(number);
            if let Some(field) = message.field(number) {
                self.field(field, payload, map, &mut entries, depth)
                    .map_err(|failure| failure.within(message, field))?;
            }
        }
        for (name, added) in entries {
            let before = map.remove(name);
            let before = match before {
                Some(Value::Object(before)) => before,
                _ => Map::new(),
            };
            map.insert(Str::const_new(name), before.into_iter().chain(added).collect::<Map>());
        }
        Ok(())
    }

    fn field(
        self,
        field: &Field,
        payload: Payload<'_>,
        map: &mut Map,
        entries: &mut Entries,
        depth: usize,
    ) -> Result<(), Failure> {
        match (field.repeated, field.kind) {
            (Repeated::Once, Kind::Inline(id)) => self.message(id, payload.bytes()?, map, depth + 1)?,
            (Repeated::Once, Kind::Message(id)) => {
                let mut inner = match map.remove(field.name) {
                    Some(Value::Object(inner)) => inner,
                    _ => Map::new(),
                };
                self.message(id, payload.bytes()?, &mut inner, depth + 1)?;
                put(map, field, Value::Object(inner));
            }
            (Repeated::Once, kind) => put(map, field, self.value(kind, payload, depth)?),
            (Repeated::List, kind) => {
                let list = map.get_or_insert_with(field.name, || Value::Array(Vec::new()));
                if let Value::Array(items) = list {
                    self.items(kind, payload, items, depth)?;
                }
            }
            (Repeated::Map, kind) => {
                let entry = self.entry(kind, payload.bytes()?, depth)?;
                match entries.iter_mut().find(|(name, _)| *name == field.name) {
                    Some((_, list)) => list.push(entry),
                    None => entries.push((field.name, vec![entry])),
                }
            }
        }
        Ok(())
    }

    /// One item, or several numbers in one piece (packed), which Go never writes but reads.
    fn items(
        self,
        kind: Kind,
        payload: Payload<'_>,
        items: &mut Vec<Value>,
        depth: usize,
    ) -> Result<(), Failure> {
        match (kind, payload) {
            (Kind::Bool | Kind::Int32 | Kind::Int64, Payload::Bytes(packed)) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    let number = Payload::Varint(reader.varint()?);
                    items.push(self.value(kind, number, depth)?);
                }
            }
            _ => items.push(self.value(kind, payload, depth)?),
        }
        Ok(())
    }

    fn entry(self, kind: Kind, bytes: &[u8], depth: usize) -> Result<(Str, Value), Failure> {
        let (mut key, mut value) = (Str::default(), None);
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next()? {
            match number {
                1 => key = Str::from_utf8_lossy(payload.bytes()?),
                2 => value = Some(self.value(kind, payload, depth + 1)?),
                _ => {}
            }
        }
        Ok((key, value.unwrap_or_else(|| zero(kind))))
    }

    /// Only what recurses is in this function itself, which keeps its frame on the stack small.
    fn value(self, kind: Kind, payload: Payload<'_>, depth: usize) -> Result<Value, Failure> {
        match kind {
            Kind::Message(id) | Kind::Inline(id) => self.object(id, payload, depth),
            Kind::PropsOrBool(id) => self.props_or_bool(id, payload.bytes()?, depth),
            Kind::PropsOrArray(id) => self.props_or_array(id, payload.bytes()?, depth),
            Kind::PropsOrStrings(id) => self.props_or_strings(id, payload.bytes()?, depth),
            Kind::Raw => raw(payload.bytes()?, depth),
            plain => self::plain(plain, payload),
        }
    }

    fn object(self, id: MessageId, payload: Payload<'_>, depth: usize) -> Result<Value, Failure> {
        let mut map = Map::new();
        self.message(id, payload.bytes()?, &mut map, depth + 1)?;
        Ok(Value::Object(map))
    }

    fn props_or_bool(self, id: MessageId, bytes: &[u8], depth: usize) -> Result<Value, Failure> {
        let (mut allows, mut schema) = (false, None);
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next()? {
            match number {
                1 => allows = payload.varint()? != 0,
                2 => schema = Some(self.object(id, payload, depth)?),
                _ => {}
            }
        }
        Ok(schema.unwrap_or(Value::Bool(allows)))
    }

    fn props_or_array(self, id: MessageId, bytes: &[u8], depth: usize) -> Result<Value, Failure> {
        let (mut schema, mut list) = (Value::Null, Vec::new());
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next()? {
            match number {
                1 => schema = self.object(id, payload, depth)?,
                2 => list.push(self.object(id, payload, depth)?),
                _ => {}
            }
        }
        Ok(if list.is_empty() { schema } else { Value::Array(list) })
    }

    fn props_or_strings(self, id: MessageId, bytes: &[u8], depth: usize) -> Result<Value, Failure> {
        let mut schema = Value::Null;
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next()? {
            if number == 1 {
                schema = self.object(id, payload, depth)?;
            }
        }
        Ok(match strings(bytes, 2)? {
            Value::Null => schema,
            list => list,
        })
    }
}

/// Puts a value where Go would hold it: nowhere, if it is a zero and no pointer.
fn put(map: &mut Map, field: &Field, value: Value) {
    let zero = match &value {
        Value::Null => true,
        _ if field.pointer => false,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == 0.0,
        Value::String(text) => match field.kind {
            Kind::Quantity => text == "0",
            // An empty slice is not nil.
            Kind::Bytes => false,
            _ => text.is_empty(),
        },
        Value::Array(items) => items.is_empty(),
        Value::Object(inner) => inner.is_empty() && matches!(field.kind, Kind::Message(_)),
    };
    if zero {
        map.remove(field.name);
    } else {
        map.insert(Str::const_new(field.name), value);
    }
}

/// A map entry without value.
fn zero(kind: Kind) -> Value {
    match kind {
        Kind::Bool => Value::from(false),
        Kind::Int32 | Kind::Int64 | Kind::Double | Kind::IntOrString => Value::from(0),
        Kind::String => Value::from(""),
        Kind::Quantity => Value::from("0"),
        Kind::PropsOrBool(_) => Value::from(false),
        Kind::Message(_) | Kind::Inline(_) => Value::object(),
        _ => Value::Null,
    }
}

/// A whole number is the integer that JSON would have been read as.
fn double(value: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}

/// A value without messages in it.
fn plain(kind: Kind, payload: Payload<'_>) -> Result<Value, Failure> {
    Ok(match kind {
        Kind::Bool => Value::from(payload.varint()? != 0),
        Kind::Int32 => Value::from(payload.varint()? as i32),
        Kind::Int64 => Value::from(payload.varint()? as i64),
        Kind::Double => double(payload.double()?),
        // Go takes any bytes for a string and replaces what is no text when it writes JSON.
        Kind::String => Value::String(Str::from_utf8_lossy(payload.bytes()?)),
        Kind::Bytes => Value::from(BASE64.encode(payload.bytes()?)),
        Kind::Quantity => quantity(payload.bytes()?)?,
        Kind::IntOrString => int_or_string(payload.bytes()?)?,
        Kind::Time => time(payload.bytes()?, false)?,
        Kind::MicroTime => time(payload.bytes()?, true)?,
        Kind::Strings => strings(payload.bytes()?, 1)?,
        Kind::Raw
        | Kind::PropsOrBool(_)
        | Kind::PropsOrArray(_)
        | Kind::PropsOrStrings(_)
        | Kind::Message(_)
        | Kind::Inline(_) => unreachable!("handled by the caller"),
    })
}

fn quantity(bytes: &[u8]) -> Result<Value, Failure> {
    let mut text = Str::const_new("0");
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if number == 1 {
            text = Str::from_utf8_lossy(payload.bytes()?);
        }
    }
    Ok(Quantity::canonicalize(&text).map_err(Fault::from)?.unwrap_or(text).into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Failure> {
    let (mut is_string, mut number_value, mut text) = (false, 0, Str::default());
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => is_string = payload.varint()? != 0,
            2 => number_value = payload.varint()? as i32,
            3 => text = Str::from_utf8_lossy(payload.bytes()?),
            _ => {}
        }
    }
    Ok(if is_string { text.into() } else { number_value.into() })
}

/// `null` for an empty message and for Go's zero time.
fn time(bytes: &[u8], micros: bool) -> Result<Value, Failure> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    if reader.is_empty() {
        return Ok(Value::Null);
    }
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => seconds = payload.varint()? as i64,
            2 => nanos = payload.varint()? as i32,
            _ => {}
        }
    }
    if seconds == GO_ZERO_TIME {
        return Ok(Value::Null);
    }
    let nanos = if micros { nanos } else { 0 };
    let time =
        Timestamp::new(seconds, nanos).ok().filter(|_| seconds > GO_ZERO_TIME).ok_or(Fault::Time(seconds))?;
    Ok(if micros { format_micros(time) } else { format_seconds(time) }.into())
}

/// JSON, or an object in an envelope.
fn raw(bytes: &[u8], depth: usize) -> Result<Value, Failure> {
    let mut held: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if number == 1 {
            held = payload.bytes()?;
        }
    }
    if held.is_empty() {
        return Ok(Value::Null);
    }
    if held.starts_with(super::MAGIC) {
        let embedded =
            super::decode_within(held, depth + 1).map_err(|error| Fault::Embedded(Box::new(error)))?;
        return Ok(embedded.value);
    }
    Ok(Value::parse(held).map_err(Fault::from)?)
}

/// The strings of one repeated field; `null` without any.
fn strings(bytes: &[u8], of: u32) -> Result<Value, Failure> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if number == of {
            list.push(Value::String(Str::from_utf8_lossy(payload.bytes()?)));
        }
    }
    Ok(if list.is_empty() { Value::Null } else { Value::Array(list) })
}

/// A fault that does not know its place yet, or one further in that does.
enum Failure {
    Here(Fault),
    Inside(Error),
}

impl Failure {
    fn within(self, message: &Message, field: &Field) -> Error {
        match self {
            Self::Here(fault) => Error::at(message.name, field.name, fault),
            Self::Inside(error) => error,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Here(fault)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Inside(error)
    }
}

/// Where bytes are broken that belong to no field yet.
fn after(message: &Message, last: Option<u32>) -> String {
    match last.map(|number| (number, message.field(number))) {
        Some((_, Some(field))) => format!("the tag after {}", field.name),
        Some((number, None)) => format!("the tag after field {number}"),
        None => "the first tag".to_owned(),
    }
}
