//! `PodSecurityConfiguration`: what namespaces get that say nothing, and who is exempt.

use api::strategy::NameRule;
use api::validation::text;
use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::Settings;
use super::policy::{Level, Policy, Standard, Version};
use crate::configuration::check_type;

const API_VERSIONS: [&str; 3] = [
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];

pub fn parse(document: &Value) -> Result<Settings, String> {
    check_type(document, "PodSecurityConfiguration", &API_VERSIONS)?;
    let mut errors = ErrorList::new();
    let defaults = Policy {
        enforce: standard(document, "enforce", &mut errors),
        audit: standard(document, "audit", &mut errors),
        warn: standard(document, "warn", &mut errors),
    };
    let settings = Settings {
        defaults,
        exempt_namespaces: exempt(document, "namespaces", Some(NameRule::DnsLabel), &mut errors),
        exempt_runtime_classes: exempt(document, "runtimeClasses", Some(NameRule::DnsSubdomain), &mut errors),
        exempt_users: exempt(document, "usernames", None, &mut errors),
    };
    match errors.iter().map(ToString::to_string).collect::<Vec<_>>() {
        complaints if complaints.is_empty() => Ok(settings),
        complaints => Err(complaints.join("; ")),
    }
}

fn standard(document: &Value, mode: &str, errors: &mut ErrorList) -> Standard {
    let path = Path::root("defaults");
    let mut read = Standard::NONE;
    if let Some(level) = document["defaults"][mode].as_str() {
        match Level::parse(level) {
            Ok(level) => read.level = level,
            Err(why) => errors.push(Error::invalid(&path.child(mode), level, why)),
        }
    }
    let key = format!("{mode}-version");
    if let Some(version) = document["defaults"][key.as_str()].as_str() {
        match Version::parse(version) {
            Ok(version) => read.version = version,
            Err(why) => errors.push(Error::invalid(&path.child(&key), version, why)),
        }
    }
    read
}

/// A list of names, each given once.
fn exempt(document: &Value, list: &str, rule: Option<NameRule>, errors: &mut ErrorList) -> Vec<String> {
    let path = Path::root("exemptions");
    let path = path.child(list);
    let mut names = Vec::<String>::new();
    for (index, name) in document.array_at(&["exemptions", list]).iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        let complaints = rule.map(|rule| text::object_name(rule, name, false).join(", ")).unwrap_or_default();
        if !complaints.is_empty() {
            errors.push(Error::invalid(&path.index(index), name, complaints));
        } else if name.is_empty() {
            errors.push(Error::invalid(&path.index(index), name, "username must not be empty"));
        } else if names.iter().any(|own| own == name) {
            errors.push(Error::duplicate(&path.index(index), name));
        } else {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn defaults_and_exemptions_are_read() {
        let settings = parse(&json!({
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "enforce-version": "v1.30"},
            "exemptions": {"namespaces": ["kube-system"], "usernames": ["jane"], "runtimeClasses": ["kata"]},
        }))
        .expect("a good configuration");
        assert_eq!(settings.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(settings.defaults.warn, Standard::NONE);
        assert_eq!(settings.exempt_namespaces, ["kube-system"]);
        assert_eq!(settings.exempt_users, ["jane"]);
        assert_eq!(settings.exempt_runtime_classes, ["kata"]);
    }

    #[test]
    fn every_mistake_is_named() {
        let error = parse(&json!({
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "strict", "warn-version": "1.30"},
            "exemptions": {"namespaces": ["a", "a", "A"], "usernames": [""]},
        }))
        .expect_err("mistakes");
        for part in [
            "defaults.enforce: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
            "defaults.warn-version: Invalid value: \"1.30\": must be \"latest\" or \"v1.x\"",
            "exemptions.namespaces[1]: Duplicate value: \"a\"",
            "exemptions.namespaces[2]: Invalid value: \"A\"",
            "exemptions.usernames[0]: Invalid value: \"\": username must not be empty",
        ] {
            assert!(error.contains(part), "{part}\n{error}");
        }
        assert!(parse(&json!({"kind": "Pod"})).is_err());
    }
}
