//! Commands in a running container.
//!
//! Each is a process of this binary that enters the container, waits there for the command and ends with its code. The
//! command's streams are its own, so nothing is copied on the way; a terminal is sent over by the command itself.

use std::io;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::container::Container;
use super::shim::protocol::{
    self, BUNDLE_FILE, CONFIG_FILE, CONSOLE_SOCKET, ERROR_FILE, ExecConfig, Inside, PID_FILE, PROCESS_FILE,
    ShimConfig,
};
use super::terminal::Terminal;
use super::user_namespace::Owner;
use super::{Shared, blocking, failed, new_id, oci, shim};
use crate::{Attached, Error, ExecOutput, Reader, Result, Streams, TerminalSize, Writer};

/// As CRI has it: of each output so much is kept.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;
/// Output after the command's end comes from processes that it left behind; they have this long.
const DRAIN: Duration = Duration::from_millis(500);
/// New sizes of a terminal that wait to be set.
const SIZES_MAX: usize = 4;
/// The state file of libcontainer, which a command is put into the container by.
const STATE_FILE: &str = "state.json";

/// A command on its way, with its folder, which goes when this does.
struct Execution {
    dir: Utf8PathBuf,
    child: Child,
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir, %error, "A command's files stay");
        }
    }
}

impl Execution {
    /// Waits for the command's end; the error says what kept it from starting.
    async fn end(&mut self) -> Result<i32> {
        let status = self.child.wait().await.map_err(|error| failed("cannot wait for the command", error))?;
        match std::fs::read_to_string(self.dir.join(ERROR_FILE)) {
            Ok(message) => Err(Error::Failed(format!(
                "failed to exec in container: failed to start exec: OCI runtime exec failed: {message}: unknown"
            ))),
            Err(_) => status.code().ok_or_else(|| Error::Failed("the command was cut off".to_owned())),
        }
    }

    /// Kills the command and what it started, as far as that did not leave its group.
    fn kill(&mut self) {
        let pid = std::fs::read_to_string(self.dir.join(PID_FILE)).ok().and_then(|text| text.parse().ok());
        match pid.and_then(Pid::from_raw) {
            // Nobody but its parent, who is a child of ours, can have let go of its number.
            Some(group) if matches!(self.child.try_wait(), Ok(None)) => {
                let _ = kill_process_group(group, Signal::KILL);
            }
            Some(_) => {}
            None => {
                let _ = self.child.start_kill();
            }
        }
    }
}

fn spawn(
    shared: &Shared,
    container: &Container,
    command: &[String],
    streams: Streams,
) -> Result<(Execution, Option<UnixListener>)> {
    let bundle = container.running_dir(shared)?;
    let id = container.id();
    let dir = shared.exec_dir(&new_id());
    let owner = shared.find_sandbox(&container.sandbox_id()).and_then(|sandbox| sandbox.owner(shared));
    let inside = owner.as_ref().map(|owner| Inside {
        user_namespace: owner.namespace().to_owned(),
        cgroups: shared.cgroups.clone(),
        cgroup: container.record.lock().cgroup.clone(),
    });
    let written = write_files(&bundle, &dir, &id, command, streams.tty, inside)
        .and_then(|console| owner.map_or(Ok(()), |owner| give(&owner, &dir, &id)).map(|()| console));
    let console = written.map_err(|error| {
        // It may not have been made.
        let _ = std::fs::remove_dir_all(&dir);
        failed("cannot prepare the command", error)
    })?;
    let piped = |wanted: bool| if wanted && !streams.tty { Stdio::piped() } else { Stdio::null() };
    let spawned = shared.shim.split_first().ok_or_else(|| io::Error::other("no program to start")).and_then(
        |(program, arguments)| {
            Command::new(program)
                .args(arguments)
                .arg(shim::EXEC)
                .arg(&dir)
                .env_clear()
                .stdin(piped(streams.stdin))
                .stdout(piped(streams.stdout))
                .stderr(piped(streams.stderr))
                .spawn()
        },
    );
    match spawned {
        Ok(child) => Ok((Execution { dir, child }, console)),
        Err(error) => {
            let _ = std::fs::remove_dir_all(&dir);
            Err(failed("cannot start the command", error))
        }
    }
}

/// The command's folder: what libcontainer knows of the container, beside what is to be run in it.
fn write_files(
    bundle: &Utf8Path,
    dir: &Utf8Path,
    id: &str,
    command: &[String],
    tty: bool,
    inside: Option<Inside>,
) -> io::Result<Option<UnixListener>> {
    std::fs::create_dir_all(dir.join(id))?;
    std::fs::copy(bundle.join(id).join(STATE_FILE), dir.join(id).join(STATE_FILE))?;
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let spec: serde_json::Value = protocol::load(&bundle.join(BUNDLE_FILE))?.ok_or_else(missing)?;
    let shim: ShimConfig = protocol::load(&bundle.join(CONFIG_FILE))?.ok_or_else(missing)?;
    protocol::save(&dir.join(PROCESS_FILE), &oci::exec_process(&spec["process"], command, tty))?;
    let config = ExecConfig {
        id: id.to_owned(),
        tty,
        oom_score_adj: shim.oom_score_adj,
        seccomp: shim.seccomp,
        inside,
    };
    protocol::save(&dir.join(CONFIG_FILE), &config)?;
    if !tty {
        return Ok(None);
    }
    // Bound by the folder's descriptor: a whole path may be longer than an address.
    use std::os::fd::AsRawFd;
    let folder = std::fs::File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{CONSOLE_SOCKET}", folder.as_raw_fd())).map(Some)
}

/// Gives the command's folder to the pod's root, who starts it.
fn give(owner: &Owner, dir: &Utf8Path, id: &str) -> io::Result<()> {
    let own = dir.join(id);
    for folder in [dir, &own] {
        owner.give(folder)?;
        for entry in folder.read_dir_utf8()? {
            owner.give(entry?.path())?;
        }
    }
    Ok(())
}

pub(super) async fn to_its_end(
    shared: &Shared,
    container: &Container,
    command: &[String],
    timeout: Duration,
) -> Result<ExecOutput> {
    let streams = Streams { stdin: false, stdout: true, stderr: true, tty: false };
    let (mut execution, _) = spawn(shared, container, command, streams)?;
    let (stdout, stderr) = (execution.child.stdout.take(), execution.child.stderr.take());
    let mut output = ExecOutput::default();
    let whole = async {
        let reads =
            async { tokio::join!(keep(stdout, &mut output.stdout), keep(stderr, &mut output.stderr)) };
        tokio::pin!(reads);
        let code = tokio::select! {
            _ = &mut reads => execution.end().await?,
            code = execution.end() => {
                let _ = rt::timeout(DRAIN, reads).await;
                code?
            }
        };
        Ok(code)
    };
    let outcome = if timeout.is_zero() { Ok(whole.await) } else { rt::timeout(timeout, whole).await };
    match outcome {
        Ok(code) => {
            output.exit_code = code?;
            Ok(output)
        }
        Err(_) => {
            execution.kill();
            // It ends at once; without this wait it would stay as a zombie.
            let _ = execution.child.wait().await;
            Err(Error::Timeout(format!(
                "failed to exec in container: timeout {}s exceeded: context deadline exceeded",
                timeout.as_secs()
            )))
        }
    }
}

/// Reads a stream to its end and keeps its beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    // An error is an end here: what was read before it counts.
    let _ = (&mut from).take(OUTPUT_BYTES_MAX).read_to_end(kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

pub(super) async fn connected(
    shared: &Shared,
    container: &Container,
    command: &[String],
    streams: Streams,
) -> Result<Attached> {
    let (mut execution, console) = spawn(shared, container, command, streams)?;
    if let Some(console) = console {
        return with_terminal(execution, console, streams).await;
    }
    let stdin = execution.child.stdin.take().map(|stdin| Box::pin(stdin) as Writer);
    let stdout = execution.child.stdout.take().map(|stdout| Box::pin(stdout) as Reader);
    let stderr = execution.child.stderr.take().map(|stderr| Box::pin(stderr) as Reader);
    Ok(Attached { stdin, stdout, stderr, resize: None, exit: Box::pin(async move { execution.end().await }) })
}

async fn with_terminal(
    mut execution: Execution,
    console: UnixListener,
    streams: Streams,
) -> Result<Attached> {
    let listener = console
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixListener::from_std(console))
        .map_err(|error| failed("cannot wait for the command's terminal", error))?;
    // The command may fail before it has a terminal.
    let accepted = tokio::select! {
        accepted = listener.accept() => accepted,
        code = execution.end() => {
            let code = code?;
            return Err(Error::Failed(format!("the command ended with code {code} before it had a terminal")));
        }
    };
    let taken = async {
        let stream = accepted?.0.into_std()?;
        stream.set_nonblocking(false)?;
        blocking(move || shim::receive_terminal(&stream)).await.and_then(Terminal::new)
    };
    let terminal = match taken.await {
        Ok(terminal) => terminal,
        Err(error) => {
            // What kept it from starting says more.
            execution.end().await?;
            return Err(failed("cannot take the command's terminal", error));
        }
    };
    let (resize, mut sizes) = mpsc::channel::<TerminalSize>(SIZES_MAX);
    let resized = terminal.clone();
    rt::spawn("exec-resize", async move {
        while let Some(size) = sizes.recv().await {
            if let Err(error) = resized.resize(size) {
                tracing::debug!(%error, "A terminal cannot be resized");
            }
        }
    });
    Ok(Attached {
        stdin: streams.stdin.then(|| Box::pin(terminal.clone()) as Writer),
        stdout: streams.stdout.then(|| Box::pin(terminal) as Reader),
        stderr: None,
        resize: Some(resize),
        exit: Box::pin(async move { execution.end().await }),
    })
}
