//! StatefulSets: order, names and claims, rollouts and their history.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;

const PATIENCE: Duration = Duration::from_secs(60);

const ROLLED_OUT: [&str; 4] = ["rollout", "status", "statefulset/db", "--timeout=60s"];

pub(super) fn stateful(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("pods come up by name, each with its claim", || {
        kubectl.ok_with(&["apply", "-f", "-"], &manifest().to_string())?;
        kubectl.ok(&ROLLED_OUT)?;
        ensure!(images(kubectl)? == ["db-0 1", "db-1 1", "db-2 1"], "{:?}", images(kubectl)?);
        let claims = kubectl.ok(&["get", "persistentvolumeclaims", "-o", "name"])?;
        let claims: Vec<&str> = claims.lines().collect();
        let wanted =
            ["data-db-0", "data-db-1", "data-db-2"].map(|name| format!("persistentvolumeclaim/{name}"));
        ensure!(claims == wanted, "{claims:?}");
        Ok(())
    });
    checks.check("describe shows what the controller did", || {
        let said = kubectl.ok(&["describe", "statefulset", "db"])?;
        for wanted in
            ["3 Running / 0 Waiting / 0 Succeeded / 0 Failed", "SuccessfulCreate", "db-2 in StatefulSet db"]
        {
            ensure!(said.contains(wanted), "{wanted:?} is not in\n{said}");
        }
        Ok(())
    });
    checks.check("a pod deleted by hand comes back under its name", || {
        let uid = || kubectl.ok(&["get", "pod", "db-1", "-o", "jsonpath={.metadata.uid}"]);
        let before = uid()?;
        // Old kubectls wait until no pod has the name, and miss the moment in which none has.
        kubectl.ok(&["delete", "pod", "db-1", "--wait=false"])?;
        eventually(PATIENCE, || {
            ensure!(uid()? != before, "it is the same pod");
            Ok(())
        })?;
        kubectl.ok(&ROLLED_OUT).map(drop)
    });
    rollouts(kubectl, checks);
    checks.check("it scales down from the highest and keeps its claims", || {
        kubectl.ok(&["scale", "statefulset/db", "--replicas=1"])?;
        eventually(PATIENCE, || {
            let images = images(kubectl)?;
            ensure!(images.len() == 1 && images[0].starts_with("db-0"), "{images:?}");
            Ok(())
        })?;
        let claims = kubectl.json(&["get", "persistentvolumeclaims"])?;
        ensure!(claims["items"].as_array().is_some_and(|items| items.len() == 3), "{claims}");
        Ok(())
    });
    checks.check("its pods and its history go with it", || {
        kubectl.ok(&["delete", "statefulset", "db"])?;
        eventually(PATIENCE, || {
            let left = kubectl.ok(&["get", "pods,controllerrevisions", "-o", "name"])?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(())
        })
    });
}

fn rollouts(kubectl: &Kubectl, checks: &mut Checks) {
    let until = |wanted: [&str; 3]| {
        eventually(PATIENCE, || {
            let images = images(kubectl)?;
            ensure!(images == wanted, "{images:?}");
            Ok(())
        })
    };
    let partition = |number: u32| {
        let patch = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": number}}}});
        kubectl.ok(&["patch", "statefulset", "db", "--type=merge", "-p", &patch.to_string()]).map(drop)
    };
    checks.check("a new image rolls out down to the partition, and then to the rest", || {
        partition(2)?;
        kubectl.ok(&["set", "image", "statefulset/db", "c=registry.example/db:2"])?;
        let said = kubectl.ok(&ROLLED_OUT)?;
        ensure!(said.contains("partitioned roll out complete: 1 new pods have been updated"), "{said}");
        until(["db-0 1", "db-1 1", "db-2 2"])?;
        partition(0)?;
        let said = kubectl.ok(&ROLLED_OUT)?;
        ensure!(said.contains("rolling update complete") || said.contains("roll out complete"), "{said}");
        until(["db-0 2", "db-1 2", "db-2 2"])
    });
    checks.check("the history has both revisions and what each of them is", || {
        let history = kubectl.ok(&["rollout", "history", "statefulset/db"])?;
        let revisions: Vec<_> =
            history.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok()).collect();
        ensure!(revisions == [1, 2], "{history}");
        let first = kubectl.ok(&["rollout", "history", "statefulset/db", "--revision=1"])?;
        ensure!(first.contains("registry.example/db:1"), "{first}");
        Ok(())
    });
    checks.check("rollout undo goes back", || {
        kubectl.ok(&["rollout", "undo", "statefulset/db"])?;
        until(["db-0 1", "db-1 1", "db-2 1"])?;
        kubectl.ok(&ROLLED_OUT).map(drop)
    });
    checks.check("rollout restart replaces every pod", || {
        let uids = || kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"]);
        let before = uids()?;
        kubectl.ok(&["rollout", "restart", "statefulset/db"])?;
        kubectl.ok(&ROLLED_OUT)?;
        let after = uids()?;
        ensure!(before.split(' ').all(|uid| !after.contains(uid)), "{before} and then {after}");
        Ok(())
    });
}

/// `name version` of every pod that stays.
fn images(kubectl: &Kubectl) -> anyhow::Result<Vec<String>> {
    let pods = kubectl.json(&["get", "pods"])?;
    let staying = pods["items"].as_array().into_iter().flatten();
    let staying = staying.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(staying.map(shown).collect())
}

fn shown(pod: &Value) -> String {
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let version = image.rsplit(':').next().unwrap_or_default();
    format!("{} {version}", pod["metadata"]["name"].as_str().unwrap_or_default())
}

fn manifest() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {
            "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "registry.example/db:1",
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    })
}
