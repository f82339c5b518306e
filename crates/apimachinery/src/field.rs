//! Field paths and the validation errors that carry them.
//!
//! Texts follow upstream's `k8s.io/apimachinery/pkg/util/validation/field`: `spec.replicas: Invalid value: -1: must
//! be greater than or equal to 0`.

use std::fmt;

use crate::{Number, Value};

/// Where in an object an error lies, as a linked list on the stack: making a child path costs nothing, and only
/// an error turns the path into text.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    None,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself, for rules that find their paths from the top; Go prints it as a nil pointer.
    pub const NONE: Path<'static> = Path { parent: None, step: Step::None };

    /// A path of one field name; a dotted name (`metadata.name`) is taken as it is.
    pub const fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Field(name) }
    }

    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = self.parent.filter(|parent| !matches!(parent.step, Step::None));
        if let Some(parent) = parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::None => f.write_str("<nil>"),
            Step::Field(name) if parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with a field; the text is upstream's `field.ErrorType.String()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl ErrorKind {
    /// The words before the bad value in a message.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// The machine-readable cause (`metav1.CauseType`).
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

/// One validation error.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorKind,
    pub path: String,
    /// The offending value as it appears in the message, already formatted; `None` where the kind shows none.
    pub shown: Option<String>,
    pub detail: String,
}

/// All complaints about one object, in the order upstream would list them.
pub type ErrorList = Vec<Error>;

impl Error {
    pub fn invalid(path: &Path<'_>, value: impl Shown, detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Invalid,
            path: path.to_string(),
            shown: Some(value.shown()),
            detail: detail.into(),
        }
    }

    pub fn type_invalid(path: &Path<'_>, value: impl Shown, detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::TypeInvalid,
            path: path.to_string(),
            shown: Some(value.shown()),
            detail: detail.into(),
        }
    }

    pub fn required(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Required, path: path.to_string(), shown: None, detail: detail.into() }
    }

    pub fn forbidden(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Forbidden, path: path.to_string(), shown: None, detail: detail.into() }
    }

    pub fn duplicate(path: &Path<'_>, value: impl Shown) -> Self {
        Self {
            kind: ErrorKind::Duplicate,
            path: path.to_string(),
            shown: Some(value.shown()),
            detail: String::new(),
        }
    }

    pub fn not_found(path: &Path<'_>, value: impl Shown) -> Self {
        Self {
            kind: ErrorKind::NotFound,
            path: path.to_string(),
            shown: Some(value.shown()),
            detail: String::new(),
        }
    }

    /// `supported` is listed quoted and in the order given.
    pub fn not_supported(path: &Path<'_>, value: impl Shown, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|name| go_quote(name)).collect();
        let detail =
            if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self { kind: ErrorKind::NotSupported, path: path.to_string(), shown: Some(value.shown()), detail }
    }

    /// `max` is in bytes.
    pub fn too_long(path: &Path<'_>, max: usize) -> Self {
        Self {
            kind: ErrorKind::TooLong,
            path: path.to_string(),
            shown: None,
            detail: format!("may not be more than {max} bytes"),
        }
    }

    pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Self {
        Self {
            kind: ErrorKind::TooMany,
            path: path.to_string(),
            shown: Some(actual.to_string()),
            detail: format!("must have at most {max} {}", if max == 1 { "item" } else { "items" }),
        }
    }

    /// The message without the path, as it stands in `Status.details.causes[].message`.
    pub fn body(&self) -> String {
        let mut text = self.kind.phrase().to_owned();
        if let Some(shown) = &self.shown {
            text.push_str(": ");
            text.push_str(shown);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// How a bad value appears in a message: strings quoted as Go's `%q`, numbers and booleans plain, structures as
/// JSON.
pub trait Shown {
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl Shown for i32 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Value {
    fn shown(&self) -> String {
        match self {
            Value::String(text) => go_quote(text),
            Value::Number(Number::Float(number)) => go_float(*number),
            other => other.to_json_string(),
        }
    }
}

impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

/// Go's `%v` for a floating-point number: `1.5`, `1e+06`, `1e-05`.
pub fn go_float(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{number:e}");
    match scientific
        .split_once('e')
        .and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)))
    {
        Some((digits, exponent)) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

/// Go's `%q` for text: double quotes, the usual escapes, printable Unicode as it is.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_read_as_go_prints_them() {
        for (number, wanted) in [
            (1.5, "1.5"),
            (-12300.0, "-12300"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (1e21, "1e+21"),
            (1e-7, "1e-07"),
            (0.0001, "0.0001"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(go_float(number), wanted);
        }
    }

    #[test]
    fn messages_read_as_upstream_words_them() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let cases = [
            (
                Error::invalid(&spec.child("replicas"), -1, "must be greater than or equal to 0"),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (Error::required(&first.child("name"), ""), "spec.containers[0].name: Required value"),
            (
                Error::not_supported(&spec.child("type"), "x", &["A", "B"]),
                "spec.type: Unsupported value: \"x\": supported values: \"A\", \"B\"",
            ),
            (Error::duplicate(&first.child("name"), "c"), "spec.containers[0].name: Duplicate value: \"c\""),
            (
                Error::too_long(&Path::root("metadata.name"), 63),
                "metadata.name: Too long: may not be more than 63 bytes",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }
}
