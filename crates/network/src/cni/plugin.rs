//! The plugin: this program, started by a runtime under the name [`PLUGIN`] or [`LOOPBACK`].
//!
//! It is told apart by its name, not by its environment, so that whatever a shell exports turns no other command into a
//! plugin.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use camino::Utf8Path;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::wire::{self, Answer, Call, Configuration, DOCUMENT_BYTES_MAX, Failure, code};
use crate::pod_network::bring_loopback_up;

/// The plugin that connects pods.
pub const PLUGIN: &str = "pintle-cni";

/// The plugin that runtimes call for the pod's own loopback.
pub const LOOPBACK: &str = "loopback";

/// Which plugin this process is, by the name that it was started under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Pod,
    Loopback,
}

impl Role {
    fn of(program: &str) -> Option<Self> {
        match Utf8Path::new(program).file_name() {
            Some(PLUGIN) => Some(Self::Pod),
            Some(LOOPBACK) => Some(Self::Loopback),
            _ => None,
        }
    }
}

/// Whether a process with this first argument, its own name, is a plugin.
pub fn is_plugin(program: &str) -> bool {
    Role::of(program).is_some()
}

/// The program.
pub fn plugin_main(program: &str) -> ExitCode {
    let answer = match Role::of(program) {
        Some(role) => answer(role),
        None => failed("", Failure::new(code::INVALID_ENVIRONMENT, format!("{program} is no CNI plugin"))),
    };
    let code = if answer.is_error { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if !answer.document.is_null() {
        // Who does not listen learns it from the exit code.
        let _ = writeln!(io::stdout(), "{}", answer.document);
    }
    code
}

fn answer(role: Role) -> Answer {
    let mut call = match call() {
        Ok(call) => call,
        Err(failure) => return failed("", failure),
    };
    if call.command == "VERSION" {
        return Answer { is_error: false, document: wire::versions() };
    }
    let version = call.configuration.cni_version.clone();
    let work = async {
        match role {
            Role::Pod => ask(&call).await,
            Role::Loopback => loopback(&mut call).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime
        .map_err(|error| Failure::new(code::IO, format!("starting the event loop: {error}")))
        .and_then(|runtime| runtime.block_on(work));
    outcome.unwrap_or_else(|failure| failed(&version, failure))
}

fn failed(version: &str, failure: Failure) -> Answer {
    let version = if version.is_empty() { wire::VERSION } else { version };
    Answer { is_error: true, document: failure.document(version) }
}

/// What the environment and standard input say.
fn call() -> Result<Call, Failure> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut bytes = Vec::new();
    io::stdin()
        .take(DOCUMENT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(code::IO, format!("reading the configuration: {error}")))?;
    let command = variable("CNI_COMMAND");
    let configuration: Configuration = match serde_json::from_slice(&bytes) {
        Ok(configuration) => configuration,
        // Who asks for versions need not configure anything.
        Err(_) if command == "VERSION" => Configuration::default(),
        Err(error) => return Err(Failure::new(code::DECODING, format!("the configuration: {error}"))),
    };
    Ok(Call {
        command,
        container_id: variable("CNI_CONTAINERID"),
        netns: variable("CNI_NETNS"),
        interface: variable("CNI_IFNAME"),
        arguments: variable("CNI_ARGS"),
        configuration,
    })
}

/// Has the node's process do it.
async fn ask(call: &Call) -> Result<Answer, Failure> {
    let socket = &call.configuration.socket;
    if !socket.is_absolute() {
        let message = format!("socket: {socket:?} is no absolute path");
        return Err(Failure::new(code::INVALID_CONFIGURATION, message));
    }
    let away = |error: io::Error| {
        let message = format!("the node behind {socket} does not answer: {error}; is Pintle running?");
        Failure::new(code::TRY_AGAIN_LATER, message)
    };
    let request = serde_json::to_vec(call).map_err(|error| Failure::new(code::IO, error.to_string()))?;
    let mut stream = UnixStream::connect(socket).await.map_err(away)?;
    stream.write_all(&request).await.map_err(away)?;
    stream.shutdown().await.map_err(away)?;
    let mut bytes = Vec::new();
    stream.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes).await.map_err(away)?;
    serde_json::from_slice(&bytes).map_err(|error| away(io::Error::other(error)))
}

/// Brings the pod's loopback up; it goes with its namespace.
async fn loopback(call: &mut Call) -> Result<Answer, Failure> {
    let done = |document| Ok(Answer { is_error: false, document });
    if call.command != "ADD" && call.command != "CHECK" {
        return done(Value::Null);
    }
    if call.netns.is_empty() {
        let message = "required env variables [CNI_NETNS] missing";
        return Err(Failure::new(code::INVALID_ENVIRONMENT, message));
    }
    bring_loopback_up(Utf8Path::new(&call.netns))
        .await
        .map_err(|error| Failure::new(code::FAILED, telemetry::chain(&error).to_string()))?;
    if call.command == "CHECK" {
        return done(Value::Null);
    }
    if let Some(earlier) = call.configuration.prev_result.take() {
        return done(earlier);
    }
    let version = call.configuration.cni_version.as_str();
    let mut ips = json!([
        {"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0},
    ]);
    if version.starts_with("0.") {
        ips[0]["version"] = "4".into();
        ips[1]["version"] = "6".into();
    }
    done(json!({
        "cniVersion": version, "interfaces": [{"name": "lo", "sandbox": call.netns}], "ips": ips, "dns": {},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_told_by_the_name_of_the_program() {
        for (program, expected) in [
            ("/opt/cni/bin/pintle-cni", Some(Role::Pod)),
            ("loopback", Some(Role::Loopback)),
            ("/usr/bin/pintle", None),
            ("pintle-cni-old", None),
            ("", None),
        ] {
            assert_eq!(Role::of(program), expected, "{program}");
        }
    }
}
