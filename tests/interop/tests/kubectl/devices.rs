//! Claims for devices: made from a template, given while there are devices, waiting when there are none, and freed.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;

const PATIENCE: Duration = Duration::from_secs(30);
const DRIVER: &str = "gpu.example.com";

pub(super) fn devices(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("a driver's devices and their class are published", || publish(kubectl));
    checks.check("pods get the claims of a template, and these devices", || allocated(kubectl));
    checks.check("a pod waits while there is no device left, and says so", || pending(kubectl));
    checks.check("the devices of a pod that is gone are given to the next", || freed(kubectl));
    checks.check("pods go when their devices are tainted", || evicted(kubectl));
    checks.check("what is not bound to a namespace is deleted", || clean(kubectl));
}

fn create(kubectl: &Kubectl, manifest: &Value) -> anyhow::Result<()> {
    kubectl.ok_with(&["create", "-f", "-"], &manifest.to_string()).map(drop)
}

/// Names of things outside of namespaces.
fn own_name(kubectl: &Kubectl) -> String {
    format!("{}-gpus", kubectl.namespace())
}

/// A node with two devices, one of them large.
fn publish(kubectl: &Kubectl) -> anyhow::Result<()> {
    let nodes = kubectl.json(&["get", "nodes"])?;
    let node = nodes["items"][0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let name = own_name(kubectl);
    create(
        kubectl,
        &json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": name},
            "spec": {"selectors": [{"cel": {"expression": format!("device.driver == '{DRIVER}'")}}]}}),
    )?;
    let device = |name: &str, memory: &str| {
        json!({"name": name, "attributes": {"model": {"string": name}},
            "capacity": {"memory": {"value": memory}}})
    };
    create(
        kubectl,
        &json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name},
            "spec": {"driver": DRIVER, "nodeName": node,
                "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
                "devices": [device("small", "8Gi"), device("large", "80Gi")]}}),
    )?;
    create(
        kubectl,
        &json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
            "metadata": {"name": "one"},
            "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": name}}]}}}}),
    )
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"uses": "gpu"}}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}],
        "containers": [{"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}}]}})
}

/// The device that the claim of a pod was given, once the pod runs.
fn device_of(kubectl: &Kubectl, pod: &str) -> anyhow::Result<String> {
    eventually(PATIENCE, || {
        let own = kubectl.json(&["get", "pod", pod])?;
        ensure!(own["status"]["phase"] == "Running", "{}", own["status"]);
        let claim = own["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str();
        let claim = kubectl.json(&["get", "resourceclaim", claim.unwrap_or_default()])?;
        let status = &claim["status"];
        ensure!(status["reservedFor"][0]["name"] == pod, "{status}");
        let result = &status["allocation"]["devices"]["results"][0];
        ensure!(result["driver"] == DRIVER && result["request"] == "gpu", "{status}");
        Ok(result["device"].as_str().unwrap_or_default().to_owned())
    })
}

fn allocated(kubectl: &Kubectl) -> anyhow::Result<()> {
    for (name, wanted) in [("first", "small"), ("second", "large")] {
        create(kubectl, &pod(name))?;
        let device = device_of(kubectl, name)?;
        ensure!(device == wanted, "{name} has {device}");
    }
    let rows = kubectl.ok(&["get", "resourceclaims", "--no-headers"])?;
    ensure!(rows.lines().filter(|row| row.contains("allocated,reserved")).count() == 2, "{rows}");
    Ok(())
}

fn pending(kubectl: &Kubectl) -> anyhow::Result<()> {
    create(kubectl, &pod("third"))?;
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["describe", "pod", "third"])?;
        let wanted =
            "0/3 nodes are available: 3 cannot allocate all claims. still not schedulable, preemption:";
        ensure!(said.contains("FailedScheduling") && said.contains(wanted), "{said}");
        Ok(())
    })
}

fn freed(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.ok(&["delete", "pod", "first"])?;
    let device = device_of(kubectl, "third")?;
    ensure!(device == "small", "{device}");
    Ok(())
}

fn evicted(kubectl: &Kubectl) -> anyhow::Result<()> {
    let taint = json!([{"op": "add", "path": "/spec/devices/1/taints",
        "value": [{"key": "broken", "value": "yes", "effect": "NoExecute"}]}]);
    let slice = own_name(kubectl);
    kubectl.ok(&["patch", "resourceslice", &slice, "--type=json", "-p", &taint.to_string()])?;
    eventually(PATIENCE, || kubectl.refused(&["get", "pod", "second"]).map(drop))?;
    kubectl.ok(&["get", "pod", "third"]).map(drop)
}

fn clean(kubectl: &Kubectl) -> anyhow::Result<()> {
    let name = own_name(kubectl);
    kubectl.ok(&["delete", "resourceslice", &name])?;
    kubectl.ok(&["delete", "deviceclass", &name]).map(drop)
}
