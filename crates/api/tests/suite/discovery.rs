use std::sync::Arc;

use api::discovery::{AggregatedVersion, Documents, api_versions, storage_version_hash};
use serde_json::Value;

use crate::recorded::exchanges;

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn documents_are_those_of_upstream() {
    let Some(exchanges) = exchanges("discovery.jsonl") else { return };
    let documents = Documents::new(&api::builtin::resources());
    let mut compared = 0;
    for exchange in exchanges.iter().filter(|own| own.status == 200 && own.accept.is_empty()) {
        if let Some(document) = documents.at(&exchange.path) {
            assert_eq!(json(document), exchange.body, "{}", exchange.case);
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} documents were recorded");
}

#[test]
fn every_recorded_group_has_a_document_and_no_other() {
    let Some(exchanges) = exchanges("discovery.jsonl") else { return };
    let documents = Documents::new(&api::builtin::resources());
    let root = exchanges.iter().find(|own| own.path == "/").unwrap();
    let is_discovery = |path: &&str| path.starts_with("/api") && *path != "/api" && !path.ends_with('/');
    let recorded: Vec<&str> = root.body["paths"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .filter(is_discovery)
        .collect();
    assert_eq!(documents.paths().collect::<Vec<_>>(), recorded);
}

#[test]
fn aggregated_documents_are_those_of_upstream() {
    let Some(exchanges) = exchanges("discovery.jsonl") else { return };
    let documents = Documents::new(&api::builtin::resources());
    let aggregated = |path: &str| {
        let recorded =
            exchanges.iter().find(|own| own.path == path && own.accept.contains("APIGroupDiscoveryList"));
        recorded.unwrap().body.clone()
    };
    assert_eq!(json(documents.aggregated_core(AggregatedVersion::V2)), aggregated("/api"));
    assert_eq!(json(documents.aggregated_groups(AggregatedVersion::V2)), aggregated("/apis"));
    let older = json(documents.aggregated_groups(AggregatedVersion::V2Beta1));
    assert_eq!(older["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(older["items"], aggregated("/apis")["items"]);
}

#[test]
fn api_versions_name_the_server() {
    let document = json(&api_versions("10.0.0.1:6443"));
    assert_eq!(document["versions"][0], "v1");
    assert_eq!(document["serverAddressByClientCIDRs"][0]["serverAddress"], "10.0.0.1:6443");
}

#[test]
fn a_set_may_lack_a_group_and_may_have_strange_ones() {
    let mut resources = api::builtin::resources();
    resources.retain(|resource| resource.group == "apps");
    let documents = Documents::new(&resources);
    assert_eq!(documents.paths().collect::<Vec<_>>(), ["/apis", "/apis/apps", "/apis/apps/v1"]);
    assert_eq!(json(documents.aggregated_core(AggregatedVersion::V2))["items"], serde_json::json!([]));
    assert!(documents.at("/apis/nope").is_none());
}

#[test]
fn reviews_have_no_storage_version_hash() {
    let all = api::builtin::resources();
    let of =
        |plural: &str| storage_version_hash(all.iter().find(|own: &&Arc<_>| own.plural == plural).unwrap());
    assert_eq!(of("pods"), "xPOwRZ+Yhw8=");
    assert_eq!(of("tokenreviews"), "");
}
