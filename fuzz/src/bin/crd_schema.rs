//! Custom resources: a schema in the first line, judged as its definition is, and an object of it in the rest.
#![no_main]

use std::sync::{Arc, LazyLock};

use api::Resource;
use api::strategy::Context;
use apimachinery::decode::FieldValidation;
use apimachinery::field::ErrorList;
use apimachinery::{Value, json};
use jiff::Timestamp;
use pintle_fuzz::halves;

static DEFINITIONS: LazyLock<Arc<Resource>> = LazyLock::new(|| {
    let mut resources = api::builtin::resources().into_iter();
    resources.find(|own| own.plural == "customresourcedefinitions").expect("a built-in kind")
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((schema, object)) = halves(input) else { return };
    let Ok(schema) = Value::parse(schema) else { return };
    let Some(definition) = accepted(schema) else { return };
    let schemas = apiextensions::descriptor::schemas(&definition);
    let Some((_, custom)) = schemas.first() else { return };
    let Ok(mut object) = Value::parse(object) else { return };
    let old = object.clone();
    if custom.decode(&mut object, FieldValidation::Strict, &[]).is_err() {
        object = old.clone();
        if custom.decode(&mut object, FieldValidation::Ignore, &[]).is_err() {
            return;
        }
    }
    custom.default(&mut object);
    let none = |_: &mut ErrorList| {};
    let _ = custom.validate(&object, None, none);
    let _ = custom.validate(&object, Some(&old), none);
});

/// A definition with this schema, if it is let in.
fn accepted(schema: Value) -> Option<Value> {
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {}}],
        },
    });
    let versions = definition.at_mut(&["spec", "versions"])?.as_array_mut()?;
    versions[0].set_at(&["schema", "openAPIV3Schema"], schema);
    let strategy = &DEFINITIONS.strategy;
    let form = DEFINITIONS.schema.root();
    strategy.decode(&mut definition, form, FieldValidation::Strict, &[]).ok()?;
    strategy.default(&mut definition);
    let ctx = Context { now: Timestamp::UNIX_EPOCH, user: "jane", subresource: None, allow_privileged: true };
    let errors = strategy.validate(&ctx, &definition);
    errors.is_empty().then_some(definition)
}
