//! An application under a rolling node failure: one node falls silent, another is deleted; pods move, and Services
//! follow.

use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::{Inputs, SIM_NODES};

/// A node is given up 50 s after its last sign of life, pods of a deleted one 40 s after it went.
const PATIENCE: Duration = Duration::from_secs(120);
/// The nodes that fail, made by hand as KWOK's users do.
const SILENT: &str = "worker-silent";
const DELETED: &str = "worker-deleted";
const DEPLOYMENTS: usize = 12;

pub(super) fn node_failure(inputs: &Inputs, checks: &mut Checks) {
    let cluster = match inputs.cluster("boutique") {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("the server starts", || Err(error)),
    };
    let kubectl = &cluster.kubectl;
    checks.check("the application runs on the nodes that will fail", || {
        sim_nodes(kubectl, "cordon")?;
        for name in [SILENT, DELETED] {
            kubectl.ok_with(&["create", "-f", "-"], &node(name).to_string())?;
        }
        kubectl.ok(&["apply", "-f", inputs.boutique.as_str()])?;
        leave_failed_nodes_at_once(kubectl)?;
        eventually(PATIENCE, || {
            let nodes = nodes_of_pods(kubectl)?;
            let on = |name: &str| nodes.iter().filter(|node| *node == name).count();
            ensure!(on(SILENT) > 0 && on(DELETED) > 0, "{nodes:?}");
            all_available(kubectl)
        })?;
        sim_nodes(kubectl, "uncordon")
    });
    checks.check(
        "a node that falls silent becomes unknown, is tainted, and its pods are replaced elsewhere",
        || {
            kubectl.ok(&["annotate", "node", SILENT, "kwok.x-k8s.io/node-"])?;
            eventually(PATIENCE, || {
                let node = kubectl.json(&["get", "node", SILENT])?;
                let ready = condition(&node, "Ready").context("no Ready condition")?;
                ensure!(ready["status"] == "Unknown" && ready["reason"] == "NodeStatusUnknown", "{ready}");
                let taints = node["spec"]["taints"].to_string();
                let effects = ["NoSchedule", "NoExecute"]
                    .map(|effect| format!(r#""effect":"{effect}","key":"node.kubernetes.io/unreachable""#));
                ensure!(effects.iter().all(|own| taints.contains(own.as_str())), "{taints}");
                moved_away(kubectl, SILENT)
            })
        },
    );
    checks.check("when it is back, its taints go and what was left of its pods", || {
        kubectl.ok(&["annotate", "node", SILENT, "kwok.x-k8s.io/node=fake"])?;
        eventually(PATIENCE, || {
            let node = kubectl.json(&["get", "node", SILENT])?;
            ensure!(
                condition(&node, "Ready").is_some_and(|own| own["status"] == "True"),
                "{}",
                node["status"]
            );
            ensure!(node["spec"]["taints"].is_null(), "{}", node["spec"]);
            let pods = kubectl.json(&["get", "pods"])?;
            let going = items(&pods).filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).count();
            ensure!(going == 0, "{going} pods are still going");
            Ok(())
        })
    });
    checks.check("the pods of a deleted node are replaced elsewhere, and collected", || {
        kubectl.ok(&["delete", "node", DELETED])?;
        eventually(PATIENCE, || {
            moved_away(kubectl, DELETED)?;
            let pods = kubectl.json(&["get", "pods"])?;
            let left = items(&pods).filter(|pod| pod["spec"]["nodeName"] == DELETED).count();
            ensure!(left == 0, "{left} pods are still on it");
            Ok(())
        })
    });
    checks.check("the server stops when asked to", || cluster.server.stop());
}

fn sim_nodes(kubectl: &Kubectl, command: &str) -> anyhow::Result<()> {
    (0..SIM_NODES).try_for_each(|at| kubectl.ok(&[command, &format!("sim-node-{at}")]).map(drop))
}

/// A node that is simulated because it says so.
fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"},
            "capacity": {"cpu": "32", "memory": "256Gi", "pods": "110"}},
    })
}

/// Pods tolerate failed nodes for five minutes unless they say otherwise.
fn leave_failed_nodes_at_once(kubectl: &Kubectl) -> anyhow::Result<()> {
    let tolerations: Vec<Value> = ["unreachable", "not-ready"]
        .map(|taint| {
            json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 0})
        })
        .into();
    let patch = json!({"spec": {"template": {"spec": {"tolerations": tolerations}}}}).to_string();
    for name in kubectl.ok(&["get", "deployments", "-o", "name"])?.lines() {
        kubectl.ok(&["patch", name, "--type=merge", "-p", &patch])?;
    }
    Ok(())
}

/// Every Deployment is whole without the node, and every Service leads to living pods on other nodes.
fn moved_away(kubectl: &Kubectl, failed: &str) -> anyhow::Result<()> {
    let nodes = nodes_of_pods(kubectl)?;
    ensure!(nodes.len() == DEPLOYMENTS && nodes.iter().all(|node| node != failed), "{nodes:?}");
    all_available(kubectl)?;
    let slices = kubectl.json(&["get", "endpointslices"])?;
    ensure!(items(&slices).count() == DEPLOYMENTS, "{} slices", items(&slices).count());
    for slice in items(&slices) {
        let endpoints: Vec<&Value> = slice["endpoints"].as_array().into_iter().flatten().collect();
        let ready: Vec<_> = endpoints.iter().filter(|own| own["conditions"]["ready"] == true).collect();
        ensure!(
            ready.len() == 1 && ready[0]["nodeName"] != failed,
            "{}: {endpoints:?}",
            slice["metadata"]["name"]
        );
    }
    Ok(())
}

fn all_available(kubectl: &Kubectl) -> anyhow::Result<()> {
    let deployments = kubectl.json(&["get", "deployments"])?;
    let is_whole = |deployment: &&Value| {
        let status = &deployment["status"];
        let counts = ["replicas", "updatedReplicas", "availableReplicas"];
        status["observedGeneration"] == deployment["metadata"]["generation"]
            && counts.iter().all(|count| status[*count] == deployment["spec"]["replicas"])
    };
    let whole = items(&deployments).filter(is_whole).count();
    ensure!(whole == DEPLOYMENTS, "{whole} of {DEPLOYMENTS} Deployments are whole");
    Ok(())
}

/// The node of each pod that stays.
fn nodes_of_pods(kubectl: &Kubectl) -> anyhow::Result<Vec<String>> {
    let pods = kubectl.json(&["get", "pods"])?;
    let staying = items(&pods).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(staying.map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()).collect())
}

fn condition<'a>(object: &'a Value, wanted: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|own| own["type"] == wanted)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}
