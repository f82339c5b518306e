//! [`Cache`]: what others answered, for as long as they said, and at most [`LIFETIME_MAX`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rt::Instant;

use super::wire::{Foreign, Name, kind, rcode};

/// As with kubeadm's `cache 30`: a change elsewhere is seen half a minute later at most.
const LIFETIME_MAX: Duration = Duration::from_secs(30);
/// Answers that are kept; of more, the oldest go.
const ENTRIES_MAX: usize = 10_000;
/// Longer answers are not kept.
const MESSAGE_MAX: usize = 16 << 10;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub name: Box<[u8]>,
    pub kind: u16,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

/// Somebody else's answer.
pub(super) struct Answer {
    pub message: Vec<u8>,
    pub foreign: Foreign,
    received: Instant,
    lifetime: Duration,
}

#[derive(Default)]
pub(super) struct Cache {
    answers: HashMap<Arc<Key>, (u64, Arc<Answer>)>,
    /// In the order in which they came; those that were replaced are still in it.
    order: VecDeque<(Arc<Key>, u64)>,
    count: u64,
}

impl Key {
    pub fn new(name: &Name, kind: u16, dnssec_ok: bool, checking_disabled: bool) -> Self {
        Self { name: name.as_bytes().into(), kind, dnssec_ok, checking_disabled }
    }
}

impl Answer {
    pub fn new(message: Vec<u8>, foreign: Foreign, now: Instant) -> Self {
        let lifetime = lifetime(&message, &foreign);
        Self { message, foreign, received: now, lifetime }
    }

    /// Whole seconds since it came.
    pub fn age(&self, now: Instant) -> u32 {
        now.duration_since(self.received).as_secs() as u32
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.received) < self.lifetime
    }
}

impl Cache {
    pub fn get(&self, key: &Key, now: Instant) -> Option<Arc<Answer>> {
        let (_, answer) = self.answers.get(key)?;
        answer.is_fresh(now).then(|| answer.clone())
    }

    pub fn insert(&mut self, key: Key, answer: Arc<Answer>) {
        if answer.lifetime.is_zero() || answer.message.len() > MESSAGE_MAX {
            return;
        }
        self.count += 1;
        let key = Arc::new(key);
        self.answers.insert(key.clone(), (self.count, answer));
        self.order.push_back((key, self.count));
        while self.order.len() > ENTRIES_MAX {
            let Some((key, number)) = self.order.pop_front() else { return };
            if self.answers.get(&key).is_some_and(|(own, _)| *own == number) {
                self.answers.remove(&key);
            }
        }
    }
}

/// How long it may be given to others: as its records say, or of nothing, as the zone says of that.
fn lifetime(message: &[u8], foreign: &Foreign) -> Duration {
    let ttl = |record: &super::wire::RecordAt| record.ttl(message);
    let lowest = foreign.answers.iter().chain(&foreign.authorities).map(ttl).min();
    let soa = foreign.authorities.iter().find(|record| record.kind == kind::SOA);
    // The last field of its data.
    let minimum = soa
        .and_then(|record| message[record.data.clone()].last_chunk().map(|bytes| u32::from_be_bytes(*bytes)));
    let found = foreign.rcode == u16::from(rcode::NO_ERROR) && !foreign.answers.is_empty();
    let nothing =
        foreign.rcode == u16::from(rcode::NO_ERROR) || foreign.rcode == u16::from(rcode::NAME_ERROR);
    let seconds = match (found, minimum) {
        _ if foreign.is_truncated() => None,
        (true, _) => lowest,
        (false, Some(minimum)) if nothing => lowest.map(|lowest| lowest.min(minimum)),
        _ => None,
    };
    Duration::from_secs(seconds.unwrap_or(0).into()).min(LIFETIME_MAX)
}
