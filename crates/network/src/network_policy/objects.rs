//! What enforcement reads of NetworkPolicies.
//!
//! Owns: the typed view. Never touches: objects; a view is read only.

use api::view::{LabelSelector, ObjectMeta};
use apimachinery::Str;
use serde::{Deserialize, Deserializer};

/// `networking.k8s.io/v1.NetworkPolicy`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicy {
    pub metadata: ObjectMeta,
    pub spec: NetworkPolicySpec,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    pub pod_selector: LabelSelector,
    #[serde(deserialize_with = "null_is_empty")]
    pub policy_types: Vec<Str>,
    #[serde(deserialize_with = "null_is_empty")]
    pub ingress: Vec<PolicyRule>,
    #[serde(deserialize_with = "null_is_empty")]
    pub egress: Vec<PolicyRule>,
}

/// A rule of either direction: `from` of ingress and `to` of egress are the same to us.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyRule {
    /// None: everybody.
    #[serde(alias = "from", alias = "to", deserialize_with = "null_is_empty")]
    pub peers: Vec<PolicyPeer>,
    /// None: every port of every protocol.
    #[serde(deserialize_with = "null_is_empty")]
    pub ports: Vec<PolicyPort>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyPeer {
    pub pod_selector: Option<LabelSelector>,
    pub namespace_selector: Option<LabelSelector>,
    pub ip_block: Option<IpBlock>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct IpBlock {
    pub cidr: Str,
    #[serde(deserialize_with = "null_is_empty")]
    pub except: Vec<Str>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyPort {
    /// Absent is `TCP`.
    pub protocol: Option<Str>,
    pub port: Option<PortOrName>,
    pub end_port: Option<i32>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum PortOrName {
    Number(i32),
    Name(Str),
}

/// Which way traffic goes, seen from the pod that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    Ingress,
    Egress,
}

impl NetworkPolicy {
    pub fn rules(&self, direction: Direction) -> &[PolicyRule] {
        match direction {
            Direction::Ingress => &self.spec.ingress,
            Direction::Egress => &self.spec.egress,
        }
    }

    /// Whether what no rule allows is refused in this direction.
    pub fn isolates(&self, direction: Direction) -> bool {
        if self.spec.policy_types.is_empty() {
            return direction == Direction::Ingress || !self.spec.egress.is_empty();
        }
        let word = match direction {
            Direction::Ingress => "Ingress",
            Direction::Egress => "Egress",
        };
        self.spec.policy_types.iter().any(|own| own == word)
    }
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}
