//! Frames: bytes of a connection to what they mean, and back.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

pub use super::headers::Headers;
use super::headers::{Compressor, Decompressor};
use crate::stream::CHUNK_BYTES_MAX;

/// Most bytes of a control frame. Data frames are taken in pieces, whatever their length.
const CONTROL_BYTES_MAX: usize = 64 << 10;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const HEADER_BYTES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading a SPDY frame")]
    Read(#[source] io::Error),
    #[error("the connection ended inside a SPDY frame")]
    Truncated,
    #[error("a SPDY frame of version {0}; this is version 3")]
    Version(u16),
    #[error("{0} bytes of a SPDY control frame or its headers; at most 65536 are read")]
    TooLarge(usize),
    #[error("a SPDY frame of kind {kind} with {length} bytes")]
    Malformed { kind: u16, length: usize },
    #[error("headers of a SPDY frame do not decompress")]
    Compression,
    #[error("headers of a SPDY frame are malformed")]
    Headers,
}

/// A frame that Kubernetes uses; or a piece of one that carries data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    Headers {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    Data {
        id: u32,
        fin: bool,
        bytes: Bytes,
    },
    RstStream {
        id: u32,
        status: u32,
    },
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    /// Settings, windows, and kinds that nobody knows: of no consequence here.
    Other(u16),
}

mod kind {
    pub(super) const SYN_STREAM: u16 = 1;
    pub(super) const SYN_REPLY: u16 = 2;
    pub(super) const RST_STREAM: u16 = 3;
    pub(super) const PING: u16 = 6;
    pub(super) const GO_AWAY: u16 = 7;
    pub(super) const HEADERS: u16 = 8;
}

/// Frames to bytes.
pub struct Encoder(Compressor);

impl Default for Encoder {
    fn default() -> Self {
        Self(Compressor::new())
    }
}

impl Encoder {
    /// Appends a frame. Kinds that are never sent ([`Frame::Other`]) are nothing.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), Error> {
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let block = self.0.compress(headers)?;
                control(out, kind::SYN_STREAM, *fin, 10 + block.len());
                out.put_u32(*id);
                // Associated with no other stream, of the highest priority.
                out.put_bytes(0, 6);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => {
                self.with_headers(out, kind::SYN_REPLY, *id, *fin, headers)?
            }
            Frame::Headers { id, fin, headers } => {
                self.with_headers(out, kind::HEADERS, *id, *fin, headers)?
            }
            Frame::Data { id, fin, bytes } => {
                out.put_u32(id & 0x7fff_ffff);
                out.put_u8(if *fin { FLAG_FIN } else { 0 });
                out.put_uint(bytes.len() as u64, 3);
                out.put_slice(bytes);
            }
            Frame::RstStream { id, status } => {
                control(out, kind::RST_STREAM, false, 8);
                out.put_u32(*id);
                out.put_u32(*status);
            }
            Frame::Ping(id) => {
                control(out, kind::PING, false, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last, status } => {
                control(out, kind::GO_AWAY, false, 8);
                out.put_u32(*last);
                out.put_u32(*status);
            }
            Frame::Other(_) => {}
        }
        Ok(())
    }

    fn with_headers(
        &mut self,
        out: &mut BytesMut,
        kind: u16,
        id: u32,
        fin: bool,
        headers: &[(String, String)],
    ) -> Result<(), Error> {
        let block = self.0.compress(headers)?;
        control(out, kind, fin, 4 + block.len());
        out.put_u32(id);
        out.put_slice(&block);
        Ok(())
    }
}

fn control(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u8(if fin { FLAG_FIN } else { 0 });
    out.put_uint(length as u64, 3);
}

/// The rest of a data frame that is being read.
struct Rest {
    id: u32,
    fin: bool,
    bytes: usize,
}

/// Bytes to frames.
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    headers: Decompressor,
    rest: Option<Rest>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(from: R) -> Self {
        Self { from, buffer: BytesMut::new(), headers: Decompressor::new(), rest: None }
    }

    /// The next frame, or piece of a data frame; `None` where the connection ended between two. Loses nothing when it
    /// is cancelled.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(frame) = self.parse()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(CHUNK_BYTES_MAX);
            if self.from.read_buf(&mut self.buffer).await.map_err(Error::Read)? == 0 {
                let between = self.buffer.is_empty() && self.rest.is_none();
                return if between { Ok(None) } else { Err(Error::Truncated) };
            }
        }
    }

    fn parse(&mut self) -> Result<Option<Frame>, Error> {
        if let Some(rest) = &mut self.rest {
            let length = rest.bytes.min(self.buffer.len()).min(CHUNK_BYTES_MAX);
            if length == 0 && rest.bytes > 0 {
                return Ok(None);
            }
            rest.bytes -= length;
            let (id, last) = (rest.id, rest.bytes == 0);
            let fin = last && rest.fin;
            if last {
                self.rest = None;
            }
            return Ok(Some(Frame::Data { id, fin, bytes: self.buffer.split_to(length).freeze() }));
        }
        let Some(mut header) = self.buffer.get(..HEADER_BYTES) else { return Ok(None) };
        let word = header.get_u32();
        let fin = header.get_u8() & FLAG_FIN != 0;
        let length = header.get_uint(3) as usize;
        if word & 0x8000_0000 == 0 {
            self.buffer.advance(HEADER_BYTES);
            self.rest = Some(Rest { id: word, fin, bytes: length });
            return self.parse();
        }
        let version = (word >> 16) as u16 & 0x7fff;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(Error::TooLarge(length));
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let body = self.buffer.split_to(length);
        self.control(word as u16, fin, body).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: BytesMut) -> Result<Frame, Error> {
        let length = body.len();
        let wanted = match kind {
            kind::SYN_STREAM => 10,
            kind::SYN_REPLY | kind::HEADERS | kind::PING => 4,
            kind::RST_STREAM | kind::GO_AWAY => 8,
            _ => return Ok(Frame::Other(kind)),
        };
        if length < wanted {
            return Err(Error::Malformed { kind, length });
        }
        let number = body.get_u32();
        let id = number & 0x7fff_ffff;
        Ok(match kind {
            kind::SYN_STREAM => {
                body.advance(6);
                Frame::SynStream { id, fin, headers: self.headers.decompress(&body)? }
            }
            kind::SYN_REPLY => Frame::SynReply { id, fin, headers: self.headers.decompress(&body)? },
            kind::HEADERS => Frame::Headers { id, fin, headers: self.headers.decompress(&body)? },
            kind::RST_STREAM => Frame::RstStream { id, status: body.get_u32() },
            kind::GO_AWAY => Frame::GoAway { last: id, status: body.get_u32() },
            _ => Frame::Ping(number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Headers {
        vec![("streamtype".to_owned(), "stdin".to_owned())]
    }

    async fn read_all(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
        let mut reader = FrameReader::new(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[tokio::test]
    async fn what_is_written_is_read_again_as_the_same() {
        let frames = vec![
            Frame::SynStream { id: 1, fin: false, headers: headers() },
            Frame::SynStream { id: 3, fin: true, headers: headers() },
            Frame::SynReply { id: 1, fin: false, headers: vec![] },
            Frame::Headers { id: 1, fin: false, headers: headers() },
            Frame::Data { id: 1, fin: false, bytes: Bytes::from_static(b"abc") },
            Frame::Data { id: 1, fin: true, bytes: Bytes::new() },
            Frame::RstStream { id: 3, status: 5 },
            Frame::Ping(7),
            Frame::GoAway { last: 3, status: 0 },
        ];
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        for frame in &frames {
            encoder.encode(frame, &mut bytes).unwrap();
        }
        assert_eq!(read_all(&bytes).await.unwrap(), frames);
    }

    #[tokio::test]
    async fn a_large_data_frame_comes_in_pieces_and_ends_once() {
        let mut bytes = BytesMut::new();
        let data = Bytes::from(vec![7; 3 * CHUNK_BYTES_MAX + 5]);
        Encoder::default()
            .encode(&Frame::Data { id: 9, fin: true, bytes: data.clone() }, &mut bytes)
            .unwrap();
        let mut all = Vec::new();
        let mut fins = Vec::new();
        for frame in read_all(&bytes).await.unwrap() {
            let Frame::Data { id: 9, fin, bytes } = frame else { panic!("{frame:?}") };
            assert!(bytes.len() <= CHUNK_BYTES_MAX);
            all.extend_from_slice(&bytes);
            fins.push(fin);
        }
        assert_eq!(all, data);
        assert_eq!(fins.iter().filter(|fin| **fin).count(), 1);
        assert_eq!(fins.last(), Some(&true));
    }

    #[tokio::test]
    async fn settings_and_windows_are_passed_over() {
        let mut bytes = BytesMut::new();
        control(&mut bytes, 4, false, 4);
        bytes.put_u32(0);
        control(&mut bytes, 9, false, 8);
        bytes.put_u64(1);
        Encoder::default().encode(&Frame::Ping(1), &mut bytes).unwrap();
        assert_eq!(read_all(&bytes).await.unwrap(), [Frame::Other(4), Frame::Other(9), Frame::Ping(1)]);
    }

    #[tokio::test]
    async fn broken_frames_are_named() {
        assert!(matches!(read_all(&[0x80, 2, 0, 1, 0, 0, 0, 0]).await, Err(Error::Version(2))));
        assert!(matches!(read_all(&[0x80, 3, 0, 1, 0, 0xff, 0, 0]).await, Err(Error::TooLarge(_))));
        assert!(matches!(
            read_all(&[0x80, 3, 0, 6, 0, 0, 0, 0]).await,
            Err(Error::Malformed { kind: 6, length: 0 })
        ));
        assert!(matches!(read_all(&[0, 0, 0, 1, 0, 0, 0, 9, b'x']).await, Err(Error::Truncated)));
        assert!(matches!(read_all(&[0x80]).await, Err(Error::Truncated)));
    }
}
