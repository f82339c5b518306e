//! The server under measurement: its process, its memory, its CPU time.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use hyper::StatusCode;

use super::connection::Endpoint;

/// A server that is not ready by then never will be.
const READY_SECONDS_MAX: u64 = 120;
const STOP_SECONDS_MAX: u64 = 60;
/// How often an outside observer looks; small against the shortest start.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Clock ticks per second in `/proc`.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server. Dropping it kills it.
pub(super) struct Server {
    child: Child,
    pub(super) endpoint: Endpoint,
    /// From starting the process to the first 200 of `/readyz`.
    pub(super) ready_after: Duration,
}

impl Server {
    /// Starts the binary on a data directory, with these flags besides what every server gets, and waits until
    /// `/readyz` says ok.
    pub(super) async fn start(
        binary: &Utf8Path,
        data: &Utf8Path,
        sim_nodes: u32,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let kubeconfig = beside(data, "kubeconfig");
        let _ = fs::remove_file(&kubeconfig);
        let log = log_of(data);
        let file = File::create(&log).with_context(|| format!("creating {log}"))?;
        let started = Instant::now();
        let mut child = Command::new(binary)
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir", data.as_str()])
            .args(["--kubeconfig", kubeconfig.as_str(), "--sim-nodes", &sim_nodes.to_string()])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("sharing the log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {binary}"))?;
        match wait_until_ready(&mut child, &kubeconfig, started).await {
            Ok(endpoint) => Ok(Self { child, endpoint, ready_after: started.elapsed() }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(&log).unwrap_or_default();
                Err(error.context(format!("the server said:\n{said}")))
            }
        }
    }

    /// Asks it to stop and waits until it has.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        asked.context("sending SIGTERM")?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(STOP_SECONDS_MAX) {
            if let Some(status) = self.child.try_wait().context("waiting for the server")? {
                if !status.success() {
                    bail!("the server ended with {status} when asked to stop");
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the server did not stop within {STOP_SECONDS_MAX} s")
    }

    /// Resident memory in bytes.
    pub(super) fn resident(&self) -> anyhow::Result<u64> {
        self.status_kib("VmRSS:")
    }

    /// The highest resident memory since [`Server::forget_peak`].
    pub(super) fn peak_resident(&self) -> anyhow::Result<u64> {
        self.status_kib("VmHWM:")
    }

    pub(super) fn forget_peak(&self) -> anyhow::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").context("resetting the memory peak")
    }

    /// CPU time used so far, all threads.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("reading its CPU time")?;
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        // utime and stime are fields 14 and 15 of proc(5); the first one here is field 3.
        let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
    }

    fn status_kib(&self, field: &str) -> anyhow::Result<u64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("reading its memory")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .with_context(|| format!("no {field}"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().context("reading its memory")?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server on a data directory says.
pub(super) fn log_of(data: &Utf8Path) -> Utf8PathBuf {
    beside(data, "log")
}

/// A file next to the data directory, so that the directory holds only what the server put there.
fn beside(data: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{data}.{suffix}"))
}

async fn wait_until_ready(
    child: &mut Child,
    kubeconfig: &Utf8Path,
    started: Instant,
) -> anyhow::Result<Endpoint> {
    while started.elapsed() < Duration::from_secs(READY_SECONDS_MAX) {
        if let Some(status) = child.try_wait().context("waiting for the server")? {
            bail!("the server ended with {status} before it was ready");
        }
        if kubeconfig.is_file()
            && let Ok(endpoint) = Endpoint::from_kubeconfig(kubeconfig)
            && is_ready(&endpoint).await
        {
            return Ok(endpoint);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    bail!("the server was not ready within {READY_SECONDS_MAX} s")
}

async fn is_ready(endpoint: &Endpoint) -> bool {
    let Ok(mut connection) = endpoint.connect().await else { return false };
    loop {
        match connection.get("/readyz").await {
            Ok(answer) if answer.status == StatusCode::OK => return true,
            Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
            Err(_) => return false,
        }
    }
}
