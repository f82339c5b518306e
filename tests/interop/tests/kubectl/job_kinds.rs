//! Jobs and CronJobs of each kind: policies, limits, indexes, concurrency.
//!
//! Pods that must not simply succeed have a scheduling gate, so that no node takes them; how they end is written into
//! their status, as their kubelet would.

use std::time::Duration;

use anyhow::{Context, ensure};
use interop::{Checks, Kubectl, eventually};
use serde_json::{Value, json};

use super::Inputs;

const PATIENCE: Duration = Duration::from_secs(60);
/// Until the second Job of a CronJob is certainly there.
const NEXT_MINUTE: Duration = Duration::from_secs(90);

pub(super) fn job_kinds(inputs: &Inputs, checks: &mut Checks) {
    let cluster = match inputs.cluster("jobs") {
        Ok(cluster) => cluster,
        Err(error) => return checks.check("the server starts", || Err(error)),
    };
    let scheduled = schedule(&cluster.kubectl, checks);
    limits(&cluster.kubectl, checks);
    indexes(&cluster.kubectl, checks);
    policies(&cluster.kubectl, checks);
    sizes(&cluster.kubectl, checks);
    if let Some(scheduled) = scheduled {
        schedules(&cluster.kubectl, &scheduled, checks);
    }
    checks.check("the server stops when asked to", || cluster.server.stop());
}

/// A pod that waits to be told how it ends.
fn held_pod() -> Value {
    json!({"spec": {"restartPolicy": "Never", "schedulingGates": [{"name": "example.com/held"}],
        "containers": [{"name": "c", "image": "busybox"}]}})
}

fn start(kubectl: &Kubectl, name: &str, mut spec: Value) -> anyhow::Result<()> {
    spec["template"] = held_pod();
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec});
    kubectl.ok_with(&["create", "-f", "-"], &job.to_string()).map(drop)
}

/// Names of the Job's pods that have not ended, once there are so many; by index where there are indexes.
fn running(kubectl: &Kubectl, job: &str, wanted: usize) -> anyhow::Result<Vec<String>> {
    let selector = format!("batch.kubernetes.io/job-name={job}");
    eventually(PATIENCE, || {
        let pods = kubectl.json(&["get", "pods", "-l", &selector])?;
        let alive = |pod: &&Value| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Pending"
        };
        let mut names: Vec<String> = items(&pods)
            .filter(alive)
            .map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        names.sort();
        ensure!(names.len() == wanted, "{names:?} run, not {wanted}");
        Ok(names)
    })
}

fn end(kubectl: &Kubectl, pod: &str, exit_code: u32) -> anyhow::Result<()> {
    let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
    let state = json!({"terminated": {"exitCode": exit_code, "reason": if exit_code == 0 { "Completed" } else { "Error" }}});
    let patch = json!({"status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "busybox",
        "imageID": "", "ready": false, "restartCount": 0, "state": state}]}});
    let arguments = ["patch", "pod", pod, "--subresource=status", "--type=merge", "-p", &patch.to_string()];
    kubectl.ok(&arguments).map(drop)
}

/// Waits for the Job's last condition, and returns its status; the condition's reason must be this one.
fn ends(kubectl: &Kubectl, job: &str, condition: &str, reason: &str) -> anyhow::Result<Value> {
    let named = format!("job/{job}");
    kubectl.ok(&["wait", &format!("--for=condition={condition}"), &named, "--timeout=60s"])?;
    let status = kubectl.json(&["get", &named])?["status"].clone();
    let conditions = status["conditions"].as_array().context("no conditions")?;
    let found = conditions.iter().find(|own| own["type"] == condition).context("no such condition")?;
    ensure!(found["status"] == "True" && found["reason"] == reason, "{found}");
    Ok(status)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn limits(kubectl: &Kubectl, checks: &mut Checks) {
    checks.check("a Job fails when its pods failed too often, and the others go", || {
        start(kubectl, "limited", json!({"backoffLimit": 0, "completions": 3, "parallelism": 3}))?;
        let pods = running(kubectl, "limited", 3)?;
        end(kubectl, &pods[0], 0)?;
        end(kubectl, &pods[1], 1)?;
        let status = ends(kubectl, "limited", "Failed", "BackoffLimitExceeded")?;
        ensure!(status["succeeded"] == 1 && status["failed"] == 2, "{status}");
        ensure!(status["conditions"].to_string().contains("FailureTarget"), "{status}");
        running(kubectl, "limited", 0).map(drop)
    });
    checks.check("a Job fails at its deadline", || {
        start(kubectl, "late", json!({"activeDeadlineSeconds": 1}))?;
        let status = ends(kubectl, "late", "Failed", "DeadlineExceeded")?;
        let why = "Job was active longer than specified deadline";
        ensure!(status["conditions"].to_string().contains(why), "{status}");
        running(kubectl, "late", 0).map(drop)
    });
    checks.check("a Job that somebody else manages is left alone", || {
        start(kubectl, "foreign", json!({"managedBy": "example.com/manager"}))?;
        start(kubectl, "own", json!({"managedBy": "kubernetes.io/job-controller"}))?;
        running(kubectl, "own", 1)?;
        running(kubectl, "foreign", 0)?;
        let status = kubectl.json(&["get", "job", "foreign"])?["status"].clone();
        ensure!(status == json!({}), "{status}");
        Ok(())
    });
}

fn indexes(kubectl: &Kubectl, checks: &mut Checks) {
    let indexed = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3});
        if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
            spec.extend(more);
        }
        spec
    };
    checks.check("an index that fails too often leaves the others to go on", || {
        start(kubectl, "each", indexed(json!({"backoffLimitPerIndex": 0})))?;
        let pods = running(kubectl, "each", 3)?;
        for (pod, code) in pods.iter().zip([0, 1, 0]) {
            end(kubectl, pod, code)?;
        }
        let status = ends(kubectl, "each", "Failed", "FailedIndexes")?;
        ensure!(status["completedIndexes"] == "0,2" && status["failedIndexes"] == "1", "{status}");
        Ok(())
    });
    checks.check("too many failed indexes end the Job", || {
        start(kubectl, "few", indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1})))?;
        let pods = running(kubectl, "few", 3)?;
        end(kubectl, &pods[0], 1)?;
        end(kubectl, &pods[2], 1)?;
        let status = ends(kubectl, "few", "Failed", "MaxFailedIndexesExceeded")?;
        ensure!(status["failedIndexes"].as_str().is_some_and(|own| own.starts_with('0')), "{status}");
        running(kubectl, "few", 0).map(drop)
    });
}

fn policies(kubectl: &Kubectl, checks: &mut Checks) {
    let on_exit_code = |action: &str| json!([{"action": action, "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}}]);
    checks.check("a pod failure policy fails the Job, the index, or nothing", || {
        let policy = |action: &str| json!({"rules": on_exit_code(action)});
        start(kubectl, "fail-job", json!({"backoffLimit": 6, "podFailurePolicy": policy("FailJob")}))?;
        let index = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 3,
            "podFailurePolicy": policy("FailIndex")});
        start(kubectl, "fail-index", index)?;
        start(kubectl, "ignore", json!({"backoffLimit": 0, "podFailurePolicy": policy("Ignore")}))?;
        end(kubectl, &running(kubectl, "fail-job", 1)?[0], 42)?;
        let indexes = running(kubectl, "fail-index", 2)?;
        end(kubectl, &indexes[0], 42)?;
        end(kubectl, &indexes[1], 0)?;
        let ignored = running(kubectl, "ignore", 1)?;
        end(kubectl, &ignored[0], 42)?;
        ends(kubectl, "fail-job", "Failed", "PodFailurePolicy")?;
        let status = ends(kubectl, "fail-index", "Failed", "FailedIndexes")?;
        ensure!(status["failedIndexes"] == "0" && status["completedIndexes"] == "1", "{status}");
        let next = running(kubectl, "ignore", 1)?;
        ensure!(next != ignored, "it was not replaced");
        end(kubectl, &next[0], 0)?;
        ends(kubectl, "ignore", "Complete", "CompletionsReached").map(drop)
    });
    checks.check("a success policy ends the Job before all indexes are done", || {
        let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
            "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
        start(kubectl, "enough", spec)?;
        let pods = running(kubectl, "enough", 3)?;
        end(kubectl, &pods[0], 0)?;
        let status = ends(kubectl, "enough", "Complete", "SuccessPolicy")?;
        ensure!(status["conditions"].to_string().contains("SuccessCriteriaMet"), "{status}");
        ensure!(status["completedIndexes"] == "0", "{status}");
        running(kubectl, "enough", 0).map(drop)
    });
}

fn sizes(kubectl: &Kubectl, checks: &mut Checks) {
    let patch = |job: &str, spec: Value| {
        let patch = json!({ "spec": spec }).to_string();
        kubectl.ok(&["patch", "job", job, "--type=merge", "-p", &patch]).map(drop)
    };
    checks.check("a Job runs as many pods at once as its parallelism says, also when that changes", || {
        start(kubectl, "wide", json!({"completions": 5, "parallelism": 1}))?;
        running(kubectl, "wide", 1)?;
        patch("wide", json!({"parallelism": 4}))?;
        running(kubectl, "wide", 4)?;
        patch("wide", json!({"parallelism": 2}))?;
        running(kubectl, "wide", 2)?;
        patch("wide", json!({"suspend": true}))?;
        kubectl.ok(&["wait", "--for=condition=Suspended", "job/wide", "--timeout=60s"])?;
        running(kubectl, "wide", 0).map(drop)
    });
    checks.check("an elastic indexed Job takes another size", || {
        start(kubectl, "elastic", json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2}))?;
        running(kubectl, "elastic", 2)?;
        patch("elastic", json!({"completions": 3, "parallelism": 3}))?;
        let pods = running(kubectl, "elastic", 3)?;
        pods.iter().try_for_each(|pod| end(kubectl, pod, 0))?;
        let status = ends(kubectl, "elastic", "Complete", "CompletionsReached")?;
        ensure!(status["completedIndexes"] == "0-2", "{status}");
        Ok(())
    });
}

/// A CronJob whose first Job is due at once, and the next ones with each minute: their names count minutes.
fn cron_job(name: &str, more: Value, template: Value) -> Value {
    let mut spec = json!({"schedule": "@every 1s", "jobTemplate": {"spec": {"template": template}}});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": spec})
}

/// Names of the Jobs that a CronJob has, but for those on their way out.
fn jobs_of(kubectl: &Kubectl, cron: &str) -> anyhow::Result<Vec<String>> {
    let jobs = kubectl.json(&["get", "jobs"])?;
    let owned = items(&jobs).filter(|job| {
        job["metadata"]["ownerReferences"][0]["name"] == cron
            && job["metadata"]["deletionTimestamp"].is_null()
    });
    Ok(owned.map(|job| job["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect())
}

fn one_job_of(kubectl: &Kubectl, cron: &str) -> anyhow::Result<String> {
    let jobs = jobs_of(kubectl, cron)?;
    ensure!(jobs.len() == 1, "{cron} has {jobs:?}");
    Ok(jobs[0].clone())
}

/// CronJobs with a Job of this minute.
struct Scheduled {
    first: [String; 4],
}

const CRON_JOBS: [&str; 4] = ["allow", "forbid", "replace", "brief"];

fn schedule(kubectl: &Kubectl, checks: &mut Checks) -> Option<Scheduled> {
    let mut scheduled = None;
    checks.check("CronJobs start Jobs", || {
        for policy in ["Allow", "Forbid", "Replace"] {
            let cron = cron_job(&policy.to_lowercase(), json!({"concurrencyPolicy": policy}), held_pod());
            kubectl.ok_with(&["create", "-f", "-"], &cron.to_string())?;
        }
        let mut quick = held_pod();
        quick["spec"]["schedulingGates"] = Value::Null;
        let brief = cron_job("brief", json!({"successfulJobsHistoryLimit": 1}), quick);
        kubectl.ok_with(&["create", "-f", "-"], &brief.to_string())?;
        let mut first = CRON_JOBS.map(|_| String::new());
        for (name, first) in CRON_JOBS.iter().zip(&mut first) {
            *first = eventually(PATIENCE, || jobs_of(kubectl, name)?.first().cloned().context("no Job yet"))?;
        }
        scheduled = Some(Scheduled { first });
        Ok(())
    });
    scheduled
}

fn schedules(kubectl: &Kubectl, scheduled: &Scheduled, checks: &mut Checks) {
    let [_, forbidden, replaced, brief] = &scheduled.first;
    checks.check("the next Job runs beside the last one, waits for it, or takes its place", || {
        eventually(NEXT_MINUTE, || {
            let cron = kubectl.json(&["get", "cronjob", "allow"])?;
            let active = cron["status"]["active"].as_array().map_or(0, Vec::len);
            ensure!(active >= 2 && jobs_of(kubectl, "allow")?.len() == active, "{}", cron["status"]);
            ensure!(one_job_of(kubectl, "replace")? != *replaced, "it is still the first");
            Ok(())
        })?;
        ensure!(one_job_of(kubectl, "forbid")? == *forbidden, "another took its place");
        eventually(PATIENCE, || {
            let events = kubectl.ok(&["get", "events", "-o", "custom-columns=R:.reason,M:.message"])?;
            ensure!(events.contains("JobAlreadyActive"), "{events}");
            Ok(())
        })
    });
    checks.check("as many ended Jobs are kept as the limit says", || {
        eventually(NEXT_MINUTE, || {
            let left = one_job_of(kubectl, "brief")?;
            ensure!(left != *brief, "it is still the first");
            Ok(())
        })
    });
    checks.check("the Jobs of a CronJob go with it", || {
        for name in CRON_JOBS {
            kubectl.ok(&["delete", "cronjob", name])?;
            eventually(PATIENCE, || {
                let left = jobs_of(kubectl, name)?;
                ensure!(left.is_empty(), "{left:?} are left");
                Ok(())
            })?;
        }
        Ok(())
    });
    checks.check("a CronJob in a time zone that there is none of is refused", || {
        let manifest = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nowhere"},
            "spec": {"schedule": "0 0 * * *", "timeZone": "Moon/Base",
                "jobTemplate": {"spec": {"template": held_pod()}}}});
        let output = kubectl.run_with(&["create", "-f", "-"], &manifest.to_string(), &[])?;
        ensure!(
            output.code != Some(0) && output.stderr.contains("spec.timeZone: Invalid value: \"Moon/Base\""),
            "{output:?}"
        );
        Ok(())
    });
}
