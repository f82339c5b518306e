//! `ipFamilyPolicy` and `ipFamilies` of a Service, in a cluster that has one family or both.
//!
//! Upstream settles these before it takes addresses: what the client left out follows from the cluster, and what the
//! cluster cannot give is refused.

use apimachinery::{Value, field};

/// Fills in the families of a service and complains about those it cannot have. `configured` are the cluster's, the
/// default one first.
pub(super) fn settle(
    service: &mut Value,
    old: Option<&Value>,
    configured: &[&str],
    errors: &mut field::ErrorList,
) {
    let spec = &service["spec"];
    if spec.str_at(&["type"]) == "ExternalName" || keeps_preference(spec, old.map(|old| &old["spec"])) {
        return;
    }
    let policy = spec.str_at(&["ipFamilyPolicy"]).to_owned();
    let single = policy == "SingleStack";
    if let Some(old) = old.map(|old| &old["spec"])
        && single
    {
        // The policy says that the second family is given up.
        for key in ["clusterIPs", "ipFamilies"] {
            let given = service["spec"].array_at(&[key]);
            if given.len() > 1 && given == old.array_at(&[key]) {
                let first = vec![given[0].clone()];
                service.set_at(&["spec", key], first);
            }
        }
    }
    if single {
        for (key, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if service["spec"].array_at(&[key]).len() == 2 {
                let why = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                );
                errors.push(field::Error::invalid(&path("ipFamilyPolicy"), policy.as_str(), why));
            }
        }
    }
    if !errors.is_empty() {
        return;
    }
    let mut families: Vec<String> = texts(&service["spec"], "ipFamilies");
    if is_headless(&service["spec"]) && has_no_selector(&service["spec"]) {
        // Whoever fills the endpoints may use a family that the cluster has no addresses of.
        if families.is_empty() {
            families.extend(configured.first().map(|family| (*family).to_owned()));
        }
        if families.len() == 1 && !single {
            families.push(other(&families[0]).to_owned());
        }
        service.set_at(&["spec", "ipFamilies"], families);
        return;
    }
    if policy == "RequireDualStack" && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(field::Error::invalid(&path("ipFamilyPolicy"), policy.as_str(), why));
    }
    for (index, family) in families.iter().enumerate() {
        if matches!(family.as_str(), "IPv4" | "IPv6") && !configured.contains(&family.as_str()) {
            let path = path("ipFamilies");
            errors.push(field::Error::invalid(
                &path.index(index),
                family.as_str(),
                "not configured on this cluster",
            ));
        }
    }
    if !errors.is_empty() {
        return;
    }
    if families.is_empty() {
        families.extend(configured.first().map(|family| (*family).to_owned()));
    }
    if !single && families.len() == 1 && configured.len() == 2 {
        families.push(other(&families[0]).to_owned());
    }
    service.set_at(&["spec", "ipFamilies"], families);
}

/// A service that prefers both families is not upgraded by a change of something else.
fn keeps_preference(spec: &Value, old: Option<&Value>) -> bool {
    let prefers = |spec: &Value| spec.str_at(&["ipFamilyPolicy"]) == "PreferDualStack";
    old.is_some_and(|old| {
        prefers(spec)
            && prefers(old)
            && ["type", "clusterIPs", "ipFamilies"].iter().all(|key| spec.get(key) == old.get(key))
    })
}

fn is_headless(spec: &Value) -> bool {
    spec.str_at(&["clusterIP"]) == "None"
}

fn has_no_selector(spec: &Value) -> bool {
    spec.get("selector").and_then(Value::as_object).is_none_or(apimachinery::Map::is_empty)
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

fn texts(spec: &Value, key: &str) -> Vec<String> {
    spec.array_at(&[key]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn path(key: &str) -> field::Path<'static> {
    field::Path::root(match key {
        "ipFamilies" => "spec.ipFamilies",
        _ => "spec.ipFamilyPolicy",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    /// The families a new service ends up with, or the complaints.
    fn settled(spec: Value, configured: &[&str]) -> Result<Vec<String>, Vec<String>> {
        let mut service = json!({});
        service.set_at(&["spec"], spec);
        let mut errors = field::ErrorList::new();
        settle(&mut service, None, configured, &mut errors);
        if errors.is_empty() {
            return Ok(texts(&service["spec"], "ipFamilies"));
        }
        Err(errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn families_follow_from_policy_and_cluster() {
        let both = ["IPv4", "IPv6"];
        let cases = [
            (json!({"ipFamilyPolicy": "SingleStack"}), &["IPv4"][..], &["IPv4"][..]),
            (json!({"ipFamilyPolicy": "SingleStack"}), &["IPv6", "IPv4"], &["IPv6"]),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), &["IPv4"], &["IPv4"]),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), &both, &both),
            (json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}), &both, &["IPv6", "IPv4"]),
            (json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "None"}), &["IPv4"], &both),
        ];
        for (spec, configured, expected) in cases {
            let shown = spec.to_string();
            assert_eq!(settled(spec, configured).unwrap(), expected, "{shown}");
        }
    }

    #[test]
    fn what_the_cluster_cannot_give_is_refused() {
        let cases = [
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack \
                 services",
            ),
            (
                json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}),
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}),
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when \
                 multiple IP families are specified",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(settled(spec, &["IPv4"]).unwrap_err(), [expected]);
        }
    }

    #[test]
    fn a_second_family_is_given_up_by_the_policy_alone() {
        let old = json!({"spec": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIPs": ["10.0.0.1", "fd00::1"]}});
        let mut new = old.clone();
        new.set_at(&["spec", "ipFamilyPolicy"], "SingleStack");
        let mut errors = field::ErrorList::new();
        settle(&mut new, Some(&old), &["IPv4", "IPv6"], &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.1"]));
    }
}
