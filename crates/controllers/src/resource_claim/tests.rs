use client::fake::FakeApi;

use super::*;
use crate::testing::{World, object};

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("{name}-uid")},
        "spec": {"resourceClaims": [
            {"name": "gpu", "resourceClaimTemplateName": "one-gpu"},
            {"name": "shared", "resourceClaimName": "shared"}]}});
    change(&mut pod);
    pod
}

fn template() -> Value {
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"name": "one-gpu", "namespace": "ns"},
        "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": [{"name": "r"}]}}}})
}

fn claim(name: &str, reserved: &[&str], change: impl FnOnce(&mut Value)) -> Value {
    let reserved: Vec<Value> = reserved
        .iter()
        .map(|pod| json!({"resource": "pods", "name": *pod, "uid": format!("{pod}-uid")}))
        .collect();
    let mut claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "ns", "finalizers": [plan::FINALIZER]},
        "spec": {}, "status": {"allocation": {"devices": {}}}});
    claim.set_at(&["status", "reservedFor"], reserved);
    change(&mut claim);
    claim
}

fn tree(fake: &FakeApi, name: &str) -> Option<Value> {
    fake.peek(&RESOURCE_CLAIMS, "ns", name).map(|claim| claim.to_value())
}

#[test]
fn an_entry_stands_for_a_claim_by_name_or_by_status() {
    let status = |statuses: Value| {
        let mut pod = pod("p", |_| {});
        pod.set_at(&["status", "resourceClaimStatuses"], statuses);
        let named: Vec<Named> = plan::entries(&object(pod)).into_iter().map(|(_, named)| named).collect();
        named
    };
    let shared = Named::ByUser("shared".into());
    assert_eq!(status(json!([])), [Named::NotYet, shared.clone()]);
    assert_eq!(
        status(json!([{"name": "gpu", "resourceClaimName": "x"}])),
        [Named::Made("x".into()), shared.clone()]
    );
    assert_eq!(status(json!([{"name": "gpu"}])), [Named::NotNeeded, shared]);
}

#[test]
fn long_names_are_cut_in_proportion() {
    let generated = |pod_name: &str, entry: &str| {
        let owner = object(pod(pod_name, |_| {}));
        plan::claim_for(&owner, entry, &template()).str_at(&["metadata", "generateName"]).to_owned()
    };
    assert_eq!(generated("p", "gpu"), "p-gpu-");
    let (long, longer) = ("p".repeat(50), "p".repeat(51));
    assert_eq!(generated(&long, "claim"), format!("{long}-claim-"));
    assert_eq!(generated(&longer, "claim"), format!("{}-{}", "p".repeat(50), "clai"));
}

#[test]
fn the_last_pod_to_go_frees_the_devices() {
    let is_gone = |own: &Value| own.str_at(&["name"]) == "gone";
    let mut shared = claim("c", &["gone", "stays"], |_| {});
    assert!(plan::release(&mut shared, is_gone));
    assert_eq!(shared.array_at(&["status", "reservedFor"]).len(), 1);
    assert!(shared.at(&["status", "allocation"]).is_some());
    assert!(!plan::release(&mut shared, is_gone) && !plan::unprotect(&mut shared, true));

    let mut last = claim("c", &["gone"], |_| {});
    assert!(plan::release(&mut last, is_gone));
    assert!(last.at(&["status", "allocation"]).is_none());
    assert!(plan::unprotect(&mut last, true));
    assert!(last.array_at(&["metadata", "finalizers"]).is_empty());

    let mut of_others = claim("c", &["gone"], |claim| claim.set_at(&["metadata", "finalizers"], json!([])));
    assert!(plan::release(&mut of_others, is_gone));
    assert!(of_others.at(&["status", "allocation"]).is_some(), "another controller allocated it");

    let mut unused = claim("c", &[], |_| {});
    assert!(!plan::release(&mut unused, is_gone), "kept for whoever comes next");
    unused.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
    assert!(plan::release(&mut unused, is_gone) && plan::unprotect(&mut unused, true));
}

#[tokio::test]
async fn a_pod_gets_a_claim_from_a_template_once_there_is_one() {
    let world = World::start(vec![descriptor()], vec![pod("p", |_| {})]);
    world.wait_for("it is said", |fake| !fake.peek_all(&api::gvr::EVENTS).is_empty()).await;
    assert_eq!(
        world.events()[0],
        "FailedResourceClaimCreation: PodResourceClaim gpu: resource claim template \"one-gpu\": \
         resourceclaimtemplate.resource.k8s.io \"one-gpu\" not found"
    );
    world.fake.seed(template());
    let status = |fake: &FakeApi| {
        let pod = fake.peek(&PODS, "ns", "p").map(|pod| pod.to_value()).unwrap_or_default();
        pod["status"]["resourceClaimStatuses"][0].str_at(&["resourceClaimName"]).to_owned()
    };
    world.wait_for("named in the status", |fake| !status(fake).is_empty()).await;
    let claims = world.fake.peek_all(&RESOURCE_CLAIMS);
    assert_eq!(claims.len(), 1);
    let made = claims[0].to_value();
    assert_eq!(claims[0].name(), status(&world.fake));
    assert!(claims[0].name().starts_with("p-gpu-"));
    assert_eq!(made["spec"], json!({"devices": {"requests": [{"name": "r"}]}}));
    assert_eq!(made["metadata"]["annotations"], json!({plan::POD_CLAIM: "gpu"}));
    assert_eq!(made["metadata"]["labels"], json!({"a": "b"}));
    assert!(ownership::is_controlled_by(&claims[0], "p-uid"));

    // The pod is done: the claim that was made for it goes.
    world.fake.edit(&PODS, "ns", "p", |pod| pod.set_at(&["status", "phase"], "Succeeded"));
    world.wait_for("no claim", |fake| fake.peek_all(&RESOURCE_CLAIMS).is_empty()).await;
}

#[tokio::test]
async fn claims_are_kept_for_pods_that_are_there() {
    let on_node = |pod: &mut Value| {
        pod.set_at(&["spec", "nodeName"], "n");
        pod.set_at(&["spec", "resourceClaims"], json!([{"name": "shared", "resourceClaimName": "shared"}]));
    };
    let stays = pod("stays", |pod| pod.set_at(&["spec", "resourceClaims"], json!([])));
    let seeds = vec![
        pod("direct", on_node),
        stays,
        claim("shared", &[], |_| {}),
        claim("both", &["gone", "stays"], |_| {}),
        claim("freed", &["gone"], |_| {}),
    ];
    let world = World::start(vec![descriptor()], seeds);
    let users = |fake: &FakeApi, name: &str| -> Vec<String> {
        let claim = tree(fake, name).unwrap_or_default();
        let reserved = claim.array_at(&["status", "reservedFor"]).iter();
        reserved.map(|own| own.str_at(&["name"]).to_owned()).collect()
    };
    world.wait_for("reserved", |fake| users(fake, "shared") == ["direct"]).await;
    world.wait_for("one left", |fake| users(fake, "both") == ["stays"]).await;
    world
        .wait_for("freed", |fake| {
            tree(fake, "freed").is_some_and(|claim| {
                claim.at(&["status", "allocation"]).is_none()
                    && claim.array_at(&["metadata", "finalizers"]).is_empty()
            })
        })
        .await;
    assert!(tree(&world.fake, "both").is_some_and(|claim| claim.at(&["status", "allocation"]).is_some()));
    world.fake.drop_object(&PODS, "ns", "direct");
    world.wait_for("nobody left", |fake| users(fake, "shared").is_empty()).await;
}
