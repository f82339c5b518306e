//! Plugins by which a namespace decides where its pods may run: `PodNodeSelector` and `PodTolerationRestriction`.

use std::collections::BTreeMap;

use api::gvr;
use api::kinds::core::pod::qos;
use apimachinery::{Status, Value, json, label};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};

use crate::configuration::{Configuration, check_type};
use crate::plugins::{BuildError, Environment};
use crate::{Plugin, forbidden, is_write, look_up, tolerations};

const NODE_SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT_TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED_TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
/// The key of the configuration that is for namespaces which say nothing.
const CLUSTER_DEFAULT: &str = "clusterDefaultNodeSelector";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

type Labels = BTreeMap<String, String>;

/// An annotation of a namespace.
fn annotation(
    namespaces: &Endpoint,
    attributes: &Attributes<'_>,
    key: &str,
) -> Result<Option<String>, Status> {
    let name = attributes.namespace;
    let namespace = look_up(namespaces, "", name)
        .ok_or_else(|| Status::not_found(&namespaces.resource.group_resource(), name))?;
    Ok(namespace.metadata_value()["annotations"].get(key).and_then(Value::as_str).map(str::to_owned))
}

/// `PodNodeSelector`: pods run on the nodes that their namespace names.
pub struct PodNodeSelector {
    namespaces: Endpoint,
    /// By namespace what its pods may ask for at most, and under [`CLUSTER_DEFAULT`] what they get.
    configured: BTreeMap<String, Labels>,
}

impl PodNodeSelector {
    pub fn new(environment: &Environment<'_>, configuration: &Configuration) -> Result<Self, BuildError> {
        Ok(Self {
            namespaces: environment.endpoint(&gvr::NAMESPACES)?,
            configured: configuration.of("PodNodeSelector", selectors)?,
        })
    }

    fn of_namespace(&self, attributes: &Attributes<'_>) -> Result<Labels, Status> {
        match annotation(&self.namespaces, attributes, NODE_SELECTOR)? {
            Some(text) => parse_labels(&text).map_err(|why| Status::new(500, "", why)),
            None => Ok(self.configured.get(CLUSTER_DEFAULT).cloned().unwrap_or_default()),
        }
    }

    fn check(&self, attributes: &Attributes<'_>, wanted: &Labels, pod: &Value) -> Result<(), Status> {
        let own = node_selector(pod);
        if wanted.iter().any(|(key, value)| own.get(key).is_some_and(|own| own != value)) {
            let why = "pod node label selector conflicts with its namespace node label selector";
            return Err(forbidden(attributes, why));
        }
        let allowed = self.configured.get(attributes.namespace).filter(|allowed| !allowed.is_empty());
        if allowed.is_some_and(|allowed| own.iter().any(|(key, value)| allowed.get(key) != Some(value))) {
            let why = "pod node label selector labels conflict with its namespace whitelist";
            return Err(forbidden(attributes, why));
        }
        Ok(())
    }
}

impl Plugin for PodNodeSelector {
    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is("", "pods") {
            return Ok(());
        }
        let wanted = self.of_namespace(attributes)?;
        self.check(attributes, &wanted, pod)?;
        for (key, value) in &wanted {
            pod.set_at(&["spec", "nodeSelector", key], value);
        }
        self.check(attributes, &wanted, pod)
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let creates = attributes.operation == Operation::Create && attributes.is("", "pods");
        let Some(pod) = object.filter(|_| creates) else { return Ok(()) };
        self.check(attributes, &self.of_namespace(attributes)?, pod)
    }
}

fn node_selector(pod: &Value) -> Labels {
    let map = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    map.map(|(key, value)| (key.to_string(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn selectors(document: &Value) -> Result<BTreeMap<String, Labels>, String> {
    let map = document["podNodeSelectorPluginConfig"].as_object();
    map.into_iter()
        .flatten()
        .map(|(name, text)| {
            let labels = parse_labels(text.as_str().unwrap_or_default());
            let labels = labels.map_err(|why| format!("podNodeSelectorPluginConfig.{name}: {why}"))?;
            Ok((name.to_string(), labels))
        })
        .collect()
}

/// Reads `key=value,key=value`.
fn parse_labels(text: &str) -> Result<Labels, String> {
    if text.is_empty() {
        return Ok(Labels::new());
    }
    let pair = |text: &str| {
        let invalid = || format!("invalid selector: [{}]", text.split('=').collect::<Vec<_>>().join(" "));
        let (key, value) =
            text.split_once('=').filter(|(_, value)| !value.contains('=')).ok_or_else(invalid)?;
        let (key, value) = (key.trim(), value.trim());
        match label::key_errors(key).into_iter().chain(label::value_errors(value)).next() {
            Some(why) => Err(format!("invalid label {key}={value}: {why}")),
            None => Ok((key.to_owned(), value.to_owned())),
        }
    };
    text.split(',').map(pair).collect()
}

/// `PodTolerationRestriction`: pods tolerate what their namespace gives them, and not more than it allows.
pub struct PodTolerationRestriction {
    namespaces: Endpoint,
    settings: TolerationSettings,
}

/// What holds for namespaces that say nothing.
#[derive(Default)]
struct TolerationSettings {
    default: Vec<Value>,
    allowed: Vec<Value>,
}

impl PodTolerationRestriction {
    pub fn new(environment: &Environment<'_>, configuration: &Configuration) -> Result<Self, BuildError> {
        Ok(Self {
            namespaces: environment.endpoint(&gvr::NAMESPACES)?,
            settings: configuration.of("PodTolerationRestriction", toleration_settings)?,
        })
    }

    fn of_namespace(&self, attributes: &Attributes<'_>, key: &str) -> Result<Option<Vec<Value>>, Status> {
        let Some(text) = annotation(&self.namespaces, attributes, key)? else { return Ok(None) };
        if text.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let parsed =
            Value::parse(text.as_bytes()).map_err(|error| Status::new(500, "", error.to_string()))?;
        Ok(Some(parsed.array_at(&[]).to_vec()))
    }
}

impl Plugin for PodTolerationRestriction {
    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !is_write(attributes) || !attributes.is("", "pods") {
            return Ok(());
        }
        let mut extra = Vec::new();
        if attributes.operation == Operation::Create {
            let own = self.of_namespace(attributes, DEFAULT_TOLERATIONS)?;
            extra = own.unwrap_or_else(|| self.settings.default.clone());
        }
        if qos::class(&pod["spec"]) != "BestEffort" {
            extra.push(json!({"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"}));
        }
        if !extra.is_empty() {
            let merged = tolerations::merge(pod.array_at(&["spec", "tolerations"]), &extra);
            pod.set_at(&["spec", "tolerations"], merged);
        }
        self.validate(attributes, Some(pod))
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| is_write(attributes) && attributes.is("", "pods")) else {
            return Ok(());
        };
        let own = pod.array_at(&["spec", "tolerations"]);
        if own.is_empty() {
            return Ok(());
        }
        let (allowed, whose) = match self.of_namespace(attributes, ALLOWED_TOLERATIONS)? {
            Some(allowed) => (allowed, "namespace"),
            None => (self.settings.allowed.clone(), "cluster"),
        };
        if tolerations::are_allowed(own, &allowed) {
            return Ok(());
        }
        let why = format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {whose} whitelist"
        );
        // Upstream does not make a refusal of this error.
        Err(Status::new(500, "", why))
    }
}

fn toleration_settings(document: &Value) -> Result<TolerationSettings, String> {
    check_type(document, "Configuration", &["podtolerationrestriction.admission.k8s.io/v1alpha1"])?;
    let list = |key: &str| document.array_at(&[key]).to_vec();
    Ok(TolerationSettings { default: list("default"), allowed: list("whitelist") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_pairs() {
        let labels = |text: &str| parse_labels(text).map(|labels| labels.into_iter().collect::<Vec<_>>());
        assert_eq!(labels(""), Ok(vec![]));
        assert_eq!(
            labels("env = test, disk=ssd"),
            Ok(vec![("disk".into(), "ssd".into()), ("env".into(), "test".into())])
        );
        assert_eq!(labels("env"), Err("invalid selector: [env]".to_owned()));
        assert_eq!(labels("a=b=c"), Err("invalid selector: [a b c]".to_owned()));
        assert!(labels("-x=y").is_err());
    }

    #[test]
    fn configurations_are_read() {
        let configured = selectors(&json!({"podNodeSelectorPluginConfig": {"ns": "a=b"}})).expect("good");
        assert_eq!(configured["ns"]["a"], "b");
        assert!(
            selectors(&json!({"podNodeSelectorPluginConfig": {"ns": "a"}}))
                .is_err_and(|why| why.starts_with("podNodeSelectorPluginConfig.ns: "))
        );
        let settings = toleration_settings(&json!({
            "apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1", "kind": "Configuration",
            "whitelist": [{"operator": "Exists"}],
        }))
        .expect("good");
        assert_eq!((settings.default.len(), settings.allowed.len()), (0, 1));
    }
}
