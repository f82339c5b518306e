//! Images of this node's containers: whether one has to be pulled, as whom, and when again after a failure.
//!
//! Owns: pull policies, events about pulls, and how many run at a time. Never touches: registries (the runtime's).
//! Messages and reasons are the kubelet's.

pub mod collection;
mod credentials;

use std::time::Duration;

use api::gvr::SECRETS;
use apimachinery::Value;
use k8s_openapi::api::core::v1::Pod;
use runtime::spec::{ImageStatus, PullRequest, RegistryCredential};
use runtime::{Error, SharedRuntime};
use std::sync::Arc;
use tokio::sync::Semaphore;

use super::pod::backoff::Backoff;
use super::pod::status::Waiting;
use super::report::About;

/// Pulls at a time; more wait, so that the first containers are not slowed by the last.
const PULLS_MAX: usize = 4;

/// A pull without any progress for so long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Pulls images for all pods of the node.
pub struct Images {
    runtime: SharedRuntime,
    api: Arc<dyn client::Api>,
    pulls: Semaphore,
}

/// An image cannot be had now.
#[derive(Clone, Debug)]
pub struct Unavailable {
    /// What the container's status says meanwhile.
    pub waiting: Waiting,
    /// When to ask again; `None` when only a change of the pod can help.
    pub retry_after: Option<Duration>,
}

impl Images {
    pub fn new(runtime: SharedRuntime, api: Arc<dyn client::Api>) -> Self {
        Self { runtime, api, pulls: Semaphore::new(PULLS_MAX) }
    }

    /// Sees to it that an image is here that the pod has for a container or a volume.
    pub async fn ensure(
        &self,
        pod: &Pod,
        image: &str,
        policy: Option<&str>,
        backoff: &mut Backoff,
        say: &About<'_>,
    ) -> Result<ImageStatus, Unavailable> {
        // Runtimes say it in words of their own, if at all.
        if let Err(error) = runtime::check_image_name(image) {
            let message = format!("Failed to apply default image tag \"{image}\": {error}");
            return Err(not_inspected("InvalidImageName", message, say));
        }
        let present = self.runtime.image_status(image).await.map_err(|error| {
            let message = format!("Failed to inspect image \"{image}\": {error}");
            not_inspected("ImageInspectError", message, say)
        })?;
        match (policy, present) {
            (Some("Never") | Some("IfNotPresent") | None, Some(present)) => {
                say.normal("Pulled", format!("Container image \"{image}\" already present on machine"));
                return Ok(present);
            }
            (Some("Never"), None) => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                say.warning("ErrImageNeverPull", message.clone());
                let waiting = Waiting { reason: "ErrImageNeverPull".into(), message };
                return Err(Unavailable { waiting, retry_after: Some(Duration::from_secs(10)) });
            }
            _ => {}
        }
        self.pull(pod, image, backoff, say).await
    }

    async fn pull(
        &self,
        pod: &Pod,
        image: &str,
        backoff: &mut Backoff,
        say: &About<'_>,
    ) -> Result<ImageStatus, Unavailable> {
        let key = backoff_key(image);
        let asked = rt::instant();
        say.normal("Pulling", format!("Pulling image \"{image}\""));
        let credentials = self.credentials(pod, image).await;
        let permit = self.pulls.acquire().await.expect("the semaphore is never closed");
        let began = rt::instant();
        let request =
            PullRequest { image: image.to_owned(), credentials, stall_timeout: Some(STALL_TIMEOUT) };
        let pulled = self.runtime.pull_image(&request).await;
        drop(permit);
        let error = match pulled {
            Ok(id) => match self.runtime.image_status(&id).await {
                Ok(Some(status)) => {
                    backoff.reset(&key);
                    let (took, whole) = (go_duration(began.elapsed()), go_duration(asked.elapsed()));
                    say.normal(
                        "Pulled",
                        format!(
                            "Successfully pulled image \"{image}\" in {took} ({whole} including waiting). Image size: \
                             {} bytes.",
                            status.size
                        ),
                    );
                    return Ok(status);
                }
                Ok(None) => Error::Failed(format!("image {id} is gone again")),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let now = rt::now();
        backoff.advance(&key, now);
        let reason = match &error {
            Error::Refused { reason, .. } if !reason.is_empty() => reason,
            _ => "ErrImagePull",
        };
        say.warning("Failed", format!("Failed to pull image \"{image}\": {error}"));
        say.warning("Failed", format!("Error: {reason}"));
        Err(Unavailable {
            waiting: Waiting { reason: reason.into(), message: error.to_string() },
            retry_after: Some(FAILURE_SHOWN_FOR),
        })
    }

    /// What the pod's `imagePullSecrets` hold for the registry of `image`.
    async fn credentials(&self, pod: &Pod, image: &str) -> Vec<RegistryCredential> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let references = spec.and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
        let mut found = Vec::new();
        for reference in references {
            match self.api.get(&SECRETS, namespace, &reference.name).await {
                Ok(secret) => found.extend(credentials::for_image(&secret.to_value(), image)),
                Err(error) => {
                    tracing::warn!(namespace, name = %reference.name, %error, "Read no image pull secret");
                }
            }
        }
        found
    }
}

/// How long a failure is the reason to wait before the back-off is, which names it.
const FAILURE_SHOWN_FOR: Duration = Duration::from_secs(1);

/// Under which the waits for an image are kept; no container is called so.
pub fn backoff_key(image: &str) -> String {
    format!("image {image}")
}

/// Whether whoever needs an image waits for its back-off, and what its status says meanwhile. `failure` is what the last
/// try said.
pub fn backs_off(image: &str, failure: &Waiting, backoff: &Backoff) -> Option<Unavailable> {
    let now = rt::now();
    let (left, _) = backoff.since(&backoff_key(image), now)?;
    let cause = match failure.message.split_once(": ErrImagePull: ") {
        Some((_, cause)) => cause,
        None => &failure.message,
    };
    let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {cause}");
    Some(Unavailable {
        waiting: Waiting { reason: "ImagePullBackOff".into(), message },
        retry_after: Some(left),
    })
}

fn not_inspected(reason: &str, message: String, say: &About<'_>) -> Unavailable {
    say.warning(if reason == "InvalidImageName" { "InspectFailed" } else { "Failed" }, message.clone());
    say.warning("Failed", format!("Error: {reason}"));
    Unavailable {
        waiting: Waiting { reason: reason.into(), message },
        retry_after: Some(Duration::from_secs(10)),
    }
}

/// A duration as Go prints it, to the millisecond.
fn go_duration(duration: Duration) -> String {
    if duration.as_secs() >= 60 {
        return super::pod::backoff::go_seconds(duration);
    }
    if duration.as_secs() >= 1 {
        let text = format!("{:.3}", duration.as_secs_f64());
        return format!("{}s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    format!("{}ms", duration.as_millis())
}

/// The docker configuration in a secret of either type, if it is one.
fn docker_config(secret: &Value) -> Option<Value> {
    use base64::Engine;
    let (key, is_old) = match secret.str_at(&["type"]) {
        "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", false),
        "kubernetes.io/dockercfg" => (".dockercfg", true),
        _ => return None,
    };
    let data = base64::engine::general_purpose::STANDARD.decode(secret.str_at(&["data", key])).ok()?;
    let tree = Value::parse(&data).ok()?;
    if is_old { Some(tree) } else { tree.get("auths").cloned() }
}
