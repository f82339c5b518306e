//! A container's log as it is, or as it grows.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use camino::{Utf8Path, Utf8PathBuf};
use runtime::{ContainerEventKind, ContainerState, SharedRuntime};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{broadcast, mpsc};

use super::line::{Selection, Writer};
use super::tail;
use super::watch::{Watch, Watches};

/// Bytes that are read from a file at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes that are handed on at once, more or less.
const CHUNK_BYTES: usize = 32 << 10;

/// Most bytes of a line. Runtimes cut at 16 KiB; what is longer is no log.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Events drive; this makes sure.
const RESYNC: Duration = Duration::from_secs(5);

/// What a reader wants of a log.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub selection: Selection,
    pub tail_lines: Option<u64>,
}

/// A container whose log is handed on until it ends.
pub struct Follow {
    pub runtime: SharedRuntime,
    pub container: String,
    pub watches: Arc<Watches>,
}

/// A log that is open, at the place where its reader begins.
pub struct Log {
    path: Utf8PathBuf,
    lines: Lines,
    writer: Writer,
}

impl Log {
    pub async fn open(path: &Utf8Path, wanted: Wanted) -> io::Result<Self> {
        let opened = path.to_owned();
        let opening = move || {
            let file = std::fs::File::open(&opened)?;
            let start = match wanted.tail_lines {
                Some(lines) => tail::start(&file, lines)?,
                None => 0,
            };
            Ok::<_, io::Error>((file, start, Writer::new(wanted.selection)))
        };
        let (file, start, writer) =
            tokio::task::spawn_blocking(opening).await.map_err(io::Error::other)??;
        let mut file = File::from_std(file);
        file.seek(io::SeekFrom::Start(start)).await?;
        Ok(Self { path: path.to_owned(), lines: Lines::new(file).await?, writer })
    }

    /// Hands the log on; with `follow`, until its container has ended and all was read. Ends early when nobody wants
    /// more.
    pub async fn copy(mut self, follow: Option<Follow>, to: mpsc::Sender<Bytes>) -> io::Result<()> {
        let mut following = match follow {
            None => None,
            // Before the first byte is read, so that no change is missed.
            Some(follow) => Some(Following::start(follow, &self.path).await?),
        };
        loop {
            // Asked before the rest is read: what a container that has ended wrote is all there.
            let ended = following.as_ref().is_none_or(|following| following.ended);
            if self.drain(&to).await?.is_break() {
                return Ok(());
            }
            let Some(following) = &mut following else { return self.finish(&to).await };
            if let Some(file) = self.successor().await? {
                // What was written between the end of the file and the change of its name.
                if self.drain(&to).await?.is_break() {
                    return Ok(());
                }
                self.lines = Lines::new(file).await?;
                continue;
            }
            if ended {
                return self.finish(&to).await;
            }
            tokio::select! {
                () = following.changed() => {}
                () = to.closed() => return Ok(()),
            }
        }
    }

    /// Hands on all whole lines that are there.
    async fn drain(&mut self, to: &mpsc::Sender<Bytes>) -> io::Result<ControlFlow<()>> {
        let mut out = Vec::new();
        loop {
            let more = self.lines.fill().await?;
            while let Some(line) = self.lines.next() {
                let done = self.writer.push(&line, &mut out);
                if out.len() >= CHUNK_BYTES || done.is_break() {
                    let chunk = std::mem::take(&mut out);
                    if to.send(chunk.into()).await.is_err() || done.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            if !more {
                let sent = out.is_empty() || to.send(out.into()).await.is_ok();
                return Ok(if sent { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
            }
        }
    }

    /// Hands on a last line that has no end.
    async fn finish(&mut self, to: &mpsc::Sender<Bytes>) -> io::Result<()> {
        let mut out = Vec::new();
        let rest = std::mem::take(&mut self.lines.buffer);
        let _ = self.writer.push(&rest, &mut out);
        if !out.is_empty() {
            let _ = to.send(out.into()).await;
        }
        Ok(())
    }

    /// The file that took this one's name, if there is one.
    async fn successor(&self) -> io::Result<Option<File>> {
        let file = match File::open(&self.path).await {
            Ok(file) => file,
            // Between the change of its name and the new file; or the container was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let same = identity(&file).await? == self.lines.identity;
        Ok((!same).then_some(file))
    }
}

async fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata().await?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The lines of a file that may grow.
struct Lines {
    file: File,
    identity: (u64, u64),
    buffer: BytesMut,
    /// No end of a line is before this place.
    searched: usize,
    /// A line that was too long is passed over to its end.
    skipping: bool,
}

impl Lines {
    async fn new(file: File) -> io::Result<Self> {
        let identity = identity(&file).await?;
        Ok(Self { file, identity, buffer: BytesMut::new(), searched: 0, skipping: false })
    }

    /// Reads on; false at the end of the file.
    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.file.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next whole line, without its end.
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(found) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                if self.searched > LINE_BYTES_MAX {
                    tracing::warn!(bytes_max = LINE_BYTES_MAX, "A line of a container's log is too long");
                    self.skipping = true;
                }
                if self.skipping {
                    self.buffer.clear();
                    self.searched = 0;
                }
                return None;
            };
            let mut line = self.buffer.split_to(self.searched + found + 1);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            line.truncate(line.len() - 1);
            return Some(line.freeze());
        }
    }
}

/// Waits for more of a log.
struct Following {
    follow: Follow,
    watch: Watch,
    events: broadcast::Receiver<runtime::ContainerEvent>,
    ended: bool,
}

impl Following {
    async fn start(follow: Follow, path: &Utf8Path) -> io::Result<Self> {
        let events = follow.runtime.events();
        let watch = follow.watches.watch(path.parent().unwrap_or(path))?;
        let mut following = Self { follow, watch, events, ended: false };
        following.look().await;
        Ok(following)
    }

    /// Returns when the log may have grown, or its container ended.
    async fn changed(&mut self) {
        let id = &self.follow.container;
        let ended = async {
            loop {
                match self.events.recv().await {
                    Ok(event) if event.container_id != *id || event.kind != ContainerEventKind::Exited => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                }
            }
        };
        tokio::select! {
            seen = self.watch.changed() => {
                if seen {
                    return;
                }
                // The directory is gone, and the log with it.
                self.ended = true;
                return;
            }
            () = ended => {}
            () = rt::sleep(RESYNC) => {}
        }
        self.look().await;
    }

    async fn look(&mut self) {
        match self.follow.runtime.container_status(&self.follow.container).await {
            Ok(status) => self.ended = status.state != ContainerState::Running,
            Err(runtime::Error::NotFound(_)) => self.ended = true,
            // Not known: what follows goes on.
            Err(error) => tracing::debug!(%error, "Is a container whose log is followed running?"),
        }
    }
}

#[cfg(test)]
mod tests;
