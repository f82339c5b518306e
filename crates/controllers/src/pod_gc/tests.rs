use super::*;
use crate::testing::World;

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
        "spec": {"nodeName": node}, "status": {"phase": "Running"}})
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

fn names(fake: &client::fake::FakeApi) -> Vec<String> {
    fake.peek_all(&PODS).iter().map(|pod| pod.name().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn pods_of_vanished_nodes_are_failed_and_deleted_after_the_quarantine() {
    let seeds = vec![node("here"), pod("mine", "here"), pod("orphan", "vanished"), pod("free", "")];
    let world = World::start(vec![descriptor()], seeds);
    rt::sleep(Duration::from_secs(35)).await;
    assert_eq!(names(&world.fake), ["free", "mine", "orphan"]);
    world.wait_for("the orphan gone", |fake| names(fake) == ["free", "mine"]).await;
    let writes = world.fake.take_writes();
    assert_eq!(writes, ["patch pods/status ns/orphan", "delete pods ns/orphan"]);
}

#[tokio::test]
async fn deleted_pods_that_no_node_finishes_are_removed() {
    let deleting = |mut pod: Value| {
        pod.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        pod.set_at(&["metadata", "deletionGracePeriodSeconds"], 30);
        pod
    };
    let mut dead = node("dead");
    dead.set_at(&["spec", "taints"], json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]));
    let seeds = vec![
        node("alive"),
        dead,
        deleting(pod("unscheduled", "")),
        deleting(pod("on-dead", "dead")),
        deleting(pod("on-alive", "alive")),
        pod("kept", "dead"),
    ];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("two gone", |fake| names(fake) == ["kept", "on-alive"]).await;
}

#[tokio::test]
async fn the_oldest_of_too_many_done_pods_go_first() {
    let fake = client::fake::FakeApi::new();
    for (name, created, reason) in [("b", "2", ""), ("a", "1", ""), ("c", "3", "Evicted"), ("d", "4", "")] {
        let mut pod = pod(name, "n");
        pod.set_at(&["metadata", "creationTimestamp"], format!("2026-01-0{created}T00:00:00Z"));
        pod.set_at(&["status"], json!({"phase": "Failed", "reason": reason}));
        fake.seed(pod);
    }
    let informers = client::Informers::new(fake.clone(), rt::Shutdown::new());
    let (nodes, pods) = (informers.of(&NODES), informers.of(&PODS));
    pods.add_index(TERMINATED, |_| vec!["".into()]);
    pods.synced().await;
    let controller = Controller { api: fake.clone(), nodes, pods, terminated_max: 2 };
    controller.collect_terminated().await.unwrap();
    assert_eq!(names(&fake), ["b", "d"]);
}
