//! Asking a container once.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, Probe};
use runtime::SharedRuntime;

use super::http::Get;
use super::{Target, dial, health, seconds};

/// What is kept of a probe's output.
pub(super) const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// What a container answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// As good as a success, and somebody should know.
    Warning(String),
    Failure(String),
}

/// There is no answer that means anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckError {
    /// `unknown` or `failure`.
    pub(super) state: &'static str,
    pub(super) message: String,
}

fn unknown(message: String) -> CheckError {
    CheckError { state: "unknown", message }
}

pub(super) async fn run(
    runtime: &SharedRuntime,
    target: &Target,
    probe: &Probe,
) -> Result<Outcome, CheckError> {
    let timeout = seconds(probe.timeout_seconds.unwrap_or(1).max(1));
    let container = &target.container;
    let pod_host = target.pod_ip.map(|address| address.to_string()).unwrap_or_default();
    if let Some(action) = &probe.exec {
        return exec(runtime, &target.container_id, action, container, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        let get = Get::new(action, container, &pod_host, "kube-probe").map_err(unknown)?;
        return Ok(match get.send(timeout).await {
            Ok(answer) => http_outcome(answer.status, &answer.body),
            Err(problem) => Outcome::Failure(problem),
        });
    }
    if let Some(action) = &probe.tcp_socket {
        let port = dial::resolve_port(&action.port, container).map_err(unknown)?;
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&pod_host);
        return Ok(match dial::connect(host, port, timeout).await {
            Ok(_) => Outcome::Success,
            Err(problem) => Outcome::Failure(problem),
        });
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port)
            .map_err(|_| unknown(format!("invalid port number: {}", action.port)))?;
        return Ok(
            health::check(&pod_host, port, action.service.as_deref().unwrap_or_default(), timeout).await
        );
    }
    let pod = super::hooks::format_pod(&target.pod);
    Err(unknown(format!("missing probe handler for {pod}:{}", container.name)))
}

fn http_outcome(status: u16, body: &[u8]) -> Outcome {
    match status {
        200..=299 => Outcome::Success,
        300..=399 => {
            let body = String::from_utf8_lossy(body);
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        // The body may hold what is nobody's business.
        _ => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn exec(
    runtime: &SharedRuntime,
    container_id: &str,
    action: &ExecAction,
    container: &Container,
    timeout: Duration,
) -> Result<Outcome, CheckError> {
    let command: Vec<String> =
        action.command.iter().flatten().map(|argument| expand(argument, container)).collect();
    match runtime.exec_sync(container_id, &command, timeout).await {
        Ok(output) if output.exit_code == 0 => Ok(Outcome::Success),
        Ok(output) => {
            let mut text = output.stdout;
            text.extend_from_slice(&output.stderr);
            text.truncate(OUTPUT_BYTES_MAX);
            Ok(Outcome::Failure(String::from_utf8_lossy(&text).into_owned()))
        }
        Err(runtime::Error::Timeout(_)) => Ok(Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}",
            command.join(" "),
            dial::duration_text(timeout)
        ))),
        Err(error) => Err(unknown(error.to_string())),
    }
}

/// Replaces `$(NAME)` by the value that the container's environment gives it literally; `$$` is a dollar sign, and
/// names without a value stay as they are.
fn expand(text: &str, container: &Container) -> String {
    let value_of = |name: &str| {
        let mut variables = container.env.iter().flatten().rev();
        variables.find(|variable| variable.name == name).and_then(|variable| variable.value.as_deref())
    };
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        match after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            Some((name, after)) => {
                match value_of(name).filter(|value| !value.is_empty()) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.push_str(&format!("$({name})")),
                }
                rest = after;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;

    #[test]
    fn a_status_below_400_is_good_and_one_below_300_is_better() {
        let warning =
            |body: &str| Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"));
        let failure = |status: u16| Outcome::Failure(format!("HTTP probe failed with statuscode: {status}"));
        for (status, expected) in [
            (200, Outcome::Success),
            (299, Outcome::Success),
            (300, warning("gone")),
            (399, warning("gone")),
            (400, failure(400)),
            (500, failure(500)),
            (199, failure(199)),
        ] {
            assert_eq!(http_outcome(status, b"gone"), expected);
        }
    }

    #[test]
    fn variables_with_literal_values_are_expanded() {
        let variable = |name: &str, value: Option<&str>| EnvVar {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            ..EnvVar::default()
        };
        let env = vec![variable("A", Some("1")), variable("FROM", None), variable("A", Some("2"))];
        let container = Container { env: Some(env), ..Container::default() };
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)-$(A)", "2-2"),
            ("$(B) $(FROM)", "$(B) $(FROM)"),
            ("$$(A) $$$(A)", "$(A) $2"),
            ("$A $( $", "$A $( $"),
            ("$(é) ü$(A)", "$(é) ü2"),
        ] {
            assert_eq!(expand(text, &container), expected, "{text}");
        }
    }
}
