//! The controllers, one folder each.
//!
//! Owns: [`descriptors`], the one list. Each controller reads through shared informers, writes under its own
//! service account of `kube-system`, and is written the same way: `mod.rs` wires and acts, `plan.rs` decides and is
//! pure, `tests.rs` holds a row per behaviour. Never touches: storage, the API server, each other.
//!
//! Start at [`start`]; to add a controller, add a folder and a line in [`descriptors`].

pub mod claims;
pub mod hash;
pub mod history;
pub mod ownership;
pub mod pod_control;
pub mod pods;
pub mod protection;

mod attach_detach;
mod bootstrap_tokens;
mod certificates;
mod clusterrole_aggregation;
mod cronjob;
mod daemonset;
mod deployment;
mod device_taint_eviction;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod ephemeral_volume;
mod garbage_collector;
mod horizontal_pod_autoscaler;
mod job;
mod legacy_token_cleaner;
mod namespace;
pub mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod pod_group_protection;
mod pv_binder;
mod pv_expander;
mod pv_protection;
mod pvc_protection;
mod replicaset;
mod resource_claim;
mod resource_quota;
mod root_ca_publisher;
mod selection;
mod service;
mod service_account;
mod service_account_tokens;
mod service_cidr;
mod statefulset;
mod taint_eviction;
#[cfg(test)]
mod testing;
mod ttl;
mod ttl_after_finished;
mod vac_protection;
mod validatingadmissionpolicy_status;

use std::sync::Arc;
use std::time::Duration;

use api::features::Features;
use client::{Api, Informers};
use controller_runtime::{ControllerDescriptor, Started};
use rt::Shutdown;

pub use bootstrap_tokens::signer::{
    SIGNATURE_PREFIX as CLUSTER_INFO_SIGNATURE_PREFIX, is_signed as is_cluster_info_signed,
    signature as cluster_info_signature,
};
pub use horizontal_pod_autoscaler::Settings as AutoscalerSettings;
pub use selection::Selection;

/// What controllers are told from outside.
#[derive(Clone, Default)]
pub struct Options {
    /// PEM bundle that clients in pods verify the API server with; published to every namespace when not empty.
    pub root_ca: String,
    /// Signs what CertificateSigningRequests ask for; without it they wait.
    pub signer: Option<Arc<dyn pki::Signer>>,
    /// How long certificates are good for that ask for nothing shorter; a year where nothing is said.
    pub signing_duration: Option<Duration>,
    /// Makes the tokens that are kept in Secrets; without it such Secrets wait.
    pub tokens: Option<Arc<dyn TokenMaker>>,
    /// Where nodes get the ranges of their pods from, one of each family; none and they get none.
    pub cluster_cidrs: Vec<node_ipam::ClusterCidr>,
    /// Which of them run.
    pub selection: Selection,
    /// Whether the API has groups of pods.
    pub pod_groups: bool,
    pub autoscaler: AutoscalerSettings,
    pub features: Features,
}

/// Makes service-account tokens.
pub trait TokenMaker: Send + Sync {
    /// The token that is kept in a Secret, good for as long as that holds it.
    fn legacy_token(
        &self,
        namespace: &str,
        account: &str,
        account_uid: &str,
        secret: &str,
    ) -> Result<String, String>;
}

/// Every controller, in no particular order.
pub fn descriptors() -> Vec<ControllerDescriptor<Options>> {
    vec![
        attach_detach::descriptor(),
        bootstrap_tokens::cleaner::descriptor(),
        bootstrap_tokens::signer::descriptor(),
        certificates::approving::descriptor(),
        certificates::cleaner::descriptor(),
        certificates::serving_approving::descriptor(),
        certificates::signing::descriptor(),
        clusterrole_aggregation::descriptor(),
        cronjob::descriptor(),
        daemonset::descriptor(),
        deployment::descriptor(),
        device_taint_eviction::descriptor(),
        disruption::descriptor(),
        disruption::stale::descriptor(),
        endpoints::descriptor(),
        endpointslice::descriptor(),
        endpointslice_mirroring::descriptor(),
        ephemeral_volume::descriptor(),
        garbage_collector::descriptor(),
        horizontal_pod_autoscaler::descriptor(),
        job::descriptor(),
        legacy_token_cleaner::descriptor(),
        namespace::descriptor(),
        node_ipam::descriptor(),
        node_lifecycle::descriptor(),
        pod_gc::descriptor(),
        pod_group_protection::descriptor(),
        pv_binder::descriptor(),
        pv_expander::descriptor(),
        pv_protection::descriptor(),
        pvc_protection::descriptor(),
        replicaset::descriptor(),
        replicaset::replication_descriptor(),
        resource_claim::descriptor(),
        resource_quota::descriptor(),
        root_ca_publisher::descriptor(),
        service_account::descriptor(),
        service_account_tokens::descriptor(),
        service_cidr::descriptor(),
        statefulset::descriptor(),
        taint_eviction::descriptor(),
        ttl::descriptor(),
        ttl_after_finished::descriptor(),
        vac_protection::descriptor(),
        validatingadmissionpolicy_status::descriptor(),
    ]
}

/// The roles of controllers that upstream has not, with their bindings.
pub fn policy() -> Vec<apimachinery::Value> {
    [certificates::approving::policy(), certificates::serving_approving::policy()].concat()
}

/// Starts the controllers that are selected. `api_of` gives the API under the identity of a service account of
/// `kube-system`, or for an empty name of the controller manager; `informers` read under that of the controller
/// manager.
pub fn start(
    api_of: &dyn Fn(&str) -> Arc<dyn Api>,
    informers: &Informers,
    options: Options,
    shutdown: &Shutdown,
) -> Started {
    let mut selected = descriptors();
    selected.retain(|descriptor| {
        let has_work = options.pod_groups || descriptor.name != pod_group_protection::NAME;
        has_work && options.selection.includes(descriptor.name)
    });
    controller_runtime::start_all(selected, api_of, informers, &Arc::new(options), shutdown)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use api::gvr::{DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, PODS, REPLICA_SETS};
    use apimachinery::{Value, json};
    use client::{Api, DeleteOptions, WriteOptions};

    use crate::testing::World;

    #[test]
    fn no_two_controllers_share_a_name() {
        let mut names = HashSet::new();
        for descriptor in super::descriptors() {
            assert!(names.insert(descriptor.name), "two controllers are called {}", descriptor.name);
        }
    }

    /// All controllers together: an application comes up, and goes with its namespace.
    #[tokio::test]
    async fn an_application_lives_and_dies() {
        let world = World::start(super::descriptors(), vec![]);
        let options = WriteOptions::default();
        let create = |gvr: apimachinery::GroupVersionResource, tree: Value| {
            let (fake, options) = (world.fake.clone(), options.clone());
            let namespace = if gvr == NAMESPACES { "" } else { "shop" };
            async move { fake.create(&gvr, namespace, tree, &options).await.expect("the object is valid") }
        };
        create(NAMESPACES, json!({"metadata": {"name": "shop"}})).await;
        let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
            "clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]}});
        create(api::gvr::SERVICES, service).await;
        let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1000,
            "selector": {"matchLabels": {"app": "web"}}, "strategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}});
        let started = rt::instant();
        create(DEPLOYMENTS, deployment).await;
        world.wait_for("a thousand pods", |fake| fake.peek_all(&PODS).len() == 1000).await;
        println!("a Deployment's 1,000 pods in {:?}", started.elapsed());

        for (number, pod) in world.fake.peek_all(&PODS).iter().enumerate() {
            world.fake.edit(&PODS, "shop", pod.name(), |pod| {
                crate::testing::make_ready(pod);
                let address = format!("10.0.{}.{}", number / 250, number % 250);
                pod.set_at(&["status", "podIP"], address.as_str());
                pod.set_at(&["status", "podIPs"], json!([{"ip": address}]));
            });
        }
        let available = |fake: &client::fake::FakeApi| {
            fake.peek(&DEPLOYMENTS, "shop", "web")
                .map(|own| own.to_value()["status"]["availableReplicas"].as_i64())
        };
        world.wait_for("all available", |fake| available(fake) == Some(Some(1000))).await;
        let endpoints = |fake: &client::fake::FakeApi| {
            let slices = fake.peek_all(&ENDPOINT_SLICES);
            slices.iter().map(|slice| slice.to_value().array_at(&["endpoints"]).len()).sum::<usize>()
        };
        world.wait_for("all addressed", |fake| endpoints(fake) == 1000).await;
        println!("a Deployment's 1,000 pods available and addressed in {:?}", started.elapsed());

        let started = rt::instant();
        world
            .fake
            .delete(&NAMESPACES, "", "shop", &DeleteOptions::default())
            .await
            .expect("the namespace exists");
        world.wait_for("the namespace gone", |fake| fake.peek(&NAMESPACES, "", "shop").is_none()).await;
        println!("all gone in {:?}", started.elapsed());
        for resource in [PODS, REPLICA_SETS, DEPLOYMENTS, ENDPOINTS, ENDPOINT_SLICES] {
            assert!(world.fake.peek_all(&resource).is_empty(), "{resource}");
        }
    }
}
