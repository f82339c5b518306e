//! The variables of a container, in upstream's order of precedence: what the pod lists wins over whole ConfigMaps and
//! Secrets, and both over Services.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVarSource};

use super::env_file::{EnvFiles, value_in};
use super::expansion::expand;
use super::fields::{self, Addresses};
use super::{ContainerFacts, Notice, PodFacts, Refusal, namespace, services};

/// Variables and whatever was passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    pub variables: BTreeMap<String, String>,
    pub notices: Vec<Notice>,
}

impl Environment {
    /// References to them in a text are replaced.
    pub fn expand(&self, text: &str) -> String {
        expand(text, |name| self.variables.get(name).cloned())
    }
}

/// All variables of a container.
///
/// # Errors
/// Where something that it refers to is not there.
pub fn environment(
    facts: &PodFacts<'_>,
    start: &ContainerFacts<'_>,
    addresses: &Addresses,
) -> Result<Environment, Refusal> {
    let links = facts.pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let of_services = services::variables(facts.services, namespace(facts.pod), links);
    let mut notices = Vec::new();
    let mut own = BTreeMap::new();
    for source in start.container.env_from.iter().flatten() {
        add_all(facts, source, &mut own, &mut notices).map_err(Refusal::config)?;
    }
    for variable in start.container.env.iter().flatten() {
        let value = match (variable.value.as_deref().unwrap_or_default(), &variable.value_from) {
            ("", Some(source)) => {
                match value_from(facts, start, source, addresses).map_err(Refusal::config)? {
                    Some(value) => value,
                    None => continue,
                }
            }
            (text, _) => expand(text, |name| own.get(name).or_else(|| of_services.get(name)).cloned()),
        };
        own.insert(variable.name.clone(), value);
    }
    for (name, value) in of_services {
        own.entry(name).or_insert(value);
    }
    Ok(Environment { variables: own, notices })
}

fn add_all(
    facts: &PodFacts<'_>,
    source: &EnvFromSource,
    own: &mut BTreeMap<String, String>,
    notices: &mut Vec<Notice>,
) -> Result<(), String> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let (kind, name, pairs): (_, _, Vec<(&String, String)>) =
        match (&source.config_map_ref, &source.secret_ref) {
            (Some(reference), _) => {
                let map = facts.objects.config_map(&reference.name, reference.optional.unwrap_or(false))?;
                let data = map.and_then(|map| map.data.as_ref()).into_iter().flatten();
                ("configMap", &reference.name, data.map(|(key, value)| (key, value.clone())).collect())
            }
            (None, Some(reference)) => {
                let secret = facts.objects.secret(&reference.name, reference.optional.unwrap_or(false))?;
                let data = secret.and_then(|secret| secret.data.as_ref()).into_iter().flatten();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                ("secret", &reference.name, data.map(|(key, value)| (key, text(&value.0))).collect())
            }
            (None, None) => return Ok(()),
        };
    let mut invalid = Vec::new();
    for (key, value) in pairs {
        let key = format!("{prefix}{key}");
        if is_valid_name(&key) {
            own.insert(key, value);
        } else {
            invalid.push(key);
        }
    }
    if !invalid.is_empty() {
        let message = format!(
            "Keys [{}] from the EnvFrom {kind} {}/{name} were skipped since they are considered invalid environment \
             variable names.",
            invalid.join(", "),
            namespace(facts.pod),
        );
        notices.push(Notice::warning("InvalidEnvironmentVariableNames", message));
    }
    Ok(())
}

/// Printable ASCII but for `=`, as since 1.34.
fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

/// The value that a source has; `None` where that is optional and missing.
fn value_from(
    facts: &PodFacts<'_>,
    start: &ContainerFacts<'_>,
    source: &EnvVarSource,
    addresses: &Addresses,
) -> Result<Option<String>, String> {
    let pod = facts.pod;
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, &reference.field_path, addresses).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        let container = match reference.container_name.as_deref().unwrap_or_default() {
            "" => start.container,
            name => fields::container_named(pod, name)?,
        };
        return fields::resource(pod, container, reference, &facts.node.allocatable).map(Some);
    }
    let (value, kind, key, name, optional) = if let Some(own) = &source.config_map_key_ref {
        let optional = own.optional.unwrap_or(false);
        let Some(map) = facts.objects.config_map(&own.name, optional)? else { return Ok(None) };
        let value = map.data.as_ref().and_then(|data| data.get(&own.key)).cloned();
        (value, "ConfigMap", &own.key, &own.name, optional)
    } else if let Some(own) = &source.secret_key_ref {
        let optional = own.optional.unwrap_or(false);
        let Some(secret) = facts.objects.secret(&own.name, optional)? else { return Ok(None) };
        let value = secret.data.as_ref().and_then(|data| data.get(&own.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        (value, "Secret", &own.key, &own.name, optional)
    } else if let Some(own) = &source.file_key_ref {
        return from_file(start.env_files, own);
    } else {
        return Ok(Some(String::new()));
    };
    match value {
        None if !optional => Err(format!("couldn't find key {key} in {kind} {}/{name}", namespace(pod))),
        value => Ok(value),
    }
}

fn from_file(
    files: &dyn EnvFiles,
    own: &k8s_openapi::api::core::v1::FileKeySelector,
) -> Result<Option<String>, String> {
    let text = files.read(&own.volume_name, &own.path)?;
    let value = match &text {
        Some(text) => value_in(text, &own.key)
            .map_err(|why| format!("couldn't parse env file {:?}: {why}", own.path))?,
        None => None,
    };
    match value {
        None if !own.optional.unwrap_or(false) && text.is_none() => {
            Err(format!("environment variable file {:?} of volume {:?} not found", own.path, own.volume_name))
        }
        None if !own.optional.unwrap_or(false) => {
            Err(format!("environment variable key {:?} not found in file {:?}", own.key, own.path))
        }
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::{ConfigMap, Container, Secret, Service};
    use runtime::ImageStatus;

    use super::super::fixture;
    use super::super::objects::{Lookup, Objects};
    use super::*;

    fn objects() -> Objects {
        let mut objects = Objects::default();
        let data = [("a", "from map"), ("b", "$(UP)"), ("in-valid", "x")];
        let map = ConfigMap {
            data: Some(data.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ConfigMap::default()
        };
        objects.config_maps.insert("cm".into(), Lookup::Found(Arc::new(map)));
        objects.config_maps.insert("broken".into(), Lookup::Failed("it is down".into()));
        let data = [("a".to_owned(), ByteString(b"from secret".to_vec()))];
        let secret = Secret { data: Some(data.into()), ..Secret::default() };
        objects.secrets.insert("s".into(), Lookup::Found(Arc::new(secret)));
        objects
    }

    struct OneFile;

    impl EnvFiles for OneFile {
        fn read(&self, volume: &str, path: &str) -> Result<Option<String>, String> {
            Ok((volume == "v" && path == "f").then(|| "K='file'".to_owned()))
        }
    }

    fn of(container: serde_json::Value) -> Result<Environment, String> {
        let pod = fixture::pod(serde_json::json!({"containers": [], "nodeName": "n1"}));
        let container: Container = serde_json::from_value(container).expect("a container");
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "up", "namespace": "ns"}, "spec": {"clusterIP": "10.0.0.1"}}))
        .expect("a service");
        let (node, objects, mounted) = (fixture::node(), objects(), fixture::volumes());
        let facts = PodFacts {
            pod: &pod,
            node: &node,
            services: &[Arc::new(service)],
            objects: &objects,
            addresses: &[],
            volumes: &mounted,
            user_mapping: None,
        };
        let start = ContainerFacts {
            container: &container,
            attempt: 0,
            restart_count: 0,
            image: &ImageStatus::default(),
            pid_target: None,
            devices: &[],
            env_files: &OneFile,
        };
        let addresses = Addresses { pod: vec!["10.1.0.1".into()], host: vec!["192.0.2.1".into()] };
        environment(&facts, &start, &addresses).map_err(|refusal| refusal.message)
    }

    fn text(environment: &Environment) -> String {
        let pairs = environment.variables.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_listed_wins_and_sees_what_was_before() {
        let made = of(serde_json::json!({"name": "c",
            "envFrom": [{"configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}, "prefix": "P="},
                {"configMapRef": {"name": "none", "optional": true}}, {"secretRef": {"name": "s"}, "prefix": "P_"}],
            "env": [
                {"name": "b", "value": "$(a)!"}, {"name": "c", "value": "$(b)$(d)$$(a)"}, {"name": "d", "value": "late"},
                {"name": "host", "value": "$(UP_SERVICE_HOST)"}, {"name": "e", "value": ""}, {"name": "f"},
                {"name": "UP_SERVICE_HOST", "value": "mine"}]}))
        .expect("it is made");
        assert_eq!(
            text(&made),
            "P_a=from secret UP_SERVICE_HOST=mine a=from map b=from map! c=from map!$(d)$(a) d=late e= f= \
             host=10.0.0.1 in-valid=x"
        );
        assert_eq!(made.notices.len(), 1);
        assert_eq!(
            made.notices[0].message,
            "Keys [P=a] from the EnvFrom secret ns/s were skipped since they are considered invalid environment \
             variable names."
        );
    }

    #[test]
    fn sources_give_values_or_a_reason() {
        let reference = |source: serde_json::Value| {
            let container = serde_json::json!({"name": "c", "env": [{"name": "X", "valueFrom": source}], "resources": {}});
            of(container).map(|made| made.variables.get("X").cloned())
        };
        let cases = [
            (serde_json::json!({"fieldRef": {"fieldPath": "status.podIP"}}), Ok(Some("10.1.0.1"))),
            (serde_json::json!({"resourceFieldRef": {"resource": "limits.cpu"}}), Ok(Some("4"))),
            (serde_json::json!({"configMapKeyRef": {"name": "cm", "key": "b"}}), Ok(Some("$(UP)"))),
            (serde_json::json!({"secretKeyRef": {"name": "s", "key": "a"}}), Ok(Some("from secret"))),
            (
                serde_json::json!({"configMapKeyRef": {"name": "cm", "key": "z"}}),
                Err("couldn't find key z in ConfigMap ns/cm"),
            ),
            (serde_json::json!({"configMapKeyRef": {"name": "cm", "key": "z", "optional": true}}), Ok(None)),
            (
                serde_json::json!({"configMapKeyRef": {"name": "x", "key": "z"}}),
                Err("configmap \"x\" not found"),
            ),
            (
                serde_json::json!({"secretKeyRef": {"name": "s", "key": "z"}}),
                Err("couldn't find key z in Secret ns/s"),
            ),
            (serde_json::json!({"secretKeyRef": {"name": "x", "key": "z"}}), Err("secret \"x\" not found")),
            (serde_json::json!({"secretKeyRef": {"name": "x", "key": "z", "optional": true}}), Ok(None)),
            (
                serde_json::json!({"configMapKeyRef": {"name": "broken", "key": "z", "optional": true}}),
                Err("it is down"),
            ),
            (
                serde_json::json!({"fileKeyRef": {"volumeName": "v", "path": "f", "key": "K"}}),
                Ok(Some("file")),
            ),
            (
                serde_json::json!({"fileKeyRef": {"volumeName": "v", "path": "f", "key": "L"}}),
                Err("environment variable key \"L\" not found in file \"f\""),
            ),
            (
                serde_json::json!({"fileKeyRef": {"volumeName": "v", "path": "g", "key": "L", "optional": true}}),
                Ok(None),
            ),
        ];
        for (source, wanted) in cases {
            let value = reference(source.clone());
            let value = value.as_ref().map(Option::as_deref).map_err(String::as_str);
            assert_eq!(value, wanted, "{source}");
        }
    }
}
