//! What objects cost against a ResourceQuota.
//!
//! Owns: which resources a kind counts for, how much of each one object uses, and which quotas it falls under (scopes).
//! Never touches: the quotas' status; who charges (admission) and who recounts (the controller) share these functions
//! so that they come to the same.
//!
//! Start at [`Kind`].

mod claim;
mod pod;
mod scope;

use apimachinery::{Quantity, Str, Value};
use jiff::Timestamp;

use crate::amounts::Amounts;

pub use scope::{Requirement, requirements};

/// `count/pods`, `count/deployments.apps`
const COUNT: &str = "count/";

/// Collections that have always been counted under their plain name as well.
const PLAIN_NAMES: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

/// Collections that no quota counts: events, and what is never stored.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("", "events"),
    ("events.k8s.io", "events"),
];

/// A collection as quotas see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    rules: Rules,
    /// `count/…`
    count: Str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rules {
    Pods,
    Services,
    VolumeClaims,
    DeviceClaims,
    /// Only counted, also under this name where there is one.
    Others(Option<&'static str>),
}

/// What happens to an object.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub new: &'a Value,
    /// `None` when it is created.
    pub old: Option<&'a Value>,
}

impl Kind {
    /// `None` for what no quota counts.
    pub fn of(group: &str, plural: &str) -> Option<Self> {
        if IGNORED.contains(&(group, plural)) {
            return None;
        }
        let rules = match (group, plural) {
            ("", "pods") => Rules::Pods,
            ("", "services") => Rules::Services,
            ("", "persistentvolumeclaims") => Rules::VolumeClaims,
            ("resource.k8s.io", "resourceclaims") => Rules::DeviceClaims,
            ("", plain) => Rules::Others(PLAIN_NAMES.iter().find(|name| **name == plain).copied()),
            _ => Rules::Others(None),
        };
        let dot = if group.is_empty() { "" } else { "." };
        Some(Self { rules, count: format!("{COUNT}{plural}{dot}{group}").into() })
    }

    /// The name that every collection can be counted by: `count/pods`, `count/deployments.apps`.
    pub fn count_name(&self) -> &Str {
        &self.count
    }

    /// Whether every object costs the same: one.
    pub fn is_plain(&self) -> bool {
        matches!(self.rules, Rules::Others(_))
    }

    /// Whether an update may have made an object cheaper in a way that nobody charged.
    pub fn is_freed(&self, old: &Value, new: &Value, now: Timestamp) -> bool {
        match self.rules {
            Rules::Pods => {
                pod::is_terminating(old) != pod::is_terminating(new)
                    || pod::is_charged(old, now) && !pod::is_charged(new, now)
                    || old["status"] != new["status"] && pod::usage(old, now) != pod::usage(new, now)
            }
            Rules::Services => service_usage(old) != service_usage(new),
            Rules::VolumeClaims => claim::status_matters(new, old),
            Rules::DeviceClaims | Rules::Others(_) => false,
        }
    }

    /// Whether a change can cost anything.
    pub fn is_charged(&self, change: Change<'_>) -> bool {
        let creates = change.old.is_none();
        match (&self.rules, change.subresource) {
            (Rules::Pods, "") => match change.old {
                Some(old) => pod::is_terminating(old) != pod::is_terminating(change.new),
                None => true,
            },
            (Rules::Pods, "resize") => !creates,
            (Rules::VolumeClaims, "status") => {
                change.old.is_some_and(|old| claim::status_matters(change.new, old))
            }
            (Rules::Services | Rules::VolumeClaims | Rules::DeviceClaims, "") => true,
            (Rules::Others(_), "") => creates,
            _ => false,
        }
    }

    /// Whether a quota on `name` is one on this kind.
    pub fn counts_for(&self, name: &str) -> bool {
        name == self.count
            || match &self.rules {
                Rules::Pods => pod::counts_for(name),
                Rules::Services => {
                    matches!(name, "services" | "services.nodeports" | "services.loadbalancers")
                }
                Rules::VolumeClaims => claim::counts_for(name),
                Rules::DeviceClaims => name.ends_with(claim::DEVICES_PER_CLASS),
                Rules::Others(plain) => *plain == Some(name),
            }
    }

    /// What one object uses.
    pub fn usage(&self, object: &Value, now: Timestamp) -> Amounts {
        let mut usage = Amounts::default();
        usage.set(self.count.clone(), one());
        match &self.rules {
            Rules::Pods => usage.add(&pod::usage(object, now)),
            Rules::Services => usage.add(&service_usage(object)),
            Rules::VolumeClaims => usage.add(&claim::volume_usage(object)),
            Rules::DeviceClaims => usage.add(&claim::device_usage(object)),
            Rules::Others(Some(plain)) => usage.set(*plain, one()),
            Rules::Others(None) => {}
        }
        usage
    }

    /// Whether an object falls under all the scopes of a quota.
    pub fn is_in_scope(&self, object: &Value, scopes: &[Requirement]) -> bool {
        scopes.iter().all(|scope| self.matches(object, scope))
    }

    /// Whether an object falls under one scope.
    pub fn matches(&self, object: &Value, scope: &Requirement) -> bool {
        match self.rules {
            Rules::Pods => pod::matches(object, scope),
            Rules::VolumeClaims => claim::matches(object, scope),
            _ => false,
        }
    }

    /// What an object has to say for the quotas on `names` to mean anything, and does not.
    pub fn missing<'a>(&self, names: impl Iterator<Item = &'a Str>, object: &Value) -> Option<String> {
        match self.rules {
            Rules::Pods => pod::missing(names, object),
            _ => None,
        }
    }
}

fn one() -> Quantity {
    count(1)
}

fn count(number: usize) -> Quantity {
    Quantity::new(i64::try_from(number).unwrap_or(i64::MAX), apimachinery::quantity::Format::DecimalSi)
}

/// Node ports are not given out yet when a Service is charged, so it is the wish that counts.
fn service_usage(service: &Value) -> Amounts {
    let ports = service.array_at(&["spec", "ports"]);
    let explicit = || ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count();
    let (balancers, node_ports) = match service.str_at(&["spec", "type"]) {
        "NodePort" => (0, ports.len()),
        "LoadBalancer" if service["spec"]["allocateLoadBalancerNodePorts"].as_bool() == Some(false) => {
            (1, explicit())
        }
        "LoadBalancer" => (1, ports.len()),
        _ => (0, 0),
    };
    let mut usage = Amounts::default();
    usage.set("services", one());
    usage.set("services.loadbalancers", count(balancers));
    usage.set("services.nodeports", count(node_ports));
    usage
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn kind(group: &str, plural: &str) -> Kind {
        Kind::of(group, plural).expect("counted")
    }

    fn usage(group: &str, plural: &str, object: &Value) -> String {
        kind(group, plural).usage(object, Timestamp::UNIX_EPOCH).without_zeros().to_string()
    }

    #[test]
    fn every_collection_but_events_can_be_counted() {
        assert_eq!(Kind::of("", "events"), None);
        assert_eq!(usage("apps", "deployments", &json!({})), "count/deployments.apps=1");
        assert_eq!(usage("", "secrets", &json!({})), "count/secrets=1,secrets=1");
        assert!(kind("", "configmaps").counts_for("configmaps"));
        assert!(!kind("", "configmaps").counts_for("count/configmaps.apps"));
        assert!(!kind("apps", "secrets").counts_for("secrets"));
    }

    #[test]
    fn services_use_ports_and_balancers() {
        let service = |kind: &str, allocate: bool| {
            json!({"spec": {"type": kind, "allocateLoadBalancerNodePorts": allocate,
                "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}]}})
        };
        for (service, used) in [
            (service("ClusterIP", true), "count/services=1,services=1"),
            (service("NodePort", true), "count/services=1,services=1,services.nodeports=2"),
            (
                service("LoadBalancer", true),
                "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2",
            ),
            (
                service("LoadBalancer", false),
                "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1",
            ),
        ] {
            assert_eq!(usage("", "services", &service), used, "{service}");
        }
    }

    #[test]
    fn only_changes_that_can_cost_something_are_charged() {
        let (plain, terminating) = (json!({"spec": {}}), json!({"spec": {"activeDeadlineSeconds": 1}}));
        let change = |subresource: &'static str, old| Change { subresource, new: &plain, old };
        let pods = kind("", "pods");
        assert!(pods.is_charged(change("", None)));
        assert!(!pods.is_charged(change("", Some(&plain))));
        assert!(pods.is_charged(change("", Some(&terminating))), "the scope changes");
        assert!(pods.is_charged(change("resize", Some(&plain))));
        assert!(!pods.is_charged(change("status", Some(&plain))));
        assert!(kind("", "services").is_charged(change("", Some(&plain))));
        assert!(!kind("", "configmaps").is_charged(change("", Some(&plain))));
        assert!(kind("", "configmaps").is_charged(change("", None)));
    }
}
