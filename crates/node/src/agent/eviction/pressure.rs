//! Whether a node is short of something, and whether pods have to go for it. Pure: time comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rt::Instant;

use super::thresholds::{Pressure, Signal, Threshold};

/// What is left of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    pub available: u64,
    pub capacity: u64,
}

/// Signals that could not be read, or that the machine does not have, are missing.
pub type Observations = BTreeMap<Signal, Observation>;

/// What is remembered from one look to the next. After a restart the node starts anew, as a kubelet does.
#[derive(Debug, Default)]
pub struct Memory {
    /// Since when a threshold, by its number, is not kept.
    since: BTreeMap<usize, Instant>,
    /// When a pressure was last there.
    last: BTreeMap<Pressure, Instant>,
    /// Thresholds that were not kept for their grace at the last look.
    met: BTreeSet<usize>,
}

/// What a look has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The node's conditions.
    pub pressures: BTreeSet<Pressure>,
    /// Thresholds that pods are evicted for, by number, the most urgent first.
    pub urgent: Vec<usize>,
}

/// Whether less is there than the threshold says, and, with `with_reclaim`, than it says and is to be won back.
pub fn is_met(threshold: &Threshold, observed: Observation, with_reclaim: bool) -> bool {
    let mut below = threshold.below.of(observed.capacity);
    if with_reclaim && let Some(reclaim) = threshold.reclaim {
        below = below.saturating_add(reclaim.of(observed.capacity));
    }
    observed.available < below
}

impl Memory {
    /// Takes a look into account. A pressure stays for `transition` after it was last there, so that a node on the
    /// edge does not attract the pods that it has just evicted.
    pub fn look(
        &mut self,
        thresholds: &[Threshold],
        observations: &Observations,
        transition: Duration,
        now: Instant,
    ) -> Verdict {
        let is_met = |(number, threshold): (usize, &Threshold)| {
            let observed = observations.get(&threshold.signal)?;
            is_met(threshold, *observed, self.met.contains(&number)).then_some(number)
        };
        let met: BTreeSet<usize> = thresholds.iter().enumerate().filter_map(is_met).collect();
        self.since.retain(|number, _| met.contains(number));
        for number in &met {
            self.since.entry(*number).or_insert(now);
            self.last.insert(thresholds[*number].signal.pressure(), now);
        }
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) <= transition;
        self.last.retain(|_, at| is_recent(at));
        let pressures = self.last.keys().copied().collect();
        let has_waited = |number: &usize| {
            let since = self.since.get(number).copied().unwrap_or(now);
            now.saturating_duration_since(since) >= thresholds[*number].grace
        };
        self.met = met.into_iter().filter(has_waited).collect();
        let mut urgent: Vec<usize> = self.met.iter().copied().collect();
        // Memory first, which the kernel would else take by itself.
        urgent.sort_by_key(|number| (thresholds[*number].signal.pressure(), *number));
        Verdict { pressures, urgent }
    }
}

#[cfg(test)]
mod tests {
    use super::super::thresholds::{Flags, parse};
    use super::*;

    fn of(memory: u64, disk: u64) -> Observations {
        [
            (Signal::MemoryAvailable, Observation { available: memory, capacity: 1_000 }),
            (Signal::NodefsAvailable, Observation { available: disk, capacity: 1_000 }),
        ]
        .into()
    }

    #[test]
    fn pressure_comes_at_once_and_goes_after_the_transition_period() {
        let thresholds = parse(Flags {
            hard: "nodefs.available<10%,memory.available<100",
            soft: "memory.available<200",
            soft_grace: "memory.available=30s",
            reclaim: "nodefs.available=50",
        })
        .unwrap();
        let start = rt::instant();
        let mut memory = Memory::default();
        let transition = Duration::from_secs(300);
        let (none, disk, short) = (vec![], vec![Pressure::Disk], vec![Pressure::Memory]);
        let both = vec![Pressure::Memory, Pressure::Disk];
        for (what, second, observed, pressures, urgent) in [
            ("all is well", 0, of(500, 100), &none, vec![]),
            ("on the border is not below", 1, of(200, 100), &none, vec![]),
            ("a hard one is urgent at once", 10, of(500, 99), &disk, vec![0]),
            ("not enough is reclaimed", 20, of(500, 149), &disk, vec![0]),
            ("enough is reclaimed, the condition stays", 30, of(500, 150), &disk, vec![]),
            ("it does not come back for the reclaim", 40, of(500, 149), &disk, vec![]),
            ("five minutes after it was last seen it is there", 320, of(500, 500), &disk, vec![]),
            ("and then no more", 321, of(500, 500), &none, vec![]),
            ("a soft one is a condition at once", 400, of(199, 500), &short, vec![]),
            ("but not urgent before its grace", 429, of(199, 500), &short, vec![]),
            ("and then it is", 430, of(199, 500), &short, vec![2]),
            ("whoever recovers begins anew", 440, of(200, 500), &short, vec![]),
            ("so that it waits again", 450, of(199, 500), &short, vec![]),
            ("memory comes before disk", 460, of(99, 1), &both, vec![1, 0]),
        ] {
            let verdict =
                memory.look(&thresholds, &observed, transition, start + Duration::from_secs(second));
            assert_eq!(verdict.pressures.into_iter().collect::<Vec<_>>(), *pressures, "{what}");
            assert_eq!(verdict.urgent, urgent, "{what}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_pressure() {
        let thresholds =
            parse(Flags { hard: "pid.available<10", soft: "", soft_grace: "", reclaim: "" }).unwrap();
        let verdict = Memory::default().look(&thresholds, &of(0, 0), Duration::ZERO, rt::instant());
        assert_eq!(verdict, Verdict::default());
    }
}
