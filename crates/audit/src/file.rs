//! Events as lines of a file that is put aside when it has grown.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::event::Event;
use crate::{OpenError, Tasks};

/// Where the log is and how long it is kept; upstream's `--audit-log-*`.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// `-` is standard output.
    pub path: Utf8PathBuf,
    /// Files put aside are deleted after so many days; 0 keeps them.
    pub days_max: u32,
    /// So many files put aside are kept; 0 keeps all.
    pub backups_max: u32,
    pub megabytes_max: u32,
    /// Requests do not wait for their lines; what does not fit the buffer is dropped.
    pub batch: bool,
    /// Events larger than this lose their objects; `None` lets them be.
    pub event_bytes_max: Option<usize>,
}

/// Events that wait to be written in batch mode; upstream's default.
const BUFFER_MAX: usize = 10_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(crate) struct File {
    event_bytes_max: Option<usize>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Blocking(Mutex<Log>),
    Batch(mpsc::Sender<Vec<u8>>),
}

impl File {
    pub fn open(options: FileOptions, tasks: &mut Tasks) -> Result<Self, OpenError> {
        let path = options.path.to_string();
        let (batch, event_bytes_max) = (options.batch, options.event_bytes_max);
        let mut log = Log::open(options).map_err(|source| OpenError::File { path, source })?;
        if !batch {
            return Ok(Self { event_bytes_max, way: Way::Blocking(Mutex::new(log)) });
        }
        let (sender, mut lines) = mpsc::channel::<Vec<u8>>(BUFFER_MAX);
        let end = tasks.end.clone();
        tasks.running.spawn("audit log", async move {
            // What was taken in before the end is written after it.
            while let Some(line) = tokio::select! {
                biased;
                line = lines.recv() => line,
                () = end.cancelled() => None,
            } {
                log.write_line(&line);
            }
        });
        Ok(Self { event_bytes_max, way: Way::Batch(sender) })
    }

    pub fn write(&self, event: &Event, json: &[u8]) {
        let short;
        let json = match self.event_bytes_max {
            Some(max) if json.len() > max => {
                short = serde_json::to_vec(&event.truncated()).unwrap_or_default();
                &short
            }
            _ => json,
        };
        match &self.way {
            Way::Blocking(log) => log.lock().write_line(json),
            Way::Batch(sender) => {
                if sender.try_send(json.to_vec()).is_err() {
                    telemetry::metrics().audit.failed("log");
                }
            }
        }
    }
}

#[derive(Debug)]
struct Log {
    options: FileOptions,
    /// `None` for standard output.
    file: Option<fs::File>,
    bytes: u64,
    /// With so many it is put aside.
    bytes_max: u64,
}

impl Log {
    fn open(options: FileOptions) -> io::Result<Self> {
        if options.path == "-" {
            return Ok(Self { options, file: None, bytes: 0, bytes_max: u64::MAX });
        }
        let file = append(&options.path)?;
        let bytes = file.metadata()?.len();
        let bytes_max = options.bytes_max();
        Ok(Self { options, file: Some(file), bytes, bytes_max })
    }

    fn write_line(&mut self, json: &[u8]) {
        if let Err(error) = self.try_write(json) {
            telemetry::metrics().audit.failed("log");
            tracing::error!(path = %self.options.path, %error, "Could not write an audit event");
        }
    }

    fn try_write(&mut self, json: &[u8]) -> io::Result<()> {
        let mut line = Vec::with_capacity(json.len() + 1);
        line.extend_from_slice(json);
        line.push(b'\n');
        let Some(file) = &mut self.file else { return io::stdout().write_all(&line) };
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            match put_aside(&self.options) {
                Ok(next) => (*file, self.bytes, self.bytes_max) = (next, 0, self.options.bytes_max()),
                // A log that is too long is better than none. It is tried again after as many bytes.
                Err(error) => {
                    tracing::warn!(path = %self.options.path, %error, "Could not put an audit log aside");
                    self.bytes_max = self.bytes + self.options.bytes_max();
                }
            }
        }
        file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

impl FileOptions {
    fn bytes_max(&self) -> u64 {
        if self.megabytes_max == 0 { u64::MAX } else { u64::from(self.megabytes_max) << 20 }
    }
}

/// Nobody else may read what users wrote.
fn append(path: &Utf8Path) -> io::Result<fs::File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Renames the file to one with the time in its name, begins a new one, and deletes those that are too old or too
/// many. Where no new one can be begun, the old one goes on under its name.
fn put_aside(options: &FileOptions) -> io::Result<fs::File> {
    let path = &options.path;
    let (stem, extension) = name_parts(path);
    let time = rt::now().strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
    let aside = path.with_file_name(format!("{stem}-{time}{extension}"));
    fs::rename(path, &aside)?;
    let next = append(path).inspect_err(|_| _ = fs::rename(&aside, path))?;
    if let Err(error) = delete_old(options) {
        tracing::warn!(%path, %error, "Could not delete audit logs that were put aside");
    }
    Ok(next)
}

fn delete_old(options: &FileOptions) -> io::Result<()> {
    let mut old = backups(&options.path)?;
    // Names sort by time.
    old.sort_unstable_by(|a, b| b.cmp(a));
    let kept = if options.backups_max == 0 { old.len() } else { options.backups_max as usize };
    let deadline = (options.days_max > 0).then(|| SystemTime::from(rt::now()) - DAY * options.days_max);
    for (index, backup) in old.iter().enumerate() {
        let written = fs::metadata(backup).and_then(|metadata| metadata.modified());
        let is_old = deadline.is_some_and(|deadline| written.is_ok_and(|written| written < deadline));
        if index >= kept || is_old {
            fs::remove_file(backup)?;
        }
    }
    Ok(())
}

/// `audit` and `.log`.
fn name_parts(path: &Utf8Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_owned();
    (stem, path.extension().map(|extension| format!(".{extension}")).unwrap_or_default())
}

fn backups(path: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let (stem, extension) = name_parts(path);
    let prefix = format!("{stem}-");
    let folder = path.parent().filter(|folder| !folder.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let mut found = Vec::new();
    for entry in folder.read_dir_utf8()? {
        let entry = entry?;
        let name = entry.file_name();
        let is_backup = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&extension));
        if is_backup.is_some_and(|time| time.starts_with(|letter: char| letter.is_ascii_digit())) {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A log in this folder that is never put aside.
    fn options(folder: &tempfile::TempDir) -> FileOptions {
        FileOptions {
            path: Utf8Path::from_path(folder.path()).unwrap().join("audit.log"),
            days_max: 0,
            backups_max: 0,
            megabytes_max: 0,
            batch: false,
            event_bytes_max: None,
        }
    }

    #[test]
    fn a_log_that_has_grown_is_put_aside_and_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("logs/audit.log");
        let limits = FileOptions { days_max: 1, backups_max: 2, megabytes_max: 1, ..options(&folder) };
        let options = FileOptions { path: path.clone(), ..limits };
        let mut log = Log::open(options.clone()).unwrap();
        let line = vec![b'x'; 600 << 10];
        for _ in 0..5 {
            log.try_write(&line).unwrap();
            // The names tell milliseconds apart.
            fs::File::open(&path).unwrap().sync_all().unwrap();
        }
        assert!((1..=2).contains(&backups(&path).unwrap().len()));
        assert_eq!(fs::metadata(&path).unwrap().len(), line.len() as u64 + 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = Log::open(options).unwrap();
        assert_eq!(again.bytes, line.len() as u64 + 1, "a restart goes on with the same file");
        again.try_write(b"{}").unwrap();
        assert!(fs::read(&path).unwrap().ends_with(b"\n{}\n"));
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let options = FileOptions { batch: true, ..options(&folder) };
        let path = options.path.clone();
        let mut tasks = Tasks::default();
        let file = File::open(options, &mut tasks).unwrap();
        let Way::Batch(sender) = &file.way else { panic!("it does not wait") };
        for number in 0..100 {
            sender.try_send(vec![b'0' + number % 10]).unwrap();
        }
        tasks.end.cancel();
        tasks.running.ended().await;
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 100);
    }

    #[test]
    fn a_log_that_cannot_be_put_aside_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let options = FileOptions { megabytes_max: 1, ..options(&folder) };
        let path = options.path.clone();
        let mut log = Log::open(options).unwrap();
        let line = vec![b'x'; 600 << 10];
        log.try_write(&line).unwrap();
        // Somebody took it away: there is nothing to rename, and the open file is still there.
        fs::remove_file(&path).unwrap();
        log.try_write(&line).unwrap();
        let written = line.len() as u64 + 1;
        assert_eq!(log.bytes, 2 * written);
        // There is one to put aside again, but it is not looked for yet.
        fs::write(&path, "x").unwrap();
        let half = &line[line.len() / 2..];
        log.try_write(half).unwrap();
        assert_eq!((log.bytes, backups(&path).unwrap().len()), (2 * written + half.len() as u64 + 1, 0));
        log.try_write(half).unwrap();
        assert_eq!((log.bytes, backups(&path).unwrap().len()), (half.len() as u64 + 1, 1));
    }
}
