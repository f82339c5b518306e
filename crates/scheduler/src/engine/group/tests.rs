use std::collections::BTreeMap;

use apimachinery::{Value, json};
use expect_test::{Expect, expect};

use super::*;
use crate::DEFAULT_SCHEDULER;
use crate::framework::{Handle, Profiles};
use crate::groups::GroupFeatures;
use crate::plugins::default_profile;
use crate::queue::{Backoff, Place};
use crate::testing::handle;

struct World {
    engine: Engine,
    now: Instant,
    revision: u64,
    /// Bindings that were decided and not carried out yet.
    placements: Vec<Placement>,
}

const ALL: GroupFeatures = GroupFeatures { gangs: true, topology: true };

impl World {
    fn new(features: GroupFeatures) -> Self {
        let groups = Groups::new(features);
        let handle = Handle { groups: Some(groups.clone()), ..handle() };
        let profile = default_profile(DEFAULT_SCHEDULER, &handle).unwrap();
        let engine = Engine::new(Profiles::new(vec![profile]).unwrap(), Backoff::default(), 7)
            .with_groups(Some(groups));
        Self { engine, now: rt::instant(), revision: 0, placements: Vec::new() }
    }

    fn object(&mut self, value: Value) -> Object {
        self.revision += 1;
        Object::from_value(&value, self.revision, &[]).unwrap()
    }

    fn node(&mut self, name: &str, cpu: u64, labels: &[(&str, &str)]) {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let node = self.object(json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": serde_json::to_value(labels).unwrap()},
            "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "64Gi", "pods": "110"}}}));
        self.engine.on_node(&node, self.now);
    }

    /// A gang that needs `min` pods; 0 is the basic policy.
    fn group(&mut self, name: &str, min: u64, topology: Option<&str>) {
        let policy = if min == 0 { json!({"basic": {}}) } else { json!({"gang": {"minCount": min}}) };
        let mut group = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
            "metadata": {"name": name, "namespace": "default", "uid": name}});
        group.set_at(&["spec", "schedulingPolicy"], policy);
        if let Some(key) = topology {
            group.set_at(&["spec", "schedulingConstraints", "topology"], json!([{"key": key}]));
        }
        let group = self.object(group);
        let watched = Watched::of(&api::gvr::POD_GROUPS).unwrap();
        self.engine.on_object(watched, None, Some(&group), self.now);
    }

    fn pod_on(&mut self, name: &str, group: &str, cpu: u64, priority: i64, node: &str) {
        self.now += Duration::from_millis(1);
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}});
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"schedulerName": DEFAULT_SCHEDULER, "priority": priority, "containers": [container]}});
        if !group.is_empty() {
            pod.set_at(&["spec", "schedulingGroup", "podGroupName"], group);
        }
        if !node.is_empty() {
            pod.set_at(&["spec", "nodeName"], node);
        }
        let pod = self.object(pod);
        self.engine.on_pod(&pod, self.now);
    }

    fn pod(&mut self, name: &str, group: &str, cpu: u64, priority: i64) {
        self.pod_on(name, group, cpu, priority, "");
    }

    fn pods(&mut self, group: &str, count: u64, cpu: u64) {
        (0..count).for_each(|number| self.pod(&format!("{group}-{number}"), group, cpu, 0));
    }

    fn is_assumed(&self, pod: &str) -> bool {
        self.engine.cache().is_assumed(pod)
    }

    /// Everything that is decided now, one thing a line.
    fn run(&mut self) -> String {
        let mut lines = Vec::new();
        while let Some(decision) = self.engine.next(self.now) {
            lines.push(match decision {
                Decision::Ask(_) | Decision::AskPreemption(_) => panic!("there is nobody to ask"),
                Decision::Bind(placement) => {
                    let line = format!("{} -> {}", placement.pod.name(), placement.node);
                    self.placements.push(placement);
                    line
                }
                Decision::Held => "held".to_owned(),
                Decision::Unschedulable { pod, message, nomination, .. } => {
                    let nomination = match nomination {
                        Nomination::Choose(_) => panic!("there is nobody to choose"),
                        Nomination::Keep => String::new(),
                        Nomination::Clear => " (cleared)".to_owned(),
                        Nomination::Make { node, victims } => {
                            let victims: Vec<_> = victims.iter().map(|own| own.name().as_str()).collect();
                            format!(" (for {node} without {victims:?})")
                        }
                    };
                    format!("{}: {message}{nomination}", pod.name())
                }
                Decision::Group(Verdict { group, is_scheduled, reason, message }) => {
                    format!("{} is {is_scheduled}: {reason} {message}", group.metadata.name)
                }
            });
        }
        lines.join("\n")
    }
}

#[test]
fn a_gang_is_bound_whole_or_not_at_all() {
    let check = |nodes: u64, min: u64, pods: u64, expected: Expect| {
        let mut world = World::new(GroupFeatures { gangs: true, topology: false });
        (0..nodes).for_each(|number| world.node(&format!("n{number}"), 2, &[]));
        world.group("g", min, None);
        world.pods("g", pods, 2);
        expected.assert_eq(&world.run());
    };
    check(0, 2, 1, expect![""]);
    check(
        1,
        2,
        2,
        expect![[r#"
            g-0: pod group is unschedulable, waiting for minCount pods from a gang to be scheduled (cleared)
            g-1: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (cleared)
            g is false: Unschedulable pod group is unschedulable"#]],
    );
    check(
        1,
        1,
        2,
        expect![[r#"
            g-0 -> n0
            g-1: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (cleared)
            g is true: Scheduled "#]],
    );
    check(
        1,
        0,
        2,
        expect![[r#"
            g-0 -> n0
            g-1: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. (cleared)
            g is true: Scheduled "#]],
    );
    check(
        0,
        2,
        2,
        expect![[r#"
            g-0: no nodes available to schedule pods
            g-1: no nodes available to schedule pods
            g is false: Unschedulable pod group is unschedulable"#]],
    );
}

#[test]
fn pods_wait_for_their_group_and_for_enough_of_them() {
    let mut world = World::new(ALL);
    world.node("n", 8, &[]);
    world.pods("g", 2, 1);
    assert_eq!(world.run(), "");
    world.group("g", 3, None);
    assert_eq!(world.run(), "", "two of three are there");
    assert_eq!(world.engine.queue().place("g-0"), Some(Place::Gated));
    world.pod("g-2", "other", 1, 0);
    assert_eq!(world.run(), "", "one of another group does not count");
    world.pod("g-3", "g", 1, 0);
    assert_eq!(world.run(), "g-0 -> n\ng-1 -> n\ng-3 -> n\ng is true: Scheduled ");
    world.pod("g-4", "g", 1, 0);
    assert_eq!(world.run(), "g-4 -> n\ng is true: Scheduled ", "more than it needs");
}

#[test]
fn a_pod_that_is_bound_already_counts() {
    let mut world = World::new(ALL);
    world.node("n", 8, &[]);
    world.group("g", 2, None);
    world.pod("waits", "g", 1, 0);
    assert_eq!(world.run(), "");
    world.pod_on("bound", "g", 1, 0, "n");
    assert_eq!(world.run(), "waits -> n\ng is true: Scheduled ");
}

#[test]
fn gangs_that_each_fit_alone_do_not_block_each_other() {
    let mut world = World::new(ALL);
    (0..3).for_each(|number| world.node(&format!("n{number}"), 1, &[]));
    ["a", "b"].iter().for_each(|group| world.group(group, 2, None));
    for number in 0..2 {
        ["a", "b"].iter().for_each(|group| world.pod(&format!("{group}-{number}"), group, 1, 0));
    }
    let told = world.run();
    assert!(told.contains("a is true") && told.contains("b is false"), "{told}");
    let placed = |world: &World, group: &str| {
        (0..2).filter(|number| world.is_assumed(&format!("{group}-{number}"))).count()
    };
    assert_eq!((placed(&world, "a"), placed(&world, "b")), (2, 0));
    (0..2).for_each(|number| world.engine.on_pod_gone(&format!("a-{number}"), world.now));
    world.now += Duration::from_secs(2);
    assert!(world.run().contains("b is true"), "what goes makes room");
    assert_eq!(placed(&world, "b"), 2);
}

#[test]
fn the_policy_of_a_gang_needs_its_gate() {
    let mut world = World::new(GroupFeatures::default());
    world.node("n", 1, &[]);
    world.group("g", 2, None);
    world.pod("g-0", "g", 1, 0);
    assert_eq!(world.run(), "g-0 -> n\ng is true: Scheduled ");
}

#[test]
fn a_group_stays_in_one_domain_the_one_with_most_room() {
    let mut world = World::new(ALL);
    for (name, cpu, rack) in [("a1", 1, "a"), ("a2", 1, "a"), ("b1", 1, "b"), ("b2", 2, "b"), ("c1", 1, "c")]
    {
        world.node(name, cpu, &[("rack", rack)]);
    }
    world.node("none", 64, &[]);
    world.group("g", 2, Some("rack"));
    world.pods("g", 3, 1);
    let told = world.run();
    assert!(told.ends_with("g is true: Scheduled "), "{told}");
    let nodes: Vec<&str> = world.placements.iter().map(|own| own.node.as_str()).collect();
    assert!(nodes.len() == 3 && nodes.iter().all(|node| node.starts_with('b')), "{told}");
    world.pod("g-3", "g", 1, 0);
    assert!(world.run().starts_with("g-3: 0/2 nodes are available"), "only that domain counts from now on");
    world.now += Duration::from_secs(2);
    world.node("b3", 1, &[("rack", "b")]);
    assert_eq!(world.run(), "g-3 -> b3\ng is true: Scheduled ");
}

#[test]
fn a_group_that_fits_in_no_domain_says_so() {
    let mut world = World::new(ALL);
    world.node("a", 1, &[("rack", "a")]);
    world.node("b", 1, &[("rack", "b")]);
    world.group("g", 2, Some("rack"));
    world.pods("g", 2, 1);
    expect![[r#"
        g-0: pod group is unschedulable, waiting for minCount pods from a gang to be scheduled (cleared)
        g-1: 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to placement-based pod group scheduling limitation
        g is false: Unschedulable 0/2 placements are available, first placement status: pod group is unschedulable"#]]
    .assert_eq(&world.run());
    let mut world = World::new(ALL);
    world.node("a", 1, &[("rack", "a")]);
    world.group("h", 1, Some("zone"));
    world.pod("h-0", "h", 1, 0);
    assert_eq!(
        world.run(),
        "h-0: no feasible placements found\nh is false: Unschedulable no feasible placements found"
    );
    world.now += Duration::from_secs(2);
    world.node("z", 1, &[("zone", "z")]);
    assert_eq!(world.run(), "h-0 -> z\nh is true: Scheduled ");
}

#[test]
fn room_is_made_for_a_whole_gang_and_only_then() {
    let mut world = World::new(ALL);
    for name in ["n0", "n1"] {
        world.node(name, 2, &[]);
        world.pod_on(&format!("low-{name}"), "", 2, 0, name);
    }
    world.node("free", 2, &[]);
    world.group("g", 4, None);
    (0..4).for_each(|number| world.pod(&format!("g-{number}"), "g", 2, 9));
    let told = world.run();
    assert!(!told.contains("without"), "three nodes are not enough for four, so nobody goes: {told}");
    assert!(world.engine.cache().pod("low-n0").is_some());

    world.group("h", 3, None);
    (0..3).for_each(|number| world.pod(&format!("h-{number}"), "h", 2, 9));
    let told = world.run();
    assert_eq!(told.matches("without [\"low-n").count(), 2, "{told}");
    assert!(told.contains("(for free without [])"), "{told}");
    assert!(
        told.ends_with(
            "h is false: Unschedulable pod group is unschedulable, pod group is waiting for preemption to complete"
        ),
        "{told}"
    );
    assert!(world.engine.cache().pod("low-n0").is_some(), "they go when they are evicted");
    world.pod("thief", "", 2, 0);
    assert!(world.run().starts_with("thief: 0/3"), "the room is kept");
    world.now += Duration::from_secs(20);
    world.engine.on_pod_gone("low-n0", world.now);
    assert!(!world.run().contains("h is"), "one is still there");
    world.engine.on_pod_gone("low-n1", world.now);
    let told = world.run();
    assert!(told.contains("h is true: Scheduled "), "{told}");
    assert_eq!((0..3).filter(|number| world.is_assumed(&format!("h-{number}"))).count(), 3);
}

#[test]
fn a_member_whose_binding_fails_is_tried_again_alone() {
    let mut world = World::new(ALL);
    world.node("n", 8, &[]);
    world.group("g", 2, None);
    world.pods("g", 2, 1);
    world.run();
    let failed = world.placements.pop().unwrap();
    let name = failed.pod.name().clone();
    world.engine.bind_failed(failed, world.now);
    assert_eq!(world.run(), "");
    world.now += Duration::from_secs(2);
    assert_eq!(world.run(), format!("{name} -> n\ng is true: Scheduled "));
}

#[test]
fn a_gang_of_two_schedulers_is_nobodys() {
    let handle = Handle { groups: Some(Groups::new(ALL)), ..handle() };
    let profiles = ["one", "two"].map(|name| default_profile(name, &handle).unwrap());
    let mut world = World::new(ALL);
    world.engine = Engine::new(Profiles::new(profiles.into()).unwrap(), Backoff::default(), 7)
        .with_groups(handle.groups);
    world.node("n", 8, &[]);
    world.group("g", 2, None);
    for name in ["one", "two"] {
        let pod = world.object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"schedulerName": name, "schedulingGroup": {"podGroupName": "g"}}}));
        world.engine.on_pod(&pod, world.now);
    }
    let told = world.run();
    let why = "all pods in a single pod group should have the same .spec.schedulerName set, got: \"one\" and \"two\"";
    assert_eq!(told.matches(why).count(), 3, "{told}");
    assert!(told.contains("g is false: SchedulerError"), "{told}");
}

/// Xorshift; a failure prints the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Every group has none or enough of its pods on nodes, in one domain if it wants that, and no node is overfull.
fn check(world: &World, groups: &BTreeMap<String, (u64, bool)>, pods: &BTreeMap<String, String>, seed: u64) {
    let cache = world.engine.cache();
    for (_, node) in cache.nodes() {
        assert!(
            node.requested.cpu_milli <= node.allocatable.cpu_milli,
            "seed {seed}: {} is overfull",
            node.name
        );
    }
    for (group, (min, in_domain)) in groups {
        let placed =
            pods.iter().filter(|(_, own)| *own == group).filter_map(|(pod, _)| cache.slot_of_pod(pod));
        let slots: Vec<Slot> = placed.collect();
        assert!(
            slots.is_empty() || slots.len() as u64 >= *min,
            "seed {seed}: {group} has {} of {min}",
            slots.len()
        );
        if *in_domain {
            let rack = |slot: &Slot| {
                let node = cache.node(*slot).and_then(|node| node.node.as_ref()).unwrap();
                node.metadata.labels.get("rack").cloned()
            };
            let racks: HashSet<_> = slots.iter().map(rack).collect();
            assert!(racks.len() <= 1 && !racks.contains(&None), "seed {seed}: {group} is in {racks:?}");
        }
    }
}

#[test]
fn random_groups_are_placed_whole_and_nodes_never_overfilled() {
    let mut scheduled = 0;
    for seed in 1..=60 {
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut world = World::new(ALL);
        let mut groups: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        let mut pods: BTreeMap<String, String> = BTreeMap::new();
        for number in 0..4 + random.below(8) {
            let rack = ["a", "b", "c"][random.below(3) as usize];
            let labels: &[(&str, &str)] = if random.below(5) == 0 { &[] } else { &[("rack", rack)] };
            world.node(&format!("n{number}"), 1 + random.below(6), labels);
        }
        for step in 0..40 {
            let group = format!("g{}", random.below(5));
            match random.below(10) {
                0..=2 if !groups.contains_key(&group) => {
                    let (min, in_domain) = (random.below(6), random.below(3) == 0);
                    world.group(&group, min, in_domain.then_some("rack"));
                    groups.insert(group, (min, in_domain));
                }
                3 if !world.placements.is_empty() => {
                    let at = random.below(world.placements.len() as u64) as usize;
                    // A group of which one pod goes may be short of it: all of them go.
                    let group = pods[world.placements[at].pod.name().as_str()].clone();
                    let gone: Vec<String> =
                        pods.iter().filter(|(_, own)| **own == group).map(|(pod, _)| pod.clone()).collect();
                    for pod in gone {
                        world.engine.on_pod_gone(&pod, world.now);
                        world.placements.retain(|own| *own.pod.name() != pod);
                        pods.remove(&pod);
                    }
                }
                4 => world.node(&format!("m{step}"), 1 + random.below(3), &[("rack", "a")]),
                _ => {
                    for number in 0..1 + random.below(4) {
                        let pod = format!("{group}-{step}-{number}");
                        world.pod(&pod, &group, 1 + random.below(3), 0);
                        pods.insert(pod, group.clone());
                    }
                }
            }
            world.now += Duration::from_secs(random.below(12));
            scheduled += world.run().matches(" is true: ").count();
            check(&world, &groups, &pods, seed);
        }
    }
    assert!(scheduled > 100, "the clusters must not be full all the time: {scheduled}");
}

/// Prints what one core does; run by hand with `--ignored --nocapture`. In an optimized build only the number means
/// something.
#[test]
#[ignore = "a measurement"]
fn measure_a_gang_of_a_thousand_on_five_thousand_nodes() {
    for topology in [None, Some("rack")] {
        let mut world = World::new(ALL);
        for number in 0..5000 {
            world.node(&format!("n{number}"), 32, &[("rack", &format!("r{}", number / 100))]);
        }
        world.group("g", 1000, topology);
        let start = rt::instant();
        world.pods("g", 1000, 1);
        let queued = start.elapsed();
        let told = world.run();
        println!("within {topology:?}: queued in {queued:?}, decided in {:?}", start.elapsed() - queued);
        assert!(told.ends_with("g is true: Scheduled "));
    }
}
