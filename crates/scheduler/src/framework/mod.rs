//! The extension points of the scheduler and what plugins see.
//!
//! Owns: the traits, [`Status`], [`CycleState`], [`Event`]s and [`Hint`]s, [`Signature`]s, [`Profiles`]
//! (which plugins run where, with which weight). Never touches: the API, clocks.
//!
//! ```text
//!  queue                 once per signature             per node        once           per pod
//!  PreEnqueue QueueSort  PreFilter [Filter] PreScore    Filter Score    PostFilter     Reserve Permit │ PreBind Bind
//!                        └──────── shared by pods of equal signature ┘  nothing fits   scheduling task│ own task
//! ```
//!
//! A plugin is made from a [`Handle`] and its [`Arguments`]. It reads the cache it is given and the handle's informers,
//! does no I/O before `PreBind`, and keeps data in [`CycleState`]. All plugins stand in one list: `plugins::registry`.

mod consult;
mod cycle_state;
mod event;
mod handle;
mod point;
mod profile;
mod profiles;
mod signature;
mod status;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{GroupVersionResource, Object, Str};
use async_trait::async_trait;

use crate::cache::{Cache, NodeInfo, Slot};
use crate::diagnosis::Diagnosis;
use crate::permit::Waiting;
use crate::pod::PodInfo;
use crate::queue::QueuedPod;
pub use consult::{Candidate, Consult, Opinion, Question};
pub use cycle_state::CycleState;
pub use event::{Event, EventSet, Hint, WATCHED, Watched};
pub(crate) use handle::misplaced;
pub use handle::{ArgumentError, Arguments, Handle};
pub use point::{Arrangement, Point};
pub use profile::{
    NORMALIZED_MAX, PluginId, PluginSet, Profile, ProfileError, Registering, Registration, ScorePlugin,
    Scores,
};
pub use profiles::{ProfileId, Profiles};
pub use signature::{Fragment, NotShareable, Signature};
pub use status::{Code, Reason, Status};

/// A raw score that takes no part in normalization; it becomes 0.
pub const LEFT_OUT: i64 = i64::MIN;

/// The best score a plugin can give a node, after normalization.
pub const MAX_NODE_SCORE: i64 = 100;

/// Something that takes part in scheduling under upstream's name.
pub trait Plugin: Send + Sync + 'static {
    fn name(&self) -> &'static str;
}

/// Says what of a pod the plugin's answers depend on. Required of every plugin that filters or scores: one that
/// forgot a field would make pods share answers they must not.
pub trait Sign: Plugin {
    /// An error when answers depend on more than can be signed, nodes, and what `keep_up` repairs.
    fn sign(&self, pod: &PodInfo, cluster: &Cache, signature: &mut Signature) -> Result<(), NotShareable>;
}

/// Says what could let a pod be scheduled that this plugin rejected. Required of every plugin that rejects.
pub trait EnqueueExtensions: Plugin {
    /// The kinds of events worth asking [`EnqueueExtensions::hint`] about.
    fn events(&self) -> EventSet;

    /// Whether this event may help this pod. Called only for events of the registered kinds.
    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let _ = (pod, event);
        Hint::Queue
    }

    /// Resources that the plugin looks up without waiting for them: they have been read before the first pod is
    /// scheduled.
    fn reads(&self) -> &[GroupVersionResource] {
        &[]
    }

    /// An [`Event::Object`] of a kind that the plugin waits for, before any pod is asked about with
    /// [`EnqueueExtensions::hint`]. For plugins that keep books of their own; the others read the informer.
    fn on_object(&self, event: &Event<'_>) {
        let _ = event;
    }

    /// All objects of such a resource were read anew: at the start, and after events were missed. What is not among
    /// them is gone.
    fn on_objects(&self, resource: &GroupVersionResource, objects: &[Arc<Object>]) {
        for object in objects {
            self.on_object(&Event::Object { resource, old: None, new: Some(object) });
        }
    }
}

/// Decides whether a pod may enter the active queue. Asked again when the pod changes, and when something happens that
/// the plugin waits for and thinks helpful. Must be cheap.
pub trait PreEnqueue: EnqueueExtensions {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Status>;
}

/// Orders the active queue; a profile has exactly one.
pub trait QueueSort: Plugin {
    /// `a` is to be scheduled before `b`.
    fn less(&self, a: &QueuedPod, b: &QueuedPod) -> bool;
}

/// What a `PreFilter` or `PreScore` plugin found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Relevance {
    /// Call the plugin for every node.
    #[default]
    EveryNode,
    /// The plugin has nothing to say about this pod; it is not called for nodes. A score counts as 0.
    Skip,
    /// Only these nodes can be feasible (`PreFilter`). Such a pod does not share its results.
    OnlyNodes(Vec<Str>),
}

/// Whose answers may be others after some nodes, or the pods on them, changed; those nodes themselves are asked again
/// anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    Nodes(Vec<Slot>),
    EveryNode,
}

impl Affected {
    pub const NONE: Self = Self::Nodes(Vec::new());
}

/// Looks at a pod before any node is. May reject it for all nodes at once.
pub trait PreFilter: Plugin {
    /// A plugin is skipped for all pods of one signature or for none.
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache)
    -> Result<Relevance, Status>;

    /// These slots changed: brings what was kept about nodes up to date. After [`Affected::EveryNode`] all starts anew.
    fn keep_up(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, changed: &[Slot]) -> Affected {
        let _ = (state, pod, cluster, changed);
        Affected::NONE
    }
}

/// Decides whether a pod fits a node. Must depend on nothing but what was signed, the node and what `PreFilter` kept.
pub trait Filter: Sign + EnqueueExtensions {
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status>;

    /// The same if these pods were gone from the node, which is without them here. What `PreFilter` kept counts them
    /// still: for plugins that kept something about other pods.
    fn filter_without(
        &self,
        gone: &[Arc<PodInfo>],
        cluster: &Cache,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), Status> {
        let _ = (gone, cluster);
        self.filter(state, pod, node)
    }
}

/// Called when no node is feasible, in order; the answers are told to the user one after the other.
pub trait PostFilter: Plugin {
    fn post_filter(&self, pod: &PodInfo, cluster: &Cache, diagnosis: &Diagnosis<'_>) -> PostFilterOutcome;
}

/// What a `PostFilter` plugin could do.
pub struct PostFilterOutcome {
    /// E.g. `preemption: 0/3 nodes are available: …`; empty when there is nothing to say.
    pub message: String,
    pub nomination: Nomination,
}

/// What becomes of the pod's nomination for a node.
pub enum Nomination {
    Keep,
    /// No node can be made to fit.
    Clear,
    /// Those who have a say choose among these.
    Choose(Vec<Candidate>),
    /// Room is made there: the victims are evicted, and the room is the pod's against those of lower priority.
    Make {
        node: Str,
        victims: Vec<Arc<PodInfo>>,
    },
}

/// Looks at a pod before nodes are scored.
pub trait PreScore: Plugin {
    /// `feasible` are the nodes that passed the filters; who makes something of them is asked by
    /// [`PreScore::depends_on`] when they are others. A plugin is skipped for all pods of one signature or for none.
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cluster: &Cache,
        feasible: &[Slot],
    ) -> Relevance;

    /// As [`PreFilter::keep_up`], for what was kept for scores.
    fn keep_up(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, changed: &[Slot]) -> Affected {
        let _ = (state, pod, cluster, changed);
        Affected::NONE
    }

    /// Other nodes are feasible now: whether that makes all scores others.
    fn depends_on(
        &self,
        state: &CycleState,
        cluster: &Cache,
        feasible: &mut dyn Iterator<Item = Slot>,
    ) -> bool {
        let _ = (state, cluster, feasible);
        false
    }
}

/// Rates a feasible node; higher is better. Must depend on nothing but what was signed, the node and what
/// `PreScore` kept.
pub trait Score: Sign {
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64;

    /// How raw scores become 0 to [`MAX_NODE_SCORE`].
    fn normalization(&self) -> Normalization {
        Normalization::None
    }
}

/// The lowest and highest raw score among feasible nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub min: i64,
    pub max: i64,
}

/// How raw scores are brought to the common scale. All of upstream's normalizations are functions of one score and
/// the extent of all; declared as such, a change of one node leaves the others' scores alone unless it moves the
/// extent.
#[derive(Clone, Copy, Debug)]
pub enum Normalization {
    /// Raw scores are on the common scale already.
    None,
    By(fn(score: i64, extent: Extent) -> i64),
}

impl Normalization {
    /// Upstream's default: proportional to the highest.
    pub const PROPORTIONAL: Self = Self::By(|score, extent| match extent.max {
        0 => score,
        max => MAX_NODE_SCORE * score / max,
    });

    /// Upstream's default, reversed: the lowest raw score is best.
    pub const REVERSED: Self = Self::By(|score, extent| match extent.max {
        0 => MAX_NODE_SCORE,
        max => MAX_NODE_SCORE - MAX_NODE_SCORE * score / max,
    });
}

/// Keeps plugins' own books in step with the cache's assumption.
pub trait Reserve: Plugin {
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Status>;

    /// Takes the reservation back. Idempotent; also called for plugins whose `reserve` was not.
    fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str);
}

/// Holds a pod back between its placement and its binding.
pub trait Permit: EnqueueExtensions {
    /// `waiting` are the pods that are held back now; the plugin may release or reject some of them.
    fn permit(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &str,
        waiting: &mut Waiting,
    ) -> PermitOutcome;
}

/// What `Permit` decided about the pod at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermitOutcome {
    Allow,
    Reject(Status),
    /// Hold it back until it is allowed; rejected when this long has passed.
    Wait(Duration),
}

/// Work that must be done before binding, e.g. on volumes. Runs in the binding task: it may write through the API and
/// wait for what comes of it.
#[async_trait]
pub trait PreBind: Plugin {
    /// Whether there is work for this pod. One with none is bound at once, and is among those whose number is limited.
    fn is_needed(&self, state: &CycleState, pod: &PodInfo) -> bool {
        let _ = (state, pod);
        true
    }

    async fn pre_bind(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Result<(), Status>;

    /// The pod with this uid, or its node, is gone while its `pre_bind` runs: look again whether to wait any longer.
    fn wake(&self, uid: &str) {
        let _ = uid;
    }
}

/// Tells the API where the pod goes. Runs in the binding task; the first bind plugin that handles the pod is the last.
#[async_trait]
pub trait Bind: Plugin {
    /// `Ok(false)` leaves the pod to the next bind plugin.
    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<bool, apimachinery::Status>;
}
