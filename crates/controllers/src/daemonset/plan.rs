//! What a DaemonSet needs: which nodes want its pod, which pods go, and what a new one looks like. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::placement::{NAME_FIELD, is_kept_away, is_required_match, is_tolerated, required};
use api::view::{DaemonSet, IntOrString, Node, Pod, PodSpec, Toleration};
use apimachinery::{Object, Str, Value, json, value};
use jiff::Timestamp;

use crate::history::REVISION_HASH;
use crate::pods::{self, is_available};

/// The annotation that counts a DaemonSet's templates, and the label that says of which one a pod is.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const POD_TEMPLATE_GENERATION: &str = "pod-template-generation";

/// Taints that daemon pods live with: key, effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// What pods in the network of their node live with besides.
const TOLERATED_BY_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// A pod of the set.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) object: Arc<Object>,
    pub(super) pod: Arc<Pod>,
    /// Also when the deletion is ours and the cache does not show it yet.
    pub(super) is_deleting: bool,
}

/// Pods by the name of the node that they run on or are meant for, the oldest first.
pub(super) type ByNode = BTreeMap<Str, Vec<Member>>;

/// A set and the revision that its pods are to be of.
pub(super) struct Daemon<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) placement: Placement,
    pub(super) hash: &'a str,
    pub(super) now: Timestamp,
}

/// Where a set's pods may run.
pub(super) struct Placement {
    spec: PodSpec,
}

/// What a node and a set think of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// It is to have a pod.
    pub(super) should_run: bool,
    /// A pod that it has may stay.
    pub(super) may_stay: bool,
}

/// A node, judged once.
#[derive(Clone, Debug)]
pub(super) struct Place {
    node: Arc<Node>,
    pub(super) verdict: Verdict,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// Nodes that get a pod.
    pub(super) create: Vec<Str>,
    pub(super) delete: Vec<Member>,
    /// Pods that ended, and their nodes. Failed ones go with a back-off.
    pub(super) ended: Vec<(Str, Member)>,
}

// === impl Placement ===

impl Placement {
    pub(super) fn of(set: &DaemonSet) -> Self {
        let mut spec: PodSpec = value::from_value(&set.spec.template.bare()["spec"]).unwrap_or_default();
        for (key, effect) in tolerated(spec.host_network) {
            spec.tolerations.push(Toleration {
                key: key.into(),
                operator: "Exists".into(),
                effect: effect.into(),
                ..Toleration::default()
            });
        }
        Self { spec }
    }

    pub(super) fn verdict(&self, node: &Node) -> Verdict {
        let spec = &self.spec;
        let is_named = spec.node_name.is_empty() || spec.node_name == node.metadata.name;
        if !is_named || !is_required_match(spec, node) {
            return Verdict { should_run: false, may_stay: false };
        }
        let should_run = !is_kept_away(&node.spec.taints, &spec.tolerations);
        let mut evicting = node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute");
        Verdict { should_run, may_stay: evicting.all(|taint| is_tolerated(taint, &spec.tolerations)) }
    }
}

fn tolerated(host_network: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    TOLERATED.into_iter().chain(host_network.then_some(TOLERATED_BY_HOST_NETWORK))
}

// === impl Place ===

impl Place {
    pub(super) fn name(&self) -> &Str {
        &self.node.metadata.name
    }
}

// === impl Member ===

impl Member {
    /// The node that the pod runs on, or is meant for while no scheduler has seen it.
    pub(super) fn node(&self) -> Option<&Str> {
        let spec = &self.pod.spec;
        if !spec.node_name.is_empty() {
            return Some(&spec.node_name);
        }
        let terms = &required(spec)?.node_selector_terms;
        let mut fields = terms.iter().flat_map(|term| &term.match_fields);
        let named = fields.find(|field| field.key == NAME_FIELD && field.operator == "In")?;
        match named.values.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }

    fn is_scheduled(&self) -> bool {
        !self.pod.spec.node_name.is_empty()
    }

    fn label(&self, key: &str) -> &str {
        self.object.label(key).unwrap_or_default()
    }
}

/// Sorts pods by node. Those that ended and are on their way out are nobody's business any more.
pub(super) fn by_node(members: &[Member]) -> ByNode {
    let mut nodes = ByNode::new();
    for member in members.iter().filter(|own| !(own.pod.is_terminal() && own.is_deleting)) {
        if let Some(node) = member.node() {
            nodes.entry(node.clone()).or_default().push(member.clone());
        }
    }
    for members in nodes.values_mut() {
        members.sort_by(|a, b| {
            let age = |own: &Member| own.object.creation_timestamp().to_owned();
            let scheduled = b.is_scheduled().cmp(&a.is_scheduled());
            scheduled.then_with(|| age(a).cmp(&age(b))).then_with(|| a.object.name().cmp(b.object.name()))
        });
    }
    nodes
}

// === impl Daemon ===

impl Daemon<'_> {
    /// The pod is of the present template.
    pub(super) fn is_updated(&self, member: &Member) -> bool {
        let generation = template_generation(self.set);
        member.label(REVISION_HASH) == self.hash
            || generation.is_some_and(|own| member.label(POD_TEMPLATE_GENERATION) == own.to_string())
    }

    pub(super) fn is_available(&self, member: &Member) -> bool {
        is_available(&member.pod, self.set.spec.min_ready_seconds, self.now)
    }

    pub(super) fn places(&self, nodes: Vec<Arc<Node>>) -> Vec<Place> {
        let judge = |node: Arc<Node>| Place { verdict: self.placement.verdict(&node), node };
        nodes.into_iter().map(judge).collect()
    }

    /// What brings every node what it wants, updates aside.
    pub(super) fn manage(&self, places: &[Place], pods: &ByNode) -> Change {
        let mut change = Change::default();
        for place in places {
            self.manage_place(place, pods.get(place.name()), &mut change);
        }
        // A pod that no scheduler will ever place, and so no collector of pods will ever find.
        let names: HashSet<&Str> = places.iter().map(Place::name).collect();
        let lost = pods.iter().filter(|(name, _)| !names.contains(name)).flat_map(|(_, members)| members);
        change.delete.extend(lost.filter(|own| !own.is_scheduled()).cloned());
        change
    }

    fn manage_place(&self, place: &Place, members: Option<&Vec<Member>>, change: &mut Change) {
        let (verdict, name) = (place.verdict, place.name());
        let Some(members) = members else {
            change.create.extend(verdict.should_run.then(|| name.clone()));
            return;
        };
        let staying = members.iter().filter(|own| !own.is_deleting);
        if !verdict.may_stay {
            change.delete.extend(staying.cloned());
            return;
        }
        let (ended, running): (Vec<&Member>, Vec<&Member>) = staying.partition(|own| own.pod.is_terminal());
        change.ended.extend(ended.into_iter().map(|own| (name.clone(), own.clone())));
        if !self.allows_surge() {
            change.delete.extend(running.into_iter().skip(1).cloned());
        } else if running.is_empty() {
            change.create.extend(verdict.should_run.then(|| name.clone()));
        } else {
            change.delete.extend(self.surplus(&running).into_iter().cloned());
        }
    }

    /// Of the pods that run on a node while surging, those that are too many: all but the oldest new and the oldest old
    /// one, and the old one too when it is not ready any more or the new one is available.
    fn surplus<'m>(&self, running: &[&'m Member]) -> Vec<&'m Member> {
        let is_new = |own: &&Member| own.label(REVISION_HASH) == self.hash;
        let (new, old): (Vec<&Member>, Vec<&Member>) = running.iter().copied().partition(is_new);
        let mut surplus: Vec<&Member> = new.iter().skip(1).chain(old.iter().skip(1)).copied().collect();
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!old.pod.is_ready() || self.is_available(new))
        {
            surplus.push(old);
        }
        surplus
    }

    /// The next part of a rolling update.
    pub(super) fn roll(&self, places: &[Place], pods: &ByNode) -> Result<Change, String> {
        let wanting: HashSet<&Str> =
            places.iter().filter(|place| place.verdict.should_run).map(Place::name).collect();
        let Limits { surge, unavailable } = limits(self.set, wanting.len())?;
        if surge == 0 {
            let vacant = wanting.iter().filter(|name| !pods.contains_key(**name)).count();
            Ok(self.replace(pods, vacant, unavailable))
        } else {
            Ok(self.surge(&wanting, pods, surge))
        }
    }

    /// Without surge: old pods go, as many as may be unavailable; those that are not available anyway go at once.
    fn replace(&self, pods: &ByNode, vacant: usize, max_unavailable: usize) -> Change {
        let (mut unavailable, mut allowed, mut candidates) = (vacant, Vec::new(), Vec::new());
        for members in pods.values() {
            match self.pair(members) {
                Some(Pair { new: Some(new), old: None }) if self.is_available(new) => {}
                Some(Pair { new: None, old: Some(old) }) if self.is_available(old) => candidates.push(old),
                Some(Pair { new: None, old: Some(old) }) => {
                    unavailable += 1;
                    allowed.push(old);
                }
                // The node waits for a pod, or has too many for now.
                _ => unavailable += 1,
            }
        }
        let more = max_unavailable.saturating_sub(unavailable);
        let delete = allowed.into_iter().chain(candidates.into_iter().take(more)).cloned().collect();
        Change { delete, ..Change::default() }
    }

    /// With surge: new pods come beside old ones, and the old one goes when the new one is available.
    fn surge(&self, wanting: &HashSet<&Str>, pods: &ByNode, max_surge: usize) -> Change {
        let (mut surging, mut available) = (0_usize, 0_usize);
        let (mut allowed, mut candidates, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
        let mut change = Change::default();
        for (name, members) in pods {
            let Some(Pair { new, old }) = self.pair(members) else {
                surging += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|own| self.is_available(own)));
            let Some(old) = old else { continue };
            let should_run = wanting.contains(name);
            match new {
                Some(new) if self.is_available(new) => change.delete.push(old.clone()),
                Some(_) => surging += 1,
                None if self.is_available(old) && should_run => candidates.push(name.clone()),
                None if self.is_available(old) => misplaced.push(old),
                None if should_run => allowed.push(name.clone()),
                None => change.delete.push(old.clone()),
            }
        }
        // Pods on nodes that are not wanted any more serve until others are there for them.
        let spare = available.saturating_sub(wanting.len());
        change.delete.extend(misplaced.into_iter().take(spare).cloned());
        let more = max_surge.saturating_sub(surging);
        change.create = allowed.into_iter().chain(candidates.into_iter().take(more)).collect();
        change
    }

    /// The new and the old pod of a node; `None` when it has several of a sort, which is put right first.
    fn pair<'m>(&self, members: &'m [Member]) -> Option<Pair<'m>> {
        let mut pair = Pair::default();
        for member in members.iter().filter(|own| !own.is_deleting) {
            let place = if self.is_updated(member) { &mut pair.new } else { &mut pair.old };
            if place.replace(member).is_some() {
                return None;
            }
        }
        Some(pair)
    }

    fn allows_surge(&self) -> bool {
        surge_of(self.set, 1).is_ok_and(|surge| surge > 0)
    }
}

#[derive(Default)]
struct Pair<'a> {
    new: Option<&'a Member>,
    old: Option<&'a Member>,
}

// === Limits ===

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) surge: usize,
    pub(super) unavailable: usize,
}

/// How far a rolling update may go at once on this many nodes.
pub(super) fn limits(set: &DaemonSet, desired: usize) -> Result<Limits, String> {
    let rolling = set.spec.update_strategy.rolling_update.as_ref();
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let unavailable = scaled(unavailable, desired)
        .ok_or("couldn't get unavailable numbers: invalid value for MaxUnavailable")?;
    let surge = surge_of(set, desired)?;
    // Neither is allowed to be wanted of everybody; somebody did anyway.
    let is_stuck = desired > 0 && unavailable == 0 && surge == 0;
    Ok(Limits { surge, unavailable: if is_stuck { 1 } else { unavailable } })
}

fn surge_of(set: &DaemonSet, desired: usize) -> Result<usize, String> {
    let strategy = &set.spec.update_strategy;
    if strategy.type_ != "RollingUpdate" {
        return Ok(0);
    }
    let surge = strategy.rolling_update.as_ref().and_then(|rolling| rolling.max_surge.as_ref());
    scaled(surge, desired)
        .ok_or_else(|| "couldn't get unavailable numbers: invalid value for MaxSurge".to_owned())
}

/// Absent is none.
fn scaled(limit: Option<&IntOrString>, desired: usize) -> Option<usize> {
    let total = i32::try_from(desired).unwrap_or(i32::MAX);
    let number = limit.map_or(Some(0), |limit| limit.scaled(total, true))?;
    Some(usize::try_from(number).unwrap_or(0))
}

// === Trees ===

fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.get(TEMPLATE_GENERATION)?.parse().ok()
}

/// The tree of a new pod, without its node.
pub(super) fn pod_of(object: &Object, set: &DaemonSet, hash: &str) -> Value {
    let mut pod = pods::from_template(&set.spec.template.to_value(), object);
    if let Some(generation) = template_generation(set) {
        pod.set_at(&["metadata", "labels", POD_TEMPLATE_GENERATION], generation.to_string());
    }
    pod.set_at(&["metadata", "labels", REVISION_HASH], hash);
    tolerate(&mut pod);
    pod
}

/// A toleration that is there already stays as it is, but forever.
fn tolerate(pod: &mut Value) {
    let host_network = pod.at(&["spec", "hostNetwork"]).and_then(Value::as_bool).unwrap_or(false);
    let mut tolerations = pod.array_at(&["spec", "tolerations"]).to_vec();
    for (key, effect) in tolerated(host_network) {
        let wanted = json!({"effect": effect, "key": key, "operator": "Exists"});
        let is_same = |own: &&mut Value| {
            own.str_at(&["key"]) == key
                && own.str_at(&["effect"]) == effect
                && own.str_at(&["operator"]) == "Exists"
                && own.str_at(&["value"]).is_empty()
        };
        match tolerations.iter_mut().find(is_same) {
            Some(own) => *own = wanted,
            None => tolerations.push(wanted),
        }
    }
    pod.set_at(&["spec", "tolerations"], tolerations);
}

/// Makes a pod one for this node and no other: the scheduler binds it. What the template requires of nodes, the node
/// has.
pub(super) fn aim_at(mut pod: Value, node: &str) -> Value {
    pod.set_at(
        &[
            "spec",
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
            "nodeSelectorTerms",
        ],
        json!([{"matchFields": [{"key": NAME_FIELD, "operator": "In", "values": [node]}]}]),
    );
    pod
}
