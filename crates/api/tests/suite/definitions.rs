//! CustomResourceDefinitions that people really install: all pass, and all can be served.

use std::path::{Path, PathBuf};

use api::builtin;
use api::kinds::apiextensions::embedded_meta;
use api::strategy::Context;
use apimachinery::decode::{FieldValidation, decode};
use apimachinery::schema::{NodeKind, SchemaRef};
use apimachinery::{GroupVersionKind, Value};
use structural_schema::CustomSchema;

use crate::recorded::folder;

fn manifests() -> Option<Vec<PathBuf>> {
    let folder = folder("PINTLE_TESTDATA", "testdata")?.join("manifests");
    let mut files = vec![folder.join("argo-cd-install.yaml")];
    let entries = std::fs::read_dir(folder.join("prometheus-operator-crds")).expect("the folder is there");
    files.extend(entries.map(|entry| entry.expect("readable").path()));
    files.sort();
    Some(files)
}

/// The definitions in a file, decoded and defaulted as a request would be.
fn definitions(file: &Path) -> Vec<Value> {
    let gvk = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let schema = builtin::schema(&gvk).expect("built in");
    let text = std::fs::read_to_string(file).expect("readable");
    text.split("\n---")
        .filter(|document| document.contains("kind: CustomResourceDefinition"))
        .map(|document| {
            let mut value = Value::parse_yaml(document).expect("is YAML");
            let notes = decode(&mut value, schema.root(), FieldValidation::Warn, &[]).expect("has the types");
            assert_eq!(notes, Vec::<String>::new(), "{}", file.display());
            value
        })
        .collect()
}

fn count(node: SchemaRef<'_>, depth: usize) -> usize {
    // Deep enough for every schema here, and no further for those that contain themselves.
    if depth > 40 {
        return 1;
    }
    1 + match node.kind() {
        NodeKind::Struct(object) => object
            .fields
            .iter()
            .filter_map(|field| node.child(&field.name))
            .map(|child| count(child, depth + 1))
            .sum(),
        NodeKind::Map { .. } => node.child("").map_or(0, |values| count(values, depth + 1)),
        NodeKind::List { .. } => node.items().map_or(0, |items| count(items, depth + 1)),
        NodeKind::Any | NodeKind::Holding(_) | NodeKind::Scalar(_) => 0,
    }
}

#[test]
fn definitions_of_well_known_projects_pass_and_can_be_served() {
    let Some(files) = manifests() else { return };
    let resources = builtin::resources();
    let resource = resources.iter().find(|own| own.kind == "CustomResourceDefinition").expect("served");
    let ctx =
        Context { now: jiff::Timestamp::UNIX_EPOCH, user: "me", subresource: None, allow_privileged: true };
    let mut seen = 0;
    for file in files {
        for mut definition in definitions(&file) {
            resource.strategy.default(&mut definition);
            resource.strategy.prepare_for_create(&ctx, &mut definition);
            let name = definition.str_at(&["metadata", "name"]).to_owned();
            let errors = resource.strategy.validate(&ctx, &definition);
            assert_eq!(
                errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
                Vec::<String>::new(),
                "{name}"
            );
            for version in definition.array_at(&["spec", "versions"]) {
                let schema = &version["schema"]["openAPIV3Schema"];
                let custom = CustomSchema::new(schema, builtin::schemas(), embedded_meta);
                let (nodes, root) = custom.nodes();
                assert!(count(nodes.at(root), 0) > 60, "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 13, "only {seen} versions were seen");
}

#[test]
fn schemas_inside_schemas_are_decoded_too() {
    let gvk = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let schema = builtin::schema(&gvk).expect("built in");
    let with_schema = |schema: Value| {
        apimachinery::json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]},
        })
    };
    let mut own = with_schema(apimachinery::json!({
        "type": "array",
        "items": {"type": "object", "odd": 1, "additionalProperties": {"type": "string", "nullable": false, "odd": 1}},
    }));
    let notes = decode(&mut own, schema.root(), FieldValidation::Warn, &[]).expect("has the types");
    // Upstream says nothing about these.
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(
        own["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        apimachinery::json!({"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}})
    );
    let mut bad = with_schema(apimachinery::json!({"type": "array", "items": {"type": 1}}));
    let error = decode(&mut bad, schema.root(), FieldValidation::Warn, &[]).expect_err("a type is text");
    assert_eq!(
        error.to_string(),
        "json: cannot unmarshal number into Go struct field JSONSchemaProps.type of type string"
    );
}
