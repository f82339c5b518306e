//! Channels over a WebSocket: the first byte of each message says which one it is for.
//!
//! The number of a channel is fixed by its protocol, so nothing opens them. Up to protocol 4 nothing closes them
//! either; version 5 has a message for that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::activity::Activity;
use crate::stream::{CHUNK_BYTES_MAX, Chunk, OUTGOING_MAX, Outgoing, StreamReader, StreamWriter};
use crate::{GOODBYE, Limits};

/// In place of a channel: the next byte names a channel that ends.
const CLOSE: u8 = 255;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// A byte with the channel's number, then data.
    Binary,
    /// The same, and 255 closes a channel.
    BinaryWithClose,
    /// The channel's number as a digit, then base64.
    Base64,
}

/// What a handler has of a connection.
pub(crate) struct Handle {
    readers: HashMap<u8, StreamReader>,
    pub outgoing: mpsc::Sender<Outgoing>,
}

impl Handle {
    /// What comes on one of the channels that were asked for; once.
    pub(crate) fn reader(&mut self, channel: u8) -> Option<StreamReader> {
        self.readers.remove(&channel)
    }

    pub(crate) fn writer(&self, channel: u8) -> StreamWriter {
        // A channel is not reset, it goes with its connection.
        StreamWriter::new(channel.into(), self.outgoing.clone(), Arc::new(AtomicBool::new(false)))
    }
}

/// Serves a connection until `handler` returns, the client leaves, or a limit is met. What comes on other channels than
/// those of `readable` is dropped.
pub(crate) async fn serve<T, H, F>(
    socket: WebSocketStream<T>,
    encoding: Encoding,
    readable: &[u8],
    limits: &Limits,
    handler: H,
) where
    T: AsyncRead + AsyncWrite + Unpin,
    H: FnOnce(Handle) -> F,
    F: Future<Output = ()>,
{
    let (sink, messages) = socket.split();
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let activity = Activity::new();
    let (senders, readers) = readable
        .iter()
        .map(|channel| {
            let (sender, reader) = StreamReader::new();
            ((*channel, sender), (*channel, reader))
        })
        .unzip();
    let mut reading = std::pin::pin!(read_all(messages, encoding, senders, activity.clone()));
    let mut writing = std::pin::pin!(write_all(sink, encoding, queue, activity.clone()));
    let handling = handler(Handle { readers, outgoing: outgoing.clone() });
    tokio::select! {
        () = handling => {}
        () = &mut reading => return tracing::debug!("Client left a WebSocket"),
        () = &mut writing => return tracing::debug!("Client of a WebSocket takes no more"),
        () = activity.idle(limits.idle_timeout) => return tracing::info!("Closed an idle WebSocket"),
        () = limits.shutdown.cancelled() => return,
    }
    let finish = async { tokio::join!(outgoing.send(Outgoing::Finish), &mut writing) };
    let goodbye = async { tokio::join!(finish, &mut reading) };
    let _ = rt::timeout(GOODBYE, goodbye).await;
}

async fn read_all<T: AsyncRead + AsyncWrite + Unpin>(
    mut messages: SplitStream<WebSocketStream<T>>,
    encoding: Encoding,
    mut channels: HashMap<u8, mpsc::Sender<Chunk>>,
    activity: Activity,
) {
    while let Some(message) = messages.next().await {
        let payload = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Close(_)) => return,
            // Pings are answered by the library.
            Ok(_) => continue,
            Err(error) => return tracing::debug!(%error, "WebSocket broke"),
        };
        activity.touch();
        match decode(encoding, payload) {
            Ok(Some(Received::Data(channel, mut data))) => {
                if let Some(sender) = channels.get(&channel) {
                    while !data.is_empty() {
                        let piece = data.split_to(data.len().min(CHUNK_BYTES_MAX));
                        let _ = sender.send(Chunk::Data(piece)).await;
                    }
                }
            }
            Ok(Some(Received::End(channel))) => {
                if let Some(sender) = channels.remove(&channel) {
                    let _ = sender.send(Chunk::End).await;
                }
            }
            Ok(None) => {}
            Err(error) => return tracing::debug!(%error, "Client sent something else than base64"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Received {
    Data(u8, Bytes),
    End(u8),
}

fn decode(encoding: Encoding, mut payload: Bytes) -> Result<Option<Received>, base64::DecodeError> {
    if payload.is_empty() {
        return Ok(None);
    }
    let first = payload.split_to(1)[0];
    Ok(match encoding {
        Encoding::BinaryWithClose if first == CLOSE => payload.first().map(|channel| Received::End(*channel)),
        Encoding::Binary | Encoding::BinaryWithClose => Some(Received::Data(first, payload)),
        Encoding::Base64 if first.is_ascii_digit() => {
            Some(Received::Data(first - b'0', STANDARD.decode(payload)?.into()))
        }
        Encoding::Base64 => None,
    })
}

fn encode(encoding: Encoding, channel: u8, data: &[u8]) -> Message {
    match encoding {
        Encoding::Binary | Encoding::BinaryWithClose => {
            let mut message = BytesMut::with_capacity(1 + data.len());
            message.put_u8(channel);
            message.put_slice(data);
            Message::Binary(message.freeze())
        }
        Encoding::Base64 => {
            let mut message = char::from(b'0' + channel % 10).to_string();
            STANDARD.encode_string(data, &mut message);
            Message::Text(message.into())
        }
    }
}

/// Writes what is queued, until [`Outgoing::Finish`], which is a normal close.
async fn write_all<T: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    encoding: Encoding,
    mut queue: mpsc::Receiver<Outgoing>,
    activity: Activity,
) {
    while let Some(item) = queue.recv().await {
        let finished = item == Outgoing::Finish;
        let message = match item {
            Outgoing::Data(channel, data) => {
                activity.touch();
                encode(encoding, channel as u8, &data)
            }
            Outgoing::Finish => {
                Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Default::default() }))
            }
            // No protocol has a word for the end of what the server sends on a channel.
            Outgoing::End(_)
            | Outgoing::Reply(_)
            | Outgoing::Reset(..)
            | Outgoing::Pong(_)
            | Outgoing::Forget(_) => continue,
        };
        if let Err(error) = sink.send(message).await {
            return tracing::debug!(%error, "Writing to a WebSocket failed");
        }
        if finished {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_for_the_channel_that_they_name() {
        let data = |channel, data: &'static [u8]| Some(Received::Data(channel, Bytes::from_static(data)));
        let cases: [(Encoding, &[u8], Option<Received>); 9] = [
            (Encoding::Binary, b"\x00abc", data(0, b"abc")),
            (Encoding::Binary, b"\x04", data(4, b"")),
            (Encoding::Binary, b"\xff\x00", data(255, b"\0")),
            (Encoding::Binary, b"", None),
            (Encoding::BinaryWithClose, b"\xff\x00", Some(Received::End(0))),
            (Encoding::BinaryWithClose, b"\xff", None),
            (Encoding::Base64, b"0YWJj", data(0, b"abc")),
            (Encoding::Base64, b"4", data(4, b"")),
            (Encoding::Base64, b"xYWJj", None),
        ];
        for (encoding, payload, wanted) in cases {
            assert_eq!(decode(encoding, Bytes::from_static(payload)).unwrap(), wanted, "{payload:?}");
        }
        assert!(decode(Encoding::Base64, Bytes::from_static(b"0!!!")).is_err());
        assert_eq!(encode(Encoding::Base64, 1, b"abc"), Message::Text("1YWJj".into()));
        assert_eq!(encode(Encoding::Binary, 1, b"abc"), Message::Binary(Bytes::from_static(b"\x01abc")));
    }
}
