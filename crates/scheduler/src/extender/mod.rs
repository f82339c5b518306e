//! Extenders: webhooks that refuse and rate nodes, choose victims, and bind pods.
//!
//! Owns: [`Extenders`], the plugin that stands for all of them, and their wire format. Never touches: the cache; it
//! sends what the informers have. Pods that no extender is interested in are not affected.
//!
//! ```text
//!     filters, scores ──feasible nodes──> filter, one after the other ─> prioritize, all at once ──> the best node
//!     nothing feasible: candidates ─────> preempt, one after the other ──> the cheapest candidate
//!     placed ───────────────────────────> bind, by the first that is interested; else by the next plugin
//! ```

mod peer;
mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::gvr::{NODES, PODS};
use apimachinery::field::{Error, Path};
use apimachinery::{Object, Str};
use async_trait::async_trait;
use tracing::{info, warn};

use crate::cache::Cache;
use crate::configuration;
use crate::framework::{
    Bind, Candidate, Code, Consult, EnqueueExtensions, EventSet, Handle, MAX_NODE_SCORE, NotShareable,
    Opinion, Plugin, Question, Sign, Signature, Status,
};
use crate::pod::PodInfo;
use peer::Extender;
use wire::{BindingResult, FilterResult, HostPriority, PreemptionResult};

/// The best score that an extender gives; it stands for [`MAX_NODE_SCORE`].
const SCORE_MAX: i64 = 10;

/// All extenders of a configuration, in the order in which they are asked.
pub struct Extenders {
    handle: Handle,
    extenders: Arc<[Extender]>,
}

impl Extenders {
    pub const NAME: &str = "Extenders";

    /// An error names the field below `extenders`.
    pub fn new(handle: &Handle, configurations: &[(usize, &configuration::Extender)]) -> Result<Self, Error> {
        let all = Path::root("extenders");
        let made = configurations.iter().map(|(index, config)| Extender::new(config, &all.index(*index)));
        Ok(Self { handle: handle.clone(), extenders: made.collect::<Result<_, _>>()? })
    }

    fn interested<'a>(&'a self, pod: &'a PodInfo) -> impl Iterator<Item = &'a Extender> {
        self.extenders.iter().filter(|extender| extender.is_interested(pod))
    }

    /// The whole pod, as the API has it.
    fn object_of(&self, pod: &PodInfo) -> Option<Arc<Object>> {
        self.handle.informers.of(&PODS).get(pod.namespace(), pod.name()).filter(|now| now.uid() == pod.uid())
    }

    /// The nodes that are left, and why the others are not.
    async fn filter(
        &self,
        question: &Question,
        pod: &Object,
        mut nodes: Vec<Arc<Object>>,
    ) -> Result<(Vec<Arc<Object>>, HashMap<Str, Status>), String> {
        let mut refusals = HashMap::new();
        for extender in self.interested(&question.pod).filter(|extender| !extender.filter_verb.is_empty()) {
            if nodes.is_empty() {
                break;
            }
            match filter(extender, pod, &nodes).await {
                Ok((left, own)) => {
                    nodes.retain(|node| left.contains(node.name()));
                    refusals.extend(own);
                }
                Err(error) if extender.ignorable => {
                    info!(extender = extender.url, error, "Skipped an extender that failed");
                }
                Err(error) => return Err(error),
            }
        }
        Ok((nodes, refusals))
    }

    /// What is added to the scores of nodes. One that fails adds nothing.
    async fn prioritize(
        &self,
        question: &Question,
        pod: &Object,
        nodes: &[Arc<Object>],
    ) -> HashMap<Str, i64> {
        let raters = self.interested(&question.pod).filter(|extender| !extender.prioritize_verb.is_empty());
        let ratings = raters.map(|extender| async move {
            let arguments = wire::filter_arguments(pod, nodes, extender.node_cache_capable);
            let rated: Result<Option<Vec<HostPriority>>, String> =
                extender.send(&extender.prioritize_verb, &arguments).await;
            let rated = rated.unwrap_or_else(|error| {
                warn!(extender = extender.url, error, "An extender gave no scores");
                None
            });
            (extender.weight, rated.unwrap_or_default())
        });
        let mut scores: HashMap<Str, i64> = nodes.iter().map(|node| (node.name().into(), 0)).collect();
        for (weight, rated) in futures::future::join_all(ratings).await {
            for HostPriority { host, score } in rated {
                if let Some(total) = scores.get_mut(host.as_str()) {
                    let scaled = score.saturating_mul(weight).saturating_mul(MAX_NODE_SCORE / SCORE_MAX);
                    *total = total.saturating_add(scaled);
                }
            }
        }
        scores
    }
}

/// The names of the nodes that an extender leaves, and why it refuses others.
async fn filter(
    extender: &Extender,
    pod: &Object,
    nodes: &[Arc<Object>],
) -> Result<(HashSet<String>, HashMap<Str, Status>), String> {
    let arguments = wire::filter_arguments(pod, nodes, extender.node_cache_capable);
    let result: FilterResult = extender.send(&extender.filter_verb, &arguments).await?;
    if !result.error.is_empty() {
        return Err(result.error);
    }
    let left: HashSet<String> = match (result.node_names, result.nodes) {
        (Some(names), _) if extender.node_cache_capable => {
            if let Some(strange) = names.iter().find(|name| !nodes.iter().any(|node| node.name() == *name)) {
                return Err(format!(
                    "extender {:?} claims a filtered node {strange:?} which is not found in the input node list",
                    extender.url
                ));
            }
            names.into_iter().collect()
        }
        (_, Some(list)) => list.items.into_iter().map(|node| node.metadata.name).collect(),
        _ => HashSet::new(),
    };
    let refused = |nodes: std::collections::BTreeMap<String, String>, code| {
        nodes.into_iter().map(move |(node, why)| (Str::from(node), Status::new(code, why)))
    };
    // The unresolvable ones last: they win.
    let refusals = refused(result.failed_nodes, Code::Unschedulable)
        .chain(refused(result.failed_and_unresolvable_nodes, Code::UnschedulableAndUnresolvable));
    Ok((left, refusals.collect()))
}

/// The candidates that an extender leaves, with the victims that it wants.
async fn choose_victims(
    extenders: &Extenders,
    extender: &Extender,
    pod: &Object,
    candidates: &[Candidate],
) -> Result<Vec<Candidate>, String> {
    let pod_of = |victim: &PodInfo| extenders.object_of(victim).map(|pod| pod.to_value()).unwrap_or_default();
    let arguments = wire::preemption_arguments(pod, candidates, extender.node_cache_capable, pod_of);
    let result: PreemptionResult = extender.send(&extender.preempt_verb, &arguments).await?;
    let mut left = Vec::new();
    for (node, chosen) in result.node_name_to_meta_victims {
        let Some(candidate) = candidates.iter().find(|candidate| candidate.node == node) else {
            return Err(format!("extender {:?} names node {node:?}, which is no candidate", extender.url));
        };
        let mut victims = Vec::new();
        for meta in &chosen.pods {
            let Some(victim) = candidate.pods.iter().find(|pod| *pod.uid() == meta.uid) else {
                return Err(format!(
                    "extender: {} claims to preempt pod (UID: {}) on node: {node}, but the pod is not found on that node",
                    extender.url, meta.uid
                ));
            };
            victims.push(victim.clone());
        }
        let violations = usize::try_from(chosen.violations).unwrap_or(0);
        left.push(Candidate { victims, violations, ..candidate.clone() });
    }
    Ok(left)
}

// === impl Extenders: the plugin ===

impl Plugin for Extenders {
    fn name(&self) -> &'static str {
        Self::NAME
    }
}

impl Sign for Extenders {
    fn sign(&self, pod: &PodInfo, _: &Cache, _: &mut Signature) -> Result<(), NotShareable> {
        if self.concerns(pod) || self.concerns_preemption(pod) { Err(NotShareable) } else { Ok(()) }
    }
}

impl EnqueueExtensions for Extenders {
    /// Nobody knows what would change their minds.
    fn events(&self) -> EventSet {
        EventSet::ANY
    }
}

#[async_trait]
impl Consult for Extenders {
    fn concerns(&self, pod: &PodInfo) -> bool {
        self.interested(pod)
            .any(|extender| !extender.filter_verb.is_empty() || !extender.prioritize_verb.is_empty())
    }

    async fn consult(&self, question: Question) -> Result<Opinion, String> {
        let Some(pod) = self.object_of(&question.pod) else {
            return Err(format!("pod {}/{} is gone", question.pod.namespace(), question.pod.name()));
        };
        let known = self.handle.informers.of(&NODES);
        let nodes = question.nodes.iter().filter_map(|name| known.get("", name)).collect();
        let (nodes, refusals) = self.filter(&question, &pod, nodes).await?;
        // One that is left has no choice to make.
        let scores = self.prioritize(&question, &pod, &nodes).await;
        Ok(Opinion { scores, refusals })
    }

    fn concerns_preemption(&self, pod: &PodInfo) -> bool {
        self.interested(pod).any(|extender| !extender.preempt_verb.is_empty())
    }

    async fn consult_preemption(
        &self,
        preemptor: &PodInfo,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, Status> {
        let Some(pod) = self.object_of(preemptor) else { return Ok(Vec::new()) };
        for extender in self.interested(preemptor).filter(|extender| !extender.preempt_verb.is_empty()) {
            if candidates.is_empty() {
                break;
            }
            match choose_victims(self, extender, &pod, &candidates).await {
                Ok(left) => candidates = left,
                Err(error) if extender.ignorable => {
                    info!(extender = extender.url, error, "Skipped an extender that failed");
                }
                Err(error) => return Err(Status::error(error)),
            }
            for candidate in candidates.iter().filter(|candidate| candidate.victims.is_empty()) {
                if !extender.ignorable {
                    let node = &candidate.node;
                    return Err(Status::error(format!("expected at least one victim pod on node {node:?}")));
                }
            }
            candidates.retain(|candidate| !candidate.victims.is_empty());
        }
        Ok(candidates)
    }
}

#[async_trait]
impl Bind for Extenders {
    /// By the first that binds and is interested; the pod's own plugins bind the others.
    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<bool, apimachinery::Status> {
        for extender in self.interested(pod).filter(|extender| !extender.bind_verb.is_empty()) {
            let arguments = wire::binding_arguments(pod.namespace(), pod.name(), pod.uid(), node);
            let answer: Result<BindingResult, String> = extender.send(&extender.bind_verb, &arguments).await;
            match answer {
                Ok(BindingResult { error }) if error.is_empty() => return Ok(true),
                Ok(BindingResult { error }) | Err(error) => {
                    if !extender.ignorable {
                        return Err(apimachinery::Status::new(500, "InternalError", error));
                    }
                    info!(extender = extender.url, error, "Skipped an extender that failed to bind");
                }
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
