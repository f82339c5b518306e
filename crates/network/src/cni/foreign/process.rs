//! [`Plugins`]: one call of one plugin, a process that is given a document and answers with one.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::attachment::INTERFACE;
use super::error::{Error, Result};
use crate::cni::wire::DOCUMENT_BYTES_MAX;

/// Plugins that run at a time; others wait.
const PROCESSES_MAX: usize = 64;

/// What a plugin complains of beside its answer is kept up to here.
const COMPLAINT_BYTES_MAX: u64 = 64 << 10;

/// A program that is being replaced is tried so often, with a pause in between.
const BUSY_TRIES: usize = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Where plugins are.
#[derive(Debug)]
pub(super) struct Plugins {
    folders: Vec<Utf8PathBuf>,
    permits: Semaphore,
}

/// One call.
pub(super) struct Call<'a> {
    pub command: &'static str,
    pub kind: &'a str,
    pub network: &'a str,
    /// Empty where it is about no pod.
    pub container_id: &'a str,
    /// Empty where it is gone.
    pub netns: &'a str,
    pub arguments: &'a str,
    pub configuration: &'a Value,
    /// How long it may take.
    pub limit: Duration,
}

/// What a plugin prints when it fails.
#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

impl Plugins {
    pub fn new(folders: Vec<Utf8PathBuf>) -> Self {
        Self { folders, permits: Semaphore::new(PROCESSES_MAX) }
    }

    /// Calls a plugin and returns what it prints. One that takes longer than the limit is killed with all that it
    /// started, as is one whose caller goes away.
    ///
    /// # Errors
    /// What the plugin says in `msg` and `details`, or why it could not be asked.
    pub async fn run(&self, call: &Call<'_>) -> Result<Vec<u8>> {
        let program = self.find(call.kind)?;
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let process = |source| Error::Process {
            kind: call.kind.to_owned(),
            network: call.network.to_owned(),
            command: call.command,
            source,
        };
        let failed = |message| Error::Plugin {
            kind: call.kind.to_owned(),
            network: call.network.to_owned(),
            command: call.command,
            message,
        };
        let running = async {
            let mut running = Running::start(self.command(&program, call)).await?;
            running.finish(call.configuration.to_string().as_bytes()).await
        };
        let output = match rt::timeout(call.limit, running).await {
            Ok(output) => output.map_err(process)?,
            Err(_) => {
                let limit = call.limit.as_secs_f64();
                return Err(failed(format!("it did not end within {limit} s and was killed")));
            }
        };
        if output.status.success() { Ok(output.stdout) } else { Err(failed(complaint(&output))) }
    }

    /// A plugin's program.
    pub fn find(&self, kind: &str) -> Result<Utf8PathBuf> {
        let paths = self.folders.iter().map(|folder| folder.join(kind));
        paths
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| Error::NoSuchPlugin { kind: kind.to_owned(), folders: self.folders.clone() })
    }

    /// A plugin has the environment of this process: it looks for programs of its own.
    fn command(&self, program: &Utf8Path, call: &Call<'_>) -> Command {
        let folders: Vec<&str> = self.folders.iter().map(|folder| folder.as_str()).collect();
        let mut command = Command::new(program);
        command.env("CNI_COMMAND", call.command).env("CNI_PATH", folders.join(":"));
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            command.env_remove(name);
        }
        if !call.container_id.is_empty() {
            command
                .env("CNI_CONTAINERID", call.container_id)
                .env("CNI_NETNS", call.netns)
                .env("CNI_IFNAME", INTERFACE)
                .env("CNI_ARGS", call.arguments);
        }
        command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // So that what it starts can be ended with it.
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

/// A plugin that runs. Dropped before its end, it is killed with all that it started.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    async fn start(mut command: Command) -> io::Result<Self> {
        let mut tries = 1;
        let child = loop {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    rt::sleep(BUSY_PAUSE).await;
                }
                spawned => break spawned?,
            }
        };
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group })
    }

    async fn finish(&mut self, document: &[u8]) -> io::Result<Output> {
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let write = async {
            let Some(mut stdin) = stdin else { return Ok(()) };
            match stdin.write_all(document).await {
                // It need not read what it does not need.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                _ => Ok(()),
            }
        };
        let (written, stdout, stderr) =
            tokio::join!(write, read(stdout, DOCUMENT_BYTES_MAX), read(stderr, COMPLAINT_BYTES_MAX));
        written?;
        let (stdout, stderr) = (stdout?, stderr?);
        let status = self.child.wait().await?;
        self.group = None;
        Ok(Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> io::Result<Vec<u8>> {
    let Some(stream) = stream else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    stream.take(bytes_max + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it printed more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Why a plugin failed, in its own words if it has any.
fn complaint(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match serde_json::from_slice::<Complaint>(&output.stdout) {
        Ok(Complaint { msg, details }) if details.is_empty() && !msg.is_empty() => msg,
        Ok(Complaint { msg, details }) if !msg.is_empty() => format!("{msg}; {details}"),
        _ if output.stdout.is_empty() => {
            format!("it ended with {} and said {:?}", output.status, text(&output.stderr))
        }
        _ => format!("it ended with {} and printed {:?}", output.status, text(&output.stdout)),
    }
}
