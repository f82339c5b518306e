use api::gvr::ENDPOINT_SLICES;
use apimachinery::{Value, json};

use super::*;
use crate::testing::{World, make_ready};

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "ns", "uid": "s-uid",
        "labels": {"team": "a"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}})
}

fn pod(number: usize) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{number:04}"), "namespace": "ns", "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]}});
    make_ready(&mut pod);
    let address = format!("10.0.{}.{}", number / 250, number % 250 + 1);
    pod.set_at(&["status", "podIP"], address.as_str());
    pod.set_at(&["status", "podIPs"], json!([{"ip": address}]));
    pod
}

fn node() -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}})
}

fn slices(fake: &client::fake::FakeApi) -> Vec<Value> {
    fake.peek_all(&ENDPOINT_SLICES).iter().map(|slice| slice.to_value()).collect()
}

fn sizes(fake: &client::fake::FakeApi) -> Vec<usize> {
    let mut sizes: Vec<usize> =
        slices(fake).iter().map(|slice| slice.array_at(&["endpoints"]).len()).collect();
    sizes.sort_unstable();
    sizes
}

#[tokio::test]
async fn a_slice_tells_address_port_conditions_node_and_zone() {
    let world = World::start(vec![descriptor()], vec![node(), service(), pod(1)]);
    world.wait_for("an endpoint", |fake| sizes(fake) == [1]).await;
    let slice = &slices(&world.fake)[0];
    assert!(slice.str_at(&["metadata", "name"]).starts_with("web-"));
    assert_eq!(slice["addressType"].as_str(), Some("IPv4"));
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["10.0.0.2"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "n1", "zone": "z1",
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": "p0001", "uid": "u1"}}])
    );
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0].str_at(&["uid"]), "s-uid");
    assert_eq!(
        slice["metadata"]["annotations"],
        json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"})
    );
}

#[tokio::test]
async fn a_service_without_pods_has_one_empty_slice() {
    let world = World::start(vec![descriptor()], vec![service()]);
    world.wait_for("a placeholder", |fake| sizes(fake) == [0]).await;
    let name = slices(&world.fake)[0].str_at(&["metadata", "name"]).to_owned();
    world.fake.seed(node());
    world.fake.seed(pod(1));
    world.wait_for("the endpoint", |fake| sizes(fake) == [1]).await;
    assert_eq!(slices(&world.fake)[0].str_at(&["metadata", "name"]), name, "the placeholder is used");
    world.fake.drop_object(&PODS, "ns", "p0001");
    world.wait_for("a placeholder again", |fake| sizes(fake) == [0]).await;
}

#[tokio::test]
async fn slices_hold_a_hundred_and_keep_endpoints_in_place() {
    let mut seeds = vec![node(), service()];
    seeds.extend((0..250).map(pod));
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("three slices", |fake| sizes(fake) == [50, 100, 100]).await;
    world.fake.take_writes();
    world.fake.drop_object(&PODS, "ns", "p0000");
    world.wait_for("one fewer", |fake| sizes(fake).iter().sum::<usize>() == 249).await;
    let writes: Vec<String> =
        world.fake.take_writes().into_iter().filter(|write| write.contains("slices")).collect();
    assert_eq!(writes.len(), 1, "only the slice that had it is written: {writes:?}");
    world.fake.seed(pod(300));
    world.wait_for("one more", |fake| sizes(fake).iter().sum::<usize>() == 250).await;
    assert_eq!(sizes(&world.fake), [50, 100, 100], "the best filled slice took it");
}

#[tokio::test]
async fn a_slice_that_is_tampered_with_is_put_right() {
    let world = World::start(vec![descriptor()], vec![node(), service(), pod(1)]);
    world.wait_for("an endpoint", |fake| sizes(fake) == [1]).await;
    let name = slices(&world.fake)[0].str_at(&["metadata", "name"]).to_owned();
    world.fake.edit(&ENDPOINT_SLICES, "ns", &name, |slice| slice.set_at(&["endpoints"], json!([])));
    world.wait_for("restored", |fake| sizes(fake) == [1]).await;
    world.fake.drop_object(&ENDPOINT_SLICES, "ns", &name);
    world.wait_for("made anew", |fake| sizes(fake) == [1]).await;
}

#[tokio::test]
async fn services_that_are_not_ours_get_no_slices() {
    let mut without = service();
    without.remove_at(&["spec", "selector"]);
    let mut external = service();
    external.set_at(&["metadata", "name"], "external");
    external.set_at(&["spec", "type"], "ExternalName");
    let mut marker = service();
    marker.set_at(&["metadata", "name"], "marker");
    let world = World::start(vec![descriptor()], vec![without, external, marker]);
    world.wait_for("the marker's", |fake| !slices(fake).is_empty()).await;
    rt::sleep(std::time::Duration::from_millis(10)).await;
    let owners: Vec<String> = slices(&world.fake)
        .iter()
        .map(|slice| slice["metadata"]["labels"].str_at(&[crate::service::slices::SERVICE_NAME]).to_owned())
        .collect();
    assert_eq!(owners, ["marker"]);
}

fn wanted_endpoint(change_service: impl FnOnce(&mut Service), change_pod: impl FnOnce(&mut Value)) -> Value {
    let mut service: Service = serde_json::from_str(&service().to_string()).unwrap();
    change_service(&mut service);
    let mut tree = pod(1);
    change_pod(&mut tree);
    let pod = crate::testing::object(tree).view::<api::view::Pod>().unwrap();
    let wanted = plan::wanted(&service, &[pod], |_| Some("z1".into()));
    let source = crate::testing::object(self::service());
    let changes = plan::changes(&source, &service, &wanted, &[]);
    changes.create[0]["endpoints"][0].clone()
}

#[test]
fn conditions_follow_readiness_and_deletion() {
    let conditions = |endpoint: Value| {
        let own = &endpoint["conditions"];
        ["ready", "serving", "terminating"].map(|name| own[name].as_bool().unwrap())
    };
    let deleting = |pod: &mut Value| pod.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
    let unready = |pod: &mut Value| pod.set_at(&["status", "conditions"], json!([]));
    let publish = |service: &mut Service| service.spec.publish_not_ready_addresses = true;
    assert_eq!(conditions(wanted_endpoint(|_| {}, |_| {})), [true, true, false]);
    assert_eq!(conditions(wanted_endpoint(|_| {}, unready)), [false, false, false]);
    assert_eq!(conditions(wanted_endpoint(|_| {}, deleting)), [false, true, true]);
    assert_eq!(conditions(wanted_endpoint(publish, unready)), [true, false, false]);
    assert_eq!(conditions(wanted_endpoint(publish, deleting)), [true, true, true]);
}

#[test]
fn hints_and_hostnames_are_given_where_asked_for() {
    let near = |service: &mut Service| service.spec.traffic_distribution = "PreferClose".into();
    let same_node = |service: &mut Service| service.spec.traffic_distribution = "PreferSameNode".into();
    assert_eq!(wanted_endpoint(near, |_| {})["hints"], json!({"forZones": [{"name": "z1"}]}));
    assert_eq!(
        wanted_endpoint(same_node, |_| {})["hints"],
        json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]})
    );
    assert!(wanted_endpoint(|_| {}, |_| {})["hints"].is_null());
    let named = |pod: &mut Value| {
        pod.set_at(&["spec", "hostname"], "h");
        pod.set_at(&["spec", "subdomain"], "web");
    };
    assert_eq!(wanted_endpoint(|_| {}, named)["hostname"].as_str(), Some("h"));
}

#[test]
fn a_pod_on_an_unknown_node_is_left_out_and_told() {
    let service: Service = serde_json::from_str(&service().to_string()).unwrap();
    let pod = crate::testing::object(pod(1)).view::<api::view::Pod>().unwrap();
    let wanted = plan::wanted(&service, &[pod], |_| None);
    assert_eq!(wanted.skipped, ["skipping Pod p0001 for Service ns/web: Node n1 Not Found"]);
}
