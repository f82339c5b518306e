//! The order of containers, their restarts, their hooks and their ends.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::json;

use super::World;
use crate::pods::{self, PATIENCE, shell, shell_with};

pub fn run(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    checks.check("init containers run in order, a sidecar is up before the next", || order(kubectl));
    checks.check("a sidecar does not keep a pod from its end", || sidecar_ends(kubectl));
    checks.check("a container that fails is restarted, later and later", || back_off(kubectl));
    checks.check("a container that succeeds is not restarted on failure only", || on_failure(kubectl));
    checks.check("exit code and last message are told", || last_message(kubectl));
    checks.check("the end of the log is the last message where that is asked for", || last_log(kubectl));
    checks.check("a container that takes too much memory is OOMKilled", || too_much_memory(kubectl));
    checks.check("hooks run after the start and before the end, and SIGTERM follows", || hooks(world));
    checks.check("who ignores SIGTERM is killed after the grace period", || grace(kubectl));
    checks.check("a pod ends at its deadline", || deadline(kubectl));
    checks.check("a Job runs to its completions", || job_completes(kubectl));
    checks.check("a Job gives up after its back-off limit", || job_fails(kubectl));
}

fn order(kubectl: &Kubectl) -> anyhow::Result<()> {
    let mounts = json!({"volumeMounts": [{"name": "log", "mountPath": "/log"}]});
    let sidecar = shell_with(
        "side",
        "sleep 1; echo side >> /log/order; sleep 10000",
        json!({
            "restartPolicy": "Always",
            "startupProbe": {"exec": {"command": ["grep", "side", "/log/order"]}, "periodSeconds": 1, "failureThreshold": 30},
            "volumeMounts": mounts["volumeMounts"],
        }),
    );
    pods::create(
        kubectl,
        "order",
        json!({
            "initContainers": [
                shell_with("first", "sleep 1; echo first >> /log/order", mounts.clone()),
                sidecar,
                shell_with("last", "echo last >> /log/order", mounts.clone()),
            ],
            "containers": [shell_with("c", "cat /log/order; sleep 10000", mounts)],
            "volumes": [{"name": "log", "emptyDir": {}}],
        }),
    )?;
    let pod = pods::until_ready(kubectl, "order")?;
    let said = kubectl.ok(&["logs", "order", "-c", "c"])?;
    ensure!(said == "first\nside\nlast\n", "{said}");
    let inits = &pod["status"]["initContainerStatuses"];
    ensure!(
        inits[0]["state"]["terminated"]["reason"] == "Completed" && inits[1]["started"] == true,
        "{inits}"
    );
    Ok(())
}

fn sidecar_ends(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "over",
        json!({
            "initContainers": [shell_with("side", "sleep 10000", json!({"restartPolicy": "Always"}))],
            "containers": [shell("c", "true")],
        }),
    )?;
    pods::until_phase(kubectl, "over", "Succeeded").map(drop)
}

fn back_off(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(kubectl, "fails", json!({"restartPolicy": "Always", "containers": [shell("c", "exit 3")]}))?;
    let of = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0].clone();
    let pod = pods::until(kubectl, "fails", |pod| {
        of(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && of(pod)["restartCount"].as_u64() >= Some(1)
    })?;
    let status = of(&pod);
    ensure!(status["lastState"]["terminated"]["exitCode"] == 3, "{status}");
    let message = status["state"]["waiting"]["message"].as_str().unwrap_or_default();
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let told = message.starts_with("back-off ")
        && message.ends_with(&format!(" restarting failed container=c pod=fails_default({uid})"));
    ensure!(told, "{message}");
    pods::event(kubectl, "fails", "BackOff", "Back-off restarting failed container c in pod fails_default(")?;
    kubectl.ok(&["delete", "pod", "fails"]).map(drop)
}

fn on_failure(kubectl: &Kubectl) -> anyhow::Result<()> {
    let script = "[ -f /d/failed ] && exit 0; touch /d/failed; exit 1";
    pods::create(
        kubectl,
        "once",
        json!({
            "restartPolicy": "OnFailure",
            "containers": [shell_with("c", script, json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}]}))],
            "volumes": [{"name": "d", "emptyDir": {}}],
        }),
    )?;
    let pod = pods::until_phase(kubectl, "once", "Succeeded")?;
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 1, "{}", pod["status"]);
    Ok(())
}

fn last_message(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "bye",
        json!({"containers": [shell("c", "echo -n bye > /dev/termination-log; exit 7")]}),
    )?;
    let ended = pods::until_ended(kubectl, "bye")?;
    ensure!(ended["exitCode"] == 7 && ended["reason"] == "Error" && ended["message"] == "bye", "{ended}");
    pods::until_phase(kubectl, "bye", "Failed").map(drop)
}

fn last_log(kubectl: &Kubectl) -> anyhow::Result<()> {
    let policy = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    pods::create(
        kubectl,
        "words",
        json!({"containers": [shell_with("c", "echo last words; exit 1", policy)]}),
    )?;
    let ended = pods::until_ended(kubectl, "words")?;
    ensure!(ended["message"] == "last words\n", "{ended}");
    Ok(())
}

fn too_much_memory(kubectl: &Kubectl) -> anyhow::Result<()> {
    let eats = json!({
        "name": "c", "image": pods::IMAGE,
        "command": ["awk", "BEGIN { s = \"0123456789abcdef\"; while (1) s = s s }"],
        "resources": {"limits": {"memory": "24Mi"}},
    });
    pods::create(kubectl, "eats", json!({"containers": [eats]}))?;
    let ended = pods::until_ended(kubectl, "eats")?;
    ensure!(ended["reason"] == "OOMKilled" && ended["exitCode"] == 137, "{ended}");
    Ok(())
}

fn hooks(world: &World<'_>) -> anyhow::Result<()> {
    let kubectl = world.kubectl;
    let seen = world.cluster.folder.path().join("hooks");
    fs::create_dir(&seen)?;
    let script = "trap 'echo term >> /seen/log; exit 0' TERM; while :; do sleep 0.1; done";
    let write = |word: &str| json!({"exec": {"command": ["sh", "-c", format!("echo {word} >> /seen/log")]}});
    pods::create(
        kubectl,
        "hooks",
        json!({
            "terminationGracePeriodSeconds": 20,
            "containers": [shell_with("c", script, json!({
                "lifecycle": {"postStart": write("started"), "preStop": write("stopping")},
                "volumeMounts": [{"name": "seen", "mountPath": "/seen"}],
            }))],
            "volumes": [{"name": "seen", "hostPath": {"path": seen, "type": "Directory"}}],
        }),
    )?;
    pods::until_ready(kubectl, "hooks")?;
    let said = fs::read_to_string(seen.join("log"))?;
    ensure!(said == "started\n", "{said}");
    kubectl.ok(&["delete", "pod", "hooks", "--timeout=15s"])?;
    let said = fs::read_to_string(seen.join("log"))?;
    ensure!(said == "started\nstopping\nterm\n", "{said}");
    Ok(())
}

fn grace(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "stubborn",
        json!({
            "terminationGracePeriodSeconds": 3,
            "containers": [shell("c", "trap '' TERM; while :; do sleep 0.1; done")],
        }),
    )?;
    pods::until_ready(kubectl, "stubborn")?;
    let asked = Instant::now();
    kubectl.ok(&["delete", "pod", "stubborn"])?;
    // The time of a deletion is told in whole seconds.
    let took = asked.elapsed();
    ensure!(took >= Duration::from_secs(2) && took < Duration::from_secs(12), "it took {took:?}");
    Ok(())
}

fn deadline(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::create(
        kubectl,
        "deadline",
        json!({"activeDeadlineSeconds": 2, "containers": [shell("c", "sleep 10000")]}),
    )?;
    let pod = pods::until_phase(kubectl, "deadline", "Failed")?;
    ensure!(pod["status"]["reason"] == "DeadlineExceeded", "{}", pod["status"]);
    Ok(())
}

fn job(name: &str, script: &str, fields: serde_json::Value) -> serde_json::Value {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [shell("c", script)]}});
    let mut job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": fields});
    job["spec"]["template"] = template;
    job
}

fn job_completes(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::make(kubectl, &[job("works", "echo done", json!({"completions": 3, "parallelism": 2}))])?;
    kubectl.ok(&["wait", "--for=condition=complete", "job/works", "--timeout=60s"])?;
    let said = kubectl.ok(&["logs", "-l", "batch.kubernetes.io/job-name=works"])?;
    ensure!(said == "done\ndone\ndone\n", "{said}");
    Ok(())
}

fn job_fails(kubectl: &Kubectl) -> anyhow::Result<()> {
    pods::make(kubectl, &[job("fails", "exit 1", json!({"backoffLimit": 0}))])?;
    eventually(PATIENCE, || {
        let job = kubectl.json(&["get", "job", "fails"])?;
        let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let has_failed =
            conditions.iter().any(|one| one["type"] == "Failed" && one["reason"] == "BackoffLimitExceeded");
        ensure!(has_failed, "{}", job["status"]);
        Ok(())
    })
}
