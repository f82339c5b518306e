//! What is allowed in objects of various kinds but probably not meant. Pods have a file of their own.

use apimachinery::Value;
use apimachinery::field::{Path, go_quote};

use crate::amounts::Amounts;
use crate::kinds::core::pod::warnings::old_node_label;
use crate::validation::fields::{Fields, item_text};
use crate::validation::{ip, text};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const OPTIONS_ANNOTATION: &str = "volume.beta.kubernetes.io/mount-options";

/// Volume sources that no longer do anything: JSON name, name in the warning, what it says.
const OLD_SOURCES: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// About the name of what pods are named after; only when it is created.
pub fn workload_name(object: &Value, old: Option<&Value>) -> Option<String> {
    let messages = text::dns1123_label(object.str_at(&["metadata", "name"]));
    (old.is_none() && !messages.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label \
             is recommended: [{}]",
            messages.join(" ")
        )
    })
}

pub fn volume(volume: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let annotations = &volume["metadata"]["annotations"];
    for (key, why) in [
        (CLASS_ANNOTATION, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (OPTIONS_ANNOTATION, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ] {
        if annotations.has(key) {
            warnings.push(format!("metadata.annotations[{key}]: {why}"));
        }
    }
    let spec = &volume["spec"];
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    let terms = spec.array_at(&["nodeAffinity", "required", "nodeSelectorTerms"]);
    for (index, term) in terms.iter().enumerate() {
        let root = Path::root("spec.nodeAffinity.required.nodeSelectorTerms");
        expressions(&mut warnings, term, &root.index(index));
    }
    for (key, name, why) in OLD_SOURCES {
        if spec.has(key) {
            warnings.push(format!("spec.{name}: {why}"));
        }
    }
    warnings
}

/// Old labels of nodes in `matchExpressions`.
fn expressions(warnings: &mut Vec<String>, term: &Value, path: &Path<'_>) {
    let path = path.child("matchExpressions");
    for (index, expression) in term.list("matchExpressions").iter().enumerate() {
        let key = expression.text("key");
        if let Some(why) = old_node_label(key) {
            let place = path.index(index);
            warnings.push(format!("{}: {key} is {why}", place.child("key")));
        }
    }
}

pub fn claim(claim: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if claim["metadata"]["annotations"].has(CLASS_ANNOTATION) {
        warnings.push(format!(
            "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    for which in ["requests", "limits"] {
        let size = Amounts::of(claim.at(&["spec", "resources", which])).get("storage");
        if let Some(size) = size.filter(|size| size.milli_value() % 1000 != 0) {
            warnings.push(format!(
                "spec.resources.{which}[storage]: fractional byte value {} is invalid, must be an integer",
                go_quote(&size.to_string())
            ));
        }
    }
    warnings
}

/// A quota on requests that is higher than the one on limits can never be used up.
pub fn quota(quota: &Value) -> Vec<String> {
    let hard = Amounts::of(quota["spec"].get("hard"));
    let mut warnings = Vec::new();
    for name in ["cpu", "memory", "ephemeral-storage"] {
        let full = format!("requests.{name}");
        let plain = || hard.get(name).filter(|_| name != "ephemeral-storage").map(|own| (name, own));
        let request = hard.get(&full).map(|own| (full.as_str(), own)).or_else(plain);
        let (Some((request_name, request)), Some(limit)) = (request, hard.get(&format!("limits.{name}")))
        else {
            continue;
        };
        if request > limit {
            warnings.push(format!(
                "ResourceQuota {request_name} ({request}) should be less than limits.{name} ({limit})"
            ));
        }
    }
    warnings
}

pub fn storage_class(class: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let root = Path::root("allowedTopologies");
    for (index, term) in class.list("allowedTopologies").iter().enumerate() {
        let path = root.index(index);
        let path = path.child("matchLabelExpressions");
        for (index, expression) in term.list("matchLabelExpressions").iter().enumerate() {
            if let Some(why) = old_node_label(expression.text("key")) {
                let place = path.index(index);
                warnings.push(format!("{}: {why}", place.child("key")));
            }
        }
    }
    warnings
}

pub fn storage_capacity(capacity: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let topology = &capacity["nodeTopology"];
    expressions(&mut warnings, topology, &Path::root("nodeTopology"));
    for (label, _) in topology.entries("matchLabels") {
        if let Some(why) = old_node_label(label) {
            warnings.push(format!("nodeTopology.matchLabels.{label}: {why}"));
        }
    }
    warnings
}

pub fn runtime_class(class: &Value) -> Vec<String> {
    let keys = class["scheduling"].entries("nodeSelector").filter_map(|(key, _)| old_node_label(key));
    keys.map(|why| format!("scheduling.nodeSelector: {why}")).collect()
}

/// What the endpoint controllers write needs no look.
fn is_managed(object: &Value, managers: &[&str]) -> bool {
    let manager = object["metadata"]["labels"].text("endpointslice.kubernetes.io/managed-by");
    managers.contains(&manager)
}

pub fn endpoints(endpoints: &Value) -> Vec<String> {
    let by_controller =
        endpoints["metadata"]["labels"].text("endpoints.kubernetes.io/managed-by") == "endpoint-controller";
    if by_controller {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    let root = Path::root("subsets");
    for (index, subset) in endpoints.list("subsets").iter().enumerate() {
        let path = root.index(index);
        for list in ["addresses", "notReadyAddresses"] {
            let path = path.child(list);
            for (index, address) in subset.list(list).iter().enumerate() {
                let place = path.index(index);
                warnings.extend(ip::ip_warning(address.text("ip"), &place.child("ip")));
            }
        }
    }
    warnings
}

pub fn endpoint_slice(slice: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() && slice.text("addressType") == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    if is_managed(slice, &["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"]) {
        return warnings;
    }
    let root = Path::root("endpoints");
    for (index, endpoint) in slice.list("endpoints").iter().enumerate() {
        let path = root.index(index);
        let path = path.child("addresses");
        for (index, address) in endpoint.list("addresses").iter().enumerate() {
            warnings.extend(ip::ip_warning(item_text(address), &path.index(index)));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn storage_is_warned_about_in_upstreams_words() {
        let expression = json!({"matchExpressions": [{"key": "beta.kubernetes.io/os"}]});
        assert_eq!(
            volume(&json!({
                "metadata": {"annotations": {OPTIONS_ANNOTATION: "x"}},
                "spec": {"persistentVolumeReclaimPolicy": "Retain", "rbd": {"image": "i"},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [expression]}}},
            })),
            [
                "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \
                 \"mountOptions\" attribute instead",
                "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is \
                 deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
            ]
        );
        assert_eq!(
            claim(
                &json!({"spec": {"resources": {"requests": {"storage": "1500m"}, "limits": {"storage": "1Gi"}}}})
            ),
            [
                "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer"
            ]
        );
        let class = json!({"allowedTopologies": [{"matchLabelExpressions": [
            {"key": "failure-domain.beta.kubernetes.io/zone"}
        ]}]});
        assert_eq!(storage_class(&class).len(), 1);
    }

    #[test]
    fn requests_beyond_limits_are_noticed() {
        let of = |hard: Value| quota(&json!({"spec": {"hard": hard}}));
        assert_eq!(
            of(json!({"cpu": "2", "limits.cpu": "1"})),
            ["ResourceQuota cpu (2) should be less than limits.cpu (1)"]
        );
        assert!(of(json!({"requests.memory": "1", "limits.memory": "1"})).is_empty());
        assert!(of(json!({"ephemeral-storage": "2", "limits.ephemeral-storage": "1"})).is_empty());
    }

    #[test]
    fn addresses_in_unusual_form_are_noticed_unless_controllers_wrote_them() {
        let mut slice = json!({"addressType": "IPv6", "endpoints": [{"addresses": ["2001:DB8::1"]}]});
        assert_eq!(endpoint_slice(&slice, None).len(), 1);
        slice.set_at(
            &["metadata", "labels", "endpointslice.kubernetes.io/managed-by"],
            "endpointslice-controller.k8s.io",
        );
        assert!(endpoint_slice(&slice, None).is_empty());
        assert_eq!(endpoints(&json!({"subsets": [{"addresses": [{"ip": "010.0.0.1"}]}]})).len(), 1);
    }

    #[test]
    fn pods_are_named_after_their_workload() {
        let named = |name: &str| json!({"metadata": {"name": name}});
        assert_eq!(workload_name(&named("web"), None), None);
        assert!(workload_name(&named("web.v1"), None).is_some());
        assert_eq!(workload_name(&named("web.v1"), Some(&named("web.v1"))), None);
    }
}
