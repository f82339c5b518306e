//! [`ControllerDescriptor`]: a controller as the wiring sees it.

use std::sync::Arc;

use client::{Api, Informers, Recorder};
use futures::future::BoxFuture;
use rt::{Shutdown, Tasks};
use tokio::sync::watch;
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
    /// Counted down once the controller has read its informers.
    pub unready: Arc<watch::Sender<usize>>,
}

/// Controllers that were started.
pub struct Started {
    pub tasks: Tasks,
    unready: watch::Receiver<usize>,
}

impl Started {
    /// Waits until every controller has read what it works on.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut unready = self.unready.clone();
        async move {
            // The sender goes only with the last controller, at shutdown.
            let _ = unready.wait_for(|left| *left == 0).await;
        }
    }
}

/// Starts controllers, each a task that ends with `shutdown`. `api_of` gives the API under the identity of a service
/// account of `kube-system`.
pub fn start_all<O: Send + Sync + 'static>(
    descriptors: Vec<ControllerDescriptor<O>>,
    api_of: &dyn Fn(&str) -> Arc<dyn Api>,
    informers: &Informers,
    options: &Arc<O>,
    shutdown: &Shutdown,
) -> Started {
    let (sender, unready) = watch::channel(descriptors.len());
    let sender = Arc::new(sender);
    let mut tasks = Tasks::default();
    for descriptor in descriptors {
        let api = api_of(descriptor.service_account);
        let context = Context {
            name: descriptor.name,
            workers: descriptor.workers,
            recorder: Recorder::new(api.clone(), descriptor.event_source, shutdown.child_token()),
            api,
            informers: informers.clone(),
            options: options.clone(),
            shutdown: shutdown.child_token(),
            unready: sender.clone(),
        };
        info!(controller = descriptor.name, "Started controller");
        tasks.spawn(descriptor.name, (descriptor.start)(context));
    }
    Started { tasks, unready }
}
