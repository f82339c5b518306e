//! What the registry has to know about each kind, as one table.
//!
//! Taken from upstream's `pkg/registry/*/strategy.go` at 1.36; the initial status is what a create answers with.

use crate::strategy::NameRule::{self, DnsLabel, DnsSubdomain, PathSegment};

/// One row of the table.
#[derive(Debug)]
pub struct Facts {
    pub group: &'static str,
    pub kind: &'static str,
    pub names: NameRule,
    /// Status is written through the `status` subresource only.
    pub status: bool,
    /// JSON of the status of a new object; `None` leaves what the creator gave, where there is a status at all.
    pub initial_status: Option<&'static str>,
    pub generation: bool,
    /// A PUT without `resourceVersion` overwrites.
    pub unconditional_update: bool,
    /// A PUT of a missing object creates it.
    pub create_on_update: bool,
    /// A finished delete answers with the object.
    pub returns_deleted: bool,
    /// A delete that does not say otherwise leaves its dependents alone.
    pub orphans_dependents: bool,
}

/// A kind that is not in the table.
const UNKNOWN: Facts = Facts {
    group: "",
    kind: "",
    names: DnsSubdomain,
    status: true,
    initial_status: None,
    generation: true,
    unconditional_update: true,
    create_on_update: false,
    returns_deleted: false,
    orphans_dependents: false,
};

/// The row of a kind, or that of an unknown kind.
pub fn of(group: &str, kind: &str) -> &'static Facts {
    ALL.iter().find(|row| row.group == group && row.kind == kind).unwrap_or(&UNKNOWN)
}

const fn data(group: &'static str, kind: &'static str) -> Facts {
    Facts { group, kind, status: false, generation: false, ..UNKNOWN }
}

impl Facts {
    const fn named(self, names: NameRule) -> Self {
        Self { names, ..self }
    }

    /// Has a status subresource; a new object starts with this status.
    const fn status(self, initial: &'static str) -> Self {
        Self { status: true, initial_status: Some(initial), ..self }
    }

    const fn orphans_dependents(self) -> Self {
        Self { orphans_dependents: true, ..self }
    }

    const fn generation(self) -> Self {
        Self { generation: true, ..self }
    }

    /// Updates must name the `resourceVersion` they replace.
    const fn conditional(self) -> Self {
        Self { unconditional_update: false, ..self }
    }

    const fn create_on_update(self) -> Self {
        Self { create_on_update: true, ..self }
    }

    /// A finished delete answers with the object instead of a success `Status`.
    const fn returns_deleted(self) -> Self {
        Self { returns_deleted: true, ..self }
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// Every built-in kind that is stored.
pub const ALL: &[Facts] = &[
    data("", "ConfigMap"),
    data("", "Endpoints").create_on_update(),
    data("", "Event").create_on_update(),
    data("", "LimitRange").create_on_update(),
    data("", "Namespace").named(DnsLabel).status(r#"{"phase":"Active"}"#).returns_deleted(),
    Facts { initial_status: None, ..data("", "Node").status("{}") },
    data("", "PersistentVolume").status(r#"{"phase":"Pending"}"#).returns_deleted(),
    data("", "PersistentVolumeClaim").status(r#"{"phase":"Pending"}"#).returns_deleted(),
    data("", "Pod").status(r#"{"phase":"Pending"}"#).generation().returns_deleted(),
    data("", "PodTemplate").generation().returns_deleted(),
    data("", "ReplicationController").status(r#"{"replicas":0}"#).generation().orphans_dependents(),
    data("", "ResourceQuota").status("{}").returns_deleted(),
    data("", "Secret"),
    data("", "Service").named(DnsLabel).status(r#"{"loadBalancer":{}}"#).create_on_update().returns_deleted(),
    data("", "ServiceAccount").returns_deleted(),
    data(ADMISSION, "MutatingAdmissionPolicy").generation().conditional(),
    data(ADMISSION, "MutatingAdmissionPolicyBinding").generation().conditional(),
    data(ADMISSION, "MutatingWebhookConfiguration").generation().conditional(),
    data(ADMISSION, "ValidatingAdmissionPolicy").status("{}").generation().conditional(),
    data(ADMISSION, "ValidatingAdmissionPolicyBinding").generation().conditional(),
    data(ADMISSION, "ValidatingWebhookConfiguration").generation().conditional(),
    Facts {
        // The stored versions follow from the spec by default.
        initial_status: Some(r#"{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}"#),
        ..data("apiextensions.k8s.io", "CustomResourceDefinition").status("{}").generation().conditional()
    },
    data("apiregistration.k8s.io", "APIService").named(PathSegment).status("{}").conditional(),
    data("apps", "ControllerRevision"),
    data("apps", "DaemonSet")
        .status(
            r#"{"currentNumberScheduled":0,"numberMisscheduled":0,"desiredNumberScheduled":0,"numberReady":0}"#,
        )
        .generation(),
    data("apps", "Deployment").status("{}").generation(),
    data("apps", "ReplicaSet").status(r#"{"replicas":0}"#).generation(),
    data("apps", "StatefulSet").named(DnsLabel).status(r#"{"replicas":0,"availableReplicas":0}"#).generation(),
    // The status of the two versions differs, so that the schema fills it.
    data("autoscaling", "HorizontalPodAutoscaler").status("{}"),
    data("batch", "CronJob").status("{}").generation(),
    data("batch", "Job").status("{}").generation().orphans_dependents(),
    data(CERTIFICATES, "CertificateSigningRequest").named(PathSegment).status("{}"),
    data(CERTIFICATES, "ClusterTrustBundle").named(PathSegment).conditional(),
    data(CERTIFICATES, "PodCertificateRequest").status("{}").conditional(),
    data("coordination.k8s.io", "Lease").conditional().create_on_update(),
    data("coordination.k8s.io", "LeaseCandidate").conditional().create_on_update(),
    data("discovery.k8s.io", "EndpointSlice").generation(),
    data("events.k8s.io", "Event").create_on_update(),
    data(FLOW_CONTROL, "FlowSchema").status("{}").generation(),
    data(FLOW_CONTROL, "PriorityLevelConfiguration").status("{}").generation(),
    data("internal.apiserver.k8s.io", "StorageVersion").status("{}").conditional(),
    data(NETWORKING, "IPAddress").named(PathSegment),
    data(NETWORKING, "Ingress").status(r#"{"loadBalancer":{}}"#).generation(),
    data(NETWORKING, "IngressClass").generation(),
    data(NETWORKING, "NetworkPolicy").generation(),
    data(NETWORKING, "ServiceCIDR").status("{}"),
    data("node.k8s.io", "RuntimeClass").conditional().create_on_update(),
    data("policy", "PodDisruptionBudget")
        .status(r#"{"disruptionsAllowed":0,"currentHealthy":0,"desiredHealthy":0,"expectedPods":0}"#)
        .generation()
        .conditional(),
    data(RBAC, "ClusterRole").named(PathSegment).create_on_update(),
    data(RBAC, "ClusterRoleBinding").named(PathSegment).create_on_update(),
    data(RBAC, "Role").named(PathSegment).create_on_update(),
    data(RBAC, "RoleBinding").named(PathSegment).create_on_update(),
    data(RESOURCE, "DeviceClass").generation().returns_deleted(),
    data(RESOURCE, "DeviceTaintRule").status("{}").generation().returns_deleted(),
    data(RESOURCE, "ResourceClaim").status("{}").returns_deleted(),
    data(RESOURCE, "ResourceClaimTemplate").returns_deleted(),
    data(RESOURCE, "ResourcePoolStatusRequest").status("{}").conditional().returns_deleted(),
    data(RESOURCE, "ResourceSlice").generation().returns_deleted(),
    data("scheduling.k8s.io", "PodGroup").status("{}"),
    data("scheduling.k8s.io", "PriorityClass").generation(),
    data("scheduling.k8s.io", "Workload"),
    data(STORAGE, "CSIDriver").conditional().returns_deleted(),
    data(STORAGE, "CSINode").conditional().returns_deleted(),
    data(STORAGE, "CSIStorageCapacity").conditional(),
    data(STORAGE, "StorageClass").returns_deleted(),
    data(STORAGE, "VolumeAttachment").status(r#"{"attached":false}"#).conditional().returns_deleted(),
    data(STORAGE, "VolumeAttributesClass").returns_deleted(),
    data("storagemigration.k8s.io", "StorageVersionMigration").status("{}").conditional(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_unique() {
        assert!(ALL.is_sorted_by(|a, b| (a.group, a.kind) < (b.group, b.kind)));
    }

    #[test]
    fn facts_are_found_by_group_and_kind() {
        assert!(of("", "Pod").status && of("", "Pod").generation);
        assert!(!of("", "ConfigMap").status);
        assert!(of("coordination.k8s.io", "Lease").create_on_update);
        assert!(!of("coordination.k8s.io", "Lease").unconditional_update);
        assert_eq!(of(RBAC, "Role").names, PathSegment);
        assert!(of("example.com", "Widget").status, "a kind nobody listed is taken to have everything");
    }
}
