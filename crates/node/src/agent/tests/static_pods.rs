//! Pods that files describe.

use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::Status;

use super::*;

/// Beside it first, and then at once: nobody reads half of it.
fn write(world: &World, pod: &str, image: &str) {
    let folder = world.root().join("manifests");
    std::fs::create_dir_all(&folder).expect("a folder");
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": "ns"},
        "spec": {"terminationGracePeriodSeconds": 1,
            "containers": [{"name": pod, "image": image, "imagePullPolicy": "IfNotPresent"}]},
    });
    let next = folder.join(format!(".{pod}"));
    std::fs::write(&next, manifest.to_json_string()).expect("it is written");
    std::fs::rename(&next, folder.join(format!("{pod}.json"))).expect("it is moved");
}

fn remove(world: &World, pod: &str) {
    std::fs::remove_file(world.root().join(format!("manifests/{pod}.json"))).expect("it is removed");
}

#[tokio::test]
async fn a_static_pod_runs_without_an_api_and_is_shown_once_there_is_one() {
    let world = World::new();
    let is_away = Arc::new(AtomicBool::new(true));
    let away = is_away.clone();
    world.api.fail(move |_| away.load(Ordering::SeqCst).then(|| Status::internal("no route to host")));
    write(&world, "web", "i");
    let ready = world.begin();
    world.until("it runs", |world| world.runtime.running("web").is_some()).await;
    let id = world.runtime.running("web");
    world.runtime.exit("web", 1);
    world
        .until("it runs again", |world| world.runtime.running("web").is_some_and(|own| Some(own) != id))
        .await;

    is_away.store(false, Ordering::SeqCst);
    ready.await.expect("the agent starts");
    world.until_state("web-n1", "Running running").await;
    let mirror = world.pod("web-n1");
    let annotation = |key| mirror.str_at(&["metadata", "annotations", key]).to_owned();
    assert_eq!(annotation("kubernetes.io/config.source"), "file");
    assert_eq!(annotation("kubernetes.io/config.mirror"), annotation("kubernetes.io/config.hash"));
    let owner = &mirror["metadata"]["ownerReferences"][0];
    assert_eq!((owner.str_at(&["kind"]), owner.str_at(&["name"])), ("Node", "n1"));
    assert_eq!(mirror["status"]["containerStatuses"][0]["restartCount"], 1.into());
}

#[tokio::test]
async fn a_mirror_that_is_deleted_comes_back_and_its_containers_run_on() {
    let world = World::new();
    write(&world, "web", "i");
    world.run().await;
    world.until_state("web-n1", "Running running").await;
    let (uid, id) =
        (world.pod("web-n1").str_at(&["metadata", "uid"]).to_owned(), world.runtime.running("web"));
    world.api.edit(&PODS, "ns", "web-n1", |pod| {
        pod.set_at(&["metadata", "deletionTimestamp"], apimachinery::time::format_seconds(rt::now()));
        pod.set_at(&["metadata", "deletionGracePeriodSeconds"], 30_i64);
    });
    let is_another = |world: &World| {
        let mirror = world.pod("web-n1");
        let own = mirror.str_at(&["metadata", "uid"]);
        !own.is_empty() && own != uid && mirror.at(&["metadata", "deletionTimestamp"]).is_none()
    };
    world.until("another mirror", is_another).await;
    world.until_state("web-n1", "Running running").await;
    assert_eq!(world.runtime.running("web"), id);
}

#[tokio::test]
async fn pods_come_change_and_go_with_their_files() {
    let mut world = World::new();
    world.runtime.add_image("j");
    write(&world, "a", "i");
    world.run().await;
    world.until_state("a-n1", "Running running").await;
    let hash = |world: &World| {
        world.pod("a-n1").str_at(&["metadata", "annotations", "kubernetes.io/config.hash"]).to_owned()
    };
    let first = hash(&world);
    std::fs::write(world.root().join("manifests/bad.yaml"), "kind: [").expect("it is written");
    write(&world, "b", "i");
    world.until_state("b-n1", "Running running").await;
    write(&world, "a", "j");
    world
        .until("another pod", |world| hash(world) != first && world.state("a-n1") == "Running running")
        .await;
    assert_eq!(world.runtime.config("a").expect("it runs").image, "sha256:j");
    remove(&world, "b");
    world.until("the end of its mirror", |world| world.api.peek(&PODS, "ns", "b-n1").is_none()).await;
    assert_eq!(world.runtime.len(), 2, "a sandbox and a container");

    // Nothing is made anew by an agent that comes back, and what went meanwhile goes.
    let id = world.runtime.running("a");
    world.restart().await;
    world.until_state("a-n1", "Running running").await;
    assert_eq!(world.runtime.running("a"), id);
    world.shutdown.cancel();
    remove(&world, "a");
    world.restart().await;
    world.until("an empty runtime", |world| world.runtime.is_empty()).await;
    world.until("the end of its mirror", |world| world.api.peek(&PODS, "ns", "a-n1").is_none()).await;
}

#[tokio::test]
async fn a_mirror_of_nothing_goes() {
    let mut stranger = pod("stranger", json!({}));
    stranger.set_at(&["metadata", "annotations", "kubernetes.io/config.mirror"], "7");
    let world = World::start(vec![stranger]).await;
    world.until("its end", |world| world.api.peek(&PODS, "ns", "stranger").is_none()).await;
    assert!(world.runtime.is_empty());
}

#[tokio::test]
async fn a_pod_of_the_api_that_calls_itself_static_is_none() {
    let mut pretender = pod("p", json!({"terminationGracePeriodSeconds": 1}));
    pretender.set_at(&["metadata", "annotations", "kubernetes.io/config.source"], "file");
    let world = World::start(vec![pretender]).await;
    world.until_state("p", "Running running").await;
    world.api.edit(&PODS, "ns", "p", |pod| {
        pod.set_at(&["metadata", "deletionTimestamp"], apimachinery::time::format_seconds(rt::now()));
        pod.set_at(&["metadata", "deletionGracePeriodSeconds"], 1_i64);
    });
    world.until("its end", |world| world.api.peek(&PODS, "ns", "p").is_none()).await;
    world.until("an empty runtime", |world| world.runtime.is_empty()).await;
}
