//! A server process of its own for every test.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::TempDir;

use crate::checks::eventually;

const START_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 60;
/// What a server says that waits for a part of its own no longer.
pub const GAVE_UP: &str = "did not end in time";

/// Where a server keeps its data between runs; goes with the value.
pub struct Folder {
    _temporary: TempDir,
    path: Utf8PathBuf,
}

impl Folder {
    /// # Errors
    /// No temporary folder can be made.
    pub fn new() -> anyhow::Result<Self> {
        let temporary =
            tempfile::Builder::new().prefix("pintle-interop").tempdir().context("making a folder")?;
        let path = Utf8Path::from_path(temporary.path())
            .context("the temporary folder's name is not UTF-8")?
            .to_owned();
        Ok(Self { _temporary: temporary, path })
    }

    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    pub fn kubeconfig(&self) -> Utf8PathBuf {
        self.path.join("kubeconfig")
    }
}

/// A running `pintle up`. Dropping it kills it without warning.
pub struct Server {
    child: Child,
    log: Utf8PathBuf,
}

impl Server {
    /// Starts a server with its data in `folder` and waits until its kubeconfig is there.
    ///
    /// The first start of a folder chooses a free port; later ones take it again, so that an old kubeconfig goes on
    /// working.
    ///
    /// # Errors
    /// The process ends, or takes too long; with what it said.
    pub fn start(binary: &Utf8Path, folder: &Folder, sim_nodes: u32) -> anyhow::Result<Self> {
        Self::start_with(binary, folder, sim_nodes, &[])
    }

    /// As [`Server::start`], with more flags. `--listen` among them is where it listens.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(
        binary: &Utf8Path,
        folder: &Folder,
        sim_nodes: u32,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let kubeconfig = folder.kubeconfig();
        let listen = listening(&kubeconfig).unwrap_or_else(|| "127.0.0.1:0".to_owned());
        // The old one is set aside, so that its coming back says that this start wrote it.
        let old = fs::read(&kubeconfig).ok();
        let _ = fs::remove_file(&kubeconfig);
        let log = folder.path.join("log");
        let file =
            File::options().create(true).append(true).open(&log).with_context(|| format!("opening {log}"))?;
        let mut child = Command::new(binary)
            .args(["up", "--data-dir", folder.path.join("data").as_str()])
            .args(if flags.contains(&"--listen") { vec![] } else { vec!["--listen", &listen] })
            .args(["--kubeconfig", kubeconfig.as_str(), "--sim-nodes", &sim_nodes.to_string()])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("sharing the log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {binary}"))?;
        let started = eventually(Duration::from_secs(START_SECONDS_MAX), || {
            if let Some(status) = child.try_wait().context("waiting for the server")? {
                return Ok(Err(status));
            }
            anyhow::ensure!(kubeconfig.is_file(), "no kubeconfig yet");
            Ok(Ok(()))
        });
        let server = Self { child, log };
        match started {
            Ok(Ok(())) => {}
            Ok(Err(status)) => bail!("the server ended with {status}; it said:\n{}", server.said()),
            Err(error) => return Err(error.context(format!("the server said:\n{}", server.said()))),
        }
        if let Some(old) = old
            && fs::read(&kubeconfig).ok().as_ref() != Some(&old)
        {
            // A renewed certificate is fine, a kubeconfig that no longer works is not: the old one must go on.
            fs::write(&kubeconfig, old).context("putting the first kubeconfig back")?;
        }
        Ok(server)
    }

    /// Everything it wrote to its outputs so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.crash()
    }

    /// As [`Server::kill`], for whoever has more to look at before the next start.
    ///
    /// # Errors
    /// As [`Server::kill`].
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing the server")?;
        self.child.wait().context("waiting for its end")?;
        Ok(())
    }

    /// Asks it to stop, as Ctrl-C or a service manager would.
    ///
    /// # Errors
    /// It does not stop in time, or not with success.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.shut_down()
    }

    /// As [`Server::stop`], for whoever has more to look at before the next start.
    ///
    /// # Errors
    /// As [`Server::stop`].
    pub fn shut_down(&mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().context("sending SIGTERM")?;
        let status = eventually(Duration::from_secs(STOP_SECONDS_MAX), || {
            self.child.try_wait().context("waiting for the server")?.context("it still runs")
        })?;
        let said = self.said();
        anyhow::ensure!(status.success(), "the server ended with {status}; it said:\n{said}");
        anyhow::ensure!(!said.contains(GAVE_UP), "parts of the server did not end; it said:\n{said}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `host:port` that a kubeconfig names.
fn listening(kubeconfig: &Utf8Path) -> Option<String> {
    let text = fs::read_to_string(kubeconfig).ok()?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("server:"))?;
    Some(line.trim().trim_matches('"').strip_prefix("https://")?.trim_end_matches('/').to_owned())
}
