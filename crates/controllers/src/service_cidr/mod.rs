//! The ServiceCIDR controller: blocks of Service addresses are ready, and go only when no address needs them.
//!
//! A block keeps its finalizer while an `IPAddress` lies in no other block. Once nothing needs it, it stays a moment
//! longer, so that an address taken just before the deletion shows.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::gvr::{IP_ADDRESSES, SERVICE_CIDRS};
use apimachinery::{Object, Value, json, time};
use async_trait::async_trait;
use client::{Api, Delta, Informer, ObjectKey, Patch, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;

use crate::Options;
use plan::Block;

const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// Between the deletion of a block that nothing needs and its end.
const DELETION_GRACE: Duration = Duration::from_secs(10);

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "service-cidrs-controller",
        event_source: NAME,
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (blocks, addresses) = (context.informers.of(&SERVICE_CIDRS), context.informers.of(&IP_ADDRESSES));
    let reconciler = Arc::new(Controller {
        api: context.api.clone(),
        blocks: blocks.clone(),
        addresses: addresses.clone(),
    });
    let (of_block, of_address) = (reconciler.clone(), reconciler.clone());
    let controller = controller_runtime::Controller::new(&context, reconciler)
        // A block that appears or goes changes what the blocks around it are needed for.
        .watches(&blocks, move |_, keys| keys.extend(of_block.keys(|_| true)))
        // An address that goes may be what a block was waiting for.
        .watches(&addresses, move |delta, keys| {
            if matches!(delta, Delta::Delete { .. }) {
                keys.extend(of_address.keys(Object::is_deleting));
            }
        });
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    blocks: Arc<Informer>,
    addresses: Arc<Informer>,
}

impl Controller {
    fn keys(&self, wanted: impl Fn(&Object) -> bool) -> Vec<ObjectKey> {
        self.blocks
            .list()
            .iter()
            .filter(|block| wanted(block))
            .map(|block| ObjectKey::cluster(block.name()))
            .collect()
    }

    async fn set_finalizer(&self, name: &str, present: bool) -> Result<()> {
        let patch = if present {
            json!({"metadata": {"finalizers": [FINALIZER]}})
        } else {
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})
        };
        let options = WriteOptions::default();
        self.api.patch(&SERVICE_CIDRS, "", name, None, Patch::Strategic(patch), &options).await?;
        Ok(())
    }

    /// Writes the `Ready` condition, unless it says so already.
    async fn set_ready(&self, block: &Value, ready: bool) -> Result<()> {
        let (status, reason, message) = if ready {
            ("True", "", "Kubernetes Service CIDR is ready")
        } else {
            (
                "False",
                "Terminating",
                "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
            )
        };
        let current = block.array_at(&["status", "conditions"]);
        let current = current.iter().find(|own| own.str_at(&["type"]) == "Ready");
        if current.is_some_and(|own| {
            own.str_at(&["status"]) == status
                && own.str_at(&["reason"]) == reason
                && own.str_at(&["message"]) == message
        }) {
            return Ok(());
        }
        let name = block.str_at(&["metadata", "name"]);
        let applied = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
            "status": {"conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": time::format_seconds(rt::now()),
            }]},
        });
        let options = WriteOptions { field_manager: NAME.into(), force: true, ..WriteOptions::default() };
        let patch = Patch::Apply(applied);
        self.api.patch(&SERVICE_CIDRS, "", name, Some("status"), patch, &options).await?;
        Ok(())
    }

    /// Whether everything in the block lies in another one too, or nothing lies in it.
    fn is_needed(&self, name: &str) -> bool {
        let blocks: Vec<Block> = self.blocks.list().iter().flat_map(|own| Block::all_of(own)).collect();
        let mut addresses = Vec::new();
        self.addresses.for_each(|address| addresses.extend(plan::allocated(address)));
        plan::is_needed(name, &blocks, &addresses)
    }
}

#[async_trait]
impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result {
        let name = key.name.as_str();
        let Some(object) = self.blocks.get("", name) else { return Ok(Action::await_change()) };
        let block = object.to_value();
        let finalizers = block.array_at(&["metadata", "finalizers"]);
        let protected = finalizers.iter().any(|own| own.as_str() == Some(FINALIZER));
        if !object.is_deleting() {
            if !protected {
                self.set_finalizer(name, true).await?;
            }
            self.set_ready(&block, true).await?;
            return Ok(Action::await_change());
        }
        if !protected {
            return Ok(Action::await_change());
        }
        if self.is_needed(name) {
            self.set_ready(&block, false).await?;
            return Ok(Action::await_change());
        }
        let deleted = time::parse(block.str_at(&["metadata", "deletionTimestamp"]));
        let since = deleted.and_then(|at| Duration::try_from(rt::now().duration_since(at)).ok());
        let left = DELETION_GRACE.saturating_sub(since.unwrap_or_default());
        if !left.is_zero() {
            return Ok(Action::Requeue(left));
        }
        self.set_finalizer(name, false).await?;
        Ok(Action::await_change())
    }
}
