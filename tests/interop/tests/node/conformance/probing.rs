//! Probes that succeed for ever, that fail for ever, and that fail again and again.

use std::time::{Duration, Instant};

use anyhow::ensure;
use interop::{Checks, Kubectl};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, shell_with};

/// Long enough for a wrong restart: several periods of every probe.
const QUIET: Duration = Duration::from_secs(6);

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks
        .check("a container that answers over TCP, HTTP or by a command is left alone", || healthy(kubectl));
    checks.check("a container that stops to answer over HTTP is restarted, each time", || sick(kubectl));
    checks.check("a pod is not ready before its first probe", || initial_delay(kubectl));
}

/// Three that are well, and one that never becomes ready, which is no reason to restart it.
fn healthy(kubectl: &Kubectl) -> anyhow::Result<()> {
    let serve = "touch /www/ok; exec httpd -f -p 8080 -h /www";
    let probe = |how: Value| {
        let mut probe = json!({"periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1});
        if let (Some(probe), Some(how)) = (probe.as_object_mut(), how.as_object()) {
            probe.extend(how.clone());
        }
        probe
    };
    let live = |how: Value| json!({"livenessProbe": probe(how)});
    for (name, probes) in [
        ("live-tcp", live(json!({"tcpSocket": {"port": 8080}}))),
        ("live-http", live(json!({"httpGet": {"path": "/ok", "port": 8080}}))),
        ("live-exec", live(json!({"exec": {"command": ["cat", "/www/ok"]}}))),
        ("never-ready", json!({"readinessProbe": probe(json!({"exec": {"command": ["false"]}}))})),
    ] {
        pods::create(
            kubectl,
            name,
            json!({"restartPolicy": "Always", "containers": [shell_with("c", serve, probes)]}),
        )?;
    }
    for name in ["live-tcp", "live-http", "live-exec"] {
        pods::until_ready(kubectl, name)?;
    }
    std::thread::sleep(QUIET);
    for name in ["live-tcp", "live-http", "live-exec", "never-ready"] {
        let pod = kubectl.json(&["get", "pod", name])?;
        let own = &pod["status"]["containerStatuses"][0];
        ensure!(own["restartCount"] == 0 && own["state"]["running"].is_object(), "{name}: {own}");
        ensure!(own["ready"] == (name != "never-ready"), "{name}: {own}");
        kubectl.ok(&["delete", "pod", name, "--wait=false"])?;
    }
    Ok(())
}

fn sick(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script = "touch /www/ok; (sleep 2; rm /www/ok) & exec httpd -f -p 8080 -h /www";
    let probe = json!({"livenessProbe": {"httpGet": {"path": "/ok", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}});
    pods::create(
        kubectl,
        "sick",
        json!({"restartPolicy": "Always", "containers": [shell_with("c", script, probe)]}),
    )?;
    for restarts in [1, 2] {
        pods::until(kubectl, "sick", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(restarts)
        })?;
    }
    kubectl.ok(&["delete", "pod", "sick", "--wait=false"]).map(drop)
}

fn initial_delay(kubectl: &Kubectl) -> anyhow::Result<()> {
    let probe = json!({"readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 4, "periodSeconds": 1}});
    let began = Instant::now();
    pods::create(kubectl, "patient", json!({"containers": [shell_with("c", "exec sleep 10000", probe)]}))?;
    pods::until(kubectl, "patient", |pod| pod["status"]["phase"] == "Running")?;
    let pod = pods::until_ready(kubectl, "patient")?;
    ensure!(began.elapsed() >= Duration::from_secs(3), "ready after {:?}", began.elapsed());
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", pod["status"]);
    kubectl.ok(&["delete", "pod", "patient", "--wait=false"]).map(drop)
}
