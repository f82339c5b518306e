//! A connection on which the client opens streams.
//!
//! Reading, writing and the handler are polled by one task, so a connection ends as a whole. Streams that both sides
//! are done with are forgotten at once: a forwarded port may see a million of them on one connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::frame::{Encoder, Frame, FrameReader, Headers};
use super::reset;
use crate::activity::Activity;
use crate::stream::{Chunk, OUTGOING_MAX, Outgoing, StreamReader, StreamWriter};
use crate::{GOODBYE, Limits};

/// Streams that are open at once; more are refused.
const STREAMS_MAX: usize = 16 << 10;

/// Opened streams that wait for the handler to look at them.
const ACCEPTED_MAX: usize = 4;

/// Bytes of frames that are put together before they are written.
const WRITE_BYTES: usize = 64 << 10;

/// A stream that the client opened.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub id: u32,
    pub headers: Headers,
    pub reader: StreamReader,
    pub writer: StreamWriter,
}

impl Accepted {
    /// The value of a header; names are in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a handler has of a connection.
pub(crate) struct Handle {
    pub accepted: mpsc::Receiver<Accepted>,
    pub outgoing: mpsc::Sender<Outgoing>,
}

/// What is known of an open stream. Its reader, and whether both sides may still send.
struct Open {
    chunks: Option<mpsc::Sender<Chunk>>,
    reset: Arc<AtomicBool>,
    ended_here: bool,
}

#[derive(Clone, Default)]
struct Streams(Arc<Mutex<HashMap<u32, Open>>>);

impl Streams {
    /// The client sends no more on this stream; returns who is to be told.
    fn end_there(&self, id: u32) -> Option<mpsc::Sender<Chunk>> {
        let mut streams = self.0.lock();
        let open = streams.get_mut(&id)?;
        let chunks = open.chunks.take();
        if open.ended_here {
            streams.remove(&id);
        }
        chunks
    }

    /// The server sends no more on this stream; false where it had said so before.
    fn end_here(&self, id: u32) -> bool {
        let mut streams = self.0.lock();
        let Some(open) = streams.get_mut(&id) else { return false };
        let first = !std::mem::replace(&mut open.ended_here, true);
        if open.chunks.is_none() {
            streams.remove(&id);
        }
        first
    }

    fn chunks(&self, id: u32) -> Option<mpsc::Sender<Chunk>> {
        self.0.lock().get(&id)?.chunks.clone()
    }
}

/// Serves a connection until `handler` returns, the client leaves, or a limit is met. What the handler wrote by then
/// is sent if the client takes it.
pub(crate) async fn serve<T, H, F>(transport: T, limits: &Limits, handler: H)
where
    T: AsyncRead + AsyncWrite + Send,
    H: FnOnce(Handle) -> F,
    F: Future<Output = ()>,
{
    let (read, write) = tokio::io::split(transport);
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let (accept, accepted) = mpsc::channel(ACCEPTED_MAX);
    let (streams, activity) = (Streams::default(), Activity::new());
    let incoming = Incoming { streams: streams.clone(), outgoing: outgoing.clone(), accept, last: 0 };
    let mut reading = std::pin::pin!(incoming.run(FrameReader::new(read), activity.clone()));
    let mut writing = std::pin::pin!(write_all(write, queue, streams.clone(), activity.clone()));
    let handling = handler(Handle { accepted, outgoing: outgoing.clone() });
    tokio::select! {
        () = handling => {}
        () = &mut reading => return tracing::debug!("Client left a SPDY connection"),
        () = &mut writing => return tracing::debug!("Client of a SPDY connection takes no more"),
        () = activity.idle(limits.idle_timeout) => return tracing::info!("Closed an idle SPDY connection"),
        () = limits.shutdown.cancelled() => return,
    }
    // All was queued. The connection is read to its end: what a closed socket had not read would turn into a reset,
    // which can overtake the last words.
    let finish = async { tokio::join!(outgoing.send(Outgoing::Finish), &mut writing) };
    let goodbye = async { tokio::join!(finish, &mut reading) };
    let _ = rt::timeout(GOODBYE, goodbye).await;
}

struct Incoming {
    streams: Streams,
    outgoing: mpsc::Sender<Outgoing>,
    accept: mpsc::Sender<Accepted>,
    /// The highest stream that the client opened.
    last: u32,
}

impl Incoming {
    async fn run<R: AsyncRead + Unpin>(mut self, mut frames: FrameReader<R>, activity: Activity) {
        loop {
            match frames.next().await {
                Ok(Some(frame)) => self.take(frame, &activity).await,
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "SPDY connection broke"),
            }
        }
    }

    async fn take(&mut self, frame: Frame, activity: &Activity) {
        match frame {
            Frame::SynStream { id, fin, headers } => self.open(id, fin, headers).await,
            Frame::Data { id, fin, bytes } => {
                activity.touch();
                // Data of streams that are gone are nobody's.
                if !bytes.is_empty()
                    && let Some(chunks) = self.streams.chunks(id)
                {
                    let _ = chunks.send(Chunk::Data(bytes)).await;
                }
                if fin {
                    self.end(id).await;
                }
            }
            Frame::Headers { id, fin: true, .. } | Frame::SynReply { id, fin: true, .. } => {
                self.end(id).await
            }
            Frame::RstStream { id, .. } => {
                if let Some(open) = self.streams.0.lock().remove(&id) {
                    open.reset.store(true, Ordering::Relaxed);
                }
            }
            // Even numbers are answers to pings of ours; there are none.
            Frame::Ping(id) if id % 2 == 1 => self.say(Outgoing::Pong(id)).await,
            _ => {}
        }
    }

    async fn say(&self, item: Outgoing) {
        // Who writes is gone only when all is over.
        let _ = self.outgoing.send(item).await;
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) {
        if id.is_multiple_of(2) || id <= self.last {
            return self.say(Outgoing::Reset(id, reset::PROTOCOL_ERROR)).await;
        }
        self.last = id;
        let (chunks, reader) = StreamReader::new();
        let reset = Arc::new(AtomicBool::new(false));
        if self.streams.0.lock().len() >= STREAMS_MAX || self.accept.is_closed() {
            return self.say(Outgoing::Reset(id, reset::REFUSED_STREAM)).await;
        }
        let open = Open { chunks: Some(chunks), reset: reset.clone(), ended_here: false };
        self.streams.0.lock().insert(id, open);
        self.say(Outgoing::Reply(id)).await;
        if fin {
            self.end(id).await;
        }
        let writer = StreamWriter::new(id, self.outgoing.clone(), reset);
        if self.accept.send(Accepted { id, headers, reader, writer }).await.is_err() {
            self.streams.0.lock().remove(&id);
            self.say(Outgoing::Reset(id, reset::REFUSED_STREAM)).await;
        }
    }

    async fn end(&self, id: u32) {
        if let Some(chunks) = self.streams.end_there(id) {
            let _ = chunks.send(Chunk::End).await;
        }
    }
}

/// Writes what is queued, as much at a time as there is, until [`Outgoing::Finish`].
async fn write_all<W: AsyncWrite + Unpin>(
    mut to: W,
    mut queue: mpsc::Receiver<Outgoing>,
    streams: Streams,
    activity: Activity,
) {
    let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
    let mut finished = false;
    while !finished {
        let Some(mut item) = queue.recv().await else { return };
        loop {
            if matches!(item, Outgoing::Data(..)) {
                activity.touch();
            }
            finished = item == Outgoing::Finish;
            if let Some(frame) = frame(item, &streams)
                && let Err(error) = encoder.encode(&frame, &mut bytes)
            {
                return tracing::debug!(%error, "SPDY connection broke");
            }
            match queue.try_recv() {
                Ok(next) if !finished && bytes.len() < WRITE_BYTES => item = next,
                Ok(next) if !finished => {
                    if let Err(error) = to.write_all_buf(&mut bytes).await {
                        return tracing::debug!(%error, "Writing to a SPDY connection failed");
                    }
                    item = next;
                }
                _ => break,
            }
        }
        let written = async {
            to.write_all_buf(&mut bytes).await?;
            to.flush().await?;
            if finished { to.shutdown().await } else { Ok(()) }
        };
        if let Err(error) = written.await {
            return tracing::debug!(%error, "Writing to a SPDY connection failed");
        }
    }
}

/// What goes out for an item; nothing where the end of a stream was told before.
fn frame(item: Outgoing, streams: &Streams) -> Option<Frame> {
    Some(match item {
        Outgoing::Reply(id) => Frame::SynReply { id, fin: false, headers: Headers::new() },
        Outgoing::Data(id, bytes) => Frame::Data { id, fin: false, bytes },
        Outgoing::End(id) if !streams.end_here(id) => return None,
        Outgoing::End(id) => Frame::Data { id, fin: true, bytes: Bytes::new() },
        Outgoing::Reset(id, status) => {
            streams.0.lock().remove(&id);
            Frame::RstStream { id, status }
        }
        Outgoing::Pong(id) => Frame::Ping(id),
        Outgoing::Forget(id) => {
            streams.0.lock().remove(&id);
            return None;
        }
        Outgoing::Finish => Frame::GoAway { last: 0, status: 0 },
    })
}
