//! The one door to time, randomness, task spawning and shutdown.
//!
//! Owns: the clock, the random source, named tasks and the shutdown signal. Never touches: files and sockets.
//! Everything that could make a run differ from its repetition passes here, so that a simulated run can replace it.

mod tasks;

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
pub use tasks::Tasks;
pub use tokio::task::JoinHandle;
pub use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
/// Cancelled when a component should stop; children are cancelled with their parent.
pub use tokio_util::sync::CancellationToken as Shutdown;

/// Now, by the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the door to the clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Now, by a clock that never steps back; for durations.
pub fn instant() -> Instant {
    Instant::now()
}

/// A random version 4 UUID, the form of every `metadata.uid`.
pub fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The alphabet of upstream's generated names: no vowels, so no words, and no look-alikes.
const NAME_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random suffix for generated names (`generateName`, pod names), `len` characters long.
pub fn name_suffix(len: usize) -> String {
    let random = uuid::Uuid::new_v4().as_u128();
    let mut rest = random;
    (0..len)
        .map(|_| {
            let letter = NAME_ALPHABET[(rest % 27) as usize];
            rest = (rest / 27).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(random >> 64);
            char::from(letter)
        })
        .collect()
}

/// A random fraction in `[0, 1)`, for jitter.
pub fn jitter() -> f64 {
    // The two bits above are a UUID's variant, which is always the same.
    let bits = (uuid::Uuid::new_v4().as_u128() as u64) << 2 >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

/// A random index of a list of this length; 0 for an empty one.
pub fn below(len: usize) -> usize {
    (jitter() * len as f64) as usize
}

/// A duration stretched by up to `factor` of itself, so that many timers do not fire together.
pub fn jittered(base: Duration, factor: f64) -> Duration {
    base + base.mul_f64(factor * jitter())
}

/// Spawns a named task. A panic in it is logged with the name and ends only that task.
#[expect(clippy::disallowed_methods, reason = "this is the door to tasks")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    use futures::FutureExt;
    tokio::spawn(async move {
        if std::panic::AssertUnwindSafe(future).catch_unwind().await.is_err() {
            tracing::error!(task = name, "Task panicked");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_of_the_safe_alphabet_and_differ() {
        let (a, b) = (name_suffix(10), name_suffix(10));
        assert_ne!(a, b);
        assert!(a.bytes().all(|c| NAME_ALPHABET.contains(&c)) && a.len() == 10);
    }

    #[test]
    fn jitter_stays_in_its_range() {
        for _ in 0..1000 {
            let stretched = jittered(Duration::from_secs(1), 0.5);
            assert!(stretched >= Duration::from_secs(1) && stretched < Duration::from_millis(1500));
        }
    }

    #[test]
    fn every_index_comes_up_and_none_beyond() {
        let mut times = [0; 8];
        for _ in 0..8000 {
            times[below(times.len())] += 1;
        }
        // A thousand each; what is six deviations off never happens.
        assert!(times.iter().all(|times| (800..1200).contains(times)), "{times:?}");
        assert_eq!(below(0), 0);
    }
}
