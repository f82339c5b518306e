//! What a pod refers to: secrets, config maps, and whatever else only the API can give it.

use apimachinery::Value;

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Sources of volumes that need nothing from the API.
const SELF_CONTAINED: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// Sources of volumes that stand for an object of the API, and how upstream calls it.
const FROM_API: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];

/// The same for the sources of a projected volume.
const PROJECTED_FROM_API: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// Whether a secret is named anywhere.
pub fn names_secret(pod: &Value) -> bool {
    let pulls = pod.array_at(&["spec", "imagePullSecrets"]).iter().any(|secret| named(Some(secret), "name"));
    pulls || in_environment(pod, "secretRef", "secretKeyRef") || volumes(pod).any(volume_names_secret)
}

/// Whether a config map is named anywhere.
pub fn names_config_map(pod: &Value) -> bool {
    let in_volume = |volume: &Value| {
        named(volume.get("configMap"), "name")
            || projected(volume).any(|source| named(source.get("configMap"), "name"))
    };
    in_environment(pod, "configMapRef", "configMapKeyRef") || volumes(pod).any(in_volume)
}

/// The first thing in the pod that only the API can give it, in upstream's words.
pub fn from_api(pod: &Value) -> Option<&'static str> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    if names_secret(pod) {
        return Some("secrets");
    }
    if names_config_map(pod) {
        return Some("configmaps");
    }
    if !pod.array_at(&["spec", "resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    volumes(pod).find_map(volume_from_api)
}

fn volume_from_api(volume: &Value) -> Option<&'static str> {
    let has = |value: &Value, key: &str| value.get(key).is_some_and(|own| !own.is_null());
    if SELF_CONTAINED.iter().any(|key| has(volume, key)) {
        return None;
    }
    if let Some((_, words)) = FROM_API.iter().find(|(key, _)| has(volume, key)) {
        return Some(words);
    }
    projected(volume).find_map(|source| {
        PROJECTED_FROM_API.iter().find(|(key, _)| has(source, key)).map(|(_, words)| *words)
    })
}

fn volumes(pod: &Value) -> std::slice::Iter<'_, Value> {
    pod.array_at(&["spec", "volumes"]).iter()
}

fn projected(volume: &Value) -> std::slice::Iter<'_, Value> {
    volume.array_at(&["projected", "sources"]).iter()
}

fn named(reference: Option<&Value>, key: &str) -> bool {
    reference.is_some_and(|reference| !reference.str_at(&[key]).is_empty())
}

fn in_environment(pod: &Value, whole: &str, key: &str) -> bool {
    CONTAINERS.iter().flat_map(|list| pod.array_at(&["spec", list])).any(|container| {
        container.array_at(&["envFrom"]).iter().any(|source| named(source.get(whole), "name"))
            || container
                .array_at(&["env"])
                .iter()
                .any(|variable| named(variable.at(&["valueFrom", key]), "name"))
    })
}

fn volume_names_secret(volume: &Value) -> bool {
    const WITH_REFERENCE: [&str; 7] =
        ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];
    WITH_REFERENCE.iter().any(|source| named(volume.at(&[source, "secretRef"]), "name"))
        || named(volume.get("azureFile"), "secretName")
        || named(volume.get("secret"), "secretName")
        || named(volume.at(&["csi", "nodePublishSecretRef"]), "name")
        || projected(volume).any(|source| named(source.get("secret"), "name"))
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn what_only_the_api_can_give_is_found() {
        let with = |key: &str, value: Value| json!({"spec": {key: value}});
        let container = |container: Value| with("containers", json!([container]));
        let volume = |volume: Value| with("volumes", json!([volume]));
        for (pod, found) in [
            (json!({"spec": {}}), None),
            (with("serviceAccountName", "sa".into()), Some("serviceaccounts")),
            (with("imagePullSecrets", json!([{"name": "s"}])), Some("secrets")),
            (with("imagePullSecrets", json!([{}])), None),
            (container(json!({"envFrom": [{"secretRef": {"name": "s"}}]})), Some("secrets")),
            (
                container(json!({"env": [{"valueFrom": {"configMapKeyRef": {"name": "m"}}}]})),
                Some("configmaps"),
            ),
            (volume(json!({"hostPath": {"path": "/"}})), None),
            (volume(json!({"cephfs": {"secretRef": {"name": "s"}}})), Some("secrets")),
            (volume(json!({"cephfs": {}})), None),
            (volume(json!({"persistentVolumeClaim": {"claimName": "c"}})), Some("persistentvolumeclaims")),
            (volume(json!({"projected": {"sources": [{"downwardAPI": {}}]}})), None),
            (
                volume(json!({"projected": {"sources": [{"serviceAccountToken": {}}]}})),
                Some("serviceaccounts (via projected volumes)"),
            ),
        ] {
            assert_eq!(from_api(&pod), found, "{pod}");
        }
    }
}
