//! What others answered, or what was costly to find out, for a while.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

/// So many answers are kept, of about 1 KiB each. Beyond, those that are over are dropped, and all if that is not enough.
const KEPT_MAX: usize = 16_384;

/// Answers by the fingerprint of their question, each until its time.
pub(crate) struct Kept<T>(RwLock<HashMap<[u8; 32], (SystemTime, T)>>);

impl<T: Clone> Kept<T> {
    pub fn new() -> Self {
        Self(RwLock::default())
    }

    pub fn get(&self, key: &[u8; 32], now: SystemTime) -> Option<T> {
        let kept = self.0.read();
        kept.get(key).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
    }

    pub fn put(&self, key: [u8; 32], answer: T, ttl: Duration, now: SystemTime) {
        if ttl.is_zero() {
            return;
        }
        let mut kept = self.0.write();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (until, _)| now < *until);
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, (now + ttl, answer));
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn answers_hold_for_their_time() {
        let kept = Kept::new();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        kept.put([1; 32], "yes", Duration::from_secs(10), at(0));
        kept.put([2; 32], "never kept", Duration::ZERO, at(0));
        assert_eq!(kept.get(&[1; 32], at(9)), Some("yes"));
        assert_eq!(kept.get(&[1; 32], at(10)), None);
        assert_eq!(kept.get(&[2; 32], at(0)), None);
    }
}
