//! Fields whose feature gate is off: they are dropped from what clients write, unless the object has them already.
//!
//! Upstream drops a field without a word and keeps one that is in use, so that turning a gate off does not break
//! objects. Here that is one table; [`Dropped`] is the part of it that matters for a kind, made once.

use apimachinery::Value;

use super::Features;

/// Gate and the path of a field in the spec of a pod. `*` stands for every item of a list.
const POD_FIELDS: &[(&str, &str)] = &[
    ("ClusterTrustBundleProjection", "volumes.*.projected.sources.*.clusterTrustBundle"),
    ("ContainerRestartRules", "containers.*.restartPolicyRules"),
    ("ContainerRestartRules", "initContainers.*.restartPolicyRules"),
    ("ContainerRestartRules", "ephemeralContainers.*.restartPolicyRules"),
    ("ContainerRestartRules", "containers.*.restartPolicy"),
    ("ContainerStopSignals", "containers.*.lifecycle.stopSignal"),
    ("ContainerStopSignals", "initContainers.*.lifecycle.stopSignal"),
    ("ContainerStopSignals", "ephemeralContainers.*.lifecycle.stopSignal"),
    ("DynamicResourceAllocation", "resourceClaims"),
    ("DynamicResourceAllocation", "containers.*.resources.claims"),
    ("DynamicResourceAllocation", "initContainers.*.resources.claims"),
    ("DynamicResourceAllocation", "ephemeralContainers.*.resources.claims"),
    ("EnvFiles", "containers.*.env.*.valueFrom.fileKeyRef"),
    ("EnvFiles", "initContainers.*.env.*.valueFrom.fileKeyRef"),
    ("EnvFiles", "ephemeralContainers.*.env.*.valueFrom.fileKeyRef"),
    ("GenericWorkload", "schedulingGroup"),
    ("HostnameOverride", "hostnameOverride"),
    ("ImageVolume", "volumes.*.image"),
    ("MatchLabelKeysInPodTopologySpread", "topologySpreadConstraints.*.matchLabelKeys"),
    ("NodeInclusionPolicyInPodTopologySpread", "topologySpreadConstraints.*.nodeAffinityPolicy"),
    ("NodeInclusionPolicyInPodTopologySpread", "topologySpreadConstraints.*.nodeTaintsPolicy"),
    ("PodCertificateRequest", "volumes.*.projected.sources.*.podCertificate"),
    ("PodLevelResources", "resources"),
    ("ProcMountType", "containers.*.securityContext.procMount"),
    ("ProcMountType", "initContainers.*.securityContext.procMount"),
    ("ProcMountType", "ephemeralContainers.*.securityContext.procMount"),
    ("SELinuxChangePolicy", "securityContext.seLinuxChangePolicy"),
    ("SupplementalGroupsPolicy", "securityContext.supplementalGroupsPolicy"),
    ("UserNamespacesSupport", "hostUsers"),
];

/// Where the kinds with a pod's spec have it.
const POD_SPECS: &[(&str, &str, &str)] = &[
    ("", "Pod", "spec"),
    ("", "PodTemplate", "template.spec"),
    ("", "ReplicationController", "spec.template.spec"),
    ("apps", "DaemonSet", "spec.template.spec"),
    ("apps", "Deployment", "spec.template.spec"),
    ("apps", "ReplicaSet", "spec.template.spec"),
    ("apps", "StatefulSet", "spec.template.spec"),
    ("batch", "CronJob", "spec.jobTemplate.spec.template.spec"),
    ("batch", "Job", "spec.template.spec"),
];

/// Gate, group, kind and path of other fields.
const FIELDS: &[(&str, &str, &str, &str)] = &[
    ("CoordinatedLeaderElection", "coordination.k8s.io", "Lease", "spec.preferredHolder"),
    ("CoordinatedLeaderElection", "coordination.k8s.io", "Lease", "spec.strategy"),
    ("DRAConsumableCapacity", "resource.k8s.io", "ResourceSlice", "spec.devices.*.allowMultipleAllocations"),
    ("DRADeviceBindingConditions", "resource.k8s.io", "ResourceSlice", "spec.devices.*.bindingConditions"),
    (
        "DRADeviceBindingConditions",
        "resource.k8s.io",
        "ResourceSlice",
        "spec.devices.*.bindingFailureConditions",
    ),
    ("DRADeviceBindingConditions", "resource.k8s.io", "ResourceSlice", "spec.devices.*.bindsToNode"),
    ("DRADeviceTaints", "resource.k8s.io", "ResourceSlice", "spec.devices.*.taints"),
    ("DRAExtendedResource", "resource.k8s.io", "DeviceClass", "spec.extendedResourceName"),
    (
        "DRANodeAllocatableResources",
        "resource.k8s.io",
        "ResourceSlice",
        "spec.devices.*.nodeAllocatableResourceMappings",
    ),
    ("DRAPartitionableDevices", "resource.k8s.io", "ResourceSlice", "spec.sharedCounters"),
    ("DRAPartitionableDevices", "resource.k8s.io", "ResourceSlice", "spec.perDeviceNodeSelection"),
    ("DRAPartitionableDevices", "resource.k8s.io", "ResourceSlice", "spec.devices.*.consumesCounters"),
    ("DRAPrioritizedList", "resource.k8s.io", "ResourceClaim", "spec.devices.requests.*.firstAvailable"),
    ("DRAResourceClaimDeviceStatus", "resource.k8s.io", "ResourceClaim", "status.devices"),
    ("DRAWorkloadResourceClaims", "scheduling.k8s.io", "PodGroup", "spec.resourceClaims"),
    ("DRAWorkloadResourceClaims", "scheduling.k8s.io", "Workload", "spec.podGroupTemplates.*.resourceClaims"),
    ("DeploymentReplicaSetTerminatingReplicas", "apps", "Deployment", "status.terminatingReplicas"),
    ("DeploymentReplicaSetTerminatingReplicas", "apps", "ReplicaSet", "status.terminatingReplicas"),
    (
        "HPAConfigurableTolerance",
        "autoscaling",
        "HorizontalPodAutoscaler",
        "spec.behavior.scaleDown.tolerance",
    ),
    ("HPAConfigurableTolerance", "autoscaling", "HorizontalPodAutoscaler", "spec.behavior.scaleUp.tolerance"),
    ("MaxUnavailableStatefulSet", "apps", "StatefulSet", "spec.updateStrategy.rollingUpdate.maxUnavailable"),
    ("NodeDeclaredFeatures", "", "Node", "status.declaredFeatures"),
    ("TopologyAwareWorkloadScheduling", "scheduling.k8s.io", "PodGroup", "spec.schedulingConstraints"),
    (
        "TopologyAwareWorkloadScheduling",
        "scheduling.k8s.io",
        "Workload",
        "spec.podGroupTemplates.*.schedulingConstraints",
    ),
    ("WorkloadAwarePreemption", "scheduling.k8s.io", "PodGroup", "spec.disruptionMode"),
    ("WorkloadAwarePreemption", "scheduling.k8s.io", "PodGroup", "spec.priority"),
    ("WorkloadAwarePreemption", "scheduling.k8s.io", "PodGroup", "spec.priorityClassName"),
    ("WorkloadAwarePreemption", "scheduling.k8s.io", "Workload", "spec.podGroupTemplates.*.disruptionMode"),
    ("WorkloadAwarePreemption", "scheduling.k8s.io", "Workload", "spec.podGroupTemplates.*.priority"),
    (
        "WorkloadAwarePreemption",
        "scheduling.k8s.io",
        "Workload",
        "spec.podGroupTemplates.*.priorityClassName",
    ),
];

/// The fields of one kind that are off.
#[derive(Debug, Default)]
pub struct Dropped {
    paths: Vec<Vec<&'static str>>,
}

impl Dropped {
    pub fn of(group: &str, kind: &str, features: &Features) -> Self {
        let mut paths = Vec::new();
        for (_, _, spec) in POD_SPECS.iter().filter(|row| (row.0, row.1) == (group, kind)) {
            for (_, field) in POD_FIELDS.iter().filter(|(gate, _)| !features.enabled(gate)) {
                paths.push(spec.split('.').chain(field.split('.')).collect());
            }
        }
        for (gate, _, _, field) in FIELDS.iter().filter(|row| (row.1, row.2) == (group, kind)) {
            if !features.enabled(gate) {
                paths.push(field.split('.').collect());
            }
        }
        Self { paths }
    }

    /// Hot path: every write. Takes the fields out of `new` that `old`, if there is one, does not use.
    pub fn apply(&self, new: &mut Value, old: Option<&Value>) {
        for path in &self.paths {
            if !old.is_some_and(|old| is_used(old, path)) {
                remove(new, path);
            }
        }
    }
}

fn is_used(value: &Value, path: &[&str]) -> bool {
    match path {
        [] => true,
        ["*", rest @ ..] => value.as_array().into_iter().flatten().any(|item| is_used(item, rest)),
        [key, rest @ ..] => value.get(key).is_some_and(|field| is_used(field, rest)),
    }
}

fn remove(value: &mut Value, path: &[&str]) {
    match path {
        [] => {}
        ["*", rest @ ..] => {
            value.as_array_mut().into_iter().flatten().for_each(|item| remove(item, rest));
        }
        [last] => {
            value.as_object_mut().and_then(|map| map.remove(last));
        }
        [key, rest @ ..] => {
            if let Some(field) = value.get_mut(key) {
                remove(field, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn every_path_is_of_a_known_gate_and_a_known_field() {
        let exists = |group: &str, kind: &str, path: &str| {
            crate::builtin::all_resources()
                .iter()
                .filter(|resource| resource.group == group && resource.kind == kind)
                .any(|resource| {
                    let mut at = Some(resource.schema.root());
                    for key in path.split('.') {
                        at = at.and_then(|node| if key == "*" { node.items() } else { node.child(key) });
                    }
                    at.is_some()
                })
        };
        for (gate, group, kind, path) in FIELDS {
            assert!(super::super::find(gate).is_some(), "{gate}");
            assert!(exists(group, kind, path), "{kind} {path}");
        }
        for (gate, path) in POD_FIELDS {
            assert!(super::super::find(gate).is_some(), "{gate}");
            for (group, kind, spec) in POD_SPECS {
                assert!(exists(group, kind, &format!("{spec}.{path}")), "{kind} {spec}.{path}");
            }
        }
    }

    #[test]
    fn a_field_that_is_off_goes_unless_it_was_there() {
        let dropped = Dropped::of("", "Pod", &Features::default());
        let pod = |signal: bool| {
            let lifecycle = if signal { json!({"stopSignal": "SIGUSR1"}) } else { json!({}) };
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "lifecycle": lifecycle}]}})
        };
        let mut new = pod(true);
        dropped.apply(&mut new, None);
        assert_eq!(new, pod(false));
        let mut new = pod(true);
        dropped.apply(&mut new, Some(&pod(false)));
        assert_eq!(new, pod(false));
        let mut new = pod(true);
        dropped.apply(&mut new, Some(&pod(true)));
        assert_eq!(new, pod(true));
        let on = Features::parse("ContainerStopSignals=true").unwrap();
        Dropped::of("", "Pod", &on).apply(&mut new, None);
        assert_eq!(new, pod(true));
    }
}
