//! A line of a log in CRI's form: `<time> <stream> <tags> <content>`.
//!
//! A runtime cuts long lines of a container: all pieces but the last have the tag `P`. They are put together again by
//! leaving out the ends of lines between them.

use std::ops::ControlFlow;

use jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339.
    pub time: &'a str,
    pub stream: Stream,
    /// More of it follows.
    pub partial: bool,
    pub content: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line without its end; `None` where it is not in CRI's form.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (time, rest) = cut(line)?;
        let (stream, rest) = cut(rest)?;
        let (tags, content) = cut(rest)?;
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let time = std::str::from_utf8(time).ok()?;
        // Of several tags, which colons separate, only the first one is known.
        let partial = tags.first() == Some(&b'P');
        Some(Self { time, stream, partial, content })
    }
}

fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..space], &bytes[space + 1..]))
}

/// Nine digits of a second's fraction, as upstream shows times.
fn push_time(time: &str, out: &mut Vec<u8>) {
    const DIGITS: usize = 9;
    let (seconds, rest) = time.split_at(time.find(['.', 'Z', '+']).unwrap_or(time.len()));
    let fraction = rest.strip_prefix('.').unwrap_or_default();
    let digits = fraction.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(fraction.len());
    let zone = if rest.starts_with('.') { &fraction[digits..] } else { rest };
    out.extend_from_slice(seconds.as_bytes());
    out.push(b'.');
    out.extend_from_slice(&fraction.as_bytes()[..digits.min(DIGITS)]);
    out.resize(out.len() + DIGITS.saturating_sub(digits), b'0');
    out.extend_from_slice(zone.as_bytes());
}

/// What a reader wants of a log's lines.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// `None` is both.
    pub stream: Option<Stream>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
}

/// Turns a log's lines into what a reader gets.
#[derive(Debug)]
pub struct Writer {
    selection: Selection,
    /// Bytes that may still be written.
    left: Option<u64>,
    at_start: bool,
}

impl Writer {
    pub fn new(selection: Selection) -> Self {
        Self { left: selection.limit_bytes, selection, at_start: true }
    }

    /// Appends what is wanted of a line; breaks when the limit is reached.
    pub fn push(&mut self, line: &[u8], out: &mut Vec<u8>) -> ControlFlow<()> {
        let Some(line) = Line::parse(line) else {
            if !line.is_empty() {
                tracing::debug!("A line of a container's log is not in CRI's form");
            }
            return ControlFlow::Continue(());
        };
        if self.selection.stream.is_some_and(|wanted| wanted != line.stream) || self.is_too_old(&line) {
            return ControlFlow::Continue(());
        }
        let before = out.len();
        if self.selection.timestamps && self.at_start {
            push_time(line.time, out);
            out.push(b' ');
        }
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
        self.at_start = !line.partial;
        let Some(left) = &mut self.left else { return ControlFlow::Continue(()) };
        let written = (out.len() - before) as u64;
        if written < *left {
            *left -= written;
            return ControlFlow::Continue(());
        }
        out.truncate(before + *left as usize);
        ControlFlow::Break(())
    }

    fn is_too_old(&self, line: &Line<'_>) -> bool {
        let Some(since) = self.selection.since else { return false };
        line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(selection: Selection, lines: &[&str]) -> String {
        let (mut writer, mut out) = (Writer::new(selection), Vec::new());
        for line in lines {
            if writer.push(line.as_bytes(), &mut out).is_break() {
                out.extend_from_slice(b"|");
                break;
            }
        }
        String::from_utf8(out).unwrap()
    }

    const LINES: [&str; 5] = [
        "2026-01-01T00:00:01.5Z stdout F one",
        "2026-01-01T00:00:02Z stderr P tw",
        "2026-01-01T00:00:02.1Z stderr F o  words",
        "nonsense",
        "2026-01-01T00:00:03.123456789+01:00 stdout F:x ",
    ];

    #[test]
    fn pieces_are_joined_and_nonsense_is_left_out() {
        assert_eq!(written(Selection::default(), &LINES), "one\ntwo  words\n\n");
        let stamped = Selection { timestamps: true, ..Selection::default() };
        let wanted = "2026-01-01T00:00:01.500000000Z one\n2026-01-01T00:00:02.000000000Z two  words\n\
            2026-01-01T00:00:03.123456789+01:00 \n";
        assert_eq!(written(stamped, &LINES), wanted);
    }

    #[test]
    fn a_reader_gets_the_stream_the_time_and_the_bytes_it_wants() {
        let stderr = Selection { stream: Some(Stream::Stderr), ..Selection::default() };
        assert_eq!(written(stderr, &LINES), "two  words\n");
        let since = |since: &str| Selection { since: Some(since.parse().unwrap()), ..Selection::default() };
        assert_eq!(written(since("2026-01-01T00:00:02.1Z"), &LINES), "o  words\n", "the border is in");
        assert_eq!(written(since("2025-01-01T00:00:00Z"), &LINES[..1]), "one\n");
        let limited = |bytes| Selection { limit_bytes: Some(bytes), ..Selection::default() };
        assert_eq!(written(limited(6), &LINES), "one\ntw|");
        assert_eq!(written(limited(2), &LINES), "on|");
        assert_eq!(written(limited(100), &LINES), "one\ntwo  words\n\n");
    }

    #[test]
    fn lines_of_another_form_are_none() {
        for line in ["", "a", "a stdout", "a stdout F", "a stdin F x", "{\"log\":\"x\"}"] {
            assert_eq!(Line::parse(line.as_bytes()), None, "{line:?}");
        }
        let line = Line::parse(b"t stdout P x").unwrap();
        assert!(line.partial && line.content == b"x");
    }
}
