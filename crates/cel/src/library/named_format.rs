//! Named formats of strings: `format.dns1123Label().validate(name)`.

use std::borrow::Cow;

use apimachinery::dns::{dns1035_label, dns1123_label, dns1123_subdomain};
use apimachinery::label;

use super::{Row, url::Url};
use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::time;
use crate::value::{Evaluated, Value};

/// A named format.
#[derive(Debug)]
pub struct NamedFormat {
    /// As the function after `format.` is called.
    function: &'static str,
    pub(crate) name: &'static str,
    validate: fn(&str) -> Messages,
    /// Length of the pattern that upstream checks with, for accounting.
    pub(crate) pattern_length: u64,
}

/// What is wrong with a text, in upstream's words.
type Messages = Vec<Cow<'static, str>>;

static FORMATS: [NamedFormat; 13] = [
    NamedFormat {
        function: "dns1123Label",
        name: "DNS1123Label",
        validate: dns1123_label,
        pattern_length: 30,
    },
    NamedFormat {
        function: "dns1123Subdomain",
        name: "DNS1123Subdomain",
        validate: dns1123_subdomain,
        pattern_length: 60,
    },
    NamedFormat {
        function: "dns1035Label",
        name: "DNS1035Label",
        validate: dns1035_label,
        pattern_length: 30,
    },
    NamedFormat {
        function: "qualifiedName",
        name: "QualifiedName",
        validate: label::key_errors,
        pattern_length: 60,
    },
    NamedFormat {
        function: "dns1123LabelPrefix",
        name: "DNS1123LabelPrefix",
        validate: |text| dns1123_label(&without_trailing_dash(text)),
        pattern_length: 30,
    },
    NamedFormat {
        function: "dns1123SubdomainPrefix",
        name: "DNS1123SubdomainPrefix",
        validate: |text| dns1123_subdomain(&without_trailing_dash(text)),
        pattern_length: 60,
    },
    NamedFormat {
        function: "dns1035LabelPrefix",
        name: "DNS1035LabelPrefix",
        validate: |text| dns1035_label(&without_trailing_dash(text)),
        pattern_length: 30,
    },
    NamedFormat {
        function: "labelValue",
        name: "LabelValue",
        validate: label::value_errors,
        pattern_length: 40,
    },
    NamedFormat {
        function: "uri",
        name: "URI",
        validate: |text| Url::parse(text).err().map(Cow::Owned).into_iter().collect(),
        pattern_length: 1_103,
    },
    NamedFormat {
        function: "uuid",
        name: "uuid",
        validate: |text| complain_unless(is_uuid(text), "does not match the UUID format"),
        pattern_length: 69,
    },
    NamedFormat {
        function: "byte",
        name: "byte",
        validate: |text| complain_unless(is_base64(text), "invalid base64"),
        pattern_length: 84,
    },
    NamedFormat {
        function: "date",
        name: "date",
        validate: |text| {
            let date = text.len() == 10 && time::parse_date_or_timestamp(text).is_some();
            complain_unless(date, "invalid date")
        },
        pattern_length: 72,
    },
    NamedFormat {
        function: "datetime",
        name: "datetime",
        validate: |text| complain_unless(time::parse_timestamp(text).is_some(), "invalid datetime"),
        pattern_length: 72,
    },
];

pub(super) const FUNCTIONS: &[Row] = &[
    ("validate", validate, &[("format-validate", "format::f(string) -> optional<list<string>>")]),
    ("format.named", named, &[("format-named", "f(string) -> optional<format>")]),
    ("format.dns1123Label", |_| constant(0), &[("format.dns1123Label", "f() -> format")]),
    ("format.dns1123Subdomain", |_| constant(1), &[("format.dns1123Subdomain", "f() -> format")]),
    ("format.dns1035Label", |_| constant(2), &[("format.dns1035Label", "f() -> format")]),
    ("format.qualifiedName", |_| constant(3), &[("format.qualifiedName", "f() -> format")]),
    ("format.dns1123LabelPrefix", |_| constant(4), &[("format.dns1123LabelPrefix", "f() -> format")]),
    ("format.dns1123SubdomainPrefix", |_| constant(5), &[("format.dns1123SubdomainPrefix", "f() -> format")]),
    ("format.dns1035LabelPrefix", |_| constant(6), &[("format.dns1035LabelPrefix", "f() -> format")]),
    ("format.labelValue", |_| constant(7), &[("format.labelValue", "f() -> format")]),
    ("format.uri", |_| constant(8), &[("format.uri", "f() -> format")]),
    ("format.uuid", |_| constant(9), &[("format.uuid", "f() -> format")]),
    ("format.byte", |_| constant(10), &[("format.byte", "f() -> format")]),
    ("format.date", |_| constant(11), &[("format.date", "f() -> format")]),
    ("format.datetime", |_| constant(12), &[("format.datetime", "f() -> format")]),
];

fn constant<'a>(index: usize) -> Evaluated<'a> {
    Ok(Value::opaque(Opaques::NamedFormat(&FORMATS[index])))
}

fn named<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(name)] = args else { return Err(EvalError::no_such_overload()) };
    Ok(match FORMATS.iter().find(|format| format.function == &**name) {
        Some(format) => Value::some(Value::opaque(Opaques::NamedFormat(format))),
        None => Value::Optional(None),
    })
}

fn validate<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::Opaque(format), Value::String(text)] = args else {
        return Err(EvalError::no_such_overload());
    };
    let Opaques::NamedFormat(format) = &**format else { return Err(EvalError::no_such_overload()) };
    let messages = (format.validate)(text);
    Ok(if messages.is_empty() {
        Value::Optional(None)
    } else {
        Value::some(Value::list(messages.into_iter().map(|message| Value::text(&*message)).collect()))
    })
}

fn complain_unless(good: bool, message: &'static str) -> Messages {
    if good { Vec::new() } else { vec![message.into()] }
}

/// A prefix of generated names may end in a dash, because something follows it.
fn without_trailing_dash(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => text.into(),
    }
}

fn is_uuid(text: &str) -> bool {
    let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let dashed = [8, 13, 18, 23].iter().all(|&at| text.as_bytes().get(at) == Some(&b'-'));
    hex.len() == 32
        && hex.iter().all(u8::is_ascii_hexdigit)
        && (text.len() == 32 || text.len() == 36 && dashed)
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}
