//! Kubernetes' own Cassandra example: a StatefulSet as people run them, from a manifest that nobody here wrote.

use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;

const PATIENCE: Duration = Duration::from_secs(60);

const ROLLED_OUT: [&str; 4] = ["rollout", "status", "statefulset/cassandra", "--timeout=60s"];

const NAMES: [&str; 3] = ["cassandra-0", "cassandra-1", "cassandra-2"];

pub(super) fn cassandra(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("cassandra: pods start one after the other", || start(kubectl));
    checks.check("cassandra: each has a volume of the manifest's class", || volumes(kubectl).map(drop));
    checks.check("cassandra: a new image reaches the partition first, then all, the highest first", || {
        update(kubectl)
    });
    checks.check("cassandra: who comes back after scaling down has its volume again", || scale(kubectl));
    checks.check("cassandra: claims outlive the set, and their volumes go with them", || remove(kubectl));
}

fn start(kubectl: &Kubectl) -> anyhow::Result<()> {
    let manifests = interop::testdata().context("PINTLE_TESTDATA is unset")?.join("manifests");
    for file in ["cassandra-service.yaml", "cassandra-statefulset.yaml"] {
        kubectl.ok(&["apply", "-f", manifests.join(file).as_str()])?;
    }
    kubectl.ok(&ROLLED_OUT)?;
    let pods = kubectl.json(&["get", "pods"])?;
    let pods = pods["items"].as_array().context("no list")?;
    ensure!(pods.iter().map(|pod| pod["metadata"]["name"].as_str()).eq(NAMES.map(Some)), "{pods:?}");
    for pair in pods.windows(2) {
        // Times are RFC 3339 in UTC, so their texts sort as they do.
        let (ready, made) = (ready_since(&pair[0]), pair[1]["metadata"]["creationTimestamp"].as_str());
        ensure!(ready.is_some() && made >= ready, "ready at {ready:?}, the next made at {made:?}");
    }
    Ok(())
}

fn ready_since(pod: &Value) -> Option<&str> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")?["lastTransitionTime"].as_str()
}

/// The volumes of the claims, in the order of the pods.
fn volumes(kubectl: &Kubectl) -> anyhow::Result<Vec<String>> {
    let volume = |pod: &&str| {
        let claim = kubectl.json(&["get", "pvc", &format!("cassandra-data-{pod}")])?;
        ensure!(claim["status"]["phase"] == "Bound", "{claim}");
        let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
        let volume = kubectl.json(&["get", "pv", name])?;
        ensure!(volume["spec"]["storageClassName"] == "fast", "{volume}");
        ensure!(volume["spec"]["capacity"]["storage"] == "1Gi", "{volume}");
        Ok(name.to_owned())
    };
    NAMES.iter().map(volume).collect()
}

fn update(kubectl: &Kubectl) -> anyhow::Result<()> {
    let partition = |number: u32| {
        let patch = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": number}}}});
        kubectl.ok(&["patch", "statefulset", "cassandra", "--type=merge", "-p", &patch.to_string()])
    };
    let until = |wanted: [&str; 3]| {
        eventually(PATIENCE, || {
            let shown = images(kubectl)?;
            ensure!(shown == wanted, "{shown:?}");
            Ok(())
        })
    };
    partition(2)?;
    kubectl.ok(&[
        "set",
        "image",
        "statefulset/cassandra",
        "cassandra=gcr.io/google-samples/cassandra:v15",
    ])?;
    kubectl.ok(&ROLLED_OUT)?;
    until(["v14", "v14", "v15"])?;
    partition(0)?;
    kubectl.ok(&ROLLED_OUT)?;
    until(["v15", "v15", "v15"])?;
    let pods = kubectl.json(&["get", "pods"])?;
    let made: Vec<&str> =
        (0..2).filter_map(|at| pods["items"][at]["metadata"]["creationTimestamp"].as_str()).collect();
    ensure!(made.len() == 2 && made[1] <= made[0], "the lower one was first: {made:?}");
    Ok(())
}

fn images(kubectl: &Kubectl) -> anyhow::Result<Vec<String>> {
    let shown = kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"])?;
    Ok(shown.split(' ').map(|image| image.rsplit(':').next().unwrap_or_default().to_owned()).collect())
}

fn scale(kubectl: &Kubectl) -> anyhow::Result<()> {
    let before = volumes(kubectl)?;
    let replicas = |count: usize| {
        kubectl.ok(&["scale", "statefulset/cassandra", &format!("--replicas={count}")])?;
        eventually(PATIENCE, || {
            let names = kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"])?;
            ensure!(names.split(' ').eq(NAMES[..count].iter().copied()), "{names}");
            Ok(())
        })
    };
    replicas(1)?;
    ensure!(volumes(kubectl)? == before);
    replicas(3)?;
    kubectl.ok(&ROLLED_OUT)?;
    let after = volumes(kubectl)?;
    ensure!(after == before, "{before:?} and then {after:?}");
    Ok(())
}

fn remove(kubectl: &Kubectl) -> anyhow::Result<()> {
    let volumes = volumes(kubectl)?;
    kubectl.ok(&["delete", "statefulset,service", "cassandra"])?;
    eventually(PATIENCE, || {
        let left = kubectl.ok(&["get", "pods", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })?;
    let claims = kubectl.ok(&["get", "pvc", "-o", "name"])?;
    ensure!(claims.lines().count() == volumes.len(), "{claims}");
    kubectl.ok(&["delete", "pvc", "-l", "app=cassandra"])?;
    for volume in &volumes {
        eventually(PATIENCE, || kubectl.refused(&["get", "pv", volume]).map(drop))?;
    }
    kubectl.ok(&["delete", "storageclass", "fast"]).map(drop)
}
