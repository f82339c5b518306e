//! `v1.Pod`: what the scheduler, the node agent and the controllers read of it.

use apimachinery::Str;
use serde::{Deserialize, Deserializer};

use super::string_map::{Pairs, exact};
use super::{
    AwsElasticBlockStoreVolumeSource, AzureDiskVolumeSource, CinderVolumeSource,
    GcePersistentDiskVolumeSource, LabelSelector, ObjectMeta, PortworxVolumeSource, StringMap,
};

/// `v1.Pod`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    pub metadata: ObjectMeta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

/// `v1.PodSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    pub node_name: Str,
    pub scheduler_name: Str,
    pub service_account_name: Str,
    pub restart_policy: Str,
    pub runtime_class_name: Str,
    pub hostname: Str,
    pub subdomain: Str,
    pub host_network: bool,
    pub priority: Option<i32>,
    pub priority_class_name: Str,
    pub preemption_policy: Str,
    pub active_deadline_seconds: Option<i64>,
    pub termination_grace_period_seconds: Option<i64>,
    #[serde(deserialize_with = "exact")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "exact")]
    pub init_containers: Vec<Container>,
    #[serde(deserialize_with = "exact")]
    pub volumes: Vec<Volume>,
    pub node_selector: StringMap,
    pub affinity: Option<Box<Affinity>>,
    #[serde(deserialize_with = "exact")]
    pub tolerations: Vec<Toleration>,
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    pub scheduling_gates: Vec<PodSchedulingGate>,
    pub scheduling_group: Option<PodSchedulingGroup>,
    pub readiness_gates: Vec<PodReadinessGate>,
    pub resource_claims: Vec<PodResourceClaim>,
    pub overhead: ResourceList,
    /// Pod-level requests and limits.
    pub resources: Option<Box<ResourceRequirements>>,
}

/// `v1.PodSchedulingGroup`: what the pod is scheduled with.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSchedulingGroup {
    pub pod_group_name: Str,
}

/// Amounts by resource name, in the text of the API; `apimachinery::quantity` reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceList(pub StringMap);

/// `v1.Container`, for ordinary and for init containers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    pub name: Str,
    pub image: Str,
    #[serde(deserialize_with = "exact")]
    pub ports: Vec<ContainerPort>,
    pub resources: ResourceRequirements,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Str,
    pub image_pull_policy: Str,
}

/// `v1.ResourceRequirements`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceRequirements {
    pub requests: ResourceList,
    pub limits: ResourceList,
}

/// `v1.ContainerPort`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    pub name: Str,
    pub container_port: i32,
    pub host_port: i32,
    #[serde(rename = "hostIP")]
    pub host_ip: Str,
    /// Empty is `TCP`.
    pub protocol: Str,
}

/// `v1.Volume`, as far as scheduling and protection of claims need it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    pub name: Str,
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    pub ephemeral: Option<EphemeralVolumeSource>,
    // Rare ones, in a pointer each.
    pub gce_persistent_disk: Option<Box<GcePersistentDiskVolumeSource>>,
    pub aws_elastic_block_store: Option<Box<AwsElasticBlockStoreVolumeSource>>,
    pub azure_disk: Option<Box<AzureDiskVolumeSource>>,
    pub cinder: Option<Box<CinderVolumeSource>>,
    pub portworx_volume: Option<Box<PortworxVolumeSource>>,
    pub rbd: Option<Box<RbdVolumeSource>>,
    pub iscsi: Option<Box<IscsiVolumeSource>>,
    pub csi: Option<Box<InlineCsiVolumeSource>>,
}

/// `v1.RBDVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct RbdVolumeSource {
    pub monitors: Vec<Str>,
    pub pool: Str,
    pub image: Str,
    pub read_only: bool,
}

/// `v1.ISCSIVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct IscsiVolumeSource {
    pub iqn: Str,
    pub read_only: bool,
}

/// `v1.CSIVolumeSource`: a driver's volume without a claim.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct InlineCsiVolumeSource {
    pub driver: Str,
}

/// `v1.PersistentVolumeClaimVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeClaimVolumeSource {
    pub claim_name: Str,
    pub read_only: bool,
}

/// `v1.EphemeralVolumeSource`: that there is one says that a claim named after pod and volume exists.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct EphemeralVolumeSource {}

/// `v1.Affinity`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Affinity {
    pub node_affinity: Option<NodeAffinity>,
    pub pod_affinity: Option<PodAffinity>,
    pub pod_anti_affinity: Option<PodAffinity>,
}

/// `v1.NodeAffinity`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<PreferredSchedulingTerm>,
}

/// `v1.NodeSelector`: terms are ORed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelector {
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

/// `v1.NodeSelectorTerm`: requirements are ANDed; a term without any matches nothing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelectorTerm {
    pub match_expressions: Vec<NodeSelectorRequirement>,
    pub match_fields: Vec<NodeSelectorRequirement>,
}

/// `v1.NodeSelectorRequirement`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelectorRequirement {
    pub key: Str,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`.
    pub operator: Str,
    pub values: Vec<Str>,
}

/// `v1.PreferredSchedulingTerm`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PreferredSchedulingTerm {
    pub weight: i32,
    pub preference: NodeSelectorTerm,
}

/// `v1.PodAffinity` and `v1.PodAntiAffinity`, which have the same fields.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Vec<PodAffinityTerm>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<WeightedPodAffinityTerm>,
}

/// `v1.WeightedPodAffinityTerm`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct WeightedPodAffinityTerm {
    pub weight: i32,
    pub pod_affinity_term: PodAffinityTerm,
}

/// `v1.PodAffinityTerm`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodAffinityTerm {
    pub label_selector: Option<LabelSelector>,
    pub namespaces: Vec<Str>,
    pub namespace_selector: Option<LabelSelector>,
    pub topology_key: Str,
    pub match_label_keys: Vec<Str>,
    pub mismatch_label_keys: Vec<Str>,
}

/// `v1.TopologySpreadConstraint`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct TopologySpreadConstraint {
    pub max_skew: i32,
    pub topology_key: Str,
    pub when_unsatisfiable: Str,
    pub label_selector: Option<LabelSelector>,
    pub min_domains: Option<i32>,
    pub node_affinity_policy: Str,
    pub node_taints_policy: Str,
    pub match_label_keys: Vec<Str>,
}

/// `v1.Toleration`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Toleration {
    /// Empty with operator `Exists` tolerates every key.
    pub key: Str,
    /// Empty is `Equal`.
    pub operator: Str,
    pub value: Str,
    /// Empty tolerates every effect.
    pub effect: Str,
    pub toleration_seconds: Option<i64>,
}

/// `v1.PodSchedulingGate`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSchedulingGate {
    pub name: Str,
}

/// `v1.PodReadinessGate`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodReadinessGate {
    pub condition_type: Str,
}

/// `v1.PodResourceClaim`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodResourceClaim {
    pub name: Str,
    pub resource_claim_name: Str,
    pub resource_claim_template_name: Str,
}

/// `v1.PodResourceClaimStatus`: what was made for an entry of `spec.resourceClaims` with a template.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodResourceClaimStatus {
    pub name: Str,
    /// Not set when no claim is needed.
    pub resource_claim_name: Option<Str>,
}

/// `v1.PodStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Str,
    pub reason: Str,
    pub message: Str,
    pub nominated_node_name: Str,
    pub qos_class: Str,
    pub start_time: Option<Str>,
    pub observed_generation: i64,
    #[serde(rename = "hostIP")]
    pub host_ip: Str,
    #[serde(rename = "podIP")]
    pub pod_ip: Str,
    #[serde(rename = "podIPs")]
    #[serde(deserialize_with = "exact")]
    pub pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "exact")]
    pub conditions: Vec<Condition>,
    #[serde(deserialize_with = "exact")]
    pub container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "exact")]
    pub init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "exact")]
    pub resource_claim_statuses: Vec<PodResourceClaimStatus>,
}

/// `v1.PodIP`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PodIp {
    pub ip: Str,
}

/// A condition of any kind: the fields that `v1.PodCondition`, `v1.NodeCondition` and `metav1.Condition` share.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: Str,
    /// `True`, `False` or `Unknown`.
    pub status: Str,
    pub reason: Str,
    pub message: Str,
    pub last_transition_time: Option<Str>,
    /// Nodes only.
    pub last_heartbeat_time: Option<Str>,
    pub observed_generation: i64,
}

/// `v1.ContainerStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    pub name: Str,
    pub ready: bool,
    pub started: Option<bool>,
    pub restart_count: i32,
    pub image: Str,
    #[serde(rename = "imageID")]
    pub image_id: Str,
    #[serde(rename = "containerID")]
    pub container_id: Str,
    pub state: ContainerState,
    pub last_state: ContainerState,
}

/// `v1.ContainerState`: one of them is set; none means waiting.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerState {
    pub waiting: Option<ContainerStateWaiting>,
    pub running: Option<ContainerStateRunning>,
    pub terminated: Option<ContainerStateTerminated>,
}

/// `v1.ContainerStateWaiting`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStateWaiting {
    pub reason: Str,
}

/// `v1.ContainerStateRunning`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStateRunning {
    pub started_at: Option<Str>,
}

/// `v1.ContainerStateTerminated`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStateTerminated {
    pub exit_code: i32,
    pub signal: i32,
    pub reason: Str,
    pub finished_at: Option<Str>,
}

// === impl Pod ===

impl Pod {
    /// Done for good: no container will start again.
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// The `Ready` condition is true.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(Condition::is_true)
    }
}

impl Condition {
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

impl Container {
    /// An init container that keeps running beside the ordinary ones.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
    }
}

// === impl ResourceList ===

impl ResourceList {
    pub fn get(&self, name: &str) -> Option<&Str> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Str, &Str)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for ResourceList {
    /// A quantity may be written as a number (`cpu: 1`).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Amount {
            Text(Str),
            Whole(i64),
            Decimal(f64),
        }
        let amounts = Option::<Pairs<Amount>>::deserialize(deserializer)?.unwrap_or_default();
        let text = |amount| match amount {
            Amount::Text(text) => text,
            Amount::Whole(number) => number.to_string().into(),
            Amount::Decimal(number) => number.to_string().into(),
        };
        Ok(Self(amounts.0.into_iter().map(|(name, amount)| (name, text(amount))).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_names_with_capital_ip_are_read() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"a","managedFields":[{}]},
                "spec":{"containers":[{"name":"c","ports":[{"hostPort":80,"hostIP":"127.0.0.1"}],
                  "resources":{"requests":{"cpu":1,"memory":"1Gi","x.io/y":0.5}}}],
                  "affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}]}}}},
                "status":{"podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],"hostIP":"10.0.1.1",
                  "conditions":[{"type":"Ready","status":"True"}],
                  "containerStatuses":[{"name":"c","containerID":"x","imageID":"y","state":{"terminated":{"exitCode":3}}}]}}"#,
        )
        .unwrap();
        assert_eq!(pod.status.pod_ip, "10.0.0.1");
        assert_eq!(pod.status.pod_ips[0].ip, "10.0.0.1");
        assert_eq!(pod.status.host_ip, "10.0.1.1");
        assert!(pod.is_ready() && !pod.is_terminal());
        let container = &pod.spec.containers[0];
        assert_eq!(container.ports[0].host_ip, "127.0.0.1");
        let requests: Vec<_> = container.resources.requests.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(requests, ["cpu=1", "memory=1Gi", "x.io/y=0.5"]);
        let status = &pod.status.container_statuses[0];
        assert_eq!((status.container_id.as_str(), status.image_id.as_str()), ("x", "y"));
        assert_eq!(status.state.terminated.as_ref().unwrap().exit_code, 3);
        let affinity = pod.spec.affinity.unwrap().node_affinity.unwrap().required.unwrap();
        assert_eq!(affinity.node_selector_terms[0].match_fields[0].values, ["n"]);
    }
}
