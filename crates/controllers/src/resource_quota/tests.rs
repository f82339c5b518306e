use api::gvr::{CONFIG_MAPS, PODS};
use apimachinery::json;

use super::*;
use crate::testing::{World, object};

fn quota(hard: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "ns"},
        "spec": {"hard": hard}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn used(fake: &client::fake::FakeApi) -> String {
    let quota = fake.peek(&RESOURCE_QUOTAS, "ns", "q").map(|quota| quota.to_value()).unwrap_or_default();
    quota["status"]["used"].to_json_string()
}

#[test]
fn the_status_is_counted_anew() {
    let counts = |pods: Vec<Value>| {
        let kind = Kind::of("", "pods").expect("counted");
        vec![(kind, pods.into_iter().map(object).collect::<Vec<_>>())]
    };
    let mut own = quota(json!({"pods": "5", "requests.cpu": "4", "secrets": "3"}));
    let now = rt::now();
    let status = plan::status(&own, &counts(vec![pod("a", "1"), pod("b", "500m")]), now).expect("new");
    assert_eq!(
        status,
        json!({"hard": {"pods": "5", "requests.cpu": "4", "secrets": "3"},
            "used": {"pods": "2", "requests.cpu": "1500m"}}),
        "what could not be counted is left open"
    );
    own.set_at(&["status"], status);
    assert_eq!(plan::status(&own, &counts(vec![pod("a", "1"), pod("b", "0.5")]), now), None);
    let fewer = plan::status(&own, &counts(vec![]), now).expect("changed");
    assert_eq!(fewer["used"], json!({"pods": "0", "requests.cpu": "0"}));
}

#[test]
fn scopes_narrow_what_is_counted() {
    let mut own = quota(json!({"pods": "5", "configmaps": "1"}));
    own.set_at(&["spec", "scopes"], json!(["NotTerminating"]));
    let mut ending = pod("b", "1");
    ending.set_at(&["spec", "activeDeadlineSeconds"], 5);
    let kind = |plural: &str| Kind::of("", plural).expect("counted");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "ns"}});
    let counts = [
        (kind("pods"), vec![object(pod("a", "1")), object(ending)]),
        (kind("configmaps"), vec![object(map)]),
    ];
    let status = plan::status(&own, &counts, rt::now()).expect("new");
    assert_eq!(status["used"], json!({"pods": "1", "configmaps": "0"}));
}

#[tokio::test]
async fn usage_follows_what_goes_and_what_the_quota_says() {
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}});
    let seeds = vec![map("a"), map("b"), pod("p", "1"), quota(json!({"configmaps": "5", "pods": "2"}))];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("counted", |fake| used(fake) == r#"{"configmaps":"2","pods":"1"}"#).await;
    world.fake.drop_object(&CONFIG_MAPS, "ns", "a");
    world.wait_for("one less", |fake| used(fake) == r#"{"configmaps":"1","pods":"1"}"#).await;
    world.fake.edit(&PODS, "ns", "p", |pod| {
        pod.set_at(&["status", "phase"], "Succeeded");
    });
    world.wait_for("done pods are free", |fake| used(fake) == r#"{"configmaps":"1","pods":"0"}"#).await;
    world.fake.edit(&RESOURCE_QUOTAS, "ns", "q", |quota| {
        quota.set_at(&["spec", "hard"], json!({"count/configmaps": "5"}));
    });
    world.wait_for("another limit", |fake| used(fake) == r#"{"count/configmaps":"1"}"#).await;
}
