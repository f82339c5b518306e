//! What is wrong with a field of a configuration file.

use std::fmt;

use apimachinery::field::{Error, Path};

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

    pub(crate) fn required(path: impl AsRef<str>, detail: &str) -> Self {
        Error::required(&Path::root(path.as_ref()), detail).into()
    }

    pub(crate) fn invalid(path: impl AsRef<str>, value: &str, detail: impl fmt::Display) -> Self {
        Error::invalid(&Path::root(path.as_ref()), value, detail.to_string()).into()
    }

    pub(crate) fn duplicate(path: impl AsRef<str>, value: &str) -> Self {
        Error::duplicate(&Path::root(path.as_ref()), value).into()
    }

    pub(crate) fn unsupported(path: impl AsRef<str>, value: &str, supported: &[&str]) -> Self {
        Error::not_supported(&Path::root(path.as_ref()), value, supported).into()
    }
}

impl From<Error> for PathError {
    fn from(error: Error) -> Self {
        Self { problem: error.body(), path: error.path }
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
