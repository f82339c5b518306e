use std::time::Duration;

use api::view::PersistentVolumeClaimRetentionPolicy;
use apimachinery::{Value, json, time};
use client::fake::FakeApi;

use super::retention::Owners;
use super::*;
use crate::history::{REVISION_HASH, Revision};
use crate::testing::{World, object};

fn set(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "ns", "uid": "set-uid", "generation": 1},
        "spec": {"replicas": replicas, "serviceName": "nginx", "selector": {"matchLabels": {"app": "web"}},
            "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 2,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}
    })
}

fn with_claims(mut tree: Value) -> Value {
    tree.set_at(
        &["spec", "volumeClaimTemplates"],
        json!([{"metadata": {"name": "data", "labels": {"tier": "gold"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}]),
    );
    tree
}

fn typed(tree: &Value) -> Arc<StatefulSet> {
    object(tree.clone()).view::<StatefulSet>().unwrap()
}

// === Plans ===

/// A pod as `ordinal phase [ready] [deleting] [revision]`.
fn member(text: &str) -> Member {
    let mut words = text.split(' ');
    let ordinal: i32 = words.next().unwrap().parse().unwrap();
    let phase = words.next().unwrap();
    let has = |word: &str| text.contains(word);
    let name = format!("web-{ordinal}");
    let revision = if has("new") { "web-new" } else { "web-old" };
    let mut tree = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name.as_str(), "namespace": "ns",
        "uid": name.as_str(), "labels": {"app": "web"}}, "spec": {}, "status": {"phase": phase}});
    tree.set_at(&["metadata", "labels", REVISION_HASH], revision);
    if has("ready") {
        tree.set_at(
            &["status", "conditions"],
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
        );
    }
    let object = object(tree);
    let pod = object.view::<Pod>().unwrap();
    Member { ordinal, is_deleting: has("deleting"), pod, object }
}

fn revision(name: &str, number: i64, image: &str) -> Revision {
    let data = json!({"spec": {"template": {"$patch": "replace", "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]}}}});
    let mut tree = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": number,
        "metadata": {"name": name, "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"}});
    tree.set_at(&["data"], data);
    Revision::read(object(tree)).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    time::parse("2026-01-01T00:00:00Z").unwrap() + jiff::SignedDuration::from_secs(seconds)
}

fn fleet(tree: &Value, members: &[&str]) -> Fleet {
    Fleet::of(&typed(tree), members.iter().map(|text| member(text)).collect(), at(5))
}

#[test]
fn pods_and_claims_are_known_by_their_names() {
    let ordinal = |pod| plan::ordinal_of("web", pod);
    assert_eq!((ordinal("web-0"), ordinal("web-12"), ordinal("web-007")), (Some(0), Some(12), Some(7)));
    for other in ["web", "web-", "web-x", "web-1x", "web-a-1", "webb-1", "web-99999999999"] {
        assert_eq!(ordinal(other), None, "{other}");
    }
    let sets: Vec<(&str, &str)> = plan::sets_of_claim("data-my-web-3").collect();
    assert_eq!(sets, [("data", "my-web"), ("data-my", "web")]);
    assert_eq!(plan::sets_of_claim("data").count() + plan::sets_of_claim("data-3").count(), 0);
}

#[test]
fn a_place_is_filled_cleared_or_waited_for() {
    let mut slow = set(1);
    slow.set_at(&["spec", "minReadySeconds"], 6);
    let rows = [
        (set(1), "", "Create"),
        (set(1), "0 Failed", "Replace"),
        (set(1), "0 Succeeded", "Replace"),
        (set(1), "0 Failed deleting", "Vacate"),
        (set(1), "0 Pending", "Keep false"),
        (set(1), "0 Running", "Keep false"),
        (set(1), "0 Running ready", "Keep true"),
        (set(1), "0 Running ready deleting", "Keep false"),
        (slow, "0 Running ready", "Keep false"),
    ];
    for (tree, pod, wanted) in rows {
        let members: Vec<&str> = Some(pod).filter(|pod| !pod.is_empty()).into_iter().collect();
        let fleet = fleet(&tree, &members);
        let step = match plan::step(&typed(&tree), &fleet.places[0], at(5)) {
            Step::Create => "Create".to_owned(),
            Step::Replace(_) => "Replace".to_owned(),
            Step::Vacate => "Vacate".to_owned(),
            Step::Keep { is_good, .. } => format!("Keep {is_good}"),
        };
        assert_eq!(step, wanted, "{pod}");
    }
}

#[test]
fn condemned_pods_go_from_the_highest_and_wait_for_the_others() {
    let ordered = set(1);
    let mut parallel = set(1);
    parallel.set_at(&["spec", "podManagementPolicy"], "Parallel");
    let rows: [(&Value, &[&str], &[Fate]); 6] = [
        (&ordered, &["0 Running ready", "1 Running ready", "2 Running ready"], &[Fate::Delete, Fate::Delete]),
        // The first that is not well may go, one above it may not.
        (&ordered, &["0 Running ready", "1 Running", "2 Running"], &[Fate::Wait, Fate::Delete]),
        (&ordered, &["0 Running", "1 Running"], &[Fate::Wait]),
        (&ordered, &["0 Running ready", "1 Running ready deleting"], &[Fate::Wait]),
        (&parallel, &["0 Running", "1 Running", "2 Running"], &[Fate::Delete, Fate::Delete]),
        (&parallel, &["0 Running", "1 Running deleting"], &[Fate::Going]),
    ];
    for (tree, pods, wanted) in rows {
        let fleet = fleet(tree, pods);
        let fates: Vec<Fate> =
            fleet.condemned.iter().map(|own| plan::fate(&typed(tree), &fleet, own, at(5))).collect();
        assert_eq!(fates, wanted, "{pods:?}");
    }
    let mut shifted = set(2);
    shifted.set_at(&["spec", "ordinals"], json!({"start": 3}));
    let fleet = fleet(&shifted, &["2 Running", "3 Running", "4 Running", "5 Running"]);
    assert_eq!(fleet.places.iter().map(|place| place.ordinal).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(fleet.condemned.iter().map(|own| own.ordinal).collect::<Vec<_>>(), [5, 2]);
    assert!(fleet.has_place(3) && fleet.has_place(4) && !fleet.has_place(2) && !fleet.has_place(5));
}

#[test]
fn a_set_that_asks_for_more_pods_than_there_can_be_is_looked_at_from_its_beginning() {
    let mut huge = set(i32::MAX);
    huge.set_at(&["spec", "podManagementPolicy"], "Parallel");
    let fleet = fleet(&huge, &["1 Running ready", "1000000 Running ready"]);
    assert!(fleet.has_place(0) && fleet.has_place(1_000_000) && !fleet.has_place(i32::MAX));
    assert_eq!(fleet.places.len(), 502);
    assert_eq!(fleet.places.last().map(|place| place.ordinal), Some(1_000_000));
    assert_eq!(fleet.members().count(), 2);
    assert!(plan::outdated(&typed(&huge), &fleet, "newer", at(5)).is_none(), "places above are vacant");
}

#[test]
fn an_update_takes_the_highest_outdated_pod_and_waits_for_those_above() {
    let partitioned = |partition: i32| {
        let mut tree = set(3);
        tree.set_at(&["spec", "updateStrategy", "rollingUpdate", "partition"], partition);
        tree
    };
    let mut on_delete = set(3);
    on_delete.set_at(&["spec", "updateStrategy"], json!({"type": "OnDelete"}));
    let old = ["0 Running ready", "1 Running ready", "2 Running ready"];
    let half = ["0 Running ready", "1 Running ready", "2 Running ready new"];
    let rows: [(Value, [&str; 3], Option<i32>); 8] = [
        (partitioned(0), old, Some(2)),
        (partitioned(0), half, Some(1)),
        (partitioned(1), half, Some(1)),
        (partitioned(2), half, None),
        (partitioned(9), old, None),
        (partitioned(0), ["0 Running ready", "1 Running ready", "2 Running new"], None),
        (partitioned(0), ["0 Running ready", "1 Running ready", "2 Running ready deleting"], None),
        (on_delete, old, None),
    ];
    for (tree, pods, wanted) in rows {
        let fleet = fleet(&tree, &pods);
        let next = plan::outdated(&typed(&tree), &fleet, "web-new", at(5));
        assert_eq!(next.map(|own| own.ordinal), wanted, "{pods:?} {}", tree["spec"]["updateStrategy"]);
    }
}

#[test]
fn a_new_pod_below_the_partition_is_of_the_current_revision() {
    let revisions = Revisions { current: revision("web-old", 1, "v1"), update: revision("web-new", 2, "v2") };
    let mut tree = set(6);
    tree.set_at(&["spec", "ordinals"], json!({"start": 3}));
    tree.set_at(&["spec", "updateStrategy", "rollingUpdate", "partition"], 2);
    let name =
        |tree: &Value, ordinal| plan::revision_for(&typed(tree), &revisions, ordinal).name().to_owned();
    assert_eq!((name(&tree, 4), name(&tree, 5)), ("web-old".into(), "web-new".into()));
    tree.set_at(&["spec", "updateStrategy"], json!({"type": "OnDelete"}));
    assert_eq!(name(&tree, 3), "web-new");
    tree.set_at(&["spec", "updateStrategy"], json!({"type": "RollingUpdate"}));
    tree.set_at(&["status", "currentReplicas"], 1);
    assert_eq!((name(&tree, 3), name(&tree, 4)), ("web-old".into(), "web-new".into()));
}

#[test]
fn the_history_keeps_what_is_in_use_and_the_newest_beyond() {
    let all: Vec<Revision> = ["a", "web-old", "c", "d", "e", "f"]
        .iter()
        .zip(1..)
        .map(|(name, n)| revision(name, n, "v"))
        .collect();
    let revisions = Revisions { current: all[2].clone(), update: all[5].clone() };
    let kept = |limit: i32| {
        let mut tree = set(1);
        tree.set_at(&["spec", "revisionHistoryLimit"], limit);
        let fleet = fleet(&tree, &["0 Running"]);
        let gone = plan::beyond_history(&typed(&tree), &all, &revisions, &fleet);
        gone.iter().map(|own| own.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kept(0), ["a", "d", "e"]);
    assert_eq!(kept(1), ["a", "d"]);
    assert!(kept(3).is_empty() && kept(-1).is_empty());
}

#[test]
fn a_revision_is_found_again_by_what_it_restores() {
    let shown = |tree: &Value, all: &[Revision]| match revision::source(
        &object(tree.clone()),
        &typed(tree).spec.template,
        all,
    ) {
        revision::Source::Newest(own) => format!("newest {}", own.name()),
        revision::Source::Past(own) => format!("past {}", own.name()),
        revision::Source::New => "new".to_owned(),
    };
    let (v1, v2) = (revision("one", 1, "v1"), revision("two", 2, "v2"));
    assert_eq!(shown(&set(1), &[]), "new");
    assert_eq!(shown(&set(1), std::slice::from_ref(&v1)), "newest one");
    assert_eq!(shown(&set(1), std::slice::from_ref(&v2)), "new");
    assert_eq!(shown(&set(1), &[v1.clone(), v2]), "past one");
    let mut defaulted = set(1);
    api::kinds::strategy("apps", "StatefulSet", &api::Features::default()).default(&mut defaulted);
    assert_ne!(defaulted["spec"]["template"], set(1)["spec"]["template"]);
    assert_eq!(shown(&defaulted, &[v1]), "newest one", "only defaults lie between them");
}

#[test]
fn claims_are_owned_as_the_retention_policy_says() {
    let (set, named) = (object(set(1)), |uid: &str, kind: &str, controller: bool| {
        let (version, name) = if kind == "Pod" { ("v1", "web-0") } else { ("apps/v1", "web") };
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controller})
    });
    let ours = || named("set-uid", "StatefulSet", true);
    let pods = || named("pod-uid", "Pod", true);
    let other = || json!({"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x", "controller": true});
    let friend = || json!({"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x"});
    /// whenScaled, whenDeleted, in range, owners before; owners after or that they stay.
    type Row = (&'static str, &'static str, bool, Vec<Value>, Option<&'static str>);
    let rows: [Row; 14] = [
        ("Retain", "Retain", true, vec![], None),
        ("Retain", "Retain", false, vec![ours()], Some("")),
        ("Retain", "Retain", true, vec![other()], None),
        ("Retain", "Delete", true, vec![], Some("set-uid")),
        ("Retain", "Delete", false, vec![ours()], None),
        ("Delete", "Retain", true, vec![], None),
        ("Delete", "Retain", false, vec![], Some("pod-uid")),
        ("Delete", "Delete", true, vec![friend()], Some("x,set-uid")),
        ("Delete", "Delete", false, vec![ours()], Some("pod-uid")),
        ("Delete", "Delete", true, vec![pods()], Some("set-uid")),
        ("Delete", "Delete", true, vec![named("set-uid", "StatefulSet", false)], Some("set-uid")),
        // Another controller is not joined, and what was ours beside it goes.
        ("Delete", "Delete", true, vec![other()], None),
        ("Delete", "Delete", true, vec![other(), ours()], Some("x")),
        // The claim goes with an earlier set.
        ("Retain", "Delete", true, vec![named("earlier", "StatefulSet", true)], None),
    ];
    for (scaled, deleted, in_range, before, after) in rows {
        let policy =
            PersistentVolumeClaimRetentionPolicy { when_scaled: scaled.into(), when_deleted: deleted.into() };
        let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-web-0", "namespace": "ns"}});
        claim.set_at(&["metadata", "ownerReferences"], before.clone());
        let claim = object(claim);
        let owners = Owners { set: &set, pod_name: "web-0", pod_uid: "pod-uid", policy: &policy, in_range };
        let row = format!("{scaled} {deleted} {in_range} {before:?}");
        assert_eq!(owners.are_right(&claim), after.is_none(), "{row}");
        if let Some(after) = after {
            let uids: Vec<String> =
                owners.references(&claim).iter().map(|own| own.str_at(&["uid"]).to_owned()).collect();
            assert_eq!(uids.join(","), after, "{row}");
        }
    }
}

// === The controller ===

fn world(seed: Value) -> World {
    World::start(vec![descriptor()], vec![seed])
}

fn status_of(fake: &FakeApi) -> Value {
    let set = fake.peek(&STATEFUL_SETS, "ns", "web").map(|object| object.to_value()).unwrap_or_default();
    set["status"].clone()
}

fn pod_names(fake: &FakeApi) -> Vec<String> {
    fake.peek_all(&PODS).iter().map(|pod| pod.name().to_owned()).collect()
}

/// `name image` of every pod.
fn images(fake: &FakeApi) -> Vec<String> {
    let pods = fake.peek_all(&PODS);
    let shown = pods.iter().map(|pod| {
        let tree = pod.to_value();
        format!("{} {}", pod.name(), tree["spec"]["containers"][0].str_at(&["image"]))
    });
    shown.collect()
}

fn is_done(fake: &FakeApi) -> bool {
    let Some(object) = fake.peek(&STATEFUL_SETS, "ns", "web") else { return false };
    let (set, own) =
        (object.view::<StatefulSet>().unwrap(), object.view::<StatefulSet>().unwrap().status.clone());
    let wanted = plan::wanted(&set);
    own.observed_generation == object.generation()
        && [own.replicas, own.ready_replicas, own.updated_replicas, own.current_replicas]
            .iter()
            .all(|n| *n == wanted)
        && own.current_revision == own.update_revision
}

fn edit(world: &World, change: impl FnOnce(&mut Value)) {
    world.fake.edit(&STATEFUL_SETS, "ns", "web", |tree| {
        change(tree);
        let generation = tree["metadata"]["generation"].as_i64().unwrap_or_default();
        tree.set_at(&["metadata", "generation"], generation + 1);
    });
}

fn set_image(world: &World, image: &str) {
    edit(world, |tree| {
        crate::testing::change_image(tree, image);
    });
}

#[tokio::test]
async fn pods_start_in_order_with_their_claims() {
    let world = world(with_claims(set(2)));
    world.wait_for("the first pod", |fake| pod_names(fake) == ["web-0"]).await;
    world.wait_for("its count", |fake| status_of(fake)["replicas"].as_i64() == Some(1)).await;
    assert_eq!(pod_names(&world.fake), ["web-0"], "the second waits until the first is ready");
    world.run_until("both", is_done).await;
    assert_eq!(pod_names(&world.fake), ["web-0", "web-1"]);

    let pod = world.tree(&PODS, "ns", "web-1");
    let update = status_of(&world.fake).str_at(&["updateRevision"]).to_owned();
    let mut labels = json!({"app": "web", "statefulset.kubernetes.io/pod-name": "web-1",
        "apps.kubernetes.io/pod-index": "1"});
    labels.set_at(&[REVISION_HASH], update.as_str());
    assert_eq!(pod["metadata"]["labels"], labels);
    assert_eq!((pod["spec"].str_at(&["hostname"]), pod["spec"].str_at(&["subdomain"])), ("web-1", "nginx"));
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-1"}}])
    );
    let claim = world.tree(&PERSISTENT_VOLUME_CLAIMS, "ns", "data-web-1");
    assert_eq!(claim["metadata"]["labels"], json!({"tier": "gold", "app": "web"}));
    assert_eq!(claim["spec"], json!({"accessModes": ["ReadWriteOnce"]}));

    let revision = world.tree(&CONTROLLER_REVISIONS, "ns", &update);
    assert_eq!(revision["revision"].as_i64(), Some(1));
    let hash = revision["metadata"]["labels"].str_at(&["controller.kubernetes.io/hash"]);
    assert_eq!(update, format!("web-{hash}"));
    let mut wanted = json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 2,
        "updatedReplicas": 2, "observedGeneration": 1, "collisionCount": 0});
    wanted.set_at(&["currentRevision"], update.as_str());
    wanted.set_at(&["updateRevision"], update.as_str());
    assert_eq!(status_of(&world.fake), wanted);
    let expected = [
        "SuccessfulCreate: Create Claim data-web-1 Pod web-1 in StatefulSet web success",
        "SuccessfulCreate: Create Pod web-1 in StatefulSet web successful",
    ];
    world
        .wait_for("events", |_| expected.iter().all(|text| world.events().iter().any(|own| own == text)))
        .await;
}

#[tokio::test]
async fn scaling_halts_in_both_directions_while_pods_are_not_ready() {
    let world = world(set(1));
    world.run_until("one", is_done).await;
    let ready = |is_ready: bool| {
        let status = if is_ready { "True" } else { "False" };
        for name in pod_names(&world.fake) {
            world.fake.edit(&PODS, "ns", &name, |pod| {
                pod.set_at(
                    &["status", "conditions"],
                    json!([{"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
                );
            });
        }
    };
    let observed = |generation: i64| {
        move |fake: &FakeApi| {
            let status = status_of(fake);
            status["observedGeneration"].as_i64() == Some(generation)
                && status["readyReplicas"].as_i64().unwrap_or_default()
                    < status["replicas"].as_i64().unwrap_or_default()
        }
    };
    ready(false);
    edit(&world, |tree| tree.set_at(&["spec", "replicas"], 3));
    world.wait_for("the wish to grow", observed(2)).await;
    assert_eq!(pod_names(&world.fake), ["web-0"]);
    ready(true);
    world.run_until("three", is_done).await;
    ready(false);
    edit(&world, |tree| tree.set_at(&["spec", "replicas"], 0));
    world.wait_for("the wish to shrink", observed(3)).await;
    assert_eq!(pod_names(&world.fake), ["web-0", "web-1", "web-2"]);
    ready(true);
    world.wait_for("none", |fake| pod_names(fake).is_empty()).await;
}

#[tokio::test]
async fn a_parallel_set_starts_and_stops_all_at_once() {
    let mut tree = set(3);
    tree.set_at(&["spec", "podManagementPolicy"], "Parallel");
    tree.set_at(&["spec", "ordinals"], json!({"start": 5}));
    let world = world(tree);
    world.wait_for("three", |fake| pod_names(fake) == ["web-5", "web-6", "web-7"]).await;
    edit(&world, |tree| tree.set_at(&["spec", "replicas"], 0));
    world.wait_for("none", |fake| pod_names(fake).is_empty()).await;
}

#[tokio::test]
async fn scaling_down_takes_the_highest_first_and_keeps_the_claims() {
    let world = world(with_claims(set(3)));
    world.run_until("three", is_done).await;
    world.fake.take_writes();
    edit(&world, |tree| tree.set_at(&["spec", "replicas"], 1));
    world.run_until("one", is_done).await;
    let deletes: Vec<String> =
        world.fake.take_writes().into_iter().filter(|call| call.starts_with("delete pods")).collect();
    assert_eq!(deletes, ["delete pods ns/web-2", "delete pods ns/web-1"]);
    assert_eq!(world.fake.peek_all(&PERSISTENT_VOLUME_CLAIMS).len(), 3);
    world
        .wait_for("an event", |_| {
            world
                .events()
                .contains(&"SuccessfulDelete: Delete Pod web-2 in StatefulSet web successful".to_owned())
        })
        .await;
}

#[tokio::test]
async fn claims_go_with_the_pod_or_the_set_when_the_policy_says_so() {
    let mut tree = with_claims(set(2));
    tree.set_at(
        &["spec", "persistentVolumeClaimRetentionPolicy"],
        json!({"whenScaled": "Delete", "whenDeleted": "Delete"}),
    );
    let world = world(tree);
    let owner = |fake: &FakeApi, name: &str| {
        let claim =
            fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", name).map(|own| own.to_value()).unwrap_or_default();
        let reference = claim["metadata"]["ownerReferences"][0].clone();
        format!("{} {}", reference.str_at(&["kind"]), reference.str_at(&["uid"]))
    };
    world.run_until("two", is_done).await;
    world.wait_for("the set owns them", |fake| owner(fake, "data-web-1") == "StatefulSet set-uid").await;
    // The pod has a finalizer so that its claim can be seen while it goes.
    world.fake.edit(&PODS, "ns", "web-1", |pod| pod.set_at(&["metadata", "finalizers"], json!(["x/wait"])));
    let uid = world.fake.peek(&PODS, "ns", "web-1").unwrap().uid().to_owned();
    edit(&world, |tree| tree.set_at(&["spec", "replicas"], 1));
    world.wait_for("the pod owns its claim", |fake| owner(fake, "data-web-1") == format!("Pod {uid}")).await;
    world.fake.drop_object(&PODS, "ns", "web-1");

    // As long as the claim is the earlier pod's there is no new pod.
    edit(&world, |tree| tree.set_at(&["spec", "replicas"], 2));
    world
        .wait_for("the set was seen", |fake| status_of(fake)["observedGeneration"].as_i64() == Some(3))
        .await;
    assert_eq!(pod_names(&world.fake), ["web-0"]);
    world.fake.drop_object(&PERSISTENT_VOLUME_CLAIMS, "ns", "data-web-1");
    world.run_until("two again", is_done).await;
}

#[tokio::test]
async fn a_rollout_stops_at_its_partition_and_goes_back_with_an_undo() {
    let mut tree = set(3);
    tree.set_at(&["spec", "updateStrategy", "rollingUpdate", "partition"], 2);
    let world = world(tree);
    world.run_until("revision 1", is_done).await;
    set_image(&world, "v2");
    world
        .run_until("one updated", |fake| {
            let status = status_of(fake);
            images(fake) == ["web-0 v1", "web-1 v1", "web-2 v2"]
                && (status["updatedReplicas"].as_i64(), status["readyReplicas"].as_i64())
                    == (Some(1), Some(3))
        })
        .await;
    let status = status_of(&world.fake);
    assert_ne!(status["currentRevision"], status["updateRevision"]);
    assert_eq!(status["currentReplicas"].as_i64(), Some(2));

    // A pod below the partition comes back as it was.
    world.fake.drop_object(&PODS, "ns", "web-0");
    world.run_until("the pod again", |fake| images(fake) == ["web-0 v1", "web-1 v1", "web-2 v2"]).await;

    edit(&world, |tree| tree.set_at(&["spec", "updateStrategy", "rollingUpdate", "partition"], 0));
    world.run_until("revision 2", is_done).await;
    assert_eq!(images(&world.fake), ["web-0 v2", "web-1 v2", "web-2 v2"]);
    assert_eq!(world.revision_numbers(), [1, 2]);

    set_image(&world, "v1");
    world.run_until("undone", is_done).await;
    assert_eq!(images(&world.fake)[0], "web-0 v1");
    assert_eq!(world.revision_numbers(), [2, 3], "the old revision is used again");

    for image in ["v3", "v4", "v5"] {
        set_image(&world, image);
        world.run_until(image, is_done).await;
    }
    world.wait_for("two past revisions", |_| world.revision_numbers() == [4, 5, 6]).await;
}

#[tokio::test]
async fn a_rollout_goes_on_after_a_restart() {
    let mut world = world(set(3));
    world.run_until("revision 1", is_done).await;
    set_image(&world, "v2");
    world
        .run_until("the first of them", |fake| images(fake).last().is_some_and(|own| own == "web-2 v2"))
        .await;
    world.restart(vec![descriptor()]);
    world.run_until("revision 2", is_done).await;
    assert_eq!(images(&world.fake), ["web-0 v2", "web-1 v2", "web-2 v2"]);
    assert_eq!(world.revision_numbers(), [1, 2]);
}

#[tokio::test]
async fn lost_and_failed_pods_are_replaced() {
    let world = world(set(2));
    world.run_until("two", is_done).await;
    let uid = |name: &str| world.fake.peek(&PODS, "ns", name).map(|pod| pod.uid().to_owned());
    let (first, second) = (uid("web-0"), uid("web-1"));
    world.fake.drop_object(&PODS, "ns", "web-0");
    world.wait_for("a new first pod", |_| uid("web-0").is_some_and(|now| Some(now) != first)).await;
    world.fake.edit(&PODS, "ns", "web-1", |pod| pod.set_at(&["status", "phase"], "Failed"));
    world
        .wait_for("a new second pod", |fake| {
            // Only the first pod is run: a node would not run the failed one.
            fake.edit(&PODS, "ns", "web-0", crate::testing::make_ready);
            uid("web-1").is_some_and(|now| Some(now) != second)
        })
        .await;
}

#[tokio::test]
async fn on_delete_updates_only_what_is_deleted() {
    let mut tree = set(2);
    tree.set_at(&["spec", "updateStrategy"], json!({"type": "OnDelete"}));
    let world = world(tree);
    world.run_until("two", |fake| status_of(fake)["readyReplicas"].as_i64() == Some(2)).await;
    set_image(&world, "v2");
    world.wait_for("seen", |fake| status_of(fake)["observedGeneration"].as_i64() == Some(2)).await;
    assert_eq!(images(&world.fake), ["web-0 v1", "web-1 v1"]);
    world.fake.drop_object(&PODS, "ns", "web-0");
    world.run_until("the new one", |fake| images(fake) == ["web-0 v2", "web-1 v1"]).await;
}

#[tokio::test]
async fn orphans_of_the_right_name_are_adopted_and_set_right() {
    let mut orphan = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "ns",
        "labels": {"app": "web"}}, "spec": {}, "status": {"phase": "Running"}});
    crate::testing::make_ready(&mut orphan);
    let mut other = orphan.clone();
    other.set_at(&["metadata", "name"], "other");
    let world = World::start(vec![descriptor()], vec![set(1), orphan, other]);
    let label = "statefulset.kubernetes.io/pod-name";
    world
        .wait_for("its label", |_| {
            world.tree(&PODS, "ns", "web-0")["metadata"]["labels"].str_at(&[label]) == "web-0"
        })
        .await;
    let owners = |name: &str| world.tree(&PODS, "ns", name)["metadata"].array_at(&["ownerReferences"]).len();
    assert_eq!((owners("web-0"), owners("other")), (1, 0));
    world
        .wait_for("an event", |_| {
            world
                .events()
                .contains(&"SuccessfulUpdate: Update Pod web-0 in StatefulSet web successful".to_owned())
        })
        .await;
}

#[tokio::test]
async fn a_taken_revision_name_is_counted_and_avoided() {
    let template = typed(&set(1)).spec.template.clone();
    let taken = crate::hash::of_data(&crate::history::data_of(&template), 0);
    let foreign = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {"a": 1},
        "metadata": {"name": format!("web-{taken}"), "namespace": "ns"}});
    let world = World::start(vec![descriptor()], vec![set(1), foreign]);
    world.run_until("one", is_done).await;
    let status = status_of(&world.fake);
    assert_eq!(status["collisionCount"].as_i64(), Some(1));
    assert_ne!(status.str_at(&["updateRevision"]), format!("web-{taken}"));
}

#[tokio::test]
async fn a_refused_pod_is_an_event_and_tried_again() {
    let world = World::start(vec![descriptor()], vec![]);
    let mut left = 2;
    world.fake.fail(move |call| {
        let refused = call.verb == "create" && call.resource == "pods" && left > 0;
        left -= i32::from(refused);
        refused.then(|| Status::new(403, "Forbidden", "exceeded quota"))
    });
    world.fake.seed(set(1));
    world.run_until("one", is_done).await;
    let message = "FailedCreate: Create Pod web-0 in StatefulSet web failed error: exceeded quota";
    world.wait_for("an event", |_| world.events().iter().any(|own| own == message)).await;
}

#[tokio::test]
async fn a_pod_that_must_stay_ready_holds_the_next_one_back() {
    let mut tree = set(2);
    // Times are kept in whole seconds, so that one of the two may be nearly over when it begins.
    tree.set_at(&["spec", "minReadySeconds"], 2);
    let world = world(tree);
    let started = rt::instant();
    world.run_until("the second pod", |fake| pod_names(fake).len() == 2).await;
    assert!(started.elapsed() > Duration::from_secs(1), "{:?}", started.elapsed());
    world.run_until("both", |fake| status_of(fake)["availableReplicas"].as_i64() == Some(2)).await;
}

#[tokio::test]
async fn a_revision_that_is_lost_is_made_again() {
    let world = world(set(1));
    world.run_until("one", is_done).await;
    let lost = world.fake.peek_all(&CONTROLLER_REVISIONS)[0].clone();
    world.fake.drop_object(&CONTROLLER_REVISIONS, "ns", lost.name());
    world
        .wait_for("another", |fake| {
            let all = fake.peek_all(&CONTROLLER_REVISIONS);
            all.iter().any(|own| own.name() == lost.name() && own.uid() != lost.uid())
        })
        .await;
}
