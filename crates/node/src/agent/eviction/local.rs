//! Limits of what one pod may have on disk: of a container, of the pod, of an emptyDir. Pure; words are the kubelet's.

use api::pod_resources::{self, Counted};
use apimachinery::{Quantity, value};
use k8s_openapi::api::core::v1::Pod;

use super::rank::bytes;
use super::usage::{Counting, PodUsage};
use crate::agent::config::resources::amounts;

const STORAGE: &str = "ephemeral-storage";

/// Whether anything of the pod is limited, so that looking at its files is worth while.
pub fn is_limited(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let has_sized = spec
        .volumes
        .iter()
        .flatten()
        .any(|own| own.empty_dir.as_ref().is_some_and(|own| own.size_limit.is_some()));
    has_sized
        || spec.containers.iter().any(|own| {
            own.resources
                .as_ref()
                .and_then(|own| own.limits.as_ref())
                .is_some_and(|all| all.contains_key(STORAGE))
        })
}

/// Why the pod has to go, if it has more than it may.
pub fn excess(pod: &Pod, usage: &PodUsage, counting: Counting) -> Option<String> {
    of_volumes(pod, usage).or_else(|| of_pod(pod, usage)).or_else(|| of_containers(pod, usage, counting))
}

fn of_volumes(pod: &Pod, usage: &PodUsage) -> Option<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| {
            let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
            let limit = Quantity::parse(&limit.0).ok().filter(|limit| limit.sign() > 0)?;
            let used = usage.volumes.iter().find(|own| own.name == volume.name)?.used.0;
            (used > bytes(limit.value())).then(|| {
                format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{limit}\". ", volume.name)
            })
        })
        .next()
}

fn of_pod(pod: &Pod, usage: &PodUsage) -> Option<String> {
    let counted = Counted { status: false, overhead: true, pod_level_huge_pages: true };
    let tree = value::to_value(pod).ok()?;
    let limit = pod_resources::limits(&tree, counted).get(STORAGE)?;
    (usage.disk(Counting::Everything).0 > bytes(limit.value()))
        .then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
}

fn of_containers(pod: &Pod, usage: &PodUsage, counting: Counting) -> Option<String> {
    let all = pod.spec.iter().flat_map(|spec| &spec.containers);
    all.filter_map(|container| {
        let limits = amounts(container.resources.as_ref().and_then(|own| own.limits.as_ref()));
        let limit = limits.get(STORAGE)?;
        let used = usage.containers.iter().find(|own| own.name == container.name)?;
        let layer = if counting == Counting::Everything { used.layer.0 } else { 0 };
        (used.logs.0 + layer > bytes(limit.value())).then(|| {
            format!("Container {} exceeded its local ephemeral storage limit \"{limit}\". ", container.name)
        })
    })
    .next()
}

#[cfg(test)]
mod tests {
    use super::super::usage::{ContainerUsage, VolumeUsed};
    use super::*;
    use crate::agent::config::fixture;

    #[test]
    fn what_is_over_a_limit_is_named() {
        let limit = |limit: &str| serde_json::json!({"limits": {"ephemeral-storage": limit}});
        let pod = fixture::pod(serde_json::json!({
            "containers": [{"name": "a", "resources": limit("1Ki")}, {"name": "b", "resources": limit("2Ki")}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "emptyDir": {}}],
        }));
        let usage = |a: u64, b: u64, v: u64, w: u64| PodUsage {
            containers: [("a", a), ("b", b)]
                .map(|(name, layer)| ContainerUsage {
                    name: name.into(),
                    layer: (layer, 0),
                    ..ContainerUsage::default()
                })
                .to_vec(),
            volumes: [("v", v), ("w", w)]
                .map(|(name, bytes)| VolumeUsed { name: name.into(), used: (bytes, 0) })
                .to_vec(),
            ..PodUsage::default()
        };
        let volume = Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
        let whole = Some("Pod ephemeral local storage usage exceeds the total limit of containers 3Ki. ");
        let container = Some("Container a exceeded its local ephemeral storage limit \"1Ki\". ");
        for (what, own, wanted) in [
            ("all on the border", usage(1024, 2048, 0, 0), None),
            ("a volume without a limit counts to the pod", usage(0, 0, 0, 3073), whole),
            ("a volume over its own", usage(0, 0, (1 << 20) + 1, 0), volume),
            ("a container over its own", usage(1025, 0, 0, 0), container),
        ] {
            assert_eq!(excess(&pod, &own, Counting::Everything).as_deref(), wanted, "{what}");
        }
        assert_eq!(excess(&pod, &usage(1025, 0, 0, 0), Counting::NodeOnly), None, "layers lie elsewhere");
        assert!(is_limited(&pod));
        assert!(!is_limited(&fixture::pod(serde_json::json!({"containers": [{"name": "c"}]}))));
    }
}
