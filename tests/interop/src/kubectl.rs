//! kubectl: finding every version on this machine, and running it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use crate::Folder;

/// A command that takes longer hangs.
const COMMAND_SECONDS_MAX: &str = "180";
/// Lines of a stream that may wait to be read.
const STREAM_LINES_MAX: usize = 10_000;

/// One kubectl, talking to one server.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: Utf8PathBuf,
    /// `v1.33.1`
    pub version: String,
    kubeconfig: Utf8PathBuf,
    home: Utf8PathBuf,
    namespace: String,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Kubectl {
    /// Every kubectl on `PATH`, and every `kubectl.*` in the folder where one of them really lies; each once.
    ///
    /// `PINTLE_KUBECTL`, a list of versions such as `1.27,1.33`, chooses among them.
    pub fn found() -> Vec<(Utf8PathBuf, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut programs = Vec::new();
        for folder in path.split(':').map(Utf8Path::new) {
            let Ok(real) = folder.join("kubectl").canonicalize_utf8() else { continue };
            let beside = real.parent().map(kubectls_in).unwrap_or_default();
            programs.push(real);
            programs.extend(beside);
        }
        programs.sort();
        programs.dedup();
        let wanted = std::env::var("PINTLE_KUBECTL").unwrap_or_default();
        let wanted: Vec<&str> = wanted.split(',').filter(|version| !version.is_empty()).collect();
        let mut found: Vec<_> = programs
            .into_iter()
            .filter_map(|program| version_of(&program).map(|version| (program, version)))
            .collect();
        found.retain(|(_, version)| wanted.is_empty() || wanted.iter().any(|want| is_version(version, want)));
        found
    }

    /// A kubectl for the server of a folder. Its caches live there, too.
    pub fn new(program: &Utf8Path, version: &str, folder: &Folder) -> Self {
        Self {
            program: program.to_owned(),
            version: version.to_owned(),
            kubeconfig: folder.kubeconfig(),
            home: folder.path().to_owned(),
            namespace: "default".to_owned(),
        }
    }

    /// The same with another default namespace.
    pub fn within(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn complete(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .args(["--kubeconfig", self.kubeconfig.as_str(), "--namespace", &self.namespace])
            .args(arguments)
            .env("HOME", &self.home)
            .env_remove("KUBECONFIG");
        command
    }

    /// What a shell would have to run; the arguments are quoted already where that is needed.
    pub fn line(&self, arguments: &[&str]) -> String {
        let Self { program, kubeconfig, namespace, .. } = self;
        format!("{program} --kubeconfig {kubeconfig} --namespace {namespace} {}", arguments.join(" "))
    }

    /// Runs it with something on standard input and variables in the environment.
    ///
    /// # Errors
    /// It cannot be started. How it ended is in the output.
    pub fn run_with(
        &self,
        arguments: &[&str],
        stdin: &str,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let mut bounded = Command::new("timeout");
        bounded.args([COMMAND_SECONDS_MAX, self.program.as_str()]);
        let mut command = self.complete(bounded, arguments);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.stdin(Stdio::piped()).spawn().context("starting kubectl")?;
        if let Some(mut pipe) = child.stdin.take() {
            // A command that does not read its input is not an error of ours.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let output = child.wait_with_output().context("waiting for kubectl")?;
        Ok(Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it, however it ends.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.run_with(arguments, "", &[])
    }

    /// What it printed, if it succeeded.
    ///
    /// # Errors
    /// It failed; with what it said.
    pub fn ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run(arguments)?.success(arguments)
    }

    /// The same, with a manifest on standard input.
    ///
    /// # Errors
    /// As [`Kubectl::ok`].
    pub fn ok_with(&self, arguments: &[&str], stdin: &str) -> anyhow::Result<String> {
        self.run_with(arguments, stdin, &[])?.success(arguments)
    }

    /// What it complained about; it must fail.
    ///
    /// # Errors
    /// It succeeded.
    pub fn refused(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        if output.code == Some(0) {
            bail!("`kubectl {}` succeeded: {}", arguments.join(" "), output.stdout);
        }
        Ok(output.stderr)
    }

    /// The answer of `… -o json`.
    ///
    /// # Errors
    /// It failed, or did not print JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.ok(&all)?).context("reading kubectl's JSON")
    }

    /// Starts a command that goes on printing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn stream(&self, arguments: &[&str]) -> anyhow::Result<Streaming> {
        let mut child = self
            .complete(Command::new(&self.program), arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting kubectl")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let (sender, lines) = sync_channel(STREAM_LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Streaming { child, lines })
    }
}

impl Output {
    fn success(self, arguments: &[&str]) -> anyhow::Result<String> {
        if self.code != Some(0) {
            bail!(
                "`kubectl {}` ended with {:?}: {}{}",
                arguments.join(" "),
                self.code,
                self.stderr,
                self.stdout
            );
        }
        Ok(self.stdout)
    }
}

/// A kubectl that is still running; dropping it ends it.
pub struct Streaming {
    child: Child,
    lines: Receiver<String>,
}

impl Streaming {
    /// The next line that satisfies.
    ///
    /// # Errors
    /// None came in time; with those that did.
    pub fn line(&self, patience: Duration, satisfies: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(patience) {
            if satisfies(&line) {
                return Ok(line);
            }
            seen.push(line);
        }
        bail!("no such line; there were {seen:#?}")
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kubectls_in(folder: &Utf8Path) -> Vec<Utf8PathBuf> {
    let Ok(entries) = folder.read_dir_utf8() else { return Vec::new() };
    let is_kubectl = |name: &str| name == "kubectl" || name.starts_with("kubectl.1.");
    entries.flatten().filter(|entry| is_kubectl(entry.file_name())).map(|entry| entry.into_path()).collect()
}

fn version_of(program: &Utf8Path) -> Option<String> {
    let output = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(answer["clientVersion"]["gitVersion"].as_str()?.to_owned())
}

/// Whether `v1.33.1` is of `1.33`.
fn is_version(version: &str, minor: &str) -> bool {
    version.strip_prefix('v').is_some_and(|version| version.starts_with(&format!("{minor}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_version_does_not_match_a_longer_one() {
        assert!(is_version("v1.3.1", "1.3"));
        assert!(!is_version("v1.33.1", "1.3"));
        assert!(is_version("v1.32.4-dispatcher", "1.32"));
    }
}
