//! Hot path: how many seats a priority level could use, kept without a lock.
//!
//! Upstream integrates the demand and its square over time at every change. Here each request adds its seats times
//! the time it held or waited for them once, when it ends: that sum over a period is the same average, and the sum of
//! squares is the variance of requests that arrive independently of each other (Campbell's theorem).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How slowly a calm is believed; upstream's.
const SMOOTHING: f64 = 0.977;

/// What is gathered in the present period.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Seats times microseconds.
    seat_micros: AtomicU64,
    square_seat_micros: AtomicU64,
    highest: AtomicU32,
}

/// What a period showed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    pub average: f64,
    pub deviation: f64,
    pub highest: u32,
}

/// The demand that limits are derived from: it follows a rise at once and a fall slowly.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Smoothed {
    pub last: Observed,
    pub value: f64,
}

impl Demand {
    /// Seats in use and waited for, at a moment when they became more.
    pub fn rose_to(&self, seats: u32) {
        if seats > self.highest.load(Relaxed) {
            self.highest.fetch_max(seats, Relaxed);
        }
    }

    /// A request that needed `seats` is over.
    pub fn needed(&self, seats: u32, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).saturating_mul(u64::from(seats));
        self.seat_micros.fetch_add(micros, Relaxed);
        self.square_seat_micros.fetch_add(micros.saturating_mul(u64::from(seats)), Relaxed);
    }

    /// Ends the period and begins the next one, in which `seats` are needed now.
    pub fn take(&self, period: Duration, seats: u32) -> Observed {
        let micros = period.as_micros().max(1) as f64;
        let average = self.seat_micros.swap(0, Relaxed) as f64 / micros;
        let deviation = (self.square_seat_micros.swap(0, Relaxed) as f64 / micros).sqrt();
        Observed { average, deviation, highest: self.highest.swap(seats, Relaxed).max(seats) }
    }
}

impl Smoothed {
    pub fn update(&mut self, observed: Observed) {
        let envelope = observed.average + observed.deviation;
        self.value = envelope.max(SMOOTHING * self.value + (1.0 - SMOOTHING) * envelope);
        self.last = observed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_its_average_and_its_peak() {
        let demand = Demand::default();
        demand.rose_to(3);
        demand.rose_to(7);
        demand.rose_to(2);
        demand.needed(2, Duration::from_secs(5));
        demand.needed(4, Duration::from_secs(5));
        let observed = demand.take(Duration::from_secs(10), 1);
        assert_eq!((observed.average, observed.highest), (3.0, 7));
        assert!((observed.deviation - 10.0_f64.sqrt()).abs() < 1e-9, "{observed:?}");
        let next = demand.take(Duration::from_secs(10), 0);
        assert_eq!(next, Observed { average: 0.0, deviation: 0.0, highest: 1 });
    }

    #[test]
    fn a_rise_is_believed_at_once_and_a_fall_slowly() {
        let mut smoothed = Smoothed::default();
        smoothed.update(Observed { average: 90.0, deviation: 10.0, highest: 100 });
        assert_eq!(smoothed.value, 100.0);
        smoothed.update(Observed::default());
        assert!((97.0..98.0).contains(&smoothed.value), "{smoothed:?}");
    }
}
