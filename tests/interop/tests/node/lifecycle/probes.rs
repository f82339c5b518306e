//! Probes of every kind, and what follows from them.

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use super::World;
use crate::pods::{self, PATIENCE, shell_with};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("a container that is no longer alive is restarted", || liveness(kubectl));
    checks.check("a pod that is not ready is out of its Service", || readiness(kubectl));
    checks.check("a port that opens late is waited for", || startup(kubectl));
}

fn liveness(kubectl: &Kubectl) -> anyhow::Result<()> {
    let probe =
        json!({"exec": {"command": ["cat", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1});
    let script = "touch /tmp/alive; sleep 2; rm /tmp/alive; sleep 10000";
    pods::create(
        kubectl,
        "alive",
        json!({
            "restartPolicy": "Always",
            "containers": [shell_with("c", script, json!({"livenessProbe": probe}))],
        }),
    )?;
    pods::until(kubectl, "alive", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    })?;
    pods::event(kubectl, "alive", "Unhealthy", "Liveness probe failed: cat: can't open '/tmp/alive'")?;
    pods::event(kubectl, "alive", "Killing", "Container c failed liveness probe, will be restarted")?;
    kubectl.ok(&["delete", "pod", "alive"]).map(drop)
}

fn readiness(kubectl: &Kubectl) -> anyhow::Result<()> {
    let probe =
        json!({"httpGet": {"path": "/ok", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    let fields = json!({"readinessProbe": probe, "ports": [{"name": "http", "containerPort": 8080}]});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ready"},
        "spec": {"selector": {"app": "ready"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    pods::make(kubectl, &[service])?;
    let script = "touch /www/ok; exec httpd -f -p 8080 -h /www";
    pods::create(kubectl, "ready", json!({"containers": [shell_with("c", script, fields)]}))?;
    pods::until_ready(kubectl, "ready")?;
    in_service(kubectl, true)?;
    kubectl.ok(&["exec", "ready", "--", "rm", "/www/ok"])?;
    pods::until(kubectl, "ready", |pod| !pods::is_ready(pod))?;
    in_service(kubectl, false)?;
    pods::event(
        kubectl,
        "ready",
        "Unhealthy",
        "Readiness probe failed: HTTP probe failed with statuscode: 404",
    )?;
    kubectl.ok(&["exec", "ready", "--", "touch", "/www/ok"])?;
    pods::until_ready(kubectl, "ready")?;
    in_service(kubectl, true)
}

fn in_service(kubectl: &Kubectl, wanted: bool) -> anyhow::Result<()> {
    eventually(PATIENCE, || {
        let slices = kubectl.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=ready"])?;
        let ready = &slices["items"][0]["endpoints"][0]["conditions"]["ready"];
        ensure!(ready.as_bool() == Some(wanted), "{slices}");
        Ok(())
    })
}

fn startup(kubectl: &Kubectl) -> anyhow::Result<()> {
    let probe = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30});
    let script = "sleep 3; exec httpd -f -p 8080 -h /www";
    pods::create(
        kubectl,
        "late",
        json!({"containers": [shell_with("c", script, json!({"startupProbe": probe}))]}),
    )?;
    let running = pods::until(kubectl, "late", |pod| pod["status"]["phase"] == "Running")?;
    ensure!(running["status"]["containerStatuses"][0]["started"] == false, "{}", running["status"]);
    let ready = pods::until_ready(kubectl, "late")?;
    ensure!(ready["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", ready["status"]);
    pods::event(kubectl, "late", "Unhealthy", "Startup probe failed: dial tcp")
}
