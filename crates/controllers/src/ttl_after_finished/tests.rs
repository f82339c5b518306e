use apimachinery::{Value, json, time};

use super::*;
use crate::testing::World;

fn job(name: &str, ttl: Option<i32>, condition: Option<(&str, Timestamp)>) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "ns"}, "spec": {}});
    if let Some(ttl) = ttl {
        job.set_at(&["spec", "ttlSecondsAfterFinished"], ttl);
    }
    if let Some((type_, at)) = condition {
        let at = time::format_seconds(at);
        let conditions = json!([{"type": type_, "status": "True", "lastTransitionTime": at}]);
        job.set_at(&["status", "conditions"], conditions);
    }
    job
}

fn deleted(world: &World) -> Vec<String> {
    let jobs = world.fake.peek_all(&JOBS);
    jobs.iter().filter(|job| job.is_deleting()).map(|job| job.name().to_owned()).collect()
}

#[tokio::test]
async fn jobs_go_after_their_time_with_their_pods_before_them() {
    let (now, long_ago) = (rt::now(), time::parse("2020-01-01T00:00:00Z").unwrap());
    let seeds = vec![
        job("a-complete", Some(60), Some(("Complete", long_ago))),
        job("b-failed", Some(0), Some(("Failed", long_ago))),
        job("c-soon", Some(1), Some(("Complete", now))),
        job("not-yet", Some(600), Some(("Complete", now))),
        job("for-ever", None, Some(("Complete", long_ago))),
        job("running", Some(0), None),
        job("suspended", Some(0), Some(("Suspended", long_ago))),
    ];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("three are gone", |_| deleted(&world) == ["a-complete", "b-failed", "c-soon"]).await;
    let gone = world.tree(&JOBS, "ns", "a-complete");
    assert_eq!(gone["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    rt::sleep(Duration::from_millis(20)).await;
    assert_eq!(deleted(&world).len(), 3);
}

#[tokio::test]
async fn a_time_that_was_prolonged_counts_though_the_cache_lags() {
    let long_ago = time::parse("2020-01-01T00:00:00Z").unwrap();
    let world = World::start(vec![descriptor()], vec![]);
    world.wait_for("a watch", |fake| fake.calls().iter().any(|call| call.verb == "watch")).await;
    world.fake.fail({
        let (fake, mut done) = (world.fake.clone(), false);
        move |call| {
            // Between the look at the cache and the one at the API.
            if call.verb == "get" && !std::mem::replace(&mut done, true) {
                fake.edit(&JOBS, "ns", "work", |job| {
                    job.remove_at(&["spec", "ttlSecondsAfterFinished"]).map_or((), drop)
                });
            }
            None
        }
    });
    world.fake.seed(job("work", Some(1), Some(("Complete", long_ago))));
    world.wait_for("a look", |fake| fake.calls().iter().any(|call| call.verb == "get")).await;
    rt::sleep(Duration::from_millis(20)).await;
    assert_eq!(deleted(&world).len(), 0);
}
