//! What a series of passed and failed probes means.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Liveness,
    Readiness,
    Startup,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Liveness, Kind::Readiness, Kind::Startup];

    /// The probe of this kind, where the container has one.
    pub fn spec(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
            Kind::Startup => container.startup_probe.as_ref(),
        }
    }

    /// What is taken for true until the first result: alive, not ready, and of its start nothing is known.
    pub(super) fn initial(self) -> Option<bool> {
        match self {
            Kind::Liveness => Some(true),
            Kind::Readiness => Some(false),
            Kind::Startup => None,
        }
    }

    /// Whether a container that fails is started again.
    pub(super) fn restarts(self) -> bool {
        self != Kind::Readiness
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// What was found of this very container by a process before this one, as far as the pod's status tells: that it has
/// started, and that it is ready. Else the restart of a node's agent would take every pod out of its Services.
pub(super) fn told_before(kind: Kind, pod: &Pod, container_id: &str) -> Option<bool> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let own = lists.into_iter().flatten().flatten().find(|status| {
        let id = status.container_id.as_deref().and_then(|id| id.split_once("://"));
        id.is_some_and(|(_, id)| id == container_id)
    })?;
    let passed = match kind {
        Kind::Liveness => false,
        Kind::Readiness => own.ready,
        Kind::Startup => own.started == Some(true),
    };
    passed.then_some(true)
}

/// What one more result changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observation {
    /// Not often enough in a row yet.
    Undecided,
    /// It is a result.
    Settled,
    /// It is the last result of this container: it started, or it must be started again.
    Final,
}

/// The same result in a row, so far.
#[derive(Debug)]
pub(super) struct Run {
    kind: Kind,
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    length: u32,
}

impl Run {
    pub(super) fn new(kind: Kind, probe: &Probe) -> Run {
        let threshold =
            |value: Option<i32>, default| value.and_then(|value| value.try_into().ok()).unwrap_or(default);
        Run {
            kind,
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            last: None,
            length: 0,
        }
    }

    pub(super) fn observe(&mut self, passed: bool) -> Observation {
        if self.last == Some(passed) {
            self.length = self.length.saturating_add(1);
        } else {
            self.last = Some(passed);
            self.length = 1;
        }
        let threshold = if passed { self.success_threshold } else { self.failure_threshold };
        match (self.length < threshold, self.kind, passed) {
            (true, ..) => Observation::Undecided,
            (false, Kind::Startup, _) | (false, Kind::Liveness, false) => Observation::Final,
            (false, Kind::Readiness, _) | (false, Kind::Liveness, true) => Observation::Settled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `series` (`+` passed, `-` failed) leads to: `.` nothing yet, `S` settled, `F` final.
    fn observe(kind: Kind, success: Option<i32>, failure: Option<i32>, series: &str) -> String {
        let probe = Probe { success_threshold: success, failure_threshold: failure, ..Probe::default() };
        let mut run = Run::new(kind, &probe);
        let letter = |passed| match run.observe(passed) {
            Observation::Undecided => '.',
            Observation::Settled => 'S',
            Observation::Final => 'F',
        };
        series.chars().map(|result| result == '+').map(letter).collect()
    }

    #[test]
    fn a_result_counts_when_it_came_often_enough_in_a_row() {
        for (kind, success, failure, series, expected) in [
            (Kind::Readiness, None, None, "+--+---+", "S..S..SS"),
            (Kind::Readiness, Some(2), Some(1), "+-++-", ".S.SS"),
            (Kind::Readiness, Some(3), Some(2), "++-+++--", ".....S.S"),
            (Kind::Liveness, None, Some(3), "+--+---", "S..S..F"),
            (Kind::Liveness, None, Some(1), "-", "F"),
            (Kind::Startup, None, Some(3), "--+", "..F"),
            (Kind::Startup, None, Some(3), "---", "..F"),
            (
                Kind::Startup,
                None,
                Some(30),
                "-----------------------------+",
                ".............................F",
            ),
            // Validation refuses these; they are as one.
            (Kind::Readiness, Some(0), Some(-5), "+-", "S."),
        ] {
            assert_eq!(
                observe(kind, success, failure, series),
                expected,
                "{kind} {success:?} {failure:?} {series}"
            );
        }
    }

    #[test]
    fn before_the_first_result_a_container_lives_and_is_not_ready() {
        assert_eq!(Kind::ALL.map(Kind::initial), [Some(true), Some(false), None]);
        assert_eq!(Kind::ALL.map(|kind| kind.to_string()), ["Liveness", "Readiness", "Startup"]);
    }
}
