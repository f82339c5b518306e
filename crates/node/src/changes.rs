//! Objects as they appear and change, for those that act on one object at a time.

use std::sync::Arc;

use apimachinery::Object;
use client::{Delta, Informer};
use futures::stream::{self, Stream, StreamExt};

/// The object as it was when it changed, unless it changed again.
pub fn current(informer: &Informer, changed: &Object) -> Option<Arc<Object>> {
    let is_same = |own: &Arc<Object>| own.uid() == changed.uid() && own.revision() == changed.revision();
    informer.get(changed.namespace(), changed.name()).filter(is_same)
}

/// Objects as they appear and change.
pub fn changes(informer: &Arc<Informer>) -> impl Stream<Item = Arc<Object>> + use<> {
    let informer = informer.clone();
    batches(&informer).flat_map(move |batch| {
        let mut objects = Vec::new();
        for delta in batch {
            match delta {
                Delta::Upsert { new, .. } => objects.push(new),
                Delta::Resync => objects.extend(informer.list()),
                Delta::Delete { .. } => {}
            }
        }
        stream::iter(objects)
    })
}

/// All objects of `woken` whenever something else changes.
pub fn wakes(informer: &Informer, woken: &Arc<Informer>) -> impl Stream<Item = Arc<Object>> + use<> {
    let woken = woken.clone();
    batches(informer).flat_map(move |_| stream::iter(woken.list()))
}

fn batches(informer: &Informer) -> impl Stream<Item = Vec<Delta>> + use<> {
    stream::unfold(informer.subscribe(), |mut subscription| async {
        let mut batch = Vec::new();
        subscription.recv_batch(&mut batch).await.then_some((batch, subscription))
    })
}
