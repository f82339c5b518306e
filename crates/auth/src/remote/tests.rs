use apimachinery::Selector;
use apimachinery::selector::FieldSelector;
use serde_json::json;

use super::access::{MatchCondition, spec};
use crate::UserInfo;
use crate::authorizer::Attributes;

#[test]
fn a_review_says_all_about_a_request() {
    let jane = UserInfo::new("jane").with_uid("7").with_groups(["dev"]).with_extra("acme.io/team", "blue");
    let fields = FieldSelector::parse("spec.nodeName=n,status.phase!=Failed").unwrap();
    let labels = Selector::parse("app in (a,b),!old,size>3").unwrap();
    let attributes = Attributes {
        api_group: "apps",
        api_version: "v1",
        namespace: "t",
        field_selector: fields.requirements(),
        label_selector: labels.requirements(),
        ..Attributes::resource(&jane, "list", "deployments")
    };
    let resource = json!({
        "group": "apps", "version": "v1", "resource": "deployments", "namespace": "t", "verb": "list",
        "fieldSelector": {"requirements": [
            {"key": "spec.nodeName", "operator": "In", "values": ["n"]},
            {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
        ]},
        "labelSelector": {"requirements": [
            {"key": "app", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
        ]},
    });
    assert_eq!(
        spec(&attributes),
        json!({
            "resourceAttributes": resource, "user": "jane", "uid": "7", "groups": ["dev"],
            "extra": {"acme.io/team": ["blue"]},
        })
    );
    let health = Attributes::non_resource(&jane, "get", "/healthz");
    assert_eq!(spec(&health)["nonResourceAttributes"], json!({"path": "/healthz", "verb": "get"}));
}

#[test]
fn conditions_are_checked_when_they_are_read() {
    for (text, problem) in [
        ("has(request.resourceAttributes) && request.resourceAttributes.namespace == 'kube-system'", ""),
        ("!('system:masters' in request.groups)", ""),
        ("request.user", "must evaluate to bool"),
        ("request.nothing == 1", "compilation failed: "),
    ] {
        let outcome = MatchCondition::compile(text).err().unwrap_or_default();
        assert!(
            outcome.starts_with(problem) && outcome.is_empty() == problem.is_empty(),
            "{text}: {outcome}"
        );
    }
}
