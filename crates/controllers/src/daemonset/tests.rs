use api::view::Node;
use apimachinery::{Value, json};
use client::fake::FakeApi;

use super::plan::{Limits, Verdict};
use super::*;
use crate::testing::{World, make_ready, object};

fn set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "ns", "uid": "set-uid", "generation": 1,
            "annotations": {"deprecated.daemonset.template.generation": "1"}},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "revisionHistoryLimit": 2,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": {"metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": "v1"}]}}}
    })
}

fn surging() -> Value {
    let mut tree = set();
    tree.set_at(&["spec", "updateStrategy", "rollingUpdate"], json!({"maxUnavailable": 0, "maxSurge": 1}));
    tree
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {}})
}

fn tainted(name: &str, key: &str, effect: &str) -> Value {
    let mut node = node(name);
    node.set_at(&["spec", "taints"], json!([{"key": key, "effect": effect}]));
    node
}

fn typed(tree: &Value) -> Arc<DaemonSet> {
    object(tree.clone()).view::<DaemonSet>().unwrap()
}

// === Plans ===

#[test]
fn nodes_are_wanted_by_name_selector_and_taints() {
    let with = |path: &[&str], value: Value| {
        let mut tree = set();
        let mut whole = vec!["spec", "template", "spec"];
        whole.extend(path);
        tree.set_at(&whole, value);
        tree
    };
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]}}});
    let tolerating = json!([{"key": "mine", "operator": "Exists"}]);
    let selector = || with(&["nodeSelector"], json!({"kubernetes.io/hostname": "a"}));
    let network = "node.kubernetes.io/network-unavailable";
    let rows = [
        (set(), node("a"), true, true),
        (with(&["nodeName"], "a".into()), node("a"), true, true),
        (with(&["nodeName"], "a".into()), node("b"), false, false),
        (selector(), node("a"), true, true),
        (selector(), node("b"), false, false),
        (with(&["affinity"], affinity.clone()), node("a"), true, true),
        (with(&["affinity"], affinity), node("b"), false, false),
        (set(), tainted("a", "mine", "NoSchedule"), false, true),
        (set(), tainted("a", "mine", "NoExecute"), false, false),
        (set(), tainted("a", "mine", "PreferNoSchedule"), true, true),
        (with(&["tolerations"], tolerating), tainted("a", "mine", "NoExecute"), true, true),
        (set(), tainted("a", "node.kubernetes.io/not-ready", "NoExecute"), true, true),
        (set(), tainted("a", "node.kubernetes.io/not-ready", "NoSchedule"), false, true),
        (set(), tainted("a", "node.kubernetes.io/unschedulable", "NoSchedule"), true, true),
        (set(), tainted("a", network, "NoSchedule"), false, true),
        (with(&["hostNetwork"], true.into()), tainted("a", network, "NoSchedule"), true, true),
    ];
    for (set, node, should_run, may_stay) in rows {
        let verdict = Placement::of(&typed(&set)).verdict(&object(node.clone()).view::<Node>().unwrap());
        assert_eq!(verdict, Verdict { should_run, may_stay }, "{} {}", set["spec"]["template"]["spec"], node);
    }
}

#[test]
fn a_pod_is_aimed_at_its_node_and_lives_with_its_troubles() {
    let mut tree = set();
    tree.set_at(
        &["spec", "template", "spec", "tolerations"],
        json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
            {"key": "mine", "operator": "Exists"}]),
    );
    tree.set_at(
        &["spec", "template", "spec", "affinity"],
        json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}}),
    );
    let pod = plan::aim_at(plan::pod_of(&object(tree.clone()), &typed(&tree), "abc"), "a");
    assert_eq!(pod["metadata"].str_at(&["generateName"]), "agent-");
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "agent", "controller-revision-hash": "abc", "pod-template-generation": "1"})
    );
    let affinity = &pod["spec"]["affinity"]["nodeAffinity"];
    assert_eq!(
        affinity["requiredDuringSchedulingIgnoredDuringExecution"],
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]})
    );
    assert_eq!(affinity.array_at(&["preferredDuringSchedulingIgnoredDuringExecution"]).len(), 1);
    let tolerations: Vec<String> = pod["spec"]
        .array_at(&["tolerations"])
        .iter()
        .map(|own| {
            format!("{}:{} {}", own.str_at(&["key"]), own.str_at(&["effect"]), own["tolerationSeconds"])
        })
        .collect();
    assert_eq!(
        tolerations,
        [
            "node.kubernetes.io/not-ready:NoExecute null",
            "mine: null",
            "node.kubernetes.io/unreachable:NoExecute null",
            "node.kubernetes.io/disk-pressure:NoSchedule null",
            "node.kubernetes.io/memory-pressure:NoSchedule null",
            "node.kubernetes.io/pid-pressure:NoSchedule null",
            "node.kubernetes.io/unschedulable:NoSchedule null",
        ]
    );
}

/// A pod as `name node [ready] [new] [failed] [deleting] [unscheduled]`; later ones are younger.
fn member(text: &str, age: usize) -> Member {
    let mut words = text.split(' ');
    let (name, node) = (words.next().unwrap(), words.next().unwrap());
    let has = |word: &str| text.split(' ').any(|own| own == word);
    let hash = if has("new") { "new" } else { "old" };
    let mut tree = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns",
        "labels": {"app": "agent", "controller-revision-hash": hash}}, "spec": {}, "status": {"phase": "Running"}});
    tree.set_at(&["metadata", "creationTimestamp"], format!("2026-01-01T00:00:{age:02}Z"));
    if has("unscheduled") {
        tree = plan::aim_at(tree, node);
    } else {
        tree.set_at(&["spec", "nodeName"], node);
    }
    if has("ready") {
        make_ready(&mut tree);
    }
    if has("failed") {
        tree.set_at(&["status", "phase"], "Failed");
    }
    let object = object(tree);
    Member { pod: object.view::<Pod>().unwrap(), is_deleting: has("deleting"), object }
}

fn members(texts: &[&str]) -> Vec<Member> {
    texts.iter().enumerate().map(|(age, text)| member(text, age)).collect()
}

fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
    names.iter().map(|name| object(node(name)).view::<Node>().unwrap()).collect()
}

fn daemon<'a>(set: &'a DaemonSet) -> Daemon<'a> {
    Daemon { set, placement: Placement::of(set), hash: "new", now: rt::now() }
}

/// `+node` for a pod to be made, `-pod` for one to go, `?pod` for one that ended.
fn shown(change: &Change) -> Vec<String> {
    let create = change.create.iter().map(|node| format!("+{node}"));
    let delete = change.delete.iter().map(|own| format!("-{}", own.object.name()));
    let ended = change.ended.iter().map(|(_, own)| format!("?{}", own.object.name()));
    create.chain(delete).chain(ended).collect()
}

#[test]
fn every_node_gets_what_it_lacks_and_loses_what_is_too_much() {
    let mut elsewhere = set();
    elsewhere.set_at(&["spec", "template", "spec", "nodeName"], "other");
    let rows: [(Value, &[&str], &[&str]); 13] = [
        (set(), &[], &["+a"]),
        (set(), &["p a"], &[]),
        (set(), &["p a unscheduled"], &[]),
        (set(), &["p a", "q a"], &["-q"]),
        (set(), &["p a unscheduled", "q a"], &["-p"]),
        (set(), &["p a failed"], &["?p"]),
        // A pod on its way out holds the node until it is gone.
        (set(), &["p a deleting"], &[]),
        (set(), &["p a failed deleting"], &["+a"]),
        (elsewhere, &["p a", "q a deleting"], &["-p"]),
        // Nodes that are gone: pods on them are collected, pods for them are not.
        (set(), &["p a", "q gone", "r gone unscheduled"], &["-r"]),
        (surging(), &["p a deleting"], &["+a"]),
        (surging(), &["p a ready", "q a new", "r a new"], &["-r"]),
        (surging(), &["p a", "q a new"], &["-p"]),
    ];
    for (tree, pods, wanted) in rows {
        let set = typed(&tree);
        let daemon = daemon(&set);
        let change = daemon.manage(&daemon.places(nodes(&["a"])), &plan::by_node(&members(pods)));
        assert_eq!(shown(&change), wanted, "{pods:?}");
    }
}

#[test]
fn a_rolling_update_keeps_within_what_may_be_unavailable() {
    let rows: [(&[&str], &[&str]); 6] = [
        (&["p a ready", "q b ready", "r c ready"], &["-p"]),
        // What is not available anyway goes at once, and counts.
        (&["p a ready", "q b", "r c ready"], &["-q"]),
        (&["p a ready", "q b", "r c"], &["-q", "-r"]),
        (&["p a new", "q b ready", "r c ready"], &[]),
        (&["p a ready new", "q b ready", "r c ready"], &["-q"]),
        // A node without a pod counts.
        (&["p a ready new", "q b ready"], &[]),
    ];
    for (pods, wanted) in rows {
        let set = typed(&set());
        let daemon = daemon(&set);
        let places = daemon.places(nodes(&["a", "b", "c"]));
        let change = daemon.roll(&places, &plan::by_node(&members(pods))).unwrap();
        assert_eq!(shown(&change), wanted, "{pods:?}");
    }
}

#[test]
fn a_surge_puts_new_pods_beside_old_ones() {
    let mut narrow = surging();
    narrow.set_at(
        &["spec", "template", "spec", "affinity"],
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["c"]}]}]}}}),
    );
    let rows: [(Value, &[&str], &[&str]); 6] = [
        (surging(), &["p a ready", "q b ready", "r c ready"], &["+a"]),
        (surging(), &["p a ready", "x a new", "q b ready", "r c ready"], &[]),
        (surging(), &["p a ready", "x a new ready", "q b ready", "r c ready"], &["+b", "-p"]),
        (surging(), &["p a ready", "x a new", "q b", "r c ready"], &["+b"]),
        // The pod of a node that is not wanted any more serves while others are missing.
        (narrow.clone(), &["p a ready new", "q b new", "r c ready"], &[]),
        (narrow, &["p a ready new", "q b ready new", "r c ready"], &["-r"]),
    ];
    for (tree, pods, wanted) in rows {
        let set = typed(&tree);
        let daemon = daemon(&set);
        let places = daemon.places(nodes(&["a", "b", "c"]));
        let change = daemon.roll(&places, &plan::by_node(&members(pods))).unwrap();
        assert_eq!(shown(&change), wanted, "{pods:?}");
    }
}

#[test]
fn limits_are_numbers_or_parts_of_the_nodes_rounded_up() {
    let limits = |unavailable: Value, surge: Value| {
        let mut tree = set();
        let mut rolling = json!({});
        rolling.set_at(&["maxUnavailable"], unavailable);
        rolling.set_at(&["maxSurge"], surge);
        tree.set_at(&["spec", "updateStrategy", "rollingUpdate"], rolling);
        plan::limits(&typed(&tree), 10)
    };
    let (of, percent) =
        (|surge, unavailable| Ok(Limits { surge, unavailable }), |text: &str| Value::from(text));
    assert_eq!(limits(2.into(), 0.into()), of(0, 2));
    assert_eq!(limits(percent("25%"), 0.into()), of(0, 3));
    assert_eq!(limits(0.into(), percent("11%")), of(2, 0));
    assert_eq!(limits(0.into(), 0.into()), of(0, 1));
    assert!(limits(percent("many"), 0.into()).is_err());
}

#[test]
fn the_status_counts_nodes_by_their_oldest_pod() {
    let mut narrow = set();
    narrow.set_at(
        &["spec", "template", "spec", "affinity"],
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["d"]}]}]}}}),
    );
    let set = typed(&narrow);
    let pods = plan::by_node(&members(&["p a ready", "x a new", "q b new ready", "s d", "t d"]));
    let daemon = daemon(&set);
    let status = status::calculate(&daemon, &daemon.places(nodes(&["a", "b", "c", "d"])), &pods);
    let wanted = DaemonSetStatus {
        observed_generation: 1,
        desired_number_scheduled: 3,
        current_number_scheduled: 2,
        number_misscheduled: 1,
        number_ready: 2,
        number_available: 2,
        number_unavailable: 1,
        updated_number_scheduled: 1,
        collision_count: None,
    };
    assert_eq!(status, wanted);
}

// === The controller ===

fn world(set: Value, names: &[&str]) -> World {
    let mut seeds = vec![set];
    seeds.extend(names.iter().map(|name| node(name)));
    World::start(vec![descriptor()], seeds)
}

/// `node image` of every pod that stays, sorted.
fn images(fake: &FakeApi) -> Vec<String> {
    let pods = fake.peek_all(&PODS);
    let mut shown: Vec<String> = pods
        .iter()
        .filter(|pod| !pod.is_deleting())
        .map(|pod| {
            let typed = pod.view::<Pod>().unwrap();
            let member = Member { object: pod.clone(), pod: typed, is_deleting: false };
            let node = member.node().cloned().unwrap_or_default();
            format!("{node} {}", pod.to_value()["spec"]["containers"][0].str_at(&["image"]))
        })
        .collect();
    shown.sort();
    shown
}

fn status_of(fake: &FakeApi) -> Value {
    fake.peek(&DAEMON_SETS, "ns", "agent").map(|own| own.to_value()["status"].clone()).unwrap_or_default()
}

fn is_done(fake: &FakeApi) -> bool {
    let Some(object) = fake.peek(&DAEMON_SETS, "ns", "agent") else { return false };
    let own = object.view::<DaemonSet>().unwrap().status.clone();
    own.observed_generation == object.generation()
        && own.desired_number_scheduled > 0
        && own.updated_number_scheduled == own.desired_number_scheduled
        && own.number_available == own.desired_number_scheduled
}

fn set_image(world: &World, image: &str) {
    world.fake.edit(&DAEMON_SETS, "ns", "agent", |tree| {
        crate::testing::change_image(tree, image);
        let generation = tree["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        tree.set_at(&["metadata", "generation"], generation);
        tree.set_at(
            &["metadata", "annotations", "deprecated.daemonset.template.generation"],
            generation.to_string(),
        );
    });
}

#[tokio::test]
async fn every_node_gets_a_pod_also_those_that_come_later() {
    let world = world(set(), &["a", "b"]);
    world.run_until("two", is_done).await;
    assert_eq!(images(&world.fake), ["a v1", "b v1"]);
    world.fake.seed(node("c"));
    world.fake.seed(tainted("d", "mine", "NoSchedule"));
    world.run_until("the third", |fake| images(fake) == ["a v1", "b v1", "c v1"]).await;
    world.run_until("its status", |fake| status_of(fake)["numberReady"].as_i64() == Some(3)).await;
    assert_eq!(
        status_of(&world.fake),
        json!({"currentNumberScheduled": 3, "desiredNumberScheduled": 3, "numberAvailable": 3, "numberMisscheduled": 0,
            "numberReady": 3, "observedGeneration": 1, "updatedNumberScheduled": 3})
    );
    world.fake.edit(&NODES, "", "d", |node| drop(node.remove_at(&["spec", "taints"])));
    world.run_until("the fourth", |fake| images(fake).len() == 4).await;
    world.fake.edit(&NODES, "", "a", |node| {
        node.set_at(&["spec", "taints"], json!([{"key": "mine", "effect": "NoExecute"}]));
    });
    world.run_until("three", |fake| images(fake) == ["b v1", "c v1", "d v1"]).await;
    world
        .wait_for("events", |_| world.events().iter().any(|own| own.starts_with("SuccessfulDelete: ")))
        .await;
}

#[tokio::test]
async fn an_update_rolls_node_by_node_and_an_undo_goes_back() {
    let world = world(set(), &["a", "b", "c"]);
    world.run_until("revision 1", is_done).await;
    let revision = world.fake.peek_all(&CONTROLLER_REVISIONS)[0].clone();
    let hash = revision.label(REVISION_HASH).unwrap().to_owned();
    assert_eq!(revision.name(), format!("agent-{hash}"));
    assert!(world.fake.peek_all(&PODS).iter().all(|pod| pod.label(REVISION_HASH) == Some(&hash)));
    set_image(&world, "v2");
    world
        .run_until("revision 2", |fake| {
            let ready =
                fake.peek_all(&PODS).iter().filter(|pod| pod.view::<Pod>().unwrap().is_ready()).count();
            assert!(ready >= 2, "more than one node is without a pod");
            is_done(fake)
        })
        .await;
    assert_eq!(images(&world.fake), ["a v2", "b v2", "c v2"]);
    assert_eq!(world.revision_numbers(), [1, 2]);
    set_image(&world, "v1");
    world.run_until("undone", is_done).await;
    assert_eq!(images(&world.fake), ["a v1", "b v1", "c v1"]);
    assert_eq!(world.revision_numbers(), [2, 3], "the old revision is used again");
    for image in ["v3", "v4", "v5"] {
        set_image(&world, image);
        world.run_until(image, is_done).await;
    }
    world.wait_for("two past revisions", |_| world.revision_numbers() == [4, 5, 6]).await;
}

#[tokio::test]
async fn an_undo_in_the_middle_restarts_only_what_was_updated() {
    let world = world(set(), &["a", "b", "c"]);
    world.run_until("revision 1", is_done).await;
    let uids = |fake: &FakeApi, image: &str| -> Vec<String> {
        let pods = fake.peek_all(&PODS).into_iter().map(|pod| pod.to_value());
        let of_image = pods.filter(|pod| pod["spec"]["containers"][0].str_at(&["image"]) == image);
        of_image.map(|pod| pod.str_at(&["metadata", "uid"]).to_owned()).collect()
    };
    set_image(&world, "broken");
    world.wait_for("the first of them, which never runs", |fake| !uids(fake, "broken").is_empty()).await;
    let kept = uids(&world.fake, "v1");
    assert_eq!(kept.len(), 2);
    set_image(&world, "v1");
    world.run_until("undone", |fake| is_done(fake) && images(fake) == ["a v1", "b v1", "c v1"]).await;
    let after = uids(&world.fake, "v1");
    assert!(kept.iter().all(|uid| after.contains(uid)), "{kept:?} and then {after:?}");
}

#[tokio::test]
async fn pods_follow_the_labels_of_nodes_and_the_selector() {
    let mut tree = set();
    tree.set_at(&["spec", "template", "spec", "nodeSelector"], json!({"color": "blue"}));
    let world = world(tree, &["a", "b"]);
    let label = |node: &str, color: &'static str| {
        world.fake.edit(&NODES, "", node, |node| node.set_at(&["metadata", "labels", "color"], color));
    };
    world.wait_for("seen", |fake| status_of(fake)["observedGeneration"].as_i64() == Some(1)).await;
    assert!(images(&world.fake).is_empty(), "no node is blue");
    label("a", "blue");
    world.run_until("the blue node", |fake| images(fake) == ["a v1"]).await;
    label("a", "green");
    world.run_until("no blue node", |fake| images(fake).is_empty()).await;
    world.fake.edit(&DAEMON_SETS, "ns", "agent", |tree| {
        tree.set_at(&["spec", "template", "spec", "nodeSelector"], json!({"color": "green"}));
        tree.set_at(&["metadata", "generation"], 2);
    });
    world.run_until("the green node", |fake| is_done(fake) && images(fake) == ["a v1"]).await;
}

#[tokio::test]
async fn a_surging_update_leaves_no_node_without_a_ready_pod() {
    let world = world(surging(), &["a", "b"]);
    world.run_until("revision 1", is_done).await;
    set_image(&world, "v2");
    world
        .run_until("revision 2", |fake| {
            let ready =
                fake.peek_all(&PODS).iter().filter(|pod| pod.view::<Pod>().unwrap().is_ready()).count();
            assert!(ready >= 2, "a node lost its pod before it had another");
            is_done(fake) && images(fake) == ["a v2", "b v2"]
        })
        .await;
}

#[tokio::test]
async fn an_update_goes_on_after_a_restart() {
    let mut world = world(set(), &["a", "b", "c"]);
    world.run_until("revision 1", is_done).await;
    set_image(&world, "v2");
    world.run_until("the first of them", |fake| images(fake).iter().any(|own| own.ends_with("v2"))).await;
    world.restart(vec![descriptor()]);
    world.run_until("revision 2", is_done).await;
    assert_eq!(images(&world.fake), ["a v2", "b v2", "c v2"]);
    assert_eq!(world.revision_numbers(), [1, 2]);
}

#[tokio::test]
async fn on_delete_updates_only_what_is_deleted() {
    let mut tree = set();
    tree.set_at(&["spec", "updateStrategy"], json!({"type": "OnDelete"}));
    let world = world(tree, &["a", "b"]);
    world.run_until("two", is_done).await;
    set_image(&world, "v2");
    world.wait_for("seen", |fake| status_of(fake)["observedGeneration"].as_i64() == Some(2)).await;
    assert_eq!(images(&world.fake), ["a v1", "b v1"]);
    let pods = world.fake.peek_all(&PODS);
    let first = pods.iter().find(|pod| member_of(pod).node().is_some_and(|node| node == "a")).unwrap();
    world.fake.drop_object(&PODS, "ns", first.name());
    world.run_until("the new one", |fake| images(fake) == ["a v2", "b v1"]).await;
}

fn member_of(pod: &Arc<Object>) -> Member {
    Member { object: pod.clone(), pod: pod.view::<Pod>().unwrap(), is_deleting: false }
}

#[tokio::test]
async fn failed_pods_are_replaced_with_an_event() {
    let world = world(set(), &["a"]);
    world.run_until("one", is_done).await;
    let fail = || {
        let pod = world.fake.peek_all(&PODS)[0].name().to_owned();
        world.fake.edit(&PODS, "ns", &pod, |pod| pod.set_at(&["status", "phase"], "Failed"));
        pod
    };
    let first = fail();
    world.wait_for("another", |fake| fake.peek_all(&PODS).iter().any(|pod| pod.name() != first)).await;
    let message =
        format!("FailedDaemonPod: Found failed daemon pod ns/{first} on node a, will try to kill it");
    world.wait_for("an event", |_| world.events().contains(&message)).await;
    // The next failure waits a second, and then goes without anybody asking.
    let (second, since) = (fail(), rt::instant());
    world.wait_for("a third", |fake| fake.peek_all(&PODS).iter().any(|pod| pod.name() != second)).await;
    assert!(since.elapsed() > Duration::from_millis(300), "it was replaced at once");
}

#[tokio::test]
async fn a_set_that_selects_everything_only_complains() {
    let mut tree = set();
    tree.set_at(&["spec", "selector"], json!({}));
    let world = world(tree, &["a"]);
    let message = "SelectingAll: This daemon set is selecting all pods. A non-empty selector is required.";
    world.wait_for("an event", |_| world.events().iter().any(|own| own == message)).await;
    assert!(world.fake.peek_all(&PODS).is_empty());
}

#[tokio::test]
async fn orphans_are_adopted_with_their_history() {
    let mut orphan = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orphan", "namespace": "ns",
        "labels": {"app": "agent", "controller-revision-hash": "x"}}, "spec": {"nodeName": "a"}, "status": {}});
    make_ready(&mut orphan);
    let mut revision = crate::history::new_revision(&object(set()), &typed(&set()).spec.template, 7);
    revision.set_at(&["metadata", "name"], "agent-x");
    revision.set_at(&["metadata", "labels", REVISION_HASH], "x");
    drop(revision.remove_at(&["metadata", "ownerReferences"]));
    let world = World::start(vec![descriptor()], vec![set(), node("a"), orphan, revision]);
    world.wait_for("done", is_done).await;
    assert_eq!(world.fake.peek_all(&PODS).len(), 1);
    assert_eq!(world.revision_numbers(), [7]);
    let owners = |tree: Value| tree["metadata"]["ownerReferences"][0].str_at(&["uid"]).to_owned();
    assert_eq!(owners(world.tree(&PODS, "ns", "orphan")), "set-uid");
    assert_eq!(owners(world.tree(&CONTROLLER_REVISIONS, "ns", "agent-x")), "set-uid");
}

#[tokio::test]
async fn duplicates_of_a_revision_are_dropped_and_their_pods_relabelled() {
    let revision = |hash: &str, number: i64| {
        let mut tree = crate::history::new_revision(&object(set()), &typed(&set()).spec.template, number);
        tree.set_at(&["metadata", "name"], format!("agent-{hash}"));
        tree.set_at(&["metadata", "labels", REVISION_HASH], hash);
        tree
    };
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns",
        "labels": {"app": "agent", "controller-revision-hash": "x"}}, "spec": {"nodeName": "a"}, "status": {}});
    make_ready(&mut pod);
    let seeds = vec![set(), node("a"), pod, revision("x", 1), revision("y", 2)];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("done", is_done).await;
    assert_eq!(world.revision_numbers(), [2]);
    assert_eq!(world.fake.peek(&PODS, "ns", "p").unwrap().label(REVISION_HASH), Some("y"));
}

#[tokio::test]
async fn a_taken_revision_name_counts_as_a_collision() {
    let taken = crate::hash::of_template(&typed(&set()).spec.template, None);
    let foreign = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {"a": 1},
        "metadata": {"name": format!("agent-{taken}"), "namespace": "ns"}});
    let world = World::start(vec![descriptor()], vec![set(), node("a"), foreign]);
    world.run_until("done", is_done).await;
    assert_eq!(status_of(&world.fake)["collisionCount"].as_i64(), Some(1));
}

#[tokio::test]
async fn a_refused_pod_is_an_event_and_tried_again() {
    let world = World::start(vec![descriptor()], vec![]);
    let mut left = 1;
    world.fake.fail(move |call| {
        let refused = call.verb == "create" && call.resource == "pods" && left > 0;
        left -= i32::from(refused);
        refused.then(|| Status::new(403, "Forbidden", "exceeded quota"))
    });
    world.fake.seed(node("a"));
    world.fake.seed(set());
    world.run_until("done", is_done).await;
    let message = "FailedCreate: Error creating: exceeded quota";
    world.wait_for("an event", |_| world.events().iter().any(|own| own == message)).await;
}
