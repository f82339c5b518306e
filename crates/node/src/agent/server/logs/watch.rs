//! Who waits for a log to grow: one inotify instance for all, since a machine has few of them.
//!
//! Directories are watched, not files: rotation is a matter of names. What happened is not told, only that something
//! did; who waits looks for itself.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use camino::Utf8Path;
use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

/// Events that are read at once.
const BUFFER_BYTES: usize = 4096;

/// The directories that somebody waits for. Dropping it wakes them.
pub struct Watches {
    shared: Arc<Shared>,
    _reading: DropGuard,
}

struct Shared {
    inotify: AsyncFd<OwnedFd>,
    /// By the kernel's number for a directory.
    directories: Mutex<HashMap<i32, Directory>>,
}

struct Directory {
    changes: watch::Sender<()>,
    users: usize,
}

impl Watches {
    pub fn new() -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; an OwnedFd is open for as long as it is registered"
        )]
        let inotify = AsyncFd::new(descriptor)?;
        let shared = Arc::new(Shared { inotify, directories: Mutex::default() });
        let shutdown = rt::Shutdown::new();
        let (ended, reading) = (shutdown.clone(), shared.clone());
        rt::spawn("log watches", async move {
            let result = tokio::select! {
                () = ended.cancelled() => Ok(()),
                result = reading.read() => result,
            };
            if let Err(error) = result {
                tracing::error!(%error, "Changes of containers' logs are not seen any more");
            }
            reading.directories.lock().clear();
        });
        Ok(Self { shared, _reading: shutdown.drop_guard() })
    }

    /// Watches a directory from now on.
    pub fn watch(&self, directory: &Utf8Path) -> io::Result<Watch> {
        let wanted = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::ONLYDIR;
        // Under the lock, so that nobody takes away what was just added.
        let mut directories = self.shared.directories.lock();
        let number = inotify::add_watch(&self.shared.inotify, directory.as_std_path(), wanted)?;
        let entry = directories
            .entry(number)
            .or_insert_with(|| Directory { changes: watch::channel(()).0, users: 0 });
        entry.users += 1;
        let changes = entry.changes.subscribe();
        Ok(Watch { shared: self.shared.clone(), number, changes })
    }
}

impl Shared {
    async fn read(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => self.tell(event.wd(), event.events()),
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
        }
    }

    fn tell(&self, number: i32, what: ReadFlags) {
        let mut directories = self.directories.lock();
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            // Somebody's change was lost.
            for directory in directories.values() {
                directory.changes.send_replace(());
            }
        } else if what.contains(ReadFlags::IGNORED) {
            // It is gone; dropping the sender tells.
            directories.remove(&number);
        } else if let Some(directory) = directories.get(&number) {
            directory.changes.send_replace(());
        }
    }
}

/// Sees what changes in one directory.
pub struct Watch {
    shared: Arc<Shared>,
    number: i32,
    changes: watch::Receiver<()>,
}

impl Watch {
    /// Returns when something changed since the last call, or since the watch began; false when nothing more will be
    /// seen.
    pub async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut directories = self.shared.directories.lock();
        let Some(directory) = directories.get_mut(&self.number) else { return };
        directory.users -= 1;
        if directory.users == 0 {
            directories.remove(&self.number);
            // It fails where the directory is gone, which is as well.
            let _ = inotify::remove_watch(&self.shared.inotify, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use camino::Utf8PathBuf;

    use super::*;

    #[tokio::test]
    async fn everybody_who_watches_a_directory_sees_its_changes() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |folder: &tempfile::TempDir| Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
        let watches = Watches::new().unwrap();
        let mut first = watches.watch(&path(&one)).unwrap();
        let mut second = watches.watch(&path(&one)).unwrap();
        let mut elsewhere = watches.watch(&path(&other)).unwrap();
        std::fs::write(one.path().join("x"), "1").unwrap();
        assert!(first.changed().await && second.changed().await);
        drop(second);
        std::fs::write(one.path().join("x"), "2").unwrap();
        assert!(first.changed().await, "who is left goes on watching");
        assert!(rt::timeout(Duration::from_millis(50), elsewhere.changed()).await.is_err());
        // The end of a directory is the end of its watch.
        drop(other);
        assert!(!elsewhere.changed().await);
        drop(elsewhere);
        drop(watches);
        while first.changed().await {}
    }
}
