//! The configuration that every cluster has: what must be there, and what upstream suggests.

use apimachinery::{Value, json};

/// The schema and the level that take what nothing else takes.
pub(crate) const CATCH_ALL: &str = "catch-all";

/// Says that the spec follows the one written here. Who changes a spec sets it to `false`.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Name, shares, percent that it lends, queues and hand size; a queue takes 50.
const SUGGESTED_LEVELS: [(&str, u32, u32, u32, u32); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

pub fn mandatory_levels() -> [Value; 2] {
    [
        level(
            "exempt",
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
        level(
            CATCH_ALL,
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
                "limitResponse": {"type": "Reject"}}}),
        ),
    ]
}

pub fn suggested_levels() -> impl Iterator<Item = Value> {
    SUGGESTED_LEVELS.into_iter().map(|(name, shares, lendable, queues, hand)| {
        level(
            name,
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
                "limitResponse": {"type": "Queue",
                    "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}}}),
        )
    })
}

pub fn mandatory_schemas() -> [Value; 2] {
    let everybody = [group("system:unauthenticated"), group("system:authenticated")];
    [
        schema("exempt", "exempt", 1, None, rule([group("system:masters")], [everything()], [every_path()])),
        schema(CATCH_ALL, CATCH_ALL, 10_000, BY_USER, rule(everybody, [everything()], [every_path()])),
    ]
}

pub fn suggested_schemas() -> [Value; 9] {
    let everybody = || [group("system:unauthenticated"), group("system:authenticated")];
    let all = || ([everything()], [every_path()]);
    let of = |subjects: &[Value]| {
        let (resources, paths) = all();
        rule(subjects.iter().cloned(), resources, paths)
    };
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let probes = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]});
    let nodes = group("system:nodes");
    let electors = [user("system:kube-controller-manager"), user("system:kube-scheduler"), kube_system()];
    [
        schema("system-nodes", "system", 500, BY_USER, of(std::slice::from_ref(&nodes))),
        schema(
            "system-node-high",
            "node-high",
            400,
            BY_USER,
            rule([nodes], [resources(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])], []),
        ),
        schema("probes", "exempt", 2, None, rule(everybody(), [], [probes])),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            BY_USER,
            rule(electors, [leases(&["get", "create", "update"])], []),
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            BY_NAMESPACE,
            of(&[user("system:kube-controller-manager")]),
        ),
        schema("kube-scheduler", "workload-high", 800, BY_NAMESPACE, of(&[user("system:kube-scheduler")])),
        schema("kube-system-service-accounts", "workload-high", 900, BY_NAMESPACE, of(&[kube_system()])),
        schema("service-accounts", "workload-low", 9000, BY_USER, of(&[group("system:serviceaccounts")])),
        schema("global-default", "global-default", 9900, BY_USER, of(&everybody())),
    ]
}

/// The spec that a stored object should have instead of its own. Mandatory ones are always put right, suggested ones
/// while nobody has changed them.
pub fn revised(stored: &Value, wanted: &Value, mandatory: bool) -> Option<Value> {
    let annotation = stored.str_at(&["metadata", "annotations", AUTO_UPDATE]);
    let untouched = stored.at(&["metadata", "generation"]).and_then(Value::as_i64) == Some(1);
    let follows = match annotation {
        "true" => true,
        "false" => false,
        _ => untouched,
    };
    let follows = mandatory || follows;
    let mark = if follows { "true" } else { "false" };
    let same_spec = !follows || stored.get("spec") == wanted.get("spec");
    if same_spec && annotation == mark {
        return None;
    }
    let mut revised = stored.clone();
    if follows {
        revised.set_at(&["spec"], wanted.get("spec").cloned().unwrap_or_default());
    }
    revised.set_at(&["metadata", "annotations", AUTO_UPDATE], mark);
    Some(revised)
}

fn level(name: &str, spec: Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

const BY_USER: Option<&str> = Some("ByUser");
const BY_NAMESPACE: Option<&str> = Some("ByNamespace");

fn schema(name: &str, level: &str, precedence: i64, flows: Option<&str>, rule: Value) -> Value {
    let mut spec = json!({"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}});
    if let Some(flows) = flows {
        spec.set_at(&["distinguisherMethod", "type"], flows);
    }
    spec.set_at(&["rules"], Value::Array(vec![rule]));
    object("FlowSchema", name, spec)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {}}});
    object.set_at(&["metadata", "annotations", AUTO_UPDATE], "true");
    object.set_at(&["spec"], spec);
    object
}

fn rule(
    subjects: impl IntoIterator<Item = Value>,
    resources: impl IntoIterator<Item = Value>,
    paths: impl IntoIterator<Item = Value>,
) -> Value {
    let mut rule = json!({});
    rule.set_at(&["subjects"], Value::Array(subjects.into_iter().collect()));
    for (field, rules) in [
        ("resourceRules", resources.into_iter().collect::<Vec<Value>>()),
        ("nonResourceRules", paths.into_iter().collect()),
    ] {
        if !rules.is_empty() {
            rule.set_at(&[field], Value::Array(rules));
        }
    }
    rule
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

/// Every service account of the system's own namespace.
fn kube_system() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn everything() -> Value {
    resources(&["*"], "*", &["*"], true)
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster_scope {
        rule.set_at(&["clusterScope"], true);
    }
    rule
}

fn every_path() -> Value {
    json!({"verbs": ["*"], "nonResourceURLs": ["*"]})
}
