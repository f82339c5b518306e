//! postStart and preStop: what is run when a container begins and before it ends.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use runtime::SharedRuntime;

use super::http::{Get, HTTP_RESPONSE_TO_HTTPS};

/// A hook over HTTP has no limit of its own: the pod's time to end is its limit. This is for a hook of a pod without
/// one.
const HTTP_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whose hook it is.
#[derive(Clone, Copy, Debug)]
pub struct HookTarget<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub container_id: &'a str,
    pub pod_ip: Option<IpAddr>,
}

/// A hook that ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooked {
    /// An HTTPS hook was answered only over HTTP: the message of a Warning `LifecycleHTTPFallback`.
    pub fallback: Option<String>,
}

/// A hook that failed: the message for the container's status. In the Event (`FailedPostStartHook` or
/// `FailedPreStopHook`) there is no more than `PostStartHook failed` or `PreStopHook failed`, as it may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HookError(pub String);

/// Runs a hook to its end. It has no time limit: who calls drops it when the time of the container is over.
pub async fn run_hook(
    runtime: &SharedRuntime,
    target: HookTarget<'_>,
    handler: &LifecycleHandler,
) -> Result<Hooked, HookError> {
    let failed = |what: String, problem: &str| {
        let (container, pod) = (&target.container.name, format_pod(target.pod));
        HookError(format!("{what} for Container {container:?} in Pod {pod:?} failed - error: {problem}"))
    };
    if let Some(action) = &handler.exec {
        let command = action.command.as_deref().unwrap_or_default();
        let what = || format!("Exec lifecycle hook ([{}])", command.join(" "));
        return match runtime.exec_sync(target.container_id, command, Duration::ZERO).await {
            Ok(output) if output.exit_code == 0 => Ok(Hooked::default()),
            Ok(mut output) => {
                let problem = format!(
                    "command '{}' exited with {}: {}",
                    command.join(" "),
                    output.exit_code,
                    String::from_utf8_lossy(&output.stderr)
                );
                output.stdout.append(&mut output.stderr);
                let message = String::from_utf8_lossy(&output.stdout);
                Err(failed(what(), &format!("{problem}, message: {message:?}")))
            }
            Err(error) => Err(failed(what(), &format!("{error}, message: \"\""))),
        };
    }
    if let Some(action) = &handler.http_get {
        let what = || format!("HTTP lifecycle hook ({})", action.path.as_deref().unwrap_or_default());
        let host = action.host.as_deref().filter(|host| !host.is_empty()).map(str::to_owned);
        let Some(host) = host.or_else(|| target.pod_ip.map(|address| address.to_string())) else {
            let problem = format!("failed to find networking container: {}", format_pod(target.pod));
            return Err(failed(what(), &problem));
        };
        let get = Get::new(action, target.container, &host, "kube-lifecycle");
        let mut get = get.map_err(|problem| failed(what(), &problem))?;
        let problem = match get.send(HTTP_TIMEOUT_MAX).await {
            // Whatever it answers.
            Ok(_) => return Ok(Hooked::default()),
            Err(problem) => problem,
        };
        if problem.ends_with(HTTP_RESPONSE_TO_HTTPS) {
            get.over_http();
            if get.send(HTTP_TIMEOUT_MAX).await.is_ok() {
                let fallback = format!(
                    "request to HTTPS lifecycle hook {} got HTTP response, retry with HTTP succeeded",
                    get.url.host_header()
                );
                return Ok(Hooked { fallback: Some(fallback) });
            }
        }
        return Err(failed(what(), &problem));
    }
    if let Some(action) = &handler.sleep {
        rt::sleep(Duration::from_secs(action.seconds.try_into().unwrap_or(0))).await;
        return Ok(Hooked::default());
    }
    // Also where it is `tcpSocket`, which the API admits and nobody ever ran.
    Err(HookError("Cannot run handler: invalid handler: it has neither exec, httpGet nor sleep".to_owned()))
}

/// `name_namespace(uid)`, as upstream writes pods into messages.
pub(super) fn format_pod(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let [name, namespace, uid] =
        [&metadata.name, &metadata.namespace, &metadata.uid].map(|part| part.as_deref().unwrap_or_default());
    format!("{name}_{namespace}({uid})")
}
