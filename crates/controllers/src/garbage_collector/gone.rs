//! Uids of objects whose deletion was seen. A uid never comes back, so their dependents need no look at the API.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

/// Remembered deletions; the oldest are forgotten. 32 bytes each, twice.
const GONE_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Gone {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashSet<u128>,
    order: VecDeque<u128>,
}

impl Gone {
    pub(super) fn insert(&self, uid: &str) {
        let Some(uid) = compact(uid) else { return };
        let mut state = self.state.lock();
        if !state.known.insert(uid) {
            return;
        }
        state.order.push_back(uid);
        if state.order.len() > GONE_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            state.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, uid: &str) -> bool {
        compact(uid).is_some_and(|uid| self.state.lock().known.contains(&uid))
    }
}

/// A UUID in its usual text as a number. Other texts are not remembered: no two may become equal.
fn compact(uid: &str) -> Option<u128> {
    let dashes = [8, 13, 18, 23];
    let form = |(at, byte): (usize, u8)| {
        if dashes.contains(&at) {
            byte == b'-'
        } else {
            byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
        }
    };
    if uid.len() != 36 || !uid.bytes().enumerate().all(form) {
        return None;
    }
    let digits: String = uid.chars().filter(|letter| *letter != '-').collect();
    u128::from_str_radix(&digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_uids_are_remembered() {
        let gone = Gone::default();
        let uid = |n: usize| format!("00000000-0000-4000-8000-{n:012x}");
        (0..=GONE_MAX).for_each(|n| gone.insert(&uid(n)));
        gone.insert("not-a-uuid");
        assert!(!gone.contains(&uid(0)) && gone.contains(&uid(1)) && gone.contains(&uid(GONE_MAX)));
        assert!(!gone.contains("not-a-uuid"));
    }
}
