//! The `node.k8s.io` group.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::core::pod::scheduling;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, immutable, invalid_each};
use crate::validation::{resources, selector, text};

/// The kinds of this group with rules of their own.
pub const RULES: super::Rules = &[("RuntimeClass", &RuntimeClass)];

pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::root("handler");
        let handler = object.text("handler");
        if handler.is_empty() {
            errors.push(Error::required(&path, ""));
        } else {
            invalid_each(&mut errors, &path, handler, text::dns1123_label(handler));
        }
        if let Some(overhead) = object.maybe("overhead") {
            // Upstream checks an overhead as if it were the limits of a container, and says so.
            let path = Path::root("overhead");
            let path = path.child("limits");
            resources::list(&mut errors, overhead.map("podFixed"), resources::Owner::Container, &path);
        }
        if let Some(own) = object.maybe("scheduling") {
            let path = Path::root("scheduling");
            selector::labels(&mut errors, own.map("nodeSelector"), &path.child("nodeSelector"));
            tolerations(&mut errors, own.list("tolerations"), &path.child("tolerations"));
        }
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(&mut errors, new, old, "handler", &Path::root("handler"));
        errors
    }

    fn warnings(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        if ctx.subresource.is_some() { Vec::new() } else { crate::kinds::warnings::runtime_class(new) }
    }
}

fn tolerations(errors: &mut ErrorList, tolerations: &[Value], path: &Path<'_>) {
    scheduling::tolerations(errors, tolerations, path);
    let key = |toleration: &Value| {
        ["key", "operator", "value", "effect"].map(|key| toleration.text(key).to_owned())
    };
    for (index, toleration) in tolerations.iter().enumerate() {
        if tolerations[..index].iter().any(|other| key(other) == key(toleration)) {
            errors.push(Error::duplicate(&path.index(index), toleration));
        }
    }
}
