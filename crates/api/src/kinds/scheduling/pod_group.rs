//! `scheduling.k8s.io/v1alpha2.PodGroup`: pods that are scheduled together.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::group;
use crate::strategy::{Context, Strategy};
use crate::validation::fields::Fields;
use crate::validation::{conditions, text};

/// Everything in the spec; none of it may change.
const SPEC: [&str; 7] = [
    "podGroupTemplateRef",
    "schedulingPolicy",
    "schedulingConstraints",
    "resourceClaims",
    "disruptionMode",
    "priorityClassName",
    "priority",
];

pub struct PodGroup;

impl Strategy for PodGroup {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (spec, path) = (&object["spec"], Path::root("spec"));
        if let Some(template) = spec.maybe("podGroupTemplateRef") {
            template_reference(&mut errors, template, &path.child("podGroupTemplateRef"));
        }
        group::scheduling(&mut errors, spec, &path);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        match ctx.subresource {
            None => group::unchanged(&mut errors, &new["spec"], &old["spec"], &SPEC, &Path::root("spec")),
            Some(_) => status(&mut errors, new),
        }
        errors
    }
}

fn template_reference(errors: &mut ErrorList, reference: &Value, path: &Path<'_>) {
    group::union(errors, reference, &["workload"], path);
    let Some(workload) = reference.maybe("workload") else { return };
    let path = path.child("workload");
    group::name(errors, workload, "workloadName", text::dns1123_subdomain, &path);
    group::name(errors, workload, "podGroupTemplateName", text::dns1123_label, &path);
}

fn status(errors: &mut ErrorList, group: &Value) {
    let (status, path) = (&group["status"], Path::root("status"));
    conditions::check(errors, status.list("conditions"), &path.child("conditions"));
    let claims = group["spec"].list("resourceClaims");
    let statuses = status.list("resourceClaimStatuses");
    let path = path.child("resourceClaimStatuses");
    for (index, own) in statuses.iter().enumerate() {
        let name = own.text("name");
        if claims.iter().all(|claim| claim.text("name") != name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(Error::invalid(&path.index(index).child("name"), name, why));
        }
    }
    group::claim_statuses(errors, statuses, &path);
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::kinds::scheduling::workload::Workload;

    const CTX: Context<'static> =
        Context { now: jiff::Timestamp::UNIX_EPOCH, user: "u", subresource: None, allow_privileged: true };

    fn complaints(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_group_says_how_it_is_scheduled() {
        let gang = |count: i64| json!({"gang": {"minCount": count}});
        let key = |key: &str| json!({"topology": [{"key": key}]});
        let claim = |name: &str, of: &str| json!({"name": name, "resourceClaimName": of});
        let rows: Vec<(&str, Value, &[&str])> = vec![
            ("schedulingPolicy", gang(3), &[]),
            ("schedulingPolicy", json!({"basic": {}}), &[]),
            (
                "schedulingPolicy",
                json!({}),
                &["spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`"],
            ),
            (
                "schedulingPolicy",
                json!({"basic": {}, "gang": {"minCount": 1}}),
                &[
                    "spec.schedulingPolicy: Invalid value: \"{basic, gang}\": must specify exactly one of: `basic`, `gang`",
                ],
            ),
            ("schedulingPolicy", gang(0), &["spec.schedulingPolicy.gang.minCount: Required value"]),
            (
                "schedulingPolicy",
                gang(-1),
                &[
                    "spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1",
                ],
            ),
            ("schedulingConstraints", key("example.com/rack"), &[]),
            (
                "schedulingConstraints",
                key(""),
                &["spec.schedulingConstraints.topology[0].key: Required value"],
            ),
            (
                "schedulingConstraints",
                json!({"topology": [{"key": "a"}, {"key": "b"}]}),
                &["spec.schedulingConstraints.topology: Too many: 2: must have at most 1 item"],
            ),
            ("resourceClaims", json!([claim("a", "x"), claim("b", "x")]), &[]),
            (
                "resourceClaims",
                json!([claim("a", "x"), claim("a", "y")]),
                &["spec.resourceClaims[1]: Duplicate value: {\"name\":\"a\",\"resourceClaimName\":\"y\"}"],
            ),
            (
                "resourceClaims",
                json!([{"name": "a"}]),
                &["spec.resourceClaims[0]: Invalid value: \"\": must specify one of: `resourceClaimName`, \
                  `resourceClaimTemplateName`"],
            ),
            ("disruptionMode", json!("PodGroup"), &[]),
            (
                "disruptionMode",
                json!("Job"),
                &["spec.disruptionMode: Unsupported value: \"Job\": supported values: \"Pod\", \"PodGroup\""],
            ),
            (
                "priority",
                json!(1_000_000_001),
                &["spec.priority: Invalid value: 1000000001: must be less than or equal to 1000000000"],
            ),
            (
                "podGroupTemplateRef",
                json!({}),
                &["spec.podGroupTemplateRef: Invalid value: \"\": must specify one of: `workload`"],
            ),
            (
                "podGroupTemplateRef",
                json!({"workload": {"workloadName": "w"}}),
                &["spec.podGroupTemplateRef.workload.podGroupTemplateName: Required value"],
            ),
        ];
        for (field, value, expected) in rows {
            let mut group = json!({"spec": {"schedulingPolicy": {"basic": {}}}});
            group.set_at(&["spec", field], value);
            assert_eq!(complaints(&PodGroup.validate(&CTX, &group)), expected, "{group}");
        }
    }

    #[test]
    fn a_workload_has_templates_and_neither_it_nor_a_group_changes() {
        let template = |name: &str| json!({"name": name, "schedulingPolicy": {"basic": {}}});
        let workload = |templates: Vec<Value>| json!({"spec": {"podGroupTemplates": templates}});
        let errors = |workload: &Value| complaints(&Workload.validate(&CTX, workload));
        assert!(errors(&workload(vec![template("a"), template("b")])).is_empty());
        assert_eq!(errors(&workload(vec![])), ["spec.podGroupTemplates: Required value"]);
        assert_eq!(
            errors(&workload((0..9).map(|number| template(&format!("t{number}"))).collect())),
            ["spec.podGroupTemplates: Too many: 9: must have at most 8 items"]
        );
        assert_eq!(
            errors(&workload(vec![template("a"), template("a")])),
            [
                "spec.podGroupTemplates[1]: Duplicate value: {\"name\":\"a\",\"schedulingPolicy\":{\"basic\":{}}}"
            ]
        );
        assert_eq!(errors(&workload(vec![template("")])), ["spec.podGroupTemplates[0].name: Required value"]);
        let changed =
            Workload.validate_update(&CTX, &workload(vec![template("b")]), &workload(vec![template("a")]));
        assert_eq!(complaints(&changed), ["spec.podGroupTemplates: Invalid value: null: field is immutable"]);
        let group = |policy: Value| json!({"spec": {"schedulingPolicy": policy}});
        let changed = PodGroup.validate_update(
            &CTX,
            &group(json!({"gang": {"minCount": 2}})),
            &group(json!({"basic": {}})),
        );
        assert_eq!(complaints(&changed), ["spec.schedulingPolicy: Invalid value: null: field is immutable"]);
    }
}
