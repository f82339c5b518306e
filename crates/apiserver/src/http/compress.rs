//! Gzip of large answers, as upstream's `APIResponseCompression`.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};

use super::body::ResponseBody;

/// Answers shorter than this are not worth it; upstream's threshold.
const COMPRESS_BYTES_MIN: usize = 128 << 10;

/// Compresses an answer when the client takes gzip and the answer is large.
pub fn maybe(response: Response<ResponseBody>, request: &HeaderMap) -> Response<ResponseBody> {
    if !accepts_gzip(request) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = match body {
        ResponseBody::Full(Some(bytes)) if bytes.len() >= COMPRESS_BYTES_MIN => {
            let mut chunks = [bytes].into_iter();
            gzip(move || chunks.next())
        }
        ResponseBody::List(mut list) => {
            let Some(first) = list.next_chunk() else {
                return Response::from_parts(parts, ResponseBody::empty());
            };
            let second = list.next_chunk();
            match second {
                None if first.len() < COMPRESS_BYTES_MIN => {
                    return Response::from_parts(parts, ResponseBody::full(first));
                }
                second => {
                    let mut head = std::iter::once(first).chain(second);
                    gzip(move || head.next().or_else(|| list.next_chunk()))
                }
            }
        }
        other => return Response::from_parts(parts, other),
    };
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, body)
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    let accepted =
        request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

/// Compresses chunk by chunk as the client reads, at level 1: on this kind of JSON higher levels cost much and save
/// little.
fn gzip(mut next: impl FnMut() -> Option<Bytes> + Send + 'static) -> ResponseBody {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::new(1)));
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
