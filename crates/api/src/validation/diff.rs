//! What changed in a part of an object, as a person reads it: for complaints about fields that may not change.
//!
//! Upstream prints both as JSON of its Go structs and shows the lines that differ in unified form. Which lines count
//! as the same decides the text, so the search for them is that of Python's `difflib`, which upstream uses in Go:
//! the longest common run first, then what is left and right of it. Start at [`of_structs`].

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;

use apimachinery::Value;

use super::internal;

/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;
/// In a text of at least so many lines, lines that make up more than a hundredth of it start no common run.
const POPULAR_LINES_MIN: usize = 200;
/// Lines, and places of lines, that the search for common runs looks at; what it has not seen then counts as changed.
/// A change of a few fields needs a fraction of that; texts whose every line is a run of its own would need billions.
const VISITS_MAX: usize = 5_000_000;

/// How two values of this internal type differ (`PodSpec`).
pub fn of_structs(go_type: &str, old: &Value, new: &Value) -> String {
    unified(&internal::lines(go_type, old), &internal::lines(go_type, new))
}

/// Lines that both texts have in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    old: usize,
    new: usize,
    len: usize,
}

/// A part of both texts that is the same or has changed.
#[derive(Clone, Debug)]
struct Part {
    same: bool,
    old: Range<usize>,
    new: Range<usize>,
}

fn unified(old: &[String], new: &[String]) -> String {
    let mut text = String::new();
    let mut visits_left = VISITS_MAX;
    let runs = common_runs(old, new, &mut visits_left);
    for hunk in hunks(parts(&runs, old.len(), new.len())) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let range = |start: usize, end: usize| match end - start {
            0 => format!("{start},0"),
            1 => format!("{}", start + 1),
            len => format!("{},{len}", start + 1),
        };
        let (from, to) = (range(first.old.start, last.old.end), range(first.new.start, last.new.end));
        let _ = writeln!(text, "@@ -{from} +{to} @@");
        for Part { same, old: from, new: to } in hunk {
            if same {
                push_lines(&mut text, ' ', &old[from]);
            } else {
                push_lines(&mut text, '-', &old[from]);
                push_lines(&mut text, '+', &new[to]);
            }
        }
    }
    text
}

fn push_lines(text: &mut String, mark: char, lines: &[String]) {
    for line in lines {
        text.push(mark);
        text.push_str(line);
        text.push('\n');
    }
}

/// All runs in order, as far as the visits last.
fn common_runs(old: &[String], new: &[String], visits_left: &mut usize) -> Vec<Run> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(at);
    }
    if new.len() >= POPULAR_LINES_MIN {
        places.retain(|_, places| places.len() <= new.len() / 100 + 1);
    }
    let places_of = |line: &String| places.get(line.as_str()).map(Vec::as_slice).unwrap_or_default();
    let mut search = Search {
        old,
        new,
        places: old.iter().map(places_of).collect(),
        ending: vec![0; new.len() + 1],
        ending_here: vec![0; new.len() + 1],
        visits_left,
    };
    let mut found = Vec::new();
    let mut open = vec![(0..old.len(), 0..new.len())];
    while let Some((old_range, new_range)) = open.pop() {
        let run = search.longest_run(&old_range, &new_range);
        if run.len == 0 {
            continue;
        }
        open.push((old_range.start..run.old, new_range.start..run.new));
        open.push((run.old + run.len..old_range.end, run.new + run.len..new_range.end));
        found.push(run);
    }
    found.sort_by_key(|run| run.old);
    found
}

/// A search for common runs. Between two calls all of `ending` and `ending_here` is zero.
struct Search<'a> {
    old: &'a [String],
    new: &'a [String],
    /// By line of `old`: where it stands in `new`.
    places: Vec<&'a [usize]>,
    /// By the line of `new` after them: how long the runs are that end with the line of `old` before the present one.
    ending: Vec<u32>,
    /// And those that end with the present one.
    ending_here: Vec<u32>,
    visits_left: &'a mut usize,
}

impl Search<'_> {
    /// The longest run within these ranges, of several the first one, as far as the visits last.
    fn longest_run(&mut self, old_range: &Range<usize>, new_range: &Range<usize>) -> Run {
        let mut best = Run { old: old_range.start, new: new_range.start, len: 0 };
        let mut touched: &[usize] = &[];
        for at in old_range.clone() {
            let here = within(self.places[at], new_range);
            let Some(visits_left) = self.visits_left.checked_sub(1 + here.len()) else { break };
            *self.visits_left = visits_left;
            for &place in here {
                let len = self.ending[place] + 1;
                self.ending_here[place + 1] = len;
                let len = len as usize;
                if len > best.len {
                    best = Run { old: at + 1 - len, new: place + 1 - len, len };
                }
            }
            self.forget(touched);
            std::mem::swap(&mut self.ending, &mut self.ending_here);
            touched = here;
        }
        self.forget(touched);
        self.extended(best, old_range, new_range)
    }

    /// Removes the runs that end at these places.
    fn forget(&mut self, places: &[usize]) {
        places.iter().for_each(|place| self.ending[place + 1] = 0);
    }

    /// Popular lines around a run belong to it, too.
    fn extended(&self, mut run: Run, old_range: &Range<usize>, new_range: &Range<usize>) -> Run {
        let (old, new) = (self.old, self.new);
        while run.old > old_range.start && run.new > new_range.start && old[run.old - 1] == new[run.new - 1] {
            run = Run { old: run.old - 1, new: run.new - 1, len: run.len + 1 };
        }
        let end = |run: &Run| (run.old + run.len, run.new + run.len);
        while end(&run).0 < old_range.end
            && end(&run).1 < new_range.end
            && old[end(&run).0] == new[end(&run).1]
        {
            run.len += 1;
        }
        run
    }
}

/// Those of the sorted places that are within the range.
fn within<'a>(places: &'a [usize], range: &Range<usize>) -> &'a [usize] {
    let before = |bound: usize| places.partition_point(|place| *place < bound);
    &places[before(range.start)..before(range.end)]
}

/// Both texts from start to end: runs and what is between them.
fn parts(runs: &[Run], old_len: usize, new_len: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut old_at, mut new_at) = (0, 0);
    let end = Run { old: old_len, new: new_len, len: 0 };
    for run in runs.iter().chain([&end]) {
        if run.old > old_at || run.new > new_at {
            parts.push(Part { same: false, old: old_at..run.old, new: new_at..run.new });
        }
        (old_at, new_at) = (run.old + run.len, run.new + run.len);
        match parts.last_mut() {
            // Two runs that touch are one.
            Some(last) if last.same && run.len > 0 => (last.old.end, last.new.end) = (old_at, new_at),
            _ if run.len > 0 => parts.push(Part { same: true, old: run.old..old_at, new: run.new..new_at }),
            _ => {}
        }
    }
    parts
}

/// Changes that are near each other, with some unchanged lines around them.
fn hunks(mut parts: Vec<Part>) -> Vec<Vec<Part>> {
    if let Some(first) = parts.first_mut().filter(|part| part.same) {
        keep_last(first);
    }
    if let Some(last) = parts.last_mut().filter(|part| part.same) {
        keep_first(last);
    }
    let mut hunks = vec![Vec::new()];
    for part in parts {
        let hunk = hunks.last_mut().expect("there is one from the start");
        if part.same && part.old.len() > 2 * CONTEXT {
            let (mut before, mut after) = (part.clone(), part);
            keep_first(&mut before);
            keep_last(&mut after);
            hunk.push(before);
            hunks.push(vec![after]);
        } else {
            hunk.push(part);
        }
    }
    hunks.retain(|hunk| hunk.iter().any(|part| !part.same));
    hunks
}

fn keep_first(part: &mut Part) {
    part.old.end = part.old.end.min(part.old.start + CONTEXT);
    part.new.end = part.new.end.min(part.new.start + CONTEXT);
}

fn keep_last(part: &mut Part) {
    part.old.start = part.old.start.max(part.old.end.saturating_sub(CONTEXT));
    part.new.start = part.new.start.max(part.new.end.saturating_sub(CONTEXT));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        assert_eq!(unified(&lines(old), &lines(new)).replace('\n', "|"), expected, "{old} {new}");
    }

    #[test]
    fn changes_are_shown_with_their_context() {
        check("abcdefghi", "abcdXfghi", "@@ -2,7 +2,7 @@| b| c| d|-e|+X| f| g| h|");
        check("abc", "abc", "");
        check("", "a", "@@ -0,0 +1 @@|+a|");
        check("a", "", "@@ -1 +0,0 @@|-a|");
    }

    #[test]
    fn changes_that_are_far_apart_are_two_hunks() {
        check("XbcdefghY", "1bcdefgh2", "@@ -1,4 +1,4 @@|-X|+1| b| c| d|@@ -6,4 +6,4 @@| f| g| h|-Y|+2|");
        check("XbcdefgY", "1bcdefg2", "@@ -1,8 +1,8 @@|-X|+1| b| c| d| e| f| g|-Y|+2|");
    }

    #[test]
    fn the_longest_common_run_decides_what_is_new() {
        check("abxcd", "abcdxcd", "@@ -1,5 +1,7 @@| a| b|+c|+d| x| c| d|");
    }

    #[test]
    fn popular_lines_start_no_run() {
        let (mut old, mut new) = ("-".repeat(250), "-".repeat(250));
        old.insert(100, 'a');
        new.insert(100, 'a');
        new.push('b');
        check(&old, &new, "@@ -249,3 +249,4 @@| -| -| -|+b|");
    }

    /// Each line is a run, and every search finds but the first of those that are left.
    #[test]
    fn a_search_without_end_is_given_up() {
        const LINES: usize = 4000;
        let old: Vec<String> = (0..LINES).map(|line| format!("line {}", line % 120)).collect();
        let new: Vec<String> =
            old.iter().enumerate().flat_map(|(at, line)| [line.clone(), format!("added {at}")]).collect();
        let found = common_runs(&old, &old, &mut LINES.clone());
        assert!(found.iter().any(|run| run.len > 10), "what was found before the visits were spent counts");
        let mut visits_left = VISITS_MAX;
        let runs = common_runs(&old, &new, &mut visits_left);
        assert!(visits_left < 2 * LINES, "{visits_left} visits are left");
        assert!(!runs.is_empty() && runs.len() < LINES / 10, "{} runs", runs.len());
        // What was not looked at is changed, and nothing is lost.
        let text = unified(&old, &new);
        let same = text.lines().filter(|line| line.starts_with(' ')).count();
        let removed = text.lines().filter(|line| line.starts_with('-')).count();
        assert_eq!((same, same + removed), (runs.len(), LINES));
    }

    #[test]
    fn a_small_change_of_a_large_text_needs_few_visits() {
        let old: Vec<String> = (0..internal::LINES_MAX).map(|line| format!("line {}", line % 120)).collect();
        let mut new = old.clone();
        new[5000] = "changed".into();
        let mut visits_left = VISITS_MAX;
        common_runs(&old, &new, &mut visits_left);
        assert!(visits_left > VISITS_MAX / 2, "{visits_left} visits are left");
    }

    #[test]
    fn the_claim_of_a_volume_is_shown_as_go_shows_it() {
        let claim = |size: &str| apimachinery::json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        let lines = [
            "@@ -6,7 +6,7 @@",
            "  \"Resources\": {",
            "   \"Limits\": null,",
            "   \"Requests\": {",
            "-   \"storage\": \"1Gi\"",
            "+   \"storage\": \"1Mi\"",
            "   }",
            "  },",
            "  \"VolumeName\": \"\",",
        ];
        assert_eq!(
            of_structs("PersistentVolumeClaimSpec", &claim("1Gi"), &claim("1Mi")),
            lines.join("\n") + "\n"
        );
    }
}
