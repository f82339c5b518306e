//! Pods with volumes: a table per plugin, and claims bound through the whole scheduler.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{
    CSI_DRIVERS, CSI_NODES, CSI_STORAGE_CAPACITIES, EVENTS, NODES, PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES, VOLUME_ATTACHMENTS,
};
use api::volumes::{BIND_COMPLETED, SELECTED_NODE};
use apimachinery::{Value, json};
use client::Informers;
use client::fake::FakeApi;
use rt::Shutdown;
use serde_json::{Value as Json, json as plain};
use tokio::sync::oneshot;

use super::*;
use crate::cache::Cache;
use crate::framework::{Arguments, Profile, Registration, Reserve};
use crate::plugins::{DEFAULT, default_profile};
use crate::run::{Options, run, run_profiles};
use crate::shortlist::Shortlist;
use crate::testing::{handle_of, labelled_node, pod_info};

/// A claim of the class `late` unless `spec` says otherwise.
fn claim(name: &str, spec: Json) -> Value {
    let mut tree = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "late"}});
    set_all(&mut tree, &["spec"], spec);
    tree
}

/// A claim that is bound to the volume.
fn bound(name: &str, volume: &str) -> Value {
    let mut claim = claim(name, plain!({"volumeName": volume}));
    claim.set_at(&["metadata", "annotations", BIND_COMPLETED], "yes");
    claim
}

fn volume(name: &str, labels: Json, spec: Json) -> Value {
    let mut tree = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "late"},
        "status": {"phase": "Available"}});
    set_all(&mut tree, &["metadata", "labels"], labels);
    set_all(&mut tree, &["spec"], spec);
    tree
}

fn class(name: &str, provisioner: &str, mode: &str, rest: Json) -> Value {
    let mut tree = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode});
    set_all(&mut tree, &[], rest);
    tree
}

fn late() -> Value {
    class("late", "example.com/disk", "WaitForFirstConsumer", plain!({}))
}

fn set_all(tree: &mut Value, at: &[&str], fields: Json) {
    for (key, value) in fields.as_object().into_iter().flatten() {
        let path: Vec<&str> = at.iter().copied().chain([key.as_str()]).collect();
        tree.set_at(&path, Value::parse(value.to_string().as_bytes()).expect("the test's JSON"));
    }
}

fn in_zone(zone: &str) -> Json {
    plain!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]}})
}

fn with_claims(name: &str, claims: &[&str]) -> Arc<PodInfo> {
    let volumes: Vec<Json> = claims
        .iter()
        .map(|claim| plain!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    pod_info(name, &plain!({"volumes": volumes}).to_string())
}

/// Scheduler and objects, with the nodes `a` and `b` in the zones of their names.
struct World {
    profile: Profile,
    cache: Cache,
}

impl World {
    async fn new(objects: Vec<Value>) -> Self {
        let api = FakeApi::new();
        objects.into_iter().for_each(|object| drop(api.seed(object)));
        let handle = handle_of(api);
        let read = [
            &PERSISTENT_VOLUME_CLAIMS,
            &PERSISTENT_VOLUMES,
            &STORAGE_CLASSES,
            &CSI_NODES,
            &CSI_DRIVERS,
            &CSI_STORAGE_CAPACITIES,
            &VOLUME_ATTACHMENTS,
        ];
        for resource in read {
            handle.informers.of(resource).synced().await;
        }
        let mut cache = Cache::default();
        for name in ["a", "b"] {
            let labels =
                plain!({"topology.kubernetes.io/zone": name, "topology.gke.io/zone": "z"}).to_string();
            cache.upsert_node(labelled_node(name, &labels, "{}", "{}"));
        }
        let profile = default_profile("default-scheduler", &handle).expect("the default profile is one");
        Self { profile, cache }
    }

    fn place(&mut self, pod: &Arc<PodInfo>, node: &str) {
        let slot = self.cache.slot(node).expect("a node of the test");
        self.cache.assume(pod.clone(), slot);
    }

    /// The nodes that fit, then what the others say; or who refuses the pod altogether.
    fn answer(&self, pod: &Arc<PodInfo>) -> String {
        let shortlist = match Shortlist::new(&self.profile, pod.clone(), &self.cache) {
            Ok(shortlist) => shortlist,
            Err((plugin, status)) => {
                return format!(
                    "{} {:?}: {}",
                    self.profile.plugin_name(plugin),
                    status.code,
                    status.message()
                );
            }
        };
        let name = |slot| self.cache.node(slot).map_or("", |node| node.name.as_str());
        let feasible = self.cache.nodes().filter(|(slot, _)| shortlist.is_feasible(*slot));
        let mut said: Vec<String> = feasible.map(|(_, node)| node.name.to_string()).collect();
        said.extend(shortlist.refused().map(|(slot, refusal)| {
            let plugin = self.profile.plugin_name(refusal.plugin);
            format!("{}: {plugin} {:?}: {}", name(slot), refusal.status.code, refusal.status.message())
        }));
        said.join("; ")
    }
}

const CONFLICT: &str =
    "VolumeBinding UnschedulableAndUnresolvable: node(s) didn't match PersistentVolume's node affinity";
const NO_MATCH: &str =
    "VolumeBinding UnschedulableAndUnresolvable: node(s) didn't find available persistent volumes to bind";
const NO_SPACE: &str = "VolumeBinding UnschedulableAndUnresolvable: node(s) did not have enough free storage";

#[tokio::test]
async fn claims_that_cannot_be_used_refuse_the_pod() {
    let mut lost = claim("lost", plain!({"volumeName": "gone"}));
    lost.set_at(&["status", "phase"], "Lost");
    let mut leaving = claim("leaving", plain!({}));
    leaving.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
    leaving.set_at(&["metadata", "finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let world = World::new(vec![
        late(),
        class("now", "example.com/disk", "Immediate", plain!({})),
        lost,
        leaving,
        claim("immediate", plain!({"storageClassName": "now"})),
        claim("classless", plain!({"storageClassName": ""})),
        claim("prebound", plain!({"volumeName": "v"})),
        claim("p-stolen", plain!({})),
        bound("nowhere", "no-such-volume"),
    ])
    .await;
    let binding = |message: &str| format!("VolumeBinding UnschedulableAndUnresolvable: {message}");
    let immediate = binding("pod has unbound immediate PersistentVolumeClaims");
    let table = [
        (
            "missing",
            "VolumeRestrictions UnschedulableAndUnresolvable: persistentvolumeclaim \"missing\" not found"
                .to_owned(),
        ),
        ("lost", binding("persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"gone\"")),
        ("leaving", binding("persistentvolumeclaim \"leaving\" is being deleted")),
        ("immediate", immediate.clone()),
        ("classless", immediate.clone()),
        ("prebound", immediate),
        (
            "nowhere",
            "VolumeZone UnschedulableAndUnresolvable: persistentvolume \"no-such-volume\" not found"
                .to_owned(),
        ),
    ];
    for (name, wanted) in table {
        assert_eq!(world.answer(&with_claims("p", &[name])), wanted);
    }
    let ephemeral = |name: &str| {
        pod_info(
            "p",
            &plain!({"volumes": [{"name": name, "ephemeral": {"volumeClaimTemplate": {}}}]}).to_string(),
        )
    };
    assert_eq!(
        world.answer(&ephemeral("scratch")),
        binding("waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-scratch\"")
    );
    assert_eq!(
        world.answer(&ephemeral("stolen")),
        binding("PVC default/p-stolen was not created for pod default/p (pod is not owner)")
    );
}

#[tokio::test]
async fn bound_volumes_are_reached_from_where_they_say() {
    let disk = |affinity: Json| plain!({"gcePersistentDisk": {"pdName": "d"}, "nodeAffinity": affinity});
    let world = World::new(vec![
        bound("anywhere", "free"),
        bound("zonal", "zonal"),
        bound("migrated", "migrated"),
        volume("free", plain!({}), plain!({})),
        volume("zonal", plain!({}), plain!({"nodeAffinity": in_zone("a")})),
        volume("migrated", plain!({}), disk(in_zone("z"))),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "b", "annotations":
            {"storage.alpha.kubernetes.io/migrated-plugins": "kubernetes.io/gce-pd"}}, "spec": {"drivers": []}}),
    ])
    .await;
    assert_eq!(world.answer(&with_claims("p", &["anywhere"])), "a; b");
    assert_eq!(world.answer(&with_claims("p", &["zonal"])), format!("a; b: {CONFLICT}"));
    // The node whose driver serves the disk has the driver's label for the zone.
    assert_eq!(world.answer(&with_claims("p", &["migrated"])), format!("b; a: {CONFLICT}"));
    assert_eq!(
        world.answer(&with_claims("p", &["zonal", "migrated"])),
        format!("a: {CONFLICT}; b: {CONFLICT}")
    );
}

#[tokio::test]
async fn waiting_claims_get_a_volume_that_is_there_or_one_that_can_be_made() {
    let zones = |zone: &str| {
        plain!({"allowedTopologies": [
            {"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": [zone]}]}]})
    };
    let wait = "WaitForFirstConsumer";
    let mut chosen = claim("chosen", plain!({}));
    chosen.set_at(&["metadata", "annotations", SELECTED_NODE], "b");
    let room = |name: &str, zone: &str, capacity: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity",
            "metadata": {"name": name, "namespace": "kube-system"}, "storageClassName": "measured",
            "capacity": capacity, "nodeTopology": {"matchLabels": {"topology.kubernetes.io/zone": zone}}})
    };
    let world = World::new(vec![
        late(),
        class("by-hand", "kubernetes.io/no-provisioner", wait, plain!({})),
        class("in-a", "example.com/disk", wait, zones("a")),
        class("measured", "measured.example.com", wait, plain!({})),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
            "metadata": {"name": "measured.example.com"}, "spec": {"storageCapacity": true}}),
        room("room-a", "a", "4Gi"),
        room("room-b", "b", "100Gi"),
        claim("made", plain!({})),
        chosen,
        claim("hand", plain!({"storageClassName": "by-hand"})),
        claim("hand-too", plain!({"storageClassName": "by-hand"})),
        claim("topology", plain!({"storageClassName": "in-a"})),
        claim("large", plain!({"storageClassName": "measured"})),
        volume("local-a", plain!({}), plain!({"storageClassName": "by-hand", "nodeAffinity": in_zone("a")})),
    ])
    .await;
    let table: [(&[&str], String); 7] = [
        (&["made"], "a; b".into()),
        (&["chosen"], format!("b; a: {NO_MATCH}")),
        (&["hand"], format!("a; b: {NO_MATCH}")),
        (&["hand", "hand-too"], format!("a: {NO_MATCH}; b: {NO_MATCH}")),
        (&["topology"], format!("a; b: {NO_MATCH}")),
        (&["large"], format!("b; a: {NO_SPACE}")),
        (&["large", "topology"], format!("a: {NO_SPACE}; b: {NO_MATCH}")),
    ];
    for (claims, wanted) in table {
        assert_eq!(world.answer(&with_claims("p", claims)), wanted, "{claims:?}");
    }
}

#[tokio::test]
async fn a_volume_that_one_pod_got_is_not_given_to_the_next() {
    let api = FakeApi::new();
    for object in [
        class("late", "kubernetes.io/no-provisioner", "WaitForFirstConsumer", plain!({})),
        claim("one", plain!({})),
        claim("two", plain!({})),
        volume("v", plain!({}), plain!({})),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}),
    ] {
        api.seed(object);
    }
    let handle = handle_of(api);
    let plugin = VolumeBinding::new(&handle, &Arguments::default()).expect("defaults");
    let read =
        [&PERSISTENT_VOLUME_CLAIMS, &PERSISTENT_VOLUMES, &STORAGE_CLASSES, &NODES, &CSI_NODES, &CSI_DRIVERS];
    for resource in read {
        handle.informers.of(resource).synced().await;
    }
    let (one, two) = (with_claims("p1", &["one"]), with_claims("p2", &["two"]));
    let (mut first, mut second) = (Default::default(), Default::default());
    plugin.reserve(&mut first, &one, "a").expect("the volume is free");
    let refused = plugin.reserve(&mut second, &two, "a").expect_err("it is taken");
    assert_eq!(refused.message(), "node(s) didn't find available persistent volumes to bind");
    plugin.unreserve(&mut second, &two, "a");
    plugin.unreserve(&mut first, &one, "a");
    plugin.reserve(&mut second, &two, "a").expect("it is free again");
}

#[tokio::test]
async fn zone_labels_of_volumes_bind_pods_to_zones() {
    let zone = |value: &str| plain!({"failure-domain.beta.kubernetes.io/zone": value});
    let mut world = World::new(vec![
        bound("in-a", "in-a"),
        bound("in-both", "in-both"),
        bound("unclear", "unclear"),
        bound("region", "region"),
        volume("in-a", zone("a"), plain!({})),
        volume("in-both", zone("a__b"), plain!({})),
        volume("unclear", zone("a__"), plain!({})),
        volume("region", plain!({"topology.kubernetes.io/region": "r"}), plain!({})),
    ])
    .await;
    world.cache.upsert_node(labelled_node("c", "{}", "{}", "{}"));
    let refused = "VolumeZone UnschedulableAndUnresolvable: node(s) had no available volume zone";
    let table = [
        ("in-a", format!("a; c; b: {refused}")),
        ("in-both", "a; b; c".to_owned()),
        ("unclear", "a; b; c".to_owned()),
        ("region", format!("c; a: {refused}; b: {refused}")),
    ];
    for (claim, wanted) in table {
        assert_eq!(world.answer(&with_claims("p", &[claim])), wanted, "{claim}");
    }
}

#[tokio::test]
async fn a_claim_for_one_pod_only_is_used_by_one_pod_only() {
    let mut world = World::new(vec![
        claim("own", plain!({"accessModes": ["ReadWriteOncePod"]})),
        claim("shared", plain!({})),
        late(),
    ])
    .await;
    world.place(&with_claims("first", &["own", "shared"]), "a");
    let refused = "VolumeRestrictions Unschedulable: node(s) unavailable due to PersistentVolumeClaim with \
                   ReadWriteOncePod access mode already in-use by another pod";
    assert_eq!(world.answer(&with_claims("p", &["own"])), format!("a: {refused}; b: {refused}"));
    assert_eq!(world.answer(&with_claims("p", &["shared"])), "a; b");
    // Preemption asks what if the user were not there: on its node the pod would fit.
    let pod = with_claims("p", &["own"]);
    let shortlist =
        Shortlist::new(&world.profile, pod.clone(), &world.cache).unwrap_or_else(|_| panic!("PreFilter"));
    for (node, fits) in [("a", true), ("b", false)] {
        let slot = world.cache.slot(node).expect("a node of the test");
        let mut what_if = world.cache.node(slot).expect("a node of the test").clone();
        what_if.remove_pod("first");
        let answer = shortlist.try_filters(&world.profile, &pod, &world.cache, slot, &what_if, &[]);
        assert_eq!(answer.is_ok(), fits, "{node}");
    }
    world.cache.remove_pod("first");
    assert_eq!(world.answer(&pod), "a; b");
}

#[tokio::test]
async fn some_disks_serve_one_pod_of_a_node() {
    let mut world = World::new(vec![]).await;
    let with = |name: &str, source: Json| {
        let mut volume = source;
        volume["name"] = "v".into();
        pod_info(name, &plain!({"volumes": [volume]}).to_string())
    };
    let gce =
        |name: &str, read_only: bool| plain!({"gcePersistentDisk": {"pdName": name, "readOnly": read_only}});
    let rbd = |monitors: &[&str], image: &str, read_only: bool| plain!({"rbd": {"monitors": monitors, "pool": "p", "image": image, "readOnly": read_only}});
    let iscsi = |iqn: &str, read_only: bool| plain!({"iscsi": {"iqn": iqn, "readOnly": read_only}});
    let ebs = |id: &str| plain!({"awsElasticBlockStore": {"volumeID": id, "readOnly": true}});
    for (at, source) in [gce("d", true), rbd(&["m1", "m2"], "i", false), iscsi("q", true), ebs("vol-1")]
        .into_iter()
        .enumerate()
    {
        world.place(&with(&format!("placed-{at}"), source), "a");
    }
    let refused = "b; a: VolumeRestrictions Unschedulable: node(s) had no available disk";
    let table = [
        (gce("d", true), "a; b"),
        (gce("d", false), refused),
        (gce("other", false), "a; b"),
        (rbd(&["m2", "m3"], "i", true), refused),
        (rbd(&["m3"], "i", false), "a; b"),
        (rbd(&["m1"], "other", false), "a; b"),
        (iscsi("q", true), "a; b"),
        (iscsi("q", false), refused),
        (ebs("vol-1"), refused),
        (ebs("vol-2"), "a; b"),
    ];
    for (source, wanted) in table {
        let shown = source.to_string();
        assert_eq!(world.answer(&with("p", source)), wanted, "{shown}");
    }
}

#[tokio::test]
async fn a_node_takes_as_many_volumes_of_a_driver_as_it_says() {
    let csi = |handle: &str| plain!({"csi": {"driver": "d", "volumeHandle": handle}});
    let mut objects = vec![
        class("late", "d", "WaitForFirstConsumer", plain!({})),
        class("old", "kubernetes.io/gce-pd", "WaitForFirstConsumer", plain!({})),
        claim("waits", plain!({})),
        claim("waits-too", plain!({"storageClassName": "old"})),
        bound("disk", "disk"),
        volume("disk", plain!({}), plain!({"gcePersistentDisk": {"pdName": "d"}})),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "a"}, "spec": {"drivers": [
            {"name": "d", "nodeID": "a", "allocatable": {"count": 3}},
            {"name": "pd.csi.storage.gke.io", "nodeID": "a", "allocatable": {"count": 1}},
            {"name": "endless", "nodeID": "a"}]}}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "left-over"},
            "spec": {"attacher": "d", "nodeName": "a", "source": {"persistentVolumeName": "v4"}}}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "in-use"},
            "spec": {"attacher": "d", "nodeName": "a", "source": {"persistentVolumeName": "v1"}}}),
    ];
    for at in 1..=4 {
        objects.push(bound(&format!("c{at}"), &format!("v{at}")));
        objects.push(volume(&format!("v{at}"), plain!({}), csi(&format!("h{at}"))));
    }
    let mut world = World::new(objects).await;
    let refused = "b; a: NodeVolumeLimits Unschedulable: node(s) exceed max volume count";
    // v4 is attached, v1 is in use and attached: two of three.
    world.place(&with_claims("first", &["c1"]), "a");
    assert_eq!(world.answer(&with_claims("p", &["c2"])), "a; b");
    assert_eq!(world.answer(&with_claims("p", &["waits"])), "a; b");
    assert_eq!(world.answer(&with_claims("p", &["c2", "c3"])), refused);
    assert_eq!(world.answer(&with_claims("p", &["c1", "c2"])), "a; b");
    world.place(&with_claims("second", &["c2"]), "a");
    assert_eq!(world.answer(&with_claims("p", &["c3"])), refused);
    assert_eq!(world.answer(&with_claims("p", &["waits"])), refused);
    assert_eq!(world.answer(&with_claims("p", &["c2"])), "a; b");
    // Disks of the plugin that moved out count for the driver that took over.
    assert_eq!(world.answer(&with_claims("p", &["disk"])), "a; b");
    assert_eq!(world.answer(&with_claims("p", &["disk", "waits-too"])), refused);
    let inline = plain!({"volumes": [{"name": "v", "gcePersistentDisk": {"pdName": "other"}}]}).to_string();
    world.place(&pod_info("inline", &inline), "a");
    assert_eq!(world.answer(&with_claims("p", &["disk"])), refused);
}

#[tokio::test]
async fn hints_requeue_only_what_an_object_can_help() {
    let world = World::new(vec![]).await;
    let object = |tree: Value| Object::from_value(&tree, 1, &[]).expect("the test's object");
    let pod = with_claims("p", &["data"]);
    let helps = |plugin: &str, resource: &GroupVersionResource, old: Option<Value>, new: Option<Value>| {
        let (old, new) = (old.map(object), new.map(object));
        let event = Event::Object { resource, old: old.as_ref(), new: new.as_ref() };
        let rejector = (0..64).find(|&id| world.profile.plugin_name(id) == plugin).expect("a plugin");
        let kinds = event.kinds();
        world.profile.is_worth_requeuing(&pod, [rejector].into_iter().collect(), &event, kinds)
    };
    let claims = &PERSISTENT_VOLUME_CLAIMS;
    for plugin in ["VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone"] {
        assert!(helps(plugin, claims, None, Some(claim("data", plain!({})))), "{plugin}");
        assert!(!helps(plugin, claims, None, Some(claim("other", plain!({})))), "{plugin}");
        assert!(!helps(plugin, claims, Some(claim("data", plain!({}))), None), "{plugin}");
    }
    let changed = || (Some(claim("data", plain!({}))), Some(bound("data", "v")));
    for (plugin, wanted) in [
        ("VolumeRestrictions", false),
        ("NodeVolumeLimits", false),
        ("VolumeBinding", true),
        ("VolumeZone", true),
    ] {
        let (old, new) = changed();
        assert_eq!(helps(plugin, claims, old, new), wanted, "{plugin}");
    }
    let immediate = || class("c", "p", "Immediate", plain!({}));
    assert!(helps("VolumeZone", &STORAGE_CLASSES, None, Some(late())));
    assert!(!helps("VolumeZone", &STORAGE_CLASSES, None, Some(immediate())));
    assert!(helps("VolumeBinding", &STORAGE_CLASSES, None, Some(immediate())));
    assert!(!helps("VolumeBinding", &STORAGE_CLASSES, Some(immediate()), Some(immediate())));
    let limited = |count: i64| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "a"},
            "spec": {"drivers": [{"name": "d", "nodeID": "a", "allocatable": {"count": count}}]}})
    };
    assert!(helps("NodeVolumeLimits", &CSI_NODES, Some(limited(1)), Some(limited(2))));
    assert!(!helps("NodeVolumeLimits", &CSI_NODES, Some(limited(2)), Some(limited(1))));
    assert!(helps("NodeVolumeLimits", &CSI_NODES, None, Some(limited(1))));
    let labelled = |zone: &str| volume("v", plain!({"topology.kubernetes.io/zone": zone}), plain!({}));
    assert!(helps("VolumeZone", &PERSISTENT_VOLUMES, Some(labelled("a")), Some(labelled("b"))));
    assert!(!helps("VolumeZone", &PERSISTENT_VOLUMES, Some(labelled("a")), Some(labelled("a"))));
    assert!(helps("VolumeBinding", &PERSISTENT_VOLUMES, Some(labelled("a")), Some(labelled("a"))));
    let room = |capacity: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity",
            "metadata": {"name": "r", "namespace": "x"}, "storageClassName": "late", "capacity": capacity})
    };
    assert!(helps("VolumeBinding", &CSI_STORAGE_CAPACITIES, Some(room("1Gi")), Some(room("2Gi"))));
    assert!(!helps("VolumeBinding", &CSI_STORAGE_CAPACITIES, Some(room("2Gi")), Some(room("1Gi"))));
}

#[test]
fn the_time_to_bind_is_an_argument() {
    let made = |arguments: Json| {
        let fields = arguments.as_object().cloned().unwrap_or_default();
        VolumeBinding::new(&crate::testing::handle(), &Arguments::new(fields))
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(made(plain!({"bindTimeoutSeconds": 30})), Ok(()));
    assert!(made(plain!({"bindTimeoutSeconds": -1})).is_err_and(|error| error.contains("Invalid value: -1")));
    assert!(made(plain!({"shape": []})).is_err_and(|error| error.contains("shape")));
}

// === through the whole scheduler ===

/// An API with a node, a pod that uses `data`, and a scheduler with this time to bind.
async fn cluster(objects: Vec<Value>, bind_timeout_seconds: Option<i64>) -> (Arc<FakeApi>, Shutdown) {
    let (api, shutdown) = (FakeApi::new(), Shutdown::new());
    api.seed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}}));
    objects.into_iter().for_each(|object| drop(api.seed(object)));
    api.seed(consumer("p", "data"));
    let (ready, is_ready) = oneshot::channel();
    let (served, stop) = (api.clone(), shutdown.clone());
    rt::spawn("scheduler", async move {
        let informers = Informers::new(served.clone(), stop.clone());
        match bind_timeout_seconds {
            None => run(served, &informers, Options::default(), ready, stop).await.expect("it runs"),
            Some(seconds) => {
                let handle = Handle { api: served.clone(), informers, ..handle_of(served) };
                let profile =
                    Profile::new("default-scheduler", plugins(&handle, seconds)).expect("a profile");
                run_profiles(vec![(profile, handle)], Options::default(), ready, stop)
                    .await
                    .expect("it runs");
            }
        }
    });
    is_ready.await.expect("it starts");
    (api, shutdown)
}

fn plugins(handle: &Handle, bind_timeout_seconds: i64) -> Vec<Registration> {
    let arguments =
        Arguments::new([("bindTimeoutSeconds".into(), bind_timeout_seconds.into())].into_iter().collect());
    let of = |name: &str| if name == "VolumeBinding" { arguments.clone() } else { Arguments::default() };
    DEFAULT
        .iter()
        .map(|row| (row.factory)(handle, &of(row.name)).expect("a plugin").weighing(row.weight))
        .collect()
}

fn consumer(name: &str, claim: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]},
        "status": {"phase": "Pending"}})
}

/// Waits for a state, not for time to pass.
async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = rt::instant() + Duration::from_secs(20);
    while !reached() {
        assert!(rt::instant() < deadline, "not reached: {what}");
        rt::sleep(Duration::from_millis(2)).await;
    }
}

fn node_of(api: &FakeApi, pod: &str) -> String {
    let pod = api.peek(&PODS, "default", pod).map(|pod| pod.to_value()).unwrap_or_default();
    pod.str_at(&["spec", "nodeName"]).to_owned()
}

/// What the binder does.
fn complete(api: &FakeApi, claim: &str, volume: &str) {
    api.edit(&PERSISTENT_VOLUME_CLAIMS, "default", claim, |claim| {
        claim.set_at(&["spec", "volumeName"], volume);
        claim.set_at(&["metadata", "annotations", BIND_COMPLETED], "yes");
    });
}

fn is_told(api: &FakeApi, text: &str) -> bool {
    api.peek_all(&EVENTS).iter().any(|event| event.to_value().str_at(&["message"]).contains(text))
}

fn selected_node(api: &FakeApi, claim: &str) -> String {
    let claim = api.peek(&PERSISTENT_VOLUME_CLAIMS, "default", claim).map(|claim| claim.to_value());
    claim.unwrap_or_default().str_at(&["metadata", "annotations", SELECTED_NODE]).to_owned()
}

#[tokio::test]
async fn a_volume_names_its_claim_before_the_pod_is_bound() {
    let (api, shutdown) =
        cluster(vec![late(), claim("data", plain!({})), volume("v", plain!({}), plain!({}))], None).await;
    let volume = || api.peek(&PERSISTENT_VOLUMES, "", "v").expect("it is there").to_value();
    until("the volume names the claim", || volume().str_at(&["spec", "claimRef", "uid"]) == "data").await;
    let note = ["metadata", "annotations", "pv.kubernetes.io/bound-by-controller"];
    assert_eq!(volume().str_at(&note), "yes");
    assert_eq!(node_of(&api, "p"), "", "the binder is not done");
    complete(&api, "data", "v");
    until("bound", || node_of(&api, "p") == "a").await;
    assert_eq!(selected_node(&api, "data"), "", "there is nothing to make");
    shutdown.cancel();
}

#[tokio::test]
async fn a_claim_names_the_node_and_the_pod_waits_for_its_volume() {
    let (api, shutdown) = cluster(vec![late(), claim("data", plain!({}))], None).await;
    until("the node is selected", || selected_node(&api, "data") == "a").await;
    // Others are not held up.
    api.seed(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "namespace": "default"},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c"}]}, "status": {"phase": "Pending"}}));
    until("the other is bound", || node_of(&api, "other") == "a").await;
    assert_eq!(node_of(&api, "p"), "");
    api.seed(volume(
        "made",
        plain!({}),
        plain!({"claimRef": {"name": "data", "namespace": "default", "uid": "data"}}),
    ));
    complete(&api, "data", "made");
    until("bound", || node_of(&api, "p") == "a").await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_provisioner_that_gives_up_makes_the_pod_look_again() {
    let (api, shutdown) = cluster(vec![late(), claim("data", plain!({}))], None).await;
    until("the node is selected", || selected_node(&api, "data") == "a").await;
    api.edit(&PERSISTENT_VOLUME_CLAIMS, "default", "data", |claim| {
        claim.set_at(&["metadata", "annotations"], json!({"by": "provisioner"}));
    });
    until("told", || is_told(&api, "binding volumes: provisioning failed for PVC \"data\"")).await;
    until("it is selected again", || selected_node(&api, "data") == "a").await;
    shutdown.cancel();
}

#[tokio::test]
async fn nobody_waits_for_the_volume_of_a_pod_that_is_gone() {
    let (api, shutdown) = cluster(vec![late(), claim("data", plain!({}))], None).await;
    until("the node is selected", || selected_node(&api, "data") == "a").await;
    api.drop_object(&PODS, "default", "p");
    until("told", || is_told(&api, "binding volumes: pod does not exist any more: pod \"p\" not found"))
        .await;
    shutdown.cancel();
}

#[tokio::test]
async fn nobody_waits_for_a_volume_on_a_node_that_is_gone() {
    let (api, shutdown) = cluster(vec![late(), claim("data", plain!({}))], None).await;
    until("the node is selected", || selected_node(&api, "data") == "a").await;
    api.drop_object(&NODES, "", "a");
    until("told", || is_told(&api, "binding volumes: failed to get node \"a\": node \"a\" not found")).await;
    shutdown.cancel();
}

#[tokio::test]
async fn waiting_for_a_volume_has_an_end() {
    let (api, shutdown) = cluster(vec![late(), claim("data", plain!({}))], Some(0)).await;
    let condition = || {
        let pod = api.peek(&PODS, "default", "p").expect("it is there").to_value();
        pod.array_at(&["status", "conditions"]).first().cloned().unwrap_or_default()
    };
    until("told", || condition().str_at(&["reason"]) == "SchedulerError").await;
    let wanted = "running PreBind plugin \"VolumeBinding\": binding volumes: context deadline exceeded";
    assert_eq!(condition().str_at(&["message"]), wanted);
    shutdown.cancel();
}

#[tokio::test]
async fn a_pod_whose_claim_comes_later_is_scheduled_then() {
    let (api, shutdown) = cluster(vec![late(), volume("v", plain!({}), plain!({}))], None).await;
    until("told", || is_told(&api, "0/1 nodes are available: persistentvolumeclaim \"data\" not found."))
        .await;
    api.seed(bound("data", "v"));
    until("bound", || node_of(&api, "p") == "a").await;
    shutdown.cancel();
}
