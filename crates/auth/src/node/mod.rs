//! The Node authorizer: a node may touch what belongs to it and to the pods that run on it, and nothing else.
//!
//! Who is a node is decided by name and group (`system:node:<name>` in `system:nodes`). What belongs to its pods is
//! kept by [`Graph`]. Everything that has no such relation is decided by the rules of the role `system:node`.

mod graph;
mod references;

use std::sync::Arc;

pub use graph::{Graph, PodKey};
pub use references::{PodReferences, VolumeReferences};

use crate::authorizer::{Attributes, Authorizer, Decision, Reason, ResolvedRules};
use crate::rbac::{PolicyRule, bootstrap};
use crate::user::{self, UserInfo};
use graph::ObjectKind;

/// The namespace of the leases by which nodes show that they live.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Decides for nodes only; of everybody else it has no opinion.
pub struct NodeAuthorizer {
    graph: Arc<Graph>,
    rules: Vec<PolicyRule>,
}

impl Default for NodeAuthorizer {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeAuthorizer {
    /// With an empty graph, to be fed through [`NodeAuthorizer::graph`].
    pub fn new() -> Self {
        Self { graph: Arc::default(), rules: bootstrap::node_rules() }
    }

    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// `Ok` allows; the error is the reason for having no opinion.
    fn check(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.resource_request {
            match (attributes.api_group, attributes.resource) {
                ("", "secrets") => return self.read(node, ObjectKind::Secret, attributes),
                ("", "configmaps") => return self.read(node, ObjectKind::ConfigMap, attributes),
                ("", "persistentvolumeclaims") if attributes.subresource == "status" => {
                    return self.update_status(node, ObjectKind::Claim, attributes);
                }
                ("", "persistentvolumeclaims") => return self.get(node, ObjectKind::Claim, attributes),
                ("", "persistentvolumes") => return self.get(node, ObjectKind::Volume, attributes),
                ("resource.k8s.io", "resourceclaims") => {
                    return self.get(node, ObjectKind::ResourceClaim, attributes);
                }
                ("storage.k8s.io", "volumeattachments") => {
                    return self.get(node, ObjectKind::Attachment, attributes);
                }
                ("", "serviceaccounts") => return self.service_account(node, attributes),
                ("coordination.k8s.io", "leases") => return lease(node, attributes),
                ("storage.k8s.io", "csinodes") => return csi_node(node, attributes),
                ("resource.k8s.io", "resourceslices") => return self.slice(node, attributes),
                ("", "nodes") => return own_node(node, attributes),
                ("", "pods") => return self.pod(node, attributes),
                _ => {}
            }
        }
        require(self.rules.iter().any(|rule| rule.allows(attributes)), "")
    }

    fn related(&self, node: &str, kind: ObjectKind, attributes: &Attributes<'_>) -> Result<(), String> {
        require(!attributes.name.is_empty(), "No Object name found")?;
        if self.graph.is_related(node, kind, attributes.namespace, attributes.name) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn read(&self, node: &str, kind: ObjectKind, attributes: &Attributes<'_>) -> Result<(), String> {
        require(
            is_one_of(attributes.verb, &["get", "list", "watch"]),
            "can only read resources of this type",
        )?;
        require(attributes.subresource.is_empty(), "cannot read subresource")?;
        require(!attributes.namespace.is_empty(), "can only read namespaced object of this type")?;
        self.related(node, kind, attributes)
    }

    fn get(&self, node: &str, kind: ObjectKind, attributes: &Attributes<'_>) -> Result<(), String> {
        require(attributes.verb == "get", "can only get individual resources of this type")?;
        require(attributes.subresource.is_empty(), "cannot get subresource")?;
        self.related(node, kind, attributes)
    }

    fn update_status(&self, node: &str, kind: ObjectKind, attributes: &Attributes<'_>) -> Result<(), String> {
        let may = is_one_of(attributes.verb, &["update", "patch"]);
        require(may, "can only get/update/patch this type")?;
        self.related(node, kind, attributes)
    }

    fn service_account(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.verb == "get" && attributes.subresource.is_empty() {
            return self.get(node, ObjectKind::ServiceAccount, attributes);
        }
        require(
            attributes.verb == "create" && !attributes.name.is_empty(),
            "can only create tokens for individual service accounts",
        )?;
        require(attributes.subresource == "token", "can only create token subresource of serviceaccount")?;
        self.related(node, ObjectKind::ServiceAccount, attributes)
    }

    fn slice(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        require(attributes.subresource.is_empty(), "cannot authorize ResourceSlice subresources")?;
        match attributes.verb {
            // Admission (NodeRestriction) looks at the new object.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, ObjectKind::Slice, attributes),
            "watch" | "list" | "deletecollection" => require(
                selects(attributes, "spec.nodeName", node),
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, \
                      patch, delete, deletecollection"
                .to_owned()),
        }
    }

    /// What a node creates, deletes and reports on is narrowed to its own pods by admission (NodeRestriction).
    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        match (attributes.subresource, attributes.verb) {
            ("", "get") => self.related(node, ObjectKind::Pod, attributes),
            ("", "list" | "watch") if selects(attributes, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !attributes.name.is_empty() => {
                self.related(node, ObjectKind::Pod, attributes)
            }
            ("", "list" | "watch") => {
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else {
            return Decision::NoOpinion { reason: Reason::NONE };
        };
        if node.is_empty() {
            let user = apimachinery::field::go_quote(attributes.user.name());
            return Decision::NoOpinion { reason: format!("unknown node for user {user}").into() };
        }
        match self.check(node, attributes) {
            Ok(()) => Decision::Allow { reason: Reason::NONE },
            Err(reason) => Decision::NoOpinion { reason: reason.into() },
        }
    }

    fn rules_for(&self, user: &UserInfo, _: &str) -> ResolvedRules {
        if node_of(user).is_none() {
            return ResolvedRules::default();
        }
        let errors = vec!["node authorizer does not support user rule resolution".to_owned()];
        ResolvedRules { incomplete: true, errors, ..ResolvedRules::default() }
    }
}

/// The name of the node that a user is; `None` for everybody else.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    user.name().strip_prefix(user::NODE_PREFIX).filter(|_| user.in_group(user::NODES))
}

fn own_node(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    match (attributes.subresource, attributes.verb) {
        // Admission (NodeRestriction) narrows writes to the node's own object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match attributes.name {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            other => Err(format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => Err(String::new()),
    }
}

const OWN_OBJECT_VERBS: [&str; 5] = ["get", "create", "update", "patch", "delete"];

fn lease(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    require(
        is_one_of(attributes.verb, &OWN_OBJECT_VERBS),
        "can only get, create, update, patch, or delete a node lease",
    )?;
    require(
        attributes.namespace == LEASE_NAMESPACE,
        "can only access leases in the \"kube-node-lease\" system namespace",
    )?;
    // The name is not known at create; admission (NodeRestriction) checks it then.
    require(
        attributes.verb == "create" || attributes.name == node,
        "can only access node lease with the same name as the requesting node",
    )
}

fn csi_node(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    require(
        is_one_of(attributes.verb, &OWN_OBJECT_VERBS),
        "can only get, create, update, patch, or delete a CSINode",
    )?;
    require(attributes.subresource.is_empty(), "cannot authorize CSINode subresources")?;
    require(
        attributes.verb == "create" || attributes.name == node,
        "can only access CSINode with the same name as the requesting node",
    )
}

fn selects(attributes: &Attributes<'_>, field: &str, value: &str) -> bool {
    attributes
        .field_selector
        .iter()
        .any(|requirement| !requirement.negated && requirement.field == field && requirement.value == value)
}

fn is_one_of(verb: &str, verbs: &[&str]) -> bool {
    verbs.contains(&verb)
}

fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

#[cfg(test)]
mod tests;
