//! Watches: a line for each event, read while they come.

use apimachinery::{Status, Value};
use bytes::{Bytes, BytesMut};
use client::{WatchEvent, WatchStream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use webhook::Client;

use crate::answer::{failure, object, open, revision_of};
use crate::request::Request;

/// An event holds an object, and no object is larger.
const LINE_BYTES_MAX: usize = 16 << 20;

pub(crate) async fn start(client: &Client, request: Request) -> Result<WatchStream, Status> {
    let (head, body) = open(client, request).await?.into_parts();
    if !head.status.is_success() {
        let said = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(failure(head.status, "GET", &said, None));
    }
    let lines = Lines { body, buffer: BytesMut::new(), searched: 0 };
    Ok(Box::pin(futures::stream::unfold(Some(lines), |lines| async {
        let mut lines = lines?;
        match lines.next().await {
            Ok(None) => None,
            Ok(Some(line)) => match event(&line) {
                Ok(event) => Some((Ok(event), Some(lines))),
                Err(status) => Some((Err(status), None)),
            },
            Err(status) => Some((Err(status), None)),
        }
    })))
}

fn event(line: &[u8]) -> Result<WatchEvent, Status> {
    let mut event =
        Value::parse(line).map_err(|error| Status::internal(format!("reading an event: {error}")))?;
    let subject = event.get_mut("object").map(Value::take).unwrap_or_default();
    match event.str_at(&["type"]) {
        "ADDED" => object(subject).map(WatchEvent::Added),
        "MODIFIED" => object(subject).map(WatchEvent::Modified),
        "DELETED" => object(subject).map(WatchEvent::Deleted),
        "BOOKMARK" => Ok(WatchEvent::Bookmark(revision_of(&subject))),
        "ERROR" => {
            Err(Status::from_value(&subject).unwrap_or_else(|| Status::internal(subject.to_json_string())))
        }
        other => Err(Status::internal(format!("an event is of the unknown type {other:?}"))),
    }
}

struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// No line ends before this.
    searched: usize,
}

impl Lines {
    /// The next line without its end; `None` when the server closed the stream.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                return Ok(Some(line.slice(..line.len() - 1)));
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(Status::too_large(format!("an event is larger than {LINE_BYTES_MAX} bytes")));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| Status::unavailable(format!("reading a watch: {error}")))?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
