//! Documents about what is served, as they are answered.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use ring::digest;

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
    pub fn new(content_type: &'static str, bytes: &[u8]) -> Self {
        Self::written(content_type, |out| out.write_all(bytes))
    }

    /// A document that is never in memory as a whole unless it is a short one.
    pub fn written(content_type: &'static str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Self {
        let mut out = BufWriter::with_capacity(PLAIN_BYTES_MAX, Packing::default());
        write(&mut out).and_then(|()| out.flush()).expect("writing to memory does not fail");
        let packing = out.into_inner().unwrap_or_else(|_| unreachable!("flushed above"));
        let (etag, content) = packing.finish();
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
    pub fn get(&self, key: &str, make: impl FnOnce() -> Document) -> Document {
        if let Some(document) = self.0.lock().get(key) {
            return document.clone();
        }
        // Made without the lock: it takes a while, and two who make the same do no harm.
        let document = make();
        self.0.lock().entry(key.to_owned()).or_insert(document).clone()
    }
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

/// Takes a document piece by piece, and keeps it compressed if it is long.
struct Packing {
    digest: digest::Context,
    plain: Vec<u8>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Default for Packing {
    fn default() -> Self {
        Self { digest: digest::Context::new(&digest::SHA512), plain: Vec::new(), encoder: None }
    }
}

impl Packing {
    /// The ETag and the content.
    fn finish(self) -> (Arc<str>, Content) {
        let etag = format!("\"{}\"", hex(self.digest.finish().as_ref())).into();
        let content = match self.encoder {
            None => Content::Plain(self.plain.into()),
            Some(encoder) => {
                let mut packed = encoder.finish().expect("writing to memory does not fail");
                packed.shrink_to_fit();
                Content::Gzip(packed.into())
            }
        };
        (etag, content)
    }
}

impl Write for Packing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        match &mut self.encoder {
            Some(encoder) => encoder.write_all(bytes)?,
            None if self.plain.len() + bytes.len() <= PLAIN_BYTES_MAX => self.plain.extend_from_slice(bytes),
            None => {
                let encoder = self.encoder.insert(compress::encoder());
                encoder.write_all(&std::mem::take(&mut self.plain))?;
                encoder.write_all(bytes)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A short name for content, in the form of upstream's ETags.
fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(128), |mut text, byte| {
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
            let document = Document::new("text/plain", &bytes);
            assert_eq!((document.bytes(), document.gzip().is_some()), (bytes, compressed), "{length}");
        }
    }
}
