//! Objects of built-in kinds: decoding, defaults, validation of new and of changed ones, columns and protobuf.
#![no_main]

use std::sync::{Arc, LazyLock};

use api::strategy::Context;
use api::{Resource, protobuf};
use apimachinery::Object;
use jiff::Timestamp;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use pintle_fuzz::shape;

static RESOURCES: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(api::builtin::all_resources);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = judge(&mut Unstructured::new(bytes));
});

fn judge(bytes: &mut Unstructured<'_>) -> Result<()> {
    let resource = bytes.choose(&RESOURCES)?;
    let strategy = &resource.strategy;
    let subresource = *bytes.choose(&[None, Some("status"), Some("approval")])?;
    let ctx = Context { now: Timestamp::UNIX_EPOCH, user: "jane", subresource, allow_privileged: true };
    let Some(old) = shape::accepted(resource, bytes)? else { return Ok(()) };
    let mut again = old.clone();
    strategy.default(&mut again);
    assert_eq!(again, old, "defaults of {} are idempotent", resource.kind);
    let mut new = old.clone();
    strategy.prepare_for_create(&ctx, &mut new);
    let _ = strategy.validate(&ctx, &new);
    let _ = strategy.warnings(&ctx, &new, None);
    let _ = resource.columns.cells(&new, ctx.now);
    if let Ok(message) = protobuf::encode(&new) {
        protobuf::decode(&message).expect("what was encoded");
    }
    // It is kept beside what is stored.
    new.remove_at(&["metadata", "resourceVersion"]);
    if let Ok(object) = Object::from_value(&new, 0, &[]) {
        assert_eq!(object.to_value(), new, "{}", resource.kind);
    }
    let Some(mut new) = shape::accepted(resource, bytes)? else { return Ok(()) };
    strategy.prepare_for_update(&ctx, &mut new, &old);
    let _ = strategy.validate_update(&ctx, &new, &old);
    let _ = strategy.warnings(&ctx, &new, Some(&old));
    Ok(())
}
