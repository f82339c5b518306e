//! Forms of strings: names, labels, keys, ports, percentages.
//!
//! Each function returns what is wrong with a value in upstream's words, which is nothing for a good value.

use std::borrow::Cow;

use apimachinery::field::go_quote;
use apimachinery::label;

pub use apimachinery::dns::{dns1035_label, dns1123_label, dns1123_subdomain};

use crate::strategy::NameRule;

/// What is wrong with a value; empty, and then without allocation, when nothing is.
pub type Messages = Vec<Cow<'static, str>>;

const SUBDOMAIN_MAX: usize = 253;
const PORT_NAME_MAX: usize = 15;

const DNS1123_SUBDOMAIN_UNDERSCORE: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const HTTP_HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const UID: &str = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
/// `must be between 1 and 65535, inclusive`.
pub const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether every byte is `inner` and the first and last are `edge`; false for the empty string.
fn framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => edge(*only),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|&byte| inner(byte)),
    }
}

fn too_long_characters(max: usize) -> Cow<'static, str> {
    format!("must be no more than {max} characters").into()
}

/// A subdomain whose labels may also contain underscores: DNS search paths.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Messages {
    let mut messages = Messages::new();
    if value.len() > SUBDOMAIN_MAX {
        messages.push(too_long_characters(SUBDOMAIN_MAX));
    }
    let label = |label: &str| {
        framed(label.strip_prefix('_').unwrap_or(label), lower_alphanumeric, |byte| {
            lower_alphanumeric(byte) || matches!(byte, b'-' | b'_')
        })
    };
    if !value.split('.').all(label) {
        messages.push(DNS1123_SUBDOMAIN_UNDERSCORE.into());
    }
    messages
}

/// A qualified name, `[prefix/]name`: label and annotation keys, resource names, finalizers, condition types.
pub fn qualified_name(value: &str) -> Messages {
    label::key_errors(value)
}

/// The value of a label.
pub fn label_value(value: &str) -> Messages {
    label::value_errors(value)
}

/// A key of a ConfigMap or Secret, which may become a file name.
pub fn config_map_key(value: &str) -> Messages {
    let mut messages = Messages::new();
    if value.len() > SUBDOMAIN_MAX {
        messages.push(too_long_characters(SUBDOMAIN_MAX));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(allowed) {
        messages.push(CONFIG_KEY.into());
    }
    match value {
        "." => messages.push("must not be '.'".into()),
        ".." => messages.push("must not be '..'".into()),
        _ if value.starts_with("..") => messages.push("must not start with '..'".into()),
        _ => {}
    }
    messages
}

/// The name of an environment variable, by the relaxed rule: any printable ASCII but `=`.
pub fn env_var_name(value: &str) -> Messages {
    let mut messages = Messages::new();
    if value.is_empty() {
        messages.push("environment variable name must be non-empty".into());
    }
    if !value.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=') {
        messages.push(ENV_NAME.into());
    }
    messages
}

/// A name as C has it.
pub fn c_identifier(value: &str) -> Messages {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if value.starts_with(is_letter) && value.chars().all(|c| is_letter(c) || c.is_ascii_digit()) {
        Messages::new()
    } else {
        vec![C_IDENTIFIER.into()]
    }
}

/// A UID in the one form that is written.
pub fn uid_form(value: &str) -> Messages {
    const URN: &str = "urn:uuid:";
    let digits = match value.len() {
        36 => Ok(value),
        45 => value
            .get(..9)
            .filter(|urn| urn.eq_ignore_ascii_case(URN))
            .map(|_| &value[9..])
            .ok_or_else(|| format!("invalid urn prefix: {}", go_quote(value.get(..9).unwrap_or(value)))),
        38 => value
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .ok_or_else(|| "invalid bracketed UUID format".to_owned()),
        32 => Ok(value),
        length => Err(format!("invalid UUID length: {length}")),
    };
    let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23) && value.len() != 32;
    let is_good = |digits: &str| {
        digits
            .bytes()
            .enumerate()
            .all(|(at, byte)| if is_dash(at) { byte == b'-' } else { byte.is_ascii_hexdigit() })
    };
    match digits {
        Err(why) => vec![format!("error validating uid: {why}").into()],
        Ok(digits) if !is_good(digits) => vec!["error validating uid: invalid UUID format".into()],
        Ok(_) if value.len() != 36 || value.bytes().any(|byte| byte.is_ascii_uppercase()) => vec![UID.into()],
        Ok(_) => Messages::new(),
    }
}

/// The IANA form of a port's name.
pub fn port_name(value: &str) -> Messages {
    let mut messages = Messages::new();
    if value.len() > PORT_NAME_MAX {
        messages.push(too_long_characters(PORT_NAME_MAX));
    }
    if value.is_empty() || !value.bytes().all(|byte| lower_alphanumeric(byte) || byte == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        messages.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        messages.push("must not begin or end with a hyphen".into());
    }
    messages
}

/// A port number.
pub fn port_number(port: i64) -> Messages {
    if (1..=65535).contains(&port) { Messages::new() } else { vec![PORT_RANGE.into()] }
}

/// A number within bounds, both included.
pub fn in_range(number: i64, low: i64, high: i64) -> Messages {
    if (low..=high).contains(&number) {
        Messages::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive").into()]
    }
}

/// A user or group ID.
pub fn unix_id(id: i64) -> Messages {
    in_range(id, 0, i64::from(i32::MAX))
}

/// `25%`.
pub fn percent(value: &str) -> Messages {
    match value.strip_suffix('%') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Messages::new()
        }
        _ => vec![PERCENT.into()],
    }
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Messages {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        Messages::new()
    } else {
        vec![HTTP_HEADER.into()]
    }
}

/// A name that is one segment of a URL path, or (with `prefix`) the start of one.
pub fn path_segment(value: &str, prefix: bool) -> Messages {
    if !prefix && matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'").into()];
    }
    ['/', '%']
        .iter()
        .filter(|&&c| value.contains(c))
        .map(|c| format!("may not contain '{c}'").into())
        .collect()
}

/// What is wrong with the name of an object; with `prefix` the value is a `generateName`, to which a suffix will be
/// added, so that it may end in a dash.
pub fn object_name(rule: NameRule, value: &str, prefix: bool) -> Messages {
    if rule == NameRule::PathSegment {
        return path_segment(value, prefix);
    }
    let masked;
    let value = if prefix && value.len() > 1 && value.ends_with('-') {
        masked = format!("{}a", &value[..value.len() - 1]);
        masked.as_str()
    } else {
        value
    };
    match rule {
        NameRule::DnsSubdomain => dns1123_subdomain(value),
        NameRule::DnsLabel => dns1123_label(value),
        NameRule::Dns1035Label => dns1035_label(value),
        NameRule::PathSegment => Messages::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_values_pass_and_bad_ones_say_why() {
        /// A check, what passes it, and what does not with how many messages.
        type Case = (fn(&str) -> Messages, &'static [&'static str], &'static [(&'static str, usize)]);
        let cases: &[Case] = &[
            (dns1123_label, &["a", "a-b", "0a9"], &[("", 1), ("-a", 1), ("a.b", 1), ("A", 1), ("ä", 1)]),
            (dns1123_subdomain, &["a.b", "a-b.c0"], &[("a..b", 1), (".a", 1), ("a_b", 1)]),
            (dns1123_subdomain_with_underscore, &["_a._b", "a_b.c"], &[("a_", 1), ("__a", 1)]),
            (dns1035_label, &["a1"], &[("1a", 1), ("", 1)]),
            (
                qualified_name,
                &["a", "A.b_c", "x.y/Z"],
                &[("", 2), ("/a", 1), ("a/", 2), ("A/b", 1), ("a/b/c", 1)],
            ),
            (label_value, &["", "A", "a_b"], &[("-", 1), ("a b", 1)]),
            (config_map_key, &["a", ".a", "A_b"], &[("", 1), ("..", 1), ("..a", 1), ("a/b", 1)]),
            (env_var_name, &["a", "1 b.c", "~"], &[("", 1), ("a=b", 1), ("ä", 1)]),
            (
                port_name,
                &["http", "a-1"],
                &[("", 2), ("1", 1), ("a--b", 1), ("-a", 1), ("sixteen-letters-", 2)],
            ),
            (c_identifier, &["_", "a1"], &[("", 1), ("1", 1), ("a-b", 1), ("ä", 1)]),
            (
                uid_form,
                &["0a1b2c3d-0000-4000-8000-00805f9b34fb"],
                &[
                    ("0A1b2c3d-0000-4000-8000-00805f9b34fb", 1),
                    ("0a1b2c3d000040008000008 05f9b34fb", 1),
                    ("{0a1b2c3d-0000-4000-8000-00805f9b34fb}", 1),
                    ("urn:uuid:0a1b2c3d-0000-4000-8000-00805f9b34fb", 1),
                    ("0a1b2c3d-0000-4000-8000-00805f9b34f-", 1),
                    ("x", 1),
                ],
            ),
            (percent, &["0%", "100%"], &[("%", 1), ("1", 1), ("1.5%", 1)]),
        ];
        for (index, (check, good, bad)) in cases.iter().enumerate() {
            for value in *good {
                assert_eq!(check(value), Messages::new(), "row {index}: {value:?} is good");
            }
            for (value, complaints) in *bad {
                assert_eq!(check(value).len(), *complaints, "row {index}: {value:?}: {:?}", check(value));
            }
        }
    }

    #[test]
    fn lengths_are_limited() {
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(dns1123_subdomain(&"a".repeat(254)), ["must be no more than 253 characters"]);
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
    }

    #[test]
    fn a_generated_name_may_end_in_a_dash() {
        assert!(object_name(NameRule::DnsLabel, "web-", true).is_empty());
        assert!(!object_name(NameRule::DnsLabel, "web-", false).is_empty());
        assert!(object_name(NameRule::PathSegment, "system:x", false).is_empty());
        assert_eq!(object_name(NameRule::PathSegment, "a/b%", false).len(), 2);
    }
}
