//! [`NodeInfo`]: a node and what the pods on it take.

use std::sync::Arc;

use api::view::{Node, NodeSpec, Taint};
use apimachinery::Str;

use crate::pod::{HostPort, PodInfo};
use crate::resource::Resources;

/// A node with its pods summed up. Kept even when the node is not known (yet, or no longer) while pods are on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: Str,
    /// `None` while only pods name this node.
    pub node: Option<Arc<Node>>,
    pub allocatable: Resources,
    /// Sum of the requests of `pods`.
    pub requested: Resources,
    /// The same with missing requests assumed.
    pub scored_cpu_milli: i64,
    pub scored_memory: i64,
    pub pods: Vec<Arc<PodInfo>>,
    pub used_ports: Vec<HostPort>,
    /// Names of images that are present, sorted.
    pub images: Box<[Str]>,
}

impl NodeInfo {
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn taints(&self) -> &[Taint] {
        self.spec().map_or(&[], |spec| &spec.taints)
    }

    /// Cordoned.
    pub fn is_unschedulable(&self) -> bool {
        self.spec().is_some_and(|spec| spec.unschedulable)
    }

    fn spec(&self) -> Option<&NodeSpec> {
        self.node.as_ref().map(|node| &node.spec)
    }

    pub(super) fn set_node(&mut self, node: Option<Arc<Node>>) {
        self.allocatable =
            node.as_ref().map(|node| Resources::from_list(&node.status.allocatable)).unwrap_or_default();
        self.images = node.as_deref().map(image_names).unwrap_or_default();
        self.node = node;
    }

    /// Counts a pod in. Public for what-if copies, such as preemption's.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored_cpu_milli = self.scored_cpu_milli.saturating_add(pod.scored_cpu_milli);
        self.scored_memory = self.scored_memory.saturating_add(pod.scored_memory);
        self.used_ports.extend_from_slice(&pod.host_ports);
        self.pods.push(pod);
    }

    /// Counts a pod out; `None` when it is not here.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.uid() == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.scored_cpu_milli -= pod.scored_cpu_milli;
        self.scored_memory -= pod.scored_memory;
        for port in &pod.host_ports {
            if let Some(at) = self.used_ports.iter().position(|used| used == port) {
                self.used_ports.swap_remove(at);
            }
        }
        Some(pod)
    }
}

fn image_names(node: &Node) -> Box<[Str]> {
    let mut names: Vec<Str> = node.status.images.iter().flat_map(|image| &image.names).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}
