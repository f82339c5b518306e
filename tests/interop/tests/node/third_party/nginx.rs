//! nginx: three replicas behind a Service, and a rollout that no client notices.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::PATIENCE;
use super::image::NGINX;
use super::load::{Load, get};
use crate::world::{ADDRESS, Cluster};

const ROLLED_OUT: [&str; 4] = ["rollout", "status", "deployment/web", "--timeout=120s"];
const NODE_PORT: u16 = 30_080;

pub fn run(cluster: &Cluster, checks: &mut Checks) {
    let kubectl = &cluster.kubectl;
    checks.check("nginx: three replicas become ready", || {
        kubectl.ok_with(&["apply", "-f", "-"], &manifests().to_string())?;
        kubectl.ok(&ROLLED_OUT)?;
        let pods = pods(kubectl)?;
        ensure!(pods.len() == 3, "{pods:?}");
        Ok(())
    });
    for (what, address) in [("node port", node_port as fn(&Kubectl) -> _), ("cluster IP", cluster_ip)] {
        checks.check(&format!("nginx: its {what} leads to every replica"), || {
            let (to, pods) = (address(kubectl)?, pods(kubectl)?);
            let mut unseen = pods.clone();
            eventually(PATIENCE, || {
                let who = get(to)?;
                ensure!(pods.contains(&who), "{who} answered, of {pods:?}");
                unseen.retain(|pod| *pod != who);
                ensure!(unseen.is_empty(), "{unseen:?} did not answer");
                Ok(())
            })
        });
    }
    checks.check("nginx: a rolling update under load fails no request", || updated_under_load(kubectl));
    checks.check("nginx: without replicas the port refuses, and with one it answers again", || {
        let to = node_port(kubectl)?;
        kubectl.ok(&["scale", "deployment/web", "--replicas=0"])?;
        eventually(PATIENCE, || {
            let answered = get(to);
            ensure!(answered.is_err(), "{answered:?}");
            Ok(())
        })?;
        kubectl.ok(&["scale", "deployment/web", "--replicas=1"])?;
        eventually(PATIENCE, || get(to)).map(drop)
    });
    checks.check("nginx: it is deleted", || {
        kubectl.ok(&["delete", "deployment/web", "service/web"])?;
        eventually(PATIENCE, || {
            let pods = pods(kubectl)?;
            ensure!(pods.is_empty(), "{pods:?}");
            Ok(())
        })
    });
}

fn updated_under_load(kubectl: &Kubectl) -> anyhow::Result<()> {
    let before = pods(kubectl)?;
    let loads = [node_port(kubectl)?, cluster_ip(kubectl)?].map(Load::start);
    kubectl.ok(&["set", "env", "deployment/web", "RELEASE=2"])?;
    let rolled_out = kubectl.ok(&ROLLED_OUT);
    // The last of the old ones goes only now.
    let after = rolled_out.and_then(|_| {
        eventually(PATIENCE, || {
            let after = pods(kubectl)?;
            ensure!(after.len() == 3 && before.iter().all(|old| !after.contains(old)), "{after:?}");
            Ok(after)
        })
    });
    for load in loads {
        let seen = load.end()?;
        let after = after.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        ensure!(
            seen.failed == 0,
            "{} of {} failed: {:#?}",
            seen.failed,
            seen.failed + seen.answered,
            seen.failures
        );
        ensure!(
            before.iter().any(|old| seen.answers.contains(old)),
            "no old pod answered: {:?}",
            seen.answers
        );
        ensure!(
            after.iter().any(|new| seen.answers.contains(new)),
            "no new pod answered: {:?}",
            seen.answers
        );
    }
    Ok(())
}

fn node_port(_kubectl: &Kubectl) -> anyhow::Result<SocketAddr> {
    format!("{ADDRESS}:{NODE_PORT}").parse().context("reading the node's address")
}

fn cluster_ip(kubectl: &Kubectl) -> anyhow::Result<SocketAddr> {
    let ip = kubectl.ok(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    format!("{ip}:80").parse().with_context(|| format!("reading {ip:?}"))
}

/// The names of its pods, also of those that are going.
fn pods(kubectl: &Kubectl) -> anyhow::Result<Vec<String>> {
    let names = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"])?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn manifests() -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"terminationGracePeriodSeconds": 20, "containers": [{
                        "name": "nginx", "image": NGINX.name, "ports": [{"name": "http", "containerPort": 80}],
                        "env": [{"name": "RELEASE", "value": "1"}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                        "livenessProbe": {"tcpSocket": {"port": "http"}},
                        // Whoever still believes in this pod gets an answer.
                        "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
                        "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "64Mi"}},
                    }]},
                },
            },
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [
                {"port": 80, "targetPort": "http", "nodePort": NODE_PORT}]},
        },
    ]})
}
