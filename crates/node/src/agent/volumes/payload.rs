//! What files a volume of data has: pure functions from objects to paths, bytes and modes.

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use api::amounts::Amounts;

use super::atomic::{File, Payload};
use crate::agent::config::fields::{self, Addresses};

/// `defaultMode` where nothing is said.
pub const MODE_DEFAULT: i32 = 0o644;

/// Bytes by key.
type Keyed<'a> = Vec<(&'a str, Vec<u8>)>;

/// The files of a ConfigMap, `None` for an optional one that is not there.
///
/// # Errors
/// Where a key is not in it.
pub fn of_config_map(
    map: Option<&ConfigMap>,
    items: &[KeyToPath],
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let text = map.and_then(|map| map.data.as_ref()).into_iter().flatten();
    let binary = map.and_then(|map| map.binary_data.as_ref()).into_iter().flatten();
    let mut keyed: Keyed<'_> = text.map(|(key, value)| (key.as_str(), value.clone().into_bytes())).collect();
    keyed.extend(binary.map(|(key, value)| (key.as_str(), value.0.clone())));
    chosen(keyed, items, mode, optional, "configmap references non-existent config key")
}

/// The files of a Secret, as [`of_config_map`].
///
/// # Errors
/// Where a key is not in it.
pub fn of_secret(
    secret: Option<&Secret>,
    items: &[KeyToPath],
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let data = secret.and_then(|secret| secret.data.as_ref()).into_iter().flatten();
    let keyed = data.map(|(key, value)| (key.as_str(), value.0.clone())).collect();
    chosen(keyed, items, mode, optional, "references non-existent secret key")
}

fn chosen(
    keyed: Keyed<'_>,
    items: &[KeyToPath],
    mode: i32,
    optional: bool,
    missing: &str,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    if items.is_empty() {
        payload.extend(keyed.into_iter().map(|(key, data)| (key.to_owned(), file(data, mode))));
        return Ok(payload);
    }
    for item in items {
        let Some((_, data)) = keyed.iter().find(|(key, _)| *key == item.key) else {
            if optional {
                continue;
            }
            return Err(format!("{missing}: {}", item.key));
        };
        payload.insert(item.path.clone(), file(data.clone(), item.mode.unwrap_or(mode)));
    }
    Ok(payload)
}

pub fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: u32::try_from(mode).unwrap_or_default(), user: None }
}

/// The files of what a pod is told of itself.
///
/// # Errors
/// Where it asks for something that no pod has.
pub fn of_downward_api(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    allocatable: &Amounts,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            fields::field(pod, &reference.field_path, &Addresses::default())?
        } else if let Some(reference) = &item.resource_field_ref {
            let name = reference.container_name.as_deref().unwrap_or_default();
            fields::resource(pod, fields::container_named(pod, name)?, reference, allocatable)?
        } else {
            return Err(format!("file {:?} has no source", item.path));
        };
        payload.insert(item.path.clone(), file(text.into_bytes(), item.mode.unwrap_or(mode)));
    }
    Ok(payload)
}

/// Certificates of several bundles as one text, each once, in the order of their text so that nobody relies on another.
pub fn of_trust_bundles<'a>(bundles: impl Iterator<Item = &'a str>) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let mut blocks = std::collections::BTreeSet::new();
    for bundle in bundles {
        let mut rest = bundle;
        while let Some(start) = rest.find("-----BEGIN CERTIFICATE-----") {
            let Some(length) = rest[start..].find(END) else { break };
            let end = start + length + END.len();
            blocks.insert(rest[start..end].to_owned());
            rest = &rest[end..];
        }
    }
    blocks.into_iter().map(|block| block + "\n").collect()
}

/// The user that all containers of a pod run as, if they say so and it is one.
pub fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec.as_ref()?.security_context.as_ref().and_then(|own| own.run_as_user);
    let containers = crate::agent::config::all_containers(pod);
    let mut users =
        containers.iter().map(|own| own.security_context.as_ref().and_then(|own| own.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(())?;
    u32::try_from(first).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::agent::config::fixture;

    fn text(payload: Result<Payload, String>) -> Result<String, String> {
        let line = |(path, file): (String, File)| {
            format!("{path}={} {:o}", String::from_utf8_lossy(&file.data), file.mode)
        };
        payload.map(|payload| payload.into_iter().map(line).collect::<Vec<_>>().join(", "))
    }

    fn items(items: serde_json::Value) -> Vec<KeyToPath> {
        serde_json::from_value(items).expect("items")
    }

    #[test]
    fn keys_become_files_with_their_modes() {
        let map = ConfigMap {
            data: Some([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into()),
            binary_data: Some([("c".to_owned(), ByteString(vec![51]))].into()),
            ..ConfigMap::default()
        };
        let of = |items: &[KeyToPath], optional| text(of_config_map(Some(&map), items, 0o640, optional));
        assert_eq!(of(&[], false), Ok("a=1 640, b=2 640, c=3 640".into()));
        let some =
            items(serde_json::json!([{"key": "c", "path": "x/y"}, {"key": "a", "path": "a", "mode": 256}]));
        assert_eq!(of(&some, false), Ok("a=1 400, x/y=3 640".into()));
        let none = items(serde_json::json!([{"key": "z", "path": "z"}]));
        assert_eq!(of(&none, false), Err("configmap references non-existent config key: z".into()));
        assert_eq!(of(&none, true), Ok(String::new()));
        assert_eq!(
            text(of_secret(Some(&Secret::default()), &none, 0o644, false)),
            Err("references non-existent secret key: z".into())
        );
        assert_eq!(text(of_secret(None, &none, 0o644, true)), Ok(String::new()));
    }

    #[test]
    fn a_pod_reads_of_itself() {
        let pod = fixture::pod(serde_json::json!({"containers": [{"name": "c"}]}));
        let items: Vec<DownwardAPIVolumeFile> = serde_json::from_value(serde_json::json!([
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "cpu", "mode": 256, "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]))
        .expect("items");
        let made = text(of_downward_api(&pod, &items, 0o644, &fixture::node().allocatable));
        assert_eq!(made, Ok("cpu=4 400, labels=app=\"web\" 644".into()));
    }

    #[test]
    fn certificates_come_once() {
        let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        let bundles = [format!("note\n{}{}", block("B"), block("A")), block("B")];
        assert_eq!(
            of_trust_bundles(bundles.iter().map(String::as_str)),
            format!("{}{}", block("A"), block("B"))
        );
    }

    #[test]
    fn a_user_is_common_where_all_say_the_same() {
        let of = |pod: serde_json::Value, first: serde_json::Value| {
            common_user(&fixture::pod(serde_json::json!({"securityContext": pod, "containers": [
                {"name": "z", "securityContext": {"runAsUser": 5}}, {"name": "a", "securityContext": first}, {"name": "b", "securityContext": {"runAsUser": 5}}]})))
        };
        assert_eq!(of(serde_json::json!({}), serde_json::json!({"runAsUser": 5})), Some(5));
        assert_eq!(of(serde_json::json!({"runAsUser": 5}), serde_json::json!({})), Some(5));
        assert_eq!(of(serde_json::json!({"runAsUser": 6}), serde_json::json!({})), None);
        assert_eq!(of(serde_json::json!({}), serde_json::json!({})), None);
    }
}
