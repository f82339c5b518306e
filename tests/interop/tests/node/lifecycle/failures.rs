//! What a pod that cannot start says about it.

use anyhow::ensure;
use interop::{Checks, Kubectl};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, IMAGE, shell_with};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("an image that cannot be pulled", || pull(kubectl));
    checks.check("an image that may not be pulled", || never_pull(kubectl));
    checks.check("an image with a bad name", || bad_name(kubectl));
    checks.check("a ConfigMap, a key and a Secret that are missing", || configuration(kubectl));
    checks.check("a program that is missing", || program(kubectl));
    checks.check("a volume that is missing", || volume(kubectl));
}

/// The reason and message why the container of a pod waits, once this is the reason.
fn waits(kubectl: &Kubectl, name: &str, reason: &str) -> anyhow::Result<String> {
    let state = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let pod = pods::until(kubectl, name, |pod| state(pod)["reason"] == reason)?;
    Ok(state(&pod)["message"].as_str().unwrap_or_default().to_owned())
}

fn pull(kubectl: &Kubectl) -> anyhow::Result<()> {
    let image = "127.0.0.1:1/none:1";
    pods::create(kubectl, "no-image", json!({"containers": [{"name": "c", "image": image}]}))?;
    pods::event(kubectl, "no-image", "Failed", &format!("Failed to pull image \"{image}\": "))?;
    pods::event(kubectl, "no-image", "Failed", "Error: ErrImagePull")?;
    pods::event(kubectl, "no-image", "Failed", "Error: ImagePullBackOff")?;
    let message = waits(kubectl, "no-image", "ImagePullBackOff")?;
    ensure!(message.starts_with(&format!("Back-off pulling image \"{image}\"")), "{message}");
    ensure!(message.contains("refused"), "{message}");
    kubectl.ok(&["delete", "pod", "no-image"]).map(drop)
}

fn never_pull(kubectl: &Kubectl) -> anyhow::Result<()> {
    let container = json!({"name": "c", "image": "test.pintle.dev/none:1", "imagePullPolicy": "Never"});
    pods::create(kubectl, "never", json!({"containers": [container]}))?;
    let message = waits(kubectl, "never", "ErrImageNeverPull")?;
    let told = "Container image \"test.pintle.dev/none:1\" is not present with pull policy of Never";
    ensure!(message == told, "{message}");
    pods::event(kubectl, "never", "ErrImageNeverPull", told)
}

fn bad_name(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(kubectl, "bad-name", json!({"containers": [{"name": "c", "image": "Busybox"}]}))?;
    let message = waits(kubectl, "bad-name", "InvalidImageName")?;
    ensure!(message.starts_with("Failed to apply default image tag \"Busybox\": "), "{message}");
    pods::event(kubectl, "bad-name", "InspectFailed", &message)
}

fn configuration(kubectl: &Kubectl) -> anyhow::Result<()> {
    let from = |source: Value| shell_with("c", "true", json!({"env": [{"name": "A", "valueFrom": source}]}));
    pods::make(kubectl, &[json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "empty"}})])?;
    for (name, source, told) in [
        ("no-map", json!({"configMapKeyRef": {"name": "none", "key": "k"}}), "configmap \"none\" not found"),
        ("no-secret", json!({"secretKeyRef": {"name": "none", "key": "k"}}), "secret \"none\" not found"),
        (
            "no-key",
            json!({"configMapKeyRef": {"name": "empty", "key": "k"}}),
            "couldn't find key k in ConfigMap default/empty",
        ),
    ] {
        pods::create(kubectl, name, json!({"containers": [from(source)]}))?;
        let message = waits(kubectl, name, "CreateContainerConfigError")?;
        ensure!(message == told, "{name}: {message}");
        pods::event(kubectl, name, "Failed", &format!("Error: {told}"))?;
    }
    Ok(())
}

fn program(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "no-program",
        json!({"containers": [{"name": "c", "image": IMAGE, "command": ["/none"]}]}),
    )?;
    let ended = pods::until_ended(kubectl, "no-program")?;
    ensure!(ended["reason"] == "StartError" && ended["exitCode"] == 128, "{ended}");
    let message = ended["message"].as_str().unwrap_or_default();
    ensure!(message.contains("/none") && message.contains("no such file or directory"), "{message}");
    pods::until_phase(kubectl, "no-program", "Failed")?;
    pods::event(kubectl, "no-program", "Failed", "/none")
}

fn volume(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "no-volume",
        json!({
            "containers": [shell_with("c", "true", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))],
            "volumes": [{"name": "v", "configMap": {"name": "none"}}],
        }),
    )?;
    pods::event(
        kubectl,
        "no-volume",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found",
    )?;
    // What was missing comes, and the pod with it.
    kubectl.ok(&["create", "configmap", "none"])?;
    pods::until_phase(kubectl, "no-volume", "Succeeded").map(drop)
}
