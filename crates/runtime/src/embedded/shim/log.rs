//! A container's log file, in the format that CRI defines: time, stream, `F` for a full line or `P` for a part of one,
//! and the text.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

/// Longer lines come in parts.
const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Lines out of pieces as they were read.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Gives every line that `bytes` end, and parts of lines that are too long, to `entry`; whether the line is full is
    /// its second argument.
    fn push(&mut self, mut bytes: &[u8], mut entry: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let space = LINE_BYTES_MAX - self.pending.len();
            match bytes.iter().take(space + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.take(&bytes[..end], true, &mut entry);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > space => {
                    self.take(&bytes[..space], false, &mut entry);
                    bytes = &bytes[space..];
                }
                None => {
                    self.pending.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8], full: bool, entry: &mut impl FnMut(&[u8], bool)) {
        if self.pending.is_empty() {
            entry(bytes, full);
        } else {
            self.pending.extend_from_slice(bytes);
            entry(&self.pending, full);
            self.pending.clear();
        }
    }

    /// What the stream left behind without a line's end is part of a line that never ends, as with other runtimes.
    fn finish(&mut self, mut entry: impl FnMut(&[u8], bool)) {
        if !self.pending.is_empty() {
            entry(&std::mem::take(&mut self.pending), false);
        }
    }
}

pub(super) struct Log {
    path: Utf8PathBuf,
    file: File,
    stdout: Lines,
    stderr: Lines,
    entries: Vec<u8>,
}

impl Log {
    pub(super) fn open(path: &Utf8Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            stdout: Lines::default(),
            stderr: Lines::default(),
            entries: Vec::new(),
        })
    }

    /// What is written from now on goes to a file that is at the path now.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let now = rt::now();
        let entries = &mut self.entries;
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        lines.push(bytes, |text, full| write_entry(entries, now, stream, text, full));
        self.flush()
    }

    pub(super) fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let now = rt::now();
        let entries = &mut self.entries;
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        lines.finish(|text, full| write_entry(entries, now, stream, text, full));
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let outcome = self.file.write_all(&self.entries);
        self.entries.clear();
        self.entries.shrink_to(4 * LINE_BYTES_MAX);
        outcome
    }
}

fn open(path: &Utf8Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn write_entry(to: &mut Vec<u8>, at: Timestamp, stream: Stream, text: &[u8], full: bool) {
    let head = format!("{at:.9} {} {} ", stream.name(), if full { 'F' } else { 'P' });
    to.extend_from_slice(head.as_bytes());
    to.extend_from_slice(text);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pieces: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut lines = Lines::default();
        let mut entries = Vec::new();
        for piece in pieces {
            lines.push(piece, |text, full| entries.push((text.to_vec(), full)));
        }
        lines.finish(|text, full| entries.push((text.to_vec(), full)));
        entries
    }

    #[test]
    fn lines_are_found_wherever_the_pieces_were_cut() {
        let want = |ended| [(b"one".to_vec(), true), (Vec::new(), true), (b"two".to_vec(), ended)];
        assert_eq!(entries(&[b"one\n\ntwo"]), want(false));
        assert_eq!(entries(&[b"on", b"e", b"\n", b"\ntw", b"o\n"]), want(true));
        assert_eq!(entries(&[]), []);
    }

    #[test]
    fn a_line_that_is_too_long_comes_in_parts_and_one_that_just_fits_does_not() {
        let fits = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(entries(&[&fits, b"\n"]), [(fits.clone(), true)]);
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(entries(&[&long, b"\n"]), [(fits.clone(), false), (b"x".to_vec(), true)]);
        let longer = vec![b'x'; 2 * LINE_BYTES_MAX + 2];
        assert_eq!(
            entries(&[&longer[..100], &longer[100..]]),
            [(fits.clone(), false), (fits, false), (b"xx".to_vec(), false)]
        );
    }

    #[test]
    fn entries_look_as_cri_says_and_go_to_the_new_file_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().join("deep/0.log")).unwrap();
        let mut log = Log::open(&path).unwrap();
        log.write(Stream::Stdout, b"hello\nwor").unwrap();
        let old = path.with_extension("old");
        std::fs::rename(&path, &old).unwrap();
        log.reopen().unwrap();
        log.write(Stream::Stderr, b"oops\n").unwrap();
        log.finish(Stream::Stdout).unwrap();

        let rest = |line: &str| line.split_once(' ').unwrap().1.to_owned();
        let old = std::fs::read_to_string(old).unwrap();
        let (time, _) = old.split_once(' ').unwrap();
        assert_eq!(time.len(), "2016-10-06T00:17:09.669794202Z".len());
        assert!(time.parse::<Timestamp>().is_ok());
        assert_eq!(old.lines().map(rest).collect::<Vec<_>>(), ["stdout F hello"]);
        let new = std::fs::read_to_string(&path).unwrap();
        assert_eq!(new.lines().map(rest).collect::<Vec<_>>(), ["stderr F oops", "stdout P wor"]);
    }
}
