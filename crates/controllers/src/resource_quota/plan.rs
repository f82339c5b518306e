//! Counting, purely.

use std::sync::Arc;

use api::amounts::Amounts;
use api::quota::{Kind, requirements};
use apimachinery::{Object, Quantity, Str, Value};
use jiff::Timestamp;

/// The names that a quota limits.
pub(super) fn hard_names(quota: &Value) -> Vec<Str> {
    let hard = quota["spec"]["hard"].as_object();
    hard.map(|hard| hard.keys().cloned().collect()).unwrap_or_default()
}

/// Whether a quota has to be recounted because it was changed, and not only charged.
pub(super) fn is_dirty(old: &Value, new: &Value) -> bool {
    old["spec"] != new["spec"]
        || Amounts::of(new["status"].get("hard")) != Amounts::of(new["spec"].get("hard"))
}

/// The status as it should be, or `None` when it is that already.
pub(super) fn status(quota: &Value, counts: &[(Kind, Vec<Arc<Object>>)], now: Timestamp) -> Option<Value> {
    let hard = Amounts::of(quota["spec"].get("hard"));
    let mut used = Amounts::of(quota["status"].get("used")).only(|name| hard.get(name).is_some());
    let scopes = requirements(&quota["spec"]);
    let mut counted = Amounts::default();
    for (kind, objects) in counts {
        let mut own = Amounts::default();
        for name in hard.names().filter(|name| kind.counts_for(name)) {
            own.set(name.clone(), Quantity::ZERO);
        }
        let mut add = |usage: &Amounts| own.add(usage);
        if kind.is_plain() {
            // Every object costs the same, and none is under a scope.
            if scopes.is_empty() {
                let one = kind.usage(&Value::Null, now);
                objects.iter().for_each(|_| add(&one));
            }
        } else {
            for object in objects {
                let tree = object.to_value();
                if kind.is_in_scope(&tree, &scopes) {
                    add(&kind.usage(&tree, now));
                }
            }
        }
        counted.add(&own.only(|name| hard.get(name).is_some()));
    }
    for (name, amount) in counted.iter() {
        used.set(name.clone(), amount);
    }
    let present = &quota["status"];
    let unchanged = present.get("hard").is_some()
        && present.get("used").is_some()
        && Amounts::of(present.get("hard")) == hard
        && Amounts::of(present.get("used")) == used;
    if unchanged {
        return None;
    }
    let mut status = Value::object();
    status.set_at(&["hard"], quota["spec"]["hard"].clone());
    status.set_at(&["used"], used.to_value());
    Some(status)
}
