use apimachinery::json;
use client::Propagation;

use super::*;

#[test]
fn paths_are_those_of_kubernetes() {
    let pods = GroupVersionResource::new("", "v1", "pods");
    let deployments = GroupVersionResource::new("apps", "v1", "deployments");
    assert_eq!(Path::collection(&pods, ""), "/api/v1/pods");
    assert_eq!(Path::object(&pods, "a", "b"), "/api/v1/namespaces/a/pods/b");
    assert_eq!(Path::collection(&deployments, "a"), "/apis/apps/v1/namespaces/a/deployments");
    let scale = Path::subresource(&deployments, "a", "b", Some("scale"));
    assert_eq!(scale, "/apis/apps/v1/namespaces/a/deployments/b/scale");
    let roles = GroupVersionResource::new("rbac.authorization.k8s.io", "v1", "clusterroles");
    let own = Path::object(&roles, "", "system:a/b");
    assert_eq!(own, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aa%2Fb");
}

#[test]
fn queries_hold_what_is_set_and_nothing_else() {
    let path = |query| Request::get("/x").with(query).path;
    assert_eq!(path(Query::of_list(&ListOptions::default())), "/x");
    let options = ListOptions {
        label_selector: "a in (b,c)".into(),
        limit: 5,
        continue_token: "t=".into(),
        ..ListOptions::default()
    };
    assert_eq!(path(Query::of_list(&options)), "/x?labelSelector=a%20in%20%28b%2Cc%29&limit=5&continue=t%3D");
    let from_now = path(Query::of_watch(&WatchOptions { revision: 7, ..WatchOptions::default() }));
    assert_eq!(from_now, "/x?watch=true&allowWatchBookmarks=true&resourceVersion=7");
    let options = WriteOptions { field_manager: "me".into(), dry_run: true, force: true };
    assert_eq!(path(Query::of_write(&options)), "/x?fieldManager=me&dryRun=All&force=true");
}

#[test]
fn options_of_a_delete_are_its_body() {
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        propagation: Some(Propagation::Foreground),
        uid: Some("u".into()),
        resource_version: Some(3),
    };
    let body = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u", "resourceVersion": "3"},
    });
    assert_eq!(request::delete_options(&options), body);
}

#[test]
fn items_of_a_list_know_what_they_are() {
    let tree = json!({
        "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9", "continue": "next"},
        "items": [{"metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7"}}],
    });
    let read = list(tree).expect("it is a list");
    assert_eq!((read.revision, read.continue_token.as_str()), (9, "next"));
    let pod = &read.items[0];
    assert_eq!((pod.api_version(), pod.kind(), pod.name(), pod.revision()), ("v1", "Pod", "a", 7));
}

#[test]
fn a_failure_is_the_status_that_was_sent_or_what_its_code_means() {
    let body =
        br#"{"kind":"Status","status":"Failure","code":409,"reason":"AlreadyExists","message":"it exists"}"#;
    let said = answer::failure(http::StatusCode::CONFLICT, "POST", body, None);
    assert!(said.is_already_exists());
    assert_eq!(said.message, "it exists");
    let unsaid = answer::failure(http::StatusCode::NOT_FOUND, "GET", b"<html>", None);
    assert!(unsaid.is_not_found());
}

#[test]
fn discovery_names_resources_and_which_version_comes_first() {
    let resource = json!({
        "resource": "pods", "scope": "Namespaced", "verbs": ["get", "list"], "responseKind": {"kind": "Pod"},
        "subresources": [{"subresource": "status"}],
    });
    let versions = json!([
        {"version": "v1", "resources": [resource.clone()]},
        {"version": "v1beta1", "resources": [resource.clone()]},
    ]);
    let groups = json!({"items": [{"metadata": {"name": "g"}, "versions": versions}]});
    let found = answer::resources(&groups);
    let names: Vec<_> =
        found.iter().map(|(found, first)| (found.gvr.to_string(), found.namespaced, *first)).collect();
    assert_eq!(
        names,
        [
            ("g/v1, Resource=pods".to_owned(), true, true),
            ("g/v1beta1, Resource=pods".to_owned(), true, false)
        ]
    );
}
