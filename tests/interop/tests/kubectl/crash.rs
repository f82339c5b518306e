//! `kill -9` in the middle of a rollout; the next start goes on and finishes it.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Folder, Kubectl, Server, eventually};

use super::{Inputs, SIM_NODES};

/// How long after the apply began the process is killed.
const MOMENTS_MS: [u64; 4] = [150, 400, 800, 1500];
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn crash(inputs: &Inputs, checks: &mut Checks) {
    for moment in MOMENTS_MS {
        let what = format!("killed {moment} ms into the rollout, it continues and finishes");
        checks.check(&what, || killed_after(inputs, Duration::from_millis(moment)));
    }
}

fn killed_after(inputs: &Inputs, moment: Duration) -> anyhow::Result<()> {
    let Inputs { binary, boutique, program, version } = inputs;
    let folder = Folder::new()?;
    let server = Server::start(binary, &folder, SIM_NODES)?;
    let kubectl = Kubectl::new(program, version, &folder);
    eventually(PATIENCE, || kubectl.ok(&["get", "--raw", "/readyz"]))?;
    let applying = std::thread::spawn({
        let (kubectl, boutique) = (kubectl.clone(), boutique.to_owned());
        // It fails when the server dies under it; what it got acknowledged must be there afterwards.
        move || kubectl.run(&["apply", "-f", boutique.as_str()])
    });
    std::thread::sleep(moment);
    server.kill()?;
    let said = applying.join().map_err(|_| anyhow::anyhow!("the applying thread panicked"))??.stdout;

    let server = Server::start(binary, &folder, SIM_NODES)?;
    eventually(PATIENCE, || kubectl.ok(&["get", "--raw", "/readyz"]))?;
    for created in said.lines().filter_map(|line| line.strip_suffix(" created")) {
        kubectl.ok(&["get", created])?;
    }
    kubectl.ok(&["apply", "-f", boutique.as_str()])?;
    kubectl.ok(&["wait", "--for=condition=Available", "deployment", "--all", "--timeout=60s"])?;
    eventually(PATIENCE, || {
        let pods = kubectl.ok(&["get", "pods", "--no-headers"])?;
        let running = pods.lines().filter(|line| line.contains(" Running ")).count();
        ensure!(running == 12 && pods.lines().count() == 12, "{pods}");
        Ok(())
    })?;
    server.stop()
}
