//! A machine: a network namespace with a wire to the suite's bridge, and the program in it.

use std::fs::{self, File};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use interop::{Folder, eventually};

use crate::remains::Remains;
use crate::world::{self, Inputs, run};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Machine {
    pub name: &'static str,
    binary: Utf8PathBuf,
    /// The namespace's, and with it the machine's on the whole machine.
    namespace: String,
    /// The suite's end of the wire.
    wire: String,
    running: Option<Child>,
    /// Between the program and its data, for the order in which they go.
    _remains: Remains,
    folder: Folder,
}

impl Machine {
    /// `number` is the last byte of its address, which no other part gives the suite's own namespace.
    pub fn new(inputs: &Inputs, name: &'static str, number: u8) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let machine = Self {
            name,
            binary: inputs.binary.clone(),
            namespace: format!("pintle-suite-{}-{name}", std::process::id()),
            wire: format!("wire-{name}"),
            running: None,
            _remains: Remains::of(folder.path().join("data")),
            folder,
        };
        let (namespace, wire) = (machine.namespace.as_str(), machine.wire.as_str());
        run("ip", &["netns", "add", namespace])?;
        run("ip", &["link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
        run("ip", &["link", "set", wire, "master", "up0", "up"])?;
        let address = format!("192.0.2.{number}/24");
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["addr", "add", &address, "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "via", "192.0.2.254", "dev", "eth0"],
        ] {
            let all = ["-netns", namespace].iter().chain(arguments).copied().collect::<Vec<_>>();
            run("ip", &all)?;
        }
        Ok(machine)
    }

    pub fn data(&self) -> Utf8PathBuf {
        self.folder.path().join("data")
    }

    pub fn build_image(&self, name: &str, folder: &Utf8Path) -> anyhow::Result<()> {
        let data = self.data();
        run(self.binary.as_str(), &world::building(name, &data, folder, &["sh"])).map(drop)
    }

    /// A command of the program, in the machine.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg(&self.binary).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// `pintle node` under a name and with these arguments, which is to fail. Its data is its own.
    pub fn refused(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let data = self.folder.path().join("other");
        let own = ["node", "--data-dir", data.as_str(), "--node-name", name];
        let output = self.command(&[&own, arguments].concat()).output().context("running the node")?;
        ensure!(!output.status.success(), "it was not refused");
        Ok(output)
    }

    /// Starts `pintle node` and waits until it says that it is ready.
    pub fn start(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        let data = self.data();
        let log = self.folder.path().join("log");
        let file = File::create(&log).with_context(|| format!("making {log}"))?;
        let own = ["node", "--data-dir", data.as_str(), "--node-name", self.name];
        let mut child = self
            .command(&[&own, world::keeping(arguments), arguments].concat())
            .stdout(file.try_clone().context("sharing the log")?)
            .stderr(file)
            .spawn()
            .context("starting the node")?;
        let ready = eventually(PATIENCE, || {
            ensure!(self.said().contains("is ready after"), "it said {:?}", self.said());
            Ok(())
        });
        if let Ok(Some(status)) = child.try_wait() {
            anyhow::bail!("the node ended with {status}; it said {}", self.said());
        }
        self.running = Some(child);
        ready
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Asks the program to stop, as a service manager would.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut child = self.running.take().context("the node runs")?;
        run("kill", &["-TERM", &child.id().to_string()])?;
        let status = eventually(PATIENCE, || child.try_wait()?.context("it still runs"))?;
        let said = self.said();
        ensure!(status.success(), "the node ended with {status}; it said {said}");
        ensure!(!said.contains(interop::GAVE_UP), "parts of the node did not end; it said {said}");
        Ok(())
    }

    /// Cuts the wire, or mends it.
    pub fn set_wire(&self, up: bool) -> anyhow::Result<()> {
        run("ip", &["link", "set", &self.wire, if up { "up" } else { "down" }]).map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Its end in the namespace goes with it; the namespace stays for as long as a container holds it.
        let _ = run("ip", &["link", "del", &self.wire]);
        let _ = run("ip", &["netns", "del", &self.namespace]);
    }
}
