//! The cycle of a group: those of its pods that wait are placed one after the other, each as if the ones before were
//! bound, and only then it is decided whether any is.
//!
//! ```text
//!     take members ─> each: shortlist → assume → reserve ─> enough have a node? ─yes─> Bind, Bind, …, Group
//!                     (for each domain; the best is kept)          └──no──> all undone: Unschedulable, …, Group
//! ```
//!
//! It is one step of the scheduling task. Nobody sees a group that is half placed, so two gangs that want the same room
//! cannot hold parts of it against each other. Members of equal signature share a shortlist, which is repaired after
//! each: a gang costs what as many single pods do.
//!
//! Pods for which room has to be made count as placed, their victims as gone; nobody is evicted unless the whole group
//! fits then. It is tried again when the last victim is gone.
//!
//! The quota and the fair share of queues belong between `take_members` and `try_group`: there it is known what a
//! group wants and that nothing of it has been given yet.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use api::view::PodGroup;

use super::*;
use crate::cache::SetAside;
use crate::framework::Signature;
use crate::groups::{GroupKey, Groups, Terms};
use crate::plugins::GANG_SCHEDULING;
use crate::shared::Shortlists;

const UNSCHEDULABLE_GROUP: &str = "pod group is unschedulable";
const NOT_ENOUGH: &str = "waiting for minCount pods from a gang to be scheduled";
const AWAITS_PREEMPTION: &str = "pod group is waiting for preemption to complete";
const NO_PREEMPTION: &str = "preemption: not eligible due to placement-based pod group scheduling limitation";

/// What is to be told about a group.
pub struct Verdict {
    /// As it was when it was tried.
    pub group: Arc<PodGroup>,
    pub is_scheduled: bool,
    pub reason: &'static str,
    pub message: String,
}

/// How the members of a group fared.
#[derive(Default)]
struct Trial {
    placed: Vec<Placed>,
    rejected: Vec<(Arc<PodInfo>, NoPlace)>,
    /// A plugin failed, and those after that member were not tried.
    error: Option<String>,
    /// What is told of the group when it does not fit, if there is more to say than that.
    message: Option<String>,
}

/// A member that was assumed on a node.
struct Placed {
    placement: Placement,
    slot: Slot,
    /// The node that it was nominated for.
    nominated: Option<Slot>,
    /// Why it fits only once others have gone, who are off their node meanwhile.
    preemption: Option<(NoPlace, Vec<SetAside>)>,
    /// How long a `Permit` plugin holds it back.
    hold: Option<Duration>,
}

/// What a group has when it is tried.
struct Case<'a> {
    groups: &'a Groups,
    key: &'a GroupKey,
    terms: Terms,
    /// Those of its pods that wait, in the order in which they are tried.
    members: Vec<Arc<PodInfo>>,
    /// Uids of those that have a node already.
    scheduled: Vec<Str>,
}

/// A rejection that holds for every pod of that signature and priority while the cluster is the same.
struct Rejection {
    signature: Signature,
    priority: i32,
    generation: u64,
    failure: Failure,
    message: String,
}

impl Engine {
    /// Tries the group of a popped pod. What comes of it is in `decided`.
    pub(super) fn schedule_group(
        &mut self,
        groups: &Groups,
        first: Arc<PodInfo>,
        key: &GroupKey,
        now: Instant,
    ) {
        let members = self.take_members(groups, first, key);
        if members.is_empty() {
            return;
        }
        let (Some(group), Some(terms)) = (groups.object(key), groups.terms(key)) else {
            let GroupKey { namespace, name } = key;
            let why = format!(
                "running Permit plugin {GANG_SCHEDULING:?}: failed to get podGroup {namespace}/{name}: \
                 podgroup.scheduling.k8s.io {name:?} not found"
            );
            members
                .into_iter()
                .for_each(|pod| self.decide_rejected(pod, NoPlace::new(Failure::Error, why.clone()), now));
            return;
        };
        let case = Case { groups, key, terms, members, scheduled: groups.members(key, true) };
        let tried = same_scheduler(&case.members).and_then(|()| self.try_group(&case));
        let verdict = match tried {
            Err(problem) => self.reject_all(&case, problem, now),
            Ok(trial) => self.conclude(&case, trial, now),
        };
        let (is_scheduled, reason, message) = verdict;
        self.decided.push_back(Decision::Group(Verdict { group, is_scheduled, reason, message }));
    }

    /// All pods of the group that wait, the most important first.
    fn take_members(&mut self, groups: &Groups, first: Arc<PodInfo>, key: &GroupKey) -> Vec<Arc<PodInfo>> {
        let mut members = vec![first];
        members.extend(groups.members(key, false).iter().filter_map(|uid| self.queue.take(uid)));
        members.retain(|pod| {
            let waits = !pod.pod.is_deleting() && !self.cache.is_assumed(pod.uid());
            if !waits {
                self.queue.remove(pod.uid());
            }
            waits
        });
        members.sort_by(|a, b| b.priority().cmp(&a.priority()).then_with(|| a.name().cmp(b.name())));
        members
    }

    /// Tries the members wherever the group may be. The trial that is returned is in effect if it is enough.
    fn try_group(&mut self, case: &Case<'_>) -> Result<Trial, NoPlace> {
        let Some(label) = &case.terms.topology_key else {
            let mut trial = self.try_members(&case.members, Ok(()));
            trial.message = case.groups.features().topology.then(|| no_placement(1));
            return Ok(trial);
        };
        let domains = self.domains(label, &case.scheduled)?;
        let (mut fitting, mut first) = (Vec::new(), None);
        for nodes in &domains {
            let everywhere = std::mem::replace(&mut self.shortlists, Shortlists::within(nodes.clone()));
            let mut trial = self.try_members(&case.members, Err(NO_PREEMPTION));
            self.shortlists = everywhere;
            self.undo(&mut trial);
            if trial.error.is_some() {
                trial.placed.clear();
                return Ok(trial);
            }
            if case.is_enough(&trial) {
                fitting.push(trial);
            } else {
                first.get_or_insert(trial);
            }
        }
        Ok(match self.best_of(fitting, case.scheduled.len()) {
            Some(best) => self.redo(best),
            None => Trial { message: Some(no_placement(domains.len())), ..first.unwrap_or_default() },
        })
    }

    /// The domains in which all pods of a group could be: the one in which some are already, or each there is.
    fn domains(&self, label: &str, scheduled: &[Str]) -> Result<Vec<Arc<[Slot]>>, NoPlace> {
        let domain_of = |slot: Slot| {
            let node = self.cache.node(slot)?.node.as_ref()?;
            node.metadata.labels.get(label).cloned()
        };
        let mut required: Option<Str> = None;
        for uid in scheduled {
            let Some(pod) = self.cache.pod(uid) else { continue };
            let problem = |what: String| {
                let why = format!("cannot determine domain for already scheduled pods: {what}");
                Err(NoPlace::new(Failure::Error, why))
            };
            let Some(domain) = self.cache.slot_of_pod(uid).and_then(domain_of) else {
                return problem(format!(
                    "no topology domain found for pod {}/{}",
                    pod.namespace(),
                    pod.name()
                ));
            };
            match required.replace(domain.clone()) {
                Some(other) if other != domain => {
                    return problem(format!("more than 1 domain found for pod group: {other}, {domain}"));
                }
                _ => {}
            }
        }
        let mut nodes: BTreeMap<Str, Vec<Slot>> = BTreeMap::new();
        for (slot, _) in self.cache.nodes() {
            if let Some(domain) = domain_of(slot)
                && required.as_ref().is_none_or(|required| *required == domain)
            {
                nodes.entry(domain).or_default().push(slot);
            }
        }
        match nodes.is_empty() {
            true => Err(NoPlace::new(
                Failure::Rejected(PluginSet::default()),
                "no feasible placements found".to_owned(),
            )),
            false => Ok(nodes.into_values().map(Into::into).collect()),
        }
    }

    /// As upstream's `PodGroupPodsCount` rates them: where the most pods fit; among equals by chance.
    fn best_of(&mut self, mut trials: Vec<Trial>, scheduled: usize) -> Option<Trial> {
        let most = scheduled + trials.iter().map(|trial| trial.placed.len()).max()?;
        let score = |trial: &Trial| (scheduled + trial.placed.len()) * 100 / most;
        let highest = trials.iter().map(score).max()?;
        trials.retain(|trial| score(trial) == highest);
        let chosen = self.next_random() % trials.len() as u64;
        Some(trials.swap_remove(chosen as usize))
    }

    /// `preemption` says why others may not be evicted for them.
    fn try_members(&mut self, members: &[Arc<PodInfo>], preemption: Result<(), &'static str>) -> Trial {
        let mut trial = Trial::default();
        let mut last = None;
        for pod in members {
            match self.find_member_node(pod, preemption, &mut last) {
                Ok(slot) => self.try_on(pod, slot, None, &mut trial),
                Err(NoPlace { failure: Failure::Error, message, nomination }) => {
                    trial.error = Some(message.clone());
                    trial
                        .rejected
                        .push((pod.clone(), NoPlace { failure: Failure::Error, message, nomination }));
                    break;
                }
                Err(no_place) => self.try_preempting(pod, no_place, &mut trial),
            }
        }
        trial
    }

    /// As [`Engine::find_node`], but members that are alike are turned away without looking again.
    fn find_member_node(
        &mut self,
        pod: &Arc<PodInfo>,
        preemption: Result<(), &'static str>,
        last: &mut Option<Rejection>,
    ) -> Result<Slot, NoPlace> {
        let mut signature = Signature::default();
        let is_shareable = self.profiles.serving(pod).sign(pod, &self.cache, &mut signature).is_ok();
        let (generation, priority) = (self.cache.generation(), pod.priority());
        if let Some(last) = last.as_ref().filter(|_| is_shareable)
            && (last.generation, last.priority) == (generation, priority)
            && last.signature.bytes() == signature.bytes()
        {
            return Err(NoPlace::new(last.failure, last.message.clone()));
        }
        let found = self.find_node(pod, preemption);
        if let Err(NoPlace { failure, message, nomination }) = &found
            && is_shareable
            && !matches!(nomination, Nomination::Make { .. })
        {
            let (failure, message) = (*failure, message.clone());
            *last = Some(Rejection { signature, priority, generation, failure, message });
        }
        found
    }

    /// A pod for which room can be made counts as placed there.
    fn try_preempting(&mut self, pod: &Arc<PodInfo>, no_place: NoPlace, trial: &mut Trial) {
        let room = match &no_place.nomination {
            Nomination::Make { node, victims } => self.cache.slot(node).map(|slot| (slot, victims.clone())),
            _ => None,
        };
        let Some((slot, victims)) = room else {
            trial.rejected.push((pod.clone(), no_place));
            return;
        };
        let aside = victims.iter().filter_map(|victim| self.cache.set_aside(victim.uid())).collect();
        self.try_on(pod, slot, Some((no_place, aside)), trial);
    }

    fn try_on(
        &mut self,
        pod: &Arc<PodInfo>,
        slot: Slot,
        preemption: Option<(NoPlace, Vec<SetAside>)>,
        trial: &mut Trial,
    ) {
        let nominated = self.cache.nomination(pod.uid());
        let placement = self.occupy(pod.clone(), slot);
        let mut placed = Placed { placement, slot, nominated, preemption, hold: None };
        match self.reserve(&mut placed.placement) {
            Ok(()) => trial.placed.push(placed),
            Err((plugin, status)) => {
                self.undo_one(&mut placed);
                let no_place = turned_away(PluginSet::from_iter([plugin]), &status);
                trial.rejected.push((pod.clone(), no_place));
            }
        }
    }

    /// Takes all members off their nodes again. What the trial found stays written down.
    fn undo(&mut self, trial: &mut Trial) {
        trial.placed.iter_mut().rev().for_each(|placed| self.undo_one(placed));
    }

    fn undo_one(&mut self, placed: &mut Placed) {
        self.unreserve(&mut placed.placement);
        if let Some((_, aside)) = &mut placed.preemption {
            aside.drain(..).for_each(|victim| self.cache.put_back(victim));
        }
        let nominated = placed.nominated.and_then(|slot| Some(self.cache.node(slot)?.name.clone()));
        if let Some(node) = nominated {
            self.cache.nominate(placed.placement.pod.clone(), &node);
        }
    }

    /// Does again what was undone: the cluster is as it was.
    fn redo(&mut self, trial: Trial) -> Trial {
        let Trial { placed, rejected, error, message } = trial;
        let mut again = Trial { placed: Vec::with_capacity(placed.len()), rejected, error, message };
        placed.iter().for_each(|own| self.try_on(&own.placement.pod, own.slot, None, &mut again));
        again
    }

    /// Asks the `Permit` plugins about the members that have a node.
    fn ask_permit(&mut self, trial: &mut Trial) {
        for mut placed in std::mem::take(&mut trial.placed) {
            match self.permit(&mut placed.placement) {
                Ok(hold) => trial.placed.push(Placed { hold, ..placed }),
                Err((plugin, status)) => {
                    self.undo_one(&mut placed);
                    let no_place = turned_away(PluginSet::from_iter([plugin]), &status);
                    trial.rejected.push((placed.placement.pod, no_place));
                }
            }
        }
    }

    /// Decides about all members; what is to be told of the group.
    fn conclude(&mut self, case: &Case<'_>, mut trial: Trial, now: Instant) -> (bool, &'static str, String) {
        if let Some(error) = trial.error.take() {
            self.undo(&mut trial);
            return self.fail_all(case, &trial, &error, now);
        }
        if case.is_enough(&trial) {
            self.ask_permit(&mut trial);
        }
        let gang = self.gang_plugin(&case.members);
        if !case.is_enough(&trial) {
            self.undo(&mut trial);
            case.groups.await_victims(case.key, HashSet::new());
            let message = trial.message.take().unwrap_or_else(|| UNSCHEDULABLE_GROUP.to_owned());
            self.reject_group(trial, gang, now);
            return (false, UNSCHEDULABLE, message);
        }
        let victims = trial.victims();
        let makes_room = !victims.is_empty();
        case.groups.await_victims(case.key, victims);
        if makes_room {
            self.undo(&mut trial);
            self.make_room(trial, gang, now);
            return (false, UNSCHEDULABLE, format!("{UNSCHEDULABLE_GROUP}, {AWAITS_PREEMPTION}"));
        }
        self.accept(trial, now);
        (true, "Scheduled", String::new())
    }

    /// A plugin failed for one member, and so for all.
    fn fail_all(
        &mut self,
        case: &Case<'_>,
        trial: &Trial,
        error: &str,
        now: Instant,
    ) -> (bool, &'static str, String) {
        let error = format!("failed to schedule other pod from a pod group: {error}");
        for pod in &case.members {
            let failed = trial.rejected.iter().find(|(other, _)| other.uid() == pod.uid());
            let own = failed.map(|(_, no_place)| no_place).filter(|own| own.failure == Failure::Error);
            let message = own.map_or(&error, |own| &own.message).clone();
            self.decide_rejected(pod.clone(), NoPlace::new(Failure::Error, message), now);
        }
        (false, SCHEDULER_ERROR, error)
    }

    fn gang_plugin(&self, members: &[Arc<PodInfo>]) -> PluginSet {
        let plugin = members.first().and_then(|pod| self.profiles.serving(pod).plugin_id(GANG_SCHEDULING));
        plugin.into_iter().collect()
    }

    fn accept(&mut self, trial: Trial, now: Instant) {
        for Placed { placement, hold, .. } in trial.placed {
            let decision = match hold {
                None => Decision::Bind(placement),
                Some(timeout) => self.hold(placement, now + timeout),
            };
            self.decided.push_back(decision);
        }
        trial.rejected.into_iter().for_each(|(pod, no_place)| self.decide_rejected(pod, no_place, now));
    }

    /// Evicts whom the group needs gone, and keeps the nodes for its pods.
    fn make_room(&mut self, trial: Trial, gang: PluginSet, now: Instant) {
        for Placed { placement, preemption, .. } in trial.placed {
            let failure = Failure::Rejected(gang);
            let no_place = match preemption {
                Some((no_place, _)) => NoPlace { failure, ..no_place },
                None => NoPlace {
                    failure,
                    message: format!("{UNSCHEDULABLE_GROUP}, {AWAITS_PREEMPTION}"),
                    nomination: Nomination::Make { node: placement.node, victims: Vec::new() },
                },
            };
            self.decide_rejected(placement.pod, no_place, now);
        }
        trial.rejected.into_iter().for_each(|(pod, no_place)| self.decide_rejected(pod, no_place, now));
    }

    /// No member is placed; whatever may help one of them has all tried again.
    fn reject_group(&mut self, trial: Trial, gang: PluginSet, now: Instant) {
        let rejectors = trial.rejectors().or(gang);
        // Room that is being made for one of them is worth nothing without the others'.
        let awaits_room = |(pod, no_place): &(Arc<PodInfo>, NoPlace)| {
            matches!(no_place.nomination, Nomination::Keep) && self.cache.nomination(pod.uid()).is_some()
        };
        let keeps = trial.rejected.iter().any(awaits_room);
        for Placed { placement, .. } in trial.placed {
            let no_place = NoPlace {
                failure: Failure::Rejected(rejectors),
                message: format!("{UNSCHEDULABLE_GROUP}, {NOT_ENOUGH}"),
                nomination: if keeps { Nomination::Keep } else { Nomination::Clear },
            };
            self.decide_rejected(placement.pod, no_place, now);
        }
        trial.rejected.into_iter().for_each(|(pod, no_place)| self.decide_rejected(pod, no_place, now));
    }

    /// The group could not even be tried.
    fn reject_all(
        &mut self,
        case: &Case<'_>,
        NoPlace { failure, message, .. }: NoPlace,
        now: Instant,
    ) -> (bool, &'static str, String) {
        let (failure, reason) = match failure {
            Failure::Error => (failure, SCHEDULER_ERROR),
            Failure::Rejected(_) => (Failure::Rejected(self.gang_plugin(&case.members)), UNSCHEDULABLE),
        };
        for pod in &case.members {
            self.decide_rejected(pod.clone(), NoPlace::new(failure, message.clone()), now);
        }
        (false, reason, message)
    }

    fn decide_rejected(&mut self, pod: Arc<PodInfo>, no_place: NoPlace, now: Instant) {
        let decision = self.reject(pod, no_place, now);
        self.decided.push_back(decision);
    }
}

// === impl Case, Trial ===

impl Case<'_> {
    fn is_enough(&self, trial: &Trial) -> bool {
        !trial.placed.is_empty() && self.scheduled.len() + trial.placed.len() >= self.terms.min_count
    }
}

impl Trial {
    fn victims(&self) -> HashSet<Str> {
        let nominations =
            self.placed.iter().filter_map(|placed| Some(&placed.preemption.as_ref()?.0.nomination));
        let victims = nominations.flat_map(|nomination| match nomination {
            Nomination::Make { victims, .. } => victims.as_slice(),
            _ => &[],
        });
        victims.map(|victim| victim.uid().clone()).collect()
    }

    /// Who rejected some member, or would without evictions.
    fn rejectors(&self) -> PluginSet {
        let preempting = self.placed.iter().filter_map(|placed| Some(&placed.preemption.as_ref()?.0));
        let all = self.rejected.iter().map(|(_, no_place)| no_place).chain(preempting);
        all.fold(PluginSet::default(), |set, no_place| match no_place.failure {
            Failure::Rejected(rejectors) => set.or(rejectors),
            Failure::Error => set,
        })
    }
}

fn no_placement(count: usize) -> String {
    format!("0/{count} placements are available, first placement status: {UNSCHEDULABLE_GROUP}")
}

/// One profile has to place all pods of a group.
fn same_scheduler(members: &[Arc<PodInfo>]) -> Result<(), NoPlace> {
    let mut names = members.iter().map(|pod| &pod.pod.spec.scheduler_name);
    let Some(first) = names.next() else { return Ok(()) };
    match names.find(|name| *name != first) {
        None => Ok(()),
        Some(other) => {
            let why = format!(
                "all pods in a single pod group should have the same .spec.schedulerName set, got: {first:?} and \
                 {other:?}"
            );
            Err(NoPlace::new(Failure::Error, why))
        }
    }
}

#[cfg(test)]
mod tests;
