//! [`Objects`]: the ConfigMaps and Secrets that a pod refers to, as they were at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};

/// What came of looking for an object.
#[derive(Clone, Debug)]
pub enum Lookup<T> {
    Found(Arc<T>),
    Missing,
    /// It could not be asked for, and why.
    Failed(String),
}

/// By name; all in the pod's namespace.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub config_maps: BTreeMap<String, Lookup<ConfigMap>>,
    pub secrets: BTreeMap<String, Lookup<Secret>>,
}

impl Objects {
    /// # Errors
    /// The message of why there is none, unless it is `optional` and does not exist.
    pub fn config_map(&self, name: &str, optional: bool) -> Result<Option<&ConfigMap>, String> {
        found(self.config_maps.get(name), "configmap", name, optional)
    }

    /// # Errors
    /// As [`Objects::config_map`].
    pub fn secret(&self, name: &str, optional: bool) -> Result<Option<&Secret>, String> {
        found(self.secrets.get(name), "secret", name, optional)
    }
}

fn found<'a, T>(
    lookup: Option<&'a Lookup<T>>,
    kind: &str,
    name: &str,
    optional: bool,
) -> Result<Option<&'a T>, String> {
    match lookup {
        Some(Lookup::Found(object)) => Ok(Some(object)),
        Some(Lookup::Failed(why)) => Err(why.clone()),
        Some(Lookup::Missing) | None if optional => Ok(None),
        Some(Lookup::Missing) | None => Err(format!("{kind} {name:?} not found")),
    }
}

/// Names of what a pod refers to, all in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

impl References {
    /// What the containers, volumes and pull secrets of a pod name.
    pub fn of(pod: &Pod) -> Self {
        let mut references = Self::default();
        let Some(spec) = &pod.spec else { return references };
        for container in super::all_containers(pod) {
            references.add_container(&container);
        }
        references.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()));
        for volume in spec.volumes.iter().flatten() {
            references.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
            references.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
            let node_publish = volume.csi.iter().filter_map(|csi| csi.node_publish_secret_ref.as_ref());
            references.secrets.extend(node_publish.map(|secret| secret.name.clone()));
            for source in volume.projected.iter().flat_map(|own| own.sources.iter().flatten()) {
                references.config_maps.extend(source.config_map.iter().map(|own| own.name.clone()));
                references.secrets.extend(source.secret.iter().map(|own| own.name.clone()));
            }
        }
        references.config_maps.remove("");
        references.secrets.remove("");
        references
    }

    fn add_container(&mut self, container: &Container) {
        for source in container.env_from.iter().flatten() {
            self.config_maps.extend(source.config_map_ref.iter().map(|own| own.name.clone()));
            self.secrets.extend(source.secret_ref.iter().map(|own| own.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            self.config_maps.extend(source.config_map_key_ref.iter().map(|own| own.name.clone()));
            self.secrets.extend(source.secret_key_ref.iter().map(|own| own.name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_pod_names_is_found() {
        let pod = super::super::fixture::pod(serde_json::json!({
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "a",
                "envFrom": [{"configMapRef": {"name": "c1"}}, {"secretRef": {"name": "s1"}}],
                "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
                        {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}]}],
            "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "s5"}}]}],
            "volumes": [
                {"name": "v", "configMap": {"name": "c3"}}, {"name": "w", "secret": {"secretName": "s3"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "c4"}},
                    {"secret": {"name": "s4"}}]}}],
        }));
        let references = References::of(&pod);
        let text = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(text(&references.config_maps), "c1 c2 c3 c4");
        assert_eq!(text(&references.secrets), "pull s1 s2 s3 s4 s5");
    }
}
