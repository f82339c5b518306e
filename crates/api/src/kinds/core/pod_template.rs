//! `v1.PodTemplate`.

use apimachinery::Value;
use apimachinery::field::{ErrorList, Path};

use super::pod;
use crate::kinds::apps::workload;
use crate::strategy::{Context, Strategy};

pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        pod::spec::template(&mut errors, ctx, &object["template"], &Path::root("template"));
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings_at(new, old, &["template"])
    }
}
