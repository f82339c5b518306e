//! Hot path: [`Shortlist`], every node's answer for pods of one signature, kept ready and repaired.
//!
//! Owns: filter and score results by node, the ranking of feasible nodes, the histogram of refusals. Never touches:
//! the queue, assumptions, the API.
//!
//! Filtering and scoring all nodes is the cost of the first pod of a signature. Then one pod lands on one node, and
//! only that node's answer has changed: [`Shortlist::refresh`] asks the cache what changed and re-evaluates that. Where
//! answers depend on pods on other nodes, too, the plugin keeps up with what changed and says whose answer moved.
//!
//! ```text
//!     slot      0      1      2      3          bucket 812: [0, 3]     best: a random one of the highest bucket
//!     answer    812    cpu!   790    812               790: [2]        refusals: "Insufficient cpu" × 1
//! ```
//!
//! Why buckets and not a heap? Totals are small integers (at most the sum of weights × 100), nodes move between them
//! in O(1), and upstream's random choice among equals falls out of it. Only a profile of large weights has them in a map.
//!
//! **Invariant (shortlist-exact):** after a refresh every answer equals what evaluating the node anew would give; a
//! property test compares the two.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    Affected, CycleState, Extent, LEFT_OUT, Normalization, PluginId, PluginSet, Profile, Relevance, Scores,
    Status,
};
use crate::pod::PodInfo;

/// The answers of all nodes for pods of one signature.
pub struct Shortlist {
    /// The pod that the answers were worked out with; those who share them are alike in all that matters.
    pod: Arc<PodInfo>,
    state: CycleState,
    skip_filter: PluginSet,
    skip_score: PluginSet,
    /// The only nodes there are for these pods; `None` is all.
    within: Option<Arc<[Slot]>>,
    /// Those of them that `PreFilter` left.
    only: Option<Vec<Slot>>,
    /// Plugins that restricted the nodes.
    restricted_by: PluginSet,
    generation: u64,
    epoch: (u64, u64),
    answers: Vec<Answer>,
    refusals: Refusals,
    extents: Vec<Counted>,
    ranking: Ranking,
}

/// A node's answer.
#[derive(Clone, Debug, Default, PartialEq)]
enum Answer {
    /// No such node, or `PreFilter` left it out.
    #[default]
    Absent,
    /// Index of a refusal.
    Refused(u32),
    Feasible(Scores),
}

/// Distinct refusals with the number of nodes that gave each. There are a handful, whatever the number of nodes.
#[derive(Debug, Default)]
struct Refusals {
    distinct: Vec<Refusal>,
}

/// Why nodes refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub plugin: PluginId,
    pub status: Status,
    pub nodes: usize,
}

/// An extent with the number of nodes at either end, so that most changes need no scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    extent: Extent,
    at_min: usize,
    at_max: usize,
}

/// Slots by total score.
#[derive(Debug, Default)]
struct Ranking {
    buckets: Buckets,
    /// The highest total there can be.
    max: usize,
    /// Where a slot stands: its bucket and the position in it.
    places: Vec<Option<(u32, u32)>>,
    len: usize,
}

/// Totals up to here have a bucket each: 400 kB.
const DENSE_MAX: usize = 1 << 14;

/// The slots of each total.
#[derive(Debug)]
enum Buckets {
    Dense {
        buckets: Vec<Vec<Slot>>,
        /// No higher bucket has slots.
        top: usize,
    },
    /// Those that have slots.
    Sparse(BTreeMap<usize, Vec<Slot>>),
}

// === impl Answer ===

impl Answer {
    fn scores(&self) -> Option<&Scores> {
        match self {
            Self::Feasible(scores) => Some(scores),
            Self::Absent | Self::Refused(_) => None,
        }
    }
}

// === impl Shortlist ===

impl Shortlist {
    /// Asks every node. An error when a `PreFilter` plugin rejects the pod for all of them.
    pub fn new(profile: &Profile, pod: Arc<PodInfo>, cache: &Cache) -> Result<Self, (PluginId, Status)> {
        Self::within(None, profile, pod, cache)
    }

    /// Asks these nodes, as if there were no others.
    pub fn within(
        within: Option<Arc<[Slot]>>,
        profile: &Profile,
        pod: Arc<PodInfo>,
        cache: &Cache,
    ) -> Result<Self, (PluginId, Status)> {
        let mut made = Self {
            within,
            pod,
            state: CycleState::default(),
            skip_filter: PluginSet::default(),
            skip_score: PluginSet::default(),
            only: None,
            restricted_by: PluginSet::default(),
            generation: 0,
            epoch: (0, 0),
            answers: Vec::new(),
            refusals: Refusals::default(),
            extents: Vec::new(),
            ranking: Ranking::default(),
        };
        made.build(profile, cache)?;
        Ok(made)
    }

    /// Asks every node for another pod, in the memory of this list.
    pub fn renew(
        &mut self,
        profile: &Profile,
        pod: Arc<PodInfo>,
        cache: &Cache,
    ) -> Result<(), (PluginId, Status)> {
        self.pod = pod;
        self.state = CycleState::default();
        self.build(profile, cache)
    }

    /// Brings the answers up to date, for a pod of the same signature.
    pub fn refresh(
        &mut self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        cache: &Cache,
    ) -> Result<(), (PluginId, Status)> {
        // Plugins compare others with this pod; what the first one of the signature was alike in may have changed.
        self.pod = pod.clone();
        if self.epoch != cache.epoch() {
            return self.build(profile, cache);
        }
        if self.generation == cache.generation() {
            return Ok(());
        }
        let changed: Vec<Slot> = cache.changed_since(self.generation).collect();
        self.generation = cache.generation();
        self.answers.resize(cache.slot_count(), Answer::Absent);
        self.ranking.places.resize(cache.slot_count(), None);
        let Affected::Nodes(mut asked) = self.keep_up_filters(profile, cache, &changed) else {
            return self.build(profile, cache);
        };
        let affected = self.keep_up_scores(profile, cache, &changed);
        let (mut rerank, mut feasible_moved) = (false, false);
        asked.extend(changed);
        asked.sort_unstable();
        asked.dedup();
        for slot in asked {
            let was_feasible = self.is_feasible(slot);
            rerank |= self.repair(profile, cache, slot);
            feasible_moved |= was_feasible != self.is_feasible(slot);
        }
        let scores_depend = feasible_moved && self.scores_depend_on_feasible(profile, cache);
        match affected {
            Affected::Nodes(slots) if !scores_depend => {
                for slot in slots {
                    rerank |= self.rescore(profile, cache, slot);
                }
                if rerank {
                    self.rank_all(profile);
                }
            }
            _ => {
                let feasible: Vec<Slot> = self.feasible().collect();
                self.score_all(profile, cache, feasible);
            }
        }
        Ok(())
    }

    fn keep_up_filters(&mut self, profile: &Profile, cache: &Cache, changed: &[Slot]) -> Affected {
        let mut asked = Vec::new();
        for (_, plugin) in profile.pre_filter.iter().filter(|(id, _)| !self.skip_filter.contains(*id)) {
            match plugin.keep_up(&mut self.state, &self.pod, cache, changed) {
                Affected::Nodes(slots) => asked.extend(slots),
                Affected::EveryNode => return Affected::EveryNode,
            }
        }
        Affected::Nodes(asked)
    }

    fn keep_up_scores(&mut self, profile: &Profile, cache: &Cache, changed: &[Slot]) -> Affected {
        let mut rescored = Vec::new();
        for (_, plugin) in profile.pre_score.iter().filter(|(id, _)| !self.skip_score.contains(*id)) {
            match plugin.keep_up(&mut self.state, &self.pod, cache, changed) {
                Affected::Nodes(slots) => rescored.extend(slots),
                Affected::EveryNode => return Affected::EveryNode,
            }
        }
        Affected::Nodes(rescored)
    }

    fn scores_depend_on_feasible(&self, profile: &Profile, cache: &Cache) -> bool {
        let mut asked = profile.pre_score.iter().filter(|(id, _)| !self.skip_score.contains(*id));
        asked.any(|(_, plugin)| plugin.depends_on(&self.state, cache, &mut self.feasible()))
    }

    /// The best node: one of those with the highest total, chosen by `random`. `None` when no node is feasible.
    pub fn best(&mut self, random: u64) -> Option<Slot> {
        let bucket = self.ranking.highest()?;
        Some(bucket[(random % bucket.len() as u64) as usize])
    }

    /// The feasible nodes.
    pub fn feasible(&self) -> impl Iterator<Item = Slot> {
        (0..).zip(&self.answers).filter(|(_, answer)| answer.scores().is_some()).map(|(slot, _)| slot)
    }

    /// Takes note that a feasible node is refused after all. It is one of a pod that shares nothing, and lasts until
    /// the node is asked again.
    pub fn refuse(&mut self, slot: Slot, plugin: PluginId, status: Status) {
        if self.is_feasible(slot) {
            self.answers[slot as usize] = Answer::Refused(self.refusals.index_of(plugin, status));
            self.count_refusal(slot);
            self.ranking.take(slot);
        }
    }

    /// As [`Shortlist::best`], with what `extra` adds to the totals.
    pub fn best_with(&self, random: u64, extra: impl Fn(Slot) -> i64) -> Option<Slot> {
        let totals = (0..).zip(&self.ranking.places).filter_map(|(slot, place)| {
            place.map(|(total, _)| (i64::from(total).saturating_add(extra(slot)), slot))
        });
        let totals: Vec<(i64, Slot)> = totals.collect();
        let highest = totals.iter().map(|(total, _)| *total).max()?;
        let best: Vec<Slot> =
            totals.into_iter().filter(|(total, _)| *total == highest).map(|(_, slot)| slot).collect();
        best.get((random % best.len() as u64) as usize).copied()
    }

    /// All nodes with the highest total.
    #[cfg(test)]
    pub fn best_all(&mut self) -> Vec<Slot> {
        let mut best = self.ranking.highest().map(<[Slot]>::to_vec).unwrap_or_default();
        best.sort_unstable();
        best
    }

    /// Total scores of all feasible nodes.
    #[cfg(test)]
    fn totals(&self) -> BTreeMap<Slot, i64> {
        let places = (0..).zip(&self.ranking.places);
        places.filter_map(|(slot, place)| place.map(|(bucket, _)| (slot, i64::from(bucket)))).collect()
    }

    /// What plugins found out about the pod before they were asked about nodes.
    pub fn state(&self) -> &CycleState {
        &self.state
    }

    pub fn is_feasible(&self, slot: Slot) -> bool {
        matches!(self.answers.get(slot as usize), Some(Answer::Feasible(_)))
    }

    pub fn feasible_count(&self) -> usize {
        self.ranking.len
    }

    /// How many nodes were asked.
    pub fn asked_count(&self) -> usize {
        self.ranking.len + self.refusals.distinct.iter().map(|refusal| refusal.nodes).sum::<usize>()
    }

    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.refusals.distinct.iter().filter(|refusal| refusal.nodes > 0)
    }

    /// Nodes that refused, with why.
    pub fn refused(&self) -> impl Iterator<Item = (Slot, &Refusal)> {
        (0..).zip(&self.answers).filter_map(|(slot, answer)| match answer {
            Answer::Refused(index) => Some((slot, &self.refusals.distinct[*index as usize])),
            _ => None,
        })
    }

    /// Plugins that left nodes out before these were asked.
    pub fn restricted_by(&self) -> PluginSet {
        self.restricted_by
    }

    /// Whether `pod`, which is of this signature, would fit the node in `slot` if it were as `node` describes: without
    /// the pods that are `gone`.
    pub fn try_filters(
        &self,
        profile: &Profile,
        pod: &PodInfo,
        cache: &Cache,
        slot: Slot,
        node: &NodeInfo,
        gone: &[Arc<PodInfo>],
    ) -> Result<(), Status> {
        let run = |node: &NodeInfo| {
            profile.run_filters_without(gone, cache, self.skip_filter, &self.state, pod, node)
        };
        self.also_crowded(pod, cache, slot, node, run).map_err(|(_, status)| status)
    }

    fn filter_as(
        &self,
        profile: &Profile,
        pod: &PodInfo,
        cache: &Cache,
        slot: Slot,
        node: &NodeInfo,
    ) -> Result<(), (PluginId, Status)> {
        let run = |node: &NodeInfo| profile.run_filters(self.skip_filter, &self.state, pod, node);
        self.also_crowded(pod, cache, slot, node, run)
    }

    /// Also with the pods that are nominated for the node and not of lower priority, as if they were there. And
    /// without, because a filter may be satisfied only by their presence, which is not certain.
    fn also_crowded(
        &self,
        pod: &PodInfo,
        cache: &Cache,
        slot: Slot,
        node: &NodeInfo,
        run: impl Fn(&NodeInfo) -> Result<(), (PluginId, Status)>,
    ) -> Result<(), (PluginId, Status)> {
        if cache.has_nominations() {
            let stronger =
                |other: &&Arc<PodInfo>| other.priority() >= pod.priority() && other.uid() != pod.uid();
            let nominated: Vec<_> = cache.nominated_on(slot).filter(stronger).cloned().collect();
            if !nominated.is_empty() {
                let mut crowded = node.clone();
                nominated.into_iter().for_each(|other| crowded.add_pod(other));
                run(&crowded)?;
            }
        }
        run(node)
    }

    fn build(&mut self, profile: &Profile, cache: &Cache) -> Result<(), (PluginId, Status)> {
        self.generation = cache.generation();
        self.epoch = cache.epoch();
        self.prepare_filters(profile, cache)?;
        self.refusals = Refusals::default();
        self.answers.clear();
        self.answers.resize(cache.slot_count(), Answer::Absent);
        let feasible = self.filter_all(profile, cache);
        self.score_all(profile, cache, feasible);
        Ok(())
    }

    fn score_all(&mut self, profile: &Profile, cache: &Cache, feasible: Vec<Slot>) {
        self.prepare_scores(profile, cache, &feasible);
        for slot in feasible {
            if let Some(node) = cache.node(slot) {
                let scores = profile.run_scores(self.skip_score, &self.state, &self.pod, node);
                self.answers[slot as usize] = Answer::Feasible(scores);
            }
        }
        self.rank_all(profile);
    }

    /// Notes the refusals and returns the other nodes.
    fn filter_all(&mut self, profile: &Profile, cache: &Cache) -> Vec<Slot> {
        let asked: Vec<Slot> = match &self.only {
            None => cache.nodes().map(|(slot, _)| slot).collect(),
            Some(only) => only.clone(),
        };
        let mut feasible = Vec::with_capacity(asked.len());
        for slot in asked {
            let Some(node) = cache.node(slot) else { continue };
            match self.filter_as(profile, &self.pod, cache, slot, node) {
                Ok(()) => feasible.push(slot),
                Err((plugin, status)) => {
                    self.answers[slot as usize] = Answer::Refused(self.refusals.index_of(plugin, status));
                    self.count_refusal(slot);
                }
            }
        }
        feasible
    }

    /// Runs `PreFilter`.
    fn prepare_filters(&mut self, profile: &Profile, cache: &Cache) -> Result<(), (PluginId, Status)> {
        self.skip_filter = PluginSet::default();
        self.only = self.within.as_deref().map(<[Slot]>::to_vec);
        self.restricted_by = PluginSet::default();
        for (id, plugin) in &profile.pre_filter {
            let relevance = plugin.pre_filter(&mut self.state, &self.pod, cache);
            match relevance.map_err(|status| (*id, status))? {
                Relevance::EveryNode => {}
                Relevance::Skip => self.skip_filter.insert(*id),
                Relevance::OnlyNodes(names) => {
                    self.restricted_by.insert(*id);
                    let slots: Vec<Slot> = names.iter().filter_map(|name| cache.slot(name)).collect();
                    self.only = Some(match self.only.take() {
                        None => slots,
                        Some(before) => before.into_iter().filter(|slot| slots.contains(slot)).collect(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Runs `PreScore`.
    fn prepare_scores(&mut self, profile: &Profile, cache: &Cache, feasible: &[Slot]) {
        self.skip_score = PluginSet::default();
        for (id, plugin) in &profile.pre_score {
            if plugin.pre_score(&mut self.state, &self.pod, cache, feasible) == Relevance::Skip {
                self.skip_score.insert(*id);
            }
        }
    }

    fn evaluate(&mut self, profile: &Profile, cache: &Cache, slot: Slot, node: &NodeInfo) -> Answer {
        match self.filter_as(profile, &self.pod, cache, slot, node) {
            Ok(()) => Answer::Feasible(profile.run_scores(self.skip_score, &self.state, &self.pod, node)),
            Err((plugin, status)) => Answer::Refused(self.refusals.index_of(plugin, status)),
        }
    }

    fn count_refusal(&mut self, slot: Slot) {
        if let Answer::Refused(index) = self.answers[slot as usize] {
            self.refusals.distinct[index as usize].nodes += 1;
        }
    }

    /// Re-evaluates one node; true when others' totals depend on the change.
    fn repair(&mut self, profile: &Profile, cache: &Cache, slot: Slot) -> bool {
        if self.only.as_ref().is_some_and(|only| !only.contains(&slot)) {
            return false;
        }
        let answer =
            cache.node(slot).map_or(Answer::Absent, |node| self.evaluate(profile, cache, slot, node));
        self.replace(profile, slot, answer)
    }

    /// Scores a feasible node again; true as for [`Shortlist::repair`].
    fn rescore(&mut self, profile: &Profile, cache: &Cache, slot: Slot) -> bool {
        let Some(node) = cache.node(slot).filter(|_| self.is_feasible(slot)) else { return false };
        let scores = profile.run_scores(self.skip_score, &self.state, &self.pod, node);
        self.replace(profile, slot, Answer::Feasible(scores))
    }

    fn replace(&mut self, profile: &Profile, slot: Slot, answer: Answer) -> bool {
        let old = std::mem::replace(&mut self.answers[slot as usize], answer);
        if let Answer::Refused(index) = old {
            self.refusals.distinct[index as usize].nodes -= 1;
        }
        self.count_refusal(slot);
        let moved = self.move_extents(&old, slot);
        if !moved {
            match &self.answers[slot as usize] {
                Answer::Feasible(scores) => {
                    let total = total(profile, &self.extents, scores, self.skip_score);
                    self.ranking.put(slot, total);
                }
                _ => self.ranking.take(slot),
            }
        }
        moved
    }

    /// Counts one answer out and its successor in; true when an extent is another now, or unknown.
    fn move_extents(&mut self, old: &Answer, slot: Slot) -> bool {
        let new = &self.answers[slot as usize];
        if old == new {
            return false;
        }
        let empty = Scores::default();
        let (old, new) = (old.scores().unwrap_or(&empty), new.scores().unwrap_or(&empty));
        if self.extents.is_empty() {
            // Nothing was feasible before; with normalized scores the extents must be found first.
            return !new.raw.is_empty();
        }
        let mut moved = false;
        for (index, counted) in self.extents.iter_mut().enumerate() {
            moved |= counted.replace(old.raw.get(index).copied(), new.raw.get(index).copied());
        }
        moved
    }

    fn rank_all(&mut self, profile: &Profile) {
        self.extents = extents(&self.answers);
        self.ranking.clear(profile.max_total() as usize, self.answers.len());
        for (slot, answer) in (0..).zip(&self.answers) {
            if let Some(scores) = answer.scores() {
                self.ranking.put(slot, total(profile, &self.extents, scores, self.skip_score));
            }
        }
    }
}

fn total(profile: &Profile, extents: &[Counted], scores: &Scores, skip: PluginSet) -> usize {
    let mut total = scores.fixed;
    for plugin in &profile.score {
        let Some(index) = plugin.normalized.filter(|_| !skip.contains(plugin.id)) else { continue };
        if let (Normalization::By(normalize), Some(counted), Some(&raw)) =
            (plugin.plugin.normalization(), extents.get(index), scores.raw.get(index))
            && raw != LEFT_OUT
        {
            total += plugin.weight * normalize(raw, counted.extent);
        }
    }
    usize::try_from(total).unwrap_or(0)
}

fn extents(answers: &[Answer]) -> Vec<Counted> {
    let mut extents: Vec<Counted> = Vec::new();
    for scores in answers.iter().filter_map(Answer::scores) {
        extents.resize(scores.raw.len(), Counted::EMPTY);
        extents.iter_mut().zip(&scores.raw).for_each(|(counted, &raw)| _ = counted.add(raw));
    }
    extents
}

// === impl Counted ===

impl Counted {
    const EMPTY: Self = Self { extent: Extent { min: i64::MAX, max: i64::MIN }, at_min: 0, at_max: 0 };

    /// True when the extent has widened.
    fn add(&mut self, raw: i64) -> bool {
        let old = self.extent;
        if raw == LEFT_OUT {
            return false;
        }
        match raw.cmp(&old.min) {
            std::cmp::Ordering::Less => (self.extent.min, self.at_min) = (raw, 1),
            std::cmp::Ordering::Equal => self.at_min += 1,
            std::cmp::Ordering::Greater => {}
        }
        match raw.cmp(&old.max) {
            std::cmp::Ordering::Greater => (self.extent.max, self.at_max) = (raw, 1),
            std::cmp::Ordering::Equal => self.at_max += 1,
            std::cmp::Ordering::Less => {}
        }
        old != self.extent
    }

    /// True when the extent has changed or must be found anew.
    fn replace(&mut self, old: Option<i64>, new: Option<i64>) -> bool {
        if old == new {
            return false;
        }
        // First in, then out: a node that was alone at the end may have been replaced by an equal one.
        let widened = new.is_some_and(|raw| self.add(raw));
        let Some(old) = old.filter(|old| *old != LEFT_OUT) else { return widened };
        if old == self.extent.min {
            self.at_min -= 1;
        }
        if old == self.extent.max {
            self.at_max -= 1;
        }
        widened || self.at_min == 0 || self.at_max == 0
    }
}

// === impl Refusals ===

impl Refusals {
    fn index_of(&mut self, plugin: PluginId, status: Status) -> u32 {
        let known = self.distinct.iter().position(|own| own.plugin == plugin && own.status == status);
        let index = known.unwrap_or_else(|| {
            self.distinct.push(Refusal { plugin, status, nodes: 0 });
            self.distinct.len() - 1
        });
        index as u32
    }
}

// === impl Ranking ===

impl Ranking {
    fn clear(&mut self, max: usize, slots: usize) {
        self.buckets.clear(max);
        self.max = max;
        self.places.clear();
        self.places.resize(slots, None);
        self.len = 0;
    }

    /// Puts a slot where its total belongs. Totals above the highest possible count as the highest.
    fn put(&mut self, slot: Slot, total: usize) {
        let total = total.min(self.max);
        if matches!(self.places[slot as usize], Some((bucket, _)) if bucket as usize == total) {
            return;
        }
        self.take(slot);
        let bucket = self.buckets.at(total);
        self.places[slot as usize] = Some((total as u32, bucket.len() as u32));
        bucket.push(slot);
        self.len += 1;
    }

    fn take(&mut self, slot: Slot) {
        let Some((total, position)) = self.places[slot as usize].take() else { return };
        if let Some(moved) = self.buckets.remove(total as usize, position as usize) {
            self.places[moved as usize] = Some((total, position));
        }
        self.len -= 1;
    }

    fn highest(&mut self) -> Option<&[Slot]> {
        if self.len == 0 { None } else { self.buckets.highest() }
    }
}

// === impl Buckets ===

impl Default for Buckets {
    fn default() -> Self {
        Self::Dense { buckets: Vec::new(), top: 0 }
    }
}

impl Buckets {
    /// Empties all, in the memory that is there, for totals up to `max`.
    fn clear(&mut self, max: usize) {
        match self {
            Self::Dense { buckets, top } if max <= DENSE_MAX => {
                buckets.iter_mut().for_each(Vec::clear);
                buckets.resize(max + 1, Vec::new());
                *top = 0;
            }
            Self::Sparse(buckets) if max > DENSE_MAX => buckets.clear(),
            other if max > DENSE_MAX => *other = Self::Sparse(BTreeMap::new()),
            other => *other = Self::Dense { buckets: vec![Vec::new(); max + 1], top: 0 },
        }
    }

    /// The bucket to put a slot in.
    fn at(&mut self, total: usize) -> &mut Vec<Slot> {
        match self {
            Self::Dense { buckets, top } => {
                *top = (*top).max(total);
                &mut buckets[total]
            }
            Self::Sparse(buckets) => buckets.entry(total).or_default(),
        }
    }

    /// Takes the slot at a position out; the answer is the one that is there now.
    fn remove(&mut self, total: usize, position: usize) -> Option<Slot> {
        match self {
            Self::Dense { buckets, .. } => remove_at(&mut buckets[total], position),
            Self::Sparse(buckets) => {
                let bucket = buckets.get_mut(&total)?;
                let moved = remove_at(bucket, position);
                if bucket.is_empty() {
                    buckets.remove(&total);
                }
                moved
            }
        }
    }

    /// The slots of the highest total that has any; one must have.
    fn highest(&mut self) -> Option<&[Slot]> {
        match self {
            Self::Dense { buckets, top } => {
                while buckets[*top].is_empty() {
                    *top -= 1;
                }
                Some(&buckets[*top])
            }
            Self::Sparse(buckets) => buckets.last_key_value().map(|(_, bucket)| bucket.as_slice()),
        }
    }
}

fn remove_at(bucket: &mut Vec<Slot>, position: usize) -> Option<Slot> {
    bucket.swap_remove(position);
    bucket.get(position).copied()
}

#[cfg(test)]
mod tests;
