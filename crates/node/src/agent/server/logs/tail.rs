//! Where the last lines of a log begin: the file is read backwards, block by block.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::line::Line;

const BLOCK_BYTES: usize = 64 << 10;

/// So much of a line tells whether another piece follows: its time, stream and tags.
const HEAD_BYTES: usize = 256;

/// The offset at which the last `lines` lines begin. A line that the runtime cut into pieces is one.
pub(super) fn start(file: &File, lines: u64) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut search = Search { wanted: lines, found: 0, next: size, is_last: true };
    if lines == 0 {
        return Ok(size);
    }
    // The beginning of what lies behind `position`, up to the first end of a line there.
    let mut head: Vec<u8> = Vec::new();
    let mut position = size;
    while position > 0 {
        let length = (BLOCK_BYTES as u64).min(position) as usize;
        position -= length as u64;
        let mut block = vec![0; length];
        file.read_exact_at(&mut block, position)?;
        block.extend_from_slice(&head);
        let mut end = block.len();
        let mut limit = length;
        while let Some(newline) = block[..limit].iter().rposition(|byte| *byte == b'\n') {
            let from = newline + 1;
            if let Some(found) = search.look(&block[from..end], position + from as u64) {
                return Ok(found);
            }
            (end, limit) = (newline, newline);
        }
        block.truncate(end.min(HEAD_BYTES));
        head = block;
    }
    Ok(search.look(&head, 0).unwrap_or(0))
}

struct Search {
    wanted: u64,
    found: u64,
    /// Where the line after the one that is looked at begins.
    next: u64,
    is_last: bool,
}

impl Search {
    /// Looks at a line, the last one first; returns where the wanted ones begin once the one before them is met.
    fn look(&mut self, line: &[u8], start: u64) -> Option<u64> {
        if self.is_last && line.is_empty() {
            // Behind the last end of a line there is none.
            return None;
        }
        let goes_on = Line::parse(line).is_some_and(|line| line.partial);
        if !goes_on || self.is_last {
            if self.found == self.wanted {
                return Some(self.next);
            }
            self.found += 1;
        }
        self.is_last = false;
        self.next = start;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn tail(content: &str, lines: u64) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        content[start(&file, lines).unwrap() as usize..].to_owned()
    }

    #[test]
    fn the_last_lines_are_whole() {
        let (a, b, c) = ("t stdout F a\n", "t stdout P b1\nt stdout P b2\nt stdout F b3\n", "t stderr F c\n");
        let all = format!("{a}{b}{c}");
        assert_eq!(tail(&all, 0), "");
        assert_eq!(tail(&all, 1), c);
        assert_eq!(tail(&all, 2), format!("{b}{c}"));
        assert_eq!(tail(&all, 3), all);
        assert_eq!(tail(&all, 4), all);
        assert_eq!(tail("", 5), "");
        // A line without its end, and one whose last piece is not there yet.
        assert_eq!(tail(&format!("{a}t stdout F x"), 1), "t stdout F x");
        assert_eq!(tail(&format!("{a}t stdout P x\n"), 1), "t stdout P x\n");
        assert_eq!(tail(&format!("{a}t stdout P x\n"), 2), format!("{a}t stdout P x\n"));
    }

    #[test]
    fn blocks_may_end_anywhere() {
        let lines: Vec<String> =
            (0..20_000).map(|index| format!("2026-01-01T00:00:00.000000000Z stdout F {index}\n")).collect();
        let all = lines.concat();
        assert!(all.len() > 10 * BLOCK_BYTES);
        for count in [1, 1500, 1600, 10_000, 19_999] {
            assert_eq!(tail(&all, count), lines[lines.len() - count as usize..].concat());
        }
        let long = format!("t stdout F {}\nt stdout F end\n", "x".repeat(3 * BLOCK_BYTES));
        assert_eq!(tail(&long, 1), "t stdout F end\n");
        assert_eq!(tail(&format!("t stdout F a\n{long}"), 2), long);
    }
}
