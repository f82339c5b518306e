//! [`Watch`]: waits for changes in the folder of networks' configurations.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use camino::Utf8Path;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Events that are read at once.
const BUFFER_BYTES: usize = 4096;

/// Sees what changes in one folder; what it was is not told.
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    pub fn new(folder: &Utf8Path) -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let wanted = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::CREATE
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&descriptor, folder.as_std_path(), wanted)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; an OwnedFd is open for as long as it is registered"
        )]
        AsyncFd::new(descriptor).map(Self)
    }

    /// Returns when something changed since the last call, or since the watch began.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
