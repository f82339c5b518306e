//! Hot path: the seats of a priority level, taken with one atomic operation while nobody waits.
//!
//! Seats in use, requests served and requests that wait are one word, so that whoever frees a seat sees a request
//! that began to wait before, and whoever begins to wait sees a seat that was freed before: no wake-up is lost. The
//! lock is taken by those who wait, and by those who free a seat while others do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rt::Instant;
use tokio::sync::Notify;

use crate::configuration::Schema;
use crate::demand::Demand;
use crate::drops::Drops;
use crate::queues::{Newcomer, Queues, Served, Settings, Shown, Ticket, Turn, kept_free};
use crate::width::Width;

const SEATS_BITS: u32 = 24;
const EXECUTING_BITS: u32 = 20;
const EXECUTING_ONE: u64 = 1 << SEATS_BITS;
const WAITING_ONE: u64 = 1 << (SEATS_BITS + EXECUTING_BITS);

/// No limit.
pub(crate) const EXEMPT: u32 = u32::MAX;

/// A priority level while it is in use. It outlives changes of its configuration.
#[derive(Debug)]
pub(crate) struct Level {
    pub name: Arc<str>,
    state: AtomicU64,
    limit: AtomicU32,
    queues: Mutex<Queues>,
    drops: Mutex<Drops>,
    pub demand: Demand,
    pub dispatched: AtomicU64,
    pub rejected: AtomicU64,
    pub cancelled: AtomicU64,
    /// No longer configured.
    quiescing: AtomicBool,
    told: Told,
}

/// Who is told of a level.
#[derive(Debug)]
pub(crate) struct Told {
    /// When somebody has to wait.
    pub contended: Arc<Notify>,
    /// When a level that is no longer configured is idle.
    pub drained: Arc<Notify>,
}

/// What the word of a level says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub seats: u32,
    pub executing: u32,
    pub waiting: u32,
}

/// The seats of a request; dropping them lets others have them.
#[derive(Debug)]
pub struct Seats {
    schema: Arc<Schema>,
    width: Width,
    /// If it waited.
    turn: Option<Turn>,
    arrived: Instant,
    started: Instant,
    is_watch: bool,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub retry_after_seconds: u64,
}

/// A request in its queue; leaving without having taken its turn takes it out.
struct InQueue<'a> {
    level: &'a Level,
    schema: &'a Schema,
    width: Width,
    ticket: Ticket,
    served: bool,
}

impl State {
    fn unpack(word: u64) -> Self {
        let field = |shift: u32, bits: u32| ((word >> shift) & ((1 << bits) - 1)) as u32;
        Self {
            seats: field(0, SEATS_BITS),
            executing: field(SEATS_BITS, EXECUTING_BITS),
            waiting: field(SEATS_BITS + EXECUTING_BITS, 64 - SEATS_BITS - EXECUTING_BITS),
        }
    }

    /// Whether so many seats can be taken and those stay free that a request leaves to narrower ones. One wider than
    /// the level is served alone.
    fn has_room(self, seats: u32, limit: u32) -> bool {
        let needed = seats.saturating_add(kept_free(seats, limit));
        if seats > limit { self.executing == 0 } else { self.seats.saturating_add(needed) <= limit }
    }
}

impl Level {
    pub fn new(name: &str, limit: u32, settings: Settings, told: Told) -> Self {
        Self {
            name: name.into(),
            state: AtomicU64::new(0),
            limit: AtomicU32::new(limit),
            queues: Mutex::new(Queues::new(settings, rt::instant())),
            drops: Mutex::default(),
            demand: Demand::default(),
            dispatched: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            quiescing: AtomicBool::new(false),
            told,
        }
    }

    pub fn state(&self) -> State {
        State::unpack(self.state.load(Ordering::Acquire))
    }

    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.executing == 0 && state.waiting == 0
    }

    /// Seats in use and waited for.
    pub fn wanted(&self) -> u32 {
        let waiting = if self.state().waiting == 0 { 0 } else { self.queues.lock().waiting_seats() };
        self.state().seats + waiting
    }

    pub fn with_queues<T>(&self, look: impl FnOnce(&Queues) -> T) -> T {
        look(&self.queues.lock())
    }

    pub fn configure(&self, settings: Settings) {
        self.quiescing.store(false, Ordering::Release);
        self.queues.lock().configure(settings);
    }

    /// It is no longer configured: from now on it tells when it is idle.
    pub fn quiesce(&self) {
        self.quiescing.store(true, Ordering::Release);
    }

    fn tell_if_drained(&self) {
        if self.quiescing.load(Ordering::Acquire) && self.is_idle() {
            self.told.drained.notify_one();
        }
    }

    /// Changes the limit; with a higher one those who wait are served.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
        if self.state().waiting > 0 {
            self.dispatch(&mut self.queues.lock());
        }
    }

    /// Takes seats if they are free. `change` is what else happens to the word. A newcomer must not overtake those who
    /// wait.
    fn take(&self, seats: u32, newcomer: bool, change: impl Fn(u64) -> u64) -> bool {
        let limit = self.limit();
        let taken = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let state = State::unpack(word);
            let may = !(newcomer && state.waiting > 0) && state.has_room(seats, limit);
            may.then(|| change(word + u64::from(seats) + EXECUTING_ONE))
        });
        match taken {
            Ok(before) if newcomer => {
                self.demand.rose_to(State::unpack(before).seats + seats);
                true
            }
            taken => taken.is_ok(),
        }
    }

    fn dispatch(&self, queues: &mut Queues) {
        queues.dispatch(rt::instant(), self.limit(), |seats| {
            self.take(seats, false, |word| word - WAITING_ONE)
        });
    }

    /// Gives seats back. Of a request that waited the queue is told how it was served, unless it knows.
    fn release(&self, seats: u32, turn: Option<Turn>, served: Option<Served>) {
        let before = self.state.fetch_sub(u64::from(seats) + EXECUTING_ONE, Ordering::AcqRel);
        if turn.is_none() && State::unpack(before).waiting == 0 {
            return self.tell_if_drained();
        }
        let mut queues = self.queues.lock();
        if let Some(served) = served {
            queues.served(served, self.limit());
        }
        if let Some(turn) = turn {
            queues.release(turn, seats);
        }
        self.dispatch(&mut queues);
        self.tell_if_drained();
    }

    /// Seats for one request, at once or when it is its turn.
    pub async fn admit(
        &self,
        schema: &Arc<Schema>,
        width: Width,
        is_watch: bool,
        flow: impl FnOnce() -> (u64, Shown),
        wait_max: Duration,
    ) -> Result<Seats, Rejected> {
        let arrived = rt::instant();
        schema.metrics.estimated_seats.observe_count(u64::from(width.reserved()));
        if let Some(watchers) = width.watchers {
            schema.metrics.watch_count.observe_count(watchers as u64);
        }
        if self.take(width.reserved(), true, |word| word) {
            return Ok(Seats::new(schema, width, None, arrived, arrived, is_watch));
        }
        let (hash, shown) = flow();
        let Some(ticket) = self.enqueue(schema, width, hash, shown, arrived) else {
            return Err(self.reject(schema, arrived));
        };
        self.told.contended.notify_one();
        let mut waiting = InQueue { level: self, schema, width, ticket, served: false };
        let granted = rt::timeout(wait_max, &mut waiting.ticket.granted).await;
        let Ok(Ok(turn)) = granted else {
            drop(waiting);
            schema.metrics.rejected_time_out.inc();
            return Err(self.reject(schema, arrived));
        };
        waiting.served = true;
        Ok(Seats::new(schema, width, Some(turn), arrived, rt::instant(), is_watch))
    }

    fn enqueue(
        &self,
        schema: &Schema,
        width: Width,
        hash: u64,
        shown: Shown,
        now: Instant,
    ) -> Option<Ticket> {
        let mut queues = self.queues.lock();
        if !queues.are_open() {
            schema.metrics.rejected_concurrency_limit.inc();
            return None;
        }
        let limit = self.limit();
        // Not only when no seat is free: a wide request leaves some.
        let is_full = !self.state().has_room(width.reserved(), limit);
        let not_accommodated = schema.metrics.not_accommodated.clone();
        let newcomer = Newcomer { hash, width, shown, not_accommodated };
        let Some((ticket, length)) = queues.enqueue(now, limit, is_full, newcomer) else {
            schema.metrics.rejected_queue_full.inc();
            return None;
        };
        let before = self.state.fetch_add(WAITING_ONE, Ordering::AcqRel);
        self.demand.rose_to(State::unpack(before).seats + queues.waiting_seats());
        schema.metrics.queue_length.observe_count(length as u64);
        schema.metrics.waits(width.reserved());
        // A seat may have been freed before the word said that somebody waits.
        self.dispatch(&mut queues);
        Some(ticket)
    }

    fn reject(&self, schema: &Schema, arrived: Instant) -> Rejected {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        schema.metrics.wait_rejected.observe(arrived.elapsed());
        let second = u64::try_from(rt::now().as_second()).unwrap_or_default();
        Rejected { retry_after_seconds: self.drops.lock().record(second) }
    }
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.schema.metrics.waits_no_more(self.width.reserved());
        if self.served {
            return;
        }
        let mut queues = self.level.queues.lock();
        if queues.cancel(&self.ticket, rt::instant(), self.level.limit()) {
            self.level.state.fetch_sub(WAITING_ONE, Ordering::AcqRel);
            self.level.cancelled.fetch_add(1, Ordering::Relaxed);
            // It may have been what others waited behind.
            self.level.dispatch(&mut queues);
            self.level.tell_if_drained();
        } else if let Ok(turn) = self.ticket.granted.try_recv() {
            drop(queues);
            self.level.release(self.width.reserved(), Some(turn), None);
        }
    }
}

impl Seats {
    fn new(
        schema: &Arc<Schema>,
        width: Width,
        turn: Option<Turn>,
        arrived: Instant,
        started: Instant,
        is_watch: bool,
    ) -> Self {
        let metrics = &schema.metrics;
        metrics.dispatched.inc();
        metrics.executing_requests.inc();
        metrics.executing_seats.add(i64::from(width.reserved()));
        metrics.wait_executed.observe(started - arrived);
        schema.level.dispatched.fetch_add(1, Ordering::Relaxed);
        Self { schema: schema.clone(), width, turn, arrived, started, is_watch }
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let now = rt::instant();
        let served = now - self.started;
        let metrics = &self.schema.metrics;
        metrics.executing_requests.dec();
        if self.is_watch { &metrics.execution_watch } else { &metrics.execution_regular }.observe(served);
        let level = &self.schema.level;
        level.demand.needed(self.width.reserved(), now - self.arrived + self.width.lingering);
        let (width, seconds) = (self.width, served.as_secs_f64());
        let mut freed = Freed {
            schema: self.schema.clone(),
            seats: width.reserved(),
            turn: self.turn,
            served: self.turn.map(|turn| Served { turn, width, seconds, ended: now }),
        };
        if width.lingering.is_zero() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // Its seats stay taken, but those who wait behind it need not wait for what is known.
        if let Some(served) = freed.served.take() {
            level.queues.lock().served(served, level.limit());
        }
        rt::spawn("events of a write", async move {
            rt::sleep(width.lingering).await;
            drop(freed);
        });
    }
}

/// Seats that are given back when this is dropped, whatever becomes of the task that holds it.
struct Freed {
    schema: Arc<Schema>,
    seats: u32,
    turn: Option<Turn>,
    /// What the queue is to be told then.
    served: Option<Served>,
}

impl Drop for Freed {
    fn drop(&mut self) {
        self.schema.metrics.executing_seats.add(-i64::from(self.seats));
        self.schema.level.release(self.seats, self.turn, self.served.take());
    }
}
