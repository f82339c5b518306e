//! Bodies: read with a limit, written as they are pulled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apimachinery::object::Form;
use apimachinery::{Object, Status};
use bytes::Bytes;
use futures::Stream;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::in_flight::Place;
use super::recording::Recording;

/// Largest request body: upstream's `MaxRequestBodyBytes`, 3 MiB.
pub const REQUEST_BODY_BYTES_MAX: usize = 3 << 20;

/// A body has this long to arrive: whoever is slower keeps a place that others need.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// A list is written in pieces of about this size, so that memory does not grow with the list: 128 KiB fills eight
/// TLS records.
const LIST_CHUNK_BYTES: usize = 128 << 10;

/// A response body.
pub enum ResponseBody {
    /// All of it.
    Full(Option<Bytes>),
    /// Stored objects between a header and a footer, copied while the client reads.
    List(ListBody),
    /// Frames as they happen (watch, compressed lists).
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// Another server's answer, as it arrives; counted as long as it does.
    Forwarded(Incoming, telemetry::InFlight),
    /// One whose request's record is complete when all of it is written.
    Recorded(Box<ResponseBody>, Recording),
    /// One whose request is counted as being served until all of it is written.
    Holding(Box<ResponseBody>, Place),
}

impl ResponseBody {
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }

    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// Keeps the request's place until the body is written. One that is there already needs it no longer.
    pub fn holding(self, place: Place) -> Self {
        match self {
            Self::Full(_) => self,
            body => Self::Holding(Box::new(body), place),
        }
    }

    /// Keeps the request's record open until the body is written.
    pub fn recorded(self, recording: Recording) -> Self {
        Self::Recorded(Box::new(self), recording)
    }

    /// With all of a list in memory, for the audit log.
    pub fn collected(self) -> Self {
        match self {
            Self::List(list) => Self::full(list.collect()),
            Self::Holding(body, place) => body.collected().holding(place),
            body => body,
        }
    }

    /// The bytes of a body that is there as a whole.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Full(bytes) => bytes.as_ref(),
            _ => None,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    /// Only another server's answer can break off; the client must then not take what it has for all of it.
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let chunk = match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take()),
            Self::List(list) => Poll::Ready(list.next_chunk()),
            Self::Stream(stream) => stream.as_mut().poll_next(cx),
            Self::Forwarded(body, _) => return Pin::new(body).poll_frame(cx),
            Self::Holding(body, _) => return Pin::new(&mut **body).poll_frame(cx),
            Self::Recorded(body, _) => return Pin::new(&mut **body).poll_frame(cx),
        };
        chunk.map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Forwarded(body, _) => body.is_end_stream(),
            Self::List(_) | Self::Stream(_) => false,
            Self::Holding(body, _) => body.is_end_stream(),
            Self::Recorded(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Forwarded(body, _) => body.size_hint(),
            Self::Holding(body, _) => body.size_hint(),
            Self::Recorded(body, _) => body.size_hint(),
            Self::List(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Writes a list object by object. Holds only references, so a list of any size costs one chunk; or, where the
/// encoding needs all of it first, hands out what is written already.
pub struct ListBody(Source);

enum Source {
    Objects {
        header: Option<Vec<u8>>,
        objects: std::vec::IntoIter<Arc<Object>>,
        any: bool,
        item: Item,
        done: bool,
    },
    Written(std::vec::IntoIter<Vec<u8>>),
}

/// How an object becomes an item.
pub enum Item {
    /// As it is stored, without `apiVersion` and `kind` or with these.
    Stored(Option<Bytes>),
    /// In another form.
    Other(WriteItem),
}

type WriteItem = Box<dyn FnMut(&Object, &mut Vec<u8>) + Send>;

impl ListBody {
    /// `header` ends with the opening bracket of the items.
    pub fn new(header: Vec<u8>, objects: Vec<Arc<Object>>, item: Item) -> Self {
        let objects = objects.into_iter();
        Self(Source::Objects { header: Some(header), objects, any: false, item, done: false })
    }

    pub fn written(pieces: Vec<Vec<u8>>) -> Self {
        Self(Source::Written(pieces.into_iter()))
    }

    /// Everything at once, for small lists.
    pub fn collect(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next_chunk() {
            all.extend_from_slice(&chunk);
        }
        all
    }

    pub fn next_chunk(&mut self) -> Option<Bytes> {
        let (header, objects, any, item, done) = match &mut self.0 {
            Source::Written(pieces) => return pieces.next().map(Bytes::from),
            Source::Objects { header, objects, any, item, done } => (header, objects, any, item, done),
        };
        if *done {
            return None;
        }
        let mut chunk = header.take().unwrap_or_default();
        chunk.reserve(LIST_CHUNK_BYTES);
        while chunk.len() < LIST_CHUNK_BYTES {
            let Some(object) = objects.next() else {
                chunk.extend_from_slice(b"]}\n");
                *done = true;
                break;
            };
            if std::mem::replace(any, true) {
                chunk.push(b',');
            }
            match item {
                Item::Stored(Some(type_meta)) => object.write(Form::As(type_meta), &mut chunk),
                Item::Stored(None) => object.write(Form::ListItem, &mut chunk),
                Item::Other(write) => write(&object, &mut chunk),
            }
        }
        Some(chunk.into())
    }
}

/// Reads a request's body up to the limit.
pub async fn read(body: Incoming) -> Result<Bytes, Status> {
    let limited = http_body_util::Limited::new(body, REQUEST_BODY_BYTES_MAX);
    let Ok(collected) = rt::timeout(REQUEST_BODY_TIMEOUT, limited.collect()).await else {
        return Err(Status::new(408, "Timeout", "the request's body did not arrive in time"));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Status::too_large(format!("limit is {REQUEST_BODY_BYTES_MAX}")))
        }
        Err(error) => Err(Status::bad_request(format!("reading the request body: {error}"))),
    }
}
