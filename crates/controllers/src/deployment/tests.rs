use apimachinery::{json, time};
use client::fake::FakeApi;

use super::*;
use crate::replicaset;
use crate::testing::{World, object};

fn deployment(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns", "uid": "d-uid", "generation": 1,
            "annotations": {"kubernetes.io/change-cause": "first"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}
    })
}

fn world(seed: Value) -> World {
    World::start(vec![descriptor(), replicaset::descriptor()], vec![seed])
}

/// Runs pods until the rollout is done. Unlike a node it does not mind being asked often.
async fn roll_out(world: &World, what: &str) {
    for _ in 0..5000 {
        world.run_pods();
        if is_done(&world.fake) {
            return;
        }
        rt::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("{what}: {}", world.tree(&DEPLOYMENTS, "ns", "web"));
}

fn is_done(fake: &FakeApi) -> bool {
    let Some(object) = fake.peek(&DEPLOYMENTS, "ns", "web") else { return false };
    let deployment = object.view::<Deployment>().unwrap();
    let available = status::is_complete(&deployment, &deployment.status);
    let progressing = deployment.status.conditions.iter().find(|own| own.type_ == "Progressing");
    available && progressing.is_some_and(|own| own.reason == "NewReplicaSetAvailable")
}

fn set_image(world: &World, image: &str) {
    world.fake.edit(&DEPLOYMENTS, "ns", "web", |tree| {
        crate::testing::change_image(tree, image);
        let generation = tree["metadata"]["generation"].as_i64().unwrap_or_default();
        tree.set_at(&["metadata", "generation"], generation + 1);
    });
}

fn sets(world: &World) -> Vec<Value> {
    let mut sets: Vec<Value> = world.fake.peek_all(&REPLICA_SETS).iter().map(|set| set.to_value()).collect();
    sets.sort_by_key(|set| {
        set["metadata"]["annotations"].str_at(&[revision::REVISION]).parse::<i64>().unwrap_or(0)
    });
    sets
}

#[tokio::test]
async fn a_new_deployment_gets_a_set_with_hash_revision_and_sizes() {
    let world = world(deployment(4));
    roll_out(&world, "the first rollout").await;
    let all = sets(&world);
    assert_eq!(all.len(), 1);
    let set = &all[0];
    let hash = set["metadata"]["labels"].str_at(&[api::view::POD_TEMPLATE_HASH]);
    assert_eq!(set.str_at(&["metadata", "name"]), format!("web-{hash}"));
    assert_eq!(set["spec"]["selector"]["matchLabels"].str_at(&[api::view::POD_TEMPLATE_HASH]), hash);
    assert_eq!(set["spec"]["template"]["metadata"]["labels"].str_at(&[api::view::POD_TEMPLATE_HASH]), hash);
    assert_eq!(
        set["metadata"]["annotations"],
        json!({"deployment.kubernetes.io/desired-replicas": "4", "deployment.kubernetes.io/max-replicas": "5",
            "deployment.kubernetes.io/revision": "1", "kubernetes.io/change-cause": "first"})
    );
    let tree = world.tree(&DEPLOYMENTS, "ns", "web");
    assert_eq!(tree["metadata"]["annotations"].str_at(&[revision::REVISION]), "1");
    let status = &tree["status"];
    assert_eq!(status["observedGeneration"].as_i64(), Some(1));
    assert_eq!(status["availableReplicas"].as_i64(), Some(4));
    let shown: Vec<String> = status
        .array_at(&["conditions"])
        .iter()
        .map(|c| {
            format!(
                "{}={} {}: {}",
                c.str_at(&["type"]),
                c.str_at(&["status"]),
                c.str_at(&["reason"]),
                c.str_at(&["message"])
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "Available=True MinimumReplicasAvailable: Deployment has minimum availability.".to_owned(),
            format!(
                "Progressing=True NewReplicaSetAvailable: ReplicaSet \"web-{hash}\" has successfully progressed."
            ),
        ]
    );
    world
        .wait_for("an event", |_| {
            world
                .events()
                .contains(&format!("ScalingReplicaSet: Scaled up replica set web-{hash} from 0 to 4"))
        })
        .await;
}

#[tokio::test]
async fn a_rolling_update_keeps_availability_and_can_be_undone() {
    let world = world(deployment(4));
    roll_out(&world, "revision 1").await;
    set_image(&world, "v2");
    for _ in 0..5000 {
        world.run_pods();
        let active = world.fake.peek_all(&PODS).iter().filter(|pod| !pod.is_deleting()).count();
        assert!((3..=5).contains(&active), "{active} pods are outside of 4 - 25% and 4 + 25%");
        if is_done(&world.fake) && sets(&world).len() == 2 {
            break;
        }
        rt::sleep(std::time::Duration::from_millis(1)).await;
    }
    roll_out(&world, "revision 2").await;
    let sizes: Vec<i64> =
        sets(&world).iter().map(|set| set["spec"]["replicas"].as_i64().unwrap_or(-1)).collect();
    assert_eq!(sizes, [0, 4]);

    set_image(&world, "v1");
    roll_out(&world, "undo").await;
    let all = sets(&world);
    assert_eq!(all.len(), 2, "the old set is used again");
    let annotations = &all[1]["metadata"]["annotations"];
    assert_eq!(annotations.str_at(&[revision::REVISION]), "3");
    assert_eq!(annotations.str_at(&["deployment.kubernetes.io/revision-history"]), "1");
    assert_eq!(
        world.tree(&DEPLOYMENTS, "ns", "web")["metadata"]["annotations"].str_at(&[revision::REVISION]),
        "3"
    );
}

#[tokio::test]
async fn a_rollover_takes_back_a_rollout_that_never_got_ready() {
    let world = world(deployment(4));
    roll_out(&world, "revision 1").await;
    set_image(&world, "broken");
    let of_image = |fake: &FakeApi, image: &str| {
        let pods = fake.peek_all(&PODS);
        pods.iter().filter(|pod| pod.to_value()["spec"]["containers"][0].str_at(&["image"]) == image).count()
    };
    // A surge of one and one that may be missing.
    world.wait_for("two pods that never run", |fake| of_image(fake, "broken") == 2).await;
    set_image(&world, "v2");
    roll_out(&world, "revision 3").await;
    let sizes: Vec<_> = sets(&world).iter().map(|set| set["spec"]["replicas"].as_i64()).collect();
    assert_eq!(sizes, [Some(0), Some(0), Some(4)]);
    world
        .wait_for("only the newest", |fake| of_image(fake, "v2") == 4 && fake.peek_all(&PODS).len() == 4)
        .await;
}

#[tokio::test]
async fn history_beyond_its_limit_is_deleted() {
    let world = world(deployment(1));
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        set_image(&world, image);
        roll_out(&world, image).await;
    }
    world
        .wait_for("two old sets and the new one", |_| {
            let revisions: Vec<String> = sets(&world)
                .iter()
                .map(|set| set["metadata"]["annotations"].str_at(&[revision::REVISION]).to_owned())
                .collect();
            revisions == ["3", "4", "5"]
        })
        .await;
}

#[tokio::test]
async fn recreate_stops_all_old_pods_before_it_starts_new_ones() {
    let mut seed = deployment(3);
    seed.set_at(&["spec", "strategy"], json!({"type": "Recreate"}));
    let world = world(seed);
    roll_out(&world, "revision 1").await;
    set_image(&world, "v2");
    for _ in 0..5000 {
        let images: std::collections::HashSet<String> = world
            .fake
            .peek_all(&PODS)
            .iter()
            .map(|pod| pod.to_value()["spec"]["containers"][0].str_at(&["image"]).to_owned())
            .collect();
        assert!(images.len() < 2, "old and new pods run together");
        world.run_pods();
        if is_done(&world.fake) && images.contains("v2") {
            return;
        }
        rt::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("not recreated: {}", world.tree(&DEPLOYMENTS, "ns", "web"));
}

#[tokio::test]
async fn a_paused_deployment_is_scaled_but_not_rolled() {
    let world = world(deployment(2));
    roll_out(&world, "revision 1").await;
    world.fake.edit(&DEPLOYMENTS, "ns", "web", |tree| tree.set_at(&["spec", "paused"], true));
    set_image(&world, "v2");
    world.fake.edit(&DEPLOYMENTS, "ns", "web", |tree| tree.set_at(&["spec", "replicas"], 3));
    world.wait_for("three pods", |fake| fake.peek_all(&PODS).len() == 3).await;
    world
        .wait_for("the condition", |fake| {
            let tree =
                fake.peek(&DEPLOYMENTS, "ns", "web").map(|object| object.to_value()).unwrap_or_default();
            tree["status"]
                .array_at(&["conditions"])
                .iter()
                .any(|c| c.str_at(&["reason"]) == "DeploymentPaused")
        })
        .await;
    assert_eq!(sets(&world).len(), 1);
    world.fake.edit(&DEPLOYMENTS, "ns", "web", |tree| tree.set_at(&["spec", "paused"], false));
    roll_out(&world, "resumed").await;
    assert_eq!(sets(&world).len(), 2);
}

#[tokio::test]
async fn a_taken_name_counts_as_a_collision() {
    let seed = deployment(1);
    let source = object(seed.clone());
    let name = new_set::name(&source, &source.view::<Deployment>().unwrap());
    let squatter = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name.as_str(), "namespace": "ns"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"x": "y"}}, "template": {"metadata": {"labels": {"x": "y"}}}}});
    let world = World::start(vec![descriptor(), replicaset::descriptor()], vec![squatter, seed]);
    roll_out(&world, "a second name").await;
    assert_eq!(world.tree(&DEPLOYMENTS, "ns", "web")["status"]["collisionCount"].as_i64(), Some(1));
    assert_eq!(sets(&world).len(), 2);
}

// === Plans ===

struct Row {
    replicas: i32,
    surge: &'static str,
    unavailable: &'static str,
    /// Replicas, available, max-replicas annotation of each old set; then of the new one.
    old: &'static [(i32, i32, i32)],
    new: (i32, i32, i32),
    wanted_old: &'static [i32],
    wanted_new: i32,
}

fn fleet_of(row: &Row) -> (Deployment, Fleet) {
    let limit = |text: &str| match text.parse() {
        Ok(number) => api::view::IntOrString::Int(number),
        Err(_) => api::view::IntOrString::String(text.into()),
    };
    let mut deployment = Deployment::default();
    deployment.spec.replicas = Some(row.replicas);
    deployment.spec.strategy.type_ = "RollingUpdate".into();
    deployment.spec.strategy.rolling_update = Some(api::view::RollingUpdateDeployment {
        max_surge: Some(limit(row.surge)),
        max_unavailable: Some(limit(row.unavailable)),
    });
    let set = |at: usize, (replicas, available, most): (i32, i32, i32)| {
        let tree = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": format!("s{at}"), "namespace": "ns", "uid": format!("u{at}"),
                "creationTimestamp": format!("2026-01-01T00:00:0{at}Z"),
                "annotations": {"deployment.kubernetes.io/max-replicas": most.to_string()}},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas, "availableReplicas": available}});
        Set::read(object(tree)).unwrap()
    };
    let old = row.old.iter().enumerate().map(|(at, own)| set(at, *own)).collect();
    (deployment, Fleet { new: Some(set(9, row.new)), old })
}

fn sizes(fleet: &Fleet) -> (Vec<i32>, i32) {
    (fleet.old.iter().map(|set| set.replicas).collect(), fleet.new.as_ref().map_or(-1, |new| new.replicas))
}

#[test]
fn rolling_updates_stay_within_surge_and_availability() {
    let rows = [
        // The new set takes the surge first; nothing old may go yet.
        Row {
            replicas: 10,
            surge: "2",
            unavailable: "0",
            old: &[(10, 10, 12)],
            new: (0, 0, 12),
            wanted_old: &[10],
            wanted_new: 2,
        },
        // Surge used up, unavailability allows three old ones to go.
        Row {
            replicas: 10,
            surge: "0",
            unavailable: "3",
            old: &[(10, 10, 10)],
            new: (0, 0, 10),
            wanted_old: &[7],
            wanted_new: 0,
        },
        // New pods that are not available yet hold back old ones.
        Row {
            replicas: 10,
            surge: "2",
            unavailable: "0",
            old: &[(10, 10, 12)],
            new: (2, 0, 12),
            wanted_old: &[10],
            wanted_new: 2,
        },
        Row {
            replicas: 10,
            surge: "2",
            unavailable: "0",
            old: &[(10, 10, 12)],
            new: (2, 2, 12),
            wanted_old: &[8],
            wanted_new: 2,
        },
        // Unhealthy old pods go first, oldest set first, then healthy ones.
        Row {
            replicas: 10,
            surge: "0",
            unavailable: "2",
            old: &[(5, 2, 10), (5, 5, 10)],
            new: (0, 0, 10),
            wanted_old: &[3, 5],
            wanted_new: 0,
        },
        // Neither surge nor unavailability: one pod may be missing all the same.
        Row {
            replicas: 3,
            surge: "0",
            unavailable: "0",
            old: &[(3, 3, 3)],
            new: (0, 0, 3),
            wanted_old: &[2],
            wanted_new: 0,
        },
        // Percentages: surge is rounded up, unavailability down.
        Row {
            replicas: 10,
            surge: "25%",
            unavailable: "25%",
            old: &[(10, 10, 13)],
            new: (3, 0, 13),
            wanted_old: &[8],
            wanted_new: 3,
        },
        // Too large a new set shrinks.
        Row {
            replicas: 2,
            surge: "1",
            unavailable: "0",
            old: &[],
            new: (5, 5, 3),
            wanted_old: &[],
            wanted_new: 2,
        },
    ];
    for (at, row) in rows.iter().enumerate() {
        let (deployment, mut fleet) = fleet_of(row);
        if !plan::grow_new(&deployment, &mut fleet) {
            plan::shrink_old(&deployment, &mut fleet);
        }
        assert_eq!(sizes(&fleet), (row.wanted_old.to_vec(), row.wanted_new), "row {at}");
    }
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let rows = [
        // Twice as many: each set twice as large.
        Row {
            replicas: 20,
            surge: "0",
            unavailable: "1",
            old: &[(5, 5, 10)],
            new: (5, 5, 10),
            wanted_old: &[10],
            wanted_new: 10,
        },
        // Half as many.
        Row {
            replicas: 5,
            surge: "0",
            unavailable: "1",
            old: &[(8, 8, 10)],
            new: (2, 2, 10),
            wanted_old: &[4],
            wanted_new: 1,
        },
        // The rest that rounding leaves goes to the largest; among equals growing favours the new one.
        Row {
            replicas: 11,
            surge: "0",
            unavailable: "1",
            old: &[(5, 5, 10)],
            new: (5, 5, 10),
            wanted_old: &[5],
            wanted_new: 6,
        },
        // To nothing.
        Row {
            replicas: 0,
            surge: "2",
            unavailable: "0",
            old: &[(5, 5, 12)],
            new: (7, 5, 12),
            wanted_old: &[0],
            wanted_new: 0,
        },
        // Only one in use: it takes all.
        Row {
            replicas: 7,
            surge: "2",
            unavailable: "0",
            old: &[(5, 5, 7)],
            new: (0, 0, 7),
            wanted_old: &[7],
            wanted_new: 0,
        },
        // None in use: the new one.
        Row {
            replicas: 7,
            surge: "2",
            unavailable: "0",
            old: &[(0, 0, 7)],
            new: (0, 0, 7),
            wanted_old: &[0],
            wanted_new: 7,
        },
    ];
    for (at, row) in rows.iter().enumerate() {
        let (deployment, mut fleet) = fleet_of(row);
        plan::scale(&deployment, &mut fleet);
        assert_eq!(sizes(&fleet), (row.wanted_old.to_vec(), row.wanted_new), "row {at}");
    }
}

#[test]
fn a_rollout_without_progress_times_out_and_is_looked_at_when_it_does() {
    let mut deployment = Deployment::default();
    deployment.spec.replicas = Some(1);
    deployment.spec.progress_deadline_seconds = Some(60);
    deployment.status.conditions = vec![DeploymentCondition {
        type_: "Progressing".into(),
        status: "True".into(),
        reason: "ReplicaSetUpdated".into(),
        last_update_time: Some("2026-01-01T00:00:00Z".into()),
        ..DeploymentCondition::default()
    }];
    let at = |text: &str| time::parse(text).unwrap();
    let judged =
        |now| status::progress(&deployment, &Fleet::default(), deployment.status.clone(), "web", now);

    let early = at("2026-01-01T00:00:50Z");
    assert_eq!(judged(early), deployment.status);
    assert_eq!(
        status::next_check(&deployment, &deployment.status, early),
        Action::requeue(std::time::Duration::from_secs(11))
    );
    let late = at("2026-01-01T00:01:00Z");
    let timed_out = judged(late);
    let condition = &timed_out.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "ProgressDeadlineExceeded"));
    assert_eq!(condition.message, "Deployment \"web\" has timed out progressing.");
    assert_eq!(status::next_check(&deployment, &timed_out, late), Action::await_change());
}
