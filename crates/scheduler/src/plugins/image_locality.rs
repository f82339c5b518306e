//! Prefers nodes that already have the pod's images, the more the larger and the more widespread they are.

use apimachinery::Str;

use crate::cache::{Cache, NodeInfo, Slot};
use crate::framework::{
    CycleState, Fragment, MAX_NODE_SCORE, NotShareable, Plugin, PreScore, Relevance, Score, Sign, Signature,
};
use crate::pod::PodInfo;

pub struct ImageLocality;

const MIB: i64 = 1 << 20;
/// Below this an image is quick to pull anywhere.
const SIZE_MIN: i64 = 23 * MIB;
/// Per container.
const SIZE_MAX: i64 = 1000 * MIB;

/// The pod's images that are present somewhere, with what a node that has one gains.
struct Gains(Vec<(Str, i64)>);

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
}

fn images(pod: &PodInfo) -> impl Iterator<Item = Str> {
    let spec = &pod.pod.spec;
    spec.init_containers.iter().chain(&spec.containers).map(|container| normalized(&container.image))
}

/// With the tag that an image without one stands for.
fn normalized(name: &str) -> Str {
    match (name.rfind(':'), name.rfind('/')) {
        (Some(colon), slash) if slash.is_none_or(|slash| colon > slash) => name.into(),
        _ => Str::from(format!("{name}:latest")),
    }
}

impl Sign for ImageLocality {
    fn sign(&self, pod: &PodInfo, _: &Cache, signature: &mut Signature) -> Result<(), NotShareable> {
        signature.fragment(Fragment::Images, |out| {
            let spec = &pod.pod.spec;
            out.number((spec.init_containers.len() + spec.containers.len()) as i64);
            spec.init_containers
                .iter()
                .chain(&spec.containers)
                .for_each(|container| out.text(&container.image));
        });
        Ok(())
    }
}

impl PreScore for ImageLocality {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, cluster: &Cache, _: &[Slot]) -> Relevance {
        let gain = |image: Str| {
            let known = cluster.image(&image)?;
            let spread = known.nodes as f64 / cluster.node_count().max(1) as f64;
            Some((image, (known.size_bytes as f64 * spread) as i64))
        };
        let gains: Vec<_> = images(pod).filter_map(gain).collect();
        let relevance = if gains.is_empty() { Relevance::Skip } else { Relevance::EveryNode };
        state.insert(Gains(gains));
        relevance
    }
}

impl Score for ImageLocality {
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let gains = state.get::<Gains>().map_or(&[][..], |gains| &gains.0);
        let present = gains.iter().filter(|(image, _)| node.images.binary_search(image).is_ok());
        let containers = pod.pod.spec.init_containers.len() + pod.pod.spec.containers.len();
        let max = SIZE_MAX * containers.max(1) as i64;
        let sum = present.map(|(_, gain)| gain).sum::<i64>().clamp(SIZE_MIN, max);
        MAX_NODE_SCORE * (sum - SIZE_MIN) / (max - SIZE_MIN)
    }
}
