//! How pods go on and end: init containers, exit codes, restart policies, last words, hooks, generations.

use std::fs;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;
use crate::pods::{self, PATIENCE, shell, shell_with};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks
        .check("init containers end before the others begin, whatever the restart policy", || init(kubectl));
    checks.check("an init container that fails keeps the others from their start", || init_fails(kubectl));
    checks.check("how a container ends is what its pod becomes, by the restart policy", || exits(kubectl));
    checks.check("a pod whose container always fails says why and can be deleted", || fails(kubectl));
    checks.check("the last message is of the file, or of the log where that failed", || last_words(kubectl));
    checks.check("hooks ask another pod over HTTP after the start and before the end", || http_hooks(world));
    checks.check("the deadline of a running pod may be brought forward", || deadline(kubectl));
    checks.check("a running pod's labels and QoS class are told", || told(kubectl));
    checks.check("each change of a pod's specification is a generation, which its status follows", || {
        generations(kubectl)
    });
}

fn has_condition(pod: &Value, kind: &str, status: &str) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == kind && one["status"] == status))
}

fn init(kubectl: &Kubectl) -> anyhow::Result<()> {
    let containers = |last: &str| {
        json!({
            "initContainers": [shell("first", "true"), shell("second", "true")],
            "containers": [shell("c", last)],
        })
    };
    pods::create(kubectl, "init-never", containers("true"))?;
    let pod = pods::until_phase(kubectl, "init-never", "Succeeded")?;
    ensure!(has_condition(&pod, "Initialized", "True"), "{}", pod["status"]);
    let mut always = containers("sleep 10000");
    always["restartPolicy"] = "Always".into();
    pods::create(kubectl, "init-always", always)?;
    let pod = pods::until_ready(kubectl, "init-always")?;
    ensure!(has_condition(&pod, "Initialized", "True"), "{}", pod["status"]);
    let inits = pod["status"]["initContainerStatuses"].as_array().context("none")?;
    ensure!(
        inits.iter().all(|one| one["ready"] == true && one["state"]["terminated"]["exitCode"] == 0),
        "{inits:?}"
    );
    Ok(())
}

fn init_fails(kubectl: &Kubectl) -> anyhow::Result<()> {
    let containers = |policy: &str| {
        json!({
            "restartPolicy": policy,
            "initContainers": [shell("first", "false"), shell("second", "true")],
            "containers": [shell("c", "true")],
        })
    };
    let is_untouched = |pod: &Value| {
        let own = &pod["status"]["containerStatuses"][0];
        own["state"]["waiting"]["reason"] == "PodInitializing" && own["restartCount"] == 0
    };
    pods::create(kubectl, "init-fails", containers("Never"))?;
    let pod = pods::until_phase(kubectl, "init-fails", "Failed")?;
    ensure!(has_condition(&pod, "Initialized", "False"), "{}", pod["status"]);
    ensure!(pod["status"]["initContainerStatuses"][1]["state"]["waiting"].is_object(), "{}", pod["status"]);
    pods::create(kubectl, "init-goes-on", containers("Always"))?;
    let pod = pods::until(kubectl, "init-goes-on", |pod| {
        pod["status"]["initContainerStatuses"][0]["restartCount"].as_u64() >= Some(2)
    })?;
    ensure!(pod["status"]["phase"] == "Pending" && is_untouched(&pod), "{}", pod["status"]);
    kubectl.ok(&["delete", "pod", "init-goes-on", "--wait=false"]).map(drop)
}

fn exits(kubectl: &Kubectl) -> anyhow::Result<()> {
    for (name, policy, script, phase, restarts, is_ready) in [
        (
            "exit-always",
            "Always",
            "[ -f /d/twice ] && exec sleep 10000; [ -f /d/once ] && touch /d/twice; touch /d/once; false",
            "Running",
            2,
            true,
        ),
        (
            "exit-on-failure",
            "OnFailure",
            "[ -f /d/once ] && exit 0; touch /d/once; false",
            "Succeeded",
            1,
            false,
        ),
        ("exit-never", "Never", "exit 4", "Failed", 0, false),
    ] {
        let mounts = json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]});
        pods::create(
            kubectl,
            name,
            json!({
                "restartPolicy": policy, "containers": [shell_with("c", script, mounts)],
                "volumes": [{"name": "d", "emptyDir": {}}],
            }),
        )?;
        let pod = pods::until(kubectl, name, |pod| {
            let own = &pod["status"]["containerStatuses"][0];
            pod["status"]["phase"] == phase && own["restartCount"] == restarts && own["ready"] == is_ready
        })?;
        let own = &pod["status"]["containerStatuses"][0];
        let state = if is_ready { "running" } else { "terminated" };
        ensure!(own["state"][state].is_object(), "{name}: {own}");
    }
    Ok(())
}

fn fails(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "always-fails",
        json!({"restartPolicy": "Always", "containers": [shell("c", "exit 1")]}),
    )?;
    pods::until(kubectl, "always-fails", |pod| {
        let own = &pod["status"]["containerStatuses"][0];
        own["state"]["terminated"]["reason"] == "Error" || own["lastState"]["terminated"]["reason"] == "Error"
    })?;
    kubectl.ok(&["delete", "pod", "always-fails"]).map(drop)
}

fn last_words(kubectl: &Kubectl) -> anyhow::Result<()> {
    let fallback = "FallbackToLogsOnError";
    for (name, user, path, script, wanted) in [
        ("words-of-log", 0, "/dev/termination-log", "echo -n DONE; exit 1", "DONE"),
        ("words-of-nobody", 0, "/dev/termination-log", "echo DONE", ""),
        ("words-of-file", 0, "/dev/termination-log", "echo -n OK > /dev/termination-log", "OK"),
        ("words-of-user", 1000, "/dev/own-log", "echo -n DONE > /dev/own-log", "DONE"),
    ] {
        let fields = json!({"terminationMessagePolicy": fallback, "terminationMessagePath": path});
        let spec =
            json!({"securityContext": {"runAsUser": user}, "containers": [shell_with("c", script, fields)]});
        pods::create(kubectl, name, spec)?;
        let ended = pods::until_ended(kubectl, name)?;
        let said = ended["message"].as_str().unwrap_or_default();
        ensure!(said.trim_end() == wanted, "{name}: {ended}");
    }
    Ok(())
}

fn http_hooks(world: &World<'_>) -> anyhow::Result<()> {
    let kubectl = world.kubectl;
    let seen = world.cluster.folder.path().join("asked");
    fs::create_dir(&seen)?;
    let script = "mkdir -p /page/cgi-bin; for hook in start stop; do \
                  printf '#!/bin/sh\\necho Content-Type: text/plain; echo; echo ok; touch /seen/%s\\n' $hook > /page/cgi-bin/$hook; \
                  chmod +x /page/cgi-bin/$hook; done; exec httpd -f -p 8080 -h /page";
    pods::create(
        kubectl,
        "asked",
        json!({
            "containers": [shell_with("c", script, json!({
                "volumeMounts": [{"name": "seen", "mountPath": "/seen"}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            }))],
            "volumes": [{"name": "seen", "hostPath": {"path": seen, "type": "Directory"}}],
        }),
    )?;
    let pod = pods::until_ready(kubectl, "asked")?;
    let ask = |hook: &str| json!({"httpGet": {"host": pod["status"]["podIP"], "port": 8080, "path": format!("/cgi-bin/{hook}")}});
    let hooks = json!({"lifecycle": {"postStart": ask("start"), "preStop": ask("stop")}});
    pods::create(kubectl, "asks", json!({"containers": [shell_with("c", "exec sleep 10000", hooks)]}))?;
    pods::until_ready(kubectl, "asks")?;
    ensure!(seen.join("start").exists() && !seen.join("stop").exists(), "asked too early or too late");
    kubectl.ok(&["delete", "pod", "asks"])?;
    ensure!(seen.join("stop").exists(), "not asked before the end");
    kubectl.ok(&["delete", "pod", "asked", "--wait=false"]).map(drop)
}

fn deadline(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(kubectl, "later", json!({"containers": [shell("c", "sleep 10000")]}))?;
    pods::until_ready(kubectl, "later")?;
    kubectl.ok(&["patch", "pod", "later", "-p", r#"{"spec": {"activeDeadlineSeconds": 1}}"#])?;
    let pod = pods::until_phase(kubectl, "later", "Failed")?;
    ensure!(pod["status"]["reason"] == "DeadlineExceeded", "{}", pod["status"]);
    Ok(())
}

fn told(kubectl: &Kubectl) -> anyhow::Result<()> {
    let same = json!({"cpu": "50m", "memory": "16Mi"});
    let resources = json!({"resources": {"limits": same, "requests": same}});
    pods::create(kubectl, "told", json!({"containers": [shell_with("c", "exec sleep 10000", resources)]}))?;
    let pod = pods::until_ready(kubectl, "told")?;
    ensure!(
        pod["status"]["qosClass"] == "Guaranteed" && pod["status"]["hostIP"].is_string(),
        "{}",
        pod["status"]
    );
    kubectl.ok(&["label", "pod", "told", "time=now"])?;
    let found = kubectl.ok(&["get", "pods", "-l", "time=now", "-o", "name"])?;
    ensure!(found == "pod/told\n", "{found}");
    kubectl.ok(&["delete", "pod", "told"])?;
    let left = kubectl.ok(&["get", "pods", "-l", "time=now", "-o", "name"])?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

fn generations(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(kubectl, "grows", json!({"containers": [shell("c", "sleep 10000")]}))?;
    let follows = |generation: u64| {
        eventually(PATIENCE, || {
            let pod = kubectl.json(&["get", "pod", "grows"])?;
            let (own, seen) = (&pod["metadata"]["generation"], &pod["status"]["observedGeneration"]);
            ensure!(*own == generation && *seen == generation, "{own}, {seen} and not {generation}");
            Ok(())
        })
    };
    pods::until_ready(kubectl, "grows")?;
    let begun = kubectl.json(&["get", "pod", "grows"])?["metadata"]["generation"]
        .as_u64()
        .context("no generation")?;
    kubectl.ok(&["label", "pod", "grows", "no=change"])?;
    for step in 1..=5 {
        let seconds = 1_000 - step;
        let patch = json!({"spec": {"activeDeadlineSeconds": seconds}}).to_string();
        kubectl.ok(&["patch", "pod", "grows", "-p", &patch])?;
        if step == 1 {
            follows(begun + 1)?;
        }
    }
    follows(begun + 5)?;
    kubectl.ok(&["delete", "pod", "grows", "--wait=false"])?;
    Ok(())
}
