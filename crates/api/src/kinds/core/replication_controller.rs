//! `v1.ReplicationController`, the predecessor of ReplicaSet.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::pod;
use crate::kinds::apps::workload;
use crate::kinds::warnings;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::{Fields, not_negative, supported};
use crate::validation::meta::shown_labels;

pub struct ReplicationController;

impl Strategy for ReplicationController {
    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = &object["spec"];
        let path = Path::root("spec");
        not_negative(&mut errors, spec, "minReadySeconds", &path);
        if spec.map("selector").is_none_or(apimachinery::Map::is_empty) {
            errors.push(Error::required(&path.child("selector"), ""));
        }
        not_negative(&mut errors, spec, "replicas", &path);
        let template_path = path.child("template");
        let Some(template) = spec.maybe("template") else {
            errors.push(Error::required(&template_path, ""));
            return errors;
        };
        let labels = template["metadata"].map("labels");
        let selected = spec
            .entries("selector")
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
        if !selected {
            errors.push(Error::invalid(
                &template_path.child("metadata").child("labels"),
                shown_labels(labels),
                "`selector` does not match template `labels`",
            ));
        }
        pod::spec::template(&mut errors, ctx, template, &template_path);
        let spec_path = template_path.child("spec");
        supported(
            &mut errors,
            template["spec"].text("restartPolicy"),
            &spec_path.child("restartPolicy"),
            &["Always"],
        );
        if template["spec"].has("activeDeadlineSeconds") {
            errors.push(Error::forbidden(
                &spec_path.child("activeDeadlineSeconds"),
                "activeDeadlineSeconds in ReplicationController is not Supported",
            ));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        if ctx.subresource == Some("status") {
            return workload::replica_status(
                new,
                &["readyReplicas", "fullyLabeledReplicas", "availableReplicas"],
            );
        }
        self.validate(ctx, new)
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::from_iter(warnings::workload_name(new, old));
        warnings.extend(workload::template_warnings(new, old));
        warnings
    }
}
