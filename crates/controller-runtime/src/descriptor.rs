//! [`ControllerDescriptor`]: a controller as the wiring sees it.

use std::sync::Arc;

use client::{Api, Informers, Recorder};
use futures::future::BoxFuture;
use rt::{JoinHandle, Shutdown};
use tracing::info;

/// One controller: who it is and how it starts.
pub struct ControllerDescriptor<O: 'static> {
    /// Upstream's controller name, e.g. `deployment-controller`; unique.
    pub name: &'static str,
    /// The service account in `kube-system` under which it writes.
    pub service_account: &'static str,
    /// `source.component` of its events, by which users know it; often not its name.
    pub event_source: &'static str,
    /// Keys reconciled at the same time.
    pub workers: usize,
    /// Runs the controller until its context's shutdown.
    pub start: fn(Context<O>) -> BoxFuture<'static, ()>,
}

/// What a controller gets to work with.
pub struct Context<O> {
    pub name: &'static str,
    pub workers: usize,
    /// Writes, under the controller's own identity.
    pub api: Arc<dyn Api>,
    /// Reads, shared by all controllers.
    pub informers: Informers,
    /// Events, under the controller's own identity and name.
    pub recorder: Recorder,
    pub options: Arc<O>,
    pub shutdown: Shutdown,
}

/// Starts controllers, each a task that ends with `shutdown`. `api_of` gives the API under the identity of a service
/// account of `kube-system`.
pub fn start_all<O: Send + Sync + 'static>(
    descriptors: Vec<ControllerDescriptor<O>>,
    api_of: &dyn Fn(&str) -> Arc<dyn Api>,
    informers: &Informers,
    options: &Arc<O>,
    shutdown: &Shutdown,
) -> Vec<JoinHandle<()>> {
    let start = |descriptor: ControllerDescriptor<O>| {
        let api = api_of(descriptor.service_account);
        let context = Context {
            name: descriptor.name,
            workers: descriptor.workers,
            recorder: Recorder::new(api.clone(), descriptor.event_source, shutdown.child_token()),
            api,
            informers: informers.clone(),
            options: options.clone(),
            shutdown: shutdown.child_token(),
        };
        info!(controller = descriptor.name, "Started controller");
        rt::spawn(descriptor.name, (descriptor.start)(context))
    };
    descriptors.into_iter().map(start).collect()
}
