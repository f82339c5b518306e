//! The names of properties in expressions.

use std::borrow::Cow;

use crate::parser::RESERVED;

/// Whether a word cannot stand in expressions as it is.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// How expressions spell a property, if they can.
pub fn escape(property: &str) -> Option<Cow<'_, str>> {
    if property.is_empty() || property.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_reserved(property) {
        return Some(format!("__{property}__").into());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if !property.chars().all(allowed) {
        return None;
    }
    if !property.contains(['.', '-', '/']) && !property.contains("__") {
        return Some(property.into());
    }
    let escaped = property
        .replace("__", "\u{0}")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
        .replace('\u{0}', "__underscores__");
    Some(escaped.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_upstream() {
        for (property, name) in [
            ("plain", Some("plain")),
            ("a_b", Some("a_b")),
            ("a.b-c/d", Some("a__dot__b__dash__c__slash__d")),
            ("a__b", Some("a__underscores__b")),
            ("namespace", Some("__namespace__")),
            ("_a", Some("_a")),
            ("1a", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escape(property).as_deref(), name, "{property}");
        }
    }
}
