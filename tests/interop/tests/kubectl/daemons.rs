//! DaemonSets: a pod on every node, updates node by node, and their history.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use super::{SIM_NODES, World};

const PATIENCE: Duration = Duration::from_secs(60);

const ROLLED_OUT: [&str; 4] = ["rollout", "status", "daemonset/agent", "--timeout=60s"];

pub(super) fn daemons(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    let every_node = || SIM_NODES as usize;
    let until = |count: usize, image: &str| {
        eventually(PATIENCE, || {
            let pods = pods(kubectl)?;
            let mut nodes: Vec<&str> = pods.iter().map(|(node, _)| node.as_str()).collect();
            nodes.sort_unstable();
            nodes.dedup();
            ensure!(nodes.len() == count && pods.len() == count, "{pods:?}");
            ensure!(pods.iter().all(|(_, own)| own.ends_with(image)), "{pods:?}");
            Ok(())
        })
    };
    checks.check("every node gets a pod", || {
        kubectl.ok_with(&["apply", "-f", "-"], &manifest().to_string())?;
        let said = kubectl.ok(&ROLLED_OUT)?;
        ensure!(said.contains("successfully rolled out"), "{said}");
        until(every_node(), "agent:1")
    });
    checks.check("describe shows its nodes and what the controller did", || {
        let said = kubectl.ok(&["describe", "daemonset", "agent"])?;
        let desired = format!("Desired Number of Nodes Scheduled: {SIM_NODES}");
        for wanted in [desired.as_str(), "SuccessfulCreate", "Created pod: agent-"] {
            ensure!(said.contains(wanted), "{wanted:?} is not in\n{said}");
        }
        Ok(())
    });
    checks.check("a new image rolls out", || {
        kubectl.ok(&["set", "image", "daemonset/agent", "c=registry.example/agent:2"])?;
        kubectl.ok(&ROLLED_OUT)?;
        until(every_node(), "agent:2")
    });
    checks.check("the history has both revisions, and undo goes back", || {
        let history = kubectl.ok(&["rollout", "history", "daemonset/agent"])?;
        let revisions: Vec<_> =
            history.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok()).collect();
        ensure!(revisions == [1, 2], "{history}");
        kubectl.ok(&["rollout", "undo", "daemonset/agent"])?;
        kubectl.ok(&ROLLED_OUT)?;
        until(every_node(), "agent:1")
    });
    checks.check("rollout restart replaces every pod", || {
        let uids = || kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"]);
        let before = uids()?;
        kubectl.ok(&["rollout", "restart", "daemonset/agent"])?;
        kubectl.ok(&ROLLED_OUT)?;
        eventually(PATIENCE, || {
            let after = uids()?;
            ensure!(before.split(' ').all(|uid| !after.contains(uid)), "{before} and then {after}");
            Ok(())
        })
    });
    checks.check("cordoned nodes keep their pods, tainted ones lose them", || {
        kubectl.ok(&["cordon", "sim-node-0"])?;
        kubectl.ok(&["taint", "node", "sim-node-1", "mine=yes:NoExecute"])?;
        until(every_node() - 1, "agent:1")?;
        kubectl.ok(&["taint", "node", "sim-node-1", "mine-"])?;
        kubectl.ok(&["uncordon", "sim-node-0"])?;
        until(every_node(), "agent:1")
    });
    checks.check("its pods and its history go with it", || {
        kubectl.ok(&["delete", "daemonset", "agent"])?;
        eventually(PATIENCE, || {
            let left = kubectl.ok(&["get", "pods,controllerrevisions", "-o", "name"])?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(())
        })
    });
}

/// Node and image of every pod that stays.
fn pods(kubectl: &Kubectl) -> anyhow::Result<Vec<(String, String)>> {
    let pods = kubectl.json(&["get", "pods"])?;
    let staying = pods["items"].as_array().into_iter().flatten();
    let staying = staying.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(staying
        .map(|pod| (text(&pod["spec"]["nodeName"]), text(&pod["spec"]["containers"][0]["image"])))
        .collect())
}

fn manifest() -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": "registry.example/agent:1"}]},
            },
        },
    })
}
