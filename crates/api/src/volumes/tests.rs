//! Which volume a claim gets on a node, and what became of volumes of plugins that moved out.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::in_tree::{Disk, driver_and_handle, translated_affinity};
use super::*;
use crate::view::CsiNode;

fn of<T: serde::de::DeserializeOwned>(tree: Json) -> T {
    serde_json::from_value(tree).expect("the test's object")
}

fn labels(tree: Json) -> StringMap {
    of(tree)
}

fn claim(spec: Json) -> PersistentVolumeClaim {
    let mut tree = json!({"metadata": {"name": "data", "namespace": "ns", "uid": "u"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "late"}});
    merge(&mut tree["spec"], spec);
    of(tree)
}

fn volume(name: &str, size: &str, spec: Json) -> Arc<PersistentVolume> {
    let mut tree = json!({"metadata": {"name": name, "labels": {"disk": name}}, "spec": {
        "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "late"},
        "status": {"phase": "Available"}});
    merge(&mut tree["spec"], spec);
    of(tree)
}

fn merge(tree: &mut Json, changes: Json) {
    for (key, value) in changes.as_object().into_iter().flatten() {
        tree[key] = value.clone();
    }
}

fn only_in(zone: &str) -> Json {
    json!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}})
}

#[test]
fn a_claim_gets_the_smallest_volume_that_its_node_can_reach() {
    let here = labels(json!({"zone": "a"}));
    let own = |name: &str| json!({"namespace": "ns", "name": name});
    let table = [
        ("the smallest", claim(json!({})), vec![("l", "9Gi", json!({})), ("s", "6Gi", json!({}))], Some("s")),
        ("too small", claim(json!({})), vec![("s", "4Gi", json!({}))], None),
        (
            "the smallest that can be reached",
            claim(json!({})),
            vec![
                ("l", "9Gi", json!({"nodeAffinity": only_in("a")})),
                ("s", "6Gi", json!({"nodeAffinity": only_in("b")})),
            ],
            Some("l"),
        ),
        (
            "its own, however large",
            claim(json!({})),
            vec![("s", "6Gi", json!({})), ("own", "9Gi", json!({"claimRef": own("data")}))],
            Some("own"),
        ),
        (
            "its own or none",
            claim(json!({})),
            vec![
                ("own", "9Gi", json!({"claimRef": own("data"), "nodeAffinity": only_in("b")})),
                ("s", "6Gi", json!({})),
            ],
            None,
        ),
        ("somebody else's", claim(json!({})), vec![("s", "6Gi", json!({"claimRef": own("other")}))], None),
        ("another class", claim(json!({})), vec![("s", "6Gi", json!({"storageClassName": "fast"}))], None),
        ("another mode", claim(json!({})), vec![("s", "6Gi", json!({"volumeMode": "Block"}))], None),
        (
            "other access",
            claim(json!({"accessModes": ["ReadWriteMany"]})),
            vec![("s", "6Gi", json!({}))],
            None,
        ),
        (
            "selected",
            claim(json!({"selector": {"matchLabels": {"disk": "l"}}})),
            vec![("s", "6Gi", json!({})), ("l", "9Gi", json!({}))],
            Some("l"),
        ),
        ("taken meanwhile", claim(json!({})), vec![("taken", "6Gi", json!({}))], None),
    ];
    for (what, claim, volumes, wanted) in table {
        let volumes: Vec<_> =
            volumes.into_iter().map(|(name, size, spec)| volume(name, size, spec)).collect();
        let found = match_on_node(&claim, &volumes, &here, |volume| volume.metadata.name != "taken");
        assert_eq!(found.map(|volume| volume.metadata.name.as_str()), wanted, "{what}");
    }
}

#[test]
fn topologies_of_a_class_allow_a_node_by_any_term() {
    let term = |zones: &[&str]| json!({"matchLabelExpressions": [{"key": "zone", "values": zones}]});
    let here = labels(json!({"zone": "a"}));
    for (terms, wanted) in [
        (json!([]), true),
        (json!([{}]), false),
        (json!([term(&["b"])]), false),
        (json!([term(&["b"]), term(&["c", "a"])]), true),
        (
            json!([{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}, {"key": "rack", "values": ["r"]}]}]),
            false,
        ),
    ] {
        let shown = terms.to_string();
        assert_eq!(is_allowed(&of::<Vec<TopologySelectorTerm>>(terms), &here), wanted, "{shown}");
    }
}

#[test]
fn a_pods_own_claim_is_its_own_by_uid() {
    let pod: Pod = of(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "p1"}}));
    let owned = |namespace: &str, owners: Json| -> PersistentVolumeClaim {
        of(json!({"metadata": {"name": "p-scratch", "namespace": namespace, "ownerReferences": owners}}))
    };
    assert!(is_own_claim(&owned("ns", json!([{"uid": "p1", "controller": true}])), &pod));
    assert!(!is_own_claim(&owned("ns", json!([{"uid": "p1"}])), &pod));
    assert!(!is_own_claim(&owned("ns", json!([{"uid": "p0", "controller": true}])), &pod));
    assert!(!is_own_claim(&owned("other", json!([{"uid": "p1", "controller": true}])), &pod));
}

#[test]
fn drivers_know_disks_of_old_plugins_by_their_own_names() {
    let labelled = |zones: &str, spec: Json| -> PersistentVolume {
        of(json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zones}}, "spec": spec}))
    };
    let gce = json!({"gcePersistentDisk": {"pdName": "d"}});
    let table = [
        (
            labelled("", gce.clone()),
            Some("pd.csi.storage.gke.io projects/UNSPECIFIED/zones/UNSPECIFIED/disks/d"),
        ),
        (
            labelled("us-a-1", gce.clone()),
            Some("pd.csi.storage.gke.io projects/UNSPECIFIED/zones/us-a-1/disks/d"),
        ),
        (
            labelled("us-a-1__us-a-2", gce.clone()),
            Some("pd.csi.storage.gke.io projects/UNSPECIFIED/regions/us-a/disks/d"),
        ),
        (labelled("us-a-1__us-b-2", gce), None),
        (labelled("", json!({"awsElasticBlockStore": {"volumeID": "vol-1"}})), Some("ebs.csi.aws.com vol-1")),
        (
            labelled("", json!({"awsElasticBlockStore": {"volumeID": "aws://z/vol-1"}})),
            Some("ebs.csi.aws.com vol-1"),
        ),
        (labelled("", json!({"awsElasticBlockStore": {"volumeID": "aws:///disk"}})), None),
        (
            labelled("", json!({"azureDisk": {"diskURI": "/d", "kind": "Managed"}})),
            Some("disk.csi.azure.com /d"),
        ),
        (labelled("", json!({"azureDisk": {"diskURI": "/d", "kind": "Shared"}})), None),
        (labelled("", json!({"cinder": {"volumeID": "c"}})), Some("cinder.csi.openstack.org c")),
        (labelled("", json!({"portworxVolume": {"volumeID": "p"}})), Some("pxd.portworx.com p")),
        (labelled("", json!({"csi": {"driver": "d", "volumeHandle": "h"}})), Some("d h")),
        (labelled("", json!({"hostPath": {"path": "/"}})), None),
    ];
    for (volume, wanted) in table {
        let found = driver_and_handle(&volume).map(|(driver, handle)| format!("{driver} {handle}"));
        assert_eq!(found.as_deref(), wanted, "{volume:?}");
    }
    let inline: Volume = of(json!({"name": "v", "cinder": {"volumeID": "c"}}));
    assert_eq!(Disk::of_pod(&inline).and_then(|disk| disk.handle("")).as_deref(), Some("c"));
}

#[test]
fn zones_of_a_migrated_volume_are_those_of_its_driver() {
    let node = |plugins: &str| -> CsiNode {
        of(json!({"metadata": {"annotations": {"storage.alpha.kubernetes.io/migrated-plugins": plugins}}}))
    };
    let migrated = node("kubernetes.io/aws-ebs,kubernetes.io/gce-pd");
    let disk = |labels: Json, affinity: Json| -> PersistentVolume {
        of(json!({"metadata": {"labels": labels},
            "spec": {"gcePersistentDisk": {"pdName": "d"}, "nodeAffinity": affinity}}))
    };
    let in_zone = |key: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}]}});
    let here = labels(json!({"topology.gke.io/zone": "a"}));
    let there = labels(json!({"topology.gke.io/zone": "b", "topology.kubernetes.io/zone": "a"}));
    for (volume, there_too) in [
        (disk(json!({}), in_zone("topology.kubernetes.io/zone")), false),
        (disk(json!({}), in_zone("failure-domain.beta.kubernetes.io/zone")), false),
        (disk(json!({"topology.kubernetes.io/zone": "a__c"}), Json::Null), false),
        (disk(json!({"failure-domain.beta.kubernetes.io/zone": "a"}), Json::Null), false),
        (disk(json!({}), Json::Null), true),
    ] {
        let affinity = translated_affinity(&volume, Some(&migrated)).expect("the node says so");
        assert!(is_reachable(Some(&affinity), &here), "{affinity:?}");
        assert_eq!(is_reachable(Some(&affinity), &there), there_too, "{affinity:?}");
    }
    let volume = disk(json!({}), in_zone("topology.kubernetes.io/zone"));
    assert_eq!(translated_affinity(&volume, Some(&node("kubernetes.io/cinder"))), None);
    assert_eq!(translated_affinity(&volume, None), None);
}
