//! The prose of the documents: what types and fields are for, as `kubectl explain` shows it.
//!
//! It is by far the largest part of a document and asked for seldom, so it is compiled in packed and unpacked for the
//! making of one document.

use std::collections::HashMap;
use std::io::Read as _;

/// Written by `cargo xtask codegen-descriptions`: a type at the start of a line, its fields indented below it, a tab
/// before each description.
const PACKED: &[u8] = include_bytes!("../../data/descriptions.txt.gz");

/// All descriptions, unpacked.
pub(super) struct Descriptions {
    text: String,
    /// Where a type's lines begin and end, by its name without prefix.
    places: HashMap<String, (usize, usize)>,
}

impl Descriptions {
    pub(super) fn unpack() -> Self {
        let mut text = String::new();
        flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text).expect("the table was packed by us");
        let mut places: HashMap<String, (usize, usize)> = HashMap::new();
        let (mut at, mut open) = (0, None::<(String, usize)>);
        for line in text.split_inclusive('\n') {
            if !line.starts_with(' ') {
                if let Some((name, start)) = open.take() {
                    places.insert(name, (start, at));
                }
                open = line.split_once('\t').map(|(name, _)| (name.to_owned(), at));
            }
            at += line.len();
        }
        if let Some((name, start)) = open {
            places.insert(name, (start, at));
        }
        Self { text, places }
    }

    /// What a type is for; fields are asked for with [`Descriptions::field`].
    pub(super) fn of(&self, name: &str) -> Option<String> {
        let line = self.lines(name)?.next()?;
        text_of(line)
    }

    pub(super) fn field(&self, name: &str, field: &str) -> Option<String> {
        let mut lines = self.lines(name)?.skip(1);
        let line =
            lines.find(|line| line[1..].strip_prefix(field).is_some_and(|rest| rest.starts_with('\t')))?;
        text_of(line)
    }

    fn lines(&self, name: &str) -> Option<std::str::Lines<'_>> {
        let (start, end) = *self.places.get(name)?;
        Some(self.text[start..end].lines())
    }
}

/// The description of a line, if it is not empty.
fn text_of(line: &str) -> Option<String> {
    let (_, escaped) = line.split_once('\t')?;
    let mut text = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => text.push('\n'),
                Some(other) => text.push(other),
                None => {}
            },
            (c, false) => text.push(c),
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_say_what_they_are_for() {
        let descriptions = Descriptions::unpack();
        let pod = descriptions.of("api.core.v1.Pod").unwrap();
        assert!(pod.starts_with("Pod is a collection of containers"), "{pod}");
        let replicas = descriptions.field("api.apps.v1.DeploymentSpec", "replicas").unwrap();
        assert!(replicas.contains("Defaults to 1."), "{replicas}");
        assert_eq!(descriptions.field("api.core.v1.Pod", "nope"), None);
        assert_eq!(descriptions.of("api.core.v1.Nope"), None);
    }

    #[test]
    fn nearly_every_field_of_the_tables_has_one() {
        let descriptions = Descriptions::unpack();
        let (mut with, mut without) = (0, 0);
        let served = |name: &str| descriptions.of(name).is_some();
        for definition in crate::builtin::tables::definitions().filter(|own| served(own.name)) {
            for field in definition.fields() {
                match descriptions.field(definition.name, field.name) {
                    Some(_) => with += 1,
                    None => without += 1,
                }
            }
        }
        assert!(with > 2_500 && without * 50 < with, "{with} with, {without} without");
    }
}
