//! `PodSecurity`: the Pod Security Standards, as the labels of a namespace ask for them.
//!
//! Pods are refused, audited and warned about; templates of pods are audited and warned about, since refusing them
//! would only move the failure; a namespace that becomes stricter is told which of its pods would not pass.
//!
//! Start at [`checks`] for what is forbidden, at [`policy`] for what labels mean.

mod checks;
mod configuration;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::gvr;
use apimachinery::field::{ErrorList, go_quote};
use apimachinery::{Object, Status, Value};
use registry::Endpoint;
use registry::admission::Attributes;

use crate::configuration::Configuration;
use crate::plugins::{BuildError, Environment};
use crate::{Plugin, forbidden, is_write, look_up};
use checks::{Pod, SECCOMP_CONTAINER, SECCOMP_POD, Violation};
use policy::{Level, Policy, Standard};

/// Existing pods that are looked at when a namespace becomes stricter.
const CHECKED_PODS_MAX: usize = 3_000;

/// Subresources of pods that change nothing that matters here. Others carry a pod, also those that do not exist yet.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Kinds that hold the template of a pod, and where.
const TEMPLATES: [(&str, &str, &[&str]); 8] = [
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

pub struct PodSecurity {
    namespaces: Endpoint,
    pods: Endpoint,
    settings: Settings,
}

/// What the configuration file says.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub defaults: Policy,
    pub exempt_users: Vec<String>,
    pub exempt_namespaces: Vec<String>,
    pub exempt_runtime_classes: Vec<String>,
}

impl PodSecurity {
    pub fn new(environment: &Environment<'_>, configuration: &Configuration) -> Result<Self, BuildError> {
        Ok(Self {
            namespaces: environment.endpoint(&gvr::NAMESPACES)?,
            pods: environment.endpoint(&gvr::PODS)?,
            settings: configuration.of("PodSecurity", configuration::parse)?,
        })
    }

    fn check_namespace(&self, attributes: &Attributes<'_>, namespace: &Value) -> Result<(), Status> {
        let labels = &namespace["metadata"]["labels"];
        let (policy, errors) = Policy::of_labels(labels, &self.settings.defaults);
        let invalid = |errors: &ErrorList| {
            Err(Status::invalid(&attributes.resource.group_kind(), attributes.name, errors))
        };
        let Some(old) = attributes.old else {
            if !errors.is_empty() {
                return invalid(&errors);
            }
            if self.is_exempt_namespace(attributes.name) {
                self.warn_of_exemption(attributes, &policy, labels);
            }
            return Ok(());
        };
        let old = old.metadata_value();
        let (before, errors_before) = Policy::of_labels(&old["labels"], &self.settings.defaults);
        if !errors.is_empty() && errors != errors_before {
            return invalid(&errors);
        }
        let (enforce, enforced) = (policy.enforce, before.enforce);
        let relaxed = enforce.version == enforced.version && enforce.level <= enforced.level;
        if enforce == enforced || enforce.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if self.is_exempt_namespace(attributes.name) {
            self.warn_of_exemption(attributes, &policy, labels);
            return Ok(());
        }
        self.existing(attributes.name, enforce).into_iter().for_each(|text| attributes.warnings.add(text));
        Ok(())
    }

    fn warn_of_exemption(&self, attributes: &Attributes<'_>, policy: &Policy, labels: &Value) {
        if policy.is_privileged() || policy.is_equivalent(&self.settings.defaults) {
            return;
        }
        attributes.warnings.add(format!(
            "namespace {} is exempt from Pod Security, and the policy ({}) will be ignored",
            go_quote(attributes.name),
            policy.described(labels)
        ));
    }

    /// Warnings about pods of a namespace that its new standard would not let in.
    fn existing(&self, namespace: &str, enforce: Standard) -> Vec<String> {
        let snapshot = self.pods.cache.snapshot();
        let prefix = self.pods.resource.key_prefix(namespace);
        let all: Vec<&Arc<Object>> = snapshot.range(&prefix, None).map(|(_, pod)| pod).collect();
        // One pod of each controller first: the others are likely to be the same.
        let mut seen = HashSet::new();
        let (first, alike): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|pod| pod.controller_owner().is_none_or(|owner| seen.insert(owner.uid.to_owned())));
        let mut violations = BTreeMap::<String, (String, usize)>::new();
        let (mut checked, mut total) = (0, 0);
        for object in first.into_iter().chain(alike) {
            let pod = self.pods.served(object);
            if self.is_exempt_class(&pod["spec"]) {
                continue;
            }
            total += 1;
            if checked == CHECKED_PODS_MAX {
                continue;
            }
            checked += 1;
            let found = checks::evaluate(enforce, Pod { metadata: &pod["metadata"], spec: &pod["spec"] });
            if found.is_empty() {
                continue;
            }
            let entry =
                violations.entry(checks::reasons(&found)).or_insert_with(|| (object.name().to_owned(), 0));
            entry.1 += 1;
            if object.name() < entry.0.as_str() {
                object.name().clone_into(&mut entry.0);
            }
        }
        let mut warnings = Vec::new();
        if checked < total {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
            ));
        }
        if !violations.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {} violate the new PodSecurity enforce level \"{enforce}\"",
                go_quote(namespace)
            ));
        }
        let mut named: Vec<String> = violations
            .into_iter()
            .map(|(reason, (name, count))| match count {
                1 => format!("{name}: {reason}"),
                2 => format!("{name} (and 1 other pod): {reason}"),
                _ => format!("{name} (and {} other pods): {reason}", count - 1),
            })
            .collect();
        named.sort();
        warnings.extend(named);
        warnings
    }

    fn check_pod(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        let policy = self.policy(attributes)?;
        if policy.is_privileged() {
            note(attributes, "enforce-policy", Standard::NONE);
            return Ok(());
        }
        if let Some(old) = attributes.old_value()
            && !is_significant(pod, &old)
        {
            return Ok(());
        }
        self.evaluate(attributes, &policy, Pod { metadata: &pod["metadata"], spec: &pod["spec"] }, true)
    }

    fn check_template(&self, attributes: &Attributes<'_>, template: &Value) -> Result<(), Status> {
        // A template in a namespace that is gone harms nobody.
        let Ok(policy) = self.policy(attributes) else { return Ok(()) };
        if policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged {
            return Ok(());
        }
        let pod = Pod { metadata: &template["metadata"], spec: &template["spec"] };
        self.evaluate(attributes, &policy, pod, false)
    }

    /// The policy of the namespace that a request is about.
    fn policy(&self, attributes: &Attributes<'_>) -> Result<Policy, Status> {
        let name = attributes.namespace;
        let Some(namespace) = look_up(&self.namespaces, "", name) else {
            return Err(Status::internal(format!("failed to lookup namespace {}", go_quote(name))));
        };
        if !namespace.labels().any(|(key, _)| key.starts_with(policy::PREFIX)) {
            return Ok(self.settings.defaults);
        }
        let labels = &namespace.metadata_value()["labels"];
        Ok(Policy::of_labels(labels, &self.settings.defaults).0)
    }

    fn evaluate(
        &self,
        attributes: &Attributes<'_>,
        policy: &Policy,
        pod: Pod<'_>,
        enforce: bool,
    ) -> Result<(), Status> {
        if self.is_exempt_class(pod.spec) {
            note(attributes, "exempt", "runtimeClass");
            return Ok(());
        }
        let audited = checks::evaluate(policy.audit, pod);
        if !audited.is_empty() {
            let text =
                format!("would violate PodSecurity \"{}\": {}", policy.audit, checks::details(&audited));
            note(attributes, "audit-violations", text);
        }
        let mut enforced: Option<Vec<Violation>> = None;
        if enforce {
            note(attributes, "enforce-policy", policy.enforce);
            let found = checks::evaluate(policy.enforce, pod);
            if !found.is_empty() {
                let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, checks::details(&found));
                return Err(forbidden(attributes, why));
            }
            enforced = Some(found);
        }
        let found = match enforced {
            Some(found) if policy.warn == policy.enforce => found,
            _ => checks::evaluate(policy.warn, pod),
        };
        if !found.is_empty() {
            attributes.warnings.add(format!(
                "would violate PodSecurity \"{}\": {}",
                policy.warn,
                checks::details(&found)
            ));
        }
        Ok(())
    }

    fn is_exempt(&self, attributes: &Attributes<'_>) -> bool {
        let by_user = || self.settings.exempt_users.iter().any(|user| user == attributes.user.name());
        let reason = if self.is_exempt_namespace(attributes.namespace) {
            "namespace"
        } else if by_user() {
            "user"
        } else {
            return false;
        };
        note(attributes, "exempt", reason);
        true
    }

    fn is_exempt_namespace(&self, namespace: &str) -> bool {
        self.settings.exempt_namespaces.iter().any(|own| own == namespace)
    }

    fn is_exempt_class(&self, spec: &Value) -> bool {
        let class = spec.str_at(&["runtimeClassName"]);
        !class.is_empty() && self.settings.exempt_runtime_classes.iter().any(|own| own == class)
    }
}

impl Plugin for PodSecurity {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object.filter(|_| is_write(attributes)) else { return Ok(()) };
        if attributes.is("", "namespaces") {
            return self.check_namespace(attributes, object);
        }
        let (group, plural) = (attributes.resource.group.as_str(), attributes.resource.plural.as_str());
        if (group, plural) == ("", "pods") {
            let ignored = attributes.subresource.is_some_and(|name| IGNORED.contains(&name));
            if ignored || self.is_exempt(attributes) {
                return Ok(());
            }
            return self.check_pod(attributes, object);
        }
        if attributes.subresource.is_some() {
            return Ok(());
        }
        let place = TEMPLATES.iter().find(|(own, resource, _)| (*own, *resource) == (group, plural));
        let template = place.and_then(|(_, _, path)| object.at(path)).filter(|template| !template.is_null());
        match template {
            Some(template) if !self.is_exempt(attributes) => self.check_template(attributes, template),
            _ => Ok(()),
        }
    }
}

/// What the audit log says of a decision.
fn note(attributes: &Attributes<'_>, key: &str, value: impl ToString) {
    attributes.warnings.annotate(format!("{}{key}", policy::PREFIX), value.to_string());
}

/// Whether an update changes what is checked. Of all that matters here, only images and annotations can change in a pod
/// that exists, and containers for debugging can join.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let annotation = |key: &str| {
        let of = |pod: &Value| pod["metadata"]["annotations"].get(key).cloned();
        of(pod) != of(old)
    };
    let container = |new: &Value, old: &Value| {
        new["image"] != old["image"] || annotation(&format!("{SECCOMP_CONTAINER}{}", new.str_at(&["name"])))
    };
    let lists = ["containers", "initContainers"].map(|list| ["spec", list]);
    let replaced = lists.iter().any(|path| {
        let (new, old) = (pod.array_at(path), old.array_at(path));
        new.len() != old.len() || new.iter().zip(old).any(|(new, old)| container(new, old))
    });
    let debug = &["spec", "ephemeralContainers"];
    let joined = pod.array_at(debug).iter().any(|new| {
        let before = old.array_at(debug).iter().find(|old| old["name"] == new["name"]);
        before.is_none_or(|before| container(new, before))
    });
    annotation(SECCOMP_POD) || replaced || joined
}
