//! What is in a container beside its image: environment and volumes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use super::World;
use crate::pods::{self, shell, shell_with};

/// A changed ConfigMap may take a round of its node's.
const UPDATE: Duration = Duration::from_secs(100);

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("ConfigMap and Secret are made", || objects(kubectl));
    checks.check("the environment comes from everywhere", || environment(kubectl));
    checks.check("files come from ConfigMap, Secret, pod and token", || files(kubectl));
    checks.check("a changed ConfigMap is seen in the container", || update(kubectl));
    checks.check("containers share an emptyDir", || shared(kubectl));
    checks.check("a folder of the machine is read and written", || host_path(world));
    checks.check("what is in a claim survives its pod", || claim(kubectl));
}

fn objects(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::make(
        kubectl,
        &[
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "red", "SIZE": "big"}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "stringData": {"key": "s3cret"}}),
        ],
    )
}

fn environment(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = pods::output(
        kubectl,
        "environment",
        json!({"containers": [shell_with("c", "env", json!({
            "env": [
                {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "JOINED", "value": "$(COLOUR)-$(KEY)-$$(KEY)-$(NONE)"},
            ],
            "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "FROM_"}],
            "resources": {"limits": {"memory": "32Mi"}},
        }))]}),
    )?;
    for line in [
        "COLOUR=red",
        "KEY=s3cret",
        "POD=environment",
        "NODE=n1",
        "HOST_IP=192.0.2.1",
        "MEMORY=32",
        "JOINED=red-s3cret-$(KEY)-$(NONE)",
        "FROM_SIZE=big",
        "FROM_colour=red",
        "HOSTNAME=environment",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
    ] {
        ensure!(said.lines().any(|own| own == line), "no {line} in\n{said}");
    }
    Ok(())
}

fn files(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script = "cat /all/colour /all/key /all/labels /all/namespace /one; echo; stat -L -c %a /secret/key; \
                  grep -c -e ' /secret tmpfs ' -e ' /all tmpfs ' -e '/serviceaccount tmpfs ' /proc/mounts; \
                  cut -d . -f 2 /all/token | tr _- /+ | base64 -d 2>/dev/null; echo; \
                  cat /var/run/secrets/kubernetes.io/serviceaccount/namespace";
    let mounts = json!({"volumeMounts": [
        {"name": "all", "mountPath": "/all"},
        {"name": "secret", "mountPath": "/secret", "readOnly": true},
        {"name": "settings", "mountPath": "/one", "subPath": "SIZE"},
    ]});
    let said = pods::output(
        kubectl,
        "files",
        json!({
            "containers": [shell_with("c", script, mounts)],
            "volumes": [
                {"name": "all", "projected": {"sources": [
                    {"configMap": {"name": "settings"}},
                    {"secret": {"name": "secret"}},
                    {"downwardAPI": {"items": [
                        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                    ]}},
                    {"serviceAccountToken": {"path": "token", "audience": "harbour", "expirationSeconds": 600}},
                ]}},
                {"name": "secret", "secret": {"secretName": "secret", "defaultMode": 0o400}},
                {"name": "settings", "configMap": {"name": "settings"}},
            ],
        }),
    )?;
    let (files, rest) = said.split_once('\n').context("one line alone")?;
    ensure!(files == "reds3cretapp=\"files\"defaultbig", "{said}");
    let (mode, rest) = rest.split_once('\n').context("two lines alone")?;
    ensure!(mode == "400", "{said}");
    let (in_memory, rest) = rest.split_once('\n').context("three lines alone")?;
    ensure!(in_memory == "3", "of three volumes with secrets {in_memory} are in memory: {said}");
    for claim in
        ["\"aud\":[\"harbour\"]", "\"sub\":\"system:serviceaccount:default:default\"", "\"name\":\"files\""]
    {
        ensure!(rest.contains(claim), "no {claim} in {rest}");
    }
    // A last line without its end stays without.
    ensure!(rest.ends_with("\ndefault"), "{rest}");
    Ok(())
}

fn update(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "watches",
        json!({
            "containers": [shell_with("c", "sleep 10000", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))],
            "volumes": [{"name": "v", "configMap": {"name": "settings"}}],
        }),
    )?;
    pods::until_ready(kubectl, "watches")?;
    kubectl.ok(&["patch", "configmap", "settings", "-p", r#"{"data":{"colour":"green"}}"#])?;
    eventually(UPDATE, || {
        let said = kubectl.ok(&["exec", "watches", "--", "cat", "/v/colour"])?;
        ensure!(said == "green", "{said}");
        Ok(())
    })
}

fn shared(kubectl: &Kubectl) -> anyhow::Result<()> {
    let mounts = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]});
    pods::create(
        kubectl,
        "shared",
        json!({
            "containers": [
                shell_with("writes", "echo message > /d/.new; mv /d/.new /d/message; grep ' /d ' /proc/mounts", mounts.clone()),
                shell_with("reads", "until [ -f /d/message ]; do sleep 0.1; done; cat /d/message", mounts),
            ],
            "volumes": [{"name": "d", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        }),
    )?;
    pods::until_phase(kubectl, "shared", "Succeeded")?;
    let said = kubectl.ok(&["logs", "shared", "-c", "reads"])?;
    ensure!(said == "message\n", "{said}");
    let mount = kubectl.ok(&["logs", "shared", "-c", "writes"])?;
    ensure!(mount.contains(" tmpfs ") && mount.contains("size=1024k"), "{mount}");
    Ok(())
}

fn host_path(world: &World<'_>) -> anyhow::Result<()> {
    let folder = world.cluster.folder.path().join("host");
    fs::create_dir(&folder)?;
    fs::write(folder.join("question"), "who?\n")?;
    let said = pods::output(
        world.kubectl,
        "host-path",
        json!({
            "containers": [shell_with("c", "cat /host/question; echo me > /host/answer", json!({
                "volumeMounts": [{"name": "host", "mountPath": "/host"}],
            }))],
            "volumes": [{"name": "host", "hostPath": {"path": folder, "type": "Directory"}}],
        }),
    )?;
    ensure!(said == "who?\n", "{said}");
    let answer = fs::read_to_string(folder.join("answer"))?;
    ensure!(answer == "me\n", "{answer}");
    Ok(())
}

fn claim(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::make(
        kubectl,
        &[json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "hold"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        })],
    )?;
    let pod = |name: &str, script: &str| {
        let mut container = shell(name, script);
        container["volumeMounts"] = json!([{"name": "hold", "mountPath": "/hold"}]);
        let volumes = json!([{"name": "hold", "persistentVolumeClaim": {"claimName": "hold"}}]);
        pods::output(kubectl, name, json!({"containers": [container], "volumes": volumes}))
    };
    pod("loads", "echo cargo > /hold/file")?;
    kubectl.ok(&["delete", "pod", "loads"])?;
    let said = pod("unloads", "cat /hold/file")?;
    ensure!(said == "cargo\n", "{said}");
    kubectl.ok(&["delete", "pod/unloads", "pvc/hold"])?;
    eventually(pods::PATIENCE, || {
        let left = kubectl.ok(&["get", "pv", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}
