use api::view::Node;

use super::*;
use crate::testing::{node, pod_info, profile};

struct World {
    queue: Queue,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let profiles = Profiles::new(vec![profile()]).unwrap();
        Self { queue: Queue::new(profiles, Backoff::default()), now: rt::instant() }
    }

    fn add(&mut self, name: &str, spec: &str) {
        self.now += Duration::from_millis(1);
        self.queue.upsert(pod_info(name, spec), self.now);
    }

    fn pop(&mut self) -> Option<String> {
        self.queue.pop(self.now).map(|pod| pod.name().to_string())
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Rejected by `NodeResourcesFit`.
    fn reject(&mut self, name: &str) {
        let profile = self.queue.profiles.at(0);
        let ids = 0..PluginSet::CAPACITY as u8;
        let fit = ids.filter(|id| profile.plugin_name(*id) == "NodeResourcesFit").collect();
        self.queue.fail(name, Failure::Rejected(fit), self.now);
    }

    fn node_grows(&mut self, from: &Node, to: &Node) {
        self.queue.on_event(&Event::NodeUpdated { old: from, new: to }, self.now);
    }
}

const WANTS_CPU: &str = r#"{"containers":[{"resources":{"requests":{"cpu":"6"}}}]}"#;

#[test]
fn higher_priority_comes_first_then_who_came_first() {
    let mut world = World::new();
    world.add("a", "{}");
    world.add("b", r#"{"priority":10}"#);
    world.add("c", "{}");
    world.add("d", r#"{"priority":10}"#);
    let order: Vec<_> = std::iter::from_fn(|| world.pop()).collect();
    assert_eq!(order, ["b", "d", "a", "c"]);
}

#[test]
fn gated_pods_wait_until_the_last_gate_is_gone() {
    let mut world = World::new();
    world.add("p", r#"{"schedulingGates":[{"name":"x"},{"name":"y"}]}"#);
    assert_eq!((world.pop(), world.queue.place("p")), (None, Some(Place::Gated)));
    world.add("p", r#"{"schedulingGates":[{"name":"y"}]}"#);
    assert_eq!(world.pop(), None);
    world.add("p", "{}");
    assert_eq!((world.pop().as_deref(), world.queue.lens()), (Some("p"), [0, 0, 0, 0]));
}

#[test]
fn a_rejected_pod_waits_for_an_event_that_helps_and_sits_out_its_back_off() {
    let mut world = World::new();
    world.add("p", WANTS_CPU);
    world.pop();
    world.reject("p");
    let (small, large) =
        (node("n", "{}", "{}"), node("n", "{}", r#"{"allocatable":{"cpu":"8","pods":"10"}}"#));
    world.node_grows(&large, &small);
    assert_eq!(world.queue.place("p"), Some(Place::Unschedulable), "shrinking helps nobody");
    world.node_grows(&small, &large);
    assert_eq!(world.queue.place("p"), Some(Place::BackingOff));
    assert_eq!(world.queue.next_due(), Some(world.now + BACKOFF_INITIAL));
    world.add("q", "{}");
    assert_eq!(world.pop().as_deref(), Some("q"), "active pods go first");
    assert_eq!(world.pop().as_deref(), Some("p"), "but nothing waits beside an idle scheduler");
}

#[test]
fn after_its_back_off_a_helped_pod_is_active_at_once() {
    let mut world = World::new();
    world.add("p", WANTS_CPU);
    world.pop();
    world.reject("p");
    world.pass(2);
    let (small, large) =
        (node("n", "{}", "{}"), node("n", "{}", r#"{"allocatable":{"cpu":"8","pods":"10"}}"#));
    world.node_grows(&small, &large);
    assert_eq!(world.queue.place("p"), Some(Place::Active));
}

#[test]
fn errors_back_off_exponentially_up_to_ten_seconds_whatever_is_idle() {
    let mut world = World::new();
    world.add("p", "{}");
    for seconds in [1, 2, 4, 8, 10, 10] {
        assert_eq!(world.pop().as_deref(), Some("p"));
        world.queue.fail("p", Failure::Error, world.now);
        assert_eq!(world.queue.next_due(), Some(world.now + Duration::from_secs(seconds)));
        world.pass(seconds - 1);
        assert_eq!(world.pop(), None);
        world.pass(1);
    }
}

#[test]
fn a_pod_that_nothing_helps_is_tried_again_after_five_minutes() {
    let mut world = World::new();
    world.add("p", WANTS_CPU);
    world.pop();
    world.reject("p");
    world.pass(299);
    assert_eq!(world.pop(), None);
    world.pass(1);
    assert_eq!(world.pop().as_deref(), Some("p"));
}

#[test]
fn a_change_of_the_pod_itself_moves_it_if_it_may_help() {
    let mut world = World::new();
    world.add("p", WANTS_CPU);
    world.pop();
    world.reject("p");
    world.add("p", WANTS_CPU);
    assert_eq!(world.queue.place("p"), Some(Place::Unschedulable), "nothing changed");
    world.add("p", r#"{"containers":[{"resources":{"requests":{"cpu":"1"}}}]}"#);
    assert_eq!(world.queue.place("p"), Some(Place::BackingOff));
}

#[test]
fn removed_pods_are_gone_from_every_place() {
    let mut world = World::new();
    for (name, spec) in [("active", "{}"), ("gated", r#"{"schedulingGates":[{"name":"x"}]}"#)] {
        world.add(name, spec);
    }
    world.add("rejected", r#"{"priority":1}"#);
    world.add("failed", r#"{"priority":1}"#);
    world.pop();
    world.pop();
    world.reject("rejected");
    world.queue.fail("failed", Failure::Error, world.now);
    assert_eq!(world.queue.lens(), [1, 1, 1, 1]);
    for name in ["active", "gated", "rejected", "failed"] {
        assert!(world.queue.remove(name).is_some());
    }
    assert_eq!((world.queue.lens(), world.queue.len()), ([0, 0, 0, 0], 0));
    assert_eq!(world.queue.rejected_by, [[0; PluginSet::CAPACITY]]);
    assert_eq!(world.queue.next_due(), None);
}
