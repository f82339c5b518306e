//! A small kind for this crate's tests, with one field of every sort that matters: see [`thing`].

use super::*;

/// The schema of a made-up kind that resembles a workload.
pub(crate) struct Fixture {
    pub schemas: Schemas,
    root: NodeId,
}

impl Fixture {
    pub(crate) fn schema(&self) -> SchemaRef<'_> {
        self.schemas.at(self.root)
    }
}

/// Marks of a field, as in the tables of `api`: `*` a pointer, `+` always written, `!` required.
fn field(name: &str, marks: &str, node: NodeId) -> Field {
    Field {
        required: marks.contains('!'),
        always_present: marks.contains('+'),
        pointer: marks.contains('*'),
        ..Field::new(name, node)
    }
}

fn merged(field: Field, key: &str) -> Field {
    let merge_key = (!key.is_empty()).then(|| key.into());
    Field { patch: PatchStrategy { merge: true, merge_key, ..PatchStrategy::default() }, ..field }
}

fn retaining(field: Field) -> Field {
    Field { patch: PatchStrategy { retain_keys: true, ..field.patch }, ..field }
}

struct Builder(Schemas);

impl Builder {
    fn node(&mut self, kind: NodeKind) -> NodeId {
        self.0.push(Node { kind, definition: None })
    }

    fn scalar(&mut self, scalar: Scalar) -> NodeId {
        self.node(NodeKind::Scalar(scalar))
    }

    fn list(&mut self, items: NodeId, merge: ListType) -> NodeId {
        self.node(NodeKind::List { items, merge })
    }

    fn keyed(&mut self, items: NodeId, keys: &[&str]) -> NodeId {
        self.list(items, ListType::Map(keys.iter().map(|&key| key.into()).collect()))
    }

    fn map(&mut self, values: NodeId, atomic: bool) -> NodeId {
        self.node(NodeKind::Map { values, atomic })
    }

    fn structure(&mut self, name: &str, atomic: bool, mut fields: Vec<Field>) -> NodeId {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let definition = Some(format!("io.k8s.api.test.v1.{name}").into());
        let object = Struct { fields, atomic, preserve_unknown: false };
        self.0.push(Node { kind: NodeKind::Struct(object), definition })
    }
}

pub(crate) fn thing() -> Fixture {
    let mut b = Builder(Schemas::default());
    let string = b.scalar(Scalar::String);
    let boolean = b.scalar(Scalar::Boolean);
    let int32 = b.scalar(Scalar::Int32);
    let int64 = b.scalar(Scalar::Int64);
    let quantity = b.scalar(Scalar::Quantity);
    let time = b.scalar(Scalar::Time);
    let bytes = b.scalar(Scalar::Bytes);
    let either = b.scalar(Scalar::IntOrString);
    let any = b.node(NodeKind::Any);
    let strings = b.list(string, ListType::Atomic);
    let set = b.list(string, ListType::Set);
    let texts = b.map(string, false);
    let atomic_texts = b.map(string, true);
    let quantities = b.map(quantity, false);
    let data = b.map(bytes, false);

    let owner = b.structure(
        "OwnerReference",
        true,
        vec![field("uid", "+", string), field("controller", "*", boolean)],
    );
    let owners = b.keyed(owner, &["uid"]);
    let entries = b.list(any, ListType::Atomic);
    let metadata = b.structure(
        "ObjectMeta",
        false,
        vec![
            field("name", "", string),
            field("namespace", "", string),
            field("uid", "", string),
            field("resourceVersion", "", string),
            field("generation", "", int64),
            field("creationTimestamp", "", time),
            field("labels", "", texts),
            field("annotations", "", texts),
            merged(field("finalizers", "", set), ""),
            merged(field("ownerReferences", "", owners), "uid"),
            field("managedFields", "", entries),
        ],
    );

    let env = b.structure("EnvVar", false, vec![field("name", "+", string), field("value", "", string)]);
    let envs = b.keyed(env, &["name"]);
    let mut port_fields = vec![
        field("port", "+", int32),
        field("protocol", "", string),
        field("name", "", string),
        field("target", "", either),
    ];
    port_fields[1].default = Some("TCP".into());
    let port = b.structure("Port", false, port_fields);
    let ports = b.keyed(port, &["port", "protocol"]);
    let resources = b.structure("Resources", false, vec![field("limits", "", quantities)]);
    let container = b.structure(
        "Container",
        false,
        vec![
            field("name", "+", string),
            field("image", "", string),
            field("args", "", strings),
            merged(field("env", "", envs), "name"),
            merged(field("ports", "", ports), "port"),
            field("resources", "+", resources),
            field("tty", "", boolean),
        ],
    );
    let containers = b.keyed(container, &["name"]);
    let dir = b.structure("EmptyDir", false, vec![field("medium", "", string)]);
    let path = b.structure("HostPath", false, vec![field("path", "+", string)]);
    let volume = b.structure(
        "Volume",
        false,
        vec![field("name", "+", string), field("emptyDir", "*", dir), field("hostPath", "*", path)],
    );
    let volumes = b.keyed(volume, &["name"]);
    let selector = b.structure("Selector", true, vec![field("matchLabels", "", texts)]);
    let rolling = b.structure("Rolling", false, vec![field("maxSurge", "*", either)]);
    let strategy =
        b.structure("Strategy", false, vec![field("type", "", string), field("rolling", "*", rolling)]);
    let spec = b.structure(
        "ThingSpec",
        false,
        vec![
            field("replicas", "*", int32),
            field("paused", "", boolean),
            field("selector", "*+", selector),
            merged(field("containers", "+", containers), "name"),
            retaining(merged(field("volumes", "", volumes), "name")),
            retaining(field("strategy", "+", strategy)),
            field("nodeSelector", "", atomic_texts),
            field("tolerations", "", strings),
            field("until", "*", time),
            field("data", "", data),
            field("free", "", any),
        ],
    );
    let condition = b.structure(
        "Condition",
        false,
        vec![
            field("type", "+", string),
            field("status", "+", string),
            field("lastTransitionTime", "+", time),
        ],
    );
    let conditions = b.keyed(condition, &["type"]);
    let status = b.structure(
        "ThingStatus",
        false,
        vec![merged(field("conditions", "", conditions), "type"), field("ready", "", int32)],
    );
    let root = b.structure(
        "Thing",
        false,
        vec![
            field("apiVersion", "", string),
            field("kind", "", string),
            field("metadata", "+", metadata),
            field("spec", "+", spec),
            field("status", "+", status),
        ],
    );
    Fixture { schemas: b.0, root }
}
