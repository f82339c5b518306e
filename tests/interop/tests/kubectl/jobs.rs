//! Jobs, which simulated nodes bring to a good end, CronJobs, and ReplicationControllers.

use std::time::Duration;

use anyhow::ensure;
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::World;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn jobs(world: &World<'_>, checks: &mut Checks) {
    let kubectl = world.kubectl;
    running(kubectl, checks);
    scheduled(kubectl, checks);
    replicated(kubectl, checks);
}

fn manifest(name: &str, spec: Value) -> String {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}},
    });
    if let (Value::Object(whole), Value::Object(fields)) = (&mut job["spec"], spec) {
        whole.extend(fields);
    }
    job.to_string()
}

fn completes(kubectl: &Kubectl, job: &str) -> anyhow::Result<Value> {
    let job = format!("job/{job}");
    kubectl.ok(&["wait", "--for=condition=complete", &job, "--timeout=60s"])?;
    kubectl.json(&["get", &job])
}

fn running(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("a Job completes, and its pods are counted", || {
        kubectl.ok(&["create", "job", "hello", "--image=busybox", "--", "echo", "hello"])?;
        let job = completes(kubectl, "hello")?;
        let status = &job["status"];
        ensure!(status["succeeded"] == 1 && status["uncountedTerminatedPods"] == json!({}), "{status}");
        let pods = kubectl.json(&["get", "pods", "-l", "batch.kubernetes.io/job-name=hello"])?;
        let pod = &pods["items"][0];
        ensure!(pod["status"]["phase"] == "Succeeded" && pod["metadata"]["finalizers"].is_null(), "{pod}");
        eventually(PATIENCE, || {
            let described = kubectl.ok(&["describe", "job", "hello"])?;
            ensure!(described.contains("Job completed"), "{described}");
            Ok(())
        })
    });
    checks.check("an indexed Job runs a pod for each index", || {
        let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 2});
        kubectl.ok_with(&["create", "-f", "-"], &manifest("indexed", spec))?;
        let job = completes(kubectl, "indexed")?;
        ensure!(job["status"]["completedIndexes"] == "0-2", "{}", job["status"]);
        let columns = "jsonpath={range .items[*]}{.metadata.labels.batch\\.kubernetes\\.io/job-completion-index} \
                       {.spec.hostname};{end}";
        let pods = kubectl.ok(&["get", "pods", "-l", "job-name=indexed", "--sort-by=.spec.hostname", "-o", columns])?;
        ensure!(pods == "0 indexed-0;1 indexed-1;2 indexed-2;", "{pods}");
        Ok(())
    });
    checks.check("a suspended Job waits until it is resumed", || {
        kubectl.ok_with(&["create", "-f", "-"], &manifest("later", json!({"suspend": true})))?;
        kubectl.ok(&["wait", "--for=condition=suspended", "job/later", "--timeout=60s"])?;
        let pods = kubectl.ok(&["get", "pods", "-l", "job-name=later", "-o", "name"])?;
        ensure!(pods.is_empty(), "{pods}");
        kubectl.ok(&["patch", "job", "later", "--type=strategic", "-p", r#"{"spec":{"suspend":false}}"#])?;
        completes(kubectl, "later").map(drop)
    });
    checks.check("a Job with a time to live goes after its end", || {
        kubectl.ok_with(&["create", "-f", "-"], &manifest("short", json!({"ttlSecondsAfterFinished": 1})))?;
        eventually(PATIENCE, || {
            let left = kubectl.ok(&[
                "get",
                "jobs,pods",
                "-l",
                "batch.kubernetes.io/job-name=short",
                "-o",
                "name",
            ])?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })
    });
    checks.check("the pods of a Job go with it", || {
        kubectl.ok(&["delete", "job", "hello"])?;
        eventually(PATIENCE, || {
            let left = kubectl.ok(&["get", "pods", "-l", "job-name=hello", "-o", "name"])?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })
    });
}

fn scheduled(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("a Job is made from a CronJob by hand", || {
        let arguments =
            ["create", "cronjob", "yearly", "--image=busybox", "--schedule=0 0 1 1 *", "--", "true"];
        kubectl.ok(&arguments)?;
        kubectl.ok(&["create", "job", "today", "--from=cronjob/yearly"])?;
        let job = completes(kubectl, "today")?;
        let owner = &job["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "CronJob" && owner["name"] == "yearly", "{owner}");
        Ok(())
    });
    checks.check("a CronJob starts Jobs at its times and notes their end", || {
        let arguments =
            ["create", "cronjob", "often", "--image=busybox", "--schedule=@every 1s", "--", "true"];
        kubectl.ok(&arguments)?;
        eventually(PATIENCE, || {
            let cron = kubectl.json(&["get", "cronjob", "often"])?;
            let status = &cron["status"];
            ensure!(
                status["lastScheduleTime"].is_string() && status["lastSuccessfulTime"].is_string(),
                "{status}"
            );
            Ok(())
        })?;
        kubectl.ok(&["patch", "cronjob", "often", "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#])?;
        let described = kubectl.ok(&["describe", "cronjob", "often"])?;
        ensure!(
            described.contains("Created job often-") && described.contains("Saw completed job"),
            "{described}"
        );
        Ok(())
    });
}

fn replicated(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("a ReplicationController keeps its pods and is scaled", || {
        let manifest = json!({
            "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "classic"},
            "spec": {"replicas": 2, "template": {
                "metadata": {"labels": {"app": "classic"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        });
        kubectl.ok_with(&["create", "-f", "-"], &manifest.to_string())?;
        let ready = |wanted: u32| {
            eventually(PATIENCE, || {
                let status = kubectl.json(&["get", "rc", "classic"])?["status"].clone();
                ensure!(status["readyReplicas"] == wanted && status["replicas"] == wanted, "{status}");
                Ok(())
            })
        };
        ready(2)?;
        kubectl.ok(&["scale", "rc", "classic", "--replicas=3"])?;
        ready(3)?;
        kubectl.ok(&["delete", "pod", "-l", "app=classic"])?;
        ready(3)
    });
}
