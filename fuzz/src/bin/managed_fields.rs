//! Managed fields as they are stored, and what becomes of them when objects are updated and applied.
#![no_main]

use std::sync::{Arc, LazyLock};

use api::Resource;
use apimachinery::Value;
use apimachinery::managed_fields::{FieldManager, Filter, Set};
use jiff::Timestamp;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use pintle_fuzz::shape;

static RESOURCES: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(api::builtin::all_resources);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Value::parse(bytes) {
        Ok(fields) => written_and_read(&fields),
        Err(_) => drop(applied(&mut Unstructured::new(bytes))),
    }
});

fn written_and_read(fields: &Value) {
    let Some(set) = Set::from_fields_v1(fields) else { return };
    let written = set.clone().into_fields_v1();
    let again = Set::from_fields_v1(&written).expect("what was written");
    assert_eq!(again.into_fields_v1(), written);
    let _ = set.paths();
}

/// What one manager made, another applies to, a third updates, and the second applies to again and again: the third time
/// must change nothing. The second may, where the first gave up what the configuration has empty: `null` becomes `{}`
/// or `[]`. An object that nobody owns any part of is as it was before the first apply.
fn applied(bytes: &mut Unstructured<'_>) -> Result<()> {
    let resource = bytes.choose(&RESOURCES)?;
    let (kind, filter, now) = (resource.gvk(), Filter::default(), Timestamp::UNIX_EPOCH);
    let manager =
        FieldManager { schema: resource.schema.root(), kind: &kind, subresource: "", filter: &filter };
    let Some(mut made) = shape::accepted(resource, bytes)? else { return Ok(()) };
    manager.update(None, &mut made, "a", now);
    let Ok(mut changed) = manager.apply(Some(&made), &shape::sent(resource, bytes)?, "b", true, now) else {
        return Ok(());
    };
    let Some(mut sent) = shape::accepted(resource, bytes)? else { return Ok(()) };
    std::mem::swap(&mut changed, &mut sent);
    manager.update(Some(&sent), &mut changed, "c", now);
    let configuration = shape::sent(resource, bytes)?;
    let _ = manager.apply(Some(&changed), &configuration, "b", false, now);
    let mut live = changed;
    for _ in 0..2 {
        let Ok(applied) = manager.apply(Some(&live), &configuration, "b", true, now) else { return Ok(()) };
        if applied.array_at(&["metadata", "managedFields"]).is_empty() {
            return Ok(());
        }
        live = applied;
    }
    if let Ok(again) = manager.apply(Some(&live), &configuration, "b", true, now) {
        assert_eq!(again, live, "the third time changes nothing");
    }
    Ok(())
}
