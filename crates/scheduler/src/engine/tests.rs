use std::time::Duration;

use apimachinery::{Value, json};

use super::*;
use crate::cache::NodeInfo;
use crate::framework::{
    Arguments, EnqueueExtensions, Filter, Hint, NotShareable, Permit, Plugin, PreEnqueue, Profile,
    Registration, Reserve, Sign, Signature,
};
use crate::plugins::{DEFAULT, default_plugins};
use crate::queue::Place;
use crate::testing::{handle, profile};

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
        Self::with(profile())
    }

    fn with(profile: Profile) -> Self {
        Self::with_all(vec![profile])
    }

    fn with_all(profiles: Vec<Profile>) -> Self {
        let profiles = Profiles::new(profiles).unwrap();
        Self { engine: Engine::new(profiles, Backoff::default(), 7), now: rt::instant(), revision: 0 }
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
            Decision::Ask(_) | Decision::AskPreemption(_) => panic!("there is nobody to ask"),
            Decision::Unschedulable { pod, message, .. } => Some(format!("{}: {message}", pod.name())),
            Decision::Group(_) => panic!("no pod here is in a group"),
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
        "large: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
         preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
    assert_eq!(
        world.next().unwrap(),
        "huge: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
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
        "p: 0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). no new claims to deallocate, preemption: \
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
         no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
}

/// A pod of a priority.
fn ranked(amount: &str, priority: i64) -> Value {
    let mut spec = cpu(amount);
    spec.set_at(&["priority"], priority);
    spec
}

impl World {
    /// Schedules the next pod, which must preempt; returns the node and the victims.
    fn preempts(&mut self) -> (Str, Vec<Str>) {
        match self.engine.next(self.now) {
            Some(Decision::Unschedulable { nomination: Nomination::Make { node, victims }, .. }) => {
                (node, victims.iter().map(|victim| victim.name().clone()).collect())
            }
            _ => panic!("no preemption"),
        }
    }
}

#[test]
fn the_fewest_and_least_important_pods_make_room_and_it_stays_the_preemptors() {
    let mut world = World::new();
    world.node("n", "4");
    for (name, amount, priority) in [("keep", "1", 5), ("small", "1", 1), ("large", "2", 1)] {
        world.pod(name, ranked(amount, priority));
        assert_eq!(world.next().unwrap(), format!("{name} -> n"));
        world.engine.bound(name);
    }
    world.pod("high", ranked("2", 10));
    assert_eq!(world.preempts(), ("n".into(), vec!["large".into()]));

    world.now += Duration::from_secs(2);
    world.engine.on_pod_gone("large", world.now);
    world.pod("thief", ranked("2", 2));
    world.pod("equal", ranked("1", 10));
    assert_eq!(world.next().unwrap(), "high -> n", "the room was made for it");
    assert_eq!(world.preempts().1, ["small"], "the next one makes its own");
    assert!(world.next().unwrap().starts_with("thief: 0/1 nodes are available: 1 Insufficient cpu."));
}

#[test]
fn room_that_was_made_is_not_taken_by_lower_priorities_while_the_preemptor_backs_off() {
    let mut world = World::new();
    world.node("n", "2");
    world.pod("low", ranked("2", 0));
    assert_eq!(world.next().unwrap(), "low -> n");
    world.pod("high", ranked("2", 10));
    assert_eq!(world.preempts().1, ["low"]);
    world.engine.on_pod_gone("low", world.now);
    assert_eq!(world.engine.queue().place("high"), Some(Place::BackingOff));
    world.pod("again", ranked("2", 0));
    assert!(world.next().unwrap().starts_with("again: 0/1 nodes are available: 1 Insufficient cpu."));
    assert_eq!(world.next().unwrap(), "high -> n");
}

#[test]
fn the_cheapest_node_is_chosen() {
    let mut world = World::new();
    for (node, pods) in
        [("dear", vec![("2", 8)]), ("two", vec![("1", 1), ("1", 1)]), ("cheap", vec![("2", 1)])]
    {
        world.node(node, "2");
        for (at, (amount, priority)) in pods.into_iter().enumerate() {
            let mut spec = ranked(amount, priority);
            spec.set_at(&["nodeName"], node);
            world.pod(&format!("{node}-{at}"), spec);
        }
    }
    world.pod("high", ranked("2", 9));
    assert_eq!(world.preempts(), ("cheap".into(), vec!["cheap-0".into()]));
}

#[test]
fn victims_whose_disruption_budget_is_spent_are_spared_where_possible() {
    let mut world = World::new();
    for node in ["guarded", "open"] {
        world.node(node, "2");
        let pod = world.object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": node, "namespace": "default", "uid": node, "labels": {"app": node}},
            "spec": {"nodeName": node, "priority": if node == "open" { 5 } else { 1 },
                "containers": [{"resources": {"requests": {"cpu": "2"}}}]}}));
        world.engine.on_pod(&pod, world.now);
    }
    let budget = world.object(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "guarded"}}}}));
    world.engine.on_budget(&budget);
    world.pod("high", ranked("2", 9));
    assert_eq!(world.preempts(), ("open".into(), vec!["open".into()]), "though it is of higher priority");
    world.pod("next", ranked("2", 9));
    assert_eq!(world.preempts().1, ["guarded"], "a budget is no guarantee");
}

#[test]
fn pods_that_never_preempt_and_pods_without_victims_say_so() {
    let mut world = World::new();
    world.node("n", "2");
    world.pod("low", ranked("2", 0));
    assert_eq!(world.next().unwrap(), "low -> n");
    let mut polite = ranked("2", 10);
    polite.set_at(&["preemptionPolicy"], "Never");
    world.pod("polite", polite);
    assert_eq!(
        world.next().unwrap(),
        "polite: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."
    );
    world.pod("equal", ranked("1", 0));
    assert!(world.next().unwrap().ends_with("1 No preemption victims found for incoming pod."));
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
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, _: &str) -> Result<(), Status> {
        state.insert(pod.uid().clone());
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
    let mut world = World::with_plugin(Registration::of(Pairs(reserved.clone())).permit().reserve().done());
    world.node("n", "4");
    world.pod("a", cpu("1"));
    assert_eq!(world.next().unwrap(), "held");
    assert!(world.engine.next_permitted(world.now).is_empty());
    world.pod("b", cpu("1"));
    assert_eq!(world.next().unwrap(), "b -> n");
    let permitted = world.engine.next_permitted(world.now);
    assert!(matches!(&permitted[..], [Decision::Bind(a)] if a.pod.name() == "a"
        && a.state.get::<Str>().is_some_and(|reserved| reserved == "a")));
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
    let without =
        |name: &str| default_plugins(&handle()).into_iter().filter(|plugin| plugin.name() != name).collect();
    let error = |plugins| Profile::new("p", plugins).err();
    assert_eq!(error(without("DefaultBinder")), Some(ProfileError::NoBind { profile: "p".into() }));
    assert_eq!(
        error(without("PrioritySort")),
        Some(ProfileError::QueueSort { profile: "p".into(), count: 0 })
    );
    let mut twice = default_plugins(&handle());
    twice.extend(default_plugins(&handle()).into_iter().filter(|plugin| plugin.name() == "NodeName"));
    assert_eq!(error(twice), Some(ProfileError::Duplicate { profile: "p".into(), name: "NodeName" }));
}

#[test]
fn every_profile_places_its_own_pods_by_its_own_plugins() {
    let careless =
        default_plugins(&handle()).into_iter().filter(|plugin| plugin.name() != "NodeUnschedulable");
    let careless = Profile::new("careless", careless.collect()).unwrap();
    let mut world = World::with_all(vec![profile(), careless]);
    let cordoned = world.object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "spec": {"unschedulable": true}, "status": {"allocatable": {"cpu": "4", "pods": "110"}}}));
    world.engine.on_node(&cordoned, world.now);
    let of = |scheduler: &str| {
        let mut spec = cpu("1");
        spec.set_at(&["schedulerName"], scheduler);
        spec
    };
    for (name, scheduler) in
        [("a", "default-scheduler"), ("b", "careless"), ("c", "nobody"), ("d", "default-scheduler")]
    {
        world.pod(name, of(scheduler));
    }
    let told = |name: &str| {
        format!(
            "{name}: 0/1 nodes are available: 1 node(s) were unschedulable. no new claims to deallocate, \
             preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
    };
    assert_eq!(world.next(), Some(told("a")));
    assert_eq!(world.next(), Some("b -> n".to_owned()), "alike, but not by the same profile");
    assert_eq!(world.next(), Some(told("d")));
    assert_eq!((world.next(), world.engine.queue().place("c")), (None, None));
}

#[test]
fn profiles_of_one_name_and_none_at_all_are_refused() {
    use crate::framework::ProfileError;
    let refused = |profiles| Profiles::new(profiles).err();
    assert_eq!(refused(vec![]), Some(ProfileError::NoProfiles));
    assert_eq!(refused(vec![profile(), profile()]), Some(ProfileError::SameName("default-scheduler".into())));
}

/// Lets pods in, or fits them, once there is a StorageClass that is called as the pod.
#[derive(Clone, Default)]
struct Classes(Arc<parking_lot::Mutex<std::collections::BTreeSet<String>>>);

impl Classes {
    fn check(&self, pod: &PodInfo) -> Result<(), Status> {
        match self.0.lock().contains(pod.name().as_str()) {
            true => Ok(()),
            false => Err(Status::unresolvable("no class")),
        }
    }
}

impl Plugin for Classes {
    fn name(&self) -> &'static str {
        "Classes"
    }
}

impl Sign for Classes {
    fn sign(&self, _: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        Err(NotShareable)
    }
}

impl EnqueueExtensions for Classes {
    fn events(&self) -> EventSet {
        EventSet::STORAGE_CLASS
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        match event {
            Event::Object { new: Some(class), .. } if class.name() == pod.name().as_str() => Hint::Queue,
            _ => Hint::Skip,
        }
    }

    fn on_object(&self, event: &Event<'_>) {
        let Event::Object { old, new, .. } = event else { return };
        let mut classes = self.0.lock();
        old.iter().for_each(|old| _ = classes.remove(old.name()));
        new.iter().for_each(|new| _ = classes.insert(new.name().to_owned()));
    }
}

impl Filter for Classes {
    fn filter(&self, _: &CycleState, pod: &PodInfo, _: &NodeInfo) -> Result<(), Status> {
        self.check(pod)
    }
}

impl PreEnqueue for Classes {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status> {
        self.check(pod)
    }
}

impl World {
    fn with_plugin(plugin: Registration) -> Self {
        let mut plugins = default_plugins(&handle());
        plugins.push(plugin);
        Self::with(Profile::new("default-scheduler", plugins).unwrap())
    }

    /// A StorageClass appears or is gone.
    fn class(&mut self, name: &str, appears: bool) {
        let class = self.object(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": name}}));
        let watched = Watched::of(&api::gvr::STORAGE_CLASSES).unwrap();
        let (old, new) = if appears { (None, Some(&class)) } else { (Some(&class), None) };
        self.engine.on_object(watched, old, new, self.now);
    }
}

#[test]
fn a_pod_that_waits_for_an_object_is_tried_again_when_that_appears_and_not_before() {
    let mut world = World::with_plugin(Registration::of(Classes::default()).filter().done());
    world.node("n", "4");
    world.pod("p", cpu("1"));
    assert!(world.next().unwrap().starts_with("p: 0/1 nodes are available: 1 no class."));
    world.now += Duration::from_secs(2);
    world.class("other", true);
    world.class("p", false);
    assert_eq!(world.engine.queue().place("p"), Some(Place::Unschedulable));
    world.class("p", true);
    assert_eq!(world.next().unwrap(), "p -> n");
}

#[test]
fn a_gated_pod_is_let_in_when_what_it_waits_for_appears_and_not_before() {
    let classes = Classes::default();
    let mut world = World::with_plugin(Registration::of(classes.clone()).pre_enqueue().done());
    world.node("n", "4");
    world.pod("p", cpu("1"));
    world.class("other", true);
    assert_eq!((world.next(), world.engine.queue().lens()), (None, [0, 0, 0, 1]));
    world.class("p", true);
    assert_eq!(world.next().unwrap(), "p -> n");
    world.class("p", false);
    world.pod("q", cpu("1"));
    let watched = Watched::of(&api::gvr::STORAGE_CLASSES).unwrap();
    let q = world.object(
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "q"}}),
    );
    world.engine.on_objects(watched, &[Arc::new(q)], world.now);
    assert_eq!(world.next().unwrap(), "q -> n", "also when all are read anew");
    assert_eq!(classes.0.lock().len(), 2);
}

/// The default plugins with arguments for one of them.
fn told(plugin: &str, arguments: serde_json::Value) -> Profile {
    let serde_json::Value::Object(fields) = arguments else { panic!("arguments are an object") };
    let arguments = Arguments::new(fields);
    let made = DEFAULT.iter().map(|row| {
        let arguments = if row.name == plugin { arguments.clone() } else { Arguments::default() };
        (row.factory)(&handle(), &arguments).unwrap().weighing(row.weight.max(1))
    });
    Profile::new("default-scheduler", made.collect()).unwrap()
}

#[test]
fn the_fullest_node_that_fits_is_filled_first_where_that_is_the_strategy() {
    let strategy = serde_json::json!({"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 100}]}});
    let mut plugins = told("NodeResourcesFit", strategy);
    // The balance would weigh against it.
    plugins.score.retain(|score| score.plugin.name() == "NodeResourcesFit");
    let mut world = World::with(plugins);
    for node in ["a", "b", "c"] {
        world.node(node, "4");
    }
    let mut bound = cpu("2");
    bound.set_at(&["nodeName"], "b");
    world.pod("bound", bound);
    for name in ["p", "q"] {
        world.pod(name, cpu("1"));
        assert_eq!(world.next().unwrap(), format!("{name} -> b"));
    }
    world.pod("r", cpu("1"));
    assert_ne!(world.next().unwrap(), "r -> b", "it is full");
}

#[test]
fn resources_that_are_ignored_need_not_fit() {
    let ignored = serde_json::json!({"ignoredResources": ["a.io/x"], "ignoredResourceGroups": ["b.io"]});
    let mut world = World::with(told("NodeResourcesFit", ignored));
    world.node("n", "4");
    let wants = |name: &str| {
        let requests: Value = [(Str::from(name), Value::from("1"))].into_iter().collect();
        json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
    };
    for (name, resource) in [("p", "a.io/x"), ("q", "b.io/y")] {
        world.pod(name, wants(resource));
        assert_eq!(world.next().unwrap(), format!("{name} -> n"));
    }
    world.pod("r", wants("a.io/y"));
    assert!(world.next().unwrap().starts_with("r: 0/1 nodes are available: 1 Insufficient a.io/y."));
}

impl World {
    fn labelled_node(&mut self, name: &str, label: &str) {
        let node = self.object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"zone": label}}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}}));
        self.engine.on_node(&node, self.now);
    }
}

#[test]
fn affinity_that_a_profile_adds_is_every_pods() {
    let terms = |zone: &str| serde_json::json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
    let required = serde_json::json!({"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [terms("a")]}}});
    let mut world = World::with(told("NodeAffinity", required));
    world.labelled_node("b", "b");
    world.pod("p", cpu("1"));
    assert!(
        world.next().unwrap().starts_with(
            "p: 0/1 nodes are available: 1 node(s) didn't match scheduler-enforced node affinity."
        )
    );
    world.now += Duration::from_secs(2);
    world.labelled_node("c", "c");
    assert_eq!(world.engine.queue().place("p"), Some(Place::Unschedulable), "no node for it");
    world.labelled_node("b", "a");
    assert_eq!(world.next().unwrap(), "p -> b");

    let preferred = serde_json::json!({"addedAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 5, "preference": terms("a")}]}});
    let mut world = World::with(told("NodeAffinity", preferred));
    for (node, zone) in [("x", "b"), ("y", "a"), ("z", "c")] {
        world.labelled_node(node, zone);
    }
    world.pod("p", cpu("1"));
    assert_eq!(world.next().unwrap(), "p -> y");
}

#[test]
fn what_required_affinity_of_placed_pods_adds_to_a_score_can_be_told() {
    for (arguments, attracted) in [
        (serde_json::json!({"hardPodAffinityWeight": 100}), true),
        (serde_json::json!({"hardPodAffinityWeight": 0}), false),
        (
            serde_json::json!({"hardPodAffinityWeight": 100, "ignorePreferredTermsOfExistingPods": true}),
            false,
        ),
    ] {
        let mut profile = told("InterPodAffinity", arguments.clone());
        profile.score.retain(|score| score.plugin.name() == "InterPodAffinity");
        profile.score.iter_mut().for_each(|score| score.normalized = Some(0));
        let mut world = World::with(profile);
        for at in 0..20 {
            world.labelled_node(&format!("n{at}"), &format!("zone-{at}"));
        }
        let fan = world.object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "fan", "namespace": "default", "uid": "fan"},
            "spec": {"nodeName": "n7", "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                [{"topologyKey": "zone", "labelSelector": {}}]}}}}));
        world.engine.on_pod(&fan, world.now);
        let placed: Vec<String> = (0..4)
            .map(|at| {
                world.pod(&format!("p{at}"), cpu("100m"));
                world.next().unwrap()
            })
            .collect();
        let all_there = placed.iter().all(|placed| placed.ends_with("-> n7"));
        assert_eq!(all_there, attracted, "{arguments}: {placed:?}");
    }
}

#[test]
fn weights_of_any_size_rank_nodes() {
    let weighty = DEFAULT.iter().map(|row| {
        let weight = if row.name == "NodeAffinity" { 1_000_000 } else { row.weight.max(1) };
        (row.factory)(&handle(), &Arguments::default()).unwrap().weighing(weight)
    });
    let mut world = World::with(Profile::new("default-scheduler", weighty.collect()).unwrap());
    for (node, zone) in [("x", "b"), ("y", "a"), ("z", "c")] {
        world.labelled_node(node, zone);
    }
    let spec = |amount: &str| {
        let mut spec = cpu(amount);
        spec.set_at(
            &["affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"],
            json!([{"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}]),
        );
        spec
    };
    for name in ["p", "q", "r", "s"] {
        world.pod(name, spec("1"));
        assert_eq!(world.next().unwrap(), format!("{name} -> y"));
    }
    world.pod("t", spec("1"));
    assert_ne!(world.next().unwrap(), "t -> y", "it is full");
}
