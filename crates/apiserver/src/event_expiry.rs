//! Events are kept for an hour, as upstream's `--event-ttl`, and never more than a bounded number of them.
//!
//! Driven by the events' own watch and one timer; nothing is listed again. Deletes pass the door as everyone's, as
//! `system:apiserver`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Str};
use auth::UserInfo;
use client::{Api, DeleteOptions, WatchEvent, WatchOptions};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::{Door, LocalApi};

/// How long an event is kept after its last change.
const EVENT_TTL: Duration = Duration::from_secs(3600);
/// Beyond this many the oldest go early: about 100 MB of them.
const EVENTS_MAX: usize = 100_000;
/// Deletes on their way at a time.
const DELETES_MAX: usize = 128;
/// After a watch failed, before the next.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// States of events by when they end, unless the event has changed by then. The revision is the state's.
type Expiries = BTreeMap<(rt::Instant, u64), (Str, Str)>;

/// Deletes events as they expire, until `shutdown`.
pub async fn run(door: Arc<Door>, shutdown: rt::Shutdown) {
    let api = LocalApi::new(door, UserInfo::api_server(), shutdown.clone());
    let mut expiries = Expiries::new();
    while !shutdown.is_cancelled() {
        expiries.clear();
        follow(&api, &mut expiries, &shutdown).await;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = rt::sleep(RETRY_DELAY) => {}
        }
    }
}

/// One watch, until it ends.
async fn follow(api: &LocalApi, expiries: &mut Expiries, shutdown: &rt::Shutdown) {
    let Ok(mut events) = api.watch(&api::gvr::EVENTS, "", &WatchOptions::default()).await else { return };
    loop {
        let next = expiries.first_key_value().map_or_else(|| rt::instant() + EVENT_TTL, |(key, _)| key.0);
        tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some(Ok(WatchEvent::Added(object))) => note(expiries, &object, age(&object)),
                // A change, such as a higher count, starts the time anew.
                Some(Ok(WatchEvent::Modified(object))) => note(expiries, &object, Duration::ZERO),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            () = rt::sleep_until(next) => {}
        }
        let now = rt::instant();
        let mut due = Vec::new();
        while let Some(first) = expiries.first_entry() {
            if first.key().0 > now && expiries.len() <= EVENTS_MAX {
                break;
            }
            due.extend(expiries.pop_first());
        }
        delete(api, due).await;
    }
}

fn note(expiries: &mut Expiries, object: &Object, age: Duration) {
    let at = rt::instant() + EVENT_TTL.saturating_sub(age);
    expiries.insert((at, object.revision()), (object.namespace().into(), object.name().into()));
}

/// How long ago it was created: what was stored before a restart gets what is left.
fn age(object: &Object) -> Duration {
    apimachinery::time::parse(object.creation_timestamp())
        .and_then(|created| Duration::try_from(rt::now().duration_since(created)).ok())
        .unwrap_or_default()
}

async fn delete(api: &LocalApi, due: Vec<((rt::Instant, u64), (Str, Str))>) {
    let mut running = FuturesUnordered::new();
    for ((_, revision), (namespace, name)) in due {
        if running.len() == DELETES_MAX {
            running.next().await;
        }
        running.push(async move {
            // Changed since: a later entry stands for it.
            let options = DeleteOptions { resource_version: Some(revision), ..DeleteOptions::default() };
            let _ = api.delete(&api::gvr::EVENTS, &namespace, &name, &options).await;
        });
    }
    while running.next().await.is_some() {}
}
