//! Users, groups, privileges and kernel parameters of a container.

use anyhow::ensure;
use interop::{Checks, Kubectl};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, shell_with};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("a container has the user and group of its own, else of its pod", || users(kubectl));
    checks.check("a container that is not privileged has fewer capabilities, and no new ones", || {
        privileges(kubectl)
    });
    checks.check("a root may be written unless it is read-only", || roots(kubectl));
    checks.check("kernel parameters are set where they are the pod's own, and others are refused", || {
        sysctls(kubectl)
    });
}

fn said(kubectl: &Kubectl, name: &str, script: &str, pod: Value, container: Value) -> anyhow::Result<String> {
    let container = shell_with("c", script, json!({"securityContext": container}));
    pods::output(kubectl, name, json!({"securityContext": pod, "containers": [container]}))
}

fn users(kubectl: &Kubectl) -> anyhow::Result<()> {
    let pod = json!({"runAsUser": 1001, "runAsGroup": 2002});
    let script = "id -u; id -g";
    for (name, pod, container, wanted) in [
        ("user-nobody", json!({}), json!({"runAsUser": 65534}), "65534\n0\n"),
        ("user-root", json!({}), json!({"runAsUser": 0}), "0\n0\n"),
        ("user-of-pod", pod.clone(), json!({}), "1001\n2002\n"),
        ("user-of-container", pod, json!({"runAsUser": 1003, "runAsGroup": 2004}), "1003\n2004\n"),
    ] {
        let said = said(kubectl, name, script, pod, container)?;
        ensure!(said == wanted, "{name}: {said}");
    }
    Ok(())
}

fn privileges(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script = "ip link add dummy9 type dummy 2>/dev/null && echo added; grep NoNewPrivs /proc/self/status";
    let said_of = |name: &str, context: Value| said(kubectl, name, script, json!({}), context);
    let plain = said_of("unprivileged", json!({"privileged": false}))?;
    ensure!(plain == "NoNewPrivs:\t0\n", "{plain}");
    let closed = said_of("no-escalation", json!({"allowPrivilegeEscalation": false, "runAsUser": 1000}))?;
    ensure!(closed == "NoNewPrivs:\t1\n", "{closed}");
    Ok(())
}

fn roots(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script = "touch /new 2>/dev/null && echo written; true";
    let open = said(kubectl, "root-open", script, json!({}), json!({"readOnlyRootFilesystem": false}))?;
    ensure!(open == "written\n", "{open}");
    let closed = said(kubectl, "root-closed", script, json!({}), json!({"readOnlyRootFilesystem": true}))?;
    ensure!(closed.is_empty(), "{closed}");
    Ok(())
}

fn sysctls(kubectl: &Kubectl) -> anyhow::Result<()> {
    let with = |name: &str, value: &str| json!({"sysctls": [{"name": name, "value": value}]});
    let script = "cat /proc/sys/kernel/shm_rmid_forced";
    let said = said(kubectl, "sysctl", script, with("kernel.shm_rmid_forced", "1"), json!({}))?;
    ensure!(said == "1\n", "{said}");
    let pod = |sysctl: &str| {
        let spec = json!({"securityContext": with(sysctl, "1"), "containers": [pods::shell("c", "true")]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wrong-sysctl"}, "spec": spec})
            .to_string()
    };
    for wrong in ["foo-", "bar..", "/etc/passwd "] {
        let output = kubectl.run_with(&["create", "-f", "-"], &pod(wrong), &[])?;
        let complaint = "spec.securityContext.sysctls[0].name: Invalid value";
        ensure!(output.stderr.contains(complaint), "{wrong}: {output:?}");
    }
    // A name like any other, which is not among those that are a pod's own.
    kubectl.ok_with(&["create", "-f", "-"], &pod("kernel.msgmax"))?;
    let refused = pods::until_phase(kubectl, "wrong-sysctl", "Failed")?;
    ensure!(refused["status"]["reason"] == "SysctlForbidden", "{}", refused["status"]);
    Ok(())
}
