//! New sizes of a terminal, as a client sends them: one JSON object after the other.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;

use crate::StreamReader;

/// Most bytes of one size; it is two short numbers.
const SIZE_BYTES_MAX: usize = 1024;

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// The sizes of a client's terminal, the first one soon after the start.
#[derive(Debug)]
pub struct Resizes {
    from: StreamReader,
    buffer: BytesMut,
}

impl Resizes {
    pub(crate) fn new(from: StreamReader) -> Self {
        Self { from, buffer: BytesMut::new() }
    }

    /// The next size; `None` when there will be no more, or none that can be read. Loses nothing when it is cancelled.
    pub async fn next(&mut self) -> Option<Size> {
        loop {
            match parse(&self.buffer) {
                Ok(Some((size, length))) => {
                    self.buffer.advance(length);
                    return Some(size);
                }
                Ok(None) if self.buffer.len() <= SIZE_BYTES_MAX => {}
                Ok(None) | Err(_) => {
                    tracing::debug!("Client sent something else than a terminal's size");
                    return None;
                }
            }
            if self.from.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The first size and how many bytes it takes; `None` where it is not all there.
fn parse(bytes: &[u8]) -> Result<Option<(Size, usize)>, serde_json::Error> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<serde_json::Value>();
    match values.next() {
        None => Ok(None),
        Some(Err(error)) if error.is_eof() => Ok(None),
        Some(Err(error)) => Err(error),
        Some(Ok(value)) => {
            let size = Size { width: side(&value, "width")?, height: side(&value, "height")? };
            Ok(Some((size, values.byte_offset())))
        }
    }
}

/// Go writes `Width` and reads any case.
fn side(value: &serde_json::Value, name: &str) -> Result<u16, serde_json::Error> {
    let fields = value.as_object();
    let field = fields.and_then(|fields| fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)));
    match field {
        None => Ok(0),
        Some((_, number)) => number
            .as_u64()
            .and_then(|number| u16::try_from(number).ok())
            .ok_or_else(|| serde_json::Error::io(io::ErrorKind::InvalidData.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Chunk;

    #[tokio::test]
    async fn sizes_are_read_wherever_they_are_cut() {
        let (sender, reader) = StreamReader::new();
        let mut sizes = Resizes::new(reader);
        for part in ["{\"Width\":80,\"Hei", "ght\":24}\n{\"width\":100,\"height\":50}", "\n"] {
            sender.send(Chunk::Data(part.into())).await.unwrap();
        }
        assert_eq!(sizes.next().await, Some(Size { width: 80, height: 24 }));
        assert_eq!(sizes.next().await, Some(Size { width: 100, height: 50 }));
        sender.send(Chunk::End).await.unwrap();
        assert_eq!(sizes.next().await, None);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        assert!(parse(b"{\"Width\":70000}").is_err());
        assert!(parse(b"{\"Width\":-1}").is_err());
        assert!(parse(b"hello").is_err());
        assert_eq!(parse(b"{\"Width\":7").unwrap(), None);
        assert_eq!(parse(b"").unwrap(), None);
    }
}
