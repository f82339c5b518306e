//! What pods may ask of their node and what flows to their containers, once more with containerd as the runtime.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use camino::Utf8Path;
use interop::{Checks, Folder, eventually};

use crate::remains;
use crate::world::{self, Inputs};
use crate::{Part, conformance, lifecycle, pods, streams};

const PATIENCE: Duration = Duration::from_secs(30);

/// What holds a pod's namespaces.
const SANDBOX_IMAGE: &str = "test.pintle.dev/pause:1";

/// What does not depend on how the embedded runtime works.
const PARTS: [(&str, Part); 3] =
    [("lifecycle", lifecycle::run), ("conformance", conformance::run), ("streams", streams::run)];

pub fn run(inputs: &Inputs, checks: &mut Checks) {
    let busybox = match pods::busybox() {
        Ok(busybox) => busybox,
        Err(reason) => return interop::skip(&reason),
    };
    for program in ["containerd", "ctr", "runc"] {
        if world::run(program, &["--version"]).is_err() {
            return interop::skip(&format!("there is no {program} on this machine"));
        }
    }
    for (name, part) in PARTS {
        let containerd = match Containerd::start(inputs, &busybox) {
            Ok(containerd) => Arc::new(containerd),
            Err(error) => return checks.check("containerd starts", || Err(error)),
        };
        // What one version of kubectl has, the ones between the oldest and the newest have, too.
        let kubectls = inputs.kubectls.iter().take(1).chain(inputs.kubectls.iter().skip(1).last()).cloned();
        let inputs = Inputs {
            binary: inputs.binary.clone(),
            kubectls: kubectls.collect(),
            containerd: Some(containerd),
        };
        let mut own = Checks::new(format!("node: containerd: {name}")).aloud();
        part(&inputs, &mut own);
        println!("{}", own.summary());
        checks.add(own);
    }
}

/// A containerd with all of its files in a folder. When it goes, everything goes that it started.
pub struct Containerd {
    child: Child,
    folder: Folder,
}

impl Containerd {
    fn start(inputs: &Inputs, busybox: &Utf8Path) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let at = folder.path();
        // It may not let processes be spared when memory is short.
        let config = format!(
            r#"version = 2
root = "{at}/root"
state = "{at}/state"
[grpc]
address = "{at}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
sandbox_image = "{SANDBOX_IMAGE}"
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{at}/cni-programs"
conf_dir = "{at}/cni"
"#
        );
        fs::write(at.join("config.toml"), config).context("writing containerd's configuration")?;
        let log = File::create(at.join("containerd.log")).context("making containerd's log")?;
        let child = Command::new("containerd")
            .args(["--config", at.join("config.toml").as_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting containerd")?;
        let containerd = Self { child, folder };
        eventually(PATIENCE, || containerd.ctr(&["version"]).map(drop)).with_context(|| {
            let log = containerd.folder.path().join("containerd.log");
            format!("containerd said {}", fs::read_to_string(log).unwrap_or_default())
        })?;
        let root = containerd.folder.path().join("pause");
        fs::create_dir(&root)?;
        fs::copy(busybox, root.join("busybox")).context("copying busybox")?;
        let own = containerd.folder.path().join("data");
        let cmd = ["/busybox", "sleep", "1000000"];
        world::run(inputs.binary.as_str(), &world::building(SANDBOX_IMAGE, &own, &root, &cmd))?;
        containerd.import(&inputs.binary, &own, SANDBOX_IMAGE)?;
        Ok(containerd)
    }

    /// Flags of a node whose pods it runs.
    pub fn flags(&self) -> [String; 6] {
        let at = self.folder.path();
        [
            "--container-runtime-endpoint".to_owned(),
            format!("unix://{at}/containerd.sock"),
            "--cni-conf-dir".to_owned(),
            format!("{at}/cni"),
            "--cni-bin-dir".to_owned(),
            format!("{at}/cni-programs"),
        ]
    }

    /// Gives it an image of the store in this data directory.
    pub fn import(&self, binary: &Utf8Path, data: &Utf8Path, image: &str) -> anyhow::Result<()> {
        let archive = self.folder.path().join("image.tar");
        world::run(
            binary.as_str(),
            &["image", "export", image, "--output", archive.as_str(), "--data-dir", data.as_str()],
        )?;
        self.ctr(&["images", "import", archive.as_str()])?;
        fs::remove_file(&archive).with_context(|| format!("removing {archive}"))
    }

    fn ctr(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = self.folder.path().join("containerd.sock");
        world::run("ctr", &[&["-a", socket.as_str(), "-n", "k8s.io"], arguments].concat())
    }

    fn take_away(&self) -> anyhow::Result<()> {
        for task in self.ctr(&["tasks", "ls", "-q"])?.lines() {
            // One that ends meanwhile is gone.
            let _ = self.ctr(&["tasks", "delete", "--force", task]);
        }
        ensure!(self.ctr(&["tasks", "ls", "-q"])?.is_empty(), "containers of containerd do not end");
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.take_away() {
            eprintln!("containers were left behind: {error:#}");
        }
        let _it_may_have_ended = self.child.kill();
        let _ = self.child.wait();
        remains::unmount_below(&[self.folder.path()]);
    }
}
