//! Machines and the server go and come back.

use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;
use crate::pods;

/// Silence, eviction and a pod elsewhere, one after the other.
const PATIENCE: Duration = Duration::from_secs(150);

/// Replicas of the application that machines lose.
const REPLICAS: usize = 3;

pub fn run(world: &mut World<'_>, checks: &mut Checks) {
    let kubectl = world.cluster.kubectl.clone();
    let mut on_lost = Vec::new();
    checks.check("an application runs on all machines", || {
        pods::make(&kubectl, &[application()])?;
        eventually(PATIENCE, || {
            let running = running(&kubectl)?;
            let nodes: std::collections::BTreeSet<&str> =
                running.iter().map(|(_, node)| node.as_str()).collect();
            ensure!(running.len() == REPLICAS && nodes.len() == 3, "{running:?}");
            on_lost = running.iter().filter(|(_, node)| node == "n3").map(|(pod, _)| pod.clone()).collect();
            Ok(())
        })
    });
    checks.check("a crash of the server is nothing to machines elsewhere", || {
        let before = kubectl.ok(&["get", "node", "n2", "-o", "jsonpath={.metadata.uid}"])?;
        world.cluster.server.crash()?;
        world.cluster.start_again(world.inputs, &["--listen", "0.0.0.0:6443"])?;
        pods::create(&kubectl, "after", super::web_on("n2", "after"))?;
        pods::until_ready(&kubectl, "after")?;
        let after = kubectl.ok(&["get", "node", "n2", "-o", "jsonpath={.metadata.uid}"])?;
        ensure!(before == after, "the node n2 is another one");
        let restarts = "jsonpath={.items[*].status.containerStatuses[0].restartCount}";
        let counts = kubectl.ok(&["get", "pods", "-o", restarts])?;
        ensure!(counts.split(' ').all(|count| count == "0"), "restarts: {counts}");
        Ok(())
    });
    checks.check("a machine that is cut off is found out, and its pods are replaced", || {
        world.machines[1].set_wire(false)?;
        let node = pods::until_node(&kubectl, "n3", "Unknown")?;
        ensure!(node["metadata"]["name"] == "n3", "{node}");
        eventually(PATIENCE, || {
            let running = running(&kubectl)?;
            let elsewhere = running.iter().filter(|(_, node)| node != "n3").count();
            ensure!(elsewhere == REPLICAS, "{running:?}");
            Ok(())
        })?;
        let node = kubectl.json(&["get", "node", "n3"])?;
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let is_unreachable = |taint: &Value| {
            taint["key"] == "node.kubernetes.io/unreachable" && taint["effect"] == "NoExecute"
        };
        ensure!(taints.iter().any(is_unreachable), "{taints:?}");
        Ok(())
    });
    checks.check("it heals when it is back, and its old pods go", || {
        world.machines[1].set_wire(true)?;
        let node = pods::until_node(&kubectl, "n3", "True")?;
        eventually(PATIENCE, || {
            let node = kubectl.json(&["get", "node", "n3"])?;
            let taints = node["spec"]["taints"].to_string();
            ensure!(!taints.contains("unreachable"), "{taints}");
            let names = kubectl.ok(&[
                "get",
                "pods",
                "-l",
                "app=spread",
                "-o",
                "jsonpath={.items[*].metadata.name}",
            ])?;
            ensure!(on_lost.iter().all(|pod| !names.contains(pod)), "{on_lost:?} of {names}");
            Ok(())
        })
        .with_context(|| format!("{}", node["status"]["conditions"]))?;
        // It runs new pods.
        pods::create(&kubectl, "healed", super::web_on("n3", "healed"))?;
        pods::until_ready(&kubectl, "healed").map(drop)
    });
    checks.check("a machine is drained, leaves and comes back", || {
        kubectl.ok(&[
            "drain",
            "n2",
            "--ignore-daemonsets",
            "--force",
            "--delete-emptydir-data",
            "--timeout=120s",
        ])?;
        let left = kubectl.ok(&[
            "get",
            "pods",
            "-A",
            "--field-selector",
            "spec.nodeName=n2",
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ])?;
        ensure!(left.is_empty(), "{left}");
        world.machines[0].stop()?;
        let before = kubectl.ok(&["get", "node", "n2", "-o", "jsonpath={.metadata.uid}"])?;
        kubectl.ok(&["delete", "node", "n2"])?;
        // Neither server nor token: it is a member.
        world.machines[0].start(&[])?;
        let node = pods::until_node(&kubectl, "n2", "True")?;
        ensure!(node["metadata"]["uid"] != before.as_str(), "it is the same node");
        ensure!(node["spec"]["unschedulable"].is_null(), "{}", node["spec"]);
        pods::create(&kubectl, "back-again", super::web_on("n2", "back-again"))?;
        pods::until_ready(&kubectl, "back-again")?;
        kubectl.ok(&["exec", "back-again", "--", "true"]).map(drop)
    });
}

/// Spread over the machines, and soon gone from one that is lost.
fn application() -> Value {
    let tolerations: Vec<Value> = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"]
        .iter()
        .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}))
        .collect();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "spread"},
        "spec": {
            "replicas": REPLICAS, "selector": {"matchLabels": {"app": "spread"}},
            "template": {"metadata": {"labels": {"app": "spread"}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "tolerations": tolerations,
                "topologySpreadConstraints": [{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                    "nodeTaintsPolicy": "Honor", "labelSelector": {"matchLabels": {"app": "spread"}},
                }],
                "containers": [pods::shell("c", "sleep 100000")],
            }},
        },
    })
}

/// Pods of the application that are ready and not going, with their nodes.
fn running(kubectl: &Kubectl) -> anyhow::Result<Vec<(String, String)>> {
    let list = kubectl.json(&["get", "pods", "-l", "app=spread"])?;
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    let running =
        pods.iter().filter(|pod| pods::is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(running.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]))).collect())
}
