//! The end of a log as a container's last words: `terminationMessagePolicy: FallbackToLogsOnError`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use camino::Utf8Path;

use super::line::Line;

/// As much as upstream takes.
const LINES_MAX: usize = 80;
const BYTES_MAX: usize = 2048;

/// Bytes of the file that are looked at: what is before every line comes on top of what is said.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the container wrote last, to either stream; empty where there is no log.
pub fn last_words(path: &Utf8Path) -> io::Result<String> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let len = file.metadata()?.len();
    let start = len.saturating_sub(FILE_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let whole =
        if start == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
    Ok(words(&bytes[whole..]))
}

fn words(log: &[u8]) -> String {
    let mut lines = vec![Vec::new()];
    for line in log.split(|byte| *byte == b'\n').filter_map(Line::parse) {
        if let Some(last) = lines.last_mut() {
            last.extend_from_slice(line.content);
        }
        if !line.partial {
            lines.push(Vec::new());
        }
    }
    let unfinished = lines.pop().unwrap_or_default();
    let mut text: Vec<u8> = Vec::new();
    for line in &lines[lines.len().saturating_sub(LINES_MAX)..] {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(&unfinished);
    let start = text.len().saturating_sub(BYTES_MAX);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_joined_and_cut() {
        let log = "t stdout F one\nt stderr P two \nt stderr F halves\nrubbish\n";
        assert_eq!(words(log.as_bytes()), "one\ntwo halves\n");
        let many: String = (0..100).map(|number| format!("t stdout F {number}\n")).collect();
        let said = words(many.as_bytes());
        assert!(said.starts_with("20\n") && said.ends_with("99\n"));
        let long = format!("t stdout F {}\n", "x".repeat(5000));
        assert_eq!(words(long.as_bytes()).len(), BYTES_MAX);
    }

    #[test]
    fn a_long_log_is_read_from_a_whole_line_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::from_path_buf(folder.path().join("0.log")).unwrap();
        assert_eq!(last_words(&path).unwrap(), "");
        let line = format!("t stdout F {}\n", "y".repeat(1000));
        std::fs::write(&path, line.repeat(100) + "t stdout F end\n").unwrap();
        assert!(last_words(&path).unwrap().ends_with("y\nend\n"));
    }
}
