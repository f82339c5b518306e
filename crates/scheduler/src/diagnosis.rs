//! Why a pod found no node, in upstream's words.

use std::collections::BTreeMap;

use crate::framework::{Code, PluginSet, Profile, Reason, Status};
use crate::shortlist::Shortlist;

/// What is told when the cluster has no nodes at all.
pub const NO_NODES: &str = "no nodes available to schedule pods";

/// Longest text of an event; upstream's limit for notes.
const EVENT_TEXT_MAX: usize = 1024;

/// The outcome of a search that found nothing.
pub struct Diagnosis<'a> {
    pub node_count: usize,
    pub profile: &'a Profile,
    pub cause: Cause<'a>,
}

/// Where the search ended.
pub enum Cause<'a> {
    /// A `PreFilter` plugin turned the pod away for all nodes.
    PreFilter { plugins: PluginSet, status: Status },
    /// Every node was asked (or left out by `PreFilter`) and refused.
    Nodes(&'a Shortlist),
}

impl Diagnosis<'_> {
    /// The plugins that rejected the pod: only events that they wait for can help.
    pub fn rejectors(&self) -> PluginSet {
        match &self.cause {
            Cause::PreFilter { plugins, .. } => *plugins,
            Cause::Nodes(shortlist) => {
                let mut rejectors = shortlist.restricted_by();
                shortlist.refusals().for_each(|refusal| rejectors.insert(refusal.plugin));
                rejectors
            }
        }
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`, followed by what the
    /// `PostFilter` plugins said.
    pub fn message(&self, post_filter: &str) -> String {
        let mut text = match &self.cause {
            Cause::PreFilter { status, .. } => {
                format!("0/{} nodes are available: {}.", self.node_count, status.message())
            }
            Cause::Nodes(shortlist) => self.nodes_message(shortlist),
        };
        if !post_filter.is_empty() {
            text.push(' ');
            text.push_str(post_filter);
        }
        text
    }

    fn nodes_message(&self, shortlist: &Shortlist) -> String {
        let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
        for refusal in shortlist.refusals() {
            for reason in &refusal.status.reasons {
                *counts.entry(reason.clone()).or_default() += refusal.nodes;
            }
        }
        let left_out = self.node_count.saturating_sub(shortlist.asked_count());
        let restricting = shortlist.restricted_by();
        if left_out > 0 && !restricting.is_empty() {
            counts.insert(
                format!("node(s) didn't satisfy plugin(s) [{}]", self.names(restricting)).into(),
                left_out,
            );
        }
        histogram(self.node_count, counts)
    }

    fn names(&self, plugins: PluginSet) -> String {
        let all = (0..PluginSet::CAPACITY as u8).filter(|&id| plugins.contains(id));
        let mut names: Vec<_> = all.map(|id| self.profile.plugin_name(id)).collect();
        names.sort_unstable();
        names.join(" ")
    }

    /// A plugin failed, rather than turned the pod away.
    pub fn is_error(&self) -> bool {
        match &self.cause {
            Cause::PreFilter { status, .. } => status.code == Code::Error,
            Cause::Nodes(shortlist) => shortlist.refusals().any(|refusal| refusal.status.code == Code::Error),
        }
    }

    /// Whether eviction could help on any node.
    pub fn is_resolvable(&self) -> bool {
        match &self.cause {
            Cause::PreFilter { status, .. } => status.code == Code::Unschedulable,
            Cause::Nodes(shortlist) => {
                shortlist.refusals().any(|refusal| refusal.status.code == Code::Unschedulable)
            }
        }
    }
}

/// `0/N nodes are available: <count> <reason>, ….`, sorted as upstream sorts: as texts, the count included.
pub fn histogram(node_count: usize, counts: BTreeMap<Reason, usize>) -> String {
    let mut parts: Vec<String> =
        counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort_unstable();
    match parts.is_empty() {
        true => format!("0/{node_count} nodes are available:"),
        false => format!("0/{node_count} nodes are available: {}.", parts.join(", ")),
    }
}

/// Cuts a message to what an event may hold.
pub fn truncated(message: &str) -> String {
    const SUFFIX: &str = " ...";
    if message.len() <= EVENT_TEXT_MAX {
        return message.to_owned();
    }
    let mut end = EVENT_TEXT_MAX - SUFFIX.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SUFFIX}", &message[..end])
}
