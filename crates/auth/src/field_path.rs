//! What is wrong with a field of a configuration file.

use std::fmt;

/// A field by its path, and the problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathError {
    pub path: String,
    pub problem: String,
}

impl PathError {
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn required(path: impl Into<String>, detail: &str) -> Self {
        let separator = if detail.is_empty() { "" } else { ": " };
        Self::new(path, format!("Required value{separator}{detail}"))
    }

    pub(crate) fn invalid(path: impl Into<String>, value: &str, detail: impl fmt::Display) -> Self {
        let value = apimachinery::field::go_quote(value);
        Self::new(path, format!("Invalid value: {value}: {detail}"))
    }

    pub(crate) fn duplicate(path: impl Into<String>, value: &str) -> Self {
        Self::new(path, format!("Duplicate value: {}", apimachinery::field::go_quote(value)))
    }

    pub(crate) fn unsupported(path: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let quoted: Vec<_> = supported.iter().map(|one| apimachinery::field::go_quote(one)).collect();
        let value = apimachinery::field::go_quote(value);
        Self::new(path, format!("Unsupported value: {value}: supported values: {}", quoted.join(", ")))
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// Reads a YAML document of one of `versions` of a kind into its type, by which unknown fields are wrong.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    text: &str,
    kind: &str,
    versions: &[&str],
) -> Result<T, PathError> {
    let document = apimachinery::Value::parse_yaml(text)
        .map_err(|error| PathError::new("the document", format!("not YAML: {error}")))?;
    let (version, own) = (document.str_at(&["apiVersion"]), document.str_at(&["kind"]));
    if own != kind {
        return Err(PathError::unsupported("kind", own, &[kind]));
    }
    if !versions.contains(&version) {
        return Err(PathError::unsupported("apiVersion", version, versions));
    }
    let document = serde_json::Value::from(&document);
    serde_path_to_error::deserialize(document)
        .map_err(|error| PathError::new(error.path().to_string(), error.inner().to_string()))
}
