//! Counting what was checked, so that a suite that checks nothing is noticed.

use std::time::{Duration, Instant};

use anyhow::Context;

/// The checks of one run, each with what went wrong.
pub struct Checks {
    run: String,
    is_aloud: bool,
    passed: usize,
    failures: Vec<String>,
}

impl Checks {
    /// `run` names the whole: `kubectl v1.33.1`.
    pub fn new(run: impl Into<String>) -> Self {
        Self { run: run.into(), is_aloud: false, passed: 0, failures: Vec::new() }
    }

    /// Says each check as it ends, with the seconds it took: for a suite that takes minutes.
    #[must_use]
    pub fn aloud(self) -> Self {
        Self { is_aloud: true, ..self }
    }

    /// Counts one check. A failure is kept, and the suite goes on, so that one run shows all of them; but not for ever
    /// where each takes long.
    pub fn check(&mut self, what: &str, check: impl FnOnce() -> anyhow::Result<()>) {
        if self.has_seen_enough() {
            return self.failures.push(format!("{what}: not run after {FAILURES_MAX} failures"));
        }
        let began = Instant::now();
        let ended = match check() {
            Ok(()) => {
                self.passed += 1;
                "ok"
            }
            Err(error) => {
                self.failures.push(format!("{what}: {}", shortened(format!("{error:#}"))));
                "FAILED"
            }
        };
        if self.is_aloud {
            println!("  {}: {what}: {ended} ({:.1} s)", self.run, began.elapsed().as_secs_f64());
        }
    }

    /// Whether so much fails that the rest would say little more and take long: what fails has mostly waited in vain.
    fn has_seen_enough(&self) -> bool {
        self.is_aloud && self.failures.len() >= FAILURES_MAX
    }

    /// Takes over the checks of a part.
    pub fn add(&mut self, part: Checks) {
        self.passed += part.passed;
        self.failures.extend(part.failures.into_iter().map(|failure| format!("{}: {failure}", part.run)));
    }

    pub fn passed(&self) -> usize {
        self.passed
    }

    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// `kubectl v1.33.1: 84 checks passed`, and every failure on lines of its own.
    pub fn summary(&self) -> String {
        let mut text = format!("{}: {} checks passed, {} failed", self.run, self.passed, self.failures.len());
        for failure in &self.failures {
            text.push_str("\n  FAILED ");
            text.push_str(&failure.replace('\n', "\n    "));
        }
        text
    }
}

/// Beginning and end of what a failure says; a whole LIST helps nobody.
fn shortened(said: String) -> String {
    let lines: Vec<&str> = said.lines().collect();
    if lines.len() <= 2 * FAILURE_LINES_SHOWN {
        return said;
    }
    let (first, last) = (&lines[..FAILURE_LINES_SHOWN], &lines[lines.len() - FAILURE_LINES_SHOWN..]);
    format!("{}\n… {} lines …\n{}", first.join("\n"), lines.len() - 2 * FAILURE_LINES_SHOWN, last.join("\n"))
}

/// Of a suite that takes minutes, after which it ends.
pub const FAILURES_MAX: usize = 10;

/// Lines shown of either end.
const FAILURE_LINES_SHOWN: usize = 15;

/// Between two looks from outside. kubectl itself takes longer than this.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Looks until `look` succeeds; its last error is the answer when that takes too long.
///
/// # Errors
/// The last error of `look`.
pub fn eventually<T>(patience: Duration, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(error) if started.elapsed() > patience => {
                return Err(error).with_context(|| format!("still after {patience:?}"));
            }
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_kept_and_the_next_check_still_counts() {
        let mut checks = Checks::new("suite");
        checks.check("fails", || anyhow::bail!("no"));
        checks.check("passes", || Ok(()));
        assert_eq!((checks.passed(), checks.failed()), (1, 1));
        assert_eq!(checks.summary(), "suite: 1 checks passed, 1 failed\n  FAILED fails: no");
    }

    #[test]
    fn after_many_failures_a_long_suite_runs_no_more() {
        let mut checks = Checks::new("suite").aloud();
        for _ in 0..FAILURES_MAX {
            checks.check("fails", || anyhow::bail!("no"));
        }
        checks.check("is left", || unreachable!("it runs"));
        assert_eq!((checks.passed(), checks.failed()), (0, FAILURES_MAX + 1));
        assert!(checks.summary().ends_with("is left: not run after 10 failures"), "{}", checks.summary());
    }
}
