//! The binder: what it decides, and what it does to the API.

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES};
use api::volumes::PROVISIONED_BY;
use api::volumes::in_tree::MIGRATED_TO;
use apimachinery::{Value, json};
use client::DeleteOptions;

use super::*;
use crate::testing::{World, object};

fn claim(change: impl FnOnce(&mut Value)) -> Value {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "ns", "uid": "claim-uid"},
        "spec": {"storageClassName": "", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}}},
        "status": {"phase": "Pending"}});
    change(&mut claim);
    claim
}

fn volume(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": "d", "volumeHandle": "h"}},
        "status": {"phase": "Available"}});
    change(&mut volume);
    volume
}

fn class(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "example.com/p", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"});
    change(&mut class);
    class
}

fn set<V: Into<Value>>(path: &'static [&'static str], value: V) -> impl FnOnce(&mut Value) {
    move |tree| tree.set_at(path, value)
}

fn named_by(name: &str, uid: &str) -> Value {
    json!({"namespace": "ns", "name": name, "uid": uid})
}

/// What is decided about a claim, in a line.
fn decided(claim: Value, around: &Around) -> String {
    let claim = object(claim).view::<PersistentVolumeClaim>().expect("the test's claim");
    match plan::claim(&claim, around) {
        ClaimPlan::Bind(volume) => format!("bind {}", volume.name()),
        ClaimPlan::Pending(None) => "pending".into(),
        ClaimPlan::Pending(Some(event)) => format!("pending, {}: {}", event.reason, event.message),
        ClaimPlan::AssignClass(class) => format!("class {class}"),
        ClaimPlan::Provision { provisioner } => format!("provision {provisioner}"),
        ClaimPlan::Tell(event) => format!("{}: {}", event.reason, event.message),
        ClaimPlan::Lost(event) => format!("lost, {}: {}", event.reason, event.message),
        ClaimPlan::Retry(event) => format!("again, {}: {}", event.reason, event.message),
    }
}

fn among(volumes: Vec<Value>) -> Around {
    Around { volumes: volumes.into_iter().map(object).collect(), ..Around::default() }
}

fn of_class(class: Value) -> Around {
    Around { class: object(class).view().ok(), ..Around::default() }
}

#[test]
fn a_claim_takes_the_smallest_volume_that_fits() {
    let none =
        "pending, FailedBinding: no persistent volumes available for this claim and no storage class is set";
    let labelled = |tree: &mut Value| tree.set_at(&["metadata", "labels", "disk"], "ssd");
    let size = |size: &'static str| set(&["spec", "capacity", "storage"], size);
    let selecting = set(&["spec", "selector"], json!({"matchLabels": {"disk": "ssd"}}));
    let table: Vec<(&str, Value, Vec<Value>, &str)> = vec![
        ("nothing there", claim(|_| {}), vec![], none),
        ("exactly enough", claim(|_| {}), vec![volume("a", size("5Gi"))], "bind a"),
        ("a byte too small", claim(|_| {}), vec![volume("a", size("5368709119"))], none),
        ("the smallest", claim(|_| {}), vec![volume("a", size("9Gi")), volume("b", size("6Gi"))], "bind b"),
        ("by name among equals", claim(|_| {}), vec![volume("b", |_| {}), volume("a", |_| {})], "bind a"),
        (
            "fewer modes before less size",
            claim(|_| {}),
            vec![
                volume("a", |tree| {
                    tree.set_at(&["spec", "accessModes"], json!(["ReadWriteOnce", "ReadOnlyMany"]));
                    tree.set_at(&["spec", "capacity", "storage"], "5Gi");
                }),
                volume("b", |_| {}),
            ],
            "bind b",
        ),
        (
            "another access mode",
            claim(|_| {}),
            vec![volume("a", set(&["spec", "accessModes"], json!(["ReadOnlyMany"])))],
            none,
        ),
        ("another class", claim(|_| {}), vec![volume("a", set(&["spec", "storageClassName"], "fast"))], none),
        ("another mode", claim(|_| {}), vec![volume("a", set(&["spec", "volumeMode"], "Block"))], none),
        (
            "another attributes class",
            claim(|_| {}),
            vec![volume("a", set(&["spec", "volumeAttributesClassName"], "gold"))],
            none,
        ),
        ("not available yet", claim(|_| {}), vec![volume("a", set(&["status", "phase"], "Pending"))], none),
        (
            "on its way out",
            claim(|_| {}),
            vec![volume("a", set(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z"))],
            none,
        ),
        ("selected", claim(selecting), vec![volume("a", |_| {}), volume("b", labelled)], "bind b"),
        (
            "reserved by name",
            claim(|_| {}),
            vec![volume("a", size("5Gi")), volume("b", set(&["spec", "claimRef"], named_by("data", "")))],
            "bind b",
        ),
        (
            "reserved for an earlier claim of the name",
            claim(|_| {}),
            vec![volume("a", set(&["spec", "claimRef"], named_by("data", "old")))],
            none,
        ),
        (
            "reserved, but too small",
            claim(|_| {}),
            vec![volume("a", |tree| {
                tree.set_at(&["spec", "claimRef"], named_by("data", ""));
                tree.set_at(&["spec", "capacity", "storage"], "1Gi");
            })],
            none,
        ),
    ];
    for (what, claim, volumes, wanted) in table {
        assert_eq!(decided(claim, &among(volumes)), wanted, "{what}");
    }
}

#[test]
fn a_claim_without_a_volume_asks_for_one_or_waits() {
    let fast = |tree: &mut Value| tree.set_at(&["spec", "storageClassName"], "fast");
    let silent = |tree: &mut Value| drop(tree.remove_at(&["spec", "storageClassName"]));
    let late = || class("fast", set(&["volumeBindingMode"], "WaitForFirstConsumer"));
    let with = |provisioner: &'static str| of_class(class("fast", set(&["provisioner"], provisioner)));
    let default = || Around { default_class: Some("standard".into()), ..Around::default() };
    let waiting = |pods: &[&str]| Around {
        waiting_pods: pods.iter().map(|pod| Str::from(*pod)).collect(),
        ..of_class(late())
    };
    let chosen = |tree: &mut Value| {
        fast(tree);
        tree.set_at(&["metadata", "annotations", "volume.kubernetes.io/selected-node"], "n");
    };
    let by_annotation = set(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"], "fast");
    let failed = "ProvisioningFailed";
    let table: Vec<(Value, Around, String)> = vec![
        (claim(fast), of_class(class("fast", |_| {})), "provision example.com/p".into()),
        (claim(by_annotation), of_class(class("fast", |_| {})), "provision example.com/p".into()),
        (claim(fast), Around::default(), format!("{failed}: storageclass.storage.k8s.io \"fast\" not found")),
        (claim(fast), with("kubernetes.io/aws-ebs"), "provision ebs.csi.aws.com".into()),
        (
            claim(fast),
            with("kubernetes.io/no-provisioner"),
            format!("{failed}: no volume plugin matched name: kubernetes.io/no-provisioner"),
        ),
        (claim(silent), default(), "class standard".into()),
        (
            claim(|_| {}),
            default(),
            "pending, FailedBinding: no persistent volumes available for this claim and no storage class is set"
                .into(),
        ),
        (
            claim(fast),
            waiting(&[]),
            "pending, WaitForFirstConsumer: waiting for first consumer to be created before binding".into(),
        ),
        (
            claim(fast),
            waiting(&["p"]),
            "pending, WaitForPodScheduled: waiting for pod p to be scheduled".into(),
        ),
        (
            claim(fast),
            waiting(&["p", "q"]),
            "pending, WaitForPodScheduled: waiting for pods p,q to be scheduled".into(),
        ),
        (claim(chosen), of_class(late()), "provision example.com/p".into()),
    ];
    for (claim, around, wanted) in table {
        assert_eq!(decided(claim, &around), wanted);
    }
    // A free volume is the scheduler's to choose; one that names the claim was chosen.
    let mut around = of_class(late());
    let free = volume("free", fast);
    let own = volume("own", |tree| {
        fast(tree);
        tree.set_at(&["spec", "claimRef"], named_by("data", "claim-uid"));
    });
    around.volumes = vec![object(free), object(own)];
    assert_eq!(decided(claim(fast), &around), "bind own");
    around.volumes.pop();
    assert!(decided(claim(fast), &around).starts_with("pending, WaitForFirstConsumer"));
}

#[test]
fn a_claim_that_names_a_volume_gets_that_one_or_none() {
    let naming = |tree: &mut Value| tree.set_at(&["spec", "volumeName"], "v");
    let around = |volume: Option<Value>| Around { named: volume.map(object), ..Around::default() };
    let bound = |tree: &mut Value| {
        naming(tree);
        tree.set_at(&["metadata", "annotations", BIND_COMPLETED], "yes");
    };
    let taken = |uid: &str| around(Some(volume("v", set(&["spec", "claimRef"], named_by("other", uid)))));
    let differs = |path: &'static [&'static str], value: Value| around(Some(volume("v", set(path, value))));
    let refused =
        |why: &str| format!("pending, VolumeMismatch: Cannot bind to requested volume \"v\": {why}");
    let other = "FailedBinding: volume \"v\" already bound to a different claim.";
    let lost = "lost, ClaimLost: Bound claim has lost";
    let table: Vec<(Value, Around, String)> = vec![
        (claim(naming), around(None), "pending".into()),
        (claim(naming), around(Some(volume("v", |_| {}))), "bind v".into()),
        (
            claim(naming),
            differs(&["spec", "capacity", "storage"], "1Gi".into()),
            refused("requested PV is too small"),
        ),
        (
            claim(naming),
            differs(&["spec", "storageClassName"], "fast".into()),
            refused("storageClassName does not match"),
        ),
        (claim(naming), differs(&["spec", "volumeMode"], "Block".into()), refused("incompatible volumeMode")),
        (
            claim(naming),
            differs(&["spec", "accessModes"], json!(["ReadOnlyMany"])),
            refused("incompatible accessMode"),
        ),
        (claim(naming), taken(""), format!("pending, {other}")),
        (
            claim(|tree| {
                naming(tree);
                tree.set_at(&["metadata", "annotations", BOUND_BY_CONTROLLER], "yes");
            }),
            taken("u"),
            format!("again, {other}"),
        ),
        (claim(bound), around(Some(volume("v", |_| {}))), "bind v".into()),
        (claim(bound), around(None), format!("{lost} its PersistentVolume. Data on the volume is lost!")),
        (
            claim(set(&["metadata", "annotations", BIND_COMPLETED], "yes")),
            around(None),
            format!("{lost} reference to PersistentVolume. Data on the volume is lost!"),
        ),
        (
            claim(bound),
            taken("u"),
            "lost, ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly"
                .into(),
        ),
    ];
    for (claim, around, wanted) in table {
        assert_eq!(decided(claim, &around), wanted);
    }
}

#[test]
fn a_volume_follows_its_claim() {
    let bound = |tree: &mut Value| tree.set_at(&["spec", "claimRef"], named_by("data", "claim-uid"));
    let policy = |policy: &'static str, source: Value| {
        volume("v", move |tree| {
            tree.set_at(&["spec", "claimRef"], named_by("data", "gone"));
            tree.set_at(&["spec", "persistentVolumeReclaimPolicy"], policy);
            tree.remove_at(&["spec", "csi"]);
            source.as_object().into_iter().flat_map(|own| own.iter()).for_each(|(key, value)| {
                tree.set_at(&["spec", key], value.clone());
            });
        })
    };
    let fail = |reason, message: &str| VolumePlan::Reclaim(Reclaim::Fail(Event::warning(reason, message)));
    let keep = VolumePlan::Reclaim(Reclaim::Keep);
    let elsewhere = || claim(set(&["spec", "volumeName"], "other"));
    let provisioned = |tree: &mut Value| {
        bound(tree);
        tree.set_at(&["metadata", "annotations", PROVISIONED_BY], "example.com/p");
        tree.set_at(&["spec", "persistentVolumeReclaimPolicy"], "Delete");
    };
    let table: Vec<(Value, Option<Value>, VolumePlan)> = vec![
        (volume("v", |_| {}), None, VolumePlan::Phase("Available")),
        (
            volume("v", set(&["spec", "claimRef"], named_by("data", ""))),
            Some(claim(|_| {})),
            VolumePlan::Phase("Available"),
        ),
        (volume("v", bound), Some(claim(|_| {})), VolumePlan::Nothing),
        (volume("v", bound), Some(claim(set(&["spec", "volumeName"], "v"))), VolumePlan::Phase("Bound")),
        (volume("v", bound), Some(elsewhere()), VolumePlan::Unbind),
        (volume("v", provisioned), Some(elsewhere()), keep.clone()),
        (policy("Retain", json!({})), None, keep.clone()),
        (policy("Delete", json!({"csi": {"driver": "d"}})), None, keep.clone()),
        (
            policy("Delete", json!({"hostPath": {"path": "/tmp/x"}})),
            None,
            VolumePlan::Reclaim(Reclaim::Delete),
        ),
        (
            policy("Delete", json!({"hostPath": {"path": "/tmp/"}})),
            None,
            fail("VolumeFailedDelete", "host_path deleter only supports /tmp/.+ but received provided /tmp/"),
        ),
        (
            policy("Delete", json!({"nfs": {"path": "/"}})),
            None,
            fail(
                "VolumeFailedDelete",
                "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched",
            ),
        ),
        (
            policy("Recycle", json!({"nfs": {"path": "/"}})),
            None,
            fail("VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        ),
    ];
    for (tree, claim, wanted) in table {
        let shown = tree.to_json_string();
        let volume = object(tree).view::<PersistentVolume>().expect("the test's volume");
        let claim = claim.and_then(|claim| object(claim).view::<PersistentVolumeClaim>().ok());
        assert_eq!(plan::volume(&volume, claim.as_deref()), wanted, "{shown}");
    }
    let of_block = claim(set(&["spec", "volumeMode"], "Block"));
    let of_block = object(of_block).view::<PersistentVolumeClaim>().expect("the test's claim");
    let own = object(volume("v", bound)).view::<PersistentVolume>().expect("the test's volume");
    assert!(matches!(plan::volume(&own, Some(&of_block)), VolumePlan::Mismatch { .. }));
}

#[test]
fn plugins_that_moved_out_are_noted_and_forgotten() {
    let annotated = |provisioner: &str, migrated: Option<&str>| {
        let mut tree = volume("v", |_| {});
        tree.set_at(&["metadata", "annotations", PROVISIONED_BY], provisioner);
        if let Some(driver) = migrated {
            tree.set_at(&["metadata", "annotations", MIGRATED_TO], driver);
        }
        tree
    };
    for (mut tree, changes, wanted) in [
        (annotated("kubernetes.io/gce-pd", None), true, "pd.csi.storage.gke.io"),
        (annotated("kubernetes.io/gce-pd", Some("pd.csi.storage.gke.io")), false, "pd.csi.storage.gke.io"),
        (annotated("example.com/p", Some("pd.csi.storage.gke.io")), true, ""),
        (annotated("example.com/p", None), false, ""),
        (volume("v", |_| {}), false, ""),
    ] {
        assert_eq!(in_tree::migrate_volume(&mut tree), changes);
        assert_eq!(tree.str_at(&["metadata", "annotations", MIGRATED_TO]), wanted);
    }
}

#[test]
fn a_claims_status_shows_its_volume() {
    let mut own = claim(|_| {});
    let bound = volume("v", set(&["spec", "volumeAttributesClassName"], "gold"));
    assert_eq!(status::write_claim(&mut own, "Bound", Some(&bound)), Ok(true));
    assert_eq!(
        own["status"],
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"},
            "currentVolumeAttributesClassName": "gold"})
    );
    assert_eq!(status::write_claim(&mut own, "Bound", Some(&bound)), Ok(false));
    assert_eq!(status::write_claim(&mut own, "Lost", None), Ok(true));
    assert_eq!(own["status"], json!({"phase": "Lost"}));

    let resizing = volume("v", |tree| {
        tree.set_at(&["metadata", "annotations", "volume.alpha.kubernetes.io/pre-resize-capacity"], "7Gi");
    });
    let mut own = claim(|_| {});
    assert_eq!(status::write_claim(&mut own, "Bound", Some(&resizing)), Ok(true));
    assert_eq!(own["status"]["capacity"], json!({"storage": "7Gi"}));
    let sizeless = volume("v", |tree| drop(tree.remove_at(&["spec", "capacity"])));
    assert!(status::write_claim(&mut claim(|_| {}), "Bound", Some(&sizeless)).is_err());
}

#[test]
fn the_newest_default_class_wins() {
    let marked = |name: &str, at: &str| {
        let mut tree = class(name, |_| {});
        tree.set_at(&["metadata", "creationTimestamp"], at);
        tree.set_at(&["metadata", "annotations", "storageclass.kubernetes.io/is-default-class"], "true");
        object(tree)
    };
    let old = marked("a", "2026-01-01T00:00:00Z");
    let (new, twin) = (marked("c", "2026-01-02T00:00:00Z"), marked("b", "2026-01-02T00:00:00Z"));
    let plain = object(class("z", |_| {}));
    assert_eq!(plan::default_class(std::slice::from_ref(&plain)), None);
    assert_eq!(plan::default_class(&[plain, old, new, twin]).as_deref(), Some("b"));
}

fn phase(
    world: &World,
    resource: &apimachinery::GroupVersionResource,
    namespace: &str,
    name: &str,
) -> String {
    world.tree(resource, namespace, name).str_at(&["status", "phase"]).to_owned()
}

#[tokio::test]
async fn claim_and_volume_bind_and_part() {
    let world =
        World::start(vec![descriptor()], vec![claim(|_| {}), volume("v", set(&["status"], json!({})))]);
    world
        .wait_for("bound", |fake| {
            let own = fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "data").map(|own| own.to_value());
            own.is_some_and(|own| own.str_at(&["status", "phase"]) == "Bound")
        })
        .await;
    let claim = world.tree(&PERSISTENT_VOLUME_CLAIMS, "ns", "data");
    assert_eq!(claim.str_at(&["spec", "volumeName"]), "v");
    assert_eq!(claim.str_at(&["status", "capacity", "storage"]), "10Gi");
    let notes = json!({BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"});
    assert_eq!(claim["metadata"]["annotations"], notes);
    let volume = world.tree(&PERSISTENT_VOLUMES, "", "v");
    assert_eq!(volume.str_at(&["status", "phase"]), "Bound");
    assert_eq!(volume.str_at(&["spec", "claimRef", "uid"]), "claim-uid");
    assert_eq!(volume["metadata"]["annotations"], json!({BOUND_BY_CONTROLLER: "yes"}));

    let options = DeleteOptions::default();
    world.fake.delete(&PERSISTENT_VOLUME_CLAIMS, "ns", "data", &options).await.expect("it is there");
    world
        .wait_for("released", |fake| {
            let own = fake.peek(&PERSISTENT_VOLUMES, "", "v").map(|own| own.to_value());
            own.is_some_and(|own| own.str_at(&["status", "phase"]) == "Released")
        })
        .await;
}

#[tokio::test]
async fn a_claim_waits_for_volume_class_or_default() {
    let silent = claim(|tree| drop(tree.remove_at(&["spec", "storageClassName"])));
    let world = World::start(vec![descriptor()], vec![silent]);
    world.wait_for("it is said", |fake| !fake.peek_all(&api::gvr::EVENTS).is_empty()).await;
    let message = "FailedBinding: no persistent volumes available for this claim and no storage class is set";
    assert_eq!(world.events()[0], message);
    world.fake.seed(class("standard", |tree| {
        tree.set_at(&["metadata", "annotations", "storageclass.kubernetes.io/is-default-class"], "true");
    }));
    let asked = |tree: &Value| {
        tree.str_at(&["metadata", "annotations", STORAGE_PROVISIONER]) == "example.com/p"
            && tree.str_at(&["metadata", "annotations", STORAGE_PROVISIONER_BETA]) == "example.com/p"
    };
    world
        .wait_for("asked for", |fake| {
            let own = fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "data").map(|own| own.to_value());
            own.is_some_and(|own| own.str_at(&["spec", "storageClassName"]) == "standard" && asked(&own))
        })
        .await;
    let text = "ExternalProvisioning: Waiting for a volume to be created either by the external provisioner \
                'example.com/p' or manually by the system administrator. If volume creation is delayed, please verify \
                that the provisioner is running and correctly registered.";
    world.wait_for("it is said", |fake| fake.peek_all(&api::gvr::EVENTS).len() == 2).await;
    assert!(world.events().iter().any(|event| event == text), "{:?}", world.events());
    assert_eq!(phase(&world, &PERSISTENT_VOLUME_CLAIMS, "ns", "data"), "Pending");

    // A volume that somebody makes by hand will do as well.
    world.fake.seed(volume("hand-made", |tree| {
        tree.set_at(&["spec", "storageClassName"], "standard");
        tree.set_at(&["status", "phase"], "Pending");
    }));
    world
        .wait_for("bound", |fake| {
            let own = fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", "data").map(|own| own.to_value());
            own.is_some_and(|own| own.str_at(&["status", "phase"]) == "Bound")
        })
        .await;
    assert!(world.fake.peek_all(&STORAGE_CLASSES).len() == 1 && world.fake.peek_all(&PODS).is_empty());
}

#[tokio::test]
async fn two_claims_never_share_a_volume_and_a_lost_one_is_told() {
    let second = claim(|tree| {
        tree.set_at(&["metadata", "name"], "more");
        tree.set_at(&["metadata", "uid"], "more-uid");
    });
    let world = World::start(vec![descriptor()], vec![claim(|_| {}), second, volume("v", |_| {})]);
    let bound = |fake: &client::fake::FakeApi| {
        let claims = fake.peek_all(&PERSISTENT_VOLUME_CLAIMS);
        claims.iter().filter(|own| own.to_value().str_at(&["status", "phase"]) == "Bound").count()
    };
    world.wait_for("one bound", |fake| bound(fake) == 1).await;
    world.fake.seed(volume("w", set(&["status", "phase"], "Pending")));
    world.wait_for("both bound", |fake| bound(fake) == 2).await;
    assert_ne!(
        world.tree(&PERSISTENT_VOLUME_CLAIMS, "ns", "data")["spec"]["volumeName"],
        world.tree(&PERSISTENT_VOLUME_CLAIMS, "ns", "more")["spec"]["volumeName"]
    );
    world.fake.drop_object(&PERSISTENT_VOLUMES, "", "w");
    world
        .wait_for("lost", |fake| {
            let claims = fake.peek_all(&PERSISTENT_VOLUME_CLAIMS);
            claims.iter().any(|own| own.to_value().str_at(&["status", "phase"]) == "Lost")
        })
        .await;
    world
        .wait_for("said", |fake| {
            fake.peek_all(&api::gvr::EVENTS).iter().any(|e| e.to_value().str_at(&["reason"]) == "ClaimLost")
        })
        .await;
}

#[tokio::test]
async fn a_volume_on_its_way_out_is_not_deleted_again() {
    let released = |name: &str, finalizers: Value| {
        volume(name, |tree| {
            tree.set_at(&["metadata", "finalizers"], finalizers);
            tree.set_at(&["spec", "claimRef"], named_by("data", "gone"));
            tree.set_at(&["spec", "persistentVolumeReclaimPolicy"], "Delete");
            tree.remove_at(&["spec", "csi"]);
            tree.set_at(&["spec", "hostPath", "path"], "/tmp/data");
            tree.set_at(&["status", "phase"], "Released");
        })
    };
    let held = released("held", json!(["kubernetes.io/pv-protection"]));
    let world = World::start(vec![descriptor()], vec![held]);
    let find = |fake: &client::fake::FakeApi, name: &str| fake.peek(&PERSISTENT_VOLUMES, "", name);
    world.wait_for("the deletion", |fake| find(fake, "held").is_some_and(|own| own.is_deleting())).await;
    world.fake.edit(&PERSISTENT_VOLUMES, "", "held", |tree| {
        tree.set_at(&["metadata", "labels", "a"], "b");
    });
    // What comes later is looked at later.
    world.fake.seed(released("other", json!([])));
    world.wait_for("the other gone", |fake| find(fake, "other").is_none()).await;
    let calls = world.fake.calls();
    let deletes = calls.iter().filter(|call| call.verb == "delete" && call.name == "held").count();
    assert_eq!(deletes, 1);
}

#[tokio::test]
async fn what_is_bound_is_left_alone() {
    let world =
        World::start(vec![descriptor()], vec![claim(|_| {}), volume("v", set(&["status"], json!({})))]);
    let is_bound = |fake: &client::fake::FakeApi, name: &str| {
        let claim = fake.peek(&PERSISTENT_VOLUME_CLAIMS, "ns", name).map(|own| own.to_value());
        claim.is_some_and(|claim| claim.str_at(&["status", "phase"]) == "Bound")
    };
    world.wait_for("bound", |fake| is_bound(fake, "data")).await;
    world.fake.take_writes();
    world.fake.edit(&PERSISTENT_VOLUMES, "", "v", |tree| tree.set_at(&["metadata", "labels", "a"], "b"));
    world.fake.seed(claim(set(&["metadata", "name"], "more")));
    world.fake.seed(volume("w", |_| {}));
    world.wait_for("another pair", |fake| is_bound(fake, "more")).await;
    let writes = world.fake.take_writes();
    assert!(writes.iter().all(|write| write.ends_with("/more") || write.ends_with(" w")), "{writes:?}");
}
