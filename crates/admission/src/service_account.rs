//! `ServiceAccount`: every pod runs as a service account that exists, and carries a token of it.

use apimachinery::{Object, Status, Value, json};
use registry::Endpoint;
use registry::admission::{Attributes, Operation};
use serde::Deserialize;

use crate::{Plugin, forbidden, look_up};

const DEFAULT_ACCOUNT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and seven seconds: upstream's mark for tokens whose lifetime may be extended.
const TOKEN_SECONDS: i64 = 3607;
/// Static pods, made by a node and only mirrored here, run without an account.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

pub struct ServiceAccount {
    accounts: Endpoint,
}

/// What this plugin reads of a service account; decoded once per stored state.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Account {
    automount_service_account_token: Option<bool>,
    image_pull_secrets: Vec<Value>,
}

impl ServiceAccount {
    pub fn new(accounts: Endpoint) -> Self {
        Self { accounts }
    }

    fn account(&self, attributes: &Attributes<'_>, name: &str) -> Result<std::sync::Arc<Object>, Status> {
        let namespace = attributes.namespace;
        look_up(&self.accounts, namespace, name).ok_or_else(|| {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount {} not found",
                apimachinery::field::go_quote(name)
            );
            forbidden(attributes, why)
        })
    }
}

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is("", "pods") || is_mirror(pod) {
            return Ok(());
        }
        if pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
            let old_name = pod.str_at(&["spec", "serviceAccount"]);
            let name = if old_name.is_empty() { DEFAULT_ACCOUNT } else { old_name }.to_owned();
            pod.set_at(&["spec", "serviceAccountName"], name);
        }
        let name = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
        pod.set_at(&["spec", "serviceAccount"], name.as_str());
        let account = self.account(attributes, &name)?.view::<Account>().map_err(Status::internal)?;
        if mounts_token(pod, &account) {
            mount_token(pod);
        }
        let secrets = &account.image_pull_secrets;
        if !secrets.is_empty() && pod.array_at(&["spec", "imagePullSecrets"]).is_empty() {
            pod.set_at(&["spec", "imagePullSecrets"], secrets.clone());
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(pod) =
            object.filter(|_| attributes.operation == Operation::Create && attributes.is("", "pods"))
        else {
            return Ok(());
        };
        if !is_mirror(pod) {
            return self.account(attributes, pod.str_at(&["spec", "serviceAccountName"])).map(drop);
        }
        if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
            return Err(forbidden(attributes, "a mirror pod may not reference service accounts"));
        }
        for volume in pod.array_at(&["spec", "volumes"]) {
            if volume.get("secret").is_some() {
                return Err(forbidden(attributes, "a mirror pod may not reference secrets"));
            }
        }
        Ok(())
    }
}

fn is_mirror(pod: &Value) -> bool {
    pod.at(&["metadata", "annotations", MIRROR_ANNOTATION]).is_some()
}

/// The pod decides, then its account, and silence means yes.
fn mounts_token(pod: &Value, account: &Account) -> bool {
    let pod_says = pod["spec"]["automountServiceAccountToken"].as_bool();
    pod_says.or(account.automount_service_account_token).unwrap_or(true)
}

/// Adds the projected token volume and mounts it wherever nothing is mounted at its place yet.
fn mount_token(pod: &mut Value) {
    let existing = pod
        .array_at(&["spec", "volumes"])
        .iter()
        .map(|volume| volume.str_at(&["name"]))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", rt::name_suffix(5)));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            mounted |= mount(container, &name);
        }
    }
    if !mounted || existing.is_some() {
        return;
    }
    let volumes = pod.ensure_object_at(&["spec"]).get_or_insert_with("volumes", || Value::Array(Vec::new()));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(token_volume(&name));
    }
}

fn mount(container: &mut Value, volume: &str) -> bool {
    let mounts = container.ensure_object().get_or_insert_with("volumeMounts", || Value::Array(Vec::new()));
    let Some(mounts) = mounts.as_array_mut() else { return false };
    if mounts.iter().any(|mount| mount.str_at(&["mountPath"]) == MOUNT_PATH) {
        return false;
    }
    mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                ]}}
            ]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}})
    }

    #[test]
    fn a_token_is_mounted_once_and_only_where_there_is_room() {
        let mut pod = pod();
        mount_token(&mut pod);
        let volume = pod["spec"]["volumes"][0].str_at(&["name"]).to_owned();
        assert!(volume.starts_with(VOLUME_PREFIX));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], volume.as_str().into());
        assert_eq!(pod["spec"]["containers"][1].array_at(&["volumeMounts"]).len(), 1);
        let once = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn the_pod_overrules_its_account() {
        let account =
            |automount| Account { automount_service_account_token: automount, ..Account::default() };
        let (yes, no, silent) = (account(Some(true)), account(Some(false)), account(None));
        let refusing_pod = json!({"spec": {"automountServiceAccountToken": false}});
        assert!(!mounts_token(&refusing_pod, &yes));
        assert!(!mounts_token(&json!({"spec": {}}), &no));
        assert!(mounts_token(&json!({"spec": {}}), &silent));
    }
}
