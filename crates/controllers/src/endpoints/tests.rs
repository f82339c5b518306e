use apimachinery::{Value, json};

use super::*;
use crate::testing::{World, make_ready, object};

fn service(change: impl FnOnce(&mut Value)) -> Value {
    let mut tree = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "ns", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    change(&mut tree);
    tree
}

fn pod(number: usize, ready: bool) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{number}"), "namespace": "ns", "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
    if ready {
        make_ready(&mut pod);
    }
    let address = format!("10.0.{}.{}", number / 250, number % 250);
    pod.set_at(&["status", "podIP"], address.as_str());
    pod.set_at(&["status", "podIPs"], json!([{"ip": address}]));
    pod
}

fn planned(service_tree: Value, pods: Vec<Value>, current: Option<Value>) -> Option<Value> {
    let service = object(service_tree).view::<Service>().unwrap();
    let pods: Vec<_> = pods.into_iter().map(|pod| object(pod).view::<api::view::Pod>().unwrap()).collect();
    plan::change(&service, &pods, current.map(object).as_deref())
}

#[tokio::test]
async fn endpoints_follow_pods_and_go_with_their_service() {
    let world = World::start(vec![descriptor()], vec![service(|_| {}), pod(1, true), pod(2, false)]);
    let subsets = |fake: &client::fake::FakeApi| {
        fake.peek(&ENDPOINTS, "ns", "web").map(|own| own.to_value()["subsets"].clone()).unwrap_or_default()
    };
    world.wait_for("a subset", |fake| !subsets(fake).is_null()).await;
    let address = |number: usize| {
        json!({"ip": format!("10.0.0.{number}"), "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": format!("p{number}"), "uid": format!("u{number}")}})
    };
    let mut wanted = Value::object();
    wanted.set_at(&["addresses"], vec![address(1)]);
    wanted.set_at(&["notReadyAddresses"], vec![address(2)]);
    wanted.set_at(&["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(subsets(&world.fake), Value::Array(vec![wanted]));
    let tree = world.tree(&ENDPOINTS, "ns", "web");
    assert_eq!(
        tree["metadata"]["labels"],
        json!({"team": "a", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
    );

    world.fake.drop_object(&ENDPOINTS, "ns", "web");
    world.wait_for("made anew", |fake| !subsets(fake).is_null()).await;
    world.fake.drop_object(&PODS, "ns", "p1");
    world.wait_for("one fewer", |fake| subsets(fake)[0]["addresses"].is_null()).await;
    world.fake.drop_object(&SERVICES, "ns", "web");
    world.wait_for("gone", |fake| fake.peek(&ENDPOINTS, "ns", "web").is_none()).await;
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let first = planned(service(|_| {}), vec![pod(1, true)], None).unwrap();
    assert_eq!(planned(service(|_| {}), vec![pod(1, true)], Some(first.clone())), None);
    assert!(planned(service(|_| {}), vec![pod(1, false)], Some(first)).is_some());
}

#[test]
fn headless_services_are_labelled_and_need_no_ports() {
    let headless = service(|tree| {
        tree.set_at(&["spec", "clusterIP"], "None");
        tree.remove_at(&["spec", "ports"]);
    });
    let tree = planned(headless, vec![pod(1, true)], None).unwrap();
    assert_eq!(tree["metadata"]["labels"].str_at(&["service.kubernetes.io/headless"]), "");
    assert!(!tree["metadata"]["labels"]["service.kubernetes.io/headless"].is_null());
    assert_eq!(tree["subsets"][0].array_at(&["addresses"]).len(), 1);
    assert!(tree["subsets"][0]["ports"].is_null());
}

#[test]
fn more_than_a_thousand_addresses_are_cut_and_marked() {
    let mut pods: Vec<Value> = (0..900).map(|number| pod(number, true)).collect();
    pods.extend((900..1200).map(|number| pod(number, false)));
    let tree = planned(service(|_| {}), pods, None).unwrap();
    let subset = &tree["subsets"][0];
    assert_eq!(subset.array_at(&["addresses"]).len(), 900);
    assert_eq!(subset.array_at(&["notReadyAddresses"]).len(), 100);
    assert_eq!(
        tree["metadata"]["annotations"].str_at(&["endpoints.kubernetes.io/over-capacity"]),
        "truncated"
    );
    let pods: Vec<Value> = (0..1100).map(|number| pod(number, number < 1050)).collect();
    let subset = planned(service(|_| {}), pods, None).unwrap()["subsets"][0].clone();
    assert_eq!(subset.array_at(&["addresses"]).len(), 1000);
    assert!(subset["notReadyAddresses"].is_null());
}
