//! As whom a container runs, what it may, and which namespaces it shares.

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use super::World;
use crate::pods::{self, IMAGE, PATIENCE, shell, shell_with};
use crate::world::ADDRESS;

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("users and groups are as asked", || identity(kubectl));
    checks.check("a root user is refused where none may be", || no_root(kubectl));
    checks.check("capabilities, privileges and calls are limited", || limits(kubectl));
    checks.check("a privileged container has every capability of its node", || privileged(kubectl));
    checks.check("a root that is read-only stays as it is", || read_only(kubectl));
    checks.check("the network of the node is shared where asked for", || host_network(kubectl));
    checks.check("containers see one another's processes where asked for", || processes(kubectl));
    checks.check("a container for debugging joins a running pod", || ephemeral(kubectl));
}

fn identity(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = pods::output(
        kubectl,
        "identity",
        json!({
            "securityContext": {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "supplementalGroups": [4000]},
            "containers": [shell_with("c", "id -u; id -g; id -G; touch /d/own; stat -c %g /d/own", json!({
                "volumeMounts": [{"name": "d", "mountPath": "/d"}],
            }))],
            "volumes": [{"name": "d", "emptyDir": {}}],
        }),
    )?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == 4 && lines[..2] == ["1000", "3000"] && lines[3] == "2000", "{said}");
    let mut groups: Vec<&str> = lines[2].split(' ').collect();
    groups.sort_unstable();
    ensure!(groups == ["2000", "3000", "4000"], "{said}");
    Ok(())
}

fn no_root(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "no-root",
        json!({
            "securityContext": {"runAsNonRoot": true}, "containers": [shell("c", "true")],
        }),
    )?;
    let pod = pods::until(kubectl, "no-root", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })?;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    let message = message.as_str().unwrap_or_default();
    ensure!(message.starts_with("container has runAsNonRoot and image will run as root"), "{message}");
    Ok(())
}

fn limits(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = pods::output(
        kubectl,
        "limits",
        json!({"containers": [shell_with("c", "cat /proc/self/status", json!({
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }))]}),
    )?;
    for (field, value) in [
        ("CapEff", "0000000000000400"),
        ("CapBnd", "0000000000000400"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        ensure!(
            said.lines().any(|line| line == format!("{field}:\t{value}")),
            "{field} is not {value} in\n{said}"
        );
    }
    Ok(())
}

fn privileged(kubectl: &Kubectl) -> anyhow::Result<()> {
    let own = crate::world::run("grep", &["CapBnd", "/proc/self/status"])?;
    let said = pods::output(
        kubectl,
        "privileged",
        json!({"containers": [shell_with(
            "c", "grep -E '^(CapBnd|CapEff|Seccomp):' /proc/self/status", json!({"securityContext": {"privileged": true}}),
        )]}),
    )?;
    let all = own.trim().trim_start_matches("CapBnd:\t");
    ensure!(said == format!("CapEff:\t{all}\nCapBnd:\t{all}\nSeccomp:\t0\n"), "{said} and not {all}");
    Ok(())
}

fn read_only(kubectl: &Kubectl) -> anyhow::Result<()> {
    let said = pods::output(
        kubectl,
        "read-only",
        json!({
            "containers": [shell_with("c", "touch /file 2>&1 || touch /d/file && ls /d", json!({
                "securityContext": {"readOnlyRootFilesystem": true},
                "volumeMounts": [{"name": "d", "mountPath": "/d"}],
            }))],
            "volumes": [{"name": "d", "emptyDir": {}}],
        }),
    )?;
    ensure!(said == "touch: /file: Read-only file system\nfile\n", "{said}");
    Ok(())
}

fn host_network(kubectl: &Kubectl) -> anyhow::Result<()> {
    let spec = json!({"hostNetwork": true, "containers": [shell("c", "ip -o -4 addr show up0")]});
    let said = pods::output(kubectl, "host-network", spec)?;
    ensure!(said.contains(ADDRESS), "{said}");
    let address = kubectl.ok(&["get", "pod", "host-network", "-o", "jsonpath={.status.podIP}"])?;
    ensure!(address == ADDRESS, "{address}");
    Ok(())
}

fn processes(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "processes",
        json!({
            "shareProcessNamespace": true,
            "containers": [shell("one", "exec sleep 4321"), shell("other", "exec sleep 1234")],
        }),
    )?;
    pods::until_ready(kubectl, "processes")?;
    let said = kubectl.ok(&["exec", "processes", "-c", "other", "--", "ps", "-o", "pid,args"])?;
    ensure!(said.contains("sleep 4321") && said.contains("sleep 1234"), "{said}");
    ensure!(
        !said.lines().any(|line| line.trim().starts_with("1 sleep")),
        "a container is the first process: {said}"
    );
    Ok(())
}

fn ephemeral(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(kubectl, "debugged", json!({"containers": [shell("c", "exec sleep 5555")]}))?;
    pods::until_ready(kubectl, "debugged")?;
    let image = format!("--image={IMAGE}");
    kubectl.ok(&["debug", "debugged", &image, "--container=look", "--target=c", "--", "ps", "-o", "args"])?;
    eventually(PATIENCE, || {
        let said = kubectl.ok(&["logs", "debugged", "-c", "look"])?;
        ensure!(said.contains("sleep 5555"), "{said}");
        Ok(())
    })
}
