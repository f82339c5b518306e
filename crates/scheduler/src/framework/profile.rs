//! [`Profile`]: which plugins run at which point, in which order and with which weight.

use std::sync::Arc;

use apimachinery::Str;
use smallvec::SmallVec;

use super::profiles::ProfileId;
use super::*;

/// Position of a plugin in its profile's list.
pub type PluginId = u8;

/// A set of plugins of one profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PluginSet(u64);

/// Most score plugins with a normalization in one profile: what every node's entry holds room for. Upstream has six.
pub const NORMALIZED_MAX: usize = 6;

/// The highest total score a profile's weights may lead to: what a node's place in the ranking holds.
pub const TOTAL_MAX: i64 = i32::MAX as i64;

/// The plugins that serve pods of one `schedulerName`.
pub struct Profile {
    pub scheduler_name: Str,
    /// Its place among the [`Profiles`] it belongs to.
    pub(super) id: ProfileId,
    names: Vec<&'static str>,
    pub(crate) pre_enqueue: Vec<(PluginId, Arc<dyn PreEnqueue>)>,
    pub(crate) queue_sort: Arc<dyn QueueSort>,
    pub(crate) pre_filter: Vec<(PluginId, Arc<dyn PreFilter>)>,
    pub(crate) filter: Vec<(PluginId, Arc<dyn Filter>)>,
    pub(crate) post_filter: Vec<(PluginId, Arc<dyn PostFilter>)>,
    pub(crate) pre_score: Vec<(PluginId, Arc<dyn PreScore>)>,
    pub(crate) score: Vec<ScorePlugin>,
    pub(crate) reserve: Vec<(PluginId, Arc<dyn Reserve>)>,
    pub(crate) permit: Vec<(PluginId, Arc<dyn Permit>)>,
    pub(crate) pre_bind: Vec<(PluginId, Arc<dyn PreBind>)>,
    pub(crate) bind: Vec<(PluginId, Arc<dyn Bind>)>,
    enqueue: Vec<(PluginId, Arc<dyn EnqueueExtensions>)>,
    sign: Vec<Arc<dyn Sign>>,
    consult: Option<(PluginId, Arc<dyn Consult>)>,
}

/// A score plugin in its place.
pub struct ScorePlugin {
    pub id: PluginId,
    pub plugin: Arc<dyn Score>,
    pub weight: i64,
    /// Where its raw score stands in [`Scores::raw`]; `None` when it is not normalized.
    pub normalized: Option<usize>,
}

/// One node's scores: what is final, and what still depends on the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// Weighted sum over plugins without a normalization.
    pub fixed: i64,
    /// Raw scores of the others.
    pub raw: SmallVec<[i64; 2]>,
}

/// One plugin and the points it serves; made by [`Registration::of`].
pub struct Registration {
    name: &'static str,
    pre_enqueue: Option<Arc<dyn PreEnqueue>>,
    queue_sort: Option<Arc<dyn QueueSort>>,
    pre_filter: Option<Arc<dyn PreFilter>>,
    filter: Option<Arc<dyn Filter>>,
    post_filter: Option<Arc<dyn PostFilter>>,
    pre_score: Option<Arc<dyn PreScore>>,
    score: Option<Arc<dyn Score>>,
    weight: i64,
    reserve: Option<Arc<dyn Reserve>>,
    permit: Option<Arc<dyn Permit>>,
    pre_bind: Option<Arc<dyn PreBind>>,
    bind: Option<Arc<dyn Bind>>,
    enqueue: Option<Arc<dyn EnqueueExtensions>>,
    sign: Option<Arc<dyn Sign>>,
    consult: Option<Arc<dyn Consult>>,
}

/// A [`Registration`] in the making, which still knows the plugin's type.
pub struct Registering<P> {
    plugin: Arc<P>,
    registration: Registration,
}

/// Why a list of plugins makes no profile.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ProfileError {
    #[error("profile {profile:?}: plugin {name:?} is listed twice")]
    Duplicate { profile: Str, name: &'static str },
    #[error("profile {profile:?}: exactly one queue sort plugin is needed, {count} are listed")]
    QueueSort { profile: Str, count: usize },
    #[error("profile {profile:?}: at least one bind plugin is needed")]
    NoBind { profile: Str },
    #[error("profile {profile:?}: {count} plugins are listed; at most {max} are possible")]
    TooManyPlugins { profile: Str, count: usize, max: usize },
    #[error("profile {profile:?}: {count} score plugins normalize; at most {NORMALIZED_MAX} are possible")]
    TooManyNormalized { profile: Str, count: usize },
    #[error("profile {profile:?}: arguments of plugin {plugin:?}")]
    Arguments {
        profile: Str,
        plugin: &'static str,
        #[source]
        source: ArgumentError,
    },
    #[error("profile {profile:?}: total score of Score plugins could overflow")]
    Overflow { profile: Str },
    #[error("at least one profile is needed")]
    NoProfiles,
    #[error("two profiles are called {0:?}; pods find theirs by the name")]
    SameName(Str),
}

// === impl PluginSet ===

impl PluginSet {
    /// Plugins a profile can have.
    pub const CAPACITY: usize = 64;

    pub fn insert(&mut self, id: PluginId) {
        self.0 |= 1 << id;
    }

    pub fn contains(self, id: PluginId) -> bool {
        self.0 & (1 << id) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The plugins in either.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The plugins in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<PluginId> for PluginSet {
    fn from_iter<I: IntoIterator<Item = PluginId>>(ids: I) -> Self {
        let mut set = Self::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

// === impl Registration ===

impl Registration {
    pub fn of<P: Plugin>(plugin: P) -> Registering<P> {
        let registration = Self {
            name: plugin.name(),
            pre_enqueue: None,
            queue_sort: None,
            pre_filter: None,
            filter: None,
            post_filter: None,
            pre_score: None,
            score: None,
            weight: 1,
            reserve: None,
            permit: None,
            pre_bind: None,
            bind: None,
            enqueue: None,
            sign: None,
            consult: None,
        };
        Registering { plugin: Arc::new(plugin), registration }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the plugin can run at a point.
    pub fn serves(&self, point: Point) -> bool {
        match point {
            Point::PreEnqueue => self.pre_enqueue.is_some(),
            Point::QueueSort => self.queue_sort.is_some(),
            Point::PreFilter => self.pre_filter.is_some(),
            Point::Filter => self.filter.is_some(),
            Point::PostFilter => self.post_filter.is_some(),
            Point::PreScore => self.pre_score.is_some(),
            Point::Score => self.score.is_some(),
            Point::Reserve => self.reserve.is_some(),
            Point::Permit => self.permit.is_some(),
            Point::PreBind => self.pre_bind.is_some(),
            Point::Bind => self.bind.is_some(),
        }
    }

    /// How much its score counts; 1 unless said.
    pub fn weighing(self, weight: i64) -> Self {
        Self { weight, ..self }
    }
}

impl<P: Plugin> Registering<P> {
    pub fn pre_enqueue(mut self) -> Self
    where
        P: PreEnqueue,
    {
        self.registration.pre_enqueue = Some(self.plugin.clone());
        self.registration.enqueue = Some(self.plugin.clone());
        self
    }

    pub fn queue_sort(mut self) -> Self
    where
        P: QueueSort,
    {
        self.registration.queue_sort = Some(self.plugin.clone());
        self
    }

    pub fn pre_filter(mut self) -> Self
    where
        P: PreFilter,
    {
        self.registration.pre_filter = Some(self.plugin.clone());
        self
    }

    pub fn filter(mut self) -> Self
    where
        P: Filter,
    {
        self.registration.filter = Some(self.plugin.clone());
        self.registration.enqueue = Some(self.plugin.clone());
        self.registration.sign = Some(self.plugin.clone());
        self
    }

    pub fn post_filter(mut self) -> Self
    where
        P: PostFilter,
    {
        self.registration.post_filter = Some(self.plugin.clone());
        self
    }

    pub fn pre_score(mut self) -> Self
    where
        P: PreScore,
    {
        self.registration.pre_score = Some(self.plugin.clone());
        self
    }

    pub fn score(mut self) -> Self
    where
        P: Score,
    {
        self.registration.score = Some(self.plugin.clone());
        self.registration.sign = Some(self.plugin.clone());
        self
    }

    pub fn reserve(mut self) -> Self
    where
        P: Reserve,
    {
        self.registration.reserve = Some(self.plugin.clone());
        self
    }

    pub fn permit(mut self) -> Self
    where
        P: Permit,
    {
        self.registration.permit = Some(self.plugin.clone());
        self.registration.enqueue = Some(self.plugin.clone());
        self
    }

    pub fn pre_bind(mut self) -> Self
    where
        P: PreBind,
    {
        self.registration.pre_bind = Some(self.plugin.clone());
        self
    }

    pub fn bind(mut self) -> Self
    where
        P: Bind,
    {
        self.registration.bind = Some(self.plugin.clone());
        self
    }

    /// It is asked about the nodes of pods.
    pub fn consult(mut self) -> Self
    where
        P: Consult,
    {
        self.registration.consult = Some(self.plugin.clone());
        self.registration.enqueue = Some(self.plugin.clone());
        self.registration.sign = Some(self.plugin.clone());
        self
    }

    pub fn done(self) -> Registration {
        self.registration
    }
}

// === impl Profile ===

impl Profile {
    /// Makes a profile of plugins which run, in their order, wherever they can.
    pub fn new(scheduler_name: &str, plugins: Vec<Registration>) -> Result<Self, ProfileError> {
        let mut everywhere = Arrangement::default();
        for point in Point::ALL {
            let serving = (0..plugins.len()).filter(|&at| plugins[at].serves(point));
            everywhere.set(point, serving.collect());
        }
        Self::arranged(scheduler_name, plugins, &everywhere)
    }

    /// Makes a profile of plugins which run where, and in the order in which, the arrangement has them.
    pub fn arranged(
        scheduler_name: &str,
        plugins: Vec<Registration>,
        arrangement: &Arrangement,
    ) -> Result<Self, ProfileError> {
        let profile = || Str::from(scheduler_name);
        check_names(&profile(), &plugins)?;
        let at = Arranged { plugins: &plugins, arrangement };
        let mut sorters = at.point(Point::QueueSort, |plugin| plugin.queue_sort.clone());
        let queue_sort = match (sorters.pop(), sorters.len()) {
            (Some((_, only)), 0) => only,
            (last, rest) => {
                let count = rest + usize::from(last.is_some());
                return Err(ProfileError::QueueSort { profile: profile(), count });
            }
        };
        let score = at.scores();
        let normalized = score.iter().filter(|score| score.normalized.is_some()).count();
        if normalized > NORMALIZED_MAX {
            return Err(ProfileError::TooManyNormalized { profile: profile(), count: normalized });
        }
        let made = Self {
            scheduler_name: profile(),
            id: 0,
            names: plugins.iter().map(|plugin| plugin.name).collect(),
            pre_enqueue: at.point(Point::PreEnqueue, |plugin| plugin.pre_enqueue.clone()),
            queue_sort,
            pre_filter: at.point(Point::PreFilter, |plugin| plugin.pre_filter.clone()),
            filter: at.point(Point::Filter, |plugin| plugin.filter.clone()),
            post_filter: at.point(Point::PostFilter, |plugin| plugin.post_filter.clone()),
            pre_score: at.point(Point::PreScore, |plugin| plugin.pre_score.clone()),
            score,
            reserve: at.point(Point::Reserve, |plugin| plugin.reserve.clone()),
            permit: at.point(Point::Permit, |plugin| plugin.permit.clone()),
            pre_bind: at.point(Point::PreBind, |plugin| plugin.pre_bind.clone()),
            bind: at.point(Point::Bind, |plugin| plugin.bind.clone()),
            enqueue: (0..)
                .zip(&plugins)
                .filter_map(|(id, plugin)| Some((id, plugin.enqueue.clone()?)))
                .collect(),
            sign: plugins.iter().filter_map(|plugin| plugin.sign.clone()).collect(),
            consult: (0..).zip(&plugins).find_map(|(id, plugin)| Some((id, plugin.consult.clone()?))),
        };
        if made.bind.is_empty() {
            return Err(ProfileError::NoBind { profile: profile() });
        }
        if made.checked_max_total().is_none_or(|total| total > TOTAL_MAX) {
            return Err(ProfileError::Overflow { profile: profile() });
        }
        Ok(made)
    }

    pub fn id(&self) -> ProfileId {
        self.id
    }

    pub fn plugin_name(&self, id: PluginId) -> &'static str {
        self.names.get(id as usize).copied().unwrap_or_default()
    }

    /// The plugin of a name, if the profile has it.
    pub fn plugin_id(&self, name: &str) -> Option<PluginId> {
        (0..).zip(&self.names).find(|(_, own)| **own == name).map(|(id, _)| id)
    }

    /// The first plugin that does not let the pod into the active queue.
    pub fn gate(&self, pod: &PodInfo) -> Option<PluginId> {
        self.pre_enqueue.iter().find(|(_, plugin)| plugin.pre_enqueue(pod).is_err()).map(|(id, _)| *id)
    }

    /// Whether some plugin has work to do before the pod can be bound.
    pub fn needs_pre_bind(&self, state: &CycleState, pod: &PodInfo) -> bool {
        self.pre_bind.iter().any(|(_, plugin)| plugin.is_needed(state, pod))
    }

    /// Tells plugins that a pod, or its node, is gone before it is bound.
    pub fn wake(&self, uid: &str) {
        self.pre_bind.iter().for_each(|(_, plugin)| plugin.wake(uid));
    }

    /// What plugins look up besides what they wait for.
    pub fn reads(&self) -> impl Iterator<Item = &GroupVersionResource> {
        self.enqueue.iter().flat_map(|(_, plugin)| plugin.reads())
    }

    /// Who is to be asked about the pod's nodes.
    pub fn consult_about(&self, pod: &PodInfo) -> Option<(PluginId, &Arc<dyn Consult>)> {
        self.consult.as_ref().filter(|(_, plugin)| plugin.concerns(pod)).map(|(id, plugin)| (*id, plugin))
    }

    /// Who is to be asked whom to evict for the pod.
    pub fn consult_about_preemption(&self, pod: &PodInfo) -> Option<&Arc<dyn Consult>> {
        self.consult.as_ref().map(|(_, plugin)| plugin).filter(|plugin| plugin.concerns_preemption(pod))
    }

    /// Whether some plugin waits for any of these events. One that takes whatever happens asks for none of them: an
    /// API server need not have all resources.
    pub fn awaits(&self, kinds: EventSet) -> bool {
        let mut awaited = self.enqueue.iter().map(|(_, plugin)| plugin.events());
        awaited.any(|events| events != EventSet::ANY && events.intersects(kinds))
    }

    /// Hands an object's event to the plugins that wait for its kind.
    pub fn on_object(&self, event: &Event<'_>) {
        self.waiting_for(event.kinds()).for_each(|plugin| plugin.on_object(event));
    }

    /// Hands all objects of a resource to the plugins that wait for its kind.
    pub fn on_objects(&self, watched: &Watched, objects: &[Arc<Object>]) {
        self.waiting_for(watched.events).for_each(|plugin| plugin.on_objects(&watched.resource, objects));
    }

    fn waiting_for(&self, kinds: EventSet) -> impl Iterator<Item = &Arc<dyn EnqueueExtensions>> {
        self.enqueue.iter().map(|(_, plugin)| plugin).filter(move |plugin| plugin.events().intersects(kinds))
    }

    /// The plugins that wait for any of these events.
    pub fn interested_in(&self, kinds: EventSet) -> PluginSet {
        self.enqueue
            .iter()
            .filter(|(_, plugin)| plugin.events().intersects(kinds))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whether some plugin among `rejectors` thinks that the event may help the pod.
    pub fn is_worth_requeuing(
        &self,
        pod: &PodInfo,
        rejectors: PluginSet,
        event: &Event<'_>,
        kinds: EventSet,
    ) -> bool {
        self.enqueue.iter().any(|(id, plugin)| {
            rejectors.contains(*id)
                && plugin.events().intersects(kinds)
                && plugin.hint(pod, event) == Hint::Queue
        })
    }

    /// Signs a pod; an error when its results cannot be shared.
    pub fn sign(
        &self,
        pod: &PodInfo,
        cluster: &Cache,
        signature: &mut Signature,
    ) -> Result<(), NotShareable> {
        signature.clear();
        signature.number(self.id as i64);
        if cluster.has_nominations() {
            // A nominated pod holds its room against lower priorities, and it alone may use it.
            if cluster.nomination(pod.uid()).is_some() {
                return Err(NotShareable);
            }
            signature.fragment(Fragment::Priority, |out| out.number(pod.priority().into()));
        }
        self.sign.iter().try_for_each(|plugin| plugin.sign(pod, cluster, signature))
    }

    /// The names of the plugins of a point in order, with the weights of scores.
    #[cfg(test)]
    pub fn at(&self, point: Point) -> Vec<(&'static str, i64)> {
        fn ids<T: ?Sized>(plugins: &[(PluginId, Arc<T>)]) -> Vec<(PluginId, i64)> {
            plugins.iter().map(|(id, _)| (*id, 0)).collect()
        }
        let ids = match point {
            Point::PreEnqueue => ids(&self.pre_enqueue),
            Point::QueueSort => return vec![(self.queue_sort.name(), 0)],
            Point::PreFilter => ids(&self.pre_filter),
            Point::Filter => ids(&self.filter),
            Point::PostFilter => ids(&self.post_filter),
            Point::PreScore => ids(&self.pre_score),
            Point::Score => self.score.iter().map(|score| (score.id, score.weight)).collect(),
            Point::Reserve => ids(&self.reserve),
            Point::Permit => ids(&self.permit),
            Point::PreBind => ids(&self.pre_bind),
            Point::Bind => ids(&self.bind),
        };
        ids.into_iter().map(|(id, weight)| (self.plugin_name(id), weight)).collect()
    }

    /// The highest total score a node can have.
    pub fn max_total(&self) -> i64 {
        self.score.iter().map(|score| score.weight * MAX_NODE_SCORE).sum()
    }

    fn checked_max_total(&self) -> Option<i64> {
        let highest = |score: &ScorePlugin| score.weight.checked_mul(MAX_NODE_SCORE);
        self.score.iter().try_fold(0_i64, |total, score| total.checked_add(highest(score)?))
    }

    /// Runs the filters that were not skipped, in order, up to the first refusal.
    pub fn run_filters(
        &self,
        skip: PluginSet,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), (PluginId, Status)> {
        for (id, plugin) in &self.filter {
            if !skip.contains(*id) {
                plugin.filter(state, pod, node).map_err(|status| (*id, status))?;
            }
        }
        Ok(())
    }

    /// As [`Profile::run_filters`], for a node that some pods are gone from.
    pub fn run_filters_without(
        &self,
        gone: &[Arc<PodInfo>],
        cluster: &Cache,
        skip: PluginSet,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), (PluginId, Status)> {
        for (id, plugin) in self.filter.iter().filter(|(id, _)| !skip.contains(*id)) {
            plugin.filter_without(gone, cluster, state, pod, node).map_err(|status| (*id, status))?;
        }
        Ok(())
    }

    /// Scores a feasible node with the plugins that were not skipped.
    pub fn run_scores(&self, skip: PluginSet, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Scores {
        let mut scores = Scores::default();
        for score in &self.score {
            let value = if skip.contains(score.id) { 0 } else { score.plugin.score(state, pod, node) };
            match score.normalized {
                None => scores.fixed += score.weight * value,
                Some(_) => scores.raw.push(value),
            }
        }
        scores
    }
}

/// Plugins with where they run.
struct Arranged<'a> {
    plugins: &'a [Registration],
    arrangement: &'a Arrangement,
}

impl Arranged<'_> {
    fn point<T: ?Sized>(
        &self,
        point: Point,
        serves: impl Fn(&Registration) -> Option<Arc<T>>,
    ) -> Vec<(PluginId, Arc<T>)> {
        let order = self.arrangement.at(point).iter();
        order.filter_map(|&at| Some((at as PluginId, serves(self.plugins.get(at)?)?))).collect()
    }

    fn scores(&self) -> Vec<ScorePlugin> {
        let mut next_normalized = 0..;
        let scores = self.point(Point::Score, |plugin| plugin.score.clone()).into_iter();
        scores
            .map(|(id, plugin)| {
                let normalized = match plugin.normalization() {
                    Normalization::None => None,
                    Normalization::By(_) => next_normalized.next(),
                };
                ScorePlugin { id, plugin, weight: self.plugins[id as usize].weight, normalized }
            })
            .collect()
    }
}

fn check_names(profile: &Str, plugins: &[Registration]) -> Result<(), ProfileError> {
    if plugins.len() > PluginSet::CAPACITY {
        let (count, max) = (plugins.len(), PluginSet::CAPACITY);
        return Err(ProfileError::TooManyPlugins { profile: profile.clone(), count, max });
    }
    let twice = |at: usize| plugins[..at].iter().any(|earlier| earlier.name == plugins[at].name);
    match (0..plugins.len()).find(|&at| twice(at)) {
        Some(at) => Err(ProfileError::Duplicate { profile: profile.clone(), name: plugins[at].name }),
        None => Ok(()),
    }
}
