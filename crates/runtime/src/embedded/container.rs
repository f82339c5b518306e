//! One container: made, started, stopped, removed; its end is seen here.
//!
//! Making one prepares everything and starts nothing; starting it is one process, the program beside it, which reports
//! once. So a container that was made and not started needs nothing watched.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::watch;

use super::prepare::prepare;
use super::record::ContainerRecord;
use super::sandbox::Sandbox;
use super::shim::protocol::{
    self, BUNDLE_FILE, EXIT_FILE, Exit, Outcome, Request, Response, SOCKET_FILE, STARTED_FILE, Started,
};
use super::{Shared, blocking, clear, failed, new_id, shim, signals};
use crate::spec::{ContainerConfig, ContainerState, ContainerStats, Resources};
use crate::{ContainerEvent, ContainerEventKind, Error, Result};

/// What the program beside a container says before the container runs, and what goes wrong later.
const SHIM_LOG: &str = "shim.log";
/// A start that takes longer is given up.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// A process that was killed has this long to be gone: the kernel may be writing to a disk for it.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest report of a start.
const REPORT_BYTES_MAX: u64 = 64 * 1024;
/// As containerd has it for what never ran.
const START_ERROR_CODE: i32 = 128;

pub(super) struct Container {
    pub(super) record: Mutex<ContainerRecord>,
    operation: tokio::sync::Mutex<()>,
    /// Whether it has ended, or never will have begun.
    ended: watch::Sender<bool>,
    /// Its first process, while there is one.
    process: Mutex<Option<OwnedFd>>,
}

impl Container {
    fn new(record: ContainerRecord) -> Self {
        Self {
            record: Mutex::new(record),
            operation: tokio::sync::Mutex::default(),
            ended: watch::channel(false).0,
            process: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> String {
        self.record.lock().id.clone()
    }

    pub(super) fn sandbox_id(&self) -> String {
        self.record.lock().sandbox_id.clone()
    }

    /// Makes a container whose program is not started yet.
    pub(super) async fn create(
        shared: &Arc<Shared>,
        sandbox: &Sandbox,
        config: &ContainerConfig,
    ) -> Result<String> {
        let _ready = sandbox.hold_ready().await?;
        let id = new_id();
        let record = match prepare(shared, sandbox, config, &id).await {
            Ok(record) => record,
            Err(error) => {
                // The first error is the one to tell.
                if let Err(error) = discard(shared, &id).await {
                    tracing::warn!(container = id, %error, "A container that could not be made leaves something behind");
                }
                return Err(error);
            }
        };
        shared.containers.lock().insert(id.clone(), Arc::new(Self::new(record)));
        Ok(id)
    }

    /// Takes over a container of a former process.
    pub(super) async fn restore(shared: &Arc<Shared>, record: ContainerRecord) -> Result<()> {
        let id = record.id.clone();
        let dir = shared.container_dir(&id);
        let container = Arc::new(Self::new(record));
        shared.containers.lock().insert(id, Arc::clone(&container));
        let state = container.record.lock().state;
        match state {
            ContainerState::Exited => {
                container.ended.send_replace(true);
                return Ok(());
            }
            ContainerState::Created if !dir.join(SOCKET_FILE).exists() => {
                if !dir.join(BUNDLE_FILE).exists() {
                    // The machine was started anew, and what had been prepared is gone.
                    container.finish(shared, None).await;
                }
                return Ok(());
            }
            _ => {}
        }
        let started: Option<Started> = protocol::load(&dir.join(STARTED_FILE)).unwrap_or_default();
        match (started, connect(&dir).await) {
            (Some(started), Ok(connection)) => {
                container.note_start(shared, started)?;
                container.watch(shared, connection);
            }
            (_, connection) => {
                drop(connection);
                container.see_end(shared).await;
            }
        }
        Ok(())
    }

    fn save(&self, shared: &Shared) -> Result<()> {
        let record = self.record.lock().clone();
        shared
            .container_records
            .save(&record.id, &record)
            .map_err(|error| failed("cannot remember the container", error))
    }

    pub(super) async fn start(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<()> {
        let _operation = self.operation.lock().await;
        let (id, state) = {
            let record = self.record.lock();
            (record.id.clone(), record.state)
        };
        match state {
            ContainerState::Created => {}
            ContainerState::Running => return Ok(()),
            _ => return Err(Error::Failed(format!("container {id} has ended and is not started again"))),
        }
        match launch(shared, &id).await {
            Ok(started) => {
                self.note_start(shared, started)?;
                self.emit(shared, ContainerEventKind::Started);
                match connect(&shared.container_dir(&id)).await {
                    Ok(connection) => self.watch(shared, connection),
                    // It has ended already.
                    Err(_) => self.see_end(shared).await,
                }
                Ok(())
            }
            Err(message) => {
                let message = format!(
                    "OCI runtime create failed: unable to start container process: {message}: unknown"
                );
                {
                    let mut record = self.record.lock();
                    record.state = ContainerState::Exited;
                    record.exit_code = START_ERROR_CODE;
                    record.finished_at = Some(rt::now());
                    "StartError".clone_into(&mut record.reason);
                    record.message.clone_from(&message);
                }
                self.clean_group(shared).await;
                self.save(shared)?;
                self.ended.send_replace(true);
                Err(Error::Refused { reason: "RunContainerError", message })
            }
        }
    }

    fn note_start(&self, shared: &Shared, started: Started) -> Result<()> {
        {
            let mut record = self.record.lock();
            record.state = ContainerState::Running;
            record.started_at = Some(started.at);
            record.pid = started.pid.unsigned_abs();
        }
        // It may have ended already; then there is nothing to signal.
        *self.process.lock() =
            Pid::from_raw(started.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.save(shared)
    }

    /// Waits for the end of the program beside the container, which comes after the container's own.
    fn watch(self: &Arc<Self>, shared: &Arc<Shared>, mut connection: UnixStream) {
        let (container, shared) = (Arc::clone(self), Arc::clone(shared));
        rt::spawn("container-watch", async move {
            let watched = async {
                protocol::write_json(&mut connection, &Request::Watch).await?;
                protocol::read_json::<Response>(&mut connection).await?;
                // Nothing more is said: this is the end.
                protocol::read_frame(&mut connection).await
            };
            // Cut off in whatever way, it is gone.
            let _ = watched.await;
            container.see_end(&shared).await;
        });
    }

    /// Reads the program's last word and puts everything into the state of an end.
    async fn see_end(&self, shared: &Shared) {
        let (id, dir) = {
            let record = self.record.lock();
            (record.id.clone(), shared.container_dir(&record.id))
        };
        let exit: Option<Exit> = match protocol::load(&dir.join(EXIT_FILE)) {
            Ok(exit) => exit,
            Err(error) => {
                tracing::warn!(container = id, %error, "A container's last word cannot be read");
                None
            }
        };
        self.finish(shared, exit).await;
    }

    async fn finish(&self, shared: &Shared, exit: Option<Exit>) {
        self.clean_group(shared).await;
        let id = {
            let mut record = self.record.lock();
            record.finish(exit, rt::now());
            record.id.clone()
        };
        self.process.lock().take();
        if let Err(error) = self.save(shared) {
            tracing::warn!(container = id, %error, "A container's end is known to this process only");
        }
        if exit.is_some_and(|exit| exit.out_of_memory) {
            self.emit(shared, ContainerEventKind::OutOfMemory);
        }
        self.ended.send_replace(true);
        self.emit(shared, ContainerEventKind::Exited);
    }

    /// Ends what is left of its processes, and removes its group.
    async fn clean_group(&self, shared: &Shared) {
        let (id, cgroup) = {
            let record = self.record.lock();
            (record.id.clone(), record.cgroup.clone())
        };
        let cleaned = async {
            shared.cgroups.kill(&cgroup).await?;
            shared.cgroups.remove(&cgroup).await
        };
        if let Err(error) = cleaned.await {
            tracing::warn!(container = id, %error, "A container's control group stays");
        }
    }

    fn emit(&self, shared: &Shared, kind: ContainerEventKind) {
        let record = self.record.lock();
        shared.emit(ContainerEvent {
            sandbox_id: record.sandbox_id.clone(),
            container_id: record.id.clone(),
            kind,
        });
    }

    pub(super) async fn stop(&self, shared: &Shared, grace: Duration) -> Result<()> {
        let (id, state, signal, shares_pids, cgroup) = {
            let record = self.record.lock();
            (
                record.id.clone(),
                record.state,
                record.stop_signal.clone(),
                record.shares_pids,
                record.cgroup.clone(),
            )
        };
        if state != ContainerState::Running {
            // One that never ran cannot be started after it was stopped.
            let _operation = self.operation.lock().await;
            let state = self.record.lock().state;
            if state == ContainerState::Created {
                self.finish(shared, Some(Exit { code: 137, at: rt::now(), out_of_memory: false })).await;
            }
            if state != ContainerState::Running {
                return Ok(());
            }
        }
        let mut ended = self.ended.subscribe();
        if !grace.is_zero() {
            let signal = signals::parse(&signal).unwrap_or(Signal::TERM);
            self.signal(signal)?;
            if rt::timeout(grace, ended.wait_for(|ended| *ended)).await.is_ok() {
                return Ok(());
            }
        }
        self.signal(Signal::KILL)?;
        if shares_pids {
            shared.cgroups.kill(&cgroup).await.map_err(|error| failed("cannot end the container", error))?;
        }
        match rt::timeout(KILL_TIMEOUT, ended.wait_for(|ended| *ended)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Timeout(format!(
                "container {id} was killed and has not ended after {} s",
                KILL_TIMEOUT.as_secs()
            ))),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match self.process.lock().as_ref().map(|process| pidfd_send_signal(process, signal)) {
            None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => Ok(()),
            Some(Err(error)) => Err(failed("cannot signal the container", error)),
        }
    }

    pub(super) async fn remove(&self, shared: &Shared) -> Result<()> {
        self.stop(shared, Duration::ZERO).await?;
        let _operation = self.operation.lock().await;
        let id = self.id();
        self.clean_group(shared).await;
        discard(shared, &id).await?;
        shared.containers.lock().remove(&id);
        Ok(())
    }

    /// The folder of a container that runs.
    pub(super) fn running_dir(&self, shared: &Shared) -> Result<Utf8PathBuf> {
        let record = self.record.lock();
        if record.state != ContainerState::Running {
            return Err(Error::Failed(format!("container {} is not running", record.id)));
        }
        Ok(shared.container_dir(&record.id))
    }

    pub(super) async fn reopen_log(&self, shared: &Shared) -> Result<()> {
        let dir = self.running_dir(shared)?;
        let asked = async {
            let mut connection = connect(&dir).await?;
            protocol::write_json(&mut connection, &Request::ReopenLog).await?;
            protocol::read_json::<Response>(&mut connection).await
        };
        match asked.await {
            Ok(Response::Done) => Ok(()),
            Ok(Response::Failed(message)) => Err(Error::Failed(message)),
            Err(error) => Err(failed("cannot ask for a new log file", error)),
        }
    }

    pub(super) async fn update(&self, shared: &Shared, resources: &Resources) -> Result<()> {
        let _operation = self.operation.lock().await;
        self.running_dir(shared)?;
        let cgroup = self.record.lock().cgroup.clone();
        shared
            .cgroups
            .apply(&cgroup, resources)
            .map_err(|error| failed("cannot update the container's resources", error))?;
        self.record.lock().config.resources = resources.clone();
        self.save(shared)
    }

    /// `None` unless it runs.
    pub(super) async fn stats(&self, shared: &Shared) -> Result<Option<ContainerStats>> {
        let record = self.record.lock().clone();
        let figures = match record.state {
            ContainerState::Running => shared.cgroups.figures(&record.cgroup),
            _ => None,
        };
        let Some(figures) = figures else { return Ok(None) };
        Ok(Some(ContainerStats {
            cpu_usage: figures.cpu_usage,
            memory_working_set: figures.memory_working_set,
            memory_usage: figures.memory_usage,
            memory_rss: figures.memory_rss,
            page_faults: figures.page_faults,
            major_page_faults: figures.major_page_faults,
            processes: figures.processes,
            writable_layer: shared.images.layer_usage(&record.id).await?,
            at: rt::now(),
            id: record.id,
            sandbox_id: record.sandbox_id,
            name: record.config.name,
            labels: record.config.labels,
        }))
    }
}

/// Starts the program beside the container and hears how it went.
async fn launch(shared: &Shared, id: &str) -> std::result::Result<Started, String> {
    let dir = shared.container_dir(id);
    let log = std::fs::File::create(dir.join(SHIM_LOG))
        .map_err(|error| format!("cannot make {dir}/{SHIM_LOG}: {error}"))?;
    let (program, arguments) = shared.shim.split_first().ok_or("no program to start")?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(shim::CONTAINER)
        .arg(&dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let report = child.stdout.take();
    // Whoever is started must be waited for, at whatever time it ends.
    rt::spawn("shim-reap", async move {
        if let Err(error) = child.wait().await {
            tracing::warn!(%error, "Cannot wait for the program beside a container");
        }
    });
    let mut bytes = Vec::new();
    if let Some(report) = report {
        match rt::timeout(START_TIMEOUT, report.take(REPORT_BYTES_MAX).read_to_end(&mut bytes)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(format!("cannot read how the start went: {error}")),
            Err(_) => {
                return Err(format!("the container did not start within {} s", START_TIMEOUT.as_secs()));
            }
        }
    }
    match serde_json::from_slice(&bytes) {
        Ok(Outcome::Started(started)) => Ok(started),
        Ok(Outcome::Failed(message)) => Err(message),
        Err(_) => {
            let said = std::fs::read_to_string(dir.join(SHIM_LOG)).unwrap_or_default();
            Err(format!("the program beside the container ended without a word: {}", said.trim()))
        }
    }
}

/// Connects to the program beside the container. The path may be longer than a socket's address, so the folder is named
/// by its descriptor.
pub(super) async fn connect(dir: &Utf8Path) -> io::Result<UnixStream> {
    let dir = rustix::fs::open(
        dir.as_std_path(),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd())).await
}

/// Deletes everything of a container that does not run.
async fn discard(shared: &Shared, id: &str) -> Result<()> {
    let dir = shared.container_dir(id);
    blocking(move || clear(&dir))
        .await
        .map_err(|error| failed("cannot remove the container's files", error))?;
    shared.images.remove_layer(id).await?;
    shared.container_records.remove(id).map_err(|error| failed("cannot forget the container", error))
}
