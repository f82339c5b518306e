//! Which strings may be DNS names, in upstream's words.

use std::borrow::Cow;

const LABEL_MAX: usize = 63;
/// The longest subdomain, in bytes.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub(crate) const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// What is wrong with a value; empty, and then without allocation, when nothing is.
type Messages = Vec<Cow<'static, str>>;

/// RFC 1123 label: container, volume and namespace names.
pub fn dns1123_label(value: &str) -> Messages {
    let form = match value {
        good if is_label(good) => None,
        dotted if is_subdomain(dotted) => Some("must not contain dots"),
        _ => Some(LABEL),
    };
    limited(value, LABEL_MAX, form)
}

/// RFC 1123 subdomain: the names of most objects.
pub fn dns1123_subdomain(value: &str) -> Messages {
    limited(value, SUBDOMAIN_MAX, (!is_subdomain(value)).then_some(SUBDOMAIN))
}

/// RFC 1035 label.
pub fn dns1035_label(value: &str) -> Messages {
    let is_good = is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase());
    limited(value, LABEL_MAX, (!is_good).then_some(LABEL_1035))
}

fn limited(value: &str, bytes_max: usize, form: Option<&'static str>) -> Messages {
    let mut messages = Messages::new();
    if value.len() > bytes_max {
        messages.push(format!("must be no more than {bytes_max} characters").into());
    }
    messages.extend(form.map(Cow::Borrowed));
    messages
}

/// Whether a text has the form of a label, however long it is.
pub(crate) fn is_label(text: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(is_edge)
        && bytes.last().is_some_and(is_edge)
        && bytes.iter().all(|byte| is_edge(byte) || *byte == b'-')
}

pub(crate) fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_form_and_a_length() {
        /// A check, what passes it, and what does not.
        type Case = (fn(&str) -> Messages, [&'static str; 3], [&'static str; 5]);
        let cases: [Case; 3] = [
            (dns1123_label, ["a", "a-b", "0a9"], ["", "-a", "a.b", "A", "\u{e4}"]),
            (dns1123_subdomain, ["a.b", "a-b.c0", "0"], ["a..b", ".a", "a_b", "A.b", ""]),
            (dns1035_label, ["a", "a1", "a-1"], ["1a", "", "a-", "a.b", "A"]),
        ];
        for (check, good, bad) in cases {
            good.iter().for_each(|text| assert_eq!(check(text), Messages::new(), "{text}"));
            bad.iter().for_each(|text| assert_eq!(check(text).len(), 1, "{text}"));
        }
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(dns1123_subdomain(&"a".repeat(254)), ["must be no more than 253 characters"]);
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
    }
}
