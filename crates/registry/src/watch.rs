//! Watch: a cursor of the watch cache seen through selectors.

use std::collections::VecDeque;
use std::sync::Arc;

use apimachinery::selector::{FieldSelector, Selector};
use apimachinery::{Object, Status};
use watch_cache::{Event, EventKind, Next, Watcher};

use crate::read::Filter;
use crate::{Endpoint, Registry};

/// A checked watch request.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    pub labels: Selector,
    pub fields: FieldSelector,
    pub start: WatchStart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// Events after a revision the caller has seen.
    After(u64),
    /// Events from now on, whatever the revision.
    Now,
    /// The present state as `Added` events, then what follows.
    PresentState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEventKind {
    Added,
    Modified,
    Deleted,
}

#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: WatchEventKind,
    pub object: Arc<Object>,
}

/// The events of one watch.
pub struct WatchStream {
    endpoint: Endpoint,
    prefix: String,
    filter: Filter,
    initial: VecDeque<Arc<Object>>,
    pending: VecDeque<WatchEvent>,
    /// Events whose objects have still to be converted; always empty for a resource that needs none.
    unread: VecDeque<WatchEvent>,
    watcher: Watcher,
}

impl Registry {
    pub async fn watch(
        &self,
        endpoint: &Endpoint,
        namespace: &str,
        request: WatchRequest,
    ) -> Result<WatchStream, Status> {
        let filter = Filter::new(endpoint, &request.labels, &request.fields)?;
        let prefix = endpoint.resource.key_prefix(namespace);
        let too_old = |expired: watch_cache::Expired| {
            Status::expired(format!("too old resource version: {} ({})", expired.requested, expired.oldest))
        };
        let (initial, revision) = match request.start {
            WatchStart::After(revision) => {
                self.check_not_future(revision)?;
                (VecDeque::new(), revision)
            }
            WatchStart::Now => (VecDeque::new(), endpoint.cache.snapshot().revision),
            WatchStart::PresentState => {
                let snapshot = endpoint.cache.snapshot();
                let objects = snapshot
                    .range(&prefix, None)
                    .map(|(_, object)| object)
                    .filter(|object| filter.matches(object))
                    .cloned()
                    .collect();
                (endpoint.read_all(objects).await?.into(), snapshot.revision)
            }
        };
        let watcher = endpoint.cache.watch(revision).map_err(too_old)?;
        let prefix = prefix[endpoint.resource.storage_prefix.len()..].trim_end_matches('/').to_owned();
        let (pending, unread) = (VecDeque::new(), VecDeque::new());
        Ok(WatchStream { endpoint: endpoint.clone(), prefix, filter, initial, pending, unread, watcher })
    }
}

impl WatchStream {
    /// The next object of the initial state, until that is exhausted.
    pub fn next_initial(&mut self) -> Option<Arc<Object>> {
        self.initial.pop_front()
    }

    /// The revision up to which everything was delivered; what a bookmark carries.
    pub fn progress(&self) -> u64 {
        self.watcher.progress()
    }

    /// The next event that is there already, without waiting.
    pub fn ready(&mut self) -> Option<Result<WatchEvent, Status>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(Ok(event));
            }
            if !self.unread.is_empty() {
                return None;
            }
            match self.watcher.ready()? {
                Next::Events(events) => self.take(&events),
                Next::Expired(expired) => return Some(Err(lagged(expired))),
            }
        }
    }

    /// Waits for the next event that passes the selectors. Cancel-safe.
    pub async fn next(&mut self) -> Result<WatchEvent, Status> {
        loop {
            if let Some(ready) = self.ready() {
                return ready;
            }
            if !self.unread.is_empty() {
                self.read().await?;
                continue;
            }
            match self.watcher.next().await {
                Next::Events(events) => self.take(&events),
                Next::Expired(expired) => return Err(lagged(expired)),
            }
        }
    }

    fn take(&mut self, events: &[Arc<Event>]) {
        let seen: Vec<WatchEvent> = events.iter().filter_map(|event| self.see(event)).collect();
        if self.endpoint.converter().is_some() {
            self.unread.extend(seen);
        } else {
            self.pending.extend(seen);
        }
    }

    /// Converts what has happened, all at once. Cancel-safe: until then it stays unread.
    async fn read(&mut self) -> Result<(), Status> {
        let objects = self.unread.iter().map(|event| event.object.clone()).collect();
        let objects = self.endpoint.read_all(objects).await?;
        let read = self.unread.drain(..).zip(objects);
        self.pending.extend(read.map(|(event, object)| WatchEvent { object, ..event }));
        Ok(())
    }

    /// What this watcher makes of an event: an object that leaves the selection is deleted for it.
    fn see(&self, event: &Event) -> Option<WatchEvent> {
        if !self.prefix.is_empty() && event.object.namespace() != self.prefix {
            return None;
        }
        let before = event.previous.as_ref().is_some_and(|previous| self.filter.matches(previous));
        let after = event.kind != EventKind::Deleted && self.filter.matches(&event.object);
        let kind = match (before, after) {
            (false, true) => WatchEventKind::Added,
            (true, true) => WatchEventKind::Modified,
            (true, false) => WatchEventKind::Deleted,
            (false, false) => return None,
        };
        let object = match (&event.previous, kind) {
            // The state that was selected, at the revision at which it ceased to be.
            (Some(previous), WatchEventKind::Deleted) if event.kind != EventKind::Deleted => {
                Arc::new(previous.at_revision(event.revision))
            }
            _ => event.object.clone(),
        };
        Some(WatchEvent { kind, object })
    }
}

fn lagged(expired: watch_cache::Expired) -> Status {
    Status::expired(format!("too old resource version: {} ({})", expired.requested, expired.oldest))
}
