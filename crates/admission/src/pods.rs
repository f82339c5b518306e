//! Small plugins about pods alone.

use std::collections::{BTreeSet, HashSet};

use api::validation::resources;
use apimachinery::field::{Error, Path};
use apimachinery::{Status, Value, json};
use registry::admission::Attributes;

use crate::{Plugin, aggregate, forbidden, is_write};

/// How long a pod stays on a node that is gone, unless it says otherwise; upstream's default of five minutes.
const TOLERATION_SECONDS: i64 = 300;
const TOLERATED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// `DefaultTolerationSeconds`: a node that is not ready or unreachable keeps its pods for a while.
pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !is_write(attributes) || !attributes.is("", "pods") {
            return Ok(());
        }
        let tolerations = pod.array_at(&["spec", "tolerations"]);
        let missing: Vec<Value> = TOLERATED
            .into_iter()
            .filter(|key| !tolerations.iter().any(|toleration| tolerates(toleration, key)))
            .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list =
            pod.ensure_object_at(&["spec"]).get_or_insert_with("tolerations", || Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.extend(missing);
        }
        Ok(())
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let (own, effect) = (toleration.str_at(&["key"]), toleration.str_at(&["effect"]));
    (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
}

/// `LimitPodHardAntiAffinityTopology`: pods may keep apart by node, not by anything larger.
pub struct LimitPodHardAntiAffinityTopology;

const HOSTNAME: &str = "kubernetes.io/hostname";

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| is_write(attributes) && attributes.is("", "pods")) else {
            return Ok(());
        };
        let path = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        let keys = pod.array_at(&path).iter().map(|term| term.str_at(&["topologyKey"]));
        match keys.into_iter().find(|key| *key != HOSTNAME) {
            None => Ok(()),
            Some(key) => {
                let why = format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is \
                     allowed"
                );
                Err(forbidden(attributes, why))
            }
        }
    }
}

/// `AlwaysPullImages`: every image is pulled anew, so that only those who may pull it can run it.
pub struct AlwaysPullImages;

/// The lists of containers in a pod's spec.
pub(crate) const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// All containers of a pod, init containers first.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS.into_iter().flat_map(|list| pod.array_at(&["spec", list]))
}

impl AlwaysPullImages {
    fn applies(attributes: &Attributes<'_>, pod: &Value) -> bool {
        is_write(attributes)
            && attributes.is("", "pods")
            && brings_images(pod, attributes.old_value().as_deref())
    }
}

/// Whether there is an image that was not there before.
fn brings_images(pod: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return true };
    let present: HashSet<&str> = containers(old).map(|container| container.str_at(&["image"])).collect();
    containers(pod).any(|container| !present.contains(container.str_at(&["image"])))
}

impl Plugin for AlwaysPullImages {
    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !Self::applies(attributes, pod) {
            return Ok(());
        }
        for list in CONTAINER_LISTS {
            for container in pod.at_mut(&["spec", list]).and_then(Value::as_array_mut).into_iter().flatten() {
                container.set_at(&["imagePullPolicy"], "Always");
            }
        }
        for volume in pod.at_mut(&["spec", "volumes"]).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
                image.set_at(&["pullPolicy"], "Always");
            }
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(pod) = object.filter(|pod| Self::applies(attributes, pod)) else { return Ok(()) };
        let complaints =
            other_policies(pod).into_iter().map(|error| forbidden(attributes, error).message).collect();
        match aggregate(complaints) {
            None => Ok(()),
            // Several complaints have no status of their own upstream, and go out as a failure of the server.
            Some(all) if all.starts_with('[') => Err(Status::new(500, "", all)),
            Some(_) => Err(forbidden(attributes, &other_policies(pod)[0])),
        }
    }
}

/// Complaints about images that are not pulled always.
fn other_policies(pod: &Value) -> Vec<Error> {
    let spec = Path::root("spec");
    let mut errors = Vec::new();
    for list in CONTAINER_LISTS {
        for (index, container) in pod.array_at(&["spec", list]).iter().enumerate() {
            let policy = container.str_at(&["imagePullPolicy"]);
            if policy != "Always" {
                let path = spec.child(list);
                let path = path.index(index);
                errors.push(Error::not_supported(&path.child("imagePullPolicy"), policy, &["Always"]));
            }
        }
    }
    for (index, volume) in pod.array_at(&["spec", "volumes"]).iter().enumerate() {
        let Some(image) = volume.get("image").filter(|image| image.is_object()) else { continue };
        let policy = image.str_at(&["pullPolicy"]);
        if policy != "Always" {
            let path = spec.child("volumes");
            let path = path.index(index);
            let path = path.child("image");
            errors.push(Error::not_supported(&path.child("pullPolicy"), policy, &["Always"]));
        }
    }
    errors
}

/// `ExtendedResourceToleration`: pods that ask for a device tolerate the taint by which its nodes are kept for them.
pub struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !is_write(attributes) || !attributes.is("", "pods") {
            return Ok(());
        }
        let wanted: BTreeSet<String> = ["containers", "initContainers"]
            .into_iter()
            .flat_map(|list| pod.array_at(&["spec", list]))
            .filter_map(|container| container.at(&["resources", "requests"])?.as_object())
            .flat_map(|requests| requests.keys())
            .filter(|name| resources::is_extended(name))
            .map(ToString::to_string)
            .collect();
        for resource in wanted {
            tolerate(pod, json!({"key": resource, "operator": "Exists", "effect": "NoSchedule"}));
        }
        Ok(())
    }
}

/// Adds a toleration, or puts it in the place of one for the same taint.
fn tolerate(pod: &mut Value, toleration: Value) {
    let list = pod
        .ensure_object_at(&["spec"])
        .get_or_insert_with("tolerations", || Value::Array(Vec::new()))
        .as_array_mut();
    let Some(list) = list else { return };
    let same_taint = |own: &Value| {
        ["key", "operator", "effect", "value"]
            .iter()
            .all(|key| own.str_at(&[key]) == toleration.str_at(&[key]))
    };
    match list.iter_mut().find(|own| same_taint(own)) {
        Some(own) => *own = toleration,
        None => list.push(toleration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_of_everything_covers_the_defaults() {
        assert!(tolerates(&json!({"operator": "Exists"}), TOLERATED[0]));
        assert!(tolerates(&json!({"key": TOLERATED[1], "effect": "NoExecute"}), TOLERATED[1]));
        assert!(!tolerates(&json!({"key": TOLERATED[1], "effect": "NoSchedule"}), TOLERATED[1]));
        assert!(!tolerates(&json!({"key": "other"}), TOLERATED[0]));
    }

    #[test]
    fn only_new_images_are_pulled_anew() {
        let pod = |image: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": image}]}})
        };
        let old = pod("a");
        assert!(!brings_images(&pod("a"), Some(&old)));
        assert!(brings_images(&pod("b"), Some(&old)));
        assert!(brings_images(&pod("a"), None));
    }

    #[test]
    fn policies_other_than_always_are_named() {
        let pod = json!({"spec": {
            "containers": [{"imagePullPolicy": "Always"}, {"imagePullPolicy": "Never"}],
            "volumes": [{"image": {"pullPolicy": "IfNotPresent"}}],
        }});
        let texts: Vec<String> = other_policies(&pod).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.containers[1].imagePullPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.volumes[0].image.pullPolicy: Unsupported value: \"IfNotPresent\": supported values: \
                 \"Always\"",
            ]
        );
    }

    #[test]
    fn a_device_is_tolerated_once() {
        let mut pod = json!({"spec": {}});
        let toleration = json!({"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"});
        tolerate(&mut pod, toleration.clone());
        tolerate(&mut pod, toleration.clone());
        assert_eq!(pod["spec"].array_at(&["tolerations"]), [toleration]);
    }
}
