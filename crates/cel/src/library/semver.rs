//! Semantic versions.

use std::cmp::Ordering;
use std::fmt;

use super::Row;
use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    (
        "semver",
        to_semver,
        &[
            ("string_to_semver", "f(string) -> semver"),
            ("string_bool_to_semver", "f(string, bool) -> semver"),
        ],
    ),
    (
        "isSemver",
        is_semver,
        &[("is_semver_string", "f(string) -> bool"), ("is_semver_string_bool", "f(string, bool) -> bool")],
    ),
    ("major", |args| number(args, 0), &[("semver_major", "semver::f() -> int")]),
    ("minor", |args| number(args, 1), &[("semver_minor", "semver::f() -> int")]),
    ("patch", |args| number(args, 2), &[("semver_patch", "semver::f() -> int")]),
];

/// A version: three numbers, what makes it a pre-release, and what does not matter for order.
#[derive(Clone, Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre_release: Vec<Identifier>,
    build: Vec<String>,
}

/// A part of a pre-release; numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (at, part) in self.pre_release.iter().enumerate() {
            f.write_str(if at > 0 { "." } else { "-" })?;
            match part {
                Identifier::Number(number) => write!(f, "{number}")?,
                Identifier::Word(word) => f.write_str(word)?,
            }
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build.join("."))?;
        }
        Ok(())
    }
}

/// As upstream's library has it, versions that differ only in their builds are equal.
impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        compare(self, other).is_eq()
    }
}

/// By precedence: builds do not count, and a pre-release comes before its release.
pub(super) fn compare(a: &Semver, b: &Semver) -> Ordering {
    a.numbers.cmp(&b.numbers).then_with(|| match (a.pre_release.is_empty(), b.pre_release.is_empty()) {
        (false, false) => a.pre_release.cmp(&b.pre_release),
        (a_is_release, b_is_release) => a_is_release.cmp(&b_is_release),
    })
}

impl Semver {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        Ok(Self {
            numbers: [component(major, "Major")?, component(minor, "Minor")?, component(patch, "Patch")?],
            pre_release: pre.map_or(Ok(Vec::new()), |pre| {
                pre.split('.').map(Identifier::parse).collect::<Result<_, _>>()
            })?,
            build: build.map_or(Ok(Vec::new()), |build| {
                build.split('.').map(build_identifier).collect::<Result<_, _>>()
            })?,
        })
    }

    /// Forgives a leading `v`, missing parts and leading zeros.
    fn parse_tolerant(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(without_leading_zeros).collect();
        if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
        Self::parse(&parts.join("."))
    }
}

fn without_leading_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.into();
    }
    let stripped = part.trim_start_matches('0');
    if stripped.starts_with(|c: char| c.is_ascii_digit()) { stripped.into() } else { format!("0{stripped}") }
}

fn component(text: &str, name: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {} number {text:?}", name.to_lowercase()));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Identifier {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("prerelease is empty".into());
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            if text.len() > 1 && text.starts_with('0') {
                return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
            }
            return text
                .parse()
                .map(Self::Number)
                .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"));
        }
        if is_identifier(text) {
            Ok(Self::Word(text.into()))
        } else {
            Err(format!("Invalid character(s) found in prerelease {text:?}"))
        }
    }
}

fn build_identifier(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("Build meta data is empty".into());
    }
    if is_identifier(text) {
        Ok(text.into())
    } else {
        Err(format!("Invalid character(s) found in build meta data {text:?}"))
    }
}

fn read(args: &[Value<'_>]) -> Result<Result<Semver, String>, EvalError> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Ok(Semver::parse(text)),
        [Value::String(text), Value::Bool(true)] => Ok(Semver::parse_tolerant(text)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn to_semver<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    read(args)?.map(|version| Value::opaque(Opaques::Semver(version))).map_err(EvalError::new)
}

fn is_semver<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Bool(read(args)?.is_ok()))
}

fn number<'a>(args: &[Value<'a>], which: usize) -> Evaluated<'a> {
    let [Value::Opaque(value)] = args else { return Err(EvalError::no_such_overload()) };
    match &**value {
        Opaques::Semver(version) => Ok(Value::Int(i64::try_from(version.numbers[which]).unwrap_or(i64::MAX))),
        _ => Err(EvalError::no_such_overload()),
    }
}
