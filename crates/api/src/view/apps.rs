//! `apps/v1`, and the ReplicationController before it: what the controllers of its kinds read.

use apimachinery::{Str, Value};
use serde::{Deserialize, Deserializer};

use super::{Condition, LabelSelector, ObjectMeta, StringMap};

/// The label that tells the pods of a Deployment's ReplicaSets apart.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// `apps/v1.Deployment`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Deployment {
    pub metadata: ObjectMeta,
    pub spec: DeploymentSpec,
    pub status: DeploymentStatus,
}

/// `apps/v1.DeploymentSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeploymentSpec {
    pub replicas: Option<i32>,
    pub selector: LabelSelector,
    pub template: PodTemplate,
    pub strategy: DeploymentStrategy,
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
    pub paused: bool,
    pub progress_deadline_seconds: Option<i32>,
}

/// `apps/v1.DeploymentStrategy`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeploymentStrategy {
    /// `RollingUpdate` or `Recreate`.
    #[serde(rename = "type")]
    pub type_: Str,
    pub rolling_update: Option<RollingUpdateDeployment>,
}

/// `apps/v1.RollingUpdateDeployment`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct RollingUpdateDeployment {
    pub max_unavailable: Option<IntOrString>,
    pub max_surge: Option<IntOrString>,
}

/// `intstr.IntOrString`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum IntOrString {
    Int(i32),
    String(Str),
}

/// `apps/v1.DeploymentStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub unavailable_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub conditions: Vec<DeploymentCondition>,
    pub collision_count: Option<i32>,
}

/// `apps/v1.DeploymentCondition`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DeploymentCondition {
    #[serde(rename = "type")]
    pub type_: Str,
    pub status: Str,
    pub reason: Str,
    pub message: Str,
    pub last_update_time: Option<Str>,
    pub last_transition_time: Option<Str>,
}

/// `apps/v1.ReplicaSet`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicaSet {
    pub metadata: ObjectMeta,
    pub spec: ReplicaSetSpec,
    pub status: ReplicaSetStatus,
}

/// `apps/v1.ReplicaSetSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicaSetSpec {
    pub replicas: Option<i32>,
    pub min_ready_seconds: i32,
    pub selector: LabelSelector,
    pub template: PodTemplate,
}

/// `apps/v1.ReplicaSetStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicaSetStatus {
    pub replicas: i32,
    pub fully_labeled_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub observed_generation: i64,
    pub conditions: Vec<Condition>,
}

/// `v1.ReplicationController`, in the terms of a ReplicaSet: its selector is a map of labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicationController(ReplicaSet);

/// `apps/v1.StatefulSet`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSet {
    pub metadata: ObjectMeta,
    pub spec: StatefulSetSpec,
    pub status: StatefulSetStatus,
}

/// `apps/v1.StatefulSetSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSetSpec {
    pub replicas: Option<i32>,
    pub selector: LabelSelector,
    pub template: PodTemplate,
    /// Whole PersistentVolumeClaims: claims are made of them.
    pub volume_claim_templates: Vec<Value>,
    pub service_name: Str,
    /// `OrderedReady` or `Parallel`.
    pub pod_management_policy: Str,
    pub update_strategy: StatefulSetUpdateStrategy,
    pub revision_history_limit: Option<i32>,
    pub min_ready_seconds: i32,
    pub persistent_volume_claim_retention_policy: PersistentVolumeClaimRetentionPolicy,
    pub ordinals: StatefulSetOrdinals,
}

/// `apps/v1.StatefulSetUpdateStrategy`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSetUpdateStrategy {
    /// `RollingUpdate` or `OnDelete`.
    #[serde(rename = "type")]
    pub type_: Str,
    pub rolling_update: Option<RollingUpdateStatefulSetStrategy>,
}

/// `apps/v1.RollingUpdateStatefulSetStrategy`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct RollingUpdateStatefulSetStrategy {
    pub partition: i32,
}

/// `apps/v1.StatefulSetPersistentVolumeClaimRetentionPolicy`: `Retain` or `Delete`; absent is `Retain`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeClaimRetentionPolicy {
    pub when_deleted: Str,
    pub when_scaled: Str,
}

/// `apps/v1.StatefulSetOrdinals`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSetOrdinals {
    pub start: i32,
}

/// `apps/v1.StatefulSetStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSetStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub current_replicas: i32,
    pub updated_replicas: i32,
    pub current_revision: Str,
    pub update_revision: Str,
    pub collision_count: Option<i32>,
}

/// `apps/v1.DaemonSet`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSet {
    pub metadata: ObjectMeta,
    pub spec: DaemonSetSpec,
    pub status: DaemonSetStatus,
}

/// `apps/v1.DaemonSetSpec`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSetSpec {
    pub selector: LabelSelector,
    pub template: PodTemplate,
    pub update_strategy: DaemonSetUpdateStrategy,
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
}

/// `apps/v1.DaemonSetUpdateStrategy`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSetUpdateStrategy {
    /// `RollingUpdate` or `OnDelete`.
    #[serde(rename = "type")]
    pub type_: Str,
    pub rolling_update: Option<RollingUpdateDaemonSet>,
}

/// `apps/v1.RollingUpdateDaemonSet`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct RollingUpdateDaemonSet {
    pub max_unavailable: Option<IntOrString>,
    pub max_surge: Option<IntOrString>,
}

/// `apps/v1.DaemonSetStatus`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSetStatus {
    pub observed_generation: i64,
    pub desired_number_scheduled: i32,
    pub current_number_scheduled: i32,
    pub number_misscheduled: i32,
    pub number_ready: i32,
    pub number_available: i32,
    pub number_unavailable: i32,
    pub updated_number_scheduled: i32,
    pub collision_count: Option<i32>,
}

/// `apps/v1.ControllerRevision`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ControllerRevision {
    pub revision: i64,
    pub data: Value,
}

/// `v1.PodTemplateSpec`, whole: pods are made of it, so no field may be lost. The [`POD_TEMPLATE_HASH`] label is kept
/// apart, because templates are compared without it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodTemplate {
    bare: Value,
    hash: Option<Str>,
}

// === impl ReplicationController ===

impl ReplicationController {
    pub fn as_replica_set(&self) -> &ReplicaSet {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ReplicationController {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Spec {
            replicas: Option<i32>,
            min_ready_seconds: i32,
            selector: StringMap,
            template: PodTemplate,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Whole {
            metadata: ObjectMeta,
            spec: Spec,
            status: ReplicaSetStatus,
        }
        let Whole { metadata, spec, status } = Whole::deserialize(deserializer)?;
        let Spec { replicas, min_ready_seconds, selector, template } = spec;
        let selector = LabelSelector { match_labels: selector, ..LabelSelector::default() };
        let spec = ReplicaSetSpec { replicas, min_ready_seconds, selector, template };
        Ok(Self(ReplicaSet { metadata, spec, status }))
    }
}

// === impl PodTemplate ===

impl PodTemplate {
    pub fn new(mut tree: Value) -> Self {
        let hash = tree.remove_at(&["metadata", "labels", POD_TEMPLATE_HASH]);
        Self { hash: hash.and_then(|hash| hash.as_str().map(Str::from)), bare: tree }
    }

    /// The template without the hash label.
    pub fn bare(&self) -> &Value {
        &self.bare
    }

    /// The template as it is written in the object.
    pub fn to_value(&self) -> Value {
        let mut tree = self.bare.clone();
        if let Some(hash) = &self.hash {
            tree.set_at(&["metadata", "labels", POD_TEMPLATE_HASH], hash.clone());
        }
        tree
    }

    /// Equal up to the hash label. A label map that is empty is one that is absent.
    pub fn equal_ignoring_hash(&self, other: &Self) -> bool {
        if self.bare == other.bare {
            return true;
        }
        self.normalized() == other.normalized()
    }

    /// Labels without the hash, in key order.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.bare.at(&["metadata", "labels"]).and_then(Value::as_object);
        labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
    }

    pub fn hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }

    fn normalized(&self) -> Value {
        let mut tree = self.bare.clone();
        let metadata = tree.ensure_object_at(&["metadata"]);
        metadata.retain(|key, field| {
            !(field.is_null()
                || key == "creationTimestamp"
                || field.as_object().is_some_and(|map| map.is_empty()))
        });
        tree
    }
}

impl<'de> Deserialize<'de> for PodTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::new)
    }
}

// === impl IntOrString ===

impl IntOrString {
    /// The number, or the percentage of `total`; `round_up` decides about fractions. `None` when the text is no
    /// percentage.
    pub fn scaled(&self, total: i32, round_up: bool) -> Option<i32> {
        let text = match self {
            Self::Int(number) => return Some(*number),
            Self::String(text) => text,
        };
        let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
        let hundredths = percent.checked_mul(total.into())?;
        let fraction = i64::from(round_up && hundredths.rem_euclid(100) > 0);
        i32::try_from(hundredths.div_euclid(100) + fraction).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_compared_without_the_hash_label() {
        let read = |text: &str| serde_json::from_str::<PodTemplate>(text).unwrap();
        let a =
            read(r#"{"metadata":{"labels":{"app":"a","pod-template-hash":"x"}},"spec":{"containers":[]}}"#);
        let b = read(r#"{"metadata":{"labels":{"app":"a"}},"spec":{"containers":[]}}"#);
        let c = read(r#"{"metadata":{"labels":{"app":"c"}},"spec":{"containers":[]}}"#);
        let only_hash = read(r#"{"metadata":{"labels":{"pod-template-hash":"x"}},"spec":{}}"#);
        let nothing = read(r#"{"spec":{}}"#);
        assert!(a.equal_ignoring_hash(&b) && !a.equal_ignoring_hash(&c));
        assert!(only_hash.equal_ignoring_hash(&nothing));
        assert_eq!((a.hash(), b.hash()), (Some("x"), None));
        assert_eq!(a.to_value().str_at(&["metadata", "labels", POD_TEMPLATE_HASH]), "x");
    }

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!((quarter.scaled(10, true), quarter.scaled(10, false)), (Some(3), Some(2)));
        assert_eq!(IntOrString::Int(4).scaled(10, true), Some(4));
        assert_eq!(IntOrString::String("many".into()).scaled(10, true), None);
    }
}
