//! The task behind an [`Informer`]: list, watch, watch again, and list again when history is gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Status, Str};
use futures::StreamExt;
use tracing::{debug, warn};

use super::{Delta, Informer};
use crate::{Api, ListOptions, ObjectList, WatchEvent, WatchOptions, WatchStream};

/// Watch events applied under one lock of the store.
const BATCH_MAX: usize = 512;

/// A retry waits this long at first and up to the maximum, doubling; jitter keeps informers apart.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// A watch that lived this long was a good one: the next failure starts over with the shortest wait.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// Why the present list can no longer be continued by a watch.
enum WatchEnd {
    /// History is gone; list again.
    Expired,
    /// Watch again from the last revision, after a pause if it failed.
    Closed(Option<Status>),
}

/// Keeps `informer` up to date until it is shut down.
pub(super) async fn run(api: Arc<dyn Api>, informer: Arc<Informer>) {
    let shutdown = informer.shutdown.clone();
    tokio::select! {
        () = follow(&*api, &informer) => {}
        () = shutdown.cancelled() => {}
    }
    informer.subscribers.lock().drain(..).for_each(|queue| queue.close());
}

async fn follow(api: &dyn Api, informer: &Informer) {
    let mut retry = Retry::default();
    loop {
        match list(api, informer).await {
            Ok(list) => replace(informer, list),
            Err(status) => {
                warn!(resource = %informer.resource, error = %status, "Listed without success");
                retry.pause().await;
                continue;
            }
        }
        watch_until_expired(api, informer, &mut retry).await;
    }
}

async fn list(api: &dyn Api, informer: &Informer) -> Result<ObjectList, Status> {
    let options = ListOptions {
        label_selector: informer.scope.label_selector.to_string(),
        field_selector: informer.scope.field_selector.to_string(),
        ..ListOptions::default()
    };
    let mut all = api.list(&informer.resource, &informer.scope.namespace, &options).await?;
    while !all.continue_token.is_empty() {
        let options =
            ListOptions { continue_token: std::mem::take(&mut all.continue_token), ..options.clone() };
        let page = api.list(&informer.resource, &informer.scope.namespace, &options).await?;
        all.items.extend(page.items);
        all.continue_token = page.continue_token;
    }
    Ok(all)
}

async fn watch_until_expired(api: &dyn Api, informer: &Informer, retry: &mut Retry) {
    loop {
        let options = WatchOptions {
            label_selector: informer.scope.label_selector.to_string(),
            field_selector: informer.scope.field_selector.to_string(),
            revision: informer.revision(),
        };
        let started = rt::instant();
        let end = match api.watch(&informer.resource, &informer.scope.namespace, &options).await {
            Ok(stream) => drain(informer, stream).await,
            Err(status) if status.is_expired() => WatchEnd::Expired,
            Err(status) => WatchEnd::Closed(Some(status)),
        };
        if started.elapsed() >= HEALTHY_AFTER {
            retry.reset();
        }
        match end {
            WatchEnd::Expired => {
                debug!(resource = %informer.resource, "Watch expired");
                // A server whose history is always too short must not make us list without pause.
                return retry.pause().await;
            }
            WatchEnd::Closed(failure) => {
                if let Some(status) = failure {
                    debug!(resource = %informer.resource, error = %status, "Watch failed");
                }
                retry.pause().await;
            }
        }
    }
}

async fn drain(informer: &Informer, stream: WatchStream) -> WatchEnd {
    let mut batches = stream.ready_chunks(BATCH_MAX);
    while let Some(batch) = batches.next().await {
        if let Some(end) = apply(informer, batch) {
            return end;
        }
    }
    WatchEnd::Closed(None)
}

/// Applies events to the store, then tells the subscribers.
fn apply(informer: &Informer, batch: Vec<Result<WatchEvent, Status>>) -> Option<WatchEnd> {
    let mut deltas = Vec::with_capacity(batch.len());
    let mut revision = informer.revision();
    let mut end = None;
    warm(informer, &batch);
    {
        let mut store = informer.store.write();
        for event in batch {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    revision = revision.max(object.revision());
                    let old = store.insert(object.clone());
                    deltas.push(Delta::Upsert { old, new: object });
                }
                Ok(WatchEvent::Deleted(object)) => {
                    revision = revision.max(object.revision());
                    store.remove(object.namespace(), object.name());
                    deltas.push(Delta::Delete { old: object });
                }
                Ok(WatchEvent::Bookmark(bookmark)) => revision = revision.max(bookmark),
                Err(status) => {
                    end = Some(if status.is_expired() {
                        WatchEnd::Expired
                    } else {
                        WatchEnd::Closed(Some(status))
                    });
                    break;
                }
            }
        }
    }
    informer.revision.send_replace(revision);
    informer.publish(&deltas);
    end
}

/// Lets index functions decode the objects before readers are locked out: a typed view is made on first use and kept.
fn warm(informer: &Informer, batch: &[Result<WatchEvent, Status>]) {
    let index_fns = informer.store.read().index_fns();
    for event in batch {
        if let Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) = event {
            index_fns.iter().for_each(|values_of| drop(values_of(object)));
        }
    }
}

/// Makes the store equal to a list. The first list is told as a resync, later ones as differences.
fn replace(informer: &Informer, list: ObjectList) {
    let first = !informer.is_synced();
    let deltas = differences(informer, &list);
    {
        // Taken before the revision is visible, so that a subscriber gets exactly one initial resync.
        let mut subscribers = informer.subscribers.lock();
        informer.revision.send_replace(list.revision.max(1));
        if first {
            subscribers.retain(|queue| !queue.is_closed());
            subscribers.iter().for_each(|queue| queue.push_all(&[Delta::Resync]));
            return;
        }
    }
    informer.publish(&deltas);
}

fn differences(informer: &Informer, list: &ObjectList) -> Vec<Delta> {
    let mut store = informer.store.write();
    let listed: HashSet<(&str, &str)> = list.items.iter().map(|o| (o.namespace(), o.name())).collect();
    let gone: Vec<(Str, Str)> = store
        .iter()
        .filter(|own| !listed.contains(&(own.namespace(), own.name())))
        .map(|own| (own.namespace().into(), own.name().into()))
        .collect();
    let removed = gone.iter().filter_map(|(namespace, name)| store.remove(namespace, name));
    let mut deltas: Vec<Delta> = removed.map(|old| Delta::Delete { old }).collect();
    for object in &list.items {
        let known = store.get(object.namespace(), object.name()).map(|own| own.revision());
        if known == Some(object.revision()) {
            continue;
        }
        deltas.extend(replace_one(&mut store, object));
    }
    deltas
}

/// An object of another uid is another object: its predecessor's deletion was missed and is told first.
fn replace_one(store: &mut super::store::Store, object: &Arc<Object>) -> Vec<Delta> {
    match store.insert(object.clone()) {
        Some(old) if old.uid() != object.uid() => {
            vec![Delta::Delete { old }, Delta::Upsert { old: None, new: object.clone() }]
        }
        old => vec![Delta::Upsert { old, new: object.clone() }],
    }
}

#[derive(Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    async fn pause(&mut self) {
        let base = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures += 1;
        rt::sleep(rt::jittered(base, 0.5)).await;
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}
