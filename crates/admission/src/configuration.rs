//! Which plugins are on, and what they are told: upstream's flags and its `AdmissionConfiguration` file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apimachinery::Value;

/// `--enable-admission-plugins`, `--disable-admission-plugins`, `--admission-control-config-file`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub enable: Vec<String>,
    pub disable: Vec<String>,
    pub configuration: Configuration,
}

/// The configuration of each plugin that has one, by the plugin's name.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    plugins: BTreeMap<String, Value>,
    /// For complaints.
    file: PathBuf,
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("--admission-control-config-file: reading {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("--admission-control-config-file: {}: {why}", file.display())]
    Invalid { file: PathBuf, why: String },
}

const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];

impl Configuration {
    /// Reads an `AdmissionConfiguration` and the files it refers to.
    pub fn load(file: &Path) -> Result<Self, ConfigurationError> {
        let document = read(file)?;
        let invalid = |why: String| ConfigurationError::Invalid { file: file.to_owned(), why };
        check_type(&document, "AdmissionConfiguration", &API_VERSIONS).map_err(invalid)?;
        let mut plugins = BTreeMap::new();
        for (index, entry) in document.array_at(&["plugins"]).iter().enumerate() {
            let name = entry.str_at(&["name"]);
            if name.is_empty() {
                return Err(invalid(format!("plugins[{index}].name: a plugin's name is required")));
            }
            let path = entry.str_at(&["path"]);
            let told = match entry.get("configuration").filter(|told| !told.is_null()) {
                Some(told) => told.clone(),
                None if path.is_empty() => continue,
                // Relative to the file that says so.
                None => read(&file.parent().unwrap_or(Path::new("")).join(path))?,
            };
            plugins.insert(name.to_owned(), told);
        }
        Ok(Self { plugins, file: file.to_owned() })
    }

    /// What a plugin is told, checked by `parse`; the plugin's default when nothing is said.
    pub(crate) fn of<T: Default>(
        &self,
        plugin: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<T, ConfigurationError> {
        let Some(told) = self.plugins.get(plugin) else { return Ok(T::default()) };
        parse(told).map_err(|why| ConfigurationError::Invalid {
            file: self.file.clone(),
            why: format!("configuration of {plugin}: {why}"),
        })
    }
}

fn read(file: &Path) -> Result<Value, ConfigurationError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| ConfigurationError::Read { file: file.to_owned(), source })?;
    Value::parse_yaml(&text).map_err(|error| ConfigurationError::Invalid {
        file: file.to_owned(),
        why: format!("not YAML: {error}"),
    })
}

/// Checks that a document is of a kind and one of its versions.
pub(crate) fn check_type(document: &Value, kind: &str, api_versions: &[&str]) -> Result<(), String> {
    let (version, own) = (document.str_at(&["apiVersion"]), document.str_at(&["kind"]));
    if own == kind && api_versions.contains(&version) {
        return Ok(());
    }
    Err(format!("apiVersion {version:?} and kind {own:?} must be {} and {kind}", api_versions.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_inline_or_in_a_file_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let main = folder.path().join("admission.yaml");
        std::fs::write(folder.path().join("quota.yaml"), "limitedResources: []").expect("written");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
                    - {name: ResourceQuota, path: quota.yaml}\n- {name: PodSecurity, configuration: {kind: X}}\n";
        std::fs::write(&main, text).expect("written");
        let configuration = Configuration::load(&main).expect("a good file");
        let kind = |told: &Value| Ok::<_, String>(told.str_at(&["kind"]).to_owned());
        assert_eq!(configuration.of("PodSecurity", kind).expect("given"), "X");
        assert_eq!(configuration.of("Priority", kind).expect("not given"), "");
        let refused = configuration.of("ResourceQuota", |told| {
            Err::<String, _>(format!("{} fields", told.as_object().map_or(0, apimachinery::Map::len)))
        });
        let text = refused.expect_err("refused").to_string();
        assert!(text.ends_with("configuration of ResourceQuota: 1 fields"), "{text}");
    }

    #[test]
    fn files_of_other_kinds_and_plugins_without_names_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for (text, complaint) in [
            ("kind: Pod", "must be apiserver.config.k8s.io/v1 or"),
            (
                "{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{path: x}]}",
                "plugins[0].name",
            ),
            ("a: [", "not YAML"),
        ] {
            let file = folder.path().join("file.yaml");
            std::fs::write(&file, text).expect("written");
            let error = Configuration::load(&file).expect_err(text).to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
