use api::gvr::ENDPOINT_SLICES;
use apimachinery::{Value, json};
use client::fake::FakeApi;

use super::*;
use crate::service::backends::Family;
use crate::testing::{World, object};

fn service(selector: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": "ns"},
        "spec": {"selector": selector}})
}

fn endpoints(subsets: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db", "namespace": "ns", "uid": "e-uid",
        "labels": {"team": "a"}, "annotations": {"x": "y",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}},
        "subsets": subsets})
}

fn port(number: i64) -> Value {
    json!({"port": number, "protocol": "TCP"})
}

fn one(address: &str) -> Value {
    json!([{"addresses": [{"ip": address}], "ports": [port(80)]}])
}

fn slices(fake: &FakeApi) -> Vec<Value> {
    fake.peek_all(&ENDPOINT_SLICES).iter().map(|slice| slice.to_value()).collect()
}

#[test]
fn endpoints_are_repacked_by_family_and_ports() {
    let tree = endpoints(json!([
        {"addresses": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}], "ports": [port(80)]},
        {"addresses": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}], "ports": [port(443)]},
        {"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [port(80), port(443)]},
        {"addresses": [{"ip": "10.0.0.3"}], "ports": [port(9)]},
        {"addresses": [], "ports": [port(10)]},
    ]));
    let wanted = plan::wanted(&tree);
    assert_eq!(plan::sizes(&wanted), [(Family::Ipv4, 2), (Family::Ipv4, 1), (Family::Ipv6, 1)]);
    assert_eq!((wanted.invalid, wanted.skipped), (0, 0));
    // Ready here and not there, for one port: not ready.
    let tree = endpoints(json!([
        {"addresses": [{"ip": "10.0.0.1"}], "ports": [port(80)]},
        {"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [port(80)]},
    ]));
    let changes = plan::changes(&object(tree.clone()), plan::wanted(&tree), &[]);
    let list = json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]);
    assert_eq!(changes.create[0]["endpoints"], list);
}

#[test]
fn what_cannot_be_mirrored_is_counted() {
    let address = |number: usize| json!({"ip": format!("10.0.{}.{}", number / 250, number % 250)});
    for (count, skipped) in [(999, 0), (1000, 0), (1001, 1)] {
        let mut tree = endpoints(one("10.9.9.9"));
        let list: Vec<Value> = (0..count).map(address).collect();
        tree.set_at(&["subsets"], json!([{"ports": [port(80)]}]));
        let mut subset = tree["subsets"][0].clone();
        subset.set_at(&["addresses"], list);
        tree.set_at(&["subsets"], vec![subset]);
        let wanted = plan::wanted(&tree);
        assert_eq!((wanted.invalid, wanted.skipped), (0, skipped), "{count}");
        assert_eq!(plan::sizes(&wanted), [(Family::Ipv4, count - skipped)]);
    }
    let wanted = plan::wanted(&endpoints(one("nowhere")));
    assert_eq!((wanted.invalid, wanted.skipped), (1, 1));
}

#[test]
fn a_slice_is_rewritten_only_when_it_differs() {
    let own = object(endpoints(one("10.0.0.1")));
    let made = plan::changes(&own, plan::wanted(&own.to_value()), &[]).create.remove(0);
    let stored = |change: &dyn Fn(&mut Value)| {
        let mut slice = made.clone();
        slice.set_at(&["metadata", "name"], "db-x");
        change(&mut slice);
        object(slice)
    };
    let changes = |slice: Arc<Object>| {
        let changes = plan::changes(&own, plan::wanted(&own.to_value()), &[slice]);
        (changes.create.len(), changes.update.len(), changes.delete.len())
    };
    assert_eq!(changes(stored(&|_| {})), (0, 0, 0));
    assert_eq!(changes(stored(&|slice| slice.set_at(&["metadata", "labels", "team"], "b"))), (0, 1, 0));
    assert_eq!(changes(stored(&|slice| slice.set_at(&["metadata", "annotations"], json!({})))), (0, 1, 0));
    assert_eq!(changes(stored(&|slice| slice.set_at(&["endpoints"], json!([])))), (0, 1, 0));
    // Other ports: the slice is used again. Another family: it is not.
    assert_eq!(changes(stored(&|slice| slice.set_at(&["ports"], json!([{"port": 9}])))), (0, 1, 0));
    assert_eq!(changes(stored(&|slice| slice.set_at(&["addressType"], "IPv6"))), (1, 0, 1));
    let of_an_earlier_one = stored(&|slice| {
        let mut owner = slice["metadata"]["ownerReferences"][0].clone();
        owner.set_at(&["uid"], "old");
        slice.set_at(&["metadata", "ownerReferences"], vec![owner]);
    });
    assert_eq!(changes(of_an_earlier_one), (0, 1, 0));
}

#[tokio::test]
async fn endpoints_kept_by_hand_have_a_slice_for_as_long_as_the_service_has_no_selector() {
    let seeds = vec![service(json!({})), endpoints(one("10.0.0.1"))];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("a slice", |fake| slices(fake).len() == 1).await;
    let slice = &slices(&world.fake)[0];
    assert!(slice.str_at(&["metadata", "name"]).starts_with("db-"));
    assert_eq!(slice["addressType"].as_str(), Some("IPv4"));
    assert_eq!(slice["ports"], json!([{"name": "", "port": 80, "protocol": "TCP"}]));
    assert_eq!(slice["endpoints"], json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]));
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["annotations"], json!({"x": "y"}));
    assert_eq!(slice["metadata"]["ownerReferences"][0].str_at(&["kind"]), "Endpoints");

    world.fake.edit(&ENDPOINTS, "ns", "db", |own| own.set_at(&["subsets"], one("10.0.0.2")));
    world
        .wait_for("the new address", |fake| {
            slices(fake)[0]["endpoints"][0]["addresses"] == json!(["10.0.0.2"])
        })
        .await;
    world.fake.edit(&SERVICES, "ns", "db", |own| own.set_at(&["spec", "selector"], json!({"a": "b"})));
    world.wait_for("no slice", |fake| slices(fake).is_empty()).await;
    world.fake.edit(&SERVICES, "ns", "db", |own| own.set_at(&["spec", "selector"], json!({})));
    world.wait_for("a slice again", |fake| slices(fake).len() == 1).await;
    world.fake.edit(&ENDPOINTS, "ns", "db", |own| {
        own.set_at(&["metadata", "labels", "endpointslice.kubernetes.io/skip-mirror"], "true");
    });
    world.wait_for("no slice any more", |fake| slices(fake).is_empty()).await;
}

#[tokio::test]
async fn endpoints_of_leaders_and_without_a_service_have_no_slices() {
    let mut leader = endpoints(one("10.0.0.1"));
    leader.set_at(&["metadata", "annotations", "control-plane.alpha.kubernetes.io/leader"], "{}");
    let mut alone = endpoints(one("10.0.0.1"));
    alone.set_at(&["metadata", "name"], "alone");
    let (mut seen, mut seen_service) = (endpoints(one("10.0.0.1")), service(json!({})));
    for tree in [&mut seen, &mut seen_service] {
        tree.set_at(&["metadata", "name"], "seen");
    }
    let world = World::start(vec![descriptor()], vec![leader, alone, service(json!({})), seen, seen_service]);
    world.wait_for("the other one", |fake| !slices(fake).is_empty()).await;
    let names: Vec<String> = slices(&world.fake)
        .iter()
        .map(|slice| slice.str_at(&["metadata", "labels", "kubernetes.io/service-name"]).to_owned())
        .collect();
    assert_eq!(names, ["seen"]);
}
