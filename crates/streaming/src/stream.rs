//! One stream of a connection, as a reader and a writer.
//!
//! Both ends hang on bounded queues: a reader on its own, filled by whoever reads the connection; all writers of a
//! connection on one, emptied by whoever writes it, so that the order of what was written is the order on the wire.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Most bytes of one chunk, in both directions.
pub const CHUNK_BYTES_MAX: usize = 32 << 10;

/// So many chunks of one stream wait for its reader.
pub const CHUNKS_MAX: usize = 8;

/// So many items of a whole connection wait to be written.
pub(crate) const OUTGOING_MAX: usize = 8;

/// What goes out on a connection, before it is a frame or a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// A stream that the client opened is accepted.
    Reply(u32),
    Data(u32, Bytes),
    /// No more data on this stream.
    End(u32),
    /// This stream is refused, for a reason of SPDY's.
    Reset(u32, u32),
    Pong(u32),
    /// The server is done with this stream, and nobody cares what the client still sends on it. It takes its turn behind
    /// what was said on the stream before.
    Forget(u32),
    /// All is said.
    Finish,
}

#[derive(Debug)]
pub(crate) enum Chunk {
    Data(Bytes),
    End,
}

/// What the client sends on one stream.
#[derive(Debug)]
pub struct StreamReader {
    chunks: mpsc::Receiver<Chunk>,
    current: Bytes,
    ended: bool,
}

impl StreamReader {
    /// A reader and what fills it.
    pub(crate) fn new() -> (mpsc::Sender<Chunk>, Self) {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        (sender, Self { chunks, current: Bytes::new(), ended: false })
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() && !self.ended {
            match ready!(self.chunks.poll_recv(ctx)) {
                Some(Chunk::Data(bytes)) => self.current = bytes,
                Some(Chunk::End) => self.ended = true,
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let length = self.current.len().min(to.remaining());
        to.put_slice(&self.current[..length]);
        self.current.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// What the server sends on one stream. `shutdown` ends the stream; dropping it does not.
#[derive(Debug)]
pub struct StreamWriter {
    id: u32,
    queue: PollSender<Outgoing>,
    /// The client wants no more of it.
    reset: Arc<AtomicBool>,
}

impl StreamWriter {
    pub(crate) fn new(id: u32, queue: mpsc::Sender<Outgoing>, reset: Arc<AtomicBool>) -> Self {
        Self { id, queue: PollSender::new(queue), reset }
    }

    fn poll_send(
        &mut self,
        ctx: &mut Context<'_>,
        item: impl FnOnce(u32) -> Outgoing,
    ) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let sent = ready!(self.queue.poll_reserve(ctx)).and_then(|()| self.queue.send_item(item(self.id)));
        Poll::Ready(sent.map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let length = bytes.len().min(CHUNK_BYTES_MAX);
        let data = &bytes[..length];
        ready!(self.poll_send(ctx, |id| Outgoing::Data(id, Bytes::copy_from_slice(data))))?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(ctx, Outgoing::End)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_reader_tells_the_end_from_a_lost_connection() {
        let (sender, mut reader) = StreamReader::new();
        sender.send(Chunk::Data(Bytes::from_static(b"abc"))).await.unwrap();
        sender.send(Chunk::End).await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "abc");
        drop(sender);
        assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 0, "an end stays one");

        let (sender, mut reader) = StreamReader::new();
        drop(sender);
        assert_eq!(reader.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_writer_waits_for_room_and_fails_after_a_reset() {
        let (queue, mut outgoing) = mpsc::channel(1);
        let reset = Arc::new(AtomicBool::new(false));
        let mut writer = StreamWriter::new(5, queue, reset.clone());
        let written = writer.write(&[0; CHUNK_BYTES_MAX + 1]).await.unwrap();
        assert_eq!(written, CHUNK_BYTES_MAX);
        assert!(futures::poll!(std::pin::pin!(writer.write(b"x"))).is_pending(), "the queue is full");
        assert!(matches!(outgoing.recv().await, Some(Outgoing::Data(5, _))));
        writer.shutdown().await.unwrap();
        assert_eq!(outgoing.recv().await, Some(Outgoing::End(5)));
        reset.store(true, Ordering::Relaxed);
        assert_eq!(writer.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
