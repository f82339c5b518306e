use apimachinery::{Value, time};
use jiff::Timestamp;

use super::*;
use crate::testing::{World, object};

fn secret(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": TOKEN_TYPE, "metadata": {
        "name": name, "namespace": "ns", "creationTimestamp": "2020-01-01T00:00:00Z",
        "annotations": {"kubernetes.io/service-account.name": "app", "kubernetes.io/service-account.uid": "a"}}});
    change(&mut secret);
    secret
}

fn account(secrets: Value) -> Value {
    let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "app", "namespace": "ns", "uid": "a"}});
    account.set_at(&["secrets"], secrets);
    account
}

fn at(text: &str) -> Timestamp {
    time::parse(text).expect("a time")
}

#[test]
fn nothing_is_decided_before_a_year_of_tracking() {
    let limits = |since: &str| Limits::at(at("2026-06-02T00:00:00Z"), since).is_some();
    assert!(limits("2025-06-01"));
    assert!(!limits("2025-06-02"));
    assert!(!limits("") && !limits("yesterday"));
}

#[test]
fn a_token_is_refused_after_a_year_without_use_and_deleted_after_another() {
    let limits = Limits::at(at("2026-06-02T12:00:00Z"), "2020-01-01").expect("tracked for long");
    let label = |key: &'static str, value: &'static str| {
        move |secret: &mut Value| secret.set_at(&["metadata", "labels", key], value)
    };
    let account = object(account(json!([{"name": "t"}])));
    let decided = |secret: Value, mounted: &[&str]| {
        let mounted = || mounted.iter().map(|name| Str::from(*name)).collect();
        plan::plan(&object(secret), &limits, Some(&account), mounted)
    };
    assert_eq!(decided(secret("t", |_| {}), &[]), Plan::Invalidate);
    assert_eq!(decided(secret("t", |_| {}), &["t"]), Plan::Keep);
    assert_eq!(decided(secret("by-hand", |_| {}), &[]), Plan::Keep);
    assert_eq!(decided(secret("t", label(plan::LAST_USED, "2025-06-02")), &[]), Plan::Keep);
    assert_eq!(decided(secret("t", label(plan::LAST_USED, "2025-06-01")), &[]), Plan::Invalidate);
    assert_eq!(decided(secret("t", label(plan::LAST_USED, "never")), &[]), Plan::Keep);
    assert_eq!(decided(secret("t", label(INVALID_SINCE, "2025-06-02")), &[]), Plan::Keep);
    assert_eq!(decided(secret("t", label(INVALID_SINCE, "2025-06-01")), &[]), Plan::Delete);
    assert_eq!(decided(secret("t", label(INVALID_SINCE, "?")), &[]), Plan::Invalidate);
    let young =
        |secret: &mut Value| secret.set_at(&["metadata", "creationTimestamp"], "2025-06-02T12:00:00Z");
    assert_eq!(decided(secret("t", young), &[]), Plan::Keep);
    assert_eq!(plan::plan(&object(secret("t", |_| {})), &limits, None, HashSet::new), Plan::Keep);
}

#[test]
fn every_way_of_using_a_secret_is_found() {
    let spec = json!({
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
            "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "map"}}]}],
        "volumes": [
            {"secret": {"secretName": "volume"}},
            {"projected": {"sources": [{"secret": {"name": "projected"}}]}},
            {"csi": {"nodePublishSecretRef": {"name": "csi"}}},
            {"azureFile": {"secretName": "azure"}},
        ],
    });
    let mut names = HashSet::new();
    plan::add_secrets_of(&spec, &mut names);
    let mut names: Vec<&str> = names.iter().map(Str::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["all", "azure", "csi", "key", "projected", "pull", "volume"]);
}

#[tokio::test]
async fn unused_tokens_are_labelled_and_deleted() {
    let tracking = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": TRACKING, "namespace": TRACKING_NAMESPACE}, "data": {"since": "2020-01-01"}});
    let invalid = secret("old", |secret| secret.set_at(&["metadata", "labels", INVALID_SINCE], "2021-01-01"));
    let seeds = vec![
        tracking,
        account(json!([{"name": "old"}, {"name": "unused"}, {"name": "mounted"}])),
        invalid,
        secret("unused", |_| {}),
        secret("mounted", |_| {}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"volumes": [{"secret": {"secretName": "mounted"}}]}}),
    ];
    let world = World::start(vec![descriptor()], seeds);
    world
        .wait_for("cleaned up", |fake| {
            let is_invalid = |name: &str| {
                fake.peek(&SECRETS, "ns", name).is_some_and(|own| own.label(INVALID_SINCE).is_some())
            };
            fake.peek(&SECRETS, "ns", "old").is_none() && is_invalid("unused") && !is_invalid("mounted")
        })
        .await;
}
