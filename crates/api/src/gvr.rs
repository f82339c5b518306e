//! Constants for the resources that components of the platform use.

use apimachinery::{GroupVersionResource, Str};

const fn core(resource: &'static str) -> GroupVersionResource {
    named("", "v1", resource)
}

const fn named(group: &'static str, version: &'static str, resource: &'static str) -> GroupVersionResource {
    GroupVersionResource {
        group: Str::const_new(group),
        version: Str::const_new(version),
        resource: Str::const_new(resource),
    }
}

pub const CONFIG_MAPS: GroupVersionResource = core("configmaps");
pub const ENDPOINTS: GroupVersionResource = core("endpoints");
pub const EVENTS: GroupVersionResource = core("events");
pub const LIMIT_RANGES: GroupVersionResource = core("limitranges");
pub const NAMESPACES: GroupVersionResource = core("namespaces");
pub const NODES: GroupVersionResource = core("nodes");
pub const PERSISTENT_VOLUMES: GroupVersionResource = core("persistentvolumes");
pub const PERSISTENT_VOLUME_CLAIMS: GroupVersionResource = core("persistentvolumeclaims");
pub const PODS: GroupVersionResource = core("pods");
pub const REPLICATION_CONTROLLERS: GroupVersionResource = core("replicationcontrollers");
pub const RESOURCE_QUOTAS: GroupVersionResource = core("resourcequotas");
pub const SECRETS: GroupVersionResource = core("secrets");
pub const SERVICES: GroupVersionResource = core("services");
pub const SERVICE_ACCOUNTS: GroupVersionResource = core("serviceaccounts");
pub const VALIDATING_ADMISSION_POLICIES: GroupVersionResource =
    named("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
pub const CONTROLLER_REVISIONS: GroupVersionResource = named("apps", "v1", "controllerrevisions");
pub const DAEMON_SETS: GroupVersionResource = named("apps", "v1", "daemonsets");
pub const DEPLOYMENTS: GroupVersionResource = named("apps", "v1", "deployments");
pub const REPLICA_SETS: GroupVersionResource = named("apps", "v1", "replicasets");
pub const STATEFUL_SETS: GroupVersionResource = named("apps", "v1", "statefulsets");
pub const HORIZONTAL_POD_AUTOSCALERS: GroupVersionResource =
    named("autoscaling", "v2", "horizontalpodautoscalers");
pub const CRON_JOBS: GroupVersionResource = named("batch", "v1", "cronjobs");
pub const JOBS: GroupVersionResource = named("batch", "v1", "jobs");
pub const LEASES: GroupVersionResource = named("coordination.k8s.io", "v1", "leases");
pub const ENDPOINT_SLICES: GroupVersionResource = named("discovery.k8s.io", "v1", "endpointslices");
pub const IP_ADDRESSES: GroupVersionResource = named("networking.k8s.io", "v1", "ipaddresses");
pub const SERVICE_CIDRS: GroupVersionResource = named("networking.k8s.io", "v1", "servicecidrs");
pub const CLUSTER_ROLES: GroupVersionResource = named("rbac.authorization.k8s.io", "v1", "clusterroles");
pub const CLUSTER_ROLE_BINDINGS: GroupVersionResource =
    named("rbac.authorization.k8s.io", "v1", "clusterrolebindings");
pub const ROLES: GroupVersionResource = named("rbac.authorization.k8s.io", "v1", "roles");
pub const ROLE_BINDINGS: GroupVersionResource = named("rbac.authorization.k8s.io", "v1", "rolebindings");
pub const CUSTOM_RESOURCE_DEFINITIONS: GroupVersionResource =
    named("apiextensions.k8s.io", "v1", "customresourcedefinitions");
pub const POD_DISRUPTION_BUDGETS: GroupVersionResource = named("policy", "v1", "poddisruptionbudgets");
pub const PRIORITY_CLASSES: GroupVersionResource = named("scheduling.k8s.io", "v1", "priorityclasses");
pub const POD_GROUPS: GroupVersionResource = named("scheduling.k8s.io", "v1alpha2", "podgroups");
pub const WORKLOADS: GroupVersionResource = named("scheduling.k8s.io", "v1alpha2", "workloads");
pub const RUNTIME_CLASSES: GroupVersionResource = named("node.k8s.io", "v1", "runtimeclasses");
pub const STORAGE_CLASSES: GroupVersionResource = named("storage.k8s.io", "v1", "storageclasses");
pub const VOLUME_ATTRIBUTES_CLASSES: GroupVersionResource =
    named("storage.k8s.io", "v1", "volumeattributesclasses");
pub const VOLUME_ATTACHMENTS: GroupVersionResource = named("storage.k8s.io", "v1", "volumeattachments");
pub const CSI_DRIVERS: GroupVersionResource = named("storage.k8s.io", "v1", "csidrivers");
pub const CSI_NODES: GroupVersionResource = named("storage.k8s.io", "v1", "csinodes");
pub const CSI_STORAGE_CAPACITIES: GroupVersionResource =
    named("storage.k8s.io", "v1", "csistoragecapacities");
pub const DEVICE_CLASSES: GroupVersionResource = named("resource.k8s.io", "v1", "deviceclasses");
pub const RESOURCE_CLAIMS: GroupVersionResource = named("resource.k8s.io", "v1", "resourceclaims");
pub const RESOURCE_CLAIM_TEMPLATES: GroupVersionResource =
    named("resource.k8s.io", "v1", "resourceclaimtemplates");
pub const RESOURCE_SLICES: GroupVersionResource = named("resource.k8s.io", "v1", "resourceslices");
pub const CERTIFICATE_SIGNING_REQUESTS: GroupVersionResource =
    named("certificates.k8s.io", "v1", "certificatesigningrequests");
pub const SUBJECT_ACCESS_REVIEWS: GroupVersionResource =
    named("authorization.k8s.io", "v1", "subjectaccessreviews");
pub const FLOW_SCHEMAS: GroupVersionResource = named("flowcontrol.apiserver.k8s.io", "v1", "flowschemas");
pub const PRIORITY_LEVEL_CONFIGURATIONS: GroupVersionResource =
    named("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations");
