//! Patches of every kind onto any document, and strategic ones onto objects of their kind.
#![no_main]

use std::sync::{Arc, LazyLock};

use api::Resource;
use apimachinery::{Value, patch};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use pintle_fuzz::{halves, shape};

static RESOURCES: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(api::builtin::all_resources);

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let documents = halves(input).map(|(document, change)| (Value::parse(document), Value::parse(change)));
    match documents {
        Some((Ok(document), Ok(change))) => patched(&document, &change),
        _ => drop(merged(&mut Unstructured::new(input))),
    }
});

fn patched(document: &Value, change: &Value) {
    let _ = patch::merge::apply(&mut document.clone(), change.clone());
    if let Ok((patch, _)) = patch::json::JsonPatch::parse(change.clone()) {
        let _ = patch.apply(&mut document.clone());
    }
    for name in ["io.k8s.api.core.v1.Pod", "io.k8s.api.core.v1.Service"] {
        let schema = api::builtin::schemas().definition(name).expect("a built-in kind");
        let _ = patch::strategic::apply(&mut document.clone(), change.clone(), schema);
    }
}

fn merged(bytes: &mut Unstructured<'_>) -> Result<()> {
    let resource = bytes.choose(&RESOURCES)?;
    let Some(mut object) = shape::accepted(resource, bytes)? else { return Ok(()) };
    let change = shape::sent(resource, bytes)?;
    let _ = patch::merge::apply(&mut object.clone(), change.clone());
    let _ = patch::strategic::apply(&mut object, change, resource.schema.root());
    Ok(())
}
