//! `v1.Namespace`: kept by the finalizer `kubernetes` until everything in it is gone.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use crate::strategy::{Context, Strategy, keep_status_apart};
use crate::validation::fields::{Fields, invalid_each, item_text};
use crate::validation::meta::standard_or_qualified_finalizer;
use crate::validation::text;

const FINALIZER: &str = "kubernetes";

pub struct Namespace;

impl Strategy for Namespace {
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        let held =
            object["spec"].list("finalizers").iter().any(|finalizer| finalizer.as_str() == Some(FINALIZER));
        if !held {
            let mut finalizers = object["spec"].list("finalizers").to_vec();
            finalizers.push(FINALIZER.into());
            object.set_at(&["spec", "finalizers"], Value::Array(finalizers));
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::root("spec");
        let path = path.child("finalizers");
        for finalizer in object["spec"].list("finalizers") {
            self::finalizer(&mut errors, item_text(finalizer), &path);
        }
        errors
    }

    /// Finalizers change through `finalize` only, the status through `status` only.
    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        match ctx.subresource {
            None => {
                keep_status_apart(ctx, new, old);
                match old["spec"].maybe("finalizers") {
                    Some(finalizers) => new.set_at(&["spec", "finalizers"], finalizers.clone()),
                    None => {
                        new.remove_at(&["spec", "finalizers"]);
                    }
                }
            }
            Some("finalize") => {
                if let Some(status) = old.maybe("status") {
                    new.set_at(&["status"], status.clone());
                }
            }
            Some(_) => keep_status_apart(ctx, new, old),
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        match ctx.subresource {
            Some("status") => {
                let deleting = new["metadata"].has("deletionTimestamp");
                let (phase, negation) = if deleting { ("Terminating", "not ") } else { ("Active", "") };
                if new["status"].text("phase") != phase {
                    errors.push(Error::invalid(
                        &Path::root("status").child("Phase"),
                        new["status"].text("phase"),
                        format!("may only be '{phase}' if `deletionTimestamp` is {negation}empty"),
                    ));
                }
            }
            Some("finalize") => {
                let path = Path::root("spec");
                let path = path.child("finalizers");
                for (index, finalizer) in new["spec"].list("finalizers").iter().enumerate() {
                    self::finalizer(&mut errors, item_text(finalizer), &path.index(index));
                }
            }
            _ => {}
        }
        errors
    }
}

fn finalizer(errors: &mut ErrorList, finalizer: &str, path: &Path<'_>) {
    invalid_each(errors, path, finalizer, text::qualified_name(finalizer));
    standard_or_qualified_finalizer(errors, finalizer, path);
}
