//! Pods with users of their own (`hostUsers: false`): root in them is nobody on the host.

use std::fs;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, IDS, PATIENCE, container, first_id, shell, shell_with};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    if world.has_containerd {
        checks.check("a runtime that cannot give pods their own users is told of", || refused(kubectl));
        return;
    }
    checks.check("users of a pod are nobody else's, and its volumes are its root's", || own_users(world));
    checks.check("what root of a pod may do ends with the pod", || powers(kubectl));
    checks.check("other users and groups of a pod are as asked", || others(kubectl));
    checks.check("volumes that cannot be the pod's are told of", || unfit(kubectl));
}

fn refused(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(kubectl, "own-users", json!({"hostUsers": false, "containers": [shell("c", "true")]}))?;
    pods::event(kubectl, "own-users", "FailedCreatePodSandBox", "runtime does not support user namespaces")
}

fn own_users(world: &World<'_>) -> anyhow::Result<()> {
    let kubectl = world.kubectl;
    let host = world.cluster.folder.path().join("of-root");
    fs::create_dir_all(&host)?;
    fs::write(host.join("file"), "of the host\n")?;
    fs::set_permissions(host.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let objects = [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-users"}, "data": {"k": "map\n"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "of-users"}, "stringData": {"k": "secret\n"}}),
    ];
    pods::make(kubectl, &objects)?;
    let script = "id -u; cat /map/k /secret/k /host/file; touch /empty/own /own /host/new && ping -c 1 127.0.0.1 >/dev/null;
        stat -L -c %u:%g:%a /map/k /secret/k /empty /empty/own /own /etc/hosts /etc/hostname /dev/shm /dev/termination-log;
        exec sleep 10000";
    let mounts: Vec<Value> = ["map", "secret", "empty", "host"]
        .map(|name| json!({"name": name, "mountPath": format!("/{name}")}))
        .into();
    let own = json!({"hostUsers": false, "containers": [shell_with("c", script, json!({"volumeMounts": mounts}))],
        "volumes": [{"name": "map", "configMap": {"name": "of-users"}},
            {"name": "secret", "secret": {"secretName": "of-users", "defaultMode": 0o400}},
            {"name": "empty", "emptyDir": {}}, {"name": "host", "hostPath": {"path": host}}]});
    pods::create(kubectl, "own-users", own)?;
    pods::create(
        kubectl,
        "other-users",
        json!({"hostUsers": false, "containers": [shell("c", "exec sleep 10000")]}),
    )?;
    pods::until_ready(kubectl, "own-users")?;
    pods::until_ready(kubectl, "other-users")?;
    let wanted = "0\nmap\nsecret\nof the host\n0:0:644\n0:0:400\n0:0:777\n0:0:644\n0:0:644\n0:0:644\n0:0:644\n0:0:1777\n0:0:666\n";
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["logs", "own-users"])?;
        ensure!(said == wanted, "{said}");
        Ok(())
    })?;
    let made = fs::metadata(host.join("new"))?;
    ensure!(
        std::os::unix::fs::MetadataExt::uid(&made) == 0,
        "in the host's folder, too, owners are as on the disk"
    );

    let (own, other) = (first_id(kubectl, "own-users")?, first_id(kubectl, "other-users")?);
    ensure!(own.abs_diff(other) >= IDS, "{own} and {other} overlap");
    let containers: Vec<String> = ["own-users", "other-users"]
        .iter()
        .map(|name| Ok(container(&kubectl.json(&["get", "pod", name])?).context("no container")?.to_owned()))
        .collect::<anyhow::Result<_>>()?;
    kubectl.ok(&["delete", "pod", "own-users", "other-users"])?;
    let mounted = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!containers.iter().any(|id| mounted.contains(id.as_str())), "mounts are left: {mounted}");
    pods::create(
        kubectl,
        "next-users",
        json!({"hostUsers": false, "containers": [shell("c", "exec sleep 10000")]}),
    )?;
    pods::until_ready(kubectl, "next-users")?;
    let next = first_id(kubectl, "next-users")?;
    ensure!(
        next == own.min(other),
        "IDs of a pod that is gone are free again: {next}, after {own} and {other}"
    );
    kubectl.ok(&["delete", "pod", "next-users"]).map(drop)
}

fn powers(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script = "hostname inside && hostname; mount -t tmpfs none /tmp && echo mounted; ip link add b0 type bridge && echo link
        cat /proc/sys/kernel/shm_rmid_forced
        cat /proc/sys/kernel/printk > /proc/sys/kernel/printk || echo no parameter
        mknod /tmp/disk b 7 0 || echo no device
        head -c 1 /dev/loop0 || echo no disk";
    let said = pods::output(
        kubectl,
        "powers",
        json!({
            "hostUsers": false,
            "securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]},
            "containers": [shell_with("c", &format!("({script}) 2>/dev/null"), json!({"securityContext": {"privileged": true}}))],
        }),
    )?;
    ensure!(said == "inside\nmounted\nlink\n1\nno parameter\nno device\nno disk\n", "{said}");
    Ok(())
}

fn others(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = pods::output(
        kubectl,
        "others",
        json!({
            "hostUsers": false, "shareProcessNamespace": true,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000},
            "containers": [shell_with("c", "id -u; id -g; id -G; touch /d/own; stat -c %u:%g /d/own; stat -c %u /proc/1", json!({
                "workingDir": "/made/here", "volumeMounts": [{"name": "d", "mountPath": "/d"}],
            }))],
            "volumes": [{"name": "d", "emptyDir": {"medium": "Memory"}}],
        }),
    )?;
    ensure!(said == "1000\n3000\n3000 2000\n1000:2000\n0\n", "{said}");

    let far = json!({"hostUsers": false, "containers": [shell_with("c", "true", json!({"securityContext": {"runAsUser": IDS}}))]});
    pods::create(kubectl, "far-user", far)?;
    pods::event(kubectl, "far-user", "Failed", "user 65536 is none of the pod's own")
}

fn unfit(kubectl: &Kubectl) -> anyhow::Result<()> {
    let spec = json!({
        "hostUsers": false,
        "containers": [shell_with("c", "true", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))],
        "volumes": [{"name": "v", "hostPath": {"path": "/sys/kernel"}}],
    });
    pods::create(kubectl, "unfit", spec)?;
    pods::until(kubectl, "unfit", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerError"
    })?;
    pods::event(kubectl, "unfit", "Failed", "cannot show /sys/kernel with the users of the pod")
}
