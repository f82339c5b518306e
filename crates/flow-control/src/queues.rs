//! Fair queuing: in what order the requests that wait are served.
//!
//! Each flow is dealt a few queues and waits in the one with the least work. Time is virtual: `r` advances as fast as
//! a busy queue would be served if all busy queues got the same seats. A queue's `next_start` says when, in that time,
//! its next request would begin; the request that would end first is served first. So a flow with a thousand requests
//! waits for itself and not the others for it.
//!
//! A request of many seats may have to wait until many are free. Requests of one seat do not wait with it: it leaves
//! them a few seats ([`kept_free`]), and when it is next and finds too few, they pass it, few at a time.
//!
//! Pure: the caller holds the lock, knows how many seats are free, and says what time it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use rt::Instant;
use telemetry::Counter;
use tokio::sync::oneshot;

use crate::hand;
use crate::width::Width;

/// What a request is expected to take before it is known; upstream's guess.
const SERVICE_SECONDS: f64 = 0.003;
/// Of a level's seats one in so many is left to requests of one seat.
const KEPT_FREE_PART: u32 = 8;

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
    /// Requests that passed another one and are served now.
    passed: u32,
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

/// A request that is to wait.
#[derive(Debug)]
pub(crate) struct Newcomer {
    /// Of its flow.
    pub hash: u64,
    pub width: Width,
    pub shown: Shown,
    /// Counts how often it is next and finds too few seats.
    pub not_accommodated: Arc<Counter>,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    ticket: u64,
    pub width: Width,
    arrival_r: f64,
    granted: oneshot::Sender<Turn>,
    pub shown: Shown,
    not_accommodated: Arc<Counter>,
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
    pub granted: oneshot::Receiver<Turn>,
}

/// How a request that waited came to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub queue: usize,
    /// It passed one that was next and found too few seats.
    passed: bool,
}

/// How a request that waited was served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub turn: Turn,
    pub width: Width,
    pub seconds: f64,
    pub ended: Instant,
}

/// How many seats a request leaves to those of one seat; they do so to nobody.
pub(crate) fn kept_free(seats: u32, limit: u32) -> u32 {
    if seats > 1 { (limit / KEPT_FREE_PART).min(limit.saturating_sub(seats)) } else { 0 }
}

/// How many at a time may pass a request that finds too few seats. Beside so many it fits once all others are done,
/// or they could keep it waiting for ever.
fn passing_max(seats: u32, limit: u32) -> u32 {
    let kept_free = kept_free(seats, limit);
    kept_free.min(limit.saturating_sub(seats).saturating_sub(kept_free))
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
            passed: 0,
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
        if elapsed == 0.0 {
            // Nothing to add up, or an hour that somebody read before the lock.
            return;
        }
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
        is_full: bool,
        newcomer: Newcomer,
    ) -> Option<(Ticket, usize)> {
        self.sync(now, limit);
        let Newcomer { hash, width, shown, not_accommodated } = newcomer;
        let at = self.choose(hash);
        let queue = &mut self.queues[at];
        if is_full && queue.waiting.len() >= self.settings.length_max {
            return None;
        }
        if queue.is_idle() {
            queue.next_start = self.r;
        }
        let (granted, receiver) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting_seats += width.reserved();
        queue.seats_waiting += width.reserved();
        queue.work_waiting += width.work(SERVICE_SECONDS);
        let arrival_r = self.r;
        queue.waiting.push_back(Waiting { ticket, width, arrival_r, granted, shown, not_accommodated });
        queue.start_after_arrival();
        Some((Ticket { queue: at, number: ticket, granted: receiver }, queue.waiting.len()))
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

    /// Serves who is next while `take` finds the seats, and those of one seat that may pass who is next and finds too
    /// few.
    pub fn dispatch(&mut self, now: Instant, limit: u32, mut take: impl FnMut(u32) -> bool) {
        self.sync(now, limit);
        let mut is_short = false;
        while let Some((first, seats)) = self.next(|_| true) {
            if take(seats) {
                self.serve(first, false);
                continue;
            }
            if !std::mem::replace(&mut is_short, true)
                && let Some(waiting) = self.queues[first].waiting.front()
            {
                waiting.not_accommodated.inc();
            }
            if self.passed >= passing_max(seats, limit) {
                break;
            }
            let Some((narrow, _)) = self.next(|seats| seats == 1).filter(|_| take(1)) else { break };
            self.serve(narrow, true);
        }
    }

    /// Serves the first request of a queue.
    fn serve(&mut self, at: usize, passed: bool) {
        self.robin = at;
        let queue = &mut self.queues[at];
        let Some(waiting) = queue.remove(0) else { return };
        let seats = waiting.width.reserved();
        self.waiting_seats -= seats;
        self.passed += u32::from(passed);
        queue.seats_in_use += seats;
        queue.executing += 1;
        queue.next_start += waiting.width.work(SERVICE_SECONDS);
        queue.start_after_arrival();
        // Whoever went away meanwhile gives the seats back when it sees that they were granted.
        let _ = waiting.granted.send(Turn { queue: at, passed });
    }

    /// The queue whose first request would end first, of those whose first request takes seats that will do; with the
    /// seats.
    fn next(&self, will_do: impl Fn(u32) -> bool) -> Option<(usize, u32)> {
        let count = self.queues.len();
        let order = (1..=count).map(|step| (self.robin + step) % count);
        let candidate = |at: usize| {
            let queue = &self.queues[at];
            let width = queue.waiting.front()?.width;
            let finish = queue.next_start + width.work(SERVICE_SECONDS);
            will_do(width.reserved()).then_some((at, width.reserved(), finish))
        };
        order
            .filter_map(candidate)
            .min_by(|(.., a), (.., b)| a.total_cmp(b))
            .map(|(at, seats, _)| (at, seats))
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

    /// A request that waited was served: what was guessed is put right.
    pub fn served(&mut self, served: Served, limit: u32) {
        self.sync(served.ended, limit);
        let queue = &mut self.queues[served.turn.queue];
        queue.next_start -= f64::from(served.width.seats) * (SERVICE_SECONDS - served.seconds);
        queue.start_after_arrival();
    }

    /// The seats of a request that waited are free again.
    pub fn release(&mut self, turn: Turn, seats: u32) {
        self.passed -= u32::from(turn.passed);
        let queue = &mut self.queues[turn.queue];
        queue.executing -= 1;
        queue.seats_in_use -= seats;
        self.drop_surplus();
    }
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

    fn newcomer(hash: u64, width: Width) -> Newcomer {
        Newcomer { hash, width, shown: shown("x"), not_accommodated: Arc::default() }
    }

    /// Waits in the queue of this number, which has room.
    fn enqueue(queues: &mut Queues, now: Instant, hash: u64, width: Width) -> Ticket {
        queues.enqueue(now, 1, true, newcomer(hash, width)).expect("there is room").0
    }

    fn seat(seats: u32) -> Width {
        Width { seats, ..Width::ONE }
    }

    /// Serves one at a time; the flows in the order served.
    fn drain(queues: &mut Queues, tickets: Vec<(char, Ticket)>, mut now: Instant) -> String {
        let mut order = String::new();
        let mut left: Vec<(char, Ticket)> = tickets;
        loop {
            let mut free = 1;
            queues.dispatch(now, 1, |_| std::mem::take(&mut free) > 0);
            let granted = |(_, ticket): &mut (char, Ticket)| ticket.granted.try_recv().ok();
            let served = left.iter_mut().enumerate().find_map(|(at, one)| Some((at, granted(one)?)));
            let Some((at, turn)) = served else {
                assert!(left.is_empty(), "one is served at a time");
                return order;
            };
            order.push(left.remove(at).0);
            now += Duration::from_millis(3);
            queues.served(Served { turn, width: Width::ONE, seconds: 0.003, ended: now }, 1);
            queues.release(turn, 1);
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
                tickets.push((flow, enqueue(&mut queues, now, hash, Width::ONE)));
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
            |is_full| queues.enqueue(now, 1, is_full, newcomer(0, Width::ONE)).map(|(_, length)| length);
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
        let first = enqueue(&mut queues, now, 0, seat(2));
        let mut second = enqueue(&mut queues, now, 0, seat(3));
        assert!(queues.cancel(&first, now, 1));
        assert_eq!(queues.waiting_seats(), 3);
        let mut asked = Vec::new();
        queues.dispatch(now, 1, |seats| {
            asked.push(seats);
            true
        });
        assert_eq!(asked, [3]);
        assert!(second.granted.try_recv().is_ok());
        assert!(!queues.cancel(&second, now, 1), "it is served already");
    }

    #[test]
    fn queues_beyond_the_settings_go_when_they_are_empty() {
        let now = rt::instant();
        let mut queues = Queues::new(SETTINGS, now);
        let mut last = enqueue(&mut queues, now, 7, Width::ONE);
        assert_eq!(last.queue, 7);
        queues.configure(Settings { queues: 2, ..SETTINGS });
        assert_eq!(queues.queues().len(), 8);
        queues.dispatch(now, 1, |_| true);
        queues.release(last.granted.try_recv().unwrap(), 1);
        assert_eq!(queues.queues().len(), 2);
    }

    #[test]
    fn a_wide_request_leaves_seats_to_narrow_ones_and_fits_beside_those_that_pass_it() {
        for (seats, limit, free, passing) in [
            (1, 49, 0, 0),
            (2, 7, 0, 0),
            (8, 49, 6, 6),
            (8, 364, 45, 45),
            // The more it takes, the less is left.
            (20, 24, 3, 1),
            (60, 64, 4, 0),
            (64, 64, 0, 0),
            // It waits until it is alone; whoever passed it would keep it waiting.
            (65, 64, 0, 0),
        ] {
            assert_eq!(
                (kept_free(seats, limit), passing_max(seats, limit)),
                (free, passing),
                "{seats} {limit}"
            );
            assert!(seats > limit || passing + seats + free <= limit, "{seats} {limit}");
        }
    }

    /// The seats of a level, of which some are taken.
    struct Level {
        limit: u32,
        taken: u32,
    }

    impl Level {
        fn dispatch(&mut self, queues: &mut Queues, now: Instant) {
            queues.dispatch(now, self.limit, |seats| {
                let fits = self.taken + seats + kept_free(seats, self.limit) <= self.limit;
                self.taken += if fits { seats } else { 0 };
                fits
            });
        }
    }

    fn granted(tickets: &mut [Ticket]) -> Vec<Turn> {
        tickets.iter_mut().filter_map(|ticket| ticket.granted.try_recv().ok()).collect()
    }

    #[test]
    fn narrow_requests_pass_a_wide_one_that_finds_too_few_seats_and_do_not_starve_it() {
        // Two others hold nine seats each.
        let mut level = Level { limit: 24, taken: 18 };
        let mut now = rt::instant();
        let mut queues = Queues::new(SETTINGS, now);
        let wide = newcomer(0, seat(19));
        let not_accommodated = wide.not_accommodated.clone();
        let (mut wide, _) = queues.enqueue(now, level.limit, true, wide).unwrap();
        // It is first by far.
        now += Duration::from_secs(1);
        let mut narrow: Vec<Ticket> = (0..20).map(|_| enqueue(&mut queues, now, 1, Width::ONE)).collect();
        level.dispatch(&mut queues, now);
        let mut running = granted(&mut narrow);
        assert_eq!((running.len(), not_accommodated.get()), (2, 1), "of six free seats");
        // Whenever one is done, the next one passes.
        for round in 2..8 {
            queues.release(running.remove(0), 1);
            level.taken -= 1;
            if round == 5 {
                level.taken -= 9;
            }
            level.dispatch(&mut queues, now);
            running.extend(granted(&mut narrow));
            assert_eq!((running.len(), not_accommodated.get()), (2, round));
        }
        assert!(wide.granted.try_recv().is_err(), "nine of the seats that it needs are not free");
        level.taken -= 9;
        level.dispatch(&mut queues, now);
        assert!(wide.granted.try_recv().is_ok(), "it fits beside those that passed it");
        assert_eq!(level.taken, 24, "now the narrow ones are next");
    }

    #[test]
    fn nobody_passes_a_narrow_request_or_one_that_waits_to_be_alone() {
        for (first, limit) in [(1, 16), (20, 16)] {
            let mut level = Level { limit, taken: limit };
            let mut now = rt::instant();
            let mut queues = Queues::new(SETTINGS, now);
            let mut tickets = vec![enqueue(&mut queues, now, 0, seat(first))];
            now += Duration::from_secs(1);
            tickets.extend((0..3).map(|_| enqueue(&mut queues, now, 1, Width::ONE)));
            level.dispatch(&mut queues, now);
            assert_eq!(granted(&mut tickets), [], "{first}");
            level.taken -= 1;
            level.dispatch(&mut queues, now);
            let queues_served: Vec<usize> = granted(&mut tickets).iter().map(|turn| turn.queue).collect();
            assert_eq!(queues_served, vec![0; usize::from(first == 1)], "{first}");
        }
    }
}
