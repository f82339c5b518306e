//! Parts of volumes, by a name that is given or made from the pod's variables.

use anyhow::ensure;
use interop::{Checks, Kubectl};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, shell_with};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("one file of each kind of volume is mounted, also over a file of the image", || {
        files(kubectl)
    });
    checks.check("a part of a volume is named by the pod's variables", || expanded(kubectl));
    checks.check("a part that would be outside its volume is refused", || refused(kubectl));
    checks.check("a pod whose part has no name yet runs once it has one", || mended(kubectl));
}

fn files(kubectl: &Kubectl) -> anyhow::Result<()> {
    let mounts: Value = json!({"volumeMounts": [
        {"name": "map", "mountPath": "/one/map", "subPath": "mast"},
        {"name": "map", "mountPath": "/etc/passwd", "subPath": "keel"},
        {"name": "secret", "mountPath": "/one/secret", "subPath": "mast"},
        {"name": "pod", "mountPath": "/one/pod", "subPath": "way/name"},
        {"name": "all", "mountPath": "/one/all", "subPath": "way"},
    ]});
    let name = json!({"items": [{"path": "way/name", "fieldRef": {"fieldPath": "metadata.name"}}]});
    let said = pods::output(
        kubectl,
        "parts",
        json!({
            "containers": [shell_with("c", "cat /one/map /etc/passwd /one/secret /one/pod /one/all/name", mounts)],
            "volumes": [
                {"name": "map", "configMap": {"name": "ship"}},
                {"name": "secret", "secret": {"secretName": "ship"}},
                {"name": "pod", "downwardAPI": name},
                {"name": "all", "projected": {"sources": [{"downwardAPI": name}]}},
            ],
        }),
    )?;
    ensure!(said == "talldeeptallpartsparts", "{said}");
    Ok(())
}

fn with_expression(expression: &str, script: &str) -> Value {
    let container = shell_with(
        "c",
        script,
        json!({
            "env": [
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "ROOT", "value": "/tmp"},
                {"name": "UP", "value": ".."},
                {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['part']"}}},
            ],
            "volumeMounts": [
                {"name": "d", "mountPath": "/part", "subPathExpr": expression},
                {"name": "d", "mountPath": "/whole"},
            ],
        }),
    );
    json!({"containers": [container], "volumes": [{"name": "d", "emptyDir": {}}]})
}

fn expanded(kubectl: &Kubectl) -> anyhow::Result<()> {
    let spec =
        with_expression("logs/$(POD)", "echo written > /part/file; cat /whole/logs/*/file; ls /whole/logs");
    let said = pods::output(kubectl, "expanded", spec)?;
    ensure!(said == "written\nexpanded\n", "{said}");
    Ok(())
}

fn refused(kubectl: &Kubectl) -> anyhow::Result<()> {
    for (name, expression) in [("absolute", "$(ROOT)"), ("upwards", "$(UP)/above")] {
        pods::create(kubectl, name, with_expression(expression, "true"))?;
        pods::until(kubectl, name, |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CreateContainerConfigError"
        })?;
    }
    Ok(())
}

fn mended(kubectl: &Kubectl) -> anyhow::Result<()> {
    let spec = with_expression("$(NOTE)", "exec sleep 10000");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "mended", "annotations": {"part": "/absolute"}}, "spec": spec,
    });
    pods::make(kubectl, &[pod])?;
    pods::until(kubectl, "mended", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })?;
    kubectl.ok(&["annotate", "pod", "mended", "part=hold", "--overwrite"])?;
    pods::until_ready(kubectl, "mended")?;
    let said = kubectl.ok(&["exec", "mended", "--", "ls", "/whole"])?;
    ensure!(said == "hold\n", "{said}");
    kubectl.ok(&["delete", "pod", "mended", "--grace-period=1", "--wait=false"]).map(drop)
}
