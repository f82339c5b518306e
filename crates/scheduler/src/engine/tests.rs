use std::time::Duration;

use apimachinery::{Value, json};

use super::*;
use crate::framework::{EnqueueExtensions, Permit, Plugin, Registration, Reserve};
use crate::plugins::{default_plugins, default_profile};
use crate::queue::Place;

struct World {
    engine: Engine,
    now: Instant,
    revision: u64,
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

impl World {
    fn new() -> Self {
        Self::with(default_profile("default-scheduler").unwrap())
    }

    fn with(profile: Profile) -> Self {
        Self { engine: Engine::new(profile, 7), now: rt::instant(), revision: 0 }
    }

    fn object(&mut self, value: Value) -> Object {
        self.revision += 1;
        Object::from_value(&value, self.revision, &[]).unwrap()
    }

    fn pod(&mut self, name: &str, mut spec: Value) {
        self.now += Duration::from_millis(1);
        if spec.str_at(&["schedulerName"]).is_empty() {
            spec.set_at(&["schedulerName"], "default-scheduler");
        }
        let pod = self.object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": serde_json::Value::from(&spec)}));
        self.engine.on_pod(&pod, self.now);
    }

    fn node(&mut self, name: &str, cpu: &str) {
        let node = self.object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}}));
        self.engine.on_node(&node, self.now);
    }

    /// `pod -> node`, or the pod and what its user is told.
    fn next(&mut self) -> Option<String> {
        match self.engine.next(self.now)? {
            Decision::Bind(placement) => Some(format!("{} -> {}", placement.pod.name(), placement.node)),
            Decision::Held => Some("held".to_owned()),
            Decision::Unschedulable { pod, message, .. } => Some(format!("{}: {message}", pod.name())),
        }
    }
}

#[test]
fn pods_fill_nodes_and_the_rest_is_told_why_in_upstreams_words() {
    let mut world = World::new();
    world.pod("early", cpu("1"));
    assert_eq!(world.next().unwrap(), "early: no nodes available to schedule pods");
    world.node("n", "4");
    assert_eq!(world.engine.queue().place("early"), Some(Place::BackingOff));
    assert_eq!(world.next().unwrap(), "early -> n");
    world.pod("large", cpu("4"));
    world.pod("huge", cpu("5"));
    assert_eq!(
        world.next().unwrap(),
        "large: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    assert_eq!(
        world.next().unwrap(),
        "huge: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 Preemption is not helpful for scheduling."
    );
    assert_eq!(world.next(), None);
}

#[test]
fn reasons_are_counted_over_nodes() {
    let mut world = World::new();
    world.node("a", "1");
    for name in ["b", "c"] {
        let node = world.object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}, "status": {"allocatable": {"pods": "1"}}}));
        world.engine.on_node(&node, world.now);
    }
    world.pod("p", cpu("2"));
    assert_eq!(
        world.next().unwrap(),
        "p: 0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: \
         0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
}

#[test]
fn a_daemon_pod_whose_node_is_unfit_is_told_about_that_node_only() {
    let mut world = World::new();
    world.node("a", "1");
    world.node("b", "4");
    let mut spec = cpu("2");
    spec.set_at(
        &["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"],
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]}),
    );
    world.pod("daemon", spec);
    assert_eq!(
        world.next().unwrap(),
        "daemon: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. \
         preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
}

#[test]
fn lower_priority_pods_in_the_way_are_not_called_unhelpful() {
    let mut world = World::new();
    world.node("n", "4");
    let mut low = cpu("3");
    low.set_at(&["priority"], -5);
    world.pod("low", low);
    assert_eq!(world.next().unwrap(), "low -> n");
    world.pod("high", cpu("4"));
    assert_eq!(world.next().unwrap(), "high: 0/1 nodes are available: 1 Insufficient cpu.");
}

#[test]
fn only_own_living_unbound_pods_are_scheduled() {
    let mut world = World::new();
    world.node("n", "4");
    let mut foreign = cpu("1");
    foreign.set_at(&["schedulerName"], "other");
    world.pod("foreign", foreign);
    let mut bound = cpu("3");
    bound.set_at(&["nodeName"], "n");
    world.pod("bound", bound);
    let deleting = world
        .object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d", "uid": "d",
        "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"schedulerName": "default-scheduler"}}));
    world.engine.on_pod(&deleting, world.now);
    assert_eq!(world.next(), None);
    assert!(world.engine.queue().is_empty());
    let node = world.engine.cache().node(world.engine.cache().slot("n").unwrap()).unwrap();
    assert_eq!(node.requested.cpu_milli, 3000);
}

#[test]
fn a_pod_that_ends_or_is_deleted_makes_room_for_one_that_waits() {
    for gone in ["Succeeded", "deleted"] {
        let mut world = World::new();
        world.node("n", "4");
        let mut bound = cpu("3");
        bound.set_at(&["nodeName"], "n");
        world.pod("bound", bound.clone());
        world.pod("waits", cpu("2"));
        assert!(world.next().unwrap().starts_with("waits: 0/1"));
        world.now += Duration::from_secs(2);
        if gone == "deleted" {
            world.engine.on_pod_gone("bound", world.now);
        } else {
            let ended = world.object(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "bound", "namespace": "default", "uid": "bound"},
                "spec": serde_json::Value::from(&bound), "status": {"phase": gone}}));
            world.engine.on_pod(&ended, world.now);
        }
        assert_eq!(world.next().unwrap(), "waits -> n");
    }
}

#[test]
fn a_failed_binding_frees_the_node_and_is_tried_again() {
    let mut world = World::new();
    world.node("n", "4");
    world.pod("p", cpu("3"));
    let Some(Decision::Bind(placement)) = world.engine.next(world.now) else { panic!("it fits") };
    world.pod("q", cpu("2"));
    assert!(world.next().unwrap().starts_with("q: 0/1"));
    world.now += Duration::from_secs(2);
    world.engine.bind_failed(placement, world.now);
    assert_eq!(world.engine.queue().place("p"), Some(Place::BackingOff));
    assert_eq!(world.next().unwrap(), "q -> n", "the room is free again");
    world.engine.bound("q");
    world.now += Duration::from_secs(2);
    assert!(world.next().unwrap().starts_with("p: 0/1"));
}

#[test]
fn a_pod_deleted_while_it_is_bound_is_forgotten_whatever_comes_of_the_binding() {
    let mut world = World::new();
    world.node("n", "4");
    world.pod("p", cpu("3"));
    let Some(Decision::Bind(placement)) = world.engine.next(world.now) else { panic!("it fits") };
    world.engine.on_pod_gone("p", world.now);
    world.engine.bind_failed(placement, world.now);
    assert!(world.engine.queue().is_empty());
    let node = world.engine.cache().node(world.engine.cache().slot("n").unwrap()).unwrap();
    assert_eq!((node.requested.cpu_milli, node.pods.len()), (0, 0));
}

#[test]
fn what_is_missing_from_a_fresh_list_is_gone_but_assumed_pods_stay() {
    let mut world = World::new();
    world.node("n", "4");
    world.node("m", "4");
    let mut bound = cpu("1");
    bound.set_at(&["nodeName"], "n");
    world.pod("bound", bound);
    world.pod("assumed", cpu("1"));
    assert!(world.next().unwrap().starts_with("assumed -> "));
    world.pod("queued", cpu("1"));
    world.engine.on_pods(&[], world.now);
    world.engine.on_nodes(&[], world.now);
    assert!(world.engine.cache().pod("bound").is_none() && world.engine.cache().pod("assumed").is_none());
    assert_eq!(world.engine.cache().node_count(), 0);
    assert_eq!(world.next(), None);
}

#[test]
fn the_nominated_node_is_taken_while_it_is_feasible() {
    let mut world = World::new();
    for (name, cpu) in [("small", "2"), ("large", "64")] {
        world.node(name, cpu);
    }
    let nominated = world
        .object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "p"},
        "spec": {"schedulerName": "default-scheduler"}, "status": {"nominatedNodeName": "small"}}));
    world.engine.on_pod(&nominated, world.now);
    assert_eq!(world.next().unwrap(), "p -> small");
}

/// Holds pods back until two are there; counts reservations.
struct Pairs(Arc<std::sync::atomic::AtomicI64>);

impl Plugin for Pairs {
    fn name(&self) -> &'static str {
        "Pairs"
    }
}

impl EnqueueExtensions for Pairs {
    fn events(&self) -> EventSet {
        EventSet::POD_ASSIGNED
    }
}

impl Permit for Pairs {
    fn permit(&self, _: &mut CycleState, _: &PodInfo, _: &str, waiting: &mut Waiting) -> PermitOutcome {
        let Some(other) = waiting.iter().next().map(|other| other.pod.uid().clone()) else {
            return PermitOutcome::Wait(Duration::from_secs(10));
        };
        waiting.allow(&other);
        PermitOutcome::Allow
    }
}

impl Reserve for Pairs {
    fn reserve(&self, _: &mut CycleState, _: &PodInfo, _: &str) -> Result<(), Status> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn unreserve(&self, _: &mut CycleState, _: &PodInfo, _: &str) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn permit_holds_pods_back_until_they_are_allowed_or_time_is_up() {
    let reserved = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let mut plugins = default_plugins();
    plugins.push(Registration::of(Pairs(reserved.clone())).permit().reserve().done());
    let mut world = World::with(Profile::new("default-scheduler", plugins).unwrap());
    world.node("n", "4");
    world.pod("a", cpu("1"));
    assert_eq!(world.next().unwrap(), "held");
    assert!(world.engine.next_permitted(world.now).is_empty());
    world.pod("b", cpu("1"));
    assert_eq!(world.next().unwrap(), "b -> n");
    let permitted = world.engine.next_permitted(world.now);
    assert!(matches!(&permitted[..], [Decision::Bind(a)] if a.pod.name() == "a"));
    assert_eq!(reserved.load(std::sync::atomic::Ordering::Relaxed), 2);

    world.pod("alone", cpu("1"));
    assert_eq!(world.next().unwrap(), "held");
    assert_eq!(world.engine.next_due(), Some(world.now + Duration::from_secs(10)));
    world.now += Duration::from_secs(10);
    let overdue = world.engine.next_permitted(world.now);
    assert!(matches!(&overdue[..], [Decision::Unschedulable { message, .. }]
        if message == "0/1 nodes are available: 1 timed out waiting on permit."));
    assert_eq!(reserved.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert_eq!(world.engine.queue().place("alone"), Some(Place::Unschedulable));
}

#[test]
fn profiles_that_cannot_work_are_refused() {
    use crate::framework::ProfileError;
    let without = |name: &str| default_plugins().into_iter().filter(|plugin| plugin.name() != name).collect();
    let error = |plugins| Profile::new("p", plugins).err();
    assert_eq!(error(without("DefaultBinder")), Some(ProfileError::NoBind { profile: "p".into() }));
    assert_eq!(
        error(without("PrioritySort")),
        Some(ProfileError::QueueSort { profile: "p".into(), count: 0 })
    );
    let mut twice = default_plugins();
    twice.extend(default_plugins().into_iter().filter(|plugin| plugin.name() == "NodeName"));
    assert_eq!(error(twice), Some(ProfileError::Duplicate { profile: "p".into(), name: "NodeName" }));
}
