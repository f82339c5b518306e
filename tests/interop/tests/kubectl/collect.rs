//! Garbage collection, and the end of a namespace.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use super::World;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn collect(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("background: dependents go after their owner", || {
        deployment(kubectl, "back")?;
        kubectl.ok(&["delete", "deployment", "back", "--cascade=background"])?;
        eventually(PATIENCE, || left(kubectl, "app=back", 0, 0))
    });
    checks.check("orphan: dependents stay and have no owner", || {
        deployment(kubectl, "orphan")?;
        kubectl.ok(&["delete", "deployment", "orphan", "--cascade=orphan"])?;
        left(kubectl, "app=orphan", 1, 2)?;
        let sets = kubectl.json(&["get", "replicasets", "-l", "app=orphan"])?;
        let owners = &sets["items"][0]["metadata"]["ownerReferences"];
        ensure!(owners.is_null(), "{owners}");
        Ok(())
    });
    checks.check("foreground: the owner waits for its dependents", || {
        deployment(kubectl, "front")?;
        // A finalizer keeps one pod, so that the waiting can be seen.
        let pod = kubectl.ok(&["get", "pods", "-l", "app=front", "-o", "name"])?;
        let pod = pod.lines().next().unwrap_or_default().to_owned();
        kubectl.ok(&[
            "patch",
            &pod,
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":["example.com/hold"]}}"#,
        ])?;
        kubectl.ok(&["delete", "deployment", "front", "--cascade=foreground", "--wait=false"])?;
        eventually(PATIENCE, || left(kubectl, "app=front", 1, 1))?;
        let deployment = kubectl.json(&["get", "deployment", "front"])?;
        let finalizers = &deployment["metadata"]["finalizers"];
        ensure!(finalizers == &json!(["foregroundDeletion"]), "{finalizers}");
        kubectl.ok(&["patch", &pod, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#])?;
        kubectl.ok(&["wait", "--for=delete", "deployment/front", "--timeout=60s"])?;
        left(kubectl, "app=front", 0, 0)
    });
    checks.check("an owner that never was takes its dependent along", || {
        let manifest = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "lonely", "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "5e9f5a4e-0000-4000-8000-000000000000",
            }]},
        });
        kubectl.ok_with(&["create", "-f", "-"], &manifest.to_string())?;
        kubectl.ok(&["wait", "--for=delete", "configmap/lonely", "--timeout=60s"]).map(drop)
    });
    namespaces(kubectl, checks);
}

fn namespaces(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("a finalizer blocks a namespace, which says so", || {
        kubectl.ok(&["create", "namespace", "blocked"])?;
        let blocked = kubectl.within("blocked");
        blocked.ok(&["create", "configmap", "plain"])?;
        blocked.ok(&["create", "configmap", "held"])?;
        blocked.ok(&[
            "patch",
            "configmap",
            "held",
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":["example.com/hold"]}}"#,
        ])?;
        kubectl.ok(&["delete", "namespace", "blocked", "--wait=false"])?;
        eventually(PATIENCE, || {
            let namespace = kubectl.json(&["get", "namespace", "blocked"])?;
            ensure!(namespace["status"]["phase"] == "Terminating", "{}", namespace["status"]);
            let said = namespace["status"]["conditions"].to_string();
            ensure!(
                said.contains("NamespaceFinalizersRemaining")
                    && said.contains("example.com/hold in 1 resource instances"),
                "{said}"
            );
            ensure!(said.contains("configmaps. has 1 resource instances"), "{said}");
            Ok(())
        })
    });
    checks.check("nothing can be created in a namespace that is going", || {
        let said = kubectl.within("blocked").refused(&["create", "configmap", "late"])?;
        ensure!(said.contains("because it is being terminated"), "{said}");
        Ok(())
    });
    checks.check("the namespace goes when what blocked it is gone", || {
        let blocked = kubectl.within("blocked");
        blocked.ok(&[
            "patch",
            "configmap",
            "held",
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":null}}"#,
        ])?;
        kubectl.ok(&["wait", "--for=delete", "namespace/blocked", "--timeout=60s"]).map(drop)
    });
}

/// A Deployment with two pods that run.
fn deployment(kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
    kubectl.ok(&["create", "deployment", name, "--image=registry.example/web:1", "--replicas=2"])?;
    kubectl.ok(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]).map(drop)
}

fn left(kubectl: &Kubectl, selector: &str, sets: usize, pods: usize) -> anyhow::Result<()> {
    let count = |kind: &str| {
        kubectl.ok(&["get", kind, "-l", selector, "-o", "name"]).map(|said| said.lines().count())
    };
    let found = (count("replicasets")?, count("pods")?);
    ensure!(
        found == (sets, pods),
        "{} replica sets and {} pods are left instead of {sets} and {pods}",
        found.0,
        found.1
    );
    Ok(())
}
