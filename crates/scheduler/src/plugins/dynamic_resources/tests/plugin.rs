//! The plugin in the whole scheduler, against a fake API.

use std::time::Duration;

use api::gvr::{PODS, RESOURCE_CLAIMS};
use client::Informers;
use client::fake::FakeApi;
use rt::Shutdown;
use tokio::sync::oneshot;

use super::*;

/// A scheduler with node `n`, which has the devices of `devices`, and class `any`.
struct World {
    api: Arc<FakeApi>,
    shutdown: Shutdown,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    async fn start(devices: &str) -> Self {
        let (api, shutdown) = (FakeApi::new(), Shutdown::new());
        for name in ["n", "m"] {
            let mut node = json!({"apiVersion": "v1", "kind": "Node",
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
            node.set_at(&["metadata"], json!({"name": name, "labels": {"name": name}}));
            api.seed(node);
        }
        api.seed(class("any", r#"{"extendedResourceName":"x.io/gpu"}"#));
        api.seed(slice("p", &format!(r#"{{"nodeName":"n","devices":{devices}}}"#)));
        let (ready, is_ready) = oneshot::channel();
        let (own, stop) = (api.clone(), shutdown.clone());
        rt::spawn("scheduler", async move {
            let informers = Informers::new(own.clone(), stop.clone());
            crate::run(own, &informers, crate::Options::default(), ready, stop).await.unwrap();
        });
        is_ready.await.unwrap();
        Self { api, shutdown }
    }

    fn seed_claim(&self, name: &str, status: &str) {
        let mut tree = claim(name, r#"{"requests":[{"name":"r"}]}"#);
        tree.set_at(&["status"], parse(status));
        self.api.seed(tree);
    }

    /// A pod that uses claims, which exist under these names.
    fn seed_pod(&self, name: &str, claims: &[&str], spec: &str) {
        let mut tree = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name}, "status": {"phase": "Pending"}});
        tree.set_at(&["spec"], parse(spec));
        tree.set_at(&["spec", "schedulerName"], "default-scheduler");
        let entries = claims.iter().map(|claim| json!({"name": claim, "resourceClaimName": claim}));
        tree.set_at(&["spec", "resourceClaims"], entries.collect::<Vec<_>>());
        self.api.seed(tree);
    }

    fn pod(&self, name: &str) -> Value {
        self.api.peek(&PODS, "default", name).map(|pod| pod.to_value()).unwrap_or_default()
    }

    fn claim(&self, name: &str) -> Value {
        self.api.peek(&RESOURCE_CLAIMS, "default", name).map(|claim| claim.to_value()).unwrap_or_default()
    }

    fn message(&self, pod: &str) -> String {
        let pod = self.pod(pod);
        let condition = pod.array_at(&["status", "conditions"]).first().cloned().unwrap_or_default();
        condition.str_at(&["message"]).to_owned()
    }

    /// Waits for a state, not for time to pass.
    async fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let deadline = rt::instant() + Duration::from_secs(30);
        while !reached(self) {
            assert!(rt::instant() < deadline, "not reached: {what}");
            rt::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn until_bound(&self, pod: &str, node: &str) {
        self.until(&format!("{pod} on {node}"), |world| world.pod(pod).str_at(&["spec", "nodeName"]) == node)
            .await;
    }
}

const TWO: &str = r#"[{"name":"a"},{"name":"b"}]"#;

#[tokio::test]
async fn pods_get_devices_until_there_are_none_and_again_when_some_are_free() {
    let world = World::start(TWO).await;
    for name in ["c1", "c2", "c3"] {
        world.seed_claim(name, "{}");
    }
    world.seed_pod("p1", &["c1"], "{}");
    world.until_bound("p1", "n").await;
    let c1 = world.claim("c1");
    assert_eq!(c1["metadata"]["finalizers"][0].as_str(), Some("resource.kubernetes.io/delete-protection"));
    assert_eq!(c1["status"]["allocation"]["devices"]["results"][0].str_at(&["device"]), "a");
    assert_eq!(c1["status"]["reservedFor"][0].str_at(&["uid"]), "p1");
    assert!(!c1["status"]["allocation"].str_at(&["allocationTimestamp"]).is_empty());
    world.seed_pod("p2", &["c2"], "{}");
    world.until_bound("p2", "n").await;
    world.seed_pod("p3", &["c3"], "{}");
    let wanted = "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: \
                  0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    world.until("p3 pending", |world| world.message("p3") == wanted).await;
    // Two pods can share a claim; the second needs no devices.
    world.seed_pod("p4", &["c1"], "{}");
    world.until_bound("p4", "n").await;
    world.until("both", |world| world.claim("c1").array_at(&["status", "reservedFor"]).len() == 2).await;
    world.api.edit(&RESOURCE_CLAIMS, "default", "c2", |claim| {
        claim.set_at(&["status"], json!({}));
    });
    world.until_bound("p3", "n").await;
    assert_eq!(world.claim("c3")["status"]["allocation"]["devices"]["results"][0].str_at(&["device"]), "b");
}

#[tokio::test]
async fn a_pod_waits_for_its_claims_without_being_tried() {
    let world = World::start(TWO).await;
    world.seed_pod("p", &["later"], "{}");
    world.seed_pod("other", &[], "{}");
    world.until("other", |world| !world.pod("other").str_at(&["spec", "nodeName"]).is_empty()).await;
    assert_eq!(world.message("p"), "");
    world.seed_claim("later", "{}");
    world.until_bound("p", "n").await;
}

#[tokio::test]
async fn a_claim_with_devices_elsewhere_is_let_go_if_nobody_uses_it() {
    let world = World::start(TWO).await;
    let elsewhere = r#"{"allocation":{
        "devices":{"results":[{"request":"r","driver":"d.io","pool":"gone","device":"x"}]},
        "nodeSelector":{"nodeSelectorTerms":[
            {"matchFields":[{"key":"metadata.name","operator":"In","values":["m"]}]}]}}}"#;
    world.seed_claim("c", elsewhere);
    world.seed_pod("p", &["c"], r#"{"nodeSelector":{"name":"n"}}"#);
    world.until_bound("p", "n").await;
    let results = world.claim("c")["status"]["allocation"]["devices"]["results"].clone();
    assert_eq!(results[0].str_at(&["pool"]), "p");
}

#[tokio::test]
async fn extended_resources_become_a_claim() {
    let world = World::start(TWO).await;
    let spec = r#"{"containers":[{"name":"c","resources":{"requests":{"x.io/gpu":"2"},"limits":{"x.io/gpu":"2"}}}]}"#;
    world.seed_pod("p", &[], spec);
    world.until_bound("p", "n").await;
    let status = world.pod("p")["status"]["extendedResourceClaimStatus"].clone();
    let name = status.str_at(&["resourceClaimName"]).to_owned();
    assert!(name.starts_with("p-extended-resources-"), "{name}");
    let mapping = &status["requestMappings"][0];
    assert_eq!(
        (
            mapping.str_at(&["containerName"]),
            mapping.str_at(&["resourceName"]),
            mapping.str_at(&["requestName"])
        ),
        ("c", "x.io/gpu", "container-0-request-0")
    );
    let claim = world.claim(&name);
    assert_eq!(claim.array_at(&["status", "allocation", "devices", "results"]).len(), 2);
    assert_eq!(claim["status"]["reservedFor"][0].str_at(&["uid"]), "p");
    world.seed_pod("q", &[], spec);
    world.until("q pending", |world| world.message("q").contains("2 cannot allocate all claims")).await;
}

#[tokio::test]
async fn a_pod_is_bound_when_its_devices_have_been_made_ready() {
    let world =
        World::start(r#"[{"name":"a","bindingConditions":["Ready"],"bindingFailureConditions":["Broken"]}]"#)
            .await;
    world.seed_claim("c", "{}");
    world.seed_pod("p", &["c"], "{}");
    world.until("allocated", |world| world.claim("c").at(&["status", "allocation"]).is_some()).await;
    let made = |type_: &str| {
        let mut device = json!({"driver": "d.io", "pool": "p", "device": "a"});
        device.set_at(
            &["conditions"],
            vec![json!({"type": type_, "status": "True", "reason": "R", "message": "m"})],
        );
        vec![device]
    };
    assert_eq!(world.pod("p").str_at(&["spec", "nodeName"]), "");
    world
        .api
        .edit(&RESOURCE_CLAIMS, "default", "c", |claim| claim.set_at(&["status", "devices"], made("Ready")));
    world.until_bound("p", "n").await;
}
