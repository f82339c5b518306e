use apimachinery::Value;
use client::fake::FakeApi;

use super::backoff::{Backoff, finished_at, remaining_of_index};
use super::indexes::{COMPLETION_INDEX, FAILURE_COUNT, IGNORED_FAILURE_COUNT};
use super::*;
use crate::testing::{World, object};

/// A Job as the registry stores it; `spec` is merged into the defaults.
fn job(spec: &Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "work", "namespace": "ns", "uid": "job-uid", "generation": 1},
        "spec": {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "job-uid"}},
            "template": {
                "metadata": {"labels": {"batch.kubernetes.io/controller-uid": "job-uid", "job-name": "work"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}
    });
    for (key, value) in spec.as_object().into_iter().flat_map(|fields| fields.iter()) {
        job.set_at(&["spec", key], value.clone());
    }
    job
}

fn indexed(completions: i32, spec: &Value) -> Value {
    let mut job = job(spec);
    job.set_at(&["spec", "completionMode"], "Indexed");
    job.set_at(&["spec", "completions"], completions);
    if spec.get("parallelism").is_none() {
        job.set_at(&["spec", "parallelism"], completions);
    }
    job
}

fn status(fake: &FakeApi) -> Value {
    fake.peek(&JOBS, "ns", "work").map(|job| job.to_value()["status"].clone()).unwrap_or_default()
}

fn number(fake: &FakeApi, field: &str) -> i64 {
    status(fake)[field].as_i64().unwrap_or(0)
}

/// `Complete=True CompletionsReached` and the like, in the order in which they were set.
fn conditions(fake: &FakeApi) -> Vec<String> {
    let status = status(fake);
    let text = |own: &Value| {
        format!("{}={} {}", own.str_at(&["type"]), own.str_at(&["status"]), own.str_at(&["reason"]))
    };
    status.array_at(&["conditions"]).iter().map(text).collect()
}

fn is_over(fake: &FakeApi) -> bool {
    conditions(fake).iter().any(|own| own.starts_with("Complete=") || own.starts_with("Failed="))
}

/// The pods that are neither done nor being deleted.
fn running(fake: &FakeApi) -> Vec<Value> {
    let pods = fake.peek_all(&PODS).into_iter().filter(|pod| !pod.is_deleting()).map(|pod| pod.to_value());
    pods.filter(|pod| !matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed")).collect()
}

fn index(pod: &Value) -> &str {
    pod.str_at(&["metadata", "annotations", COMPLETION_INDEX])
}

/// Ends a pod with an exit code, long enough ago for its replacement to be due.
fn end(fake: &FakeApi, pod: &Value, code: i32) {
    end_at(fake, pod, code, "2020-01-01T00:00:00Z");
}

fn end_at(fake: &FakeApi, pod: &Value, code: i32, at: &str) {
    fake.edit(&PODS, "ns", pod.str_at(&["metadata", "name"]), |pod| {
        pod.set_at(&["status", "phase"], if code == 0 { "Succeeded" } else { "Failed" });
        let ended = json!({"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": at}}});
        pod.set_at(&["status", "containerStatuses"], vec![ended]);
    });
}

/// Has a node run the pods, so that deleting them takes a while.
fn schedule_all(fake: &FakeApi) {
    for pod in fake.peek_all(&PODS) {
        fake.edit(&PODS, "ns", pod.name(), |pod| pod.set_at(&["spec", "nodeName"], "node"));
    }
}

async fn has_running(world: &World, count: usize) {
    world.wait_for(&format!("{count} pods run"), |fake| running(fake).len() == count).await;
    world.wait_for("the status says so", |fake| number(fake, "active") == count as i64).await;
}

async fn has_event(world: &World, text: &str) {
    world.wait_for(text, |_| world.events().iter().any(|event| event == text)).await;
}

#[tokio::test]
async fn a_job_runs_its_pods_in_parallel_until_enough_succeeded() {
    let world = World::start(vec![descriptor()], vec![job(&json!({"completions": 3, "parallelism": 2}))]);
    has_running(&world, 2).await;
    let pods = running(&world.fake);
    assert!(pods[0].str_at(&["metadata", "name"]).starts_with("work-"));
    assert_eq!(pods[0]["metadata"]["finalizers"], json!([TRACKING_FINALIZER]));
    assert_eq!(pods[0]["metadata"]["labels"]["job-name"], json!("work"));
    assert_eq!(
        pods[0]["metadata"]["ownerReferences"],
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "work", "uid": "job-uid", "controller": true,
            "blockOwnerDeletion": true}])
    );
    assert!(!status(&world.fake).str_at(&["startTime"]).is_empty());
    pods.iter().for_each(|pod| end(&world.fake, pod, 0));
    world.wait_for("two counted", |fake| number(fake, "succeeded") == 2).await;
    has_running(&world, 1).await;
    end(&world.fake, &running(&world.fake)[0], 0);
    world.wait_for("the end", is_over).await;
    assert_eq!(
        conditions(&world.fake),
        ["SuccessCriteriaMet=True CompletionsReached", "Complete=True CompletionsReached"]
    );
    let status = status(&world.fake);
    assert_eq!(status["conditions"][1].str_at(&["message"]), "Reached expected number of succeeded pods");
    assert_eq!(status["completionTime"], status["conditions"][1]["lastTransitionTime"]);
    assert_eq!((status["succeeded"].as_i64(), &status["failed"]), (Some(3), &Value::Null));
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert_eq!((status["ready"].as_i64(), status["terminating"].as_i64()), (Some(0), Some(0)));
    let tracked = world.fake.peek_all(&PODS).into_iter().filter(|pod| is_tracked(pod)).count();
    assert_eq!((world.fake.peek_all(&PODS).len(), tracked), (3, 0));
    has_event(&world, "Completed: Job completed").await;
    assert_eq!(
        world.events().iter().filter(|event| event.starts_with("SuccessfulCreate: Created pod: ")).count(),
        3
    );
}

#[tokio::test]
async fn without_a_number_of_completions_one_success_is_enough_once_all_pods_are_done() {
    let world = World::start(vec![descriptor()], vec![job(&json!({"parallelism": 2}))]);
    has_running(&world, 2).await;
    let pods = running(&world.fake);
    end(&world.fake, &pods[0], 0);
    world.wait_for("one counted", |fake| number(fake, "succeeded") == 1).await;
    assert_eq!((running(&world.fake).len(), is_over(&world.fake)), (1, false));
    end(&world.fake, &pods[1], 1);
    world.wait_for("the end", is_over).await;
    assert_eq!((number(&world.fake, "succeeded"), number(&world.fake, "failed")), (1, 1));
    assert_eq!(conditions(&world.fake)[1], "Complete=True CompletionsReached");
}

#[tokio::test]
async fn each_index_of_an_indexed_job_has_a_pod_that_knows_it() {
    let world = World::start(vec![descriptor()], vec![indexed(3, &json!({}))]);
    has_running(&world, 3).await;
    let pods = running(&world.fake);
    let mut names: Vec<_> = pods.iter().map(|pod| pod.str_at(&["metadata", "name"])).collect();
    names.sort_unstable();
    assert!(
        names.iter().zip(["work-0-", "work-1-", "work-2-"]).all(|(name, prefix)| name.starts_with(prefix))
    );
    let first = pods.iter().find(|pod| index(pod) == "0").unwrap();
    assert_eq!(first["metadata"]["labels"][COMPLETION_INDEX], json!("0"));
    assert_eq!(first["metadata"]["annotations"], json!({COMPLETION_INDEX: "0"}));
    assert_eq!(first["spec"]["hostname"], json!("work-0"));
    assert_eq!(
        first["spec"]["containers"][0]["env"],
        json!([{"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {
            "fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}}}])
    );
    // A failed index is tried again.
    end(&world.fake, first, 1);
    world.wait_for("index 0 again", |fake| running(fake).iter().any(|pod| index(pod) == "0")).await;
    for pod in running(&world.fake).iter().filter(|pod| index(pod) != "1") {
        end(&world.fake, pod, 0);
    }
    world.wait_for("two indexes", |fake| status(fake).str_at(&["completedIndexes"]) == "0,2").await;
    running(&world.fake).iter().for_each(|pod| end(&world.fake, pod, 0));
    world.wait_for("the end", is_over).await;
    let status = status(&world.fake);
    assert_eq!(status["completedIndexes"], json!("0-2"));
    assert_eq!((status["succeeded"].as_i64(), status["failed"].as_i64()), (Some(3), Some(1)));
}

#[tokio::test]
async fn a_job_whose_pods_fail_too_often_fails_and_takes_the_others_along() {
    let world = World::start(
        vec![descriptor()],
        vec![job(&json!({"completions": 3, "parallelism": 3, "backoffLimit": 1}))],
    );
    has_running(&world, 3).await;
    schedule_all(&world.fake);
    let pods = running(&world.fake);
    end(&world.fake, &pods[0], 1);
    world.wait_for("a replacement", |fake| fake.peek_all(&PODS).len() == 4 && running(fake).len() == 3).await;
    end(&world.fake, &pods[1], 1);
    world.wait_for("the target", |fake| !conditions(fake).is_empty()).await;
    assert_eq!(conditions(&world.fake), ["FailureTarget=True BackoffLimitExceeded"]);
    // Those that ran are counted as failed at once, and the end waits until they are gone.
    world.wait_for("all counted", |fake| number(fake, "failed") == 4).await;
    assert!(!is_over(&world.fake));
    let dying: Vec<_> = world.fake.peek_all(&PODS).into_iter().filter(|pod| pod.is_deleting()).collect();
    assert!(!dying.is_empty() && number(&world.fake, "terminating") == dying.len() as i64);
    dying.iter().for_each(|pod| world.fake.drop_object(&PODS, "ns", pod.name()));
    world.wait_for("the end", is_over).await;
    assert_eq!(conditions(&world.fake)[1], "Failed=True BackoffLimitExceeded");
    assert!(status(&world.fake)["completionTime"].is_null());
    has_event(&world, "BackoffLimitExceeded: Job has reached the specified backoff limit").await;
}

#[tokio::test]
async fn a_failed_pod_is_replaced_after_the_back_off_only() {
    let world = World::start(vec![descriptor()], vec![job(&json!({"completions": 1}))]);
    has_running(&world, 1).await;
    end_at(&world.fake, &running(&world.fake)[0], 1, &time::format_seconds(rt::now()));
    world.wait_for("the failure is counted", |fake| number(fake, "failed") == 1).await;
    rt::sleep(Duration::from_millis(50)).await;
    assert_eq!(running(&world.fake).len(), 0);
}

#[tokio::test]
async fn restarts_of_containers_count_where_they_are_restarted_in_place() {
    let mut seed = job(&json!({"completions": 1, "backoffLimit": 2}));
    seed.set_at(&["spec", "template", "spec", "restartPolicy"], "OnFailure");
    let world = World::start(vec![descriptor()], vec![seed]);
    has_running(&world, 1).await;
    let pod = running(&world.fake).remove(0);
    world.fake.edit(&PODS, "ns", pod.str_at(&["metadata", "name"]), |pod| {
        pod.set_at(&["status", "containerStatuses"], json!([{"name": "c", "restartCount": 2}]));
    });
    world.wait_for("the end", is_over).await;
    assert_eq!(conditions(&world.fake)[1], "Failed=True BackoffLimitExceeded");
}

#[tokio::test]
async fn a_job_that_is_active_for_too_long_fails() {
    let mut seed = job(&json!({"completions": 1, "activeDeadlineSeconds": 30}));
    seed.set_at(&["status"], json!({"startTime": "2020-01-01T00:00:00Z"}));
    let world = World::start(vec![descriptor()], vec![seed]);
    world.wait_for("the end", is_over).await;
    assert_eq!(
        conditions(&world.fake),
        ["FailureTarget=True DeadlineExceeded", "Failed=True DeadlineExceeded"]
    );
    has_event(&world, "DeadlineExceeded: Job was active longer than specified deadline").await;
}

#[tokio::test]
async fn the_deadline_is_noticed_without_an_event() {
    let world =
        World::start(vec![descriptor()], vec![job(&json!({"completions": 1, "activeDeadlineSeconds": 1}))]);
    has_running(&world, 1).await;
    world.wait_for("the end", is_over).await;
    assert_eq!(conditions(&world.fake)[1], "Failed=True DeadlineExceeded");
}

#[tokio::test]
async fn a_suspended_job_has_no_pods_and_its_time_begins_when_it_resumes() {
    let world = World::start(
        vec![descriptor()],
        vec![job(&json!({"completions": 2, "parallelism": 2, "suspend": true}))],
    );
    world.wait_for("suspended", |fake| conditions(fake) == ["Suspended=True JobSuspended"]).await;
    assert!(status(&world.fake)["startTime"].is_null() && world.fake.peek_all(&PODS).is_empty());
    let suspend = |is: bool| world.fake.edit(&JOBS, "ns", "work", |job| job.set_at(&["spec", "suspend"], is));
    suspend(false);
    has_running(&world, 2).await;
    assert_eq!(conditions(&world.fake), ["Suspended=False JobResumed"]);
    assert!(!status(&world.fake)["startTime"].is_null());
    suspend(true);
    has_running(&world, 0).await;
    world.wait_for("suspended", |fake| conditions(fake) == ["Suspended=True JobSuspended"]).await;
    assert!(status(&world.fake)["startTime"].is_null());
    assert_eq!(number(&world.fake, "failed"), 0, "pods of a suspended Job fail nobody");
    has_event(&world, "Suspended: Job suspended").await;
    has_event(&world, "Resumed: Job resumed").await;
}

#[tokio::test]
async fn fewer_pods_run_when_the_parallelism_is_lowered() {
    let world = World::start(vec![descriptor()], vec![job(&json!({"completions": 9, "parallelism": 4}))]);
    has_running(&world, 4).await;
    world.fake.edit(&JOBS, "ns", "work", |job| job.set_at(&["spec", "parallelism"], 1));
    has_running(&world, 1).await;
    assert_eq!(number(&world.fake, "failed"), 0);
    world
        .wait_for("an event", |_| {
            world.events().iter().any(|e| e.starts_with("SuccessfulDelete: Deleted pod: work-"))
        })
        .await;
}

#[tokio::test]
async fn a_rule_may_fail_the_job_or_leave_a_failure_uncounted() {
    let rules = json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]});
    let spec = json!({"completions": 1, "podReplacementPolicy": "Failed", "podFailurePolicy": rules});
    let world = World::start(vec![descriptor()], vec![job(&spec)]);
    has_running(&world, 1).await;
    let pod = running(&world.fake).remove(0);
    world.fake.edit(&PODS, "ns", pod.str_at(&["metadata", "name"]), |pod| {
        pod.set_at(&["status", "conditions"], json!([{"type": "DisruptionTarget", "status": "True"}]));
    });
    end(&world.fake, &pod, 137);
    world.wait_for("a replacement", |fake| fake.peek_all(&PODS).len() == 2).await;
    assert_eq!(number(&world.fake, "failed"), 0);
    let pod = running(&world.fake).remove(0);
    end(&world.fake, &pod, 42);
    world.wait_for("the end", is_over).await;
    let name = pod.str_at(&["metadata", "name"]);
    let message =
        format!("Container c for pod ns/{name} failed with exit code 42 matching FailJob rule at index 0");
    assert_eq!(conditions(&world.fake)[1], "Failed=True PodFailurePolicy");
    assert_eq!(status(&world.fake)["conditions"][1].str_at(&["message"]), message);
    has_event(&world, &format!("PodFailurePolicy: {message}")).await;
}

#[tokio::test]
async fn a_pod_on_its_way_out_is_replaced_at_once_or_when_it_has_failed() {
    for (policy, at_once) in [("TerminatingOrFailed", true), ("Failed", false)] {
        let spec = json!({"completions": 1, "podReplacementPolicy": policy});
        let world = World::start(vec![descriptor()], vec![job(&spec)]);
        has_running(&world, 1).await;
        schedule_all(&world.fake);
        let name = running(&world.fake)[0].str_at(&["metadata", "name"]).to_owned();
        world.fake.edit(&PODS, "ns", &name, |pod| {
            pod.set_at(&["metadata", "deletionTimestamp"], "2020-01-01T00:00:00Z");
            pod.set_at(&["metadata", "deletionGracePeriodSeconds"], 30);
        });
        world.wait_for("terminating", |fake| number(fake, "terminating") == 1).await;
        if at_once {
            world.wait_for("a replacement", |fake| running(fake).len() == 1).await;
            assert_eq!(number(&world.fake, "failed"), 1);
        } else {
            rt::sleep(Duration::from_millis(20)).await;
            assert_eq!((running(&world.fake).len(), number(&world.fake, "failed")), (0, 0));
            let pod = world.tree(&PODS, "ns", &name);
            end(&world.fake, &pod, 1);
            world.wait_for("a replacement", |fake| running(fake).len() == 1).await;
        }
    }
}

#[tokio::test]
async fn each_index_may_fail_so_often_and_the_others_go_on() {
    let spec = json!({"backoffLimit": i32::MAX, "backoffLimitPerIndex": 1});
    let world = World::start(vec![descriptor()], vec![indexed(2, &spec)]);
    has_running(&world, 2).await;
    let of = |fake: &FakeApi, wanted: &str| running(fake).into_iter().find(|pod| index(pod) == wanted);
    let first = of(&world.fake, "0").unwrap();
    assert_eq!(first.str_at(&["metadata", "annotations", FAILURE_COUNT]), "0");
    end(&world.fake, &first, 1);
    world.wait_for("index 0 again", |fake| of(fake, "0").is_some()).await;
    let second = of(&world.fake, "0").unwrap();
    assert_eq!(second.str_at(&["metadata", "annotations", FAILURE_COUNT]), "1");
    assert!(second["metadata"]["annotations"][IGNORED_FAILURE_COUNT].is_null());
    end(&world.fake, &second, 1);
    world.wait_for("index 0 given up", |fake| status(fake).str_at(&["failedIndexes"]) == "0").await;
    assert!(of(&world.fake, "0").is_none() && !is_over(&world.fake));
    end(&world.fake, &of(&world.fake, "1").unwrap(), 0);
    world.wait_for("the end", is_over).await;
    assert_eq!(conditions(&world.fake), ["FailureTarget=True FailedIndexes", "Failed=True FailedIndexes"]);
    let status = status(&world.fake);
    assert_eq!((status.str_at(&["completedIndexes"]), status.str_at(&["failedIndexes"])), ("1", "0"));
    assert_eq!((status["succeeded"].as_i64(), status["failed"].as_i64()), (Some(1), Some(2)));
}

#[tokio::test]
async fn too_many_failed_indexes_end_the_job() {
    let spec = json!({"backoffLimit": i32::MAX, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1});
    let world = World::start(vec![descriptor()], vec![indexed(4, &spec)]);
    has_running(&world, 4).await;
    for pod in running(&world.fake).iter().filter(|pod| matches!(index(pod), "1" | "3")) {
        end(&world.fake, pod, 1);
    }
    world.wait_for("the end", is_over).await;
    assert_eq!(conditions(&world.fake)[1], "Failed=True MaxFailedIndexesExceeded");
    assert_eq!(status(&world.fake).str_at(&["failedIndexes"]), "1,3");
}

#[tokio::test]
async fn a_success_policy_ends_the_job_before_all_indexes_are_done() {
    let spec = json!({"successPolicy": {"rules": [{"succeededIndexes": "1-2", "succeededCount": 1}]}});
    let world = World::start(vec![descriptor()], vec![indexed(3, &spec)]);
    has_running(&world, 3).await;
    let leader = running(&world.fake).into_iter().find(|pod| index(pod) == "2").unwrap();
    end(&world.fake, &leader, 0);
    world.wait_for("the end", is_over).await;
    assert_eq!(
        conditions(&world.fake),
        ["SuccessCriteriaMet=True SuccessPolicy", "Complete=True SuccessPolicy"]
    );
    let status = status(&world.fake);
    assert_eq!(status["conditions"][0].str_at(&["message"]), "Matched rules at index 0");
    assert_eq!((status["completedIndexes"].as_str(), &status["failed"]), (Some("2"), &Value::Null));
}

#[tokio::test]
async fn a_second_pod_of_an_index_goes() {
    let world = World::start(vec![descriptor()], vec![indexed(2, &json!({}))]);
    has_running(&world, 2).await;
    let mut twin = running(&world.fake).into_iter().find(|pod| index(pod) == "1").unwrap();
    twin.set_at(&["metadata", "name"], "twin");
    twin.set_at(&["metadata", "uid"], "twin-uid");
    world.fake.seed(twin);
    world
        .wait_for("one of each", |fake| {
            let mut indexes: Vec<String> = running(fake).iter().map(|pod| index(pod).to_owned()).collect();
            indexes.sort();
            indexes == ["0", "1"]
        })
        .await;
    assert_eq!(number(&world.fake, "failed"), 0);
}

/// A third of the writes fail, and the controller is killed again and again while pods succeed and fail.
#[tokio::test]
async fn every_pod_is_counted_once_whatever_is_interrupted() {
    for mode in ["NonIndexed", "Indexed"] {
        let spec =
            json!({"completions": 60, "parallelism": 20, "backoffLimit": 1000, "completionMode": mode});
        let mut world = World::start(vec![descriptor()], vec![job(&spec)]);
        let mut calls = 0;
        world.fake.fail(move |call| {
            let is_write = call.resource == "jobs" && call.verb == "update" || call.verb == "patch";
            calls += usize::from(is_write);
            (is_write && calls % 3 == 1).then(|| Status::internal("interrupted"))
        });
        let (mut succeeded, mut failed) = (0, 0);
        while succeeded < 60 {
            world.wait_for("pods", |fake| !running(fake).is_empty() || is_over(fake)).await;
            for pod in running(&world.fake) {
                let code = i32::from((succeeded + failed) % 5 == 0);
                end(&world.fake, &pod, code);
                if code == 0 {
                    succeeded += 1
                } else {
                    failed += 1
                }
                if (succeeded + failed) % 7 == 0 {
                    world.restart(vec![descriptor()]);
                    tokio::task::yield_now().await;
                }
            }
        }
        world.wait_for("the end", is_over).await;
        let fake = &world.fake;
        assert_eq!((number(fake, "succeeded"), number(fake, "failed")), (succeeded, failed), "{mode}");
        assert_eq!(status(fake)["uncountedTerminatedPods"], json!({}));
        assert_eq!(fake.peek_all(&PODS).len() as i64, succeeded + failed, "no pod was made twice");
        assert!(!fake.peek_all(&PODS).iter().any(|pod| is_tracked(pod)));
    }
}

#[tokio::test]
async fn a_status_from_before_is_continued() {
    let mut seed = job(&json!({"completions": 4, "parallelism": 4}));
    seed.set_at(
        &["status"],
        json!({"succeeded": 1, "failed": 1, "startTime": "2020-01-01T00:00:00Z",
            "uncountedTerminatedPods": {"succeeded": ["counted", "waiting"], "failed": ["gone"]}}),
    );
    let done = |uid: &str, tracked: bool| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": uid, "namespace": "ns", "uid": uid,
            "labels": {"batch.kubernetes.io/controller-uid": "job-uid"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "work", "uid": "job-uid", "controller": true}]},
            "spec": {}, "status": {"phase": "Succeeded"}});
        if tracked {
            pod.set_at(&["metadata", "finalizers"], vec![TRACKING_FINALIZER]);
        }
        pod
    };
    let seeds = vec![seed, done("counted", false), done("waiting", true), done("new", true)];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("all counted", |fake| number(fake, "succeeded") == 4).await;
    world.wait_for("the end", is_over).await;
    assert_eq!(number(&world.fake, "failed"), 2);
    assert_eq!(world.fake.peek_all(&PODS).len(), 3, "nothing is left to run");
}

#[tokio::test]
async fn pods_without_a_job_lose_the_finalizer_and_others_keep_it() {
    let pod = |name: &str, owner: Option<Value>| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns",
            "labels": {"app": "x"}, "finalizers": [TRACKING_FINALIZER]}, "spec": {}, "status": {"phase": "Running"}});
        if let Some(owner) = owner {
            pod.set_at(&["metadata", "ownerReferences"], vec![owner]);
        }
        pod
    };
    let owner = |api_version: &str, kind: &str, name: &str, uid: &str| {
        Some(json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}))
    };
    let mut managed = job(&json!({"managedBy": "example.com/elsewhere"}));
    managed.set_at(&["metadata", "name"], "managed");
    managed.set_at(&["metadata", "uid"], "managed-uid");
    managed.set_at(&["status"], json!({"conditions": [{"type": "Complete", "status": "True"}]}));
    let seeds = vec![
        managed,
        pod("stray", None),
        pod("of-a-job-that-is-gone", owner("batch/v1", "Job", "gone", "gone-uid")),
        pod("of-an-earlier-job", owner("batch/v1", "Job", "managed", "earlier-uid")),
        pod("of-another-manager", owner("batch/v1", "Job", "managed", "managed-uid")),
        pod("of-a-set", owner("apps/v1", "ReplicaSet", "set", "set-uid")),
    ];
    let world = World::start(vec![descriptor()], seeds);
    let tracked = |fake: &FakeApi| {
        let pods = fake.peek_all(&PODS).into_iter().filter(|pod| is_tracked(pod));
        pods.map(|pod| pod.name().to_owned()).collect::<Vec<_>>()
    };
    world.wait_for("two are left", |fake| tracked(fake) == ["of-a-set", "of-another-manager"]).await;
    rt::sleep(Duration::from_millis(20)).await;
    assert_eq!(tracked(&world.fake), ["of-a-set", "of-another-manager"]);
}

#[tokio::test]
async fn pods_of_a_job_that_is_deleted_are_let_go() {
    let mut seed = job(&json!({"completions": 2, "parallelism": 2}));
    seed.set_at(&["metadata", "finalizers"], vec!["foregroundDeletion"]);
    let world = World::start(vec![descriptor()], vec![seed]);
    has_running(&world, 2).await;
    world.fake.edit(&JOBS, "ns", "work", |job| {
        job.set_at(&["metadata", "deletionTimestamp"], "2020-01-01T00:00:00Z");
    });
    world.wait_for("no finalizer", |fake| !fake.peek_all(&PODS).iter().any(|pod| is_tracked(pod))).await;
    assert_eq!((world.fake.peek_all(&PODS).len(), number(&world.fake, "failed")), (2, 0));
}

#[tokio::test]
async fn an_orphan_is_adopted_with_the_finalizer_and_a_stray_released_without() {
    let labels = json!({"batch.kubernetes.io/controller-uid": "job-uid"});
    let orphan = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orphan", "namespace": "ns",
        "labels": labels}, "spec": {}, "status": {"phase": "Running"}});
    let world =
        World::start(vec![descriptor()], vec![job(&json!({"completions": 2, "parallelism": 1})), orphan]);
    world.wait_for("adopted", |fake| number(fake, "active") == 1).await;
    let adopted = world.fake.peek(&PODS, "ns", "orphan").unwrap();
    assert!(is_tracked(&adopted) && ownership::is_controlled_by(&adopted, "job-uid"));
    assert_eq!(world.fake.peek_all(&PODS).len(), 1);
    world.fake.edit(&PODS, "ns", "orphan", |pod| pod.set_at(&["metadata", "labels"], json!({"other": "x"})));
    world
        .wait_for("released", |fake| {
            fake.peek(&PODS, "ns", "orphan")
                .is_some_and(|pod| !is_tracked(&pod) && pod.controller_owner().is_none())
        })
        .await;
    world.wait_for("a pod in its place", |fake| fake.peek_all(&PODS).len() == 2).await;
}

#[tokio::test]
async fn a_refused_pod_is_an_event_and_tried_again() {
    let world = World::start(vec![descriptor()], vec![]);
    let mut left = 3;
    world.fake.fail(move |call| {
        let refused = call.verb == "create" && call.resource == "pods" && left > 0;
        left -= i32::from(refused);
        refused.then(|| Status::forbidden(&PODS.group_resource(), "", "exceeded quota: q"))
    });
    world.fake.seed(job(&json!({"completions": 2, "parallelism": 2})));
    has_running(&world, 2).await;
    assert!(world.events().iter().any(|event| event.starts_with("FailedCreate: Error creating: ")));
}

fn pod_view(tree: &Value) -> PodOf {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
    for field in ["metadata", "spec", "status"] {
        for (key, value) in tree[field].as_object().into_iter().flat_map(|fields| fields.iter()) {
            pod.set_at(&[field, key], value.clone());
        }
    }
    PodOf::read(object(pod)).unwrap()
}

#[test]
fn a_pod_is_done_when_its_last_container_ended_or_else_by_what_it_says() {
    let ended = |at: &str| json!({"name": "c", "state": {"terminated": {"exitCode": 1, "finishedAt": at}}});
    let sidecar = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]});
    let running = json!({"name": "c", "state": {"running": {}}});
    let not_ready =
        json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:05Z"}]);
    let named = |name: &str, at: &str| {
        let mut status = ended(at);
        status.set_at(&["name"], name);
        status
    };
    let (five, seven, nine) = ("2026-01-01T00:00:05Z", "2026-01-01T00:00:07Z", "2026-01-01T00:00:09Z");
    let rows = [
        (json!({"status": {"containerStatuses": [ended(seven), ended(five)]}}), seven),
        (
            json!({"spec": sidecar, "status": {"containerStatuses": [ended(five)],
                "initContainerStatuses": [named("s", seven), named("i", nine)]}}),
            seven,
        ),
        (json!({"status": {"containerStatuses": [running, ended(seven)], "conditions": not_ready}}), five),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:39Z", "deletionGracePeriodSeconds": 30}}),
            nine,
        ),
        (json!({}), "2026-01-01T00:00:00Z"),
    ];
    for (tree, at) in rows {
        assert_eq!(time::format_seconds(finished_at(&pod_view(&tree).pod)), at, "{tree:?}");
    }
}

#[test]
fn the_back_off_doubles_with_each_failure_and_ends_with_a_success() {
    let ended = |second: u8| {
        let at = format!("2026-01-01T00:00:{second:02}Z");
        pod_view(
            &json!({"status": {"containerStatuses": [{"name": "c", "state": {"terminated": {"finishedAt": at}}}]}}),
        )
    };
    let at =
        |second: u32| time::parse(&format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60)).unwrap();
    let remaining = |backoff: &Backoff, second| backoff.remaining(at(second)).as_secs();
    let once = Backoff::default().after([], &[ended(10)]);
    assert_eq!((remaining(&once, 10), remaining(&once, 15), remaining(&once, 21)), (10, 5, 0));
    let thrice = once.after([], &[ended(30), ended(20)]);
    assert_eq!(remaining(&thrice, 30), 40);
    let many = (0..20).fold(thrice, |backoff, _| backoff.after([], &[ended(30)]));
    assert_eq!(remaining(&many, 30), 600);
    assert_eq!(many.after([], []), many);
    assert_eq!(many.after(&[ended(40)], []), Backoff::default());
    assert_eq!(many.after(&[ended(40)], &[ended(35), ended(50)]), Backoff::default().after([], &[ended(50)]));
    let mut failed_before =
        pod_view(&json!({"metadata": {"annotations": {FAILURE_COUNT: "1", IGNORED_FAILURE_COUNT: "1"}}}));
    assert_eq!(remaining_of_index(&failed_before.pod, at(0)).as_secs(), 40);
    failed_before = pod_view(&json!({}));
    assert_eq!(remaining_of_index(&failed_before.pod, at(4)).as_secs(), 6);
}
