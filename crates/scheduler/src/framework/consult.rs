//! [`Consult`]: asking outside about the nodes of a pod, between its filters and scores and the choice of a node.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Str;
use async_trait::async_trait;

use super::{EnqueueExtensions, Sign, Status};
use crate::pod::PodInfo;

/// Has a say in where pods go, but is asked once for all nodes, and may take its time. One pod is asked about at a
/// time, and none is placed meanwhile, so that the answer is about the cluster as it is. A profile has at most one.
#[async_trait]
pub trait Consult: Sign + EnqueueExtensions {
    /// Whether it wants a say about the pod. Such pods must not be shareable.
    fn concerns(&self, pod: &PodInfo) -> bool;

    /// Refuses nodes and rates the others; an error fails the attempt.
    async fn consult(&self, question: Question) -> Result<Opinion, String>;

    /// Whether it wants a say about whom to evict for the pod.
    fn concerns_preemption(&self, pod: &PodInfo) -> bool;

    /// Takes candidates, and victims of candidates, away; an error fails the preemption.
    async fn consult_preemption(
        &self,
        pod: &PodInfo,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, Status>;
}

/// A pod, and the nodes that passed the filters.
#[derive(Clone, Debug)]
pub struct Question {
    pub pod: Arc<PodInfo>,
    pub nodes: Vec<Str>,
}

/// What came of a [`Question`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opinion {
    /// Nodes that are left, with what is added to their scores.
    pub scores: HashMap<Str, i64>,
    /// Why others are not. One of the question that is in neither is refused without a word.
    pub refusals: HashMap<Str, Status>,
}

/// A node where eviction would help.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub node: Str,
    /// The most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// Victims whose disruption budget does not allow it.
    pub violations: usize,
    /// All pods on the node, for whom others may choose from.
    pub pods: Vec<Arc<PodInfo>>,
}
