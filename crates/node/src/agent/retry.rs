//! [`Pauses`]: how long an operation waits before it is tried again, twice as long each time, as the kubelet's do.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(122);

/// The pauses between the tries of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// After another failure.
    pub fn next_pause(&mut self) -> Duration {
        let own = self.0;
        self.0 = (own * 2).min(LONGEST);
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_two_minutes() {
        let mut pauses = Pauses::default();
        let milliseconds: Vec<u128> = (0..10).map(|_| pauses.next_pause().as_millis()).collect();
        assert_eq!(milliseconds, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 122_000, 122_000]);
    }
}
