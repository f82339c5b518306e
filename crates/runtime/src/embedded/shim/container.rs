//! One container: made, started, watched, and its end written down.
//!
//! Everything that can fail does before the outcome is told over standard output; from then on nothing of whoever
//! started this process is needed.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8Path;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, waitpid};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::console::receive_terminal;
use super::executor::ContainerExecutor;
use super::log::{Log, Stream};
use super::protocol::{
    self, CONFIG_FILE, CONSOLE_SOCKET, EXIT_FILE, Exit, Outcome, SOCKET_FILE, STARTED_FILE, ShimConfig,
    Started,
};
use super::streams::{Input, Streams};
use crate::embedded::cgroup::Cgroups;
use crate::embedded::enclosure;
use crate::embedded::seccomp;
use crate::embedded::terminal::Terminal;

/// Output that is still on its way when the last process has ended must come within this time.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections served at once; more wait.
const CONNECTIONS_MAX: usize = 128;

pub(super) fn run(dir: &Utf8Path) -> ExitCode {
    // Fails only where somebody made this a leader already.
    let _ = rustix::process::setsid();
    let outcome = start(dir);
    let told = match &outcome {
        Ok(running) => Outcome::Started(running.started),
        Err(message) => Outcome::Failed(message.clone()),
    };
    // Whoever asked may be gone; the container runs on, and the file says that it does.
    let _ = tell(&told);
    let Ok(running) = outcome else { return ExitCode::FAILURE };
    let served = release_streams()
        .and_then(|()| super::event_loop())
        .and_then(|event_loop| event_loop.block_on(attend(dir, running)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot attend the container: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(outcome: &Outcome) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&serde_json::to_vec(outcome)?)?;
    stdout.flush()
}

/// A container that has begun.
struct Running {
    config: ShimConfig,
    pid: Pid,
    started: Started,
    log: Log,
    listener: UnixListener,
    streams: Ends,
}

/// This side of the container's streams.
enum Ends {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

fn start(dir: &Utf8Path) -> Result<Running, String> {
    let config: ShimConfig = protocol::load(&dir.join(CONFIG_FILE))
        .map_err(|error| format!("cannot read {dir}/{CONFIG_FILE}: {error}"))?
        .ok_or_else(|| format!("there is no {dir}/{CONFIG_FILE}"))?;
    let log =
        Log::open(&config.log).map_err(|error| format!("cannot open the log {}: {error}", config.log))?;
    // Sockets are bound by their names alone: a whole path may be longer than an address.
    std::env::set_current_dir(dir).map_err(|error| format!("cannot enter {dir}: {error}"))?;
    let listener =
        UnixListener::bind(SOCKET_FILE).map_err(|error| format!("cannot listen in {dir}: {error}"))?;
    // Without it the start only takes longer.
    let home = config.enclosure.as_ref().and_then(|enclosed| {
        let kept: Vec<&Utf8Path> = enclosed.kept.iter().map(|path| &**path).collect();
        let home = enclosure::withdraw(&enclosed.folder, &kept);
        home.inspect_err(|error| eprintln!("cannot leave other pods' mounts behind: {error}")).ok()
    });
    // The working directory, too, was among the mounts that were left.
    let enter = || std::env::set_current_dir(dir).map_err(|error| format!("cannot enter {dir}: {error}"));
    enter()?;
    let begun = begin(dir, &config);
    // Here it would keep the host from ending its mounts; the container itself may run on all the same.
    if let Some(Err(error)) =
        home.map(|home| home.enter().map_err(|error| error.to_string()).and_then(|()| enter()))
    {
        eprintln!("cannot return to the host's mounts: {error}");
    }
    let (pid, started, streams) = begun?;
    Ok(Running { config, pid, started, log, listener, streams })
}

/// Makes the container and starts its first process.
fn begin(dir: &Utf8Path, config: &ShimConfig) -> Result<(Pid, Started, Ends), String> {
    let (mut failure, report) = io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;

    let builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .with_root_path(dir.as_std_path())
        .map_err(|error| innermost(&error))?
        .with_executor(ContainerExecutor::new(seccomp::decode(&config.seccomp), report));
    let (builder, ends) = if config.tty {
        let console =
            UnixListener::bind(CONSOLE_SOCKET).map_err(|error| format!("cannot listen in {dir}: {error}"))?;
        (builder.with_console_socket(Some(dir.join(CONSOLE_SOCKET))), Err(console))
    } else {
        let (builder, ends) =
            connect(builder, config).map_err(|error| format!("cannot make pipes: {error}"))?;
        (builder, Ok(ends))
    };
    let mut container =
        builder.as_init(dir.as_std_path()).with_systemd(false).build().map_err(|error| innermost(&error))?;
    let pid =
        container.pid().and_then(|pid| Pid::from_raw(pid.as_raw())).ok_or("the container has no process")?;
    set_oom_score(&pid.as_raw_nonzero().to_string(), config.oom_score_adj);
    let begun = (|| {
        let streams = match ends {
            Ok(ends) => ends,
            Err(console) => Ends::Terminal(
                console
                    .accept()
                    .and_then(|(stream, _)| receive_terminal(&stream))
                    .map_err(|error| format!("cannot take the container's terminal: {error}"))?,
            ),
        };
        container.start().map_err(|error| innermost(&error))?;
        let mut message = String::new();
        failure
            .read_to_string(&mut message)
            .map_err(|error| format!("cannot learn how it began: {error}"))?;
        if !message.is_empty() {
            return Err(message);
        }
        let started = Started { pid: pid.as_raw_nonzero().get(), at: rt::now() };
        protocol::save(&dir.join(STARTED_FILE), &started)
            .map_err(|error| format!("cannot write {dir}/{STARTED_FILE}: {error}"))?;
        Ok((streams, started))
    })();
    match begun {
        Ok((streams, started)) => Ok((pid, started, streams)),
        Err(message) => {
            // It may be gone already.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(message)
        }
    }
}

fn connect(builder: ContainerBuilder, config: &ShimConfig) -> io::Result<(ContainerBuilder, Ends)> {
    let (stdout, stdout_in) = io::pipe()?;
    let (stderr, stderr_in) = io::pipe()?;
    let (stdin_out, stdin): (OwnedFd, _) = if config.stdin {
        let (out, end) = io::pipe()?;
        (out.into(), Some(end.into()))
    } else {
        (std::fs::File::open("/dev/null")?.into(), None)
    };
    let builder = builder
        .with_stdin(stdin_out)
        .with_stdout(OwnedFd::from(stdout_in))
        .with_stderr(OwnedFd::from(stderr_in));
    Ok((builder, Ends::Pipes { stdin, stdout: stdout.into(), stderr: stderr.into() }))
}

/// From now on only errors are printed, to the file that standard error is.
fn release_streams() -> io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

async fn attend(dir: &Utf8Path, running: Running) -> io::Result<()> {
    let Running { config, pid, log, listener, streams, .. } = running;
    let (streams, pumps) = open_streams(&config, log, streams)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let connections = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    let serving = {
        let (streams, connections) = (Arc::clone(&streams), Arc::clone(&connections));
        rt::spawn("shim-connections", async move {
            while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
                let Ok((connection, _)) = listener.accept().await else { continue };
                let streams = Arc::clone(&streams);
                rt::spawn("shim-connection", async move {
                    // A client that left in the middle is no news.
                    let _ = streams.serve(connection).await;
                    drop(permit);
                });
            }
        })
    };

    let status = wait(pid).await?;
    let cgroups = config.cgroups.map_or_else(Cgroups::detect, Ok);
    if config.shares_pids
        && let Ok(cgroups) = &cgroups
        && let Err(error) = cgroups.kill(&config.cgroup).await
    {
        eprintln!("cannot end all processes of the container: {error}");
    }
    let drained = rt::timeout(DRAIN, async {
        for pump in pumps {
            let _ = pump.await;
        }
    });
    if drained.await.is_err() {
        eprintln!("somebody else holds the container's output open; the rest of it is lost");
    }
    let exit = Exit {
        code: exit_code(status),
        at: rt::now(),
        out_of_memory: cgroups.is_ok_and(|cgroups| cgroups.oom_kills(&config.cgroup) > 0),
    };
    protocol::save(&dir.join(EXIT_FILE), &exit)?;
    serving.abort();
    // Whoever only watches is cut off by the end of this process.
    streams.close_clients().await;
    Ok(())
}

fn open_streams(
    config: &ShimConfig,
    log: Log,
    ends: Ends,
) -> io::Result<(Arc<Streams>, Vec<rt::JoinHandle<()>>)> {
    match ends {
        Ends::Terminal(fd) => {
            let terminal = Terminal::new(fd)?;
            let input = config.stdin.then(|| Input::Terminal(terminal.clone()));
            let streams = Arc::new(Streams::new(log, input, Some(terminal.clone()), config.stdin_once));
            let pump = {
                let streams = Arc::clone(&streams);
                rt::spawn("shim-terminal", async move { streams.pump(Stream::Stdout, terminal).await })
            };
            Ok((streams, vec![pump]))
        }
        Ends::Pipes { stdin, stdout, stderr } => {
            let input = stdin.map(pipe::Sender::from_owned_fd).transpose()?.map(Input::Pipe);
            let streams = Arc::new(Streams::new(log, input, None, config.stdin_once));
            let pumps = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)]
                .into_iter()
                .map(|(stream, fd)| {
                    let from = pipe::Receiver::from_owned_fd(fd)?;
                    let streams = Arc::clone(&streams);
                    Ok(rt::spawn("shim-output", async move { streams.pump(stream, from).await }))
                })
                .collect::<io::Result<Vec<_>>>()?;
            Ok((streams, pumps))
        }
    }
}

async fn wait(pid: Pid) -> io::Result<WaitStatus> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that close early, which this one does not"
    )]
    let ended = AsyncFd::new(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
    loop {
        ended.readable().await?.retain_ready();
        if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG)? {
            return Ok(status);
        }
    }
}

/// As shells count: 128 and the signal's number for what a signal ended.
pub(super) fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
}

/// Asks for a score; where the kernel does not let it be lowered so far, it stays as it is.
pub(super) fn set_oom_score(process: &str, score: i32) {
    let path = format!("/proc/{process}/oom_score_adj");
    if let Err(error) = std::fs::write(&path, score.to_string())
        && error.kind() != io::ErrorKind::PermissionDenied
    {
        eprintln!("cannot write {path}: {error}");
    }
}

/// What went wrong, without the way it took through libcontainer.
pub(super) fn innermost(error: &LibcontainerError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    text.strip_prefix("error in executing process : ").unwrap_or(&text).to_owned()
}
