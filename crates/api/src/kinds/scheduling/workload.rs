//! `scheduling.k8s.io/v1alpha2.Workload`: the groups that an application's pods form.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::group;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, invalid_each};
use crate::validation::text;

const TEMPLATES_MAX: usize = 8;

pub struct Workload;

impl Strategy for Workload {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (spec, path) = (&object["spec"], Path::root("spec"));
        if let Some(reference) = spec.maybe("controllerRef") {
            controller(&mut errors, reference, &path.child("controllerRef"));
        }
        templates(&mut errors, spec.list("podGroupTemplates"), &path.child("podGroupTemplates"));
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let keys = ["controllerRef", "podGroupTemplates"];
        group::unchanged(&mut errors, &new["spec"], &old["spec"], &keys, &Path::root("spec"));
        errors
    }
}

fn controller(errors: &mut ErrorList, reference: &Value, path: &Path<'_>) {
    let api_group = reference.text("apiGroup");
    if !api_group.is_empty() {
        invalid_each(errors, &path.child("apiGroup"), api_group, text::dns1123_subdomain(api_group));
    }
    for key in ["kind", "name"] {
        group::name(errors, reference, key, |name| text::path_segment(name, false), path);
    }
}

fn templates(errors: &mut ErrorList, templates: &[Value], path: &Path<'_>) {
    if templates.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if !group::at_most(errors, templates, TEMPLATES_MAX, path) {
        return;
    }
    group::unique_names(errors, templates, path);
    for (index, template) in templates.iter().enumerate() {
        let path = path.index(index);
        group::name(errors, template, "name", text::dns1123_label, &path);
        group::scheduling(errors, template, &path);
    }
}
