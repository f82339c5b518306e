//! Rejects nodes whose taints the pod does not tolerate; prefers nodes with fewer soft taints.

use api::placement::{is_kept_away, is_tolerated};
use api::view::Toleration;

use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    CycleState, EnqueueExtensions, Event, EventSet, Filter, Fragment, Hint, Normalization, NotShareable,
    Plugin, PreScore, Relevance, Score, Sign, Signature, Status,
};
use crate::pod::PodInfo;

pub struct TaintToleration;

/// Tolerations that concern soft taints.
struct Soft(Vec<Toleration>);

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
}

impl Sign for TaintToleration {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        sign_tolerations(pod, signature);
        Ok(())
    }
}

pub(super) fn sign_tolerations(pod: &PodInfo, signature: &mut Signature) {
    signature.fragment(Fragment::Tolerations, |out| {
        let tolerations = &pod.pod.spec.tolerations;
        out.number(tolerations.len() as i64);
        for Toleration { key, operator, value, effect, toleration_seconds: _ } in tolerations {
            [key, operator, value, effect].into_iter().for_each(|text| out.text(text));
        }
    });
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Status> {
        if is_kept_away(node.taints(), &pod.pod.spec.tolerations) {
            return Err(Status::unresolvable("node(s) had untolerated taint(s)"));
        }
        Ok(())
    }
}

impl PreScore for TaintToleration {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, _: &Cache, _: &[Slot]) -> Relevance {
        let soft = |toleration: &&Toleration| matches!(toleration.effect.as_str(), "" | "PreferNoSchedule");
        state.insert(Soft(pod.pod.spec.tolerations.iter().filter(soft).cloned().collect()));
        Relevance::EveryNode
    }
}

impl Score for TaintToleration {
    /// Untolerated soft taints; fewer is better.
    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let tolerations = state.get::<Soft>().map_or(&[][..], |soft| &soft.0);
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !is_tolerated(taint, tolerations)).count() as i64
    }

    fn normalization(&self) -> Normalization {
        Normalization::REVERSED
    }
}

impl EnqueueExtensions for TaintToleration {
    fn events(&self) -> EventSet {
        EventSet::NODE_ADD.with(EventSet::NODE_TAINT).with(EventSet::POD_TOLERATION)
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let tolerations = &pod.pod.spec.tolerations;
        let helps = match event {
            Event::NodeAdded(node) => !is_kept_away(&node.spec.taints, tolerations),
            Event::NodeUpdated { old, new } => {
                is_kept_away(&old.spec.taints, tolerations) && !is_kept_away(&new.spec.taints, tolerations)
            }
            Event::PodUpdated { new, .. } => new.uid() == pod.uid(),
            _ => false,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
