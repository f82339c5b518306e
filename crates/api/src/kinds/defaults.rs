//! Upstream's scheme defaults that are simple data, as one table of rules per kind.
//!
//! A rule says where, when and what; [`apply`] walks an object along its rules. Defaults that compute something are
//! functions and stand in the same tables as [`Rule::Call`]. Pods and services are hot and have their own code
//! ([`pod`](super::core::pod)).
//!
//! Paths are dotted and lead from the enclosing rule: `a.b` makes missing objects on the way, as Go's embedded
//! structs are always there; [`Rule::At`] visits only what exists, as behind Go's pointers, and `items[]` visits
//! every item of a list, `map{}` every value of a map.

use apimachinery::{Map, Value};

use super::core::persistent_volume_claim;
use super::core::pod::defaults as pod;
use crate::validation::fields::{Fields, is_empty};

pub type Table = &'static [Rule];

/// One default.
#[derive(Clone, Copy)]
pub enum Rule {
    /// Set when the field is missing or has its type's zero value.
    Empty(&'static str, To),
    /// Set only when the field is missing: what is a nil pointer upstream.
    Missing(&'static str, To),
    /// Rules for everything at a path, where it exists.
    At(&'static str, Table),
    /// Rules that hold only if the object at hand passes a test.
    If(Test, Table),
    Call(fn(&mut Value)),
}

/// A default's value.
#[derive(Clone, Copy)]
pub enum To {
    Text(&'static str),
    Int(i64),
    Bool(bool),
    /// `{}`.
    Object,
    /// Any JSON.
    Json(&'static str),
    /// The value of the field next to it, if it has one.
    Sibling(&'static str),
}

#[derive(Clone, Copy)]
pub enum Test {
    Is(&'static str, &'static str),
    Has(&'static str),
    /// Has it, and not as its type's zero value.
    Filled(&'static str),
    Lacks(&'static str),
}

use Rule::{At, Call, Empty, If, Missing};
use Test::{Filled, Has, Is, Lacks};
use To::{Bool, Int, Json, Object, Sibling, Text};

/// The defaults of a kind; none for kinds without, and for those whose code does it all.
pub fn of(group: &str, kind: &str) -> Table {
    ALL.iter()
        .find(|(own_group, own_kind, _)| *own_group == group && *own_kind == kind)
        .map_or(&[], |row| row.2)
}

/// Fills an object by a table of rules. Idempotent.
pub fn apply(rules: Table, object: &mut Value) {
    for rule in rules {
        match *rule {
            Empty(path, to) => fill(object, path, to, is_empty),
            Missing(path, to) => fill(object, path, to, |value| value.is_none_or(Value::is_null)),
            At(path, rules) => each(object, path, &mut |value| apply(rules, value)),
            If(test, rules) => {
                if passes(object, test) {
                    apply(rules, object);
                }
            }
            Call(function) => function(object),
        }
    }
}

fn passes(object: &Value, test: Test) -> bool {
    match test {
        Is(key, text) => object.text(key) == text,
        Has(key) => object.has(key),
        Filled(key) => !is_empty(object.get(key)),
        Lacks(key) => !object.has(key),
    }
}

fn fill(object: &mut Value, path: &str, to: To, unset: impl Fn(Option<&Value>) -> bool) {
    let (parents, key) = path.rsplit_once('.').map_or(("", path), |(parents, key)| (parents, key));
    let mut holder = object;
    for step in parents.split('.').filter(|step| !step.is_empty()) {
        holder = holder.ensure_object().get_or_insert_with(step, Value::object);
        if holder.is_null() {
            *holder = Value::object();
        }
    }
    let holder = holder.ensure_object();
    if unset(holder.get(key))
        && let Some(value) = made(to, holder)
    {
        holder.insert(key, value);
    }
}

fn made(to: To, holder: &Map) -> Option<Value> {
    match to {
        Text(text) => Some(text.into()),
        Int(number) => Some(number.into()),
        Bool(flag) => Some(flag.into()),
        Object => Some(Value::object()),
        Json(json) => Value::parse(json.as_bytes()).ok(),
        Sibling(key) => holder.maybe(key).cloned(),
    }
}

/// Calls `visit` for everything at a path.
pub fn each(object: &mut Value, path: &str, visit: &mut dyn FnMut(&mut Value)) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let mut descend = |value: &mut Value| match rest {
        Some(rest) => each(value, rest, visit),
        None => visit(value),
    };
    if let Some(key) = step.strip_suffix("[]") {
        let items = object.get_mut(key).and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(descend);
    } else if let Some(key) = step.strip_suffix("{}") {
        let map = object.get_mut(key).and_then(Value::as_object_mut);
        map.into_iter().flat_map(Map::values_mut).for_each(descend);
    } else if let Some(value) = object.get_mut(step)
        && value.is_object()
    {
        descend(value);
    }
}

const MATCH_RESOURCES: Table = &[
    Missing("matchPolicy", Text("Equivalent")),
    Missing("namespaceSelector", Object),
    Missing("objectSelector", Object),
    At("resourceRules[]", RULE),
    At("excludeResourceRules[]", RULE),
];
const RULE: Table = &[Missing("scope", Text("*"))];
const SERVICE_REFERENCE: Table = &[Missing("port", Int(443))];
const WEBHOOK: Table = &[
    Missing("failurePolicy", Text("Fail")),
    Missing("matchPolicy", Text("Equivalent")),
    Missing("namespaceSelector", Object),
    Missing("objectSelector", Object),
    Missing("timeoutSeconds", Int(10)),
    At("rules[]", RULE),
    At("clientConfig.service", SERVICE_REFERENCE),
];
const DEVICE_REQUEST: Table = &[
    Empty("allocationMode", Text("ExactCount")),
    If(Is("allocationMode", "ExactCount"), &[Empty("count", Int(1))]),
    At("tolerations[]", DEVICE_TOLERATION),
];
const DEVICE_TOLERATION: Table = &[Empty("operator", Text("Equal"))];
/// The forms of all served versions: `exactly` and sub-requests of v1, the flat request of v1beta1.
const CLAIM_DEVICES: Table = &[At(
    "requests[]",
    &[
        At("exactly", DEVICE_REQUEST),
        At("firstAvailable[]", DEVICE_REQUEST),
        If(Filled("deviceClassName"), DEVICE_REQUEST),
    ],
)];
const SLICE_DEVICES: Table =
    &[At("nodeAllocatableResourceMappings{}", &[Missing("allocationMultiplier", Text("1"))])];
const SUBJECT: Table = &[
    If(Is("kind", "User"), &[Empty("apiGroup", Text("rbac.authorization.k8s.io"))]),
    If(Is("kind", "Group"), &[Empty("apiGroup", Text("rbac.authorization.k8s.io"))]),
];
const BINDING: Table =
    &[Empty("roleRef.apiGroup", Text("rbac.authorization.k8s.io")), At("subjects[]", SUBJECT)];
const LABELS_FROM_TEMPLATE: Rule = Call(labels_from_template);

const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// Every kind whose defaults are data.
const ALL: &[(&str, &str, Table)] = &[
    ("", "Endpoints", &[At("subsets[].ports[]", &[Empty("protocol", Text("TCP"))])]),
    (
        "",
        "LimitRange",
        &[At("spec.limits[]", &[If(Is("type", "Container"), &[Call(limit_range_container)])])],
    ),
    ("", "Namespace", &[Call(namespace_name_label), Empty("status.phase", Text("Active"))]),
    ("", "Node", &[At("status", &[Missing("allocatable", Sibling("capacity"))])]),
    (
        "",
        "PersistentVolume",
        &[
            Empty("status.phase", Text("Pending")),
            Empty("spec.persistentVolumeReclaimPolicy", Text("Retain")),
            Missing("spec.volumeMode", Text("Filesystem")),
            At("spec", &[Call(pod::shared_volume_source)]),
            At(
                "spec.scaleIO",
                &[Empty("storageMode", Text("ThinProvisioned")), Empty("fsType", Text("xfs"))],
            ),
        ],
    ),
    (
        "",
        "PersistentVolumeClaim",
        &[Empty("status.phase", Text("Pending")), At("spec", &[Call(persistent_volume_claim::default_spec)])],
    ),
    ("", "PodTemplate", &[At("template", &[Call(pod::template)])]),
    (
        "",
        "ReplicationController",
        &[
            At("spec.template", &[Call(pod::template)]),
            Call(selector_from_template),
            LABELS_FROM_TEMPLATE,
            Missing("spec.replicas", Int(1)),
        ],
    ),
    ("", "Secret", &[Empty("type", Text("Opaque"))]),
    (
        ADMISSION,
        "MutatingAdmissionPolicy",
        &[Missing("spec.failurePolicy", Text("Fail")), At("spec.matchConstraints", MATCH_RESOURCES)],
    ),
    (ADMISSION, "MutatingAdmissionPolicyBinding", &[At("spec.matchResources", MATCH_RESOURCES)]),
    (
        ADMISSION,
        "MutatingWebhookConfiguration",
        &[At("webhooks[]", WEBHOOK), At("webhooks[]", &[Missing("reinvocationPolicy", Text("Never"))])],
    ),
    (
        ADMISSION,
        "ValidatingAdmissionPolicy",
        &[Missing("spec.failurePolicy", Text("Fail")), At("spec.matchConstraints", MATCH_RESOURCES)],
    ),
    (ADMISSION, "ValidatingAdmissionPolicyBinding", &[At("spec.matchResources", MATCH_RESOURCES)]),
    (ADMISSION, "ValidatingWebhookConfiguration", &[At("webhooks[]", WEBHOOK)]),
    (
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        &[
            Call(crd_names),
            Missing("spec.conversion", Json(r#"{"strategy":"None"}"#)),
            At("spec.conversion.webhook.clientConfig.service", SERVICE_REFERENCE),
            Call(crd_stored_versions),
        ],
    ),
    ("apiregistration.k8s.io", "APIService", &[At("spec.service", SERVICE_REFERENCE)]),
    (
        "apps",
        "DaemonSet",
        &[
            At("spec.template", &[Call(pod::template)]),
            Missing("spec.revisionHistoryLimit", Int(10)),
            Empty("spec.updateStrategy.type", Text("RollingUpdate")),
            At(
                "spec.updateStrategy",
                &[If(
                    Is("type", "RollingUpdate"),
                    &[
                        Missing("rollingUpdate.maxUnavailable", Int(1)),
                        Missing("rollingUpdate.maxSurge", Int(0)),
                    ],
                )],
            ),
        ],
    ),
    (
        "apps",
        "Deployment",
        &[
            At("spec.template", &[Call(pod::template)]),
            Missing("spec.replicas", Int(1)),
            Missing("spec.revisionHistoryLimit", Int(10)),
            Missing("spec.progressDeadlineSeconds", Int(600)),
            Empty("spec.strategy.type", Text("RollingUpdate")),
            At(
                "spec.strategy",
                &[If(
                    Is("type", "RollingUpdate"),
                    &[
                        Missing("rollingUpdate.maxUnavailable", Text("25%")),
                        Missing("rollingUpdate.maxSurge", Text("25%")),
                    ],
                )],
            ),
        ],
    ),
    ("apps", "ReplicaSet", &[At("spec.template", &[Call(pod::template)]), Missing("spec.replicas", Int(1))]),
    (
        "apps",
        "StatefulSet",
        &[
            At("spec.template", &[Call(pod::template)]),
            At(
                "spec.volumeClaimTemplates[]",
                &[
                    Empty("apiVersion", Text("v1")),
                    Empty("kind", Text("PersistentVolumeClaim")),
                    Empty("status.phase", Text("Pending")),
                    At("spec", &[Call(persistent_volume_claim::default_spec)]),
                ],
            ),
            Missing("spec.replicas", Int(1)),
            Missing("spec.revisionHistoryLimit", Int(10)),
            Empty("spec.podManagementPolicy", Text("OrderedReady")),
            At("spec", &[Call(stateful_set_update_strategy)]),
            Empty("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", Text("Retain")),
            Empty("spec.persistentVolumeClaimRetentionPolicy.whenScaled", Text("Retain")),
        ],
    ),
    ("authentication.k8s.io", "TokenRequest", &[Missing("spec.expirationSeconds", Int(3600))]),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        &[
            Missing("spec.minReplicas", Int(1)),
            Call(autoscaler_metrics),
            At("spec.behavior", &[Call(autoscaler_behavior)]),
        ],
    ),
    (
        "batch",
        "CronJob",
        &[
            Empty("spec.concurrencyPolicy", Text("Allow")),
            Missing("spec.suspend", Bool(false)),
            Missing("spec.successfulJobsHistoryLimit", Int(3)),
            Missing("spec.failedJobsHistoryLimit", Int(1)),
            At("spec.jobTemplate.spec.template", &[Call(pod::template)]),
            At(
                "spec.jobTemplate.spec.podFailurePolicy.rules[].onPodConditions[]",
                &[Empty("status", Text("True"))],
            ),
        ],
    ),
    (
        "batch",
        "Job",
        &[
            At("spec.template", &[Call(pod::template)]),
            At(
                "spec",
                &[
                    If(Lacks("parallelism"), &[Missing("completions", Int(1))]),
                    Missing("parallelism", Int(1)),
                    If(Has("backoffLimitPerIndex"), &[Missing("backoffLimit", Int(2_147_483_647))]),
                    Missing("backoffLimit", Int(6)),
                    Missing("completionMode", Text("NonIndexed")),
                    Missing("suspend", Bool(false)),
                    Missing("manualSelector", Bool(false)),
                    If(Has("podFailurePolicy"), &[Missing("podReplacementPolicy", Text("Failed"))]),
                    Missing("podReplacementPolicy", Text("TerminatingOrFailed")),
                    At("podFailurePolicy.rules[].onPodConditions[]", &[Empty("status", Text("True"))]),
                ],
            ),
            LABELS_FROM_TEMPLATE,
        ],
    ),
    ("certificates.k8s.io", "PodCertificateRequest", &[Missing("spec.maxExpirationSeconds", Int(86_400))]),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        &[At("ports[]", &[Missing("name", Text("")), Missing("protocol", Text("TCP"))])],
    ),
    (FLOW_CONTROL, "FlowSchema", &[Empty("spec.matchingPrecedence", Int(1000))]),
    (
        FLOW_CONTROL,
        "PriorityLevelConfiguration",
        &[
            At(
                "spec.exempt",
                &[Missing("nominalConcurrencyShares", Int(0)), Missing("lendablePercent", Int(0))],
            ),
            At(
                "spec.limited",
                &[
                    Missing("nominalConcurrencyShares", Int(30)),
                    Missing("lendablePercent", Int(0)),
                    At(
                        "limitResponse.queuing",
                        &[
                            Empty("handSize", Int(8)),
                            Empty("queues", Int(64)),
                            Empty("queueLengthLimit", Int(50)),
                        ],
                    ),
                ],
            ),
        ],
    ),
    (NETWORKING, "IngressClass", &[At("spec.parameters", &[Missing("scope", Text("Cluster"))])]),
    (
        NETWORKING,
        "NetworkPolicy",
        &[
            At("spec.ingress[].ports[]", &[Missing("protocol", Text("TCP"))]),
            At("spec.egress[].ports[]", &[Missing("protocol", Text("TCP"))]),
            At("spec", &[Call(network_policy_types)]),
        ],
    ),
    (RBAC, "ClusterRoleBinding", BINDING),
    (RBAC, "RoleBinding", BINDING),
    (RESOURCE, "ResourceClaim", &[At("spec.devices", CLAIM_DEVICES)]),
    (RESOURCE, "ResourceClaimTemplate", &[At("spec.spec.devices", CLAIM_DEVICES)]),
    (RESOURCE, "ResourcePoolStatusRequest", &[Missing("spec.limit", Int(100))]),
    (
        RESOURCE,
        "ResourceSlice",
        &[At("spec.devices[]", SLICE_DEVICES), At("spec.devices[].basic", SLICE_DEVICES)],
    ),
    ("scheduling.k8s.io", "PodGroup", &[Missing("spec.disruptionMode", Text("Pod"))]),
    ("scheduling.k8s.io", "PriorityClass", &[Missing("preemptionPolicy", Text("PreemptLowerPriority"))]),
    (
        STORAGE,
        "CSIDriver",
        &[
            Missing("spec.attachRequired", Bool(true)),
            Missing("spec.podInfoOnMount", Bool(false)),
            Missing("spec.storageCapacity", Bool(false)),
            Missing("spec.fsGroupPolicy", Text("ReadWriteOnceWithFSType")),
            Empty("spec.volumeLifecycleModes", Json(r#"["Persistent"]"#)),
            Missing("spec.requiresRepublish", Bool(false)),
            Missing("spec.seLinuxMount", Bool(false)),
        ],
    ),
    (
        STORAGE,
        "StorageClass",
        &[Missing("reclaimPolicy", Text("Delete")), Missing("volumeBindingMode", Text("Immediate"))],
    ),
];

/// A namespace carries its own name as a label, whatever the client says.
fn namespace_name_label(object: &mut Value) {
    let name = object.str_at(&["metadata", "name"]);
    if !name.is_empty() && object.str_at(&["metadata", "labels", NAME_LABEL]) != name {
        let name = name.to_owned();
        object.set_at(&["metadata", "labels", NAME_LABEL], name);
    }
}

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn template_labels(object: &Value) -> Option<Value> {
    object
        .at(&["spec", "template", "metadata", "labels"])
        .filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty()))
        .cloned()
}

fn unset_map(object: &Value, path: &[&str]) -> bool {
    object.at(path).and_then(Value::as_object).is_none_or(Map::is_empty)
}

fn labels_from_template(object: &mut Value) {
    if unset_map(object, &["metadata", "labels"])
        && let Some(labels) = template_labels(object)
    {
        object.set_at(&["metadata", "labels"], labels);
    }
}

fn selector_from_template(object: &mut Value) {
    if unset_map(object, &["spec", "selector"])
        && let Some(labels) = template_labels(object)
    {
        object.set_at(&["spec", "selector"], labels);
    }
}

/// Limits default to the maximum, requests to the limits and then to the minimum, each resource on its own.
fn limit_range_container(item: &mut Value) {
    for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let Some(source) = item.map(from).filter(|map| !map.is_empty()).cloned() else { continue };
        let target = item.ensure_object_at(&[to]);
        for (key, value) in source {
            if !target.contains_key(&key) {
                target.insert(key, value);
            }
        }
    }
}

fn stateful_set_update_strategy(spec: &mut Value) {
    let strategy = spec.ensure_object_at(&["updateStrategy"]);
    if is_empty(strategy.get("type")) {
        strategy.insert("type", "RollingUpdate");
        if !strategy.has("rollingUpdate") {
            strategy.insert("rollingUpdate", Value::object());
        }
    }
    if strategy.text("type") == "RollingUpdate"
        && let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut)
        && !rolling.has("partition")
    {
        rolling.insert("partition", 0);
    }
}

/// The CPU target that an autoscaler without metrics gets; v1 spells it differently from v2.
fn autoscaler_metrics(object: &mut Value) {
    if object.text("apiVersion") == "autoscaling/v1" {
        let has_other_metrics =
            object.at(&["metadata", "annotations", "autoscaling.alpha.kubernetes.io/metrics"]).is_some();
        if !has_other_metrics && !object["spec"].has("targetCPUUtilizationPercentage") {
            object.set_at(&["spec", "targetCPUUtilizationPercentage"], 80);
        }
    } else {
        const CPU_80: &str = r#"[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}]"#;
        fill(object, "spec.metrics", Json(CPU_80), is_empty);
    }
}

fn autoscaler_behavior(behavior: &mut Value) {
    const UP: Table = &[
        Missing("stabilizationWindowSeconds", Int(0)),
        Missing("selectPolicy", Text("Max")),
        Empty(
            "policies",
            Json(
                r#"[{"type":"Pods","value":4,"periodSeconds":15},{"type":"Percent","value":100,"periodSeconds":15}]"#,
            ),
        ),
    ];
    const DOWN: Table = &[
        Missing("selectPolicy", Text("Max")),
        Empty("policies", Json(r#"[{"type":"Percent","value":100,"periodSeconds":15}]"#)),
    ];
    apply(
        &[Missing("scaleUp", Object), At("scaleUp", UP), Missing("scaleDown", Object), At("scaleDown", DOWN)],
        behavior,
    );
}

fn network_policy_types(spec: &mut Value) {
    if is_empty(spec.get("policyTypes")) {
        let types = if spec.list("egress").is_empty() { vec!["Ingress"] } else { vec!["Ingress", "Egress"] };
        spec.set_at(&["policyTypes"], types);
    }
}

fn crd_names(object: &mut Value) {
    let kind = object.str_at(&["spec", "names", "kind"]).to_owned();
    fill(object, "spec.names.singular", Text(""), |value| value.is_none_or(Value::is_null));
    if object.str_at(&["spec", "names", "singular"]).is_empty() {
        object.set_at(&["spec", "names", "singular"], kind.to_lowercase());
    }
    if object.str_at(&["spec", "names", "listKind"]).is_empty() && !kind.is_empty() {
        object.set_at(&["spec", "names", "listKind"], format!("{kind}List"));
    }
}

/// A definition that stores nothing yet stores its storage version.
pub fn crd_stored_versions(object: &mut Value) {
    if !object.array_at(&["status", "storedVersions"]).is_empty() {
        return;
    }
    let storage = object
        .array_at(&["spec", "versions"])
        .iter()
        .find(|version| version.truth("storage"))
        .map(|version| version.text("name").to_owned());
    if let Some(name) = storage {
        object.set_at(&["status", "storedVersions"], vec![name]);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
        apply(of(group, kind), &mut object);
        let once = object.clone();
        apply(of(group, kind), &mut object);
        assert_eq!(object, once, "defaults of {kind} are not idempotent");
        object
    }

    #[test]
    fn kinds_are_listed_once() {
        assert!(ALL.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
    }

    #[test]
    fn missing_and_empty_differ() {
        let slice = defaulted(
            "discovery.k8s.io",
            "EndpointSlice",
            json!({"ports": [{"name": "a"}, {"port": 1, "protocol": ""}]}),
        );
        assert_eq!(
            slice,
            json!({"ports": [{"name": "a", "protocol": "TCP"}, {"name": "", "port": 1, "protocol": ""}]})
        );
        let schema = defaulted(FLOW_CONTROL, "FlowSchema", json!({"spec": {"matchingPrecedence": 0}}));
        assert_eq!(schema, json!({"spec": {"matchingPrecedence": 1000}}));
    }

    #[test]
    fn nothing_is_made_behind_a_missing_pointer() {
        assert_eq!(defaulted(NETWORKING, "IngressClass", json!({"spec": {}})), json!({"spec": {}}));
        assert_eq!(
            defaulted(NETWORKING, "IngressClass", json!({"spec": {"parameters": {}}})),
            json!({"spec": {"parameters": {"scope": "Cluster"}}})
        );
    }

    #[test]
    fn conditions_see_defaults_made_before_them() {
        let set = defaulted("apps", "DaemonSet", json!({"spec": {}}));
        assert_eq!(
            set["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
        );
        let set = defaulted("apps", "DaemonSet", json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}));
        assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    }

    #[test]
    fn computed_defaults() {
        let range = defaulted(
            "",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1"}}]}}),
        );
        assert_eq!(
            range["spec"]["limits"][0],
            json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1"}})
        );
        let namespace = defaulted(
            "",
            "Namespace",
            json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "b"}}}),
        );
        assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
        let v1 = defaulted(
            "autoscaling",
            "HorizontalPodAutoscaler",
            json!({"apiVersion": "autoscaling/v1", "spec": {}}),
        );
        assert_eq!(v1["spec"], json!({"minReplicas": 1, "targetCPUUtilizationPercentage": 80}));
        let job = defaulted("batch", "Job", json!({"spec": {"parallelism": 3}}));
        assert!(job["spec"].get("completions").is_none());
    }
}
