//! Rotation: a log that is full is put aside under another name, and the runtime begins a new one.
//!
//! `<n>.log` becomes `<n>.log.<time>`. The one that was put aside last stays as it is, because a runtime may still write
//! its last lines; older ones are compressed, and the oldest are removed. Sizes are looked at every ten seconds, as
//! upstream does: nobody else knows when a file is full.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use flate2::Compression;
use flate2::write::GzEncoder;
use runtime::{ContainerState, SharedRuntime};

const GZIP: &str = ".gz";
const TEMPORARY: &str = ".tmp";

/// `containerLogMaxSize`, `containerLogMaxFiles`, `containerLogMonitorInterval`.
#[derive(Clone, Debug)]
pub struct Limits {
    pub bytes_max: u64,
    /// Of one container, with the one that is written; 2 at least.
    pub files_max: usize,
    pub interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 10 << 20, files_max: 5, interval: Duration::from_secs(10) }
    }
}

/// Rotates the logs of all running containers until `shutdown`.
pub async fn run(runtime: SharedRuntime, limits: Limits, shutdown: rt::Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = rt::sleep(limits.interval) => {}
        }
        rotate_all(&runtime, &limits).await;
    }
}

/// Rotates what is full now.
pub async fn rotate_all(runtime: &SharedRuntime, limits: &Limits) {
    let containers = match runtime.containers().await {
        Ok(containers) => containers,
        Err(error) => return tracing::warn!(%error, "Could not list containers to rotate their logs"),
    };
    for container in containers {
        if container.state != ContainerState::Running || container.log_path.as_str().is_empty() {
            continue;
        }
        if let Err(error) = rotate_if_full(runtime, &container.id, &container.log_path, limits).await {
            tracing::warn!(container = container.id, path = %container.log_path, %error,
                "Could not rotate a container's log");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{step} {path}: {source}")]
    File { step: &'static str, path: Utf8PathBuf, source: io::Error },
    #[error("reopening the log: {0}")]
    Reopen(#[from] runtime::Error),
}

fn failed(step: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { step, path, source }
}

async fn rotate_if_full(
    runtime: &SharedRuntime,
    container: &str,
    path: &Utf8Path,
    limits: &Limits,
) -> Result<(), Error> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) if metadata.len() < limits.bytes_max => return Ok(()),
        Ok(_) => {}
        // Whoever rotated last was interrupted, or somebody removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(runtime.reopen_log(container).await?);
        }
        Err(error) => return Err(failed("looking at", path)(error)),
    }
    let (of, files_max) = (path.to_owned(), limits.files_max);
    let made_room = tokio::task::spawn_blocking(move || make_room(&of, files_max)).await;
    made_room.map_err(|panic| failed("making room beside", path)(io::Error::other(panic)))??;
    let aside = Utf8PathBuf::from(format!("{path}.{}", rt::now().strftime("%Y%m%d-%H%M%S")));
    if tokio::fs::try_exists(&aside).await.map_err(failed("looking at", &aside))? {
        // A name has room for one log a second; the next round has another name.
        return Ok(());
    }
    tokio::fs::rename(path, &aside).await.map_err(failed("renaming", path))?;
    if let Err(error) = runtime.reopen_log(container).await {
        // The runtime goes on writing the old file: it gets its name back, and the next round tries again.
        let _ = tokio::fs::rename(&aside, path).await;
        return Err(error.into());
    }
    Ok(())
}

/// What is to be done with the files that were put aside before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    remove: Vec<String>,
    compress: Vec<String>,
}

/// `names` are those of the files beside a log whose names begin with its own and a dot.
fn plan(names: &BTreeSet<String>, files_max: usize) -> Plan {
    let mut plan = Plan::default();
    let mut kept = Vec::new();
    for name in names {
        // Halves of a compression, and what is compressed already.
        if name.ends_with(TEMPORARY) || names.contains(&format!("{name}{GZIP}")) {
            plan.remove.push(name.clone());
        } else {
            kept.push(name.clone());
        }
    }
    // Beside the log itself and the one that is about to be put aside. Names end in times: the oldest comes first.
    let excess = kept.len().saturating_sub(files_max.saturating_sub(2));
    plan.remove.extend(kept.drain(..excess));
    plan.compress = kept.into_iter().filter(|name| !name.ends_with(GZIP)).collect();
    plan
}

fn make_room(path: &Utf8Path, files_max: usize) -> Result<(), Error> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{name}.");
    let mut names = BTreeSet::new();
    for entry in directory.read_dir_utf8().map_err(failed("reading", directory))? {
        let entry = entry.map_err(failed("reading", directory))?;
        if entry.file_name().starts_with(&prefix) {
            names.insert(entry.file_name().to_owned());
        }
    }
    let plan = plan(&names, files_max);
    for name in plan.remove {
        let path = directory.join(name);
        std::fs::remove_file(&path).map_err(failed("removing", &path))?;
    }
    for name in plan.compress {
        compress(&directory.join(name))?;
    }
    Ok(())
}

/// Replaces a file by its compressed form, which has a name of its own only when it is whole.
fn compress(path: &Utf8Path) -> Result<(), Error> {
    let temporary = Utf8PathBuf::from(format!("{path}{TEMPORARY}"));
    let compressed = Utf8PathBuf::from(format!("{path}{GZIP}"));
    let written = || {
        let mut from = File::open(path)?;
        let mut to = GzEncoder::new(File::create(&temporary)?, Compression::default());
        io::copy(&mut from, &mut to)?;
        to.finish()?.sync_all()?;
        std::fs::rename(&temporary, &compressed)?;
        std::fs::remove_file(path)
    };
    written().map_err(failed("compressing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn old_files_are_compressed_and_the_oldest_go() {
        let plan = |present: &[&str], files_max| {
            let plan = plan(&names(present), files_max);
            (plan.remove.join(" "), plan.compress.join(" "))
        };
        let answer = |remove: &str, compress: &str| (remove.to_owned(), compress.to_owned());
        assert_eq!(plan(&[], 5), answer("", ""));
        assert_eq!(plan(&["l.1.gz", "l.2.gz", "l.3"], 5), answer("", "l.3"));
        assert_eq!(plan(&["l.1.gz", "l.2.gz", "l.3.gz", "l.4"], 5), answer("l.1.gz", "l.4"));
        assert_eq!(plan(&["l.1", "l.1.gz", "l.2.tmp"], 5), answer("l.1 l.2.tmp", ""));
        assert_eq!(plan(&["l.1.gz", "l.2"], 2), answer("l.1.gz l.2", ""));
    }

    #[test]
    fn a_compressed_file_takes_the_place_of_its_original() {
        use std::io::Read;
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(folder.path().join("0.log")).unwrap();
        let content = "line\n".repeat(10_000);
        for time in ["20260101-000000", "20260102-000000", "20260103-000000"] {
            std::fs::write(format!("{path}.{time}"), &content).unwrap();
        }
        std::fs::write(&path, "new\n").unwrap();
        make_room(&path, 4).unwrap();
        let left: Vec<String> = {
            let mut left: Vec<String> = folder
                .path()
                .read_dir()
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            left
        };
        assert_eq!(left, ["0.log", "0.log.20260102-000000.gz", "0.log.20260103-000000.gz"]);
        let packed = File::open(format!("{path}.20260103-000000.gz")).unwrap();
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, content);
    }
}
