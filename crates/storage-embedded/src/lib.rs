//! The storage contract on an embedded log-structured engine.
//!
//! One process, one data directory, one writer. A commit waits in a bounded queue ([`queue`]); the
//! writer ([`writer`]) takes all that wait, appends them to the journal as one frame and syncs once,
//! which is why many committers are served at the price of one. Full journal files move to tables in
//! the background ([`keeper`]); an index in memory ([`index`]) knows which revision of a key is where,
//! so that each value is written twice in its life, read only when asked for and never held here.
//!
//! ```text
//! commit → queue → writer → journal (frame, fdatasync) → index → observers → answer
//!                              └─ full files → keeper → tables (fjall)
//! get, range, scan, watch → index → view of journal and tables
//! ```
//!
//! Never does: interpret keys or values, retry for the caller, or start over after damage. Damage is
//! [`storage::Error::Corrupt`] and stops the start; see [`journal`] for how it is told from the torn
//! end that a crash leaves. Start reading at [`open`], then [`writer`].

mod directory;
mod index;
mod journal;
mod keeper;
mod log;
mod manifest;
mod open;
mod queue;
mod record;
mod segment;
mod shared;
mod snapshot;
mod store;
mod tables;
mod watch;
mod writer;

use std::time::Duration;

pub use crate::open::{memory, open};
pub use crate::store::EmbeddedStore;

/// How a store behaves. The defaults suit a small cluster and a small process.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often history is compacted. Between one and two intervals of it are kept. Default: five
    /// minutes, as kube-apiserver does with etcd.
    pub compaction_interval: Duration,
    /// How many superseded versions and deletes may be kept, whatever their age; beyond that, history
    /// is compacted early. Default: 200,000, which takes some 25 MB.
    pub history_max: usize,
    /// By when relaxed writes are synced. Default: one second.
    pub relaxed_flush: Duration,
    /// Size of a journal file; at most 1 GiB. Default: 32 MiB.
    pub journal_file_bytes: u64,
    /// Memory for blocks of the tables. Default: 2 MiB, because a cache above holds all values.
    pub block_cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compaction_interval: Duration::from_secs(300),
            history_max: 200_000,
            relaxed_flush: Duration::from_secs(1),
            journal_file_bytes: 32 << 20,
            block_cache_bytes: 2 << 20,
        }
    }
}
