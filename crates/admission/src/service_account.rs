//! `ServiceAccount`: every pod runs as a service account that exists, and carries a token of it.

use std::sync::Arc;
use std::time::Duration;

use api::view::ObjectMeta;
use apimachinery::{Status, Str, Value, json};
use async_trait::async_trait;
use registry::Endpoint;
use registry::admission::{Attributes, Operation};
use serde::Deserialize;

use crate::dynamic::{DynamicPlugin, Pass};
use crate::plugins::{BuildError, Environment};
use crate::{forbidden, look_up};

const DEFAULT_ACCOUNT: &str = "default";
/// How long a pod waits for the account that a controller is about to make in a new namespace; upstream asks ten times
/// within one to two seconds.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_secs(2);
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and seven seconds: upstream's mark for tokens whose lifetime may be extended.
const TOKEN_SECONDS: i64 = 3607;
/// Static pods, made by a node and only mirrored here, run without an account.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Marks accounts whose pods may only use the secrets that the account lists.
const ENFORCE_MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

pub struct ServiceAccount {
    accounts: Endpoint,
}

/// What this plugin reads of a service account; decoded once per stored state.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Account {
    metadata: ObjectMeta,
    secrets: Vec<Reference>,
    automount_service_account_token: Option<bool>,
    image_pull_secrets: Vec<Reference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reference {
    name: Str,
}

impl ServiceAccount {
    pub fn new(environment: &Environment<'_>) -> Result<Self, BuildError> {
        Ok(Self { accounts: environment.endpoint(&api::gvr::SERVICE_ACCOUNTS)? })
    }

    fn account(&self, attributes: &Attributes<'_>, name: &str) -> Result<Arc<Account>, Status> {
        let namespace = attributes.namespace;
        if name.is_empty() {
            let why = format!("no service account specified for pod {namespace}/{}", attributes.name);
            return Err(forbidden(attributes, why));
        }
        let account = look_up(&self.accounts, namespace, name).ok_or_else(|| {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount {} not found",
                apimachinery::field::go_quote(name)
            );
            forbidden(attributes, why)
        })?;
        account.view::<Account>().map_err(Status::internal)
    }

    /// What a new pod, or a container added to debug one, refers to.
    fn check(&self, attributes: &Attributes<'_>, pod: &Value, debug: bool) -> Result<(), Status> {
        let account = self.account(attributes, pod.str_at(&["spec", "serviceAccountName"]))?;
        if !account.limits_secrets() {
            return Ok(());
        }
        let refused = if debug {
            foreign_secret(&account, pod, &["ephemeralContainers"])
        } else {
            foreign_volume(&account, pod)
                .or_else(|| foreign_secret(&account, pod, &["initContainers", "containers"]))
                .or_else(|| foreign_pull_secret(&account, pod))
        };
        match refused {
            Some(why) => Err(forbidden(attributes, why)),
            None => Ok(()),
        }
    }
}

impl ServiceAccount {
    /// Waits for the account `default` of a namespace that was made a moment ago.
    async fn settle(&self, namespace: &str) {
        if look_up(&self.accounts, namespace, DEFAULT_ACCOUNT).is_none() {
            let key = self.accounts.resource.key(namespace, DEFAULT_ACCOUNT);
            let _ = rt::timeout(DEFAULT_ACCOUNT_WAIT, self.accounts.cache.until_present(&key)).await;
        }
    }

    fn complete(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let name = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
        pod.set_at(&["spec", "serviceAccount"], name.as_str());
        let account = self.account(attributes, &name)?;
        if mounts_token(pod, &account) {
            mount_token(pod);
        }
        let secrets = &account.image_pull_secrets;
        if !secrets.is_empty() && pod.array_at(&["spec", "imagePullSecrets"]).is_empty() {
            let secrets: Vec<Value> =
                secrets.iter().map(|secret| json!({"name": secret.name.as_str()})).collect();
            pod.set_at(&["spec", "imagePullSecrets"], secrets);
        }
        Ok(())
    }
}

#[async_trait]
impl DynamicPlugin for ServiceAccount {
    fn is_idle(&self) -> bool {
        false
    }

    async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Value>,
        _pass: &mut Pass,
    ) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        if attributes.operation != Operation::Create || !attributes.is("", "pods") {
            return Ok(());
        }
        if is_mirror(pod) {
            return check_mirror(pod).map_err(|why| forbidden(attributes, why));
        }
        if pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
            let old_name = pod.str_at(&["spec", "serviceAccount"]);
            let name = if old_name.is_empty() { DEFAULT_ACCOUNT } else { old_name }.to_owned();
            pod.set_at(&["spec", "serviceAccountName"], name);
        }
        if pod.str_at(&["spec", "serviceAccountName"]) == DEFAULT_ACCOUNT {
            self.settle(attributes.namespace).await;
        }
        self.complete(attributes, pod)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        match attributes.operation {
            Operation::Create if attributes.is("", "pods") && is_mirror(pod) => {
                check_mirror(pod).map_err(|why| forbidden(attributes, why))
            }
            Operation::Create if attributes.is("", "pods") => self.check(attributes, pod, false),
            Operation::Update if attributes.is_sub("", "pods", "ephemeralcontainers") => {
                self.check(attributes, pod, true)
            }
            _ => Ok(()),
        }
    }
}

impl Account {
    /// Whether its pods may only use the secrets that it lists.
    fn limits_secrets(&self) -> bool {
        self.metadata.annotations.get(ENFORCE_MOUNTABLE_SECRETS).is_some_and(|text| is_true(text))
    }

    fn lists(&self, secret: &str) -> bool {
        self.secrets.iter().any(|own| own.name == secret)
    }
}

/// The spellings of true that Go reads.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn foreign_volume(account: &Account, pod: &Value) -> Option<String> {
    let secrets = pod.array_at(&["spec", "volumes"]).iter().filter_map(|volume| volume.get("secret"));
    let name = secrets.map(|secret| secret.str_at(&["secretName"])).find(|name| !account.lists(name))?;
    Some(format!(
        "volume with secret.secretName=\"{name}\" is not allowed because service account {} does not reference that \
         secret",
        account.metadata.name
    ))
}

/// A secret in the environment of a container that the account does not list.
fn foreign_secret(account: &Account, pod: &Value, lists: &[&str]) -> Option<String> {
    let owner = &account.metadata.name;
    for list in lists {
        let word = match *list {
            "initContainers" => "init container",
            "ephemeralContainers" => "ephemeral container",
            _ => "container",
        };
        for container in pod.array_at(&["spec", list]) {
            let name = container.str_at(&["name"]);
            for variable in container.array_at(&["env"]) {
                let Some(key) = variable.at(&["valueFrom", "secretKeyRef"]) else { continue };
                let secret = key.str_at(&["name"]);
                if !account.lists(secret) {
                    let variable = variable.str_at(&["name"]);
                    return Some(format!(
                        "{word} {name} with envVar {variable} referencing secret.secretName=\"{secret}\" is not \
                         allowed because service account {owner} does not reference that secret"
                    ));
                }
            }
            for source in container.array_at(&["envFrom"]) {
                let Some(key) = source.get("secretRef") else { continue };
                let secret = key.str_at(&["name"]);
                if !account.lists(secret) {
                    return Some(format!(
                        "{word} {name} with envFrom referencing secret.secretName=\"{secret}\" is not allowed \
                         because service account {owner} does not reference that secret"
                    ));
                }
            }
        }
    }
    None
}

fn foreign_pull_secret(account: &Account, pod: &Value) -> Option<String> {
    let named = pod.array_at(&["spec", "imagePullSecrets"]).iter().map(|secret| secret.str_at(&["name"]));
    let lists = |name: &str| account.image_pull_secrets.iter().any(|own| own.name == name);
    let (index, name) = named.enumerate().find(|(_, name)| !lists(name))?;
    Some(format!(
        "imagePullSecrets[{index}].name=\"{name}\" is not allowed because service account {} does not reference that \
         imagePullSecret",
        account.metadata.name
    ))
}

fn is_mirror(pod: &Value) -> bool {
    pod.at(&["metadata", "annotations", MIRROR_ANNOTATION]).is_some()
}

/// A static pod has no identity: nothing that belongs to one may be in it.
fn check_mirror(pod: &Value) -> Result<(), &'static str> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    if api::kinds::core::pod::references::names_secret(pod) {
        return Err("a mirror pod may not reference secrets");
    }
    let projected = pod
        .array_at(&["spec", "volumes"])
        .iter()
        .flat_map(|volume| volume.array_at(&["projected", "sources"]))
        .any(|source| source.get("serviceAccountToken").is_some_and(|token| !token.is_null()));
    if projected {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
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

    #[test]
    fn an_account_can_limit_the_secrets_of_its_pods() {
        let reference = |name: &str| Reference { name: name.into() };
        let account = Account {
            metadata: ObjectMeta { name: "sa".into(), ..ObjectMeta::default() },
            secrets: vec![reference("own")],
            image_pull_secrets: vec![reference("pull")],
            ..Account::default()
        };
        let env = |secret: &str| {
            json!({"spec": {"containers": [
                {"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]}
            ]}})
        };
        assert_eq!(foreign_secret(&account, &env("own"), &["containers"]), None);
        assert_eq!(
            foreign_secret(&account, &env("other"), &["containers"]).as_deref(),
            Some(
                "container c with envVar E referencing secret.secretName=\"other\" is not allowed because service \
                 account sa does not reference that secret"
            )
        );
        let pulls = json!({"spec": {"imagePullSecrets": [{"name": "pull"}, {"name": "own"}]}});
        assert!(
            foreign_pull_secret(&account, &pulls)
                .is_some_and(|why| why.starts_with("imagePullSecrets[1].name"))
        );
        let volume = json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "other"}}]}});
        assert!(foreign_volume(&account, &volume).is_some());
    }

    #[test]
    fn static_pods_have_no_identity() {
        let volumes = |volume: Value| json!({"spec": {"volumes": [volume]}});
        for (pod, refused) in [
            (json!({"spec": {}}), false),
            (json!({"spec": {"serviceAccountName": "sa"}}), true),
            (volumes(json!({"secret": {"secretName": "s"}})), true),
            (volumes(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})), true),
            (volumes(json!({"emptyDir": {}})), false),
        ] {
            assert_eq!(check_mirror(&pod).is_err(), refused, "{pod}");
        }
    }
}
