//! Documents about what is served, as they are answered.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use flate2::read::GzDecoder;
use parking_lot::Mutex;

use crate::http::body::ResponseBody;
use crate::http::compress;

/// Documents that are longer are kept compressed: they are a tenth as long then, and nearly all clients take them so.
const PLAIN_BYTES_MAX: usize = 32 << 10;

/// A long document is unpacked in pieces of about this size.
const PIECE_BYTES: usize = 128 << 10;

/// A rendered discovery or OpenAPI document.
#[derive(Clone)]
pub struct Document {
    pub content_type: &'static str,
    /// In quotes.
    pub etag: Arc<str>,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Plain(Bytes),
    Gzip(Bytes),
}

impl Document {
    pub fn new(content_type: &'static str, bytes: Bytes) -> Self {
        let etag = format!("\"{}\"", digest(&bytes)).into();
        let content =
            if bytes.len() > PLAIN_BYTES_MAX { Content::Gzip(packed(&bytes)) } else { Content::Plain(bytes) };
        Self { content_type, etag, content }
    }

    /// The content's digest, which is its ETag without the quotes.
    pub fn hash(&self) -> &str {
        self.etag.trim_matches('"')
    }

    pub fn bytes(&self) -> Bytes {
        match &self.content {
            Content::Plain(bytes) => bytes.clone(),
            Content::Gzip(packed) => unpacking(packed.clone()).collect::<Vec<_>>().concat().into(),
        }
    }

    /// The content for a client that does not take it compressed; a long one is unpacked while the client reads.
    pub fn body(&self) -> ResponseBody {
        match &self.content {
            Content::Plain(bytes) => ResponseBody::full(bytes.clone()),
            Content::Gzip(packed) => {
                ResponseBody::Stream(Box::pin(futures::stream::iter(unpacking(packed.clone()))))
            }
        }
    }

    /// The content as it is kept, if that is compressed.
    pub fn gzip(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Plain(_) => None,
            Content::Gzip(packed) => Some(packed),
        }
    }
}

/// Documents by a key of their maker's, each made on first use.
#[derive(Default)]
pub struct Documents(Mutex<HashMap<String, Document>>);

impl Documents {
    pub fn get(&self, key: &str, content_type: &'static str, make: impl FnOnce() -> Bytes) -> Document {
        if let Some(document) = self.0.lock().get(key) {
            return document.clone();
        }
        // Made without the lock: it takes a while, and two who make the same do no harm.
        let document = Document::new(content_type, make());
        self.0.lock().entry(key.to_owned()).or_insert(document).clone()
    }
}

fn packed(bytes: &[u8]) -> Bytes {
    let mut encoder = compress::encoder();
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail").into()
}

fn unpacking(packed: Bytes) -> impl Iterator<Item = Bytes> + Send {
    let mut decoder = GzDecoder::new(packed.reader());
    std::iter::from_fn(move || {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let whole = decoder.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        whole.expect("it was packed by us");
        (!piece.is_empty()).then(|| piece.into())
    })
}

/// A short name for content, in the form of upstream's ETags.
fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let hash = ring::digest::digest(&ring::digest::SHA512, bytes);
    hash.as_ref().iter().fold(String::with_capacity(128), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_document_is_kept_compressed_and_comes_out_as_it_was() {
        for (length, compressed) in
            [(10, false), (PLAIN_BYTES_MAX, false), (PLAIN_BYTES_MAX + 1, true), (3 * PIECE_BYTES, true)]
        {
            let bytes = Bytes::from(vec![b'x'; length]);
            let document = Document::new("text/plain", bytes.clone());
            assert_eq!((document.bytes(), document.gzip().is_some()), (bytes, compressed), "{length}");
        }
    }
}
