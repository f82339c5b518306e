use client::fake::FakeApi;

use super::*;
use crate::testing::{World, object};

const NAME_ON_NODE: &str = "kubernetes.io/csi/d.example.com^h";

fn node(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {plan::MANAGED: "true"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    change(&mut node);
    node
}

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"},
        "spec": {"nodeName": node, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}})
}

fn claim() -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "ns", "uid": "c-uid"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}})
}

fn volume() -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d.example.com", "volumeHandle": "h"},
            "claimRef": {"namespace": "ns", "name": "data", "uid": "c-uid"}}})
}

fn attachments(fake: &FakeApi) -> Vec<Value> {
    fake.peek_all(&VOLUME_ATTACHMENTS).iter().map(|own| own.to_value()).collect()
}

/// What the driver's attacher does.
fn set_attached(world: &World, node: &str) {
    let name = attachments(&world.fake)
        .iter()
        .find(|own| own.str_at(&["spec", "nodeName"]) == node)
        .map(|own| own.str_at(&["metadata", "name"]).to_owned())
        .expect("the attachment is there");
    world.fake.edit(&VOLUME_ATTACHMENTS, "", &name, |own| own.set_at(&["status", "attached"], true));
}

fn reported(fake: &FakeApi, node: &str) -> Vec<String> {
    let node = fake.peek(&NODES, "", node).map(|node| node.to_value()).unwrap_or_default();
    let list = node.array_at(&["status", "volumesAttached"]).iter();
    list.map(|own| own.str_at(&["name"]).to_owned()).collect()
}

fn state(change: impl FnOnce(&mut NodeState)) -> NodeState {
    let mut state = NodeState { exists: true, ready: true, ..NodeState::default() };
    change(&mut state);
    state
}

fn attachment(change: impl FnOnce(&mut Attachment)) -> Attachment {
    let mut own = Attachment {
        uid: Str::default(),
        name: "csi-1".into(),
        reported_as: NAME_ON_NODE.into(),
        volume: "pv".into(),
        attached: true,
        deleting: false,
        error: None,
    };
    change(&mut own);
    own
}

fn own_volume() -> Volume {
    let view = object(volume()).view::<PersistentVolume>().expect("the test's volume");
    Volume::of(&view).expect("it is of a driver")
}

#[test]
fn a_volume_is_detached_when_its_node_let_go_of_it() {
    let mounted = |state: &mut NodeState| state.in_use = vec![NAME_ON_NODE.into()];
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let detaches = |state: &NodeState, waited: Duration| {
        let plan = plan::plan(state, &BTreeMap::new(), &[attachment(|_| {})], |_| false, |_| waited);
        assert_ne!(plan.detach.is_empty(), plan.unmounting.is_empty());
        !plan.detach.is_empty()
    };
    assert!(detaches(&state(|_| {}), minutes(0)));
    assert!(!detaches(&state(mounted), minutes(60)), "a healthy node unmounts in its own time");
    let lost = state(|state| {
        mounted(state);
        state.ready = false;
    });
    assert!(!detaches(&lost, minutes(6) - Duration::from_secs(1)));
    assert!(detaches(&lost, minutes(6)));
    assert!(detaches(&state(|state| (mounted(state), state.out_of_service = true).1), minutes(0)));
    assert!(detaches(&NodeState::default(), minutes(0)), "the node is gone");
}

#[test]
fn what_is_attached_is_reported_until_it_is_detached() {
    let wanted: BTreeMap<Str, Volume> = [("pv".into(), own_volume())].into();
    let none = BTreeMap::new();
    let told = state(|state| state.attached = vec![NAME_ON_NODE.into()]);
    let plan_of = |state: &NodeState, wanted: &BTreeMap<Str, Volume>, own: Attachment| {
        plan::plan(state, wanted, &[own], |_| false, |_| Duration::ZERO)
    };
    let fresh = plan_of(&state(|_| {}), &wanted, attachment(|_| {}));
    assert_eq!(fresh.report, Some(vec![NAME_ON_NODE.into()]));
    assert_eq!(fresh.succeeded, ["pv"]);
    assert_eq!(plan_of(&told, &wanted, attachment(|_| {})), plan::Plan::default());
    let pending = plan_of(&state(|_| {}), &wanted, attachment(|own| own.attached = false));
    assert_eq!(pending, plan::Plan::default());
    let broken = plan_of(
        &state(|_| {}),
        &wanted,
        attachment(|own| {
            own.attached = false;
            own.error = Some("no room".into());
        }),
    );
    assert_eq!(broken.failed, [("pv".into(), "no room".into())]);
    let done = plan_of(&told, &none, attachment(|_| {}));
    assert_eq!((done.report, done.detach.len()), (Some(Vec::new()), 1));
    let leaving = plan_of(&told, &wanted, attachment(|own| own.deleting = true));
    assert_eq!(
        (leaving.report, leaving.attach.len()),
        (Some(Vec::new()), 0),
        "it is attached anew once it is gone"
    );
    let gone = plan_of(&NodeState::default(), &none, attachment(|_| {}));
    assert_eq!(gone.report, None);
}

#[test]
fn a_volume_for_one_node_waits_for_the_other_one() {
    let shared = Volume { exclusive: false, ..own_volume() };
    for (volume, elsewhere, attaches) in
        [(own_volume(), false, true), (own_volume(), true, false), (shared, true, true)]
    {
        let wanted = [("pv".into(), volume)].into();
        let plan = plan::plan(&state(|_| {}), &wanted, &[], |_| elsewhere, |_| Duration::ZERO);
        assert_eq!((plan.attach.len() == 1, plan.taken.is_empty()), (attaches, attaches));
    }
    let users = |list: &[(&str, &str)]| -> Vec<(Str, Str)> {
        list.iter().map(|(namespace, name)| (Str::from(*namespace), Str::from(*name))).collect()
    };
    for (list, wanted) in [
        (users(&[]), "Volume is already exclusively attached to one node and can't be attached to another"),
        (users(&[("ns", "b"), ("ns", "a")]), "Volume is already used by pod(s) a, b"),
        (users(&[("x", "a")]), "Volume is already used by 1 pod(s) in different namespaces"),
        (
            users(&[("x", "a"), ("ns", "b")]),
            "Volume is already used by pod(s) b and 1 pod(s) in different namespaces",
        ),
    ] {
        assert_eq!(plan::taken("pv", "ns", &list), format!("Multi-Attach error for volume \"pv\" {wanted}"));
    }
}

#[test]
fn a_deleted_pod_needs_its_volumes_until_its_containers_stopped() {
    let needs = |status: Value, deleting: bool| {
        let mut tree = pod("p", "n");
        tree.set_at(&["status"], status);
        if deleting {
            tree.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        }
        plan::needs_volumes(&object(tree).view::<Pod>().expect("the test's pod"))
    };
    let running = || json!({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]});
    let stopped = json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {}}}]});
    assert!(needs(running(), false) && needs(running(), true));
    assert!(needs(stopped.clone(), false) && !needs(stopped, true));
    assert!(!needs(json!({"phase": "Succeeded"}), false));
}

#[tokio::test]
async fn a_volume_is_attached_reported_and_detached() {
    let world = World::start(vec![descriptor()], vec![node("n", |_| {}), claim(), volume(), pod("p", "n")]);
    world.wait_for("an attachment", |fake| attachments(fake).len() == 1).await;
    let made = &attachments(&world.fake)[0];
    // The hash of "hd.example.comn".
    assert_eq!(
        made.str_at(&["metadata", "name"]),
        "csi-6f50f41227a8b176bdb8f16917f5785c6f29d47af0c6e4fb07ef999717e5cb6d"
    );
    assert_eq!(
        made["spec"],
        json!({"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "pv"}})
    );
    assert!(reported(&world.fake, "n").is_empty());
    set_attached(&world, "n");
    world.wait_for("reported", |fake| reported(fake, "n") == [NAME_ON_NODE]).await;
    world.wait_for("said", |fake| !fake.peek_all(&api::gvr::EVENTS).is_empty()).await;
    assert_eq!(world.events(), ["SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"pv\" "]);
    world.fake.edit(&NODES, "", "n", |node| node.set_at(&["status", "volumesInUse"], json!([NAME_ON_NODE])));
    world.fake.drop_object(&PODS, "ns", "p");
    // Another pod's attachment shows that the deletion was looked at.
    let mut other = volume();
    other.set_at(&["metadata", "name"], "other");
    other.set_at(&["spec", "csi", "volumeHandle"], "o");
    other.set_at(&["spec", "claimRef"], json!({"namespace": "ns", "name": "other", "uid": "o-uid"}));
    let mut other_claim = claim();
    other_claim.set_at(&["metadata"], json!({"name": "other", "namespace": "ns", "uid": "o-uid"}));
    other_claim.set_at(&["spec", "volumeName"], "other");
    let mut other_pod = pod("q", "n");
    other_pod.set_at(
        &["spec", "volumes"],
        json!([{"name": "v", "persistentVolumeClaim": {"claimName": "other"}}]),
    );
    [other, other_claim, other_pod].into_iter().for_each(|tree| drop(world.fake.seed(tree)));
    world.wait_for("the other one", |fake| attachments(fake).len() == 2).await;
    world.fake.edit(&NODES, "", "n", |node| drop(node.remove_at(&["status", "volumesInUse"])));
    world.wait_for("detached", |fake| attachments(fake).len() == 1).await;
    world.wait_for("not reported", |fake| reported(fake, "n").is_empty()).await;
}

#[tokio::test]
async fn an_attachment_of_a_volume_that_is_not_known_is_somebody_elses() {
    let foreign = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": "foreign"}, "spec": {"attacher": "x", "nodeName": "n",
        "source": {"persistentVolumeName": "gone"}}, "status": {"attached": true}});
    let seeds = vec![foreign, node("n", |_| {}), claim(), volume(), pod("p", "n")];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("attached beside it", |fake| attachments(fake).len() == 2).await;
    set_attached(&world, "n");
    world.wait_for("reported", |fake| reported(fake, "n").contains(&NAME_ON_NODE.to_owned())).await;
    world.fake.drop_object(&PODS, "ns", "p");
    world.wait_for("detached", |fake| attachments(fake).len() == 1).await;
    assert_eq!(attachments(&world.fake)[0].str_at(&["metadata", "name"]), "foreign");
}

#[tokio::test]
async fn a_volume_moves_to_another_node_once_the_first_is_done() {
    let seeds = vec![node("a", |_| {}), node("b", |_| {}), claim(), volume(), pod("first", "a")];
    let world = World::start(vec![descriptor()], seeds);
    world.wait_for("attached to a", |fake| attachments(fake).len() == 1).await;
    set_attached(&world, "a");
    world.wait_for("reported", |fake| reported(fake, "a").len() == 1).await;
    world.fake.seed(pod("second", "b"));
    let why =
        "FailedAttachVolume: Multi-Attach error for volume \"pv\" Volume is already used by pod(s) first";
    world
        .wait_for("said", |fake| {
            let events = fake.peek_all(&api::gvr::EVENTS);
            events.iter().any(|event| event.to_value().str_at(&["reason"]) == "FailedAttachVolume")
        })
        .await;
    assert!(world.events().iter().any(|event| event == why), "{:?}", world.events());
    assert_eq!(attachments(&world.fake).len(), 1);
    world.fake.drop_object(&PODS, "ns", "first");
    world
        .wait_for("attached to b alone", |fake| {
            let all = attachments(fake);
            all.len() == 1 && all[0].str_at(&["spec", "nodeName"]) == "b"
        })
        .await;
}

#[tokio::test]
async fn drivers_and_nodes_that_attach_nothing_have_no_attachments() {
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
        "metadata": {"name": "d.example.com"}, "spec": {"attachRequired": false}});
    let simulated = node("simulated", |node| drop(node.remove_at(&["metadata", "annotations"])));
    let seeds =
        vec![driver, simulated, node("n", |_| {}), claim(), volume(), pod("p", "n"), pod("q", "simulated")];
    let world = World::start(vec![descriptor()], seeds);
    world.fake.edit(&NODES, "", "n", |node| {
        node.set_at(&["status", "volumesAttached"], json!([{"name": "stale", "devicePath": ""}]));
    });
    world.wait_for("looked at", |fake| reported(fake, "n").is_empty()).await;
    assert!(attachments(&world.fake).is_empty());
    world.fake.drop_object(&CSI_DRIVERS, "", "d.example.com");
    world.wait_for("attached", |fake| attachments(fake).len() == 1).await;
    assert_eq!(attachments(&world.fake)[0].str_at(&["spec", "nodeName"]), "n");
}
