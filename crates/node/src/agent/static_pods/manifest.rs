//! The pod that a file describes. Pure.
//!
//! What the API would do to a new pod is done here: defaults, and the same checks with the same words.

use api::kinds::core::pod::Pod as PodRules;
use api::strategy::{Context, NameRule, Strategy};
use api::validation::{ObjectMetaRules, object_meta};
use apimachinery::field::Path;
use apimachinery::{Object, Value, json};
use camino::Utf8Path;
use jiff::Timestamp;

use super::{HASH, MIRROR, SEEN, SOURCE};

/// Hexadecimal digits of a pod's uid.
const UID_DIGITS: usize = 32;

/// # Errors
/// Why the file describes no pod that may run here.
pub fn read(content: &[u8], path: &Utf8Path, node_name: &str, now: Timestamp) -> Result<Object, String> {
    let text = std::str::from_utf8(content).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut pod = Value::parse_yaml(text).map_err(|error| format!("couldn't parse as pod: {error}"))?;
    let (version, kind) = (pod.str_at(&["apiVersion"]), pod.str_at(&["kind"]));
    if (version, kind) != ("v1", "Pod") {
        return Err(format!(
            "invalid pod: want apiVersion \"v1\" and kind \"Pod\", have \"{version}\" and \"{kind}\""
        ));
    }
    let name = pod.str_at(&["metadata", "name"]).to_owned();
    if name.is_empty() {
        return Err("invalid pod: metadata.name: Required value".to_owned());
    }
    if let Some(what) = reference(&pod) {
        return Err(format!("static pods may not reference {what}"));
    }
    let uid = uid(&pod, path, node_name);
    pod.remove_at(&["status"]);
    for made_by_api in
        ["creationTimestamp", "deletionTimestamp", "resourceVersion", "generation", "ownerReferences"]
    {
        pod.remove_at(&["metadata", made_by_api]);
    }
    pod.set_at(&["metadata", "name"], format!("{name}-{}", node_name.to_lowercase()));
    pod.set_at(&["metadata", "uid"], uid.as_str());
    if pod.str_at(&["metadata", "namespace"]).is_empty() {
        pod.set_at(&["metadata", "namespace"], "default");
    }
    pod.remove_at(&["metadata", "annotations", MIRROR]);
    for (key, value) in [(HASH, uid), (SOURCE, "file".to_owned()), (SEEN, now.to_string())] {
        pod.set_at(&["metadata", "annotations", key], value);
    }
    pod.set_at(&["spec", "nodeName"], node_name);
    // Whatever becomes of its node, it stays.
    let mut tolerations = pod.array_at(&["spec", "tolerations"]).to_vec();
    let all = json!({"operator": "Exists", "effect": "NoExecute"});
    if !tolerations.contains(&all) {
        tolerations.push(all);
    }
    pod.set_at(&["spec", "tolerations"], tolerations);
    check(&mut pod, now)?;
    let revision = 0;
    let object = Object::from_value(&pod, revision, &[]).map_err(|error| format!("invalid pod: {error}"))?;
    super::decode(&object).map_err(|error| format!("couldn't parse as pod: {error}"))?;
    Ok(object)
}

/// Fills in defaults, and looks for what the API would refuse.
fn check(pod: &mut Value, now: Timestamp) -> Result<(), String> {
    let ctx = Context { now, user: "", subresource: None, allow_privileged: true };
    PodRules.default(pod);
    PodRules.prepare_for_create(&ctx, pod);
    let rules =
        ObjectMetaRules { namespaced: true, name: NameRule::DnsSubdomain, qualified_finalizers: true };
    let mut errors = object_meta(rules, &pod["metadata"], &Path::root("metadata"));
    errors.extend(PodRules.validate(&ctx, pod));
    if errors.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(format!("invalid pod: {}", texts.join(", ")))
}

/// One description at one place is one pod, also after a restart.
fn uid(pod: &Value, path: &Utf8Path, node_name: &str) -> String {
    let own = pod.str_at(&["metadata", "uid"]);
    if !own.is_empty() {
        return own.to_owned();
    }
    let text = format!("host:{node_name}\nfile:{path}\n{}", pod.to_json_string());
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut uid: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    uid.truncate(UID_DIGITS);
    uid
}

/// What of the API the pod needs. It runs without one, so that it can have none of it.
fn reference(pod: &Value) -> Option<&'static str> {
    let spec = pod.get("spec")?;
    let has =
        |path: &[&str]| spec.at(path).is_some_and(|value| !value.is_null() && value.as_str() != Some(""));
    let is_listed = |path: &[&str]| !spec.array_at(path).is_empty();
    if has(&["serviceAccountName"]) || has(&["serviceAccount"]) {
        return Some("serviceaccounts");
    }
    if is_listed(&["resourceClaims"]) {
        return Some("resourceclaims");
    }
    if is_listed(&["imagePullSecrets"]) {
        return Some("secrets");
    }
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| spec.array_at(&[list]));
    for container in containers {
        for env in container.array_at(&["env"]) {
            let from = |key| env.at(&["valueFrom", key]).is_some();
            if from("secretKeyRef") {
                return Some("secrets");
            }
            if from("configMapKeyRef") {
                return Some("configmaps");
            }
        }
        for env in container.array_at(&["envFrom"]) {
            if env.get("secretRef").is_some() {
                return Some("secrets");
            }
            if env.get("configMapRef").is_some() {
                return Some("configmaps");
            }
        }
    }
    spec.array_at(&["volumes"]).iter().find_map(volume_reference)
}

fn volume_reference(volume: &Value) -> Option<&'static str> {
    let projected = volume.array_at(&["projected", "sources"]).iter();
    for source in std::iter::once(volume).chain(projected) {
        for (key, what) in [
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("serviceAccountToken", "serviceaccounts"),
            ("clusterTrustBundle", "clustertrustbundles"),
            ("podCertificate", "podcertificates"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("ephemeral", "persistentvolumeclaims"),
        ] {
            if source.get(key).is_some_and(|value| !value.is_null()) {
                return Some(what);
            }
        }
    }
    let named = |source: &Value| {
        ["secretRef", "nodePublishSecretRef", "secretName"].into_iter().any(|key| source.get(key).is_some())
    };
    let sources = volume.as_object().into_iter().flat_map(|fields| fields.iter());
    sources.map(|(_, source)| source).any(named).then_some("secrets")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(text: &str) -> Result<Object, String> {
        read(text.as_bytes(), Utf8Path::new("/m/web.yaml"), "node-1", Timestamp::UNIX_EPOCH)
    }

    fn with_spec(spec: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {spec}\n")
    }

    #[test]
    fn a_file_becomes_a_pod_of_this_node() {
        let text = with_spec("{containers: [{name: c, image: nginx}]}");
        let object = read_one(&text).expect("a pod");
        let pod = object.to_value();
        assert_eq!((object.namespace(), object.name()), ("default", "web-node-1"));
        assert_eq!(pod.str_at(&["spec", "nodeName"]), "node-1");
        assert_eq!(pod.str_at(&["spec", "restartPolicy"]), "Always");
        assert_eq!(pod.str_at(&["status", "qosClass"]), "BestEffort");
        let annotation = |key| pod.str_at(&["metadata", "annotations", key]).to_owned();
        assert_eq!((annotation(SOURCE).as_str(), annotation(HASH).as_str()), ("file", object.uid()));
        assert_eq!(annotation(SEEN), "1970-01-01T00:00:00Z");
        assert_eq!(pod["spec"]["tolerations"][0], json!({"operator": "Exists", "effect": "NoExecute"}));
        assert_eq!(object.uid().len(), UID_DIGITS);

        let commented = read_one(&format!("# why\n{text}")).expect("a pod");
        assert_eq!(commented.uid(), object.uid(), "it says the same");
        let other = read_one(&text.replace("nginx", "httpd")).expect("a pod");
        assert_ne!(other.uid(), object.uid());
        let elsewhere = read(text.as_bytes(), Utf8Path::new("/m/b"), "node-1", Timestamp::UNIX_EPOCH);
        assert_ne!(elsewhere.expect("a pod").uid(), object.uid());
        let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "kube-system", "uid": "7"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
        let object = read_one(json).expect("a pod");
        assert_eq!((object.namespace(), object.uid()), ("kube-system", "7"));
    }

    #[test]
    fn what_is_no_pod_or_needs_an_api_is_refused() {
        let container = "containers: [{name: c, image: i}]";
        for (text, wanted) in [
            ("a: [".to_owned(), "couldn't parse as pod: "),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n".to_owned(),
                "invalid pod: want apiVersion",
            ),
            (
                "apiVersion: v1\nkind: Pod\nspec: {}\n".to_owned(),
                "invalid pod: metadata.name: Required value",
            ),
            (with_spec("{containers: []}"), "invalid pod: spec.containers: Required value"),
            (
                with_spec("{containers: [{name: C, image: i}]}"),
                "invalid pod: spec.containers[0].name: Invalid value: \"C\"",
            ),
            (with_spec("{containers: [{name: c, image: 7, command: x}]}"), ""),
            (
                with_spec(&format!("{{{container}, serviceAccountName: x}}")),
                "static pods may not reference serviceaccounts",
            ),
            (
                with_spec("{containers: [{name: c, image: i, envFrom: [{secretRef: {name: x}}]}]}"),
                "static pods may not reference secrets",
            ),
            (
                with_spec(
                    "{containers: [{name: c, image: i, env: [{name: A, valueFrom: {configMapKeyRef: {name: x, key: k}}}]}]}",
                ),
                "static pods may not reference configmaps",
            ),
            (
                with_spec(&format!(
                    "{{{container}, volumes: [{{name: v, persistentVolumeClaim: {{claimName: x}}}}]}}"
                )),
                "static pods may not reference persistentvolumeclaims",
            ),
            (
                with_spec(&format!(
                    "{{{container}, volumes: [{{name: v, projected: {{sources: [{{serviceAccountToken: {{path: t}}}}]}}}}]}}"
                )),
                "static pods may not reference serviceaccounts",
            ),
            (
                with_spec(&format!(
                    "{{{container}, volumes: [{{name: v, cephfs: {{monitors: [a], secretRef: {{name: x}}}}}}]}}"
                )),
                "static pods may not reference secrets",
            ),
        ] {
            let complaint = read_one(&text).expect_err(&text);
            assert!(complaint.starts_with(wanted), "{text}: {complaint}");
        }
        assert!(read(b"\xff", Utf8Path::new("x"), "n", Timestamp::UNIX_EPOCH).is_err());
    }
}
