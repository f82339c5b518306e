//! The CustomResourceDefinitions of KWOK's API, as far as it is played here.
//!
//! Owns: names, schemas and their descriptions. Fields, defaults and limits are KWOK's, so that its users' files apply
//! unchanged; definitions that a cluster has already are left as they are.

use apimachinery::{Value, json};

const GROUP: &str = "kwok.x-k8s.io";
const VERSION: &str = "v1alpha1";

/// All definitions.
pub fn definitions() -> [Value; 4] {
    [
        definition("Stage", "stages", "stage", false, stage(), STAGE),
        definition("ResourceUsage", "resourceusages", "resourceusage", true, usages(None), RESOURCE_USAGE),
        definition(
            "ClusterResourceUsage",
            "clusterresourceusages",
            "clusterresourceusage",
            false,
            usages(Some(object_selector())),
            CLUSTER_RESOURCE_USAGE,
        ),
        definition("Metric", "metrics", "metric", false, metric(), METRIC),
    ]
}

const STAGE: &str = "A step in the life of simulated objects: which objects take it, after how long, and what then \
                     becomes of them.";
const RESOURCE_USAGE: &str = "What the containers of the pod of the same name and namespace use.";
const CLUSTER_RESOURCE_USAGE: &str = "What the containers of many pods use.";
const METRIC: &str = "Metrics that a simulated node answers with.";

fn definition(
    kind: &str,
    plural: &str,
    singular: &str,
    namespaced: bool,
    spec: Value,
    description: &str,
) -> Value {
    let name = format!("{plural}.{GROUP}");
    let mut schema = json!({
        "type": "object", "description": description, "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "status": status(),
        },
    });
    schema.set_at(&["properties", "spec"], spec);
    let mut version =
        json!({"name": VERSION, "served": true, "storage": true, "subresources": {"status": {}}});
    version.set_at(&["schema", "openAPIV3Schema"], schema);
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {
            "group": GROUP, "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular},
        },
    });
    definition.set_at(&["spec", "versions"], vec![version]);
    definition
}

// === schemas ===

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn number(description: &str) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0, "description": description})
}

fn choice(values: &[&str], description: &str) -> Value {
    json!({"type": "string", "enum": values, "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn object<const N: usize>(description: &str, required: &[&str], fields: [(&str, Value); N]) -> Value {
    let mut schema = json!({"type": "object", "description": description});
    if !required.is_empty() {
        schema.set_at(&["required"], json!(required));
    }
    for (name, field) in fields {
        schema.set_at(&["properties", name], field);
    }
    schema
}

fn list(items: Value, description: &str) -> Value {
    let mut schema = json!({"type": "array", "description": description});
    schema.set_at(&["items"], items);
    schema
}

fn map(values: Value, description: &str) -> Value {
    let mut schema = json!({"type": "object", "description": description});
    schema.set_at(&["additionalProperties"], values);
    schema
}

fn status() -> Value {
    let condition = object(
        "One aspect of the state.",
        &["lastTransitionTime", "message", "reason", "status", "type"],
        [
            ("type", json!({"type": "string", "maxLength": 316})),
            ("status", choice(&["True", "False", "Unknown"], "Whether it is so.")),
            ("lastTransitionTime", json!({"type": "string", "format": "date-time"})),
            ("reason", json!({"type": "string", "minLength": 1, "maxLength": 1024})),
            ("message", json!({"type": "string", "maxLength": 32768})),
        ],
    );
    let mut conditions = list(condition, "Whether the object is accepted, and why not.");
    conditions.set_at(&["x-kubernetes-list-type"], "map");
    conditions.set_at(&["x-kubernetes-list-map-keys"], json!(["type"]));
    object("What became of it.", &[], [("conditions", conditions)])
}

fn expression() -> Value {
    object("An expression.", &[], [("expression", text("The text of the expression."))])
}

fn from(description: &str) -> Value {
    object(
        description,
        &[],
        [
            ("cel", expression()),
            ("jq", expression()),
            ("expressionFrom", text("An expression of jq; jq.expression is the newer form.")),
        ],
    )
}

fn impersonation() -> Value {
    object("The user in whose name to patch.", &["username"], [("username", text("The name of the user."))])
}

fn event() -> Value {
    object(
        "An event about the object.",
        &[],
        [
            ("type", text("Normal or Warning.")),
            ("reason", text("One word that says why.")),
            ("message", text("What a person reads.")),
        ],
    )
}

fn finalizers() -> Value {
    let items = || list(object("A finalizer.", &[], [("value", text("Its name."))]), "Finalizers.");
    object(
        "Changes of the finalizers.",
        &[],
        [("add", items()), ("remove", items()), ("empty", flag("Removes all of them."))],
    )
}

fn patch() -> Value {
    object(
        "A patch of the object.",
        &[],
        [
            ("type", choice(&["json", "merge", "strategic"], "Strategic for pods and nodes, else merge.")),
            ("subresource", text("The subresource that is patched.")),
            ("root", text("The field below which what the template makes is put.")),
            ("template", text("A Go template whose result is the patch, as YAML. Its dot is the object.")),
            ("impersonation", impersonation()),
        ],
    )
}

fn requirement(description: &str, extra: Option<(&str, Value)>) -> Value {
    let operators = choice(&["In", "NotIn", "Exists", "DoesNotExist"], "How results and values are related.");
    let mut schema = object(
        description,
        &[],
        [
            ("key", text("A query of jq.")),
            ("operator", operators),
            ("values", list(text("A value."), "Values, for In and NotIn.")),
        ],
    );
    if let Some((name, field)) = extra {
        schema.set_at(&["properties", name], field);
    }
    schema
}

fn selector() -> Value {
    let mut expression = requirement("A condition; one of its forms.", Some(("cel", expression())));
    expression.set_at(&["properties", "jq"], requirement("A condition in jq.", None));
    object(
        "Which objects take the step: all conditions hold. An empty one selects all objects, none selects none.",
        &[],
        [
            ("matchLabels", map(text("A value."), "Labels that an object has.")),
            ("matchAnnotations", map(text("A value."), "Annotations that an object has.")),
            ("matchExpressions", list(expression, "Conditions.")),
        ],
    )
}

fn delay() -> Value {
    object(
        "How long an object waits before the step: anything between duration and jitter duration.",
        &[],
        [
            ("durationMilliseconds", number("At least so long.")),
            ("durationFrom", from("Where the duration is read, or the time until which to wait.")),
            ("jitterDurationMilliseconds", number("At most so long.")),
            ("jitterDurationFrom", from("Where the jitter duration is read, or the latest time.")),
        ],
    )
}

fn next() -> Value {
    let mut subresource = text("The subresource that the template is for.");
    subresource.set_at(&["default"], "status");
    object(
        "What is done, in this order: event, finalizers, patches, deletion. steps is the newer form.",
        &[],
        [
            ("event", event()),
            ("finalizers", finalizers()),
            ("delete", flag("Deletes the object at once.")),
            ("patches", list(patch(), "Patches; they replace the template of the status.")),
            ("statusTemplate", text("A Go template whose result is merged into the status.")),
            ("statusSubresource", subresource),
            ("statusPatchAs", impersonation()),
        ],
    )
}

fn steps() -> Value {
    let apply = object(
        "An object that is applied.",
        &[],
        [
            ("template", text("A Go template whose result is the object.")),
            ("subresource", text("The subresource that is applied.")),
            ("type", choice(&["apply", "merge", "strategic"], "How an object that exists is changed.")),
            ("impersonation", impersonation()),
        ],
    );
    let step = object(
        "One thing that is done.",
        &[],
        [
            ("event", event()),
            ("finalizers", finalizers()),
            ("delete", flag("Deletes the object at once.")),
            ("patch", patch()),
            ("apply", apply),
        ],
    );
    list(step, "What is done, in order.")
}

fn stage() -> Value {
    let mut group = text("Group and version of the kind.");
    group.set_at(&["default"], "v1");
    let mut weight = number("How likely this step is among those that an object could take.");
    weight.set_at(&["default"], 0);
    object(
        "What the step is.",
        &["resourceRef"],
        [
            (
                "resourceRef",
                object(
                    "The kind of the objects.",
                    &["kind"],
                    [("apiGroup", group), ("kind", text("The name of the kind."))],
                ),
            ),
            ("selector", selector()),
            ("weight", weight),
            ("weightFrom", from("Where the weight is read.")),
            ("delay", delay()),
            ("next", next()),
            (
                "immediateNextStage",
                flag("Looks for the next step without waiting; it is always looked for at once."),
            ),
            ("steps", steps()),
        ],
    )
}

fn object_selector() -> Value {
    let names = |what: &str| list(text("A name."), what);
    object(
        "Which pods; what is left out is any.",
        &[],
        [("matchNamespaces", names("Their namespaces.")), ("matchNames", names("Their names."))],
    )
}

fn usages(selector: Option<Value>) -> Value {
    let mut quantity = json!({
        "anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true,
        "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
    });
    quantity.set_at(&["description"], "A quantity; it wins over the expression.");
    let value = object(
        "How much.",
        &[],
        [("value", quantity), ("expression", text("An expression of CEL over node, pod and container."))],
    );
    let usage = object(
        "The use of some containers.",
        &[],
        [
            ("containers", list(text("A name."), "The names of the containers; none are all others.")),
            ("usage", map(value, "The use by resource: cpu, memory.")),
        ],
    );
    let usages = list(usage, "The use of containers.");
    match selector {
        Some(selector) => object("What is used.", &[], [("selector", selector), ("usages", usages)]),
        None => object("What is used.", &[], [("usages", usages)]),
    }
}

fn metric() -> Value {
    let named = |description: &str| json!({"type": "string", "minLength": 1, "description": description});
    let mut labels = list(
        object(
            "A label.",
            &["name", "value"],
            [("name", named("Its name.")), ("value", named("An expression of CEL for its value."))],
        ),
        "Labels.",
    );
    labels.set_at(&["x-kubernetes-list-type"], "map");
    labels.set_at(&["x-kubernetes-list-map-keys"], json!(["name"]));
    let bucket = object(
        "A bucket.",
        &["le", "value"],
        [
            ("le", json!({"type": "number", "minimum": 0, "description": "Its upper bound."})),
            ("value", text("An expression of CEL for its count.")),
            ("hidden", flag("Counts for the next bucket and is not shown.")),
        ],
    );
    let mut buckets = list(bucket, "Buckets of a histogram.");
    buckets.set_at(&["x-kubernetes-list-type"], "map");
    buckets.set_at(&["x-kubernetes-list-map-keys"], json!(["le"]));
    let mut dimension = choice(&["node", "pod", "container"], "What has one value each.");
    dimension.set_at(&["default"], "node");
    let metric = object(
        "One metric.",
        &["kind", "name"],
        [
            ("name", named("Its full name.")),
            ("help", text("What it is.")),
            ("kind", choice(&["counter", "gauge", "histogram"], "What sort of metric it is.")),
            ("labels", labels),
            ("value", text("An expression of CEL for its value.")),
            ("buckets", buckets),
            ("dimension", dimension),
        ],
    );
    object(
        "Which metrics.",
        &["metrics", "path"],
        [("path", named("Where they are served.")), ("metrics", list(metric, "The metrics."))],
    )
}
