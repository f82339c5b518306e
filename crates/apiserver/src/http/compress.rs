//! Gzip of large answers, as upstream's `APIResponseCompression`.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};

use super::body::ResponseBody;

/// Answers shorter than this are not worth it; upstream's threshold.
const COMPRESS_BYTES_MIN: usize = 128 << 10;

/// Compresses an answer that is large. One that comes from another server or goes on for ever stays as it is.
pub fn large(response: Response<ResponseBody>) -> Response<ResponseBody> {
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let (body, compressed) = large_body(body);
    if compressed {
        parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Response::from_parts(parts, body)
}

/// The body as it is sent, and whether that is compressed.
fn large_body(body: ResponseBody) -> (ResponseBody, bool) {
    match body {
        ResponseBody::Full(Some(bytes)) if bytes.len() >= COMPRESS_BYTES_MIN => {
            let mut chunks = [bytes].into_iter();
            (gzip(move || chunks.next()), true)
        }
        ResponseBody::List(mut list) => {
            let Some(first) = list.next_chunk() else { return (ResponseBody::empty(), false) };
            let second = list.next_chunk();
            if second.is_none() && first.len() < COMPRESS_BYTES_MIN {
                return (ResponseBody::full(first), false);
            }
            let mut head = std::iter::once(first).chain(second);
            (gzip(move || head.next().or_else(|| list.next_chunk())), true)
        }
        ResponseBody::Holding(body, place) => {
            let (body, compressed) = large_body(*body);
            (body.holding(place), compressed)
        }
        other => (other, false),
    }
}

/// Whether a client takes answers in gzip.
pub fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted =
        request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

/// Gzip at level 1: on this kind of JSON higher levels cost much and save little.
pub fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::new(1))
}

/// Compresses chunk by chunk as the client reads.
fn gzip(mut next: impl FnMut() -> Option<Bytes> + Send + 'static) -> ResponseBody {
    let mut encoder = Some(encoder());
    ResponseBody::Stream(Box::pin(futures::stream::iter(std::iter::from_fn(move || {
        loop {
            match next() {
                Some(chunk) => {
                    let writer = encoder.as_mut()?;
                    // Writing to memory does not fail.
                    let _ = writer.write_all(&chunk);
                    if !writer.get_ref().is_empty() {
                        return Some(Bytes::from(std::mem::take(writer.get_mut())));
                    }
                }
                None => return encoder.take()?.finish().ok().map(Bytes::from),
            }
        }
    }))))
}
