//! How lists, maps and structs of every built-in type merge, against the table of upstream's markers.

use std::collections::BTreeSet;

use api::builtin;
use apimachinery::schema::{Field, ListType, NodeKind, SchemaRef};

use crate::recorded::folder;

/// What is not compared: package, type, field (empty for all of them), and why.
const NOT_COMPARED: &[(&str, &str, &str, &str)] = &[
    ("admissionregistration/v1", "Rule", "", INLINED),
    ("admissionregistration/v1alpha1", "ValidatingAdmissionPolicyBindingSpec", "", NOT_SERVED),
    ("admissionregistration/v1alpha1", "ValidatingAdmissionPolicySpec", "", NOT_SERVED),
    ("admissionregistration/v1alpha1", "ValidatingAdmissionPolicyStatus", "", NOT_SERVED),
    ("admissionregistration/v1beta1", "MutatingWebhook", "", NOT_SERVED),
    ("admissionregistration/v1beta1", "MutatingWebhookConfiguration", "", NOT_SERVED),
    ("admissionregistration/v1beta1", "ValidatingAdmissionPolicyBindingSpec", "", NOT_SERVED),
    ("admissionregistration/v1beta1", "ValidatingAdmissionPolicySpec", "", NOT_SERVED),
    ("admissionregistration/v1beta1", "ValidatingAdmissionPolicyStatus", "", NOT_SERVED),
    ("admissionregistration/v1beta1", "ValidatingWebhook", "", NOT_SERVED),
    ("admissionregistration/v1beta1", "ValidatingWebhookConfiguration", "", NOT_SERVED),
    ("apiextensions/v1", "ConversionRequest", "", NOT_STORED),
    ("apiextensions/v1", "ConversionResponse", "", NOT_STORED),
    ("apiregistration/v1", "APIServiceSpec", "caBundle", "bytes are a list in Go and a text in JSON"),
    ("autoscaling/v1", "ExternalMetricSource", "", ANNOTATION),
    ("autoscaling/v1", "ExternalMetricStatus", "", ANNOTATION),
    ("autoscaling/v1", "ObjectMetricSource", "", ANNOTATION),
    ("autoscaling/v1", "ObjectMetricStatus", "", ANNOTATION),
    ("autoscaling/v1", "PodsMetricSource", "", ANNOTATION),
    ("autoscaling/v1", "PodsMetricStatus", "", ANNOTATION),
    ("certificates/v1beta1", "CertificateSigningRequestStatus", "", NOT_SERVED),
    ("core/v1", "AvoidPods", "", ANNOTATION),
    ("core/v1", "EphemeralContainerCommon", "", INLINED),
    ("core/v1", "PodSignature", "", ANNOTATION),
    ("meta/v1", "ApplyOptions", "", NOT_STORED),
    ("meta/v1", "RootPaths", "", NOT_STORED),
    ("meta/v1", "Table", "", NOT_STORED),
    ("meta/v1", "TableRow", "", NOT_STORED),
    ("storage/v1beta1", "CSINodeSpec", "", NOT_SERVED),
];

const INLINED: &str = "its fields are those of the types that embed it";
const NOT_SERVED: &str = "no server of this version serves the kind, so upstream publishes no schema of it";
const NOT_STORED: &str = "a part of a request or an answer, which nobody patches";
const ANNOTATION: &str = "a part of the text of an annotation";

/// A line of the table.
struct Row<'t> {
    package: &'t str,
    kind: &'t str,
    /// `(type)` for what holds for the type itself.
    field: &'t str,
    patch_strategy: &'t str,
    patch_merge_key: &'t str,
    list_type: &'t str,
    list_map_keys: &'t str,
    /// `atomic` or `granular`, of a map or of a struct.
    map_type: &'t str,
}

impl<'t> Row<'t> {
    fn parse(line: &'t str) -> Self {
        let cells: Vec<&str> = line.split('\t').collect();
        let map_type = if cells[8].is_empty() { cells[9] } else { cells[8] };
        let [package, kind, field] = [cells[0], cells[1], cells[2]];
        let [patch_strategy, patch_merge_key] = [cells[4], cells[5]];
        let [list_type, list_map_keys] = [cells[6], cells[7]];
        Self { package, kind, field, patch_strategy, patch_merge_key, list_type, list_map_keys, map_type }
    }

    /// The name of the type's definition.
    fn definition(&self) -> String {
        let prefix = match self.package.split_once('/').map_or("", |(group, _)| group) {
            "meta" => "io.k8s.apimachinery.pkg.apis",
            "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis",
            "apiregistration" => "io.k8s.kube-aggregator.pkg.apis",
            _ => "io.k8s.api",
        };
        format!("{prefix}.{}.{}", self.package.replace('/', "."), self.kind)
    }

    /// Why it is not compared, if it is not: a place in the list above.
    fn excuse(&self) -> Option<usize> {
        NOT_COMPARED.iter().position(|(package, kind, field, _)| {
            (*package, *kind) == (self.package, self.kind) && (field.is_empty() || *field == self.field)
        })
    }

    /// How it differs from the schemas.
    fn difference(&self) -> Option<String> {
        let place = format!("{} {} {}", self.package, self.kind, self.field);
        match ours(self) {
            None => Some(format!("{place}: there is no such field")),
            Some(own) if own.trim_end() != self.expected().trim_end() => {
                Some(format!("{place}: {own:?} instead of {:?}", self.expected()))
            }
            Some(_) => None,
        }
    }

    fn expected(&self) -> String {
        let mut keys: Vec<&str> = self.list_map_keys.split(',').filter(|key| !key.is_empty()).collect();
        keys.sort_unstable();
        let list = match self.list_type {
            "map" => format!("map {}", keys.join(",")),
            other => other.to_owned(),
        };
        let merge = if list.is_empty() { self.map_type.to_owned() } else { list };
        format!("{merge}; {} {}", self.patch_strategy, self.patch_merge_key)
    }
}

/// How a value merges.
fn merge(schema: SchemaRef<'_>) -> String {
    let map = |atomic: bool| if atomic { "atomic" } else { "granular" }.to_owned();
    match schema.kind() {
        NodeKind::List { merge: ListType::Atomic, .. } => "atomic".to_owned(),
        NodeKind::List { merge: ListType::Set, .. } => "set".to_owned(),
        NodeKind::List { merge: ListType::Map(keys), .. } => {
            let mut keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
            keys.sort_unstable();
            format!("map {}", keys.join(","))
        }
        NodeKind::Map { atomic, .. } => map(*atomic),
        NodeKind::Struct(own) => map(own.atomic),
        NodeKind::Any | NodeKind::Holding(_) | NodeKind::Scalar(_) => "none".to_owned(),
    }
}

fn patch(field: &Field) -> String {
    let flags = [
        (field.patch.merge, "merge"),
        (field.patch.retain_keys, "retainKeys"),
        (field.patch.replace, "replace"),
    ];
    let strategies: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    format!("{} {}", strategies.join(","), field.patch.merge_key.as_deref().unwrap_or_default())
}

/// What the schemas say about the place of a row; nothing where there is no such place.
fn ours(row: &Row<'_>) -> Option<String> {
    let schema = builtin::schemas().definition(&row.definition())?;
    if row.field == "(type)" {
        return Some(format!("{};  ", merge(schema)));
    }
    let NodeKind::Struct(own) = schema.kind() else { return None };
    let field = own.field(row.field)?;
    let merge = merge(schema.schemas.at(field.node));
    // What has no marker in the table merges by its type.
    let unmarked = row.list_type.is_empty() && row.map_type.is_empty();
    Some(format!("{}; {}", if unmarked { "" } else { &merge }, patch(field)))
}

#[test]
fn lists_and_maps_merge_as_upstream() {
    let Some(folder) = folder("PINTLE_REFERENCE", "reference") else { return };
    let table = std::fs::read_to_string(folder.join("merge_keys.tsv")).expect("the table is there");
    let (mut wrong, mut tried) = (Vec::new(), 0);
    let mut needless: BTreeSet<usize> = (0..NOT_COMPARED.len()).collect();
    for row in table.lines().skip(1).map(Row::parse) {
        match (row.excuse(), row.difference()) {
            (None, None) => tried += 1,
            (None, Some(difference)) => wrong.push(difference),
            (Some(_), None) => {}
            (Some(excuse), Some(_)) => drop(needless.remove(&excuse)),
        }
    }
    wrong.extend(needless.into_iter().map(|at| format!("{:?}: there is no need for it", NOT_COMPARED[at])));
    println!("{tried} rows agree");
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
