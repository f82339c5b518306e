//! What takes pods away or keeps them out: drain with budgets, taints, preemption, quota.

use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::{Inputs, SIM_NODES};

const PATIENCE: Duration = Duration::from_secs(60);
/// What a simulated node has.
const NODE_CPUS: u32 = 32;

pub(super) fn disruption(inputs: &Inputs, checks: &mut Checks) {
    let cluster = match inputs.cluster("disruption") {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("the server starts", || Err(error)),
    };
    drain(&cluster.kubectl, checks);
    taints(&cluster.kubectl, checks);
    preemption(&cluster.kubectl, checks);
    quota(&cluster.kubectl, checks);
    checks.check("the server stops when asked to", || cluster.server.stop());
}

fn apply(kubectl: &Kubectl, manifest: &Value) -> anyhow::Result<()> {
    kubectl.ok_with(&["apply", "-f", "-"], &manifest.to_string()).map(drop)
}

/// A Deployment whose pods ask for so many processors.
fn deployment(name: &str, replicas: u32, cpu: &str, more: Value) -> Value {
    let mut pod = json!({"containers": [{"name": "c", "image": "registry.example/web:1",
        "resources": {"requests": {"cpu": cpu}}}]});
    if let (Value::Object(pod), Value::Object(more)) = (&mut pod, more) {
        pod.extend(more);
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod}}})
}

fn rolled_out(kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
    kubectl.ok(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]).map(drop)
}

/// Waits until that many pods of an application stay, and returns their nodes.
fn nodes_of(kubectl: &Kubectl, app: &str, wanted: usize) -> anyhow::Result<Vec<String>> {
    let selector = format!("app={app}");
    eventually(PATIENCE, || {
        let pods = kubectl.json(&["get", "pods", "-l", &selector])?;
        let staying = items(&pods).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let nodes: Vec<String> =
            staying.filter_map(|pod| pod["spec"]["nodeName"].as_str()).map(str::to_owned).collect();
        ensure!(nodes.len() == wanted, "{app} is on {nodes:?}");
        Ok(nodes)
    })
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

// === Drain ===

const DRAIN: [&str; 4] = ["drain", "sim-node-1", "--ignore-daemonsets", "--delete-emptydir-data"];

fn drain(kubectl: &Kubectl, checks: &mut Checks) {
    let budget = |least: u32| {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
            "spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "web"}}}})
    };
    checks.check("a budget says how many disruptions it allows", || {
        let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "web"}}}]});
        apply(kubectl, &deployment("web", 2 * SIM_NODES, "100m", spread))?;
        apply(kubectl, &budget(2 * SIM_NODES))?;
        rolled_out(kubectl, "web")?;
        let nodes = nodes_of(kubectl, "web", 6)?;
        ensure!(nodes.iter().filter(|node| *node == "sim-node-1").count() == 2, "{nodes:?}");
        eventually(PATIENCE, || {
            let status = kubectl.json(&["get", "poddisruptionbudget", "web"])?["status"].clone();
            let counts = ["expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed"];
            let found = counts.map(|count| status[count].as_u64());
            ensure!(found == [Some(6), Some(6), Some(6), Some(0)], "{status}");
            let conditions = status["conditions"].to_string();
            ensure!(conditions.contains("InsufficientPods"), "{conditions}");
            Ok(())
        })
    });
    checks.check("a budget that allows none holds up a drain, which says why", || {
        let mut arguments = DRAIN.to_vec();
        arguments.push("--timeout=1s");
        let said = kubectl.refused(&arguments)?;
        ensure!(said.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{said}");
        let nodes = nodes_of(kubectl, "web", 6)?;
        ensure!(nodes.iter().filter(|node| *node == "sim-node-1").count() == 2, "{nodes:?}");
        Ok(())
    });
    checks.check("with one allowed, it goes on one by one and the pods move", || {
        apply(kubectl, &budget(2 * SIM_NODES - 1))?;
        kubectl.ok(&DRAIN)?;
        rolled_out(kubectl, "web")?;
        let nodes = nodes_of(kubectl, "web", 6)?;
        ensure!(!nodes.iter().any(|node| node == "sim-node-1"), "{nodes:?}");
        let node = kubectl.json(&["get", "node", "sim-node-1"])?;
        let taint = r#"{"effect":"NoSchedule","key":"node.kubernetes.io/unschedulable""#;
        ensure!(node["spec"]["taints"].to_string().contains(taint), "{}", node["spec"]);
        kubectl.ok(&["uncordon", "sim-node-1"]).map(drop)
    });
    checks.check("the budget and its pods go", || {
        kubectl.ok(&["delete", "deployment/web", "poddisruptionbudget/web"])?;
        nodes_of(kubectl, "web", 0).map(drop)
    });
}

// === Taints ===

fn taints(kubectl: &Kubectl, checks: &mut Checks) {
    let tolerant = |name: &str, more: Value| {
        let mut toleration = json!({"key": "mine", "operator": "Exists", "effect": "NoExecute"});
        if let (Value::Object(toleration), Value::Object(more)) = (&mut toleration, more) {
            toleration.extend(more);
        }
        let node = json!({"kubernetes.io/hostname": "sim-node-2"});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "tainted"}},
            "spec": {"nodeSelector": node, "tolerations": [toleration], "containers": [{"name": "c", "image": "i"}]}})
    };
    let gone = |name: &str| kubectl.ok(&["wait", "--for=delete", name, "--timeout=60s"]).map(drop);
    checks.check(
        "a NoExecute taint takes pods that do not tolerate it, at once or when their time is up",
        || {
            apply(kubectl, &tolerant("stays", json!({})))?;
            apply(kubectl, &tolerant("leaves", json!({"key": "other"})))?;
            apply(kubectl, &tolerant("lingers", json!({"tolerationSeconds": 2})))?;
            nodes_of(kubectl, "tainted", 3)?;
            kubectl.ok(&["taint", "node", "sim-node-2", "mine=yes:NoExecute"])?;
            gone("pod/leaves")?;
            let still =
                kubectl.ok(&["get", "pod", "stays", "-o", "jsonpath={.metadata.deletionTimestamp}"])?;
            ensure!(still.is_empty(), "the pod that tolerates the taint is deleted at {still}");
            gone("pod/lingers")?;
            eventually(PATIENCE, || {
                let events = kubectl.ok(&["get", "events", "-o", "custom-columns=R:.reason,M:.message"])?;
                let evicted = "Marking for deletion Pod disruption/leaves";
                ensure!(events.contains("TaintManagerEviction") && events.contains(evicted), "{events}");
                Ok(())
            })
        },
    );
    checks.check("a NoSchedule taint keeps new pods out and lets old ones be", || {
        kubectl.ok(&["taint", "node", "sim-node-2", "mine-", "new=no:NoSchedule"])?;
        let late = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late"}, "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "sim-node-2"}, "containers": [{"name": "c", "image": "i"}]}});
        apply(kubectl, &late)?;
        eventually(PATIENCE, || {
            let pod = kubectl.json(&["get", "pod", "late"])?;
            let scheduled = &pod["status"]["conditions"][0];
            let why = scheduled["message"].as_str().unwrap_or_default();
            ensure!(scheduled["reason"] == "Unschedulable" && why.contains("1 node(s) had untolerated taint"), "{pod}");
            Ok(())
        })?;
        nodes_of(kubectl, "tainted", 1)?;
        kubectl.ok(&["taint", "node", "sim-node-2", "new-"])?;
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/late", "--timeout=60s"])?;
        kubectl.ok(&["delete", "pod", "late", "stays"]).map(drop)
    });
}

// === Preemption ===

fn preemption(kubectl: &Kubectl, checks: &mut Checks) {
    let class = |name: &str, value: i64| json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
    let of_class = |name: &str, replicas: u32, cpus: u32| {
        deployment(name, replicas, &cpus.to_string(), json!({"priorityClassName": name}))
    };
    checks.check("a pod of higher priority gets the room of the fewest of lower ones, and says so", || {
        apply(kubectl, &class("low", 1))?;
        apply(kubectl, &class("high", 1000))?;
        // Each node is full of three.
        apply(kubectl, &of_class("low", 3 * SIM_NODES, NODE_CPUS / 3))?;
        rolled_out(kubectl, "low")?;
        apply(kubectl, &of_class("high", 1, NODE_CPUS / 3))?;
        rolled_out(kubectl, "high")?;
        nodes_of(kubectl, "low", 3 * SIM_NODES as usize - 1)?;
        let selector = "involvedObject.kind=Pod,reason=Preempted";
        eventually(PATIENCE, || {
            let events = kubectl.json(&["get", "events", "--field-selector", selector])?;
            let said: Vec<&str> = items(&events).filter_map(|own| own["message"].as_str()).collect();
            ensure!(said.len() == 1 && said[0].starts_with("Preempted by pod "), "{said:?}");
            Ok(())
        })
    });
    checks.check("the preempted pod's successor waits, and runs when there is room again", || {
        eventually(PATIENCE, || {
            let pods = kubectl.json(&["get", "pods", "-l", "app=low"])?;
            let pending: Vec<&Value> =
                items(&pods).filter(|pod| pod["status"]["phase"] == "Pending").collect();
            ensure!(pending.len() == 1, "{} are pending", pending.len());
            let why = pending[0]["status"]["conditions"][0]["message"].as_str().context("no message")?;
            ensure!(why.contains("0/3 nodes are available: 3 Insufficient cpu."), "{why}");
            Ok(())
        })?;
        kubectl.ok(&["delete", "deployment", "high"])?;
        rolled_out(kubectl, "low")
    });
    checks.check("a critical pod of the system is let in, too", || {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "critical", "namespace": "kube-system"},
            "spec": {"priorityClassName": "system-cluster-critical", "containers": [{"name": "c", "image": "i",
                "resources": {"requests": {"cpu": "20"}}}]}});
        let system = kubectl.within("kube-system");
        apply(&system, &pod)?;
        system.ok(&["wait", "--for=condition=Ready", "pod/critical", "--timeout=60s"])?;
        nodes_of(kubectl, "low", 3 * SIM_NODES as usize - 2)?;
        system.ok(&["delete", "pod", "critical"])?;
        kubectl.ok(&["delete", "deployment", "low"]).map(drop)
    });
}

// === Quota ===

fn quota(kubectl: &Kubectl, checks: &mut Checks) {
    let limited = kubectl.within("limited");
    let hard = |pods: u32| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
            "spec": {"hard": {"pods": pods.to_string(), "requests.cpu": "2"}}})
    };
    let used = |wanted: [&str; 2]| {
        eventually(PATIENCE, || {
            let used = limited.json(&["get", "resourcequota", "few"])?["status"]["used"].clone();
            ensure!(used == json!({"pods": wanted[0], "requests.cpu": wanted[1]}), "{used}");
            Ok(())
        })
    };
    checks.check("a Deployment beyond its quota says what holds it", || {
        kubectl.ok(&["create", "namespace", "limited"])?;
        apply(&limited, &hard(2))?;
        used(["0", "0"])?;
        apply(&limited, &deployment("web", 3, "500m", json!({})))?;
        limited.ok(&["wait", "--for=condition=ReplicaFailure", "deployment/web", "--timeout=60s"])?;
        used(["2", "1"])?;
        let deployment = limited.json(&["get", "deployment", "web"])?;
        let conditions = deployment["status"]["conditions"].to_string();
        let why = "exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2";
        ensure!(conditions.contains("FailedCreate") && conditions.contains(why), "{conditions}");
        Ok(())
    });
    checks.check("it goes on when the quota is raised", || {
        apply(&limited, &hard(4))?;
        rolled_out(&limited, "web")?;
        used(["3", "1500m"])?;
        eventually(PATIENCE, || {
            let conditions = limited.json(&["get", "deployment", "web"])?["status"]["conditions"].to_string();
            ensure!(!conditions.contains("ReplicaFailure"), "{conditions}");
            Ok(())
        })
    });
    checks.check("what goes is given back, and a pod without a request is refused", || {
        limited.ok(&["scale", "deployment/web", "--replicas=0"])?;
        used(["0", "0"])?;
        let said = limited.refused(&["run", "bare", "--image=registry.example/web:1"])?;
        ensure!(said.contains("failed quota: few: must specify requests.cpu for: bare"), "{said}");
        Ok(())
    });
}
