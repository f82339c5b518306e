//! Random clusters and pods: every decision of the engine is one that the plain search allows.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Str};
use rt::Instant;
use serde_json::{Value, json};

use super::*;
use crate::engine::{Decision, Engine};
use crate::framework::{Nomination, Profiles};
use crate::pod::PodInfo;
use crate::queue::Backoff;
use crate::testing::profile;

/// Xorshift; a failure prints the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

fn random_node(random: &mut Random, name: &str) -> Value {
    let mut labels = json!({HOSTNAME: name});
    if random.below(5) > 0 {
        labels["zone"] = random.pick(&["a", "b", "c"]).into();
    }
    if random.below(3) == 0 {
        labels["disk"] = random.pick(&["ssd", "hdd"]).into();
    }
    let taint = |key: &str, effect: &str| json!({"key": key, "value": "v", "effect": effect});
    let taints = random.pick(&[
        json!([]),
        json!([]),
        json!([taint("t", "NoSchedule")]),
        json!([taint("t", "NoExecute"), taint("s", "PreferNoSchedule")]),
        json!([taint("s", "PreferNoSchedule")]),
        json!([taint("s", "PreferNoSchedule"), taint("u", "PreferNoSchedule")]),
    ]);
    let images = random.pick(&[
        json!([]),
        json!([{"names": ["app:1", "app@sha256:1"], "sizeBytes": 800 * MB}]),
        json!([{"names": ["app:1"], "sizeBytes": 800 * MB}, {"names": ["other:2"], "sizeBytes": 90 * MB}]),
    ]);
    let mut allocatable = json!({"cpu": format!("{}m", 500 + random.below(6000)),
        "memory": format!("{}Mi", 256 + random.below(8000)), "pods": (1 + random.below(9)).to_string()});
    if random.below(3) == 0 {
        allocatable["x.io/gpu"] = random.below(3).to_string().into();
    }
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name, "labels": labels},
        "spec": {"unschedulable": random.below(10) == 0, "taints": taints},
        "status": {"allocatable": allocatable, "images": images}})
}

/// `together`: also with terms about other pods.
fn random_pod(random: &mut Random, name: &str, together: bool) -> Value {
    let app = |random: &mut Random| random.pick(&["a", "b", "c"]);
    let selector = |random: &mut Random| json!({"matchLabels": {"app": app(random)}});
    let mut spec = json!({"schedulerName": "default-scheduler", "priority": random.below(4)});
    let requests = random.pick(&[
        json!({}),
        json!({"cpu": "250m"}),
        json!({"cpu": "1", "memory": "512Mi"}),
        json!({"memory": "2Gi"}),
        json!({"cpu": "1500m", "memory": "100Mi", "x.io/gpu": "1"}),
        json!({"cpu": "0"}),
    ]);
    let ports = random.pick(&[
        json!([]),
        json!([]),
        json!([{"hostPort": 80}]),
        json!([{"hostPort": 80, "protocol": "UDP"}, {"hostPort": 443}]),
    ]);
    let image = random.pick(&["app:1", "other:2", "none:3"]);
    let mut containers =
        vec![json!({"name": "c", "image": image, "resources": {"requests": requests}, "ports": ports})];
    if random.below(4) == 0 {
        containers.push(json!({"name": "d", "image": "app:1", "resources": {"requests": {"cpu": "100m"}}}));
    }
    spec["containers"] = containers.into();
    spec["tolerations"] = random.pick(&[
        json!([]),
        json!([{"key": "t", "operator": "Exists"}]),
        json!([{"key": "t", "value": "v", "effect": "NoSchedule"}]),
        json!([{"key": "s", "value": "v", "effect": "PreferNoSchedule"}]),
        json!([{"operator": "Exists"}]),
    ]);
    if random.below(6) == 0 {
        spec["nodeSelector"] = json!({"zone": random.pick(&["a", "b"])});
    }
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    match random.below(8) {
        0 => {
            let terms = [expression("zone", "In", &["a"]), expression("disk", "Exists", &[])];
            spec["affinity"]["nodeAffinity"][required] = json!({"nodeSelectorTerms": terms});
        }
        1 => {
            let terms = [expression("disk", "NotIn", &["hdd"])];
            spec["affinity"]["nodeAffinity"][required] = json!({"nodeSelectorTerms": terms});
        }
        2 | 3 => {
            spec["affinity"]["nodeAffinity"][preferred] = json!([
                {"weight": 7, "preference": expression("disk", "In", &["ssd"])},
                {"weight": 1 + random.below(9), "preference": expression("zone", "Exists", &[])},
            ]);
        }
        _ => {}
    }
    if together {
        let key = random.pick(&["zone", HOSTNAME]);
        let term = json!({"topologyKey": key, "labelSelector": selector(random)});
        let weighted = json!({"weight": 1 + random.below(50), "podAffinityTerm": term});
        let which = random.pick(&["podAffinity", "podAntiAffinity"]);
        match random.below(6) {
            0 | 1 => spec["affinity"][which][required] = json!([term]),
            2 | 3 => spec["affinity"][which][preferred] = json!([weighted]),
            _ => {}
        }
        if random.below(3) == 0 {
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 1 + random.below(2), "topologyKey": key,
                "whenUnsatisfiable": random.pick(&["DoNotSchedule", "ScheduleAnyway"]),
                "labelSelector": selector(random)}]);
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": app(random)}}})
}

struct World {
    engine: Engine,
    cluster: Cluster,
    now: Instant,
    seed: u64,
}

fn object(value: Value, revision: u64) -> Object {
    Object::from_value(&value.into(), revision, &[]).unwrap()
}

impl World {
    fn new(random: &mut Random, seed: u64) -> Self {
        let profiles = Profiles::new(vec![profile()]).unwrap();
        let mut world = Self {
            engine: Engine::new(profiles, Backoff::default(), seed),
            cluster: Cluster::default(),
            now: rt::instant(),
            seed,
        };
        for number in 0..3 + random.below(9) {
            world.node(random_node(random, &format!("n{number}")));
        }
        world
    }

    fn node(&mut self, node: Value) {
        self.engine.on_node(&object(node.clone(), 1), self.now);
        let node: Node = serde_json::from_value(node).unwrap();
        match self.cluster.nodes.iter_mut().find(|own| own.metadata.name == node.metadata.name) {
            Some(own) => *own = node,
            None => self.cluster.nodes.push(node),
        }
    }

    fn index(&self, node: &str) -> usize {
        self.cluster.nodes.iter().position(|own| own.metadata.name == node).expect("the node is known")
    }

    fn remove(&mut self, uid: &str) {
        self.engine.on_pod_gone(uid, self.now);
        self.cluster.placed.retain(|(_, pod)| pod.metadata.uid != uid);
    }

    /// Lets the engine decide about one pod, and checks it.
    fn decide(&mut self, value: Value) -> bool {
        let pod: Pod = serde_json::from_value(value.clone()).unwrap();
        self.engine.on_pod(&object(value.clone(), 2), self.now);
        let rated = self.cluster.rate(&pod);
        let context = format!("seed {}: {value}\nrated {rated:?}", self.seed);
        match self.engine.next(self.now).expect("there is a pod") {
            Decision::Bind(placement) => {
                assert_eq!(*placement.pod.name(), pod.metadata.name, "{context}");
                let node = self.index(&placement.node);
                let best = rated.values().max().copied();
                assert_eq!(rated.get(&node).copied(), best, "{}: {context}", placement.node);
                self.cluster.placed.push((node, pod));
                true
            }
            Decision::Unschedulable { pod: found, nomination, message, .. } => {
                assert!(rated.is_empty(), "{message}: {context}");
                self.check_preemption(&found, &pod, &nomination, &context);
                self.remove(&pod.metadata.uid);
                false
            }
            _ => panic!("{context}"),
        }
    }

    /// Victims are of lower priority, enough and none too many; and without any, evictions help nowhere.
    fn check_preemption(&self, found: &Arc<PodInfo>, pod: &Pod, nomination: &Nomination, context: &str) {
        if !required(affinity(pod)).is_empty() {
            // A pod that wants others near may need those that would have to go.
            return;
        }
        let lower = |other: &Pod| other.spec.priority < pod.spec.priority;
        let without = |gone: &dyn Fn(usize, &Pod) -> bool| {
            let mut cluster = self.cluster.clone();
            cluster.placed.retain(|(at, other)| !gone(*at, other));
            cluster
        };
        let helps = |node: usize| {
            let has_lower = self.cluster.on(node).any(lower);
            has_lower && without(&|at, other| at == node && lower(other)).fits(pod, node)
        };
        let Nomination::Make { node, victims } = nomination else {
            let helped: Vec<usize> = (0..self.cluster.nodes.len()).filter(|&node| helps(node)).collect();
            assert!(helped.is_empty(), "{}: evictions would help on {helped:?}: {context}", found.name());
            return;
        };
        let node = self.index(node);
        let uids: Vec<&Str> = victims.iter().map(|victim| victim.uid()).collect();
        let fits_without =
            |gone: &[&Str]| without(&|_, other| gone.contains(&&other.metadata.uid)).fits(pod, node);
        assert!(victims.iter().all(|victim| victim.priority() < found.priority()), "{context}");
        assert!(fits_without(&uids), "not even without {uids:?}: {context}");
        for spared in 0..uids.len() {
            let mut fewer = uids.clone();
            let spared = fewer.remove(spared);
            assert!(!fits_without(&fewer), "{spared} need not go: {context}");
        }
    }
}

#[test]
fn the_engine_decides_as_a_plain_search_does() {
    let (mut bound, mut turned_away) = (0, 0);
    for seed in 1..=75 {
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let together = seed % 3 > 0;
        let mut world = World::new(&mut random, seed);
        for step in 0..40 {
            match random.below(12) {
                0 => {
                    let name = format!("n{}", random.below(12));
                    let node = random_node(&mut random, &name);
                    world.node(node);
                }
                1 | 2 if !world.cluster.placed.is_empty() => {
                    let at = random.below(world.cluster.placed.len() as u64) as usize;
                    let uid = world.cluster.placed[at].1.metadata.uid.clone();
                    world.remove(&uid);
                }
                _ => {
                    let pod = random_pod(&mut random, &format!("p{step}"), together);
                    match world.decide(pod) {
                        true => bound += 1,
                        false => turned_away += 1,
                    }
                }
            }
            world.now += Duration::from_secs(1);
        }
    }
    assert!(bound > 500 && turned_away > 150, "{bound} bound, {turned_away} turned away");
}
