//! What a StatefulSet needs: which pod is made, waited for, replaced or deleted next, and what a new one looks like.
//! Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use api::view::{Pod, StatefulSet};
use apimachinery::{Object, Str, Value, json};
use jiff::Timestamp;

use crate::history::{self, REVISION_HASH, Revision};
use crate::pods::{self, is_available};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// Vacant places that one reconcile looks at. A set may ask for two thousand million pods; those that are made bring it
/// back for more.
const VACANT_MAX: i32 = 500;

/// A pod of the set.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) ordinal: i32,
    pub(super) object: Arc<Object>,
    pub(super) pod: Arc<Pod>,
    /// Also when the deletion is ours and the cache does not show it yet.
    pub(super) is_deleting: bool,
}

/// A place of the set, and the pod that has it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) ordinal: i32,
    pub(super) member: Option<Member>,
}

/// The pods of a set, sorted by what becomes of them.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    range: Range<i32>,
    /// In ascending order; of those that are vacant the first ones.
    pub(super) places: Vec<Place>,
    /// Pods outside of the range of ordinals, the highest first.
    pub(super) condemned: Vec<Member>,
    first_unavailable: Option<i32>,
}

/// What a place needs.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A pod.
    Create,
    /// Another pod: this one is done. The next is made when it is gone.
    Replace(&'a Member),
    /// That the pod, which is done, goes.
    Vacate,
    /// Its pod, which stays. `is_good` says whether the next place may be looked at in an ordered set.
    Keep { member: &'a Member, is_good: bool },
}

/// What becomes of a condemned pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delete,
    /// Something else comes first, in an ordered set.
    Wait,
    /// It goes already.
    Going,
}

/// The two revisions of a rollout; the same one when there is none.
#[derive(Clone, Debug)]
pub(super) struct Revisions {
    pub(super) current: Revision,
    pub(super) update: Revision,
}

// === Names ===

/// The ordinal of a pod of a set with this name; `None` for other pods.
pub(super) fn ordinal_of(set: &str, pod: &str) -> Option<i32> {
    let (parent, ordinal) = pod.rsplit_once('-')?;
    let is_number = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    (parent == set && is_number).then(|| ordinal.parse().ok())?
}

pub(super) fn pod_name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

pub(super) fn claim_name(set: &str, template: &Value, ordinal: i32) -> String {
    format!("{}-{set}-{ordinal}", template.str_at(&["metadata", "name"]))
}

/// The names that a set must have for a claim to be of one of its pods.
pub(super) fn sets_of_claim(claim: &str) -> impl Iterator<Item = (&str, &str)> {
    let base = claim.rsplit_once('-').map_or("", |(base, _)| base);
    base.match_indices('-').map(move |(at, _)| (&base[..at], &base[at + 1..]))
}

pub(super) fn has_claim_template(set: &StatefulSet, name: &str) -> bool {
    set.spec.volume_claim_templates.iter().any(|template| template.str_at(&["metadata", "name"]) == name)
}

// === impl Member ===

impl Member {
    pub(super) fn revision(&self) -> &str {
        self.pod.metadata.labels.get(REVISION_HASH).map(Str::as_str).unwrap_or_default()
    }

    pub(super) fn is_running_and_ready(&self) -> bool {
        self.pod.status.phase == "Running" && self.pod.is_ready()
    }

    fn is_unavailable(&self, set: &StatefulSet, now: Timestamp) -> bool {
        self.is_deleting || !is_available(&self.pod, set.spec.min_ready_seconds, now)
    }
}

// === impl Fleet ===

impl Fleet {
    pub(super) fn of(set: &StatefulSet, members: Vec<Member>, now: Timestamp) -> Self {
        let start = set.spec.ordinals.start;
        let range = start..start.saturating_add(wanted(set));
        let (inside, mut condemned): (Vec<Member>, Vec<Member>) =
            members.into_iter().partition(|member| range.contains(&member.ordinal));
        condemned.sort_by_key(|member| Reverse(member.ordinal));
        let places = places(&range, inside);
        let vacant = |place: &&Place| place.member.as_ref().is_none_or(|own| own.is_unavailable(set, now));
        let first_unavailable = places.iter().find(vacant).map(|place| place.ordinal).or_else(|| {
            let unavailable = condemned.iter().rev().find(|own| own.is_unavailable(set, now));
            unavailable.map(|own| own.ordinal)
        });
        Self { range, places, condemned, first_unavailable }
    }

    pub(super) fn has_place(&self, ordinal: i32) -> bool {
        self.range.contains(&ordinal)
    }

    /// Whether there are more vacant places than were looked at.
    fn is_cut(&self) -> bool {
        i64::from(self.range.end) - i64::from(self.range.start) > self.places.len() as i64
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.places.iter().filter_map(|place| place.member.as_ref()).chain(&self.condemned)
    }
}

/// The places of a range and those who have them.
fn places(range: &Range<i32>, members: Vec<Member>) -> Vec<Place> {
    let taken: BTreeMap<i32, Member> = members.into_iter().map(|own| (own.ordinal, own)).collect();
    let mut places = Vec::with_capacity(taken.len());
    let mut vacant_left = VACANT_MAX;
    let mut next = range.start;
    let mut vacate = |places: &mut Vec<Place>, from: i32, to: i32| {
        let count = (to - from).min(vacant_left);
        vacant_left -= count;
        places.extend((from..from + count).map(|ordinal| Place { ordinal, member: None }));
    };
    for (ordinal, member) in taken {
        vacate(&mut places, next, ordinal);
        places.push(Place { ordinal, member: Some(member) });
        next = ordinal + 1;
    }
    vacate(&mut places, next, range.end);
    places
}

pub(super) fn wanted(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1).max(0)
}

/// Pods come and go one after the other.
pub(super) fn is_ordered(set: &StatefulSet) -> bool {
    set.spec.pod_management_policy != "Parallel"
}

// === Decisions ===

pub(super) fn step<'a>(set: &StatefulSet, place: &'a Place, now: Timestamp) -> Step<'a> {
    let Some(member) = &place.member else { return Step::Create };
    match (member.pod.is_terminal(), member.is_deleting) {
        (true, true) => Step::Vacate,
        (true, false) => Step::Replace(member),
        (false, _) => {
            let is_good = member.is_running_and_ready() && !member.is_unavailable(set, now);
            Step::Keep { member, is_good }
        }
    }
}

/// In an ordered set, a pod that is not well goes only if it is the first of those.
pub(super) fn fate(set: &StatefulSet, fleet: &Fleet, condemned: &Member, now: Timestamp) -> Fate {
    let is_first = fleet.first_unavailable == Some(condemned.ordinal);
    let is_well = condemned.is_running_and_ready() && !condemned.is_unavailable(set, now);
    match (condemned.is_deleting, is_ordered(set)) {
        (true, true) => Fate::Wait,
        (true, false) => Fate::Going,
        (false, true) if !is_well && !is_first => Fate::Wait,
        (false, _) => Fate::Delete,
    }
}

/// The pod that goes next to make room for one of the update revision: the highest outdated one, when all above it are
/// available. Pods below the partition stay.
pub(super) fn outdated<'a>(
    set: &StatefulSet,
    fleet: &'a Fleet,
    update: &str,
    now: Timestamp,
) -> Option<&'a Member> {
    if set.spec.update_strategy.type_ == "OnDelete" || fleet.is_cut() {
        return None;
    }
    let partition = set.spec.update_strategy.rolling_update.as_ref().map_or(0, |rolling| rolling.partition);
    let from = usize::try_from(partition).unwrap_or(0);
    for place in fleet.places.iter().skip(from).rev() {
        let member = place.member.as_ref()?;
        if member.revision() != update && !member.is_deleting {
            return Some(member);
        }
        if member.is_unavailable(set, now) {
            return None;
        }
    }
    None
}

/// The revision of a new pod.
pub(super) fn revision_for<'a>(set: &StatefulSet, revisions: &'a Revisions, ordinal: i32) -> &'a Revision {
    let strategy = &set.spec.update_strategy;
    let kept = match &strategy.rolling_update {
        Some(rolling) => rolling.partition,
        None if strategy.type_ == "RollingUpdate" => set.status.current_replicas,
        None => 0,
    };
    if ordinal < set.spec.ordinals.start.saturating_add(kept) {
        &revisions.current
    } else {
        &revisions.update
    }
}

/// The revisions that may be forgotten: beyond the history's limit, the oldest first, and never one that is in use.
/// `all` has the oldest first.
pub(super) fn beyond_history<'a>(
    set: &StatefulSet,
    all: &'a [Revision],
    revisions: &Revisions,
    fleet: &Fleet,
) -> Vec<&'a Revision> {
    let Ok(limit) = usize::try_from(set.spec.revision_history_limit.unwrap_or(history::LIMIT)) else {
        return Vec::new();
    };
    let is_live = |name: &str| {
        name == revisions.current.name()
            || name == revisions.update.name()
            || fleet.members().any(|member| member.revision() == name)
    };
    let past: Vec<&Revision> = all.iter().filter(|revision| !is_live(revision.name())).collect();
    let surplus = past.len().saturating_sub(limit);
    past.into_iter().take(surplus).collect()
}

// === Trees ===

/// The tree of a new pod.
pub(super) fn pod_of(object: &Object, set: &StatefulSet, revision: &Revision, ordinal: i32) -> Value {
    let mut pod = pods::from_template(&revision.template().to_value(), object);
    let name = pod_name(object.name(), ordinal);
    pod.set_at(&["metadata", "name"], name.as_str());
    pod.set_at(&["metadata", "namespace"], object.namespace());
    pod.set_at(&["metadata", "labels", REVISION_HASH], revision.name());
    pod.set_at(&["spec", "hostname"], name.as_str());
    pod.set_at(&["spec", "subdomain"], set.spec.service_name.clone());
    set_identity(&mut pod, object.name(), ordinal);
    set_storage(&mut pod, object.name(), set, ordinal);
    pod
}

/// The pod has the labels of its place.
pub(super) fn has_identity(set: &str, member: &Member) -> bool {
    let name = member.object.name();
    name == pod_name(set, member.ordinal) && member.object.label(POD_NAME) == Some(name)
}

pub(super) fn set_identity(pod: &mut Value, set: &str, ordinal: i32) {
    pod.set_at(&["metadata", "labels", POD_NAME], pod_name(set, ordinal));
    pod.set_at(&["metadata", "labels", POD_INDEX], ordinal.to_string());
}

/// The pod mounts the claims of its place.
pub(super) fn has_storage(name: &str, set: &StatefulSet, member: &Member) -> bool {
    set.spec.volume_claim_templates.iter().all(|template| {
        let wanted = claim_name(name, template, member.ordinal);
        let volume_name = template.str_at(&["metadata", "name"]);
        let volume = member.pod.spec.volumes.iter().rfind(|volume| volume.name == volume_name);
        let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
        claim.is_some_and(|claim| claim.claim_name == wanted)
    })
}

/// The claims of the place, and of the template's volumes those without a claim of their name.
pub(super) fn set_storage(pod: &mut Value, name: &str, set: &StatefulSet, ordinal: i32) {
    let templates = &set.spec.volume_claim_templates;
    if templates.is_empty() {
        return;
    }
    let claimed = templates.iter().map(|template| {
        json!({"name": template.str_at(&["metadata", "name"]),
            "persistentVolumeClaim": {"claimName": claim_name(name, template, ordinal)}})
    });
    let is_claimed = |volume: &&Value| has_claim_template(set, volume.str_at(&["name"]));
    let others = pod.array_at(&["spec", "volumes"]).iter().filter(|volume| !is_claimed(volume)).cloned();
    let volumes: Vec<Value> = claimed.chain(others).collect();
    pod.set_at(&["spec", "volumes"], volumes);
}

/// The tree of a claim of a pod.
pub(super) fn claim_of(object: &Object, set: &StatefulSet, template: &Value, ordinal: i32) -> Value {
    let mut claim = template.clone();
    claim.set_at(&["apiVersion"], "v1");
    claim.set_at(&["kind"], "PersistentVolumeClaim");
    claim.set_at(&["metadata", "name"], claim_name(object.name(), template, ordinal));
    claim.set_at(&["metadata", "namespace"], object.namespace());
    for (key, value) in &set.spec.selector.match_labels {
        claim.set_at(&["metadata", "labels", key], value.clone());
    }
    claim
}
