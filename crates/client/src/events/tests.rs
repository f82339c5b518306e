use std::time::Duration;

use super::*;
use crate::fake::FakeApi;

async fn wait_for(mut reached: impl FnMut() -> bool) {
    for _ in 0..500 {
        if reached() {
            return;
        }
        rt::sleep(Duration::from_millis(2)).await;
    }
    panic!("not reached within a second");
}

fn pod(name: &str) -> Reference {
    Reference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: "ns".into(),
        name: name.into(),
        uid: "u1".into(),
        ..Reference::default()
    }
}

#[tokio::test]
async fn an_event_is_written_once_and_then_counted() {
    let fake = FakeApi::new();
    let recorder = Recorder::new(fake.clone(), "test-controller", Shutdown::new());
    recorder.normal(&pod("a"), "Created", "made it");
    wait_for(|| fake.peek_all(&api::gvr::EVENTS).len() == 1).await;
    recorder.normal(&pod("a"), "Created", "made it");
    recorder.normal(&pod("a"), "Created", "made it");
    wait_for(|| fake.peek_all(&api::gvr::EVENTS)[0].to_value()["count"].as_i64() == Some(3)).await;

    let event = fake.peek_all(&api::gvr::EVENTS)[0].to_value();
    assert_eq!(event.str_at(&["involvedObject", "uid"]), "u1");
    assert_eq!(event.str_at(&["source", "component"]), "test-controller");
    assert_eq!(event.str_at(&["type"]), "Normal");
    assert!(event.str_at(&["metadata", "name"]).starts_with("a."));
    assert_eq!(event.str_at(&["metadata", "namespace"]), "ns");
}

#[tokio::test]
async fn an_event_that_expired_is_made_anew() {
    let fake = FakeApi::new();
    let recorder = Recorder::new(fake.clone(), "test-controller", Shutdown::new());
    recorder.normal(&pod("a"), "Created", "made it");
    wait_for(|| fake.peek_all(&api::gvr::EVENTS).len() == 1).await;
    let first = fake.peek_all(&api::gvr::EVENTS)[0].name().to_owned();
    fake.drop_object(&api::gvr::EVENTS, "ns", &first);
    recorder.normal(&pod("a"), "Created", "made it");
    wait_for(|| fake.calls().iter().any(|call| call.verb == "patch")).await;
    rt::sleep(Duration::from_millis(5)).await;
    recorder.normal(&pod("a"), "Created", "made it");
    wait_for(|| fake.peek_all(&api::gvr::EVENTS).len() == 1).await;
}

#[tokio::test]
async fn events_about_cluster_scoped_objects_live_in_default() {
    let fake = FakeApi::new();
    let recorder = Recorder::new(fake.clone(), "node-controller", Shutdown::new());
    let node = Reference { kind: "Node".into(), name: "n1".into(), ..Reference::default() };
    recorder.warning(&node, "NodeNotReady", "Node n1 status is now: NodeNotReady");
    wait_for(|| fake.peek_all(&api::gvr::EVENTS).len() == 1).await;
    assert_eq!(fake.peek_all(&api::gvr::EVENTS)[0].namespace(), "default");
}
