//! Which strings may be label keys and values, in upstream's words.

use std::borrow::Cow;

use crate::dns;

const NAME_MAX: usize = 63;
const PREFIX_MAX: usize = dns::SUBDOMAIN_MAX;

const KEY_FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_FORM: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with a label key; empty for a good one.
pub fn key_errors(key: &str) -> Vec<Cow<'static, str>> {
    let mut errors = Vec::new();
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((_, rest)) if rest.contains('/') => {
            return vec![
                format!("a valid label key {KEY_FORM} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")
                    .into(),
            ];
        }
        Some((prefix, name)) => (Some(prefix), name),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            errors.push("prefix part must be non-empty".into());
        } else {
            if prefix.len() > PREFIX_MAX {
                errors.push(format!("prefix part must be no more than {PREFIX_MAX} bytes").into());
            }
            if !dns::is_subdomain(prefix) {
                errors.push(format!("prefix part {}", dns::SUBDOMAIN).into());
            }
        }
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > NAME_MAX {
        errors.push(format!("name part must be no more than {NAME_MAX} bytes").into());
    }
    if !is_name(name) {
        errors.push(format!("name part {KEY_FORM}").into());
    }
    errors
}

/// What is wrong with a label value; empty for a good one.
pub fn value_errors(value: &str) -> Vec<Cow<'static, str>> {
    let mut errors = Vec::new();
    if value.len() > NAME_MAX {
        errors.push(format!("must be no more than {NAME_MAX} bytes").into());
    }
    if !value.is_empty() && !is_name(value) {
        errors.push(VALUE_FORM.into());
    }
    errors
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_an_optional_subdomain_and_a_name() {
        for good in ["a", "A.b_c-9", "example.com/Name", &"a".repeat(63)] {
            assert!(key_errors(good).is_empty(), "{good}");
        }
        for (bad, count) in
            [("", 2), ("/a", 1), ("a/", 2), ("A/b", 1), ("a/b/c", 1), ("-a", 1), (&*"a".repeat(64), 1)]
        {
            assert_eq!(key_errors(bad).len(), count, "{bad}");
        }
    }

    #[test]
    fn values_may_be_empty() {
        for (value, count) in [("", 0), ("a", 0), ("a b", 1), ("_a", 1), (&*"a".repeat(64), 1)] {
            assert_eq!(value_errors(value).len(), count, "{value}");
        }
    }
}
