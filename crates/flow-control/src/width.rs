//! How much of the server a request takes: its seats.
//!
//! The numbers are upstream's estimates. They are about what a request costs beyond itself: a list by the bytes it
//! reads, a write by those who watch what it changes.

use std::time::Duration;

/// What a request occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// While it is served.
    pub seats: u32,
    /// Afterwards, for `lingering`; the client does not wait for it.
    pub final_seats: u32,
    pub lingering: Duration,
    /// How many watch what a write changes.
    pub watchers: Option<usize>,
}

/// Bytes of a list for which one seat is counted.
const LIST_BYTES_PER_SEAT: u64 = 100_000;
/// A list is streamed from the cache, so it holds at most so much at once.
const LIST_BYTES_MAX: u64 = 1_000_000;
const LIST_SEATS_MAX: u32 = 100;
/// Watchers for which one seat is counted after a write.
const WATCHERS_PER_SEAT: usize = 10;
const WRITE_SEATS_MAX: u32 = 10;
/// How long the event of one write keeps a seat.
const EVENT_DURATION: Duration = Duration::from_millis(5);

impl Width {
    pub const ONE: Self = Self { seats: 1, final_seats: 0, lingering: Duration::ZERO, watchers: None };

    /// A list, or a watch that begins with one, of `objects` objects of together `bytes`, of which `limit` are asked
    /// for. A level allows at most `seats_max`; 0 is no limit of its own.
    pub fn of_list(objects: usize, bytes: usize, limit: usize, seats_max: u32) -> Self {
        let (objects, bytes) = (objects as u64, bytes as u64);
        let wanted = if limit == 0 { objects } else { objects.min(limit as u64) };
        let read = (bytes / objects.max(1)).saturating_mul(wanted).min(LIST_BYTES_MAX);
        let seats = u32::try_from(read.div_ceil(LIST_BYTES_PER_SEAT)).unwrap_or(u32::MAX);
        Self { seats: seats.clamp(1, bounded(seats_max, LIST_SEATS_MAX)), ..Self::ONE }
    }

    /// A write whose event goes to so many watchers.
    pub fn of_write(watchers: usize, seats_max: u32) -> Self {
        let one = Self { watchers: Some(watchers), ..Self::ONE };
        if watchers < WATCHERS_PER_SEAT {
            return one;
        }
        let needed = u32::try_from(watchers.div_ceil(WATCHERS_PER_SEAT)).unwrap_or(u32::MAX);
        let final_seats = needed.min(bounded(seats_max, WRITE_SEATS_MAX));
        // The same work on fewer seats takes longer.
        let lingering = EVENT_DURATION * needed / final_seats;
        Self { final_seats, lingering, ..one }
    }

    /// What is reserved for it as a whole.
    pub fn reserved(self) -> u32 {
        self.seats.max(self.final_seats)
    }

    /// The seat-seconds that are expected when it is served in `service` seconds.
    pub(crate) fn work(self, service: f64) -> f64 {
        f64::from(self.seats) * service + f64::from(self.final_seats) * self.lingering.as_secs_f64()
    }
}

fn bounded(level_max: u32, max: u32) -> u32 {
    if level_max == 0 { max } else { level_max.min(max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_as_wide_as_the_bytes_it_holds_at_once() {
        let cases = [
            ((0, 0, 0, 0), 1),
            ((10, 5_000, 0, 0), 1),
            ((100, 250_000, 0, 0), 3),
            ((100, 250_000, 10, 0), 1),
            ((20_000, 40_000_000, 0, 0), 10),
            ((20_000, 40_000_000, 0, 4), 4),
            ((20_000, 40_000_000, 500, 0), 10),
        ];
        for ((objects, bytes, limit, max), seats) in cases {
            let width = Width::of_list(objects, bytes, limit, max);
            assert_eq!(width.seats, seats, "{objects} objects, {bytes} bytes, limit {limit}, max {max}");
        }
    }

    #[test]
    fn a_write_is_wider_the_more_watch_it() {
        let cases = [((9, 0), (0, 0)), ((25, 0), (3, 5)), ((1_000, 0), (10, 50)), ((1_000, 4), (4, 125))];
        for ((watchers, max), (final_seats, millis)) in cases {
            let lingering = Duration::from_millis(millis);
            let wanted = Width { seats: 1, final_seats, lingering, watchers: Some(watchers) };
            assert_eq!(Width::of_write(watchers, max), wanted);
        }
    }
}
