//! Selection by a few declared fields: `metadata.name=a,spec.nodeName!=b`.

use std::borrow::Cow;
use std::fmt;

use super::SelectorError;
use crate::Str;
use crate::field::go_quote;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// `spec.nodeName`
    pub field: Str,
    /// The field must have another value.
    pub negated: bool,
    pub value: Str,
}

/// All requirements must hold; none select everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    pub const fn everything() -> Self {
        Self { requirements: Vec::new() }
    }

    /// Equality of one field.
    pub fn one(field: &str, value: &str) -> Self {
        let requirement = FieldRequirement { field: field.into(), negated: false, value: value.into() };
        Self { requirements: vec![requirement] }
    }

    /// Reads `a=b,c==d,e!=f`; `\` escapes `,`, `=` and itself in values.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = terms(text);
        terms.sort_unstable();
        let requirements = terms
            .into_iter()
            .filter(|term| !term.is_empty())
            .map(|term| {
                let (field, negated, value) = split(term).ok_or_else(|| {
                    SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"))
                })?;
                Ok(FieldRequirement { field: field.into(), negated, value: unescape(value)?.into() })
            })
            .collect::<Result<_, SelectorError>>()?;
        Ok(Self { requirements })
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The one value a field must have, if a requirement fixes it; for index look-ups.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|requirement| !requirement.negated && requirement.field == field)
            .map(|requirement| requirement.value.as_str())
    }

    /// Adds the requirement that a field has a value.
    pub fn and(mut self, field: &str, value: &str) -> Self {
        self.requirements.extend(Self::one(field, value).requirements);
        self
    }

    /// The first field that is not among `supported`.
    pub fn first_unsupported(&self, supported: &[&str]) -> Option<&str> {
        self.requirements
            .iter()
            .map(|requirement| requirement.field.as_str())
            .find(|name| !supported.contains(name))
    }

    /// `value_of` gives a field's value, the empty string for an absent one.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Cow<'a, str>) -> bool {
        self.requirements.iter().all(|requirement| {
            (value_of(&requirement.field) == requirement.value.as_str()) != requirement.negated
        })
    }

    /// Upstream's error for a field that a kind with its own list of selectable fields does not have.
    pub fn unsupported_label(field: &str) -> String {
        format!("field label not supported: {field}")
    }

    /// Upstream's error for any field but the two that every kind has.
    pub fn unknown_field(field: &str) -> String {
        format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            go_quote(field)
        )
    }
}

/// Cuts at commas that are not escaped.
fn terms(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found
}

fn split(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(at, _)| {
        let rest = &term[at..];
        let (negated, value) = match rest.strip_prefix("!=") {
            Some(value) => (true, value),
            None => (false, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?),
        };
        Some((&term[..at], negated, value))
    })
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                Some(c) => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{c}"
                    )));
                }
                None => {
                    return Err(SelectorError("invalid field selector: invalid escape sequence: \\".into()));
                }
            },
            // Upstream prints the number of the character.
            ',' | '=' => {
                let text = format!("invalid field selector: unescaped character in value: {}", c as u32);
                return Err(SelectorError(text));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if requirement.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}", requirement.field)?;
            for c in requirement.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
