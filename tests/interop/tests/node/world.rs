//! What every part begins with, and the machine around it.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use interop::{Folder, Kubectl, Server, eventually};

use crate::containerd::Containerd;
use crate::remains::Remains;

/// The machine's address in the suite's namespace; every packet that leaves it is lost.
pub const ADDRESS: &str = "192.0.2.1";

/// For a node to say that it is ready.
const NODE_PATIENCE: Duration = Duration::from_secs(30);

/// What a part makes its clusters from.
pub struct Inputs {
    pub binary: Utf8PathBuf,
    /// Every kubectl there is, with its version, the oldest first.
    pub kubectls: Vec<(Utf8PathBuf, String)>,
    /// What runs the pods of its clusters, where that is not the embedded runtime.
    pub containerd: Option<Arc<Containerd>>,
}

impl Inputs {
    pub fn find() -> Option<Self> {
        let binary = interop::binary()?;
        let kubectls = Kubectl::found();
        if kubectls.is_empty() {
            interop::skip("there is no kubectl on this machine");
            return None;
        }
        Some(Self { binary, kubectls, containerd: None })
    }
}

/// A cluster whose only node is this machine.
pub struct Cluster {
    /// The newest.
    pub kubectl: Kubectl,
    pub server: Server,
    /// Between the server, which would look after them, and their data, which is below the folder.
    remains: Remains,
    pub folder: Folder,
}

/// A cluster whose server is down; its containers are not.
pub struct Crashed {
    kubectl: Kubectl,
    remains: Remains,
    folder: Folder,
}

impl Cluster {
    pub fn start(inputs: &Inputs) -> anyhow::Result<Self> {
        let cluster = Self::start_with(inputs, &[])?;
        cluster.takes_pods()?;
        Ok(cluster)
    }

    /// With flags by which the node may take no pods.
    pub fn start_with(inputs: &Inputs, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let server = start_server(inputs, &folder, flags)?;
        let (program, version) = inputs.kubectls.last().context("there is a kubectl")?;
        let remains = Remains::of(folder.path().join("data"));
        Ok(Self { kubectl: Kubectl::new(program, version, &folder), server, remains, folder })
    }

    /// On a node that takes none every check would wait for its whole patience.
    fn takes_pods(&self) -> anyhow::Result<()> {
        eventually(NODE_PATIENCE, || {
            let node = self.kubectl.json(&["get", "node", "n1"])?;
            ensure!(node["spec"]["taints"].is_null(), "the node takes no pods: {}", node["spec"]["taints"]);
            Ok(())
        })
    }

    /// Starts its server again after that ended, on the same data.
    pub fn start_again(&mut self, inputs: &Inputs, flags: &[&str]) -> anyhow::Result<()> {
        self.server = start_server(inputs, &self.folder, flags)?;
        Ok(())
    }

    /// Ends the server without warning.
    pub fn crash(self) -> anyhow::Result<Crashed> {
        let Self { kubectl, server, remains, folder } = self;
        server.kill()?;
        Ok(Crashed { kubectl, remains, folder })
    }

    pub fn data(&self) -> Utf8PathBuf {
        self.folder.path().join("data")
    }
}

impl Crashed {
    /// Starts it again, on the same data.
    pub fn restart(self, inputs: &Inputs) -> anyhow::Result<Cluster> {
        self.restart_with(inputs, &[])
    }

    pub fn restart_with(self, inputs: &Inputs, flags: &[&str]) -> anyhow::Result<Cluster> {
        let Self { kubectl, remains, folder } = self;
        let server = start_server(inputs, &folder, flags)?;
        Ok(Cluster { kubectl, server, remains, folder })
    }
}

fn start_server(inputs: &Inputs, folder: &Folder, flags: &[&str]) -> anyhow::Result<Server> {
    let mut all = vec!["--node=true", "--node-name", "n1"];
    all.extend(keeping(flags));
    let of_runtime = inputs.containerd.as_ref().map(|containerd| containerd.flags());
    all.extend(of_runtime.iter().flatten().map(String::as_str));
    all.extend(flags);
    Server::start_with(&inputs.binary, folder, 0, &all)
}

/// Flags with which a machine whose disk is nearly full, as a builder's may be, runs pods and keeps its images, except
/// where a part says when not.
pub fn keeping(flags: &[&str]) -> &'static [&'static str] {
    if flags.contains(&"--eviction-hard") {
        &[]
    } else {
        &["--eviction-hard", "memory.available<100Mi", "--image-gc-high-threshold", "100"]
    }
}

/// Why the suite cannot run here.
pub fn is_possible() -> Result<(), String> {
    let is_root = run("id", &["-u"]).is_ok_and(|id| id.trim() == "0");
    if !is_root {
        return Err("real containers need root".to_owned());
    }
    for program in ["unshare", "ip"] {
        if run(program, &["--version"]).is_err() && run(program, &["-V"]).is_err() {
            return Err(format!("there is no {program} on this machine"));
        }
    }
    run("unshare", &["--net", "true"])
        .map(drop)
        .map_err(|error| format!("a network namespace cannot be made: {error:#}"))
}

/// Gives this namespace a loopback and a link with an address and a default route.
pub fn make_uplink() -> anyhow::Result<()> {
    for arguments in [
        vec!["link", "set", "lo", "up"],
        vec!["link", "add", "up0", "type", "bridge"],
        vec!["addr", "add", "192.0.2.1/24", "dev", "up0"],
        vec!["link", "set", "up0", "up"],
        vec!["route", "add", "default", "via", "192.0.2.254", "dev", "up0"],
    ] {
        run("ip", &arguments)?;
    }
    Ok(())
}

/// The output of a program that ends well.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes an image of a folder, where a cluster's node finds it.
pub fn build_image(
    inputs: &Inputs,
    cluster: &Cluster,
    name: &str,
    folder: &Utf8Path,
    cmd: &[&str],
) -> anyhow::Result<()> {
    let data = cluster.data();
    run(inputs.binary.as_str(), &building(name, &data, folder, cmd))?;
    match &inputs.containerd {
        Some(containerd) => containerd.import(&inputs.binary, &data, name),
        None => Ok(()),
    }
}

/// The command that makes an image of a folder, in the store of a data directory.
pub fn building<'a>(
    name: &'a str,
    data: &'a Utf8Path,
    folder: &'a Utf8Path,
    cmd: &[&'a str],
) -> Vec<&'a str> {
    let mut arguments =
        vec!["image", "build", name, "--data-dir", data.as_str(), "--from-dir", folder.as_str()];
    for word in cmd {
        arguments.extend(["--cmd", word]);
    }
    arguments
}
