//! Completion indexes: sets of them as a Job's status writes them (`0-2,5,7`), and those of pods. Pure.

use std::fmt;

use api::view::Pod;

/// The annotation and the label of a pod of an Indexed Job.
pub(super) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How many pods of its index failed before this one.
pub(super) const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// How many did so without counting, by the Job's failure policy.
pub(super) const IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// A set of indexes, as intervals in rising order that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<Interval>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    first: u32,
    last: u32,
}

// === impl Indexes ===

impl Indexes {
    /// Reads what [`fmt::Display`] writes, up to the number of completions, which a user may have lowered. Parts that
    /// are no intervals are left out.
    pub(super) fn parse(text: &str, completions: u32) -> Self {
        let interval = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse::<u32>().ok()?);
            let last = last.min(completions.checked_sub(1)?);
            (first <= last).then_some(Interval { first, last })
        };
        Self::joined(text.split(',').filter_map(interval).collect())
    }

    pub(super) fn of(members: impl IntoIterator<Item = u32>) -> Self {
        Self::joined(members.into_iter().map(|index| Interval { first: index, last: index }).collect())
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Self::joined(self.0.iter().chain(&other.0).copied().collect())
    }

    /// Intervals in any order, which may overlap.
    fn joined(mut intervals: Vec<Interval>) -> Self {
        intervals.sort_by_key(|interval| interval.first);
        let mut joined: Vec<Interval> = Vec::new();
        for next in intervals {
            match joined.last_mut() {
                Some(last) if next.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(next.last);
                }
                _ => joined.push(next),
            }
        }
        Self(joined)
    }

    /// How many both have.
    pub(super) fn common(&self, other: &Self) -> usize {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut count = 0;
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            let (first, last) = (a.first.max(b.first), a.last.min(b.last));
            if first <= last {
                count += Interval { first, last }.len();
            }
            if a.last <= b.last {
                ours.next()
            } else {
                theirs.next()
            };
        }
        count
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Interval::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        let at = self.0.partition_point(|interval| interval.last < index);
        self.0.get(at).is_some_and(|interval| interval.first <= index)
    }

    /// The lowest indexes below `completions` that are not in the set, `count` of them at most.
    pub(super) fn first_missing(&self, completions: u32, count: usize) -> Vec<u32> {
        let (mut missing, mut next) = (Vec::new(), 0);
        let end = Interval { first: completions, last: completions };
        for interval in self.0.iter().chain([&end]) {
            let room = count - missing.len();
            missing.extend((next..interval.first.min(completions)).take(room));
            next = next.max(interval.last.saturating_add(1));
        }
        missing
    }
}

impl Interval {
    fn len(&self) -> usize {
        (self.last - self.first) as usize + 1
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Interval { first, last }) in self.0.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The index that a pod was made for, if it says one.
pub(super) fn completion_index(pod: &Pod) -> Option<u32> {
    let text = pod.metadata.annotations.get(COMPLETION_INDEX)?;
    text.parse::<i32>().ok().and_then(|index| u32::try_from(index).ok())
}

/// How many pods of its index failed before this one: those that counted, and the others.
pub(super) fn failures_before(pod: &Pod) -> (i32, i32) {
    let number = |key: &str| {
        let text = pod.metadata.annotations.get(key);
        text.and_then(|text| text.parse::<i32>().ok()).filter(|number| *number >= 0).unwrap_or_default()
    };
    (number(FAILURE_COUNT), number(IGNORED_FAILURE_COUNT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_round_trips_and_forgives() {
        let rows = [
            ("", 10, "", 0),
            ("0", 10, "0", 1),
            ("0,1", 10, "0,1", 2),
            ("0-2,5,7", 10, "0-2,5,7", 5),
            ("0,1,2", 10, "0-2", 3),
            ("0-2,3-5", 10, "0-5", 6),
            ("0-20", 10, "0-9", 10),
            ("3,12-14", 10, "3", 1),
            ("a,1,b-2,3-c,5", 10, "1,5", 2),
            ("7-5,4,0-1,1", 10, "0,1,4", 3),
            ("0", 0, "", 0),
        ];
        for (text, completions, written, len) in rows {
            let indexes = Indexes::parse(text, completions);
            assert_eq!((indexes.to_string().as_str(), indexes.len()), (written, len), "{text}");
        }
    }

    #[test]
    fn sets_are_joined_and_compared() {
        let of = |text: &str| Indexes::parse(text, 100);
        assert_eq!(of("0-2,7").union(&of("1,3,9-11")).to_string(), "0-3,7,9-11");
        assert_eq!(Indexes::of([9, 1, 2, 2, 4]).to_string(), "1,2,4,9");
        assert_eq!(of("0-4,8").common(&of("3-8")), 3);
        assert_eq!(of("0-4").common(&of("5-8")), 0);
        let own = of("2-4,8");
        assert!(own.contains(2) && own.contains(4) && own.contains(8));
        assert!(!own.contains(1) && !own.contains(5) && !own.contains(9));
    }

    #[test]
    fn missing_indexes_are_the_lowest_ones() {
        let own = Indexes::parse("0,2-3,6", 100);
        assert_eq!(own.first_missing(9, 3), [1, 4, 5]);
        assert_eq!(own.first_missing(9, 10), [1, 4, 5, 7, 8]);
        assert_eq!(own.first_missing(5, 10), [1, 4]);
        assert_eq!(Indexes::default().first_missing(2, 5), [0, 1]);
        assert_eq!(Indexes::parse("0-4", 5).first_missing(5, 1), Vec::<u32>::new());
    }
}
