//! Redis: asked through its Service, and what it wrote into an emptyDir is there after it was killed.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::PATIENCE;
use super::image::REDIS;
use super::load::ask;
use super::processes::{kill, of_container};
use crate::world::Cluster;

const ROLLED_OUT: [&str; 4] = ["rollout", "status", "deployment/cache", "--timeout=60s"];

pub fn run(cluster: &Cluster, checks: &mut Checks) {
    let kubectl = &cluster.kubectl;
    checks.check("redis: it becomes ready", || {
        kubectl.ok_with(&["apply", "-f", "-"], &manifests().to_string())?;
        kubectl.ok(&ROLLED_OUT).map(drop)
    });
    checks.check("redis: what is set through the cluster IP is got through it", || {
        // The endpoints follow readiness.
        let answer = eventually(PATIENCE, || command(kubectl, "SET knot bowline"))?;
        ensure!(answer == "+OK\r\n", "{answer:?}");
        let answer = command(kubectl, "GET knot")?;
        ensure!(answer == "$7\r\nbowline\r\n", "{answer:?}");
        let answer = command(kubectl, "GET other")?;
        ensure!(answer == "$-1\r\n", "{answer:?}");
        Ok(())
    });
    checks.check("redis: its own client works through exec", || {
        let said = kubectl.ok(&["exec", "deployment/cache", "--", "redis-cli", "GET", "knot"])?;
        ensure!(said.trim() == "bowline", "{said:?}");
        Ok(())
    });
    checks.check("redis: the log is that of the program", || {
        let said = kubectl.ok(&["logs", "deployment/cache"])?;
        ensure!(said.contains("Ready to accept connections"), "{said}");
        Ok(())
    });
    checks.check("redis: killed, it starts again beside its data in the emptyDir", || {
        let before = status(kubectl)?;
        let container = before["containerID"].as_str().context("it has a container")?.to_owned();
        let own = of_container(&container, "redis-server")?;
        ensure!(!own.is_empty(), "no process runs in {container}");
        kill(&own)?;
        eventually(PATIENCE, || {
            let now = status(kubectl)?;
            ensure!(now["restartCount"] == 1 && now["ready"] == true, "{now}");
            let last = &now["lastState"]["terminated"];
            ensure!(last["exitCode"] == 137 && last["containerID"] == container.as_str(), "{now}");
            Ok(())
        })?;
        let answer = eventually(PATIENCE, || command(kubectl, "GET knot"))?;
        ensure!(answer == "$7\r\nbowline\r\n", "{answer:?}");
        Ok(())
    });
    checks.check("redis: another pod has another emptyDir", || {
        kubectl.ok(&["delete", "pod", "-l", "app=cache"])?;
        kubectl.ok(&ROLLED_OUT)?;
        let answer = eventually(PATIENCE, || command(kubectl, "GET knot"))?;
        ensure!(answer == "$-1\r\n", "{answer:?}");
        Ok(())
    });
    checks.check("redis: it is deleted", || {
        kubectl.ok(&["delete", "deployment/cache", "service/cache"]).map(drop)
    });
}

/// One command through the Service, and the whole answer.
fn command(kubectl: &Kubectl, line: &str) -> anyhow::Result<String> {
    let ip = kubectl.ok(&["get", "service", "cache", "-o", "jsonpath={.spec.clusterIP}"])?;
    let to: SocketAddr = format!("{ip}:6379").parse().with_context(|| format!("reading {ip:?}"))?;
    ask(to, format!("{line}\r\n").as_bytes(), is_whole)
}

/// Whether a reply ended: a line, or a length and as many bytes.
fn is_whole(reply: &[u8]) -> bool {
    let lines = reply.windows(2).filter(|pair| pair == b"\r\n").count();
    let wanted = if reply.starts_with(b"$") && !reply.starts_with(b"$-1") { 2 } else { 1 };
    lines >= wanted
}

/// The status of its only container.
fn status(kubectl: &Kubectl) -> anyhow::Result<Value> {
    let pods = kubectl.json(&["get", "pods", "-l", "app=cache"])?;
    Ok(pods["items"][0]["status"]["containerStatuses"][0].clone())
}

fn manifests() -> Value {
    let options =
        ["--dir", "/data", "--appendonly", "yes", "--appendfsync", "always", "--protected-mode", "no"];
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "cache"},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "cache"}},
                "template": {
                    "metadata": {"labels": {"app": "cache"}},
                    "spec": {
                        "terminationGracePeriodSeconds": 10,
                        "containers": [{
                            "name": "redis", "image": REDIS.name, "args": options,
                            "ports": [{"name": "redis", "containerPort": 6379}],
                            "readinessProbe": {
                                "exec": {"command": ["redis-cli", "PING"]}, "periodSeconds": 1},
                            "securityContext": {
                                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                                "readOnlyRootFilesystem": true, "seccompProfile": {"type": "RuntimeDefault"}},
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        }],
                        "volumes": [{"name": "data", "emptyDir": {}}],
                    },
                },
            },
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cache"},
            "spec": {"selector": {"app": "cache"}, "ports": [{"port": 6379, "targetPort": "redis"}]},
        },
    ]})
}
