//! From a tree to the bytes that Go would write.

use apimachinery::{Map, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::decoder::DEPTH_MAX;
use super::descriptor::{Descriptors, Field, Kind, MessageId, Repeated};
use super::error::{Error, Fault};
use super::wire::{write_bytes, write_delimited, write_double, write_int};

#[derive(Clone, Copy)]
pub(super) struct Encoder<'d> {
    pub descriptors: &'d Descriptors,
}

/// The field that is being written, for errors.
#[derive(Clone, Copy)]
struct Place<'a> {
    message: &'static str,
    field: &'a Field,
    depth: usize,
}

impl Encoder<'_> {
    /// Writes the fields of a message; without a map that of Go's zero value.
    pub(super) fn message(
        self,
        id: MessageId,
        map: Option<&Map>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Error> {
        let message = self.descriptors.message(id);
        if depth > DEPTH_MAX {
            return Err(Error::at(message.name, "its beginning", Fault::Depth(DEPTH_MAX)));
        }
        for field in &message.fields {
            let place = Place { message: message.name, field, depth };
            if let Kind::Inline(inner) = field.kind {
                write_delimited(out, field.number, |out| self.message(inner, map, out, depth + 1))?;
                continue;
            }
            let value = map.and_then(|map| map.get(field.name)).unwrap_or(&Value::Null);
            match field.repeated {
                Repeated::Once if value.is_null() && (field.pointer || field.kind == Kind::Bytes) => {}
                Repeated::Once => self.value(place, field.number, value, out)?,
                Repeated::List => self.list(place, value, out)?,
                Repeated::Map => self.entries(place, value, out)?,
            }
        }
        Ok(())
    }

    fn list(self, place: Place<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match value {
            Value::Null => Ok(()),
            Value::Array(items) => {
                items.iter().try_for_each(|item| self.value(place, place.field.number, item, out))
            }
            _ => Err(place.wants("array")),
        }
    }

    /// Keys are sorted in a tree already.
    fn entries(self, place: Place<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match value {
            Value::Null => Ok(()),
            Value::Object(map) => map.iter().try_for_each(|(key, value)| {
                write_delimited(out, place.field.number, |out| {
                    write_bytes(out, 1, key.as_bytes());
                    if value.is_null() && place.field.kind == Kind::Bytes {
                        return Ok(());
                    }
                    self.value(place, 2, value, out)
                })
            }),
            _ => Err(place.wants("object")),
        }
    }

    /// Writes one field; `null` is the zero value. Only what recurses is in this function itself, which keeps its
    /// frame on the stack small.
    fn value(self, place: Place<'_>, number: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match place.field.kind {
            Kind::Message(id) => self.object(place, id, number, value, out),
            Kind::PropsOrBool(id) | Kind::PropsOrArray(id) | Kind::PropsOrStrings(id) => {
                write_delimited(out, number, |out| self.props(place, id, value, out))
            }
            _ => plain(place, number, value, out),
        }
    }

    /// A schema or something simpler in its place.
    fn props(self, place: Place<'_>, id: MessageId, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let (schema, list) = match place.field.kind {
            Kind::PropsOrBool(_) => {
                write_int(out, 1, i64::from(value.as_bool().unwrap_or(value.is_object())));
                (2, 0)
            }
            _ => (1, 2),
        };
        match value {
            Value::Null => Ok(()),
            Value::Bool(_) if place.field.kind == Kind::PropsOrBool(id) => Ok(()),
            Value::Array(items) if place.field.kind == Kind::PropsOrArray(id) => {
                items.iter().try_for_each(|item| self.object(place, id, list, item, out))
            }
            Value::Array(_) if place.field.kind == Kind::PropsOrStrings(id) => {
                strings(place, list, value, out)
            }
            other => self.object(place, id, schema, other, out),
        }
    }

    /// A message that is an object in JSON.
    fn object(
        self,
        place: Place<'_>,
        id: MessageId,
        number: u32,
        value: &Value,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let map = place.map(value)?;
        write_delimited(out, number, |out| self.message(id, map, out, place.depth + 1))
    }
}

impl Place<'_> {
    fn wants(self, wanted: &'static str) -> Error {
        Error::at(self.message, self.field.name, Fault::Type { wanted })
    }

    /// What was read from a value, or zero for `null`.
    fn of<T: Default>(self, value: &Value, read: Option<T>, wanted: &'static str) -> Result<T, Error> {
        match read {
            Some(read) => Ok(read),
            None if value.is_null() => Ok(T::default()),
            None => Err(self.wants(wanted)),
        }
    }

    fn text(self, value: &Value) -> Result<&str, Error> {
        self.of(value, value.as_str(), "string")
    }

    fn map(self, value: &Value) -> Result<Option<&Map>, Error> {
        match value {
            Value::Object(map) => Ok(Some(map)),
            Value::Null => Ok(None),
            _ => Err(self.wants("object")),
        }
    }
}

/// A value without other messages in it.
fn plain(place: Place<'_>, number: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match place.field.kind {
        Kind::Bool => write_int(out, number, i64::from(place.of(value, value.as_bool(), "boolean")?)),
        Kind::Int32 => {
            let wide = place.of(value, value.as_i64(), "32-bit integer")?;
            let narrow = i32::try_from(wide).map_err(|_| place.wants("32-bit integer"))?;
            write_int(out, number, narrow.into());
        }
        Kind::Int64 => write_int(out, number, place.of(value, value.as_i64(), "integer")?),
        Kind::Double => write_double(out, number, place.of(value, value.as_f64(), "number")?),
        Kind::String => write_bytes(out, number, place.text(value)?.as_bytes()),
        Kind::Bytes => {
            let bytes = BASE64.decode(place.text(value)?).map_err(|_| place.wants("base64 string"))?;
            write_bytes(out, number, &bytes);
        }
        _ => write_delimited(out, number, |out| special(place, value, out))?,
    }
    Ok(())
}

/// The content of a message that has a form of its own in JSON.
fn special(place: Place<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match place.field.kind {
        Kind::Quantity => {
            let text = place.text(value)?;
            write_bytes(out, 1, if text.is_empty() { b"0" } else { text.as_bytes() });
            Ok(())
        }
        Kind::IntOrString => int_or_string(place, value, out),
        Kind::Time => time(place, value, false, out),
        Kind::MicroTime => time(place, value, true, out),
        Kind::Strings => strings(place, 1, value, out),
        Kind::Raw if value.is_null() => Ok(()),
        Kind::Raw => {
            write_bytes(out, 1, &value.to_json());
            Ok(())
        }
        _ => Err(place.wants("of a form that protobuf has")),
    }
}

fn int_or_string(place: Place<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let text = value.as_str();
    let number = if text.is_some() { 0 } else { place.of(value, value.as_i64(), "integer or string")? };
    let number = i32::try_from(number).map_err(|_| place.wants("32-bit integer or string"))?;
    write_int(out, 1, i64::from(text.is_some()));
    write_int(out, 2, number.into());
    write_bytes(out, 3, text.unwrap_or_default().as_bytes());
    Ok(())
}

/// Nothing for Go's zero time.
fn time(place: Place<'_>, value: &Value, micros: bool, out: &mut Vec<u8>) -> Result<(), Error> {
    if value.is_null() {
        return Ok(());
    }
    let wanted = || place.wants("RFC 3339 time");
    let time = value.as_str().and_then(apimachinery::time::parse).ok_or_else(wanted)?;
    write_int(out, 1, time.as_nanosecond().div_euclid(1_000_000_000) as i64);
    let nanos = time.as_nanosecond().rem_euclid(1_000_000_000) as i64;
    write_int(out, 2, if micros { nanos / 1000 * 1000 } else { 0 });
    Ok(())
}

fn strings(place: Place<'_>, number: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::Null => Ok(()),
        Value::Array(items) => items.iter().try_for_each(|item| {
            let text = item.as_str().ok_or_else(|| place.wants("list of strings"))?;
            write_bytes(out, number, text.as_bytes());
            Ok(())
        }),
        _ => Err(place.wants("list of strings")),
    }
}
