//! Label and field selectors: parsing, matching, printing.
//!
//! Owns: [`Selector`] (the query-string form and `metav1.LabelSelector`) and [`FieldSelector`].
//! Never touches: which fields a resource lets be selected; that is the resource's own list.
//!
//! Grammar, error texts and the order of printed requirements are those of upstream's `k8s.io/apimachinery/pkg/labels`
//! and `pkg/fields`.

use std::fmt;

use smallvec::{SmallVec, smallvec};

use crate::field::{self, Path, go_quote};
use crate::{Object, Str, Value, label};

mod field_selector;
mod parse;

pub use field_selector::{FieldRequirement, FieldSelector};

/// A selector that is not well formed; the text is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    /// `=`; prints differently from [`Operator::DoubleEquals`], matches the same.
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: Str,
    operator: Operator,
    values: SmallVec<[Str; 1]>,
}

/// One `matchExpressions` entry of a `metav1.LabelSelector`, borrowed from wherever it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Expression<'a, V> {
    pub key: &'a str,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: &'a str,
    pub values: V,
}

/// All requirements must hold. No requirements select everything; [`Selector::nothing`] selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Sorted by key, so that equal selectors print alike.
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    pub const fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the query-string form: `a=b,c!=d,e in (x,y),!f,g notin (z),h>3`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text)
    }

    /// Equality with every given label, unchecked: for labels that were validated when they were written.
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.into(),
                operator: Operator::Equals,
                values: smallvec![value.into()],
            })
            .collect();
        Self::of(requirements)
    }

    /// From the parts of a `metav1.LabelSelector`. Both empty select everything; for a selector that is absent use
    /// [`Selector::nothing`].
    pub fn from_parts<'a, V>(
        match_labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        match_expressions: impl IntoIterator<Item = Expression<'a, V>>,
    ) -> Result<Self, SelectorError>
    where
        V: IntoIterator<Item = &'a str>,
    {
        let mut requirements = Vec::new();
        for (key, value) in match_labels {
            requirements.push(Requirement::new(key, Operator::Equals, smallvec![value.into()])?);
        }
        for expression in match_expressions {
            let operator = match expression.operator {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let text = format!("{} is not a valid label selector operator", go_quote(other));
                    return Err(SelectorError(text));
                }
            };
            let values = expression.values.into_iter().map(Str::from).collect();
            requirements.push(Requirement::new(expression.key, operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// From a `metav1.LabelSelector` in a tree. A missing one (`Null`) selects nothing, an empty one everything.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        if value.is_null() {
            return Ok(Self::nothing());
        }
        let labels = value["matchLabels"].as_object().into_iter().flatten();
        let expressions = value.array_at(&["matchExpressions"]).iter().map(|expression| Expression {
            key: expression.str_at(&["key"]),
            operator: expression.str_at(&["operator"]),
            values: expression.array_at(&["values"]).iter().map(|value| value.as_str().unwrap_or_default()),
        });
        Self::from_parts(
            labels.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())),
            expressions,
        )
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Narrows this selector by the requirements of another.
    pub fn and(mut self, other: Self) -> Self {
        self.nothing |= other.nothing;
        self.requirements.extend(other.requirements);
        self.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        self
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The one value a label must have, when some requirement fixes it; for index look-ups.
    pub fn exact(&self, key: &str) -> Option<&str> {
        self.requirements.iter().find(|requirement| requirement.key == key).and_then(Requirement::exact)
    }

    /// Hot path: asks `label` for each key it needs, at most once per requirement.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    pub fn matches_object(&self, object: &Object) -> bool {
        self.is_everything() || self.matches(|key| object.label(key))
    }

    /// Matches the labels of a tree.
    pub fn matches_value(&self, object: &Value) -> bool {
        self.is_everything() || {
            let labels = object.at(&["metadata", "labels"]);
            self.matches(|key| labels?.get(key)?.as_str())
        }
    }
}

impl Requirement {
    /// Checks what upstream's `labels.NewRequirement` checks.
    pub fn new(key: &str, operator: Operator, values: SmallVec<[Str; 1]>) -> Result<Self, SelectorError> {
        let mut errors = field::ErrorList::new();
        check_key(key, &Path::root("key"), &mut errors);
        let path = Path::root("values");
        let shown = || values.iter().map(|value| Value::from(value.clone())).collect::<Value>();
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                errors.push(field::Error::invalid(
                    &path,
                    shown(),
                    "for 'in', 'notin' operators, values set can't be empty",
                ));
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                errors.push(field::Error::invalid(
                    &path,
                    shown(),
                    "exact-match compatibility requires one single value",
                ));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                errors.push(field::Error::invalid(
                    &path,
                    shown(),
                    "values set must be empty for exists and does not exist",
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    let detail = "for 'Gt', 'Lt' operators, exactly one value is required";
                    errors.push(field::Error::invalid(&path, shown(), detail));
                }
                for (index, value) in values.iter().enumerate().filter(|(_, value)| integer(value).is_none())
                {
                    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                    errors.push(field::Error::invalid(&path.index(index), value.as_str(), detail));
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let wrong = label::value_errors(value);
            if !wrong.is_empty() {
                errors.push(field::Error::invalid(
                    &path.index(index).key(key),
                    value.as_str(),
                    wrong.join("; "),
                ));
            }
        }
        aggregate(&errors)?;
        Ok(Self { key: key.into(), operator, values })
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> &[Str] {
        &self.values
    }

    /// Whether a label with this value, or no such label, satisfies the requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => {
                value.is_some_and(|value| self.has(value))
            }
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(|value| self.has(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(std::cmp::Ordering::is_gt),
            Operator::LessThan => self.compare(value).is_some_and(std::cmp::Ordering::is_lt),
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|own| own == value)
    }

    fn compare(&self, value: Option<&str>) -> Option<std::cmp::Ordering> {
        Some(integer(value?)?.cmp(&integer(self.values.first()?)?))
    }

    fn exact(&self) -> Option<&str> {
        match (self.operator, self.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [one]) => Some(one),
            _ => None,
        }
    }
}

/// Go's `strconv.ParseInt(text, 10, 64)`.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn check_key(key: &str, path: &Path<'_>, errors: &mut field::ErrorList) {
    let wrong = label::key_errors(key);
    if !wrong.is_empty() {
        errors.push(field::Error::invalid(path, key, wrong.join("; ")));
    }
}

/// Upstream's `ErrorList.ToAggregate().Error()`.
fn aggregate(errors: &[field::Error]) -> Result<(), SelectorError> {
    match errors {
        [] => Ok(()),
        [one] => Err(SelectorError(one.to_string())),
        many => {
            let texts: Vec<String> = many.iter().map(ToString::to_string).collect();
            Err(SelectorError(format!("[{}]", texts.join(", "))))
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, close) = match self.operator {
            Operator::Exists => return f.write_str(&self.key),
            Operator::DoesNotExist => return write!(f, "!{}", self.key),
            Operator::Equals => ("=", ""),
            Operator::DoubleEquals => ("==", ""),
            Operator::NotEquals => ("!=", ""),
            Operator::GreaterThan => (">", ""),
            Operator::LessThan => ("<", ""),
            Operator::In => (" in (", ")"),
            Operator::NotIn => (" notin (", ")"),
        };
        let mut values: SmallVec<[&str; 4]> = self.values.iter().map(Str::as_str).collect();
        values.sort_unstable();
        write!(f, "{}{operator}{}{close}", self.key, values.join(","))
    }
}

#[cfg(test)]
mod tests;
