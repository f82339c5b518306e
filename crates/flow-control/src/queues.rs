//! Fair queuing: in what order the requests that wait are served.
//!
//! Each flow is dealt a few queues and waits in the one with the least work. Time is virtual: `r` advances as fast as
//! a busy queue would be served if all busy queues got the same seats. A queue's `next_start` says when, in that time,
//! its next request would begin; the request that would end first is served first. So a flow with a thousand requests
//! waits for itself and not the others for it.
//!
//! Pure: the caller holds the lock, knows how many seats are free, and says what time it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use rt::Instant;
use tokio::sync::oneshot;

use crate::hand;
use crate::width::Width;

/// What a request is expected to take before it is known; upstream's guess.
const SERVICE_SECONDS: f64 = 0.003;

/// How a level queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub queues: usize,
    pub hand_size: usize,
    pub length_max: usize,
}

#[derive(Debug)]
pub(crate) struct Queues {
    settings: Settings,
    /// At least as many as the settings say; more while those beyond are in use.
    queues: Vec<Queue>,
    r: f64,
    synced: Instant,
    /// The queue that was served last: with equal claims the next one is first.
    robin: usize,
    arrivals: usize,
    next_ticket: u64,
    waiting_seats: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub waiting: VecDeque<Waiting>,
    /// Of requests that waited here and are served now.
    pub seats_in_use: u32,
    pub executing: usize,
    pub next_start: f64,
    /// Of those that wait.
    pub seats_waiting: u32,
    /// Seat-seconds of those that wait.
    pub work_waiting: f64,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    ticket: u64,
    pub width: Width,
    arrival_r: f64,
    granted: oneshot::Sender<()>,
    pub shown: Shown,
}

/// What the debug pages tell about a request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub schema: Arc<str>,
    pub distinguisher: String,
    pub arrived: SystemTime,
    pub user: String,
    pub verb: String,
    pub path: String,
    pub namespace: String,
    pub name: String,
    pub api_version: String,
    pub resource: String,
    pub subresource: String,
}

/// Where a request waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub queue: usize,
    number: u64,
    pub granted: oneshot::Receiver<()>,
}

impl Queues {
    pub fn new(settings: Settings, now: Instant) -> Self {
        let mut queues = Self {
            settings,
            queues: Vec::new(),
            r: 0.0,
            synced: now,
            robin: 0,
            arrivals: 0,
            next_ticket: 0,
            waiting_seats: 0,
        };
        queues.configure(settings);
        queues
    }

    /// Takes new settings. Queues that are too many get no more requests and go when they are empty.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        if self.queues.len() < settings.queues {
            self.queues.resize_with(settings.queues, Queue::default);
        }
        self.drop_surplus();
    }

    fn drop_surplus(&mut self) {
        while self.queues.len() > self.settings.queues && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
    }

    /// Whether requests may wait here at all.
    pub fn are_open(&self) -> bool {
        self.settings.queues > 0
    }

    pub fn waiting_seats(&self) -> u32 {
        self.waiting_seats
    }

    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// Lets virtual time catch up. `limit` is how many seats there were since the last call.
    fn sync(&mut self, now: Instant, limit: u32) {
        let elapsed = now.saturating_duration_since(self.synced).as_secs_f64();
        self.synced = now;
        let busy = self.queues.iter().filter(|queue| !queue.is_idle());
        let (mut count, mut requested) = (0, 0_u32);
        for queue in busy {
            count += 1;
            requested = requested.saturating_add(queue.seats_in_use + queue.seats_waiting);
        }
        if count > 0 {
            self.r += elapsed * f64::from(requested.min(limit)) / f64::from(count);
        }
    }

    /// Puts a request into one of its flow's queues; says the queue's length. `None` if that is full.
    pub fn enqueue(
        &mut self,
        now: Instant,
        limit: u32,
        hash: u64,
        width: Width,
        shown: Shown,
        is_full: bool,
    ) -> Option<(Ticket, usize)> {
        self.sync(now, limit);
        let at = self.choose(hash);
        let queue = &mut self.queues[at];
        if is_full && queue.waiting.len() >= self.settings.length_max {
            return None;
        }
        if queue.is_idle() {
            queue.next_start = self.r;
        }
        let (granted, receiver) = oneshot::channel();
        let number = self.next_ticket;
        self.next_ticket += 1;
        self.waiting_seats += width.reserved();
        queue.seats_waiting += width.reserved();
        queue.work_waiting += width.work(SERVICE_SECONDS);
        queue.waiting.push_back(Waiting { ticket: number, width, arrival_r: self.r, granted, shown });
        queue.start_after_arrival();
        Some((Ticket { queue: at, number, granted: receiver }, queue.waiting.len()))
    }

    /// Of the flow's hand the queue with the least work waiting. The first one to be looked at changes, so that flows
    /// whose hands overlap spread.
    fn choose(&mut self, hash: u64) -> usize {
        let hand: Vec<usize> = hand::deal(hash, self.settings.queues, self.settings.hand_size).collect();
        let offset = self.arrivals % hand.len().max(1);
        self.arrivals = self.arrivals.wrapping_add(1);
        let spread = hand[offset..].iter().chain(&hand[..offset]).copied();
        spread
            .min_by(|a, b| self.queues[*a].work_waiting.total_cmp(&self.queues[*b].work_waiting))
            .unwrap_or_default()
    }

    /// Serves who is next while `take` finds the seats; says how many were served and whether somebody found none.
    pub fn dispatch(&mut self, now: Instant, limit: u32, mut take: impl FnMut(u32) -> Taken) -> Dispatched {
        self.sync(now, limit);
        let mut dispatched = Dispatched::default();
        while let Some(at) = self.next() {
            let seats = self.queues[at].waiting.front().map_or(0, |waiting| waiting.width.reserved());
            if take(seats) == Taken::None {
                dispatched.short =
                    self.queues[at].waiting.front().map(|waiting| waiting.shown.schema.clone());
                break;
            }
            self.robin = at;
            let queue = &mut self.queues[at];
            let Some(waiting) = queue.remove(0) else { break };
            self.waiting_seats -= seats;
            queue.seats_in_use += seats;
            queue.executing += 1;
            queue.next_start += waiting.width.work(SERVICE_SECONDS);
            queue.start_after_arrival();
            dispatched.count += 1;
            // Whoever went away meanwhile gives the seats back when it sees that they were granted.
            let _ = waiting.granted.send(());
        }
        dispatched
    }

    /// The queue whose first request would end first.
    fn next(&self) -> Option<usize> {
        let count = self.queues.len();
        let order = (1..=count).map(|step| (self.robin + step) % count);
        let finish = |at: usize| {
            let queue = &self.queues[at];
            queue.waiting.front().map(|first| queue.next_start + first.width.work(SERVICE_SECONDS))
        };
        order
            .filter_map(|at| finish(at).map(|finish| (at, finish)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(at, _)| at)
    }

    /// Takes a request out that waits no longer; false if it was served already.
    pub fn cancel(&mut self, ticket: &Ticket, now: Instant, limit: u32) -> bool {
        self.sync(now, limit);
        let queue = &mut self.queues[ticket.queue];
        let Some(at) = queue.waiting.iter().position(|waiting| waiting.ticket == ticket.number) else {
            return false;
        };
        if let Some(waiting) = queue.remove(at) {
            self.waiting_seats -= waiting.width.reserved();
        }
        queue.start_after_arrival();
        self.drop_surplus();
        true
    }

    /// A request that waited in `queue` was served in `seconds`: what was guessed is put right.
    pub fn served(&mut self, queue: usize, width: Width, seconds: f64, now: Instant, limit: u32) {
        self.sync(now, limit);
        let queue = &mut self.queues[queue];
        queue.next_start -= f64::from(width.seats) * (SERVICE_SECONDS - seconds);
        queue.start_after_arrival();
    }

    /// The seats of a request that waited in `queue` are free again.
    pub fn release(&mut self, queue: usize, seats: u32) {
        let queue = &mut self.queues[queue];
        queue.executing -= 1;
        queue.seats_in_use -= seats;
        self.drop_surplus();
    }
}

/// Whether seats were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Seats,
    None,
}

#[derive(Debug, Default)]
pub(crate) struct Dispatched {
    /// How many were served.
    pub count: usize,
    /// The schema of the one that was next and found no seats.
    pub short: Option<Arc<str>>,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    fn remove(&mut self, at: usize) -> Option<Waiting> {
        let removed = self.waiting.remove(at)?;
        self.seats_waiting -= removed.width.reserved();
        self.work_waiting -= removed.width.work(SERVICE_SECONDS);
        if self.waiting.is_empty() {
            // Sums of fractions drift.
            self.work_waiting = 0.0;
        }
        Some(removed)
    }

    /// In virtual time nothing begins before it arrived, or a queue that uses little would save up a claim.
    fn start_after_arrival(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next_start = self.next_start.max(first.arrival_r);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shown(distinguisher: &str) -> Shown {
        Shown {
            schema: "s".into(),
            distinguisher: distinguisher.to_owned(),
            arrived: SystemTime::UNIX_EPOCH,
            user: String::new(),
            verb: String::new(),
            path: String::new(),
            namespace: String::new(),
            name: String::new(),
            api_version: String::new(),
            resource: String::new(),
            subresource: String::new(),
        }
    }

    const SETTINGS: Settings = Settings { queues: 8, hand_size: 1, length_max: 50 };

    fn seat(seats: u32) -> Width {
        Width { seats, ..Width::ONE }
    }

    /// Serves one at a time; the flows in the order served.
    fn drain(queues: &mut Queues, tickets: Vec<(char, Ticket)>, mut now: Instant) -> String {
        let mut order = String::new();
        let mut left: Vec<(char, Ticket)> = tickets;
        loop {
            let mut free = 1;
            let dispatched = queues.dispatch(now, 1, |_| {
                if free == 0 {
                    return Taken::None;
                }
                free -= 1;
                Taken::Seats
            });
            if dispatched.count == 0 {
                return order;
            }
            let at =
                left.iter_mut().position(|(_, ticket)| ticket.granted.try_recv().is_ok()).expect("granted");
            let (flow, ticket) = left.remove(at);
            order.push(flow);
            now += Duration::from_millis(3);
            queues.served(ticket.queue, Width::ONE, 0.003, now, 1);
            queues.release(ticket.queue, 1);
        }
    }

    #[test]
    fn a_flow_waits_for_itself_and_not_the_others_for_it() {
        let now = rt::instant();
        let mut queues = Queues::new(SETTINGS, now);
        let mut tickets = Vec::new();
        // Three flows in queues of their own; the first floods.
        for (flow, hash, count) in [('a', 0, 9), ('b', 1, 3), ('c', 2, 1)] {
            for _ in 0..count {
                let (ticket, _) =
                    queues.enqueue(now, 1, hash, Width::ONE, shown("x"), true).expect("there is room");
                tickets.push((flow, ticket));
            }
        }
        let order = drain(&mut queues, tickets, now);
        assert_eq!(order.len(), 13);
        let served_before_last = |flow: char, count: usize| order[..count].matches(flow).count();
        assert_eq!(served_before_last('c', 3), 1, "{order}");
        assert_eq!(served_before_last('b', 6), 3, "{order}");
    }

    #[test]
    fn a_full_queue_takes_no_more_unless_seats_are_free() {
        let now = rt::instant();
        let mut queues = Queues::new(Settings { length_max: 2, ..SETTINGS }, now);
        let mut enqueue =
            |is_full| queues.enqueue(now, 1, 0, Width::ONE, shown("x"), is_full).map(|(_, length)| length);
        assert_eq!(enqueue(true), Some(1));
        assert_eq!(enqueue(true), Some(2));
        assert_eq!(enqueue(true), None);
        assert_eq!(enqueue(false), Some(3));
        assert_eq!(queues.waiting_seats(), 3);
    }

    #[test]
    fn who_goes_away_is_not_served() {
        let now = rt::instant();
        let mut queues = Queues::new(SETTINGS, now);
        let (first, _) = queues.enqueue(now, 1, 0, seat(2), shown("x"), true).unwrap();
        let (mut second, _) = queues.enqueue(now, 1, 0, seat(3), shown("x"), true).unwrap();
        assert!(queues.cancel(&first, now, 1));
        assert_eq!(queues.waiting_seats(), 3);
        let mut asked = Vec::new();
        queues.dispatch(now, 1, |seats| {
            asked.push(seats);
            Taken::Seats
        });
        assert_eq!(asked, [3]);
        assert!(second.granted.try_recv().is_ok());
        assert!(!queues.cancel(&second, now, 1), "it is served already");
    }

    #[test]
    fn queues_beyond_the_settings_go_when_they_are_empty() {
        let now = rt::instant();
        let mut queues = Queues::new(SETTINGS, now);
        let (last, _) = queues.enqueue(now, 1, 7, Width::ONE, shown("x"), true).unwrap();
        assert_eq!(last.queue, 7);
        queues.configure(Settings { queues: 2, ..SETTINGS });
        assert_eq!(queues.queues().len(), 8);
        queues.dispatch(now, 1, |_| Taken::Seats);
        queues.release(last.queue, 1);
        assert_eq!(queues.queues().len(), 2);
    }
}
