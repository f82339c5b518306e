//! What a scheduler is told: upstream's `KubeSchedulerConfiguration` file.
//!
//! Owns: reading it, its defaults and validation, and the [`Profile`]s that come of it. Arguments of plugins are the
//! plugins' own: each decodes and checks them when it is made. Never touches: pods, nodes.
//!
//! Start at [`Configuration::load`]. A complaint names the file and the field, and says what is allowed; the words are
//! upstream's where it complains too. What has no meaning here is accepted: leader election (there is one scheduler),
//! the client's connection (there is none), profiling, `parallelism` and `percentageOfNodesToScore` (all nodes are
//! scored, whatever their number; see `shortlist` for how).

mod document;
mod plugins;
mod validation;

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use apimachinery::Value;
use apimachinery::field::{self, ErrorList, Path};

use crate::extender::Extenders;
use crate::framework::{
    ArgumentError, Arguments, Handle, Point, Profile, ProfileError, Registration, misplaced,
};
use crate::plugins::Row;
use crate::queue::{BACKOFF_INITIAL, BACKOFF_MAX, Backoff};
use document::{Document, PluginConfig, without_nulls};
pub use document::{Extender, ManagedResource, TlsConfig};

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// A configuration that is complete and valid, but for the plugins' own arguments.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// For complaints; empty without one.
    file: PathBuf,
    profiles: Vec<document::Profile>,
    /// In the order in which they are asked, with their places in the file.
    extenders: Vec<(usize, Extender)>,
    pub backoff: Backoff,
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("--scheduler-config: reading {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("--scheduler-config: {}: {}", file.display(), joined(errors))]
    Invalid { file: PathBuf, errors: ErrorList },
    #[error("--scheduler-config: {}", file.display())]
    Profile {
        file: PathBuf,
        #[source]
        source: ProfileError,
    },
}

fn joined(errors: &ErrorList) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Default for Configuration {
    fn default() -> Self {
        Self::of_document(PathBuf::new(), Document::default())
    }
}

impl Configuration {
    pub fn load(file: &FilePath) -> Result<Self, ConfigurationError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigurationError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    /// Reads a document; `file` is for complaints.
    pub fn parse(file: &FilePath, text: &str) -> Result<Self, ConfigurationError> {
        let file = file.to_owned();
        match parse(text) {
            Ok(document) => Ok(Self::of_document(file, document)),
            Err(errors) => Err(ConfigurationError::Invalid { file, errors }),
        }
    }

    fn of_document(file: PathBuf, document: Document) -> Self {
        let seconds = |seconds: Option<i64>, default| {
            let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
            seconds.map_or(default, Duration::from_secs)
        };
        let Document { profiles, extenders, pod_initial_backoff_seconds, pod_max_backoff_seconds, .. } =
            with_a_profile(document);
        // What may fail is asked last, so that it is asked about fewer nodes.
        let mut extenders: Vec<_> = extenders.into_iter().enumerate().collect();
        extenders.sort_by_key(|(_, extender)| extender.ignorable);
        Self {
            file,
            profiles,
            extenders,
            backoff: Backoff {
                initial: seconds(pod_initial_backoff_seconds, BACKOFF_INITIAL),
                max: seconds(pod_max_backoff_seconds, BACKOFF_MAX),
            },
        }
    }

    pub fn scheduler_names(&self) -> impl Iterator<Item = &str> {
        self.profiles.iter().map(scheduler_name)
    }

    /// Makes the profiles of the plugins in `rows`. `handle_of` makes what the plugins of one may use, by the
    /// scheduler's name.
    pub fn profiles(
        &self,
        rows: &[Row],
        handle_of: impl Fn(&str) -> Handle,
    ) -> Result<Vec<(Profile, Handle)>, ConfigurationError> {
        let mut all = Vec::new();
        for (index, profile) in self.profiles.iter().enumerate() {
            let handle = handle_of(scheduler_name(profile));
            let made = self.profile(profile, rows, &handle, &Path::root("profiles").index(index))?;
            all.push((made, handle));
        }
        Ok(all)
    }

    fn profile(
        &self,
        profile: &document::Profile,
        rows: &[Row],
        handle: &Handle,
        path: &Path<'_>,
    ) -> Result<Profile, ConfigurationError> {
        let invalid = |errors| ConfigurationError::Invalid { file: self.file.clone(), errors };
        let multi_point = plugins::multi_point(rows, &profile.plugins.multi_point);
        let rows = needed_rows(profile, rows, &multi_point, path).map_err(invalid)?;
        let mut errors = ErrorList::new();
        let mut made: Vec<Registration> = Vec::new();
        for row in rows {
            let weight = plugins::weight(row.name, &profile.plugins, &multi_point);
            match self.make(profile, row, handle, path) {
                Ok(plugin) => made.push(plugin.weighing(weight)),
                Err(ArgumentError(own)) => errors.extend(own),
            }
        }
        if !errors.is_empty() {
            return Err(invalid(errors));
        }
        let mut arrangement = plugins::arrange(&profile.plugins, &multi_point, &made, &path.child("plugins"))
            .map_err(invalid)?;
        if !self.extenders.is_empty() {
            let extenders: Vec<_> = self.extenders.iter().map(|(index, own)| (*index, own)).collect();
            let extenders = Extenders::new(handle, &extenders).map_err(|error| invalid(vec![error]))?;
            // They bind before all plugins.
            let binders =
                [made.len()].into_iter().chain(arrangement.at(Point::Bind).iter().copied()).collect();
            arrangement.set(Point::Bind, binders);
            made.push(Registration::of(extenders).consult().bind().done());
        }
        Profile::arranged(scheduler_name(profile), made, &arrangement)
            .map_err(|source| ConfigurationError::Profile { file: self.file.clone(), source })
    }

    fn make(
        &self,
        profile: &document::Profile,
        row: &Row,
        handle: &Handle,
        path: &Path<'_>,
    ) -> Result<Registration, ArgumentError> {
        let configured = profile.plugin_config.iter().position(|config| config.name == row.name);
        let arguments = configured.map(|at| arguments(&profile.plugin_config[at])).unwrap_or_default();
        let arguments = match row.name {
            "NodeResourcesFit" => self.without_managed_resources(arguments),
            _ => arguments,
        };
        let config = path.child("pluginConfig");
        (row.factory)(handle, &arguments).map_err(|ArgumentError(errors)| {
            let Some(at) = configured else { return ArgumentError(errors) };
            let config = config.index(at);
            let path = config.child("args");
            let whole = |own: &str| if own.is_empty() { path.to_string() } else { format!("{path}.{own}") };
            let at_path = |error: field::Error| field::Error { path: whole(&error.path), ..error };
            ArgumentError(errors.into_iter().map(at_path).collect())
        })
    }

    /// What extenders account for is not what must fit a node; it takes the place of what the file says, as upstream.
    fn without_managed_resources(&self, arguments: Arguments) -> Arguments {
        let managed = self.extenders.iter().flat_map(|(_, extender)| &extender.managed_resources);
        let ignored: Vec<serde_json::Value> = managed
            .filter(|resource| resource.ignored_by_scheduler)
            .map(|resource| resource.name.as_str().into())
            .collect();
        if ignored.is_empty() { arguments } else { arguments.with("ignoredResources", ignored.into()) }
    }
}

/// Reads and validates a document.
fn parse(text: &str) -> Result<Document, ErrorList> {
    let document = Value::parse_yaml(text).map_err(|error| {
        let detail = format!("not YAML: {error}");
        vec![field::Error {
            kind: field::ErrorKind::Invalid,
            path: "the document".into(),
            shown: None,
            detail,
        }]
    })?;
    let mut errors = ErrorList::new();
    let (version, kind) = (document.str_at(&["apiVersion"]), document.str_at(&["kind"]));
    if kind != KIND {
        errors.push(field::Error::not_supported(&Path::root("kind"), kind, &[KIND]));
    } else if version != API_VERSION {
        errors.push(field::Error::not_supported(&Path::root("apiVersion"), version, &[API_VERSION]));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let fields = without_nulls(serde_json::Value::from(&document));
    let document = serde_path_to_error::deserialize(fields).map_err(|error| vec![misplaced(&error)])?;
    let document = with_a_profile(document);
    validation::check(&document, &mut errors);
    if errors.is_empty() { Ok(document) } else { Err(errors) }
}

/// One profile need not be listed, nor named.
fn with_a_profile(mut document: Document) -> Document {
    if document.profiles.is_empty() {
        document.profiles.push(document::Profile::default());
    }
    if let [only] = document.profiles.as_mut_slice()
        && only.scheduler_name.is_none()
    {
        only.scheduler_name = Some(crate::DEFAULT_SCHEDULER.to_owned());
    }
    document
}

fn scheduler_name(profile: &document::Profile) -> &str {
    profile.scheduler_name.as_deref().unwrap_or_default()
}

/// The rows of the plugins that the profile enables, in the order in which they are enabled.
fn needed_rows<'a>(
    profile: &document::Profile,
    rows: &'a [Row],
    multi_point: &[document::Plugin],
    path: &Path<'_>,
) -> Result<Vec<&'a Row>, ErrorList> {
    let by_name: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.name, row)).collect();
    let known: Vec<&str> = by_name.keys().copied().collect();
    let mut errors = ErrorList::new();
    let path = path.child("plugins");
    let sets = profile.plugins.points().map(|(field, _, set)| (field, set));
    for (field, set) in sets.chain([("multiPoint", &profile.plugins.multi_point)]) {
        let (point, enabled) = (path.child(field), "enabled");
        let enabled = point.child(enabled);
        for (index, plugin) in set.enabled.iter().enumerate() {
            if !by_name.contains_key(plugin.name.as_str()) {
                let path = enabled.index(index);
                errors.push(field::Error::not_supported(&path.child("name"), &plugin.name, &known));
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let needed = profile.plugins.needed(multi_point);
    Ok(needed.into_iter().filter_map(|name| by_name.get(name).copied()).collect())
}

/// Arguments as the plugin knows them; their type was checked.
fn arguments(config: &PluginConfig) -> Arguments {
    let fields = config.args.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind"));
    Arguments::new(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests;
