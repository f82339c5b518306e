//! What a document must satisfy beyond its shape; the words are upstream's.

use api::validation::{resources, text};
use apimachinery::field::{Error, ErrorList, Path};

use super::document::{Document, Extender, PluginSet, Profile};

/// Plugins that upstream has removed.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

pub fn check(document: &Document, errors: &mut ErrorList) {
    let election = &document.leader_election;
    if election.leader_elect != Some(false) && !matches!(election.resource_lock.as_str(), "" | "leases") {
        let path = Path::root("leaderElection");
        let detail = r#"resourceLock value must be "leases""#;
        errors.push(Error::invalid(&path.child("resourceLock"), &election.resource_lock, detail));
    }
    if let Some(parallelism) = document.parallelism.filter(|&parallelism| parallelism <= 0) {
        let detail = "should be an integer value greater than zero";
        errors.push(Error::invalid(&Path::root("parallelism"), parallelism, detail));
    }
    check_profiles(&document.profiles, errors);
    check_percentage(document.percentage_of_nodes_to_score, &Path::root("percentageOfNodesToScore"), errors);
    check_backoff(document, errors);
    check_extenders(&document.extenders, errors);
}

fn check_backoff(document: &Document, errors: &mut ErrorList) {
    let initial = document.pod_initial_backoff_seconds.unwrap_or(1);
    let max = document.pod_max_backoff_seconds.unwrap_or(10);
    if initial <= 0 {
        let path = Path::root("podInitialBackoffSeconds");
        errors.push(Error::invalid(&path, initial, "must be greater than 0"));
    }
    if max < initial {
        let path = Path::root("podMaxBackoffSeconds");
        errors.push(Error::invalid(&path, max, "must be greater than or equal to PodInitialBackoffSeconds"));
    }
}

fn check_percentage(percentage: Option<i32>, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(percentage) = percentage.filter(|percentage| !(0..=100).contains(percentage)) {
        errors.push(Error::invalid(path, percentage, "not in valid range [0-100]"));
    }
}

fn check_profiles(profiles: &[Profile], errors: &mut ErrorList) {
    let all = Path::root("profiles");
    for (index, profile) in profiles.iter().enumerate() {
        let path = all.index(index);
        let name = profile.scheduler_name.as_deref().unwrap_or_default();
        if name.is_empty() {
            errors.push(Error::required(&path.child("schedulerName"), ""));
        }
        check_percentage(
            profile.percentage_of_nodes_to_score,
            &path.child("percentageOfNodesToScore"),
            errors,
        );
        check_plugins(profile, &path, errors);
        check_plugin_config(profile, &path.child("pluginConfig"), errors);
        let same = |other: &Profile| other.scheduler_name.as_deref().unwrap_or_default() == name;
        if let Some(earlier) = profiles[..index].iter().rposition(same) {
            let earlier = all.index(earlier).child("schedulerName").to_string();
            errors.push(Error::duplicate(&path.child("schedulerName"), Plain(earlier)));
        }
    }
    check_queue_sort(profiles, &all, errors);
}

/// Shown as it is: upstream shows the path of the first.
struct Plain(String);

impl apimachinery::field::Shown for Plain {
    fn shown(&self) -> String {
        self.0.clone()
    }
}

fn check_plugins(profile: &Profile, path: &Path<'_>, errors: &mut ErrorList) {
    let path = path.child("plugins");
    let sets = profile.plugins.points().map(|(field, _, set)| (field, set));
    for (field, set) in sets.chain([("multiPoint", &profile.plugins.multi_point)]) {
        let point = path.child(field);
        let enabled = point.child("enabled");
        for (index, plugin) in set.enabled.iter().enumerate() {
            let path = enabled.index(index);
            check_removed(&plugin.name, &path, errors);
            if plugin.weight < 0 {
                let detail = "must be greater than or equal to 0";
                errors.push(Error::invalid(&path.child("weight"), plugin.weight, detail));
            }
        }
    }
}

fn check_removed(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if REMOVED.contains(&name) {
        let version = super::API_VERSION;
        let detail =
            format!("was invalid in version {version:?} (KubeSchedulerConfiguration is version {version:?})");
        errors.push(Error::invalid(path, name, detail));
    }
}

fn check_plugin_config(profile: &Profile, path: &Path<'_>, errors: &mut ErrorList) {
    for (index, config) in profile.plugin_config.iter().enumerate() {
        let path = path.index(index);
        if profile.plugin_config[..index].iter().any(|earlier| earlier.name == config.name) {
            errors.push(Error::duplicate(&path, &config.name));
        }
        check_removed(&config.name, &path, errors);
        let kind = config.args.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
        let expected = format!("{}Args", config.name);
        if !kind.is_empty() && kind != expected {
            let detail = format!("args for plugin {} were not of type {expected}, got {kind}", config.name);
            let args = path.child("args");
            errors.push(Error::invalid(&args.child("kind"), kind, detail));
        }
        let version = config.args.get("apiVersion").and_then(|version| version.as_str()).unwrap_or_default();
        if !matches!(version, "" | super::API_VERSION) {
            let args = path.child("args");
            errors.push(Error::not_supported(&args.child("apiVersion"), version, &[super::API_VERSION]));
        }
    }
}

/// All profiles share one queue, and so its order.
fn check_queue_sort(profiles: &[Profile], all: &Path<'_>, errors: &mut ErrorList) {
    let sorts = |profile: &Profile| -> PluginSet { profile.plugins.queue_sort.clone() };
    let Some(first) = profiles.first().map(sorts) else { return };
    if first.enabled.len() > 1 {
        let path = all.index(0);
        let (plugins, point) = (path.child("plugins"), "queueSort");
        let point = plugins.child(point);
        let detail = "only one queue sort plugin can be enabled";
        errors.push(Error::invalid(&point.child("Enabled"), first.enabled.len(), detail));
    }
    for (index, profile) in profiles.iter().enumerate().skip(1) {
        if sorts(profile) != first {
            let path = all.index(index);
            let plugins = path.child("plugins");
            let shown: Vec<&str> =
                profile.plugins.queue_sort.enabled.iter().map(|plugin| plugin.name.as_str()).collect();
            let path = plugins.child("queueSort");
            errors.push(Error::invalid(&path, shown.join(","), "must be the same for all profiles"));
        }
    }
}

fn check_extenders(extenders: &[Extender], errors: &mut ErrorList) {
    let all = Path::root("extenders");
    let mut managed: Vec<&str> = Vec::new();
    for (index, extender) in extenders.iter().enumerate() {
        let path = all.index(index);
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let detail = "must have a positive weight applied to it";
            errors.push(Error::invalid(&path.child("weight"), extender.weight, detail));
        }
        let resources = path.child("managedResources");
        for (at, resource) in extender.managed_resources.iter().enumerate() {
            let resource_path = resources.index(at);
            let path = resource_path.child("name");
            check_extended_resource(&resource.name, &path, errors);
            if managed.contains(&resource.name.as_str()) {
                let detail = "duplicate extender managed resource name";
                errors.push(Error::invalid(&path, &resource.name, detail));
            }
            managed.push(&resource.name);
        }
    }
    let binders = extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        let found = format!("found {binders} extenders implementing bind");
        errors.push(Error::invalid(&all, found, "only one extender can implement bind"));
    }
}

fn check_extended_resource(name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let problems = text::qualified_name(name);
    if !problems.is_empty() {
        errors.extend(problems.into_iter().map(|problem| Error::invalid(path, name, problem)));
    } else if !resources::is_extended(name) {
        errors.push(Error::invalid(path, name, "is an invalid extended resource name"));
    }
}
