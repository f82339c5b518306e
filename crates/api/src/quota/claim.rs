//! What claims cost: those for volumes, and those for devices.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Quantity, Value};

use super::{Requirement, count, one};
use crate::amounts::Amounts;

const STORAGE: &str = "requests.storage";
const CLAIMS: &str = "persistentvolumeclaims";
/// `gold.storageclass.storage.k8s.io/requests.storage`
const PER_CLASS: &str = ".storageclass.storage.k8s.io/";
/// How claims named their class before they had a field for it; it still wins.
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
pub(super) const DEVICES_PER_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// The most devices that one request can be given; what `All` is charged.
const DEVICES_MAX: usize = 32;

pub(super) fn counts_for(name: &str) -> bool {
    let per_class =
        |resource: &str| name.strip_suffix(resource).is_some_and(|rest| rest.ends_with(PER_CLASS));
    [CLAIMS, STORAGE].iter().any(|resource| name == *resource || per_class(resource))
}

pub(super) fn volume_usage(claim: &Value) -> Amounts {
    let class = match claim.at(&["metadata", "annotations", CLASS_BETA]).and_then(Value::as_str) {
        Some(class) => class,
        None => claim.str_at(&["spec", "storageClassName"]),
    };
    let mut usage = Amounts::default();
    let mut charge = |resource: &str, amount: Quantity| {
        usage.set(resource, amount);
        if !class.is_empty() {
            usage.set(format!("{class}{PER_CLASS}{resource}"), amount);
        }
    };
    charge(CLAIMS, one());
    if let Some(requested) = Amounts::of(claim.at(&["spec", "resources", "requests"])).get("storage") {
        // While a volume grows, or was to grow further, the larger size is what it may take.
        let allocated = allocated(claim).filter(|allocated| *allocated > requested);
        charge(STORAGE, allocated.unwrap_or(requested).round_up(0));
    }
    usage
}

fn allocated(claim: &Value) -> Option<Quantity> {
    Amounts::of(claim.at(&["status", "allocatedResources"])).get("storage")
}

/// Whether a change of the status can change what the claim costs.
pub(super) fn status_matters(new: &Value, old: &Value) -> bool {
    allocated(new) != allocated(old) || attributes_classes(new) != attributes_classes(old)
}

pub(super) fn matches(claim: &Value, requirement: &Requirement) -> bool {
    if requirement.scope != "VolumeAttributesClass" {
        return false;
    }
    let classes = attributes_classes(claim);
    if classes.is_empty() {
        return requirement.holds(None);
    }
    classes.into_iter().any(|class| requirement.holds(Some(class)))
}

/// The class that is wanted, the one that is there, and the one that is being changed to.
fn attributes_classes(claim: &Value) -> BTreeSet<&str> {
    [
        claim.str_at(&["spec", "volumeAttributesClassName"]),
        claim.str_at(&["status", "currentVolumeAttributesClassName"]),
        claim.str_at(&["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]),
    ]
    .into_iter()
    .filter(|name| !name.is_empty())
    .collect()
}

/// Of alternatives the one with the most devices of a class counts.
pub(super) fn device_usage(claim: &Value) -> Amounts {
    let mut usage = Amounts::default();
    for request in claim.array_at(&["spec", "devices", "requests"]) {
        let alternatives = request.array_at(&["firstAvailable"]);
        let mut most = BTreeMap::<&str, usize>::new();
        let exactly = request.get("exactly").filter(|exactly| alternatives.is_empty() && !exactly.is_null());
        for alternative in alternatives.iter().chain(exactly) {
            let entry = most.entry(alternative.str_at(&["deviceClassName"])).or_default();
            *entry = devices(alternative).max(*entry);
        }
        for (class, devices) in most {
            let mut own = Amounts::default();
            own.set(format!("{class}{DEVICES_PER_CLASS}"), count(devices));
            usage.add(&own);
        }
    }
    usage
}

fn devices(request: &Value) -> usize {
    match request.str_at(&["allocationMode"]) {
        "ExactCount" => request["count"].as_i64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0),
        "All" => DEVICES_MAX,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn volumes_count_in_total_and_per_class() {
        let mut claim =
            json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1.5"}}}});
        assert_eq!(
            volume_usage(&claim).to_string(),
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2"
        );
        claim.set_at(&["status", "allocatedResources", "storage"], "4");
        claim.remove_at(&["spec", "storageClassName"]);
        assert_eq!(volume_usage(&claim).to_string(), "persistentvolumeclaims=1,requests.storage=4");
        assert!(counts_for("gold.storageclass.storage.k8s.io/requests.storage"));
        assert!(!counts_for("gold.example.com/requests.storage"));
    }

    #[test]
    fn devices_count_per_class_and_at_their_worst() {
        let claim = json!({"spec": {"devices": {"requests": [
            {"exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
            {"firstAvailable": [
                {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
                {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3},
                {"deviceClassName": "nic", "allocationMode": "All"},
            ]},
        ]}}});
        assert_eq!(
            device_usage(&claim).to_string(),
            "gpu.deviceclass.resource.k8s.io/devices=5,nic.deviceclass.resource.k8s.io/devices=32"
        );
    }

    #[test]
    fn a_claim_is_in_the_scope_of_each_class_it_has_to_do_with() {
        let claim = json!({"spec": {"volumeAttributesClassName": "new"},
            "status": {"currentVolumeAttributesClassName": "old"}});
        let scope = |operator: &str, value: &str| Requirement {
            scope: "VolumeAttributesClass".into(),
            operator: operator.into(),
            values: vec![value.into()],
        };
        assert!(matches(&claim, &scope("In", "old")));
        assert!(matches(&claim, &scope("In", "new")));
        assert!(!matches(&claim, &scope("In", "other")));
        assert!(matches(&claim, &scope("Exists", "")));
        assert!(matches(&json!({}), &scope("NotIn", "old")));
        assert!(status_matters(&claim, &json!({"spec": {"volumeAttributesClassName": "new"}})));
    }
}
