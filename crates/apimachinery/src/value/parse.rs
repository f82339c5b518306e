//! Reading JSON and YAML into a [`Value`].

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Map, Number, Str, Value, json};

/// The input is not a JSON or YAML document.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The text names line and column.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Yaml(String),
}

impl ParseError {
    /// The error as Go's `encoding/json` would word it, where that can be told.
    pub fn go_text(&self, json: &[u8]) -> String {
        let Self::Json(error) = self else { return self.to_string() };
        if error.is_eof() {
            return "unexpected end of JSON input".to_owned();
        }
        let line_start = json
            .split_inclusive(|byte| *byte == b'\n')
            .take(error.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum::<usize>();
        let at = line_start + error.column().saturating_sub(1);
        let found = json.get(at).map_or(' ', |byte| char::from(*byte));
        let text = error.to_string();
        if text.starts_with("key must be a string") {
            format!("invalid character '{found}' looking for beginning of object key string")
        } else if text.starts_with("expected value") || text.starts_with("expected ident") {
            format!("invalid character '{found}' looking for beginning of value")
        } else if text.starts_with("trailing characters") {
            format!("invalid character '{found}' after top-level value")
        } else {
            text
        }
    }
}

/// A parsed document and what a strict reader would object to.
#[derive(Debug)]
pub struct Parsed {
    pub value: Value,
    /// Paths of fields that occurred more than once (`spec.replicas`); the last occurrence was kept.
    pub duplicates: Vec<String>,
}

impl Value {
    /// Parses one JSON document; of duplicate fields the last wins, of duplicate objects every field. Nesting is limited
    /// to 128 levels.
    pub fn parse(json: &[u8]) -> Result<Value, ParseError> {
        Self::parse_noting_duplicates(json).map(|(value, _)| value)
    }

    /// Parses one JSON document and lists its duplicate fields.
    pub fn parse_strict(json: &[u8]) -> Result<Parsed, ParseError> {
        let (value, any) = Self::parse_noting_duplicates(json)?;
        let duplicates = if any { duplicate_paths(json)? } else { Vec::new() };
        Ok(Parsed { value, duplicates })
    }

    /// Parses one YAML document, reading scalars as Go's YAML-to-JSON does (`yes` and `on` are booleans); of duplicate
    /// fields the last wins.
    pub fn parse_yaml(yaml: &str) -> Result<Value, ParseError> {
        let options =
            serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
        serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
            // The first line says what and where; the drawing of the place below it does not fit into an API error.
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            ParseError::Yaml(first.strip_prefix("error: ").unwrap_or(first).to_owned())
        })
    }

    /// What go-yaml says in strict mode of the first field that a YAML document gives twice.
    pub fn duplicate_in_yaml(yaml: &str) -> Option<String> {
        let options =
            serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error };
        let error = serde_saphyr::from_str_with_options::<Value>(yaml, options).err()?;
        let serde_saphyr::Error::DuplicateMappingKey { key, location } = error.without_snippet() else {
            return None;
        };
        let key = crate::field::go_quote(key.as_deref().unwrap_or_default());
        Some(format!("yaml: unmarshal errors:\n  line {}: key {key} already set in map", location.line()))
    }

    fn parse_noting_duplicates(json: &[u8]) -> Result<(Value, bool), ParseError> {
        json::read(json).map_or_else(|| slow(json), Ok)
    }
}

/// Reads any JSON, or says what is wrong with it.
pub(super) fn slow(json: &[u8]) -> Result<(Value, bool), ParseError> {
    let duplicates = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Seed { duplicates: &duplicates }.deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, duplicates.get()))
}

impl<'de> de::Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Seed { duplicates: &Cell::new(false) }.deserialize(deserializer)
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    duplicates: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(Number::Int(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(Number::Float(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(Str::from(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::with_capacity(items.size_hint().unwrap_or(0).min(64));
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = fields.next_key_seed(KeySeed)? {
            entries.push((key, fields.next_value_seed(self)?));
        }
        let (map, duplicates) = Map::from_unsorted(entries);
        if duplicates {
            self.duplicates.set(true);
        }
        Ok(Value::Object(map))
    }
}

/// Reads a key; YAML allows numbers and booleans there, which become their text as in Go.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Str;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Str, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, text: &str) -> Result<Str, E> {
        Ok(text.into())
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Str, E> {
        Ok(if flag { "true" } else { "false" }.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Str, E> {
        Ok(compact_str::format_compact!("{number}"))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Str, E> {
        Ok(compact_str::format_compact!("{number}"))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Str, E> {
        Ok(compact_str::format_compact!("{number}"))
    }
}

/// The slow second pass: only run when the first one met a duplicate.
fn duplicate_paths(json: &[u8]) -> Result<Vec<String>, ParseError> {
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    DuplicateFinder { path: String::new(), found: &mut found }.deserialize(&mut reader)?;
    Ok(found)
}

struct DuplicateFinder<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for DuplicateFinder<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DuplicateFinder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        let found = self.found;
        while items
            .next_element_seed(DuplicateFinder {
                path: format!("{}[{index}]", self.path),
                found: &mut *found,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            if !seen.insert(key) && !self.found.contains(&path) {
                self.found.push(path.clone());
            }
            fields.next_value_seed(DuplicateFinder { path, found: &mut *self.found })?;
        }
        Ok(())
    }
}
