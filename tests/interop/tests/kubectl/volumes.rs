//! Claims and volumes: made by hand, made for a claim, made for a pod.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn volumes(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("a claim without a class gets a volume of the default one, with its first pod", || {
        provisioned(kubectl)
    });
    checks.check("a volume made by hand is waited for, and decides for the node", || local(kubectl));
    checks.check("a claim takes the smallest volume that was made by hand", || by_hand(kubectl));
    checks.check("a claim of a class that is not there says so", || unknown_class(kubectl));
    checks.check("the class of a manifest is served whoever it names", || any_provisioner(kubectl));
    checks.check("a pod's own claim is made, bound and deleted with it", || ephemeral(kubectl));
}

fn claim(name: &str, class: Option<&str>) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": class}})
}

fn create(kubectl: &Kubectl, manifest: &Value) -> anyhow::Result<()> {
    kubectl.ok_with(&["create", "-f", "-"], &manifest.to_string()).map(drop)
}

/// The name of a claim's volume, once they are bound.
fn volume_of(kubectl: &Kubectl, claim: &str) -> anyhow::Result<String> {
    eventually(PATIENCE, || {
        let own = kubectl.json(&["get", "pvc", claim])?;
        ensure!(own["status"]["phase"] == "Bound", "{}", own["status"]);
        Ok(own["spec"]["volumeName"].as_str().unwrap_or_default().to_owned())
    })
}

fn is_gone(kubectl: &Kubectl, resource: &str, name: &str) -> anyhow::Result<()> {
    eventually(PATIENCE, || kubectl.refused(&["get", resource, name]).map(drop))
}

/// A pod that uses the claim.
fn consumer(name: &str, claim: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "worker"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}})
}

fn provisioned(kubectl: &Kubectl) -> anyhow::Result<()> {
    create(kubectl, &claim("plain", None))?;
    let standard = kubectl.json(&["get", "storageclass", "standard"])?;
    ensure!(standard["volumeBindingMode"] == "WaitForFirstConsumer", "{standard}");
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["describe", "pvc", "plain"])?;
        ensure!(said.contains("waiting for first consumer to be created before binding"), "{said}");
        Ok(())
    })?;
    create(kubectl, &consumer("first", "plain"))?;
    let volume = volume_of(kubectl, "plain")?;
    kubectl.ok(&["wait", "--for=condition=Ready", "--timeout=20s", "pod/first"])?;
    let own = kubectl.json(&["get", "pvc", "plain"])?;
    let pod = kubectl.json(&["get", "pod", "first"])?;
    let selected = &own["metadata"]["annotations"]["volume.kubernetes.io/selected-node"];
    ensure!(*selected == pod["spec"]["nodeName"], "{own}");
    let row = kubectl.ok(&["get", "pv", &volume, "--no-headers"])?;
    let words: Vec<&str> = row.split_whitespace().collect();
    let reference = format!("{}/plain", kubectl.namespace());
    ensure!(words[1..7] == ["1Gi", "RWO", "Delete", "Bound", &reference, "standard"], "{row}");
    kubectl.ok(&["delete", "pod", "first"])?;
    kubectl.ok(&["delete", "pvc", "plain", "--wait=false"])?;
    is_gone(kubectl, "pv", &volume)
}

fn local(kubectl: &Kubectl) -> anyhow::Result<()> {
    let class = format!("{}-local", kubectl.namespace());
    create(
        kubectl,
        &json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}),
    )?;
    create(kubectl, &claim("here", Some(&class)))?;
    create(kubectl, &consumer("local", "here"))?;
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["describe", "pod", "local"])?;
        ensure!(said.contains("node(s) didn't find available persistent volumes to bind"), "{said}");
        Ok(())
    })?;
    let nodes = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"])?;
    let node = nodes.split(' ').next_back().unwrap_or_default();
    let on_node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    create(
        kubectl,
        &json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": class}, "spec": {
        "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "local": {"path": "/data"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}}}}),
    )?;
    ensure!(volume_of(kubectl, "here")? == class);
    kubectl.ok(&["wait", "--for=condition=Ready", "--timeout=20s", "pod/local"])?;
    let pod = kubectl.json(&["get", "pod", "local"])?;
    ensure!(pod["spec"]["nodeName"] == node, "{}", pod["spec"]["nodeName"]);
    kubectl.ok(&["delete", "pod", "local"])?;
    kubectl.ok(&["delete", "pvc", "here"])?;
    kubectl.ok(&["delete", "pv", &class])?;
    kubectl.ok(&["delete", "storageclass", &class]).map(drop)
}

fn by_hand(kubectl: &Kubectl) -> anyhow::Result<()> {
    let names = ["large", "small"].map(|size| format!("{}-{size}", kubectl.namespace()));
    for (name, size) in names.iter().zip(["5Gi", "2Gi"]) {
        create(
            kubectl,
            &json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
            "hostPath": {"path": "/data"}}}),
        )?;
        kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Available", "--timeout=20s", "pv", name])?;
    }
    create(kubectl, &claim("hand-made", Some("by-hand")))?;
    let volume = volume_of(kubectl, "hand-made")?;
    ensure!(volume == names[1], "{volume}");
    let own = kubectl.json(&["get", "pvc", "hand-made"])?;
    ensure!(own["status"]["capacity"]["storage"] == "2Gi", "{}", own["status"]);
    kubectl.ok(&["delete", "pvc", "hand-made"])?;
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Released", "--timeout=20s", "pv", &volume])?;
    kubectl.ok(&["delete", "pv", &names[0], &names[1]]).map(drop)
}

fn unknown_class(kubectl: &Kubectl) -> anyhow::Result<()> {
    create(kubectl, &claim("hopeful", Some("missing")))?;
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["describe", "pvc", "hopeful"])?;
        ensure!(said.contains("storageclass.storage.k8s.io \"missing\" not found"), "{said}");
        Ok(())
    })?;
    kubectl.ok(&["delete", "pvc", "hopeful"]).map(drop)
}

fn any_provisioner(kubectl: &Kubectl) -> anyhow::Result<()> {
    let name = format!("{}-fast", kubectl.namespace());
    create(
        kubectl,
        &json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "k8s.io/minikube-hostpath", "parameters": {"type": "pd-ssd"}}),
    )?;
    create(kubectl, &claim("fast", Some(&name)))?;
    let volume = kubectl.json(&["get", "pv", &volume_of(kubectl, "fast")?])?;
    let by = &volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"];
    ensure!(by == "k8s.io/minikube-hostpath", "{volume}");
    kubectl.ok(&["delete", "pvc", "fast"])?;
    kubectl.ok(&["delete", "storageclass", &name]).map(drop)
}

fn ephemeral(kubectl: &Kubectl) -> anyhow::Result<()> {
    let template = json!({"spec": claim("", None)["spec"]});
    create(
        kubectl,
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": {
        "containers": [{"name": "c", "image": "worker"}],
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}}),
    )?;
    volume_of(kubectl, "worker-scratch")?;
    kubectl.ok(&["delete", "pod", "worker"])?;
    is_gone(kubectl, "pvc", "worker-scratch")
}
