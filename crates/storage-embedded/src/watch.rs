//! Watching: events read from history, a chunk at a time, as the store moves on.
//!
//! Owns: the state of one stream. There is no buffer between writer and watcher that could overflow:
//! a watcher remembers how far it is and reads on from the journal or the tables, so a slow one costs
//! nothing until compaction overtakes it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use storage::{Error, Event, EventStream, Key, Revision};
use tokio::sync::watch;

use crate::record::Record;
use crate::shared::{Progress, Shared};

/// Revisions read in one go: enough to make reading cheap, little enough to hold.
const CHUNK: u64 = 128;

struct Watcher {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    prefix: Box<str>,
    after: u64,
    ready: VecDeque<Event>,
    failed: bool,
}

/// Checks the starting point and returns the stream.
pub(crate) fn stream(shared: &Arc<Shared>, prefix: &str, after: Revision) -> Result<EventStream, Error> {
    check_start(shared, after.0)?;
    let watcher = Watcher {
        shared: Arc::clone(shared),
        progress: shared.progress.subscribe(),
        prefix: prefix.into(),
        after: after.0,
        ready: VecDeque::new(),
        failed: false,
    };
    Ok(stream::unfold(watcher, Watcher::next).boxed())
}

fn check_start(shared: &Shared, after: u64) -> Result<(), Error> {
    let index = shared.index.read();
    if after < index.compacted() {
        return Err(Error::Compacted { requested: Revision(after), oldest: Revision(index.compacted()) });
    }
    if after > index.current() {
        return Err(Error::FutureRevision { requested: Revision(after), current: Revision(index.current()) });
    }
    Ok(())
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Event, Error>, Self)> {
        loop {
            if self.failed {
                return None;
            }
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            let progress = *self.progress.borrow_and_update();
            if progress.revision.0 > self.after {
                match self.read_on() {
                    Ok(()) => {}
                    Err(Error::Closed) => return None,
                    Err(error) => {
                        self.failed = true;
                        return Some((Err(error), self));
                    }
                }
            } else if progress.closed || self.progress.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Reads the next chunk of history.
    fn read_on(&mut self) -> Result<(), Error> {
        self.shared.expect_open()?;
        check_start(&self.shared, self.after)?;
        let (view, until) = {
            let index = self.shared.index.read();
            (self.shared.log.view()?, index.current().min(self.after + CHUNK))
        };
        let (prefix, ready) = (&self.prefix, &mut self.ready);
        view.stretch(self.after + 1..=until, |record| {
            if record.key.starts_with(&**prefix) {
                ready.push_back(event(record));
            }
            Ok(())
        })?;
        self.after = until;
        Ok(())
    }
}

fn event(record: Record<'_>) -> Event {
    Event {
        revision: Revision(record.revision),
        kind: record.kind,
        key: Key::from(record.key),
        value: Bytes::copy_from_slice(record.value),
        create_revision: Revision(record.created),
        attachment: None,
    }
}
