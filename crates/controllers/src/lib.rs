//! The controllers, one folder each.
//!
//! Owns: [`descriptors`], the one list. Each controller reads through shared informers, writes under its own
//! service account of `kube-system`, and is written the same way: `mod.rs` wires and acts, `plan.rs` decides and is
//! pure, `tests.rs` holds a row per behaviour. Never touches: storage, the API server, each other.
//!
//! Start at [`start`]; to add a controller, add a folder and a line in [`descriptors`].

pub mod ownership;
pub mod pods;

mod deployment;
mod endpoints;
mod endpointslice;
mod garbage_collector;
mod namespace;
mod node_lifecycle;
mod pod_gc;
mod replicaset;
mod root_ca_publisher;
mod service;
mod service_account;
mod taint_eviction;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use client::{Api, Informers};
use controller_runtime::ControllerDescriptor;
use controller_runtime::controller::Observer;
use rt::{JoinHandle, Shutdown};

/// What controllers are told from outside.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// PEM bundle that clients in pods verify the API server with; published to every namespace when not empty.
    pub root_ca: String,
}

/// Every controller, in no particular order.
pub fn descriptors() -> Vec<ControllerDescriptor<Options>> {
    vec![
        deployment::descriptor(),
        endpoints::descriptor(),
        endpointslice::descriptor(),
        garbage_collector::descriptor(),
        namespace::descriptor(),
        node_lifecycle::descriptor(),
        pod_gc::descriptor(),
        replicaset::descriptor(),
        root_ca_publisher::descriptor(),
        service_account::descriptor(),
        taint_eviction::descriptor(),
    ]
}

/// Starts all controllers. `api_of` gives the API under the identity of a service account of `kube-system`;
/// `informers` read under that of the controller manager.
pub fn start(
    api_of: &dyn Fn(&str) -> Arc<dyn Api>,
    informers: &Informers,
    options: Options,
    observer: Option<Arc<dyn Observer>>,
    shutdown: &Shutdown,
) -> Vec<JoinHandle<()>> {
    controller_runtime::start_all(descriptors(), api_of, informers, &Arc::new(options), observer, shutdown)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn no_two_controllers_share_a_name() {
        let mut names = HashSet::new();
        for descriptor in super::descriptors() {
            assert!(names.insert(descriptor.name), "two controllers are called {}", descriptor.name);
        }
    }
}
