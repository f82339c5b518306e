//! How long a node keeps a failed daemon pod before it gets another one: a pod that a kubelet refuses is not made
//! thousands of times.

use std::collections::HashMap;
use std::time::Duration;

use apimachinery::Str;
use client::ObjectKey;
use parking_lot::Mutex;
use rt::Instant;

/// Upstream's numbers; a node without a failure for twice the longest starts over.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Failures by set and node. A set of a new generation starts over.
#[derive(Default)]
pub(super) struct FailedPods {
    sets: Mutex<HashMap<ObjectKey, Failures>>,
}

#[derive(Default)]
struct Failures {
    uid: Str,
    generation: i64,
    nodes: HashMap<Str, Failure>,
}

struct Failure {
    at: Instant,
    wait: Duration,
}

impl FailedPods {
    /// A failed pod was found on a node: `Ok` when it may go now, which counts, else how long it still has to stay.
    pub(super) fn replace(
        &self,
        key: &ObjectKey,
        (uid, generation): (&str, i64),
        node: &Str,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut sets = self.sets.lock();
        let failures = sets.entry(key.clone()).or_default();
        if failures.uid != uid || failures.generation != generation {
            *failures = Failures { uid: uid.into(), generation, nodes: HashMap::new() };
        }
        failures.nodes.retain(|_, failure| now.duration_since(failure.at) <= LONGEST * 2);
        let wait = match failures.nodes.get(node) {
            None => FIRST,
            Some(last) => {
                let left = last.wait.saturating_sub(now.duration_since(last.at));
                if !left.is_zero() {
                    return Err(left);
                }
                (last.wait * 2).min(LONGEST)
            }
        };
        failures.nodes.insert(node.clone(), Failure { at: now, wait });
        Ok(())
    }

    pub(super) fn forget(&self, key: &ObjectKey) {
        self.sets.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_on_a_node_waits_twice_as_long() {
        let (pods, key, node) = (FailedPods::default(), ObjectKey::new("ns", "d"), Str::from("n"));
        let start = rt::instant();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let ask = |generation: i64, node: &Str, seconds: u64| {
            pods.replace(&key, ("uid", generation), node, at(seconds)).map_err(|left| left.as_secs())
        };
        assert_eq!(ask(1, &node, 0), Ok(()));
        assert_eq!(ask(1, &node, 0), Err(1));
        assert_eq!(ask(1, &"other".into(), 0), Ok(()), "nodes fail each for themselves");
        assert_eq!(ask(1, &node, 1), Ok(()));
        assert_eq!(ask(1, &node, 2), Err(1));
        assert_eq!(ask(1, &node, 3), Ok(()));
        assert_eq!(ask(1, &node, 6), Err(1));
        assert_eq!(ask(2, &node, 6), Ok(()), "the set was changed");
        assert_eq!(ask(2, &node, 6 + 1), Ok(()));
        assert_eq!(ask(2, &node, 7 + 2 * 900 + 1), Ok(()));
        assert_eq!(ask(2, &node, 7 + 2 * 900 + 2), Ok(()), "after a long time it starts over");
    }
}
