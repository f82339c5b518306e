//! `v1.PodTemplate`.

use apimachinery::Value;
use apimachinery::field::{ErrorList, Path};

use super::pod;
use crate::strategy::{Context, Strategy};

pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        if let Some(spec) = object.at_mut(&["template", "spec"]) {
            pod::drop_disabled_spec_fields(spec);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        pod::spec::template(&mut errors, &object["template"], &Path::root("template"));
        errors
    }
}
