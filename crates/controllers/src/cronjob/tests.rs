use apimachinery::GroupVersionResource;
use client::fake::FakeApi;

use super::*;
use crate::testing::World;

/// Due once a year, so that nothing becomes due while a test runs.
fn cron(spec: &Value) -> Value {
    let mut cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "report", "namespace": "ns", "uid": "cron-uid", "creationTimestamp": "2024-06-01T00:00:00Z"},
        "spec": {"schedule": "@yearly", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"app": "report"}, "annotations": {"note": "x"}},
                "spec": {"completions": 1, "anUnknownField": 1}}}
    });
    for (key, value) in spec.as_object().into_iter().flat_map(|fields| fields.iter()) {
        cron.set_at(&["spec", key], value.clone());
    }
    cron
}

fn job(name: &str, end: Option<(&str, &str)>) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "ns", "uid": name,
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": "cron-uid", "controller": true}]},
        "spec": {}});
    if let Some((condition, at)) = end {
        job.set_at(
            &["status"],
            json!({"startTime": at, "conditions": [{"type": condition, "status": "True", "lastTransitionTime": at}]}),
        );
        if condition == "Complete" {
            job.set_at(&["status", "completionTime"], at);
        }
    }
    job
}

/// A CronJob with an active Job of an earlier time.
fn cron_with_active(spec: &Value) -> Vec<Value> {
    let mut cron = cron(spec);
    let active = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "earlier", "namespace": "ns", "uid": "earlier"}]);
    cron.set_at(&["status", "active"], active);
    vec![cron, job("earlier", None)]
}

fn status(fake: &FakeApi) -> Value {
    fake.peek(&CRON_JOBS, "ns", "report").map(|cron| cron.to_value()["status"].clone()).unwrap_or_default()
}

fn names(fake: &FakeApi, resource: &GroupVersionResource) -> Vec<String> {
    fake.peek_all(resource).iter().map(|object| object.name().to_owned()).collect()
}

/// The name of the Job of the last beginning of a year.
fn last_name() -> String {
    let year = rt::now().strftime("%Y-01-01T00:00:00Z").to_string();
    format!("report-{}", time::parse(&year).unwrap().as_second() / 60)
}

async fn has_event(world: &World, text: &str) {
    world.wait_for(text, |_| world.events().iter().any(|event| event.starts_with(text))).await;
}

#[tokio::test]
async fn a_job_is_started_for_the_last_time_that_was_missed() {
    let world = World::start(vec![descriptor()], vec![cron(&json!({"timeZone": "Etc/UTC"}))]);
    world.wait_for("a Job", |fake| !status(fake).array_at(&["active"]).is_empty()).await;
    let name = last_name();
    assert_eq!(names(&world.fake, &JOBS), [name.as_str()]);
    let job = world.tree(&JOBS, "ns", &name);
    let at = rt::now().strftime("%Y-01-01T00:00:00Z").to_string();
    assert_eq!(job["metadata"]["labels"], json!({"app": "report"}));
    assert_eq!(
        job["metadata"]["annotations"],
        json!({"note": "x", "batch.kubernetes.io/cronjob-scheduled-timestamp": at.as_str()})
    );
    assert_eq!(
        job["metadata"]["ownerReferences"],
        json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": "cron-uid", "controller": true,
            "blockOwnerDeletion": true}])
    );
    assert_eq!(job["spec"], json!({"completions": 1, "anUnknownField": 1}));
    let status = status(&world.fake);
    assert_eq!(status.str_at(&["lastScheduleTime"]), at);
    assert_eq!(status["active"][0].str_at(&["uid"]), job.str_at(&["metadata", "uid"]));
    assert_eq!(status["active"][0].str_at(&["apiVersion"]), "batch/v1");
    has_event(&world, &format!("SuccessfulCreate: Created job {name}")).await;

    // It ends well.
    let ended = "2026-02-03T04:05:06Z";
    world.fake.edit(&JOBS, "ns", &name, |job| {
        let conditions = json!([{"type": "Complete", "status": "True", "lastTransitionTime": ended}]);
        job.set_at(&["status"], json!({"completionTime": ended, "conditions": conditions}));
    });
    world.wait_for("noted", |fake| status_text(fake, "lastSuccessfulTime") == ended).await;
    assert!(self::status(&world.fake)["active"].is_null());
    has_event(&world, &format!("SawCompletedJob: Saw completed job: {name}, condition: Complete")).await;
    assert_eq!(names(&world.fake, &JOBS).len(), 1, "each time has one Job");
}

fn status_text(fake: &FakeApi, field: &str) -> String {
    status(fake).str_at(&[field]).to_owned()
}

#[tokio::test]
async fn a_job_that_is_still_active_is_kept_alone_left_alone_or_replaced() {
    let rows = [("Allow", vec!["earlier", "new"]), ("Forbid", vec!["earlier"]), ("Replace", vec!["new"])];
    for (policy, wanted) in rows {
        let world = World::start(vec![descriptor()], cron_with_active(&json!({"concurrencyPolicy": policy})));
        if policy == "Forbid" {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            has_event(&world, &format!("JobAlreadyActive: {message}")).await;
        } else {
            world.wait_for("a Job", |fake| names(fake, &JOBS).contains(&last_name())).await;
        }
        let named = |name: &str| if name == "earlier" { "earlier".to_owned() } else { last_name() };
        let wanted: Vec<String> = wanted.into_iter().map(named).collect();
        assert_eq!(names(&world.fake, &JOBS), wanted, "{policy}");
        world
            .wait_for("the status says so", |fake| {
                let active = status(fake);
                let names = active.array_at(&["active"]).iter().map(|own| own.str_at(&["name"]).to_owned());
                names.collect::<Vec<_>>() == wanted
            })
            .await;
        if policy == "Replace" {
            has_event(&world, "SuccessfulDelete: Deleted job earlier").await;
        }
    }
}

#[tokio::test]
async fn nothing_is_started_while_suspended_or_by_a_schedule_that_is_none() {
    let unsupported =
        "UnsupportedSchedule: CRON_TZ or TZ used in schedule \"TZ=Moon/Tycho @yearly\" is not officially";
    let rows = [
        (
            json!({"startingDeadlineSeconds": 1, "schedule": "* * * * *", "timeZone": "Moon/Tycho"}),
            "UnknownTimeZone: invalid timeZone: \"Moon/Tycho\": unknown time zone Moon/Tycho",
        ),
        (
            json!({"schedule": "nope"}),
            "UnparseableSchedule: unparseable schedule: \"nope\" : expected exactly 5 fields, found 1: [nope]",
        ),
        (
            json!({"schedule": "59 23 31 2 *"}),
            "InvalidSchedule: invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second",
        ),
        (json!({"schedule": "TZ=Moon/Tycho @yearly"}), unsupported),
    ];
    for (spec, event) in rows {
        let world = World::start(vec![descriptor()], vec![cron(&spec)]);
        has_event(&world, event).await;
        assert_eq!(names(&world.fake, &JOBS).len(), 0, "{event}");
    }
    let suspended = World::start(vec![descriptor()], vec![cron(&json!({"suspend": true}))]);
    rt::sleep(Duration::from_millis(20)).await;
    assert_eq!(names(&suspended.fake, &JOBS).len(), 0);
}

#[tokio::test]
async fn the_history_keeps_the_latest_jobs_of_each_end() {
    let ended =
        |name: &str, end: &str, day: u8| job(name, Some((end, &format!("2025-01-{day:02}T00:00:00Z"))));
    let seeds = vec![
        cron(&json!({"suspend": true, "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 0})),
        ended("c1", "Complete", 1),
        ended("c4", "Complete", 4),
        ended("c3", "Complete", 3),
        ended("f1", "Failed", 1),
        job("running", None),
    ];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("the old ones gone", |fake| names(fake, &JOBS) == ["c3", "c4", "running"]).await;
    world
        .wait_for("success noted", |fake| status_text(fake, "lastSuccessfulTime") == "2025-01-04T00:00:00Z")
        .await;
    has_event(&world, "SuccessfulDelete: Deleted job c1").await;
    has_event(&world, "UnexpectedJob: Saw a job that the controller did not create or forgot: running").await;
}

#[tokio::test]
async fn an_active_job_that_is_gone_is_forgotten() {
    let mut seeds = cron_with_active(&json!({"suspend": true}));
    seeds.pop();
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("forgotten", |fake| status(fake)["active"].is_null()).await;
    has_event(&world, "MissingJob: Active job went missing: earlier").await;
}

#[tokio::test]
async fn a_job_that_was_made_just_before_the_end_is_not_made_again() {
    let mut world = World::start(vec![descriptor()], vec![]);
    let (mut refused, mut told) = (0, 0);
    world.fake.fail(move |call| {
        let is_status = call.resource == "cronjobs" && call.subresource == "status";
        refused += usize::from(is_status && refused < 1);
        told += usize::from(is_status);
        (is_status && told <= refused).then(|| Status::internal("interrupted"))
    });
    world.fake.seed(cron(&json!({})));
    world.wait_for("a Job", |fake| !names(fake, &JOBS).is_empty()).await;
    world.restart(vec![descriptor()]);
    world.wait_for("it is active", |fake| status(fake).array_at(&["active"]).len() == 1).await;
    assert_eq!(names(&world.fake, &JOBS), [last_name()]);
    assert_eq!(status(&world.fake)["active"][0].str_at(&["name"]), last_name());
}

#[tokio::test]
async fn a_new_schedule_is_not_followed_backwards() {
    let world = World::start(vec![descriptor()], vec![cron(&json!({}))]);
    world.wait_for("a Job", |fake| !status(fake).array_at(&["active"]).is_empty()).await;
    world.fake.edit(&CRON_JOBS, "ns", "report", |cron| cron.set_at(&["spec", "schedule"], "0 1 1 1 *"));
    rt::sleep(Duration::from_millis(50)).await;
    assert_eq!(names(&world.fake, &JOBS), [last_name()]);
}

#[tokio::test]
async fn a_job_is_started_when_its_time_has_come() {
    let mut seed = cron(&json!({"schedule": "@every 1s"}));
    seed.set_at(&["metadata", "creationTimestamp"], time::format_seconds(rt::now()));
    let world = World::start(vec![descriptor()], vec![seed]);
    rt::sleep(Duration::from_millis(20)).await;
    world.wait_for("a Job", |fake| !names(fake, &JOBS).is_empty()).await;
}

fn view_of(tree: &Value) -> Arc<CronJob> {
    crate::testing::object(tree.clone()).view::<CronJob>().unwrap()
}

#[test]
fn what_is_due_is_the_last_time_that_was_missed() {
    let at = |text: &str| time::parse(text).unwrap();
    let hourly = |last: &str, spec: Value| {
        let mut tree = cron(&spec);
        tree.set_at(&["spec", "schedule"], "0 * * * *");
        if !last.is_empty() {
            tree.set_at(&["status", "lastScheduleTime"], last);
        }
        tree
    };
    let start = |time: &str| Due::Start { at: at(time), replace: false };
    let rows = [
        // created at midnight of 2024-06-01
        (hourly("", json!({})), "2024-06-01T00:59:59Z", Due::Nothing, false, Some(1)),
        (hourly("", json!({})), "2024-06-01T01:00:00Z", start("2024-06-01T01:00:00Z"), false, Some(3600)),
        (hourly("2024-06-01T01:00:00Z", json!({})), "2024-06-01T01:30:00Z", Due::Nothing, false, Some(1800)),
        (
            hourly("2024-06-01T01:00:00Z", json!({})),
            "2024-06-01T05:30:00Z",
            start("2024-06-01T05:00:00Z"),
            false,
            Some(1800),
        ),
        (hourly("", json!({})), "2024-06-08T00:30:00Z", start("2024-06-08T00:00:00Z"), true, Some(1800)),
        (
            hourly("", json!({"startingDeadlineSeconds": 3600})),
            "2024-06-08T00:30:00Z",
            start("2024-06-08T00:00:00Z"),
            false,
            Some(1800),
        ),
        (
            hourly("", json!({"startingDeadlineSeconds": 60})),
            "2024-06-08T00:30:00Z",
            Due::Nothing,
            false,
            Some(1800),
        ),
        (
            hourly("", json!({"concurrencyPolicy": "Replace"})),
            "2024-06-01T01:00:00Z",
            Due::Start { at: at("2024-06-01T01:00:00Z"), replace: true },
            false,
            Some(3600),
        ),
    ];
    for (tree, now, wanted, many, wait) in rows {
        let cron = view_of(&tree);
        let timetable = Timetable::parse(&cron.spec.schedule, None).unwrap();
        assert_eq!(plan::due(&cron, &[], &timetable, at(now)), (wanted, many), "{now}");
        let last = timestamp(cron.status.last_schedule_time.as_ref());
        let look = plan::next_look(&cron, last, &timetable, at(now)).map(|wait| wait.as_secs());
        assert_eq!(look, wait, "{now}");
    }
}

#[test]
fn a_deadline_that_passed_is_a_miss() {
    let mut tree = cron(&json!({"schedule": "0 0 1 1 *", "startingDeadlineSeconds": 10}));
    tree.set_at(&["metadata", "creationTimestamp"], "2024-06-01T00:00:00Z");
    let cron = view_of(&tree);
    let timetable = Timetable::parse(&cron.spec.schedule, None).unwrap();
    let now = time::parse("2025-01-01T00:00:10Z").unwrap();
    let due = plan::due(&cron, &[], &timetable, now).0;
    assert_eq!(due, Due::Nothing, "a time at the very deadline is not after it");
    let now = time::parse("2025-01-01T00:00:09.5Z").unwrap();
    assert!(matches!(plan::due(&cron, &[], &timetable, now).0, Due::Start { .. }));
}
