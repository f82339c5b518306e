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
    for hunk in hunks(parts(&common_runs(old, new), old.len(), new.len())) {
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

/// All runs in order.
fn common_runs(old: &[String], new: &[String]) -> Vec<Run> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(at);
    }
    if new.len() >= POPULAR_LINES_MIN {
        places.retain(|_, places| places.len() <= new.len() / 100 + 1);
    }
    let mut found = Vec::new();
    let mut open = vec![(0..old.len(), 0..new.len())];
    while let Some((old_range, new_range)) = open.pop() {
        let run = longest_run(old, new, &places, &old_range, &new_range);
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

/// The longest run within these ranges; of several the first one.
fn longest_run(
    old: &[String],
    new: &[String],
    places: &HashMap<&str, Vec<usize>>,
    old_range: &Range<usize>,
    new_range: &Range<usize>,
) -> Run {
    let mut best = Run { old: old_range.start, new: new_range.start, len: 0 };
    // By the line of `new` where they end: runs that end with the last line of `old` looked at.
    let mut ending: HashMap<usize, usize> = HashMap::new();
    for at in old_range.clone() {
        let mut ending_here = HashMap::new();
        let here = places.get(old[at].as_str()).map(Vec::as_slice).unwrap_or_default();
        for &place in here.iter().filter(|place| new_range.contains(place)) {
            let before = place.checked_sub(1).and_then(|before| ending.get(&before)).copied();
            let len = before.unwrap_or_default() + 1;
            ending_here.insert(place, len);
            if len > best.len {
                best = Run { old: at + 1 - len, new: place + 1 - len, len };
            }
        }
        ending = ending_here;
    }
    // Popular lines around it belong to it, too.
    while best.old > old_range.start && best.new > new_range.start && old[best.old - 1] == new[best.new - 1] {
        best = Run { old: best.old - 1, new: best.new - 1, len: best.len + 1 };
    }
    let end = |run: &Run| (run.old + run.len, run.new + run.len);
    while end(&best).0 < old_range.end
        && end(&best).1 < new_range.end
        && old[end(&best).0] == new[end(&best).1]
    {
        best.len += 1;
    }
    best
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
