//! Blocks of headers: names and values, compressed over the whole life of a connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::dictionary;
use super::frame::Error;

/// Names in lower case; several values of one name are separated by NUL.
pub type Headers = Vec<(String, String)>;

/// Most bytes of a block, decompressed. Kubernetes sends four short headers.
const BLOCK_BYTES_MAX: usize = 64 << 10;

pub(super) struct Compressor(Compress);

impl Compressor {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&dictionary()).expect("nothing was compressed yet");
        Self(compress)
    }

    pub(super) fn compress(&mut self, headers: &[(String, String)]) -> Result<Vec<u8>, Error> {
        let mut block = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        let start = self.0.total_in();
        let mut out = Vec::with_capacity(block.len() + 64);
        loop {
            let rest = &block[(self.0.total_in() - start) as usize..];
            self.0.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(|_| Error::Compression)?;
            // Room that is left means that all went out.
            if out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

pub(super) struct Decompressor(Decompress);

impl Decompressor {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn decompress(&mut self, compressed: &[u8]) -> Result<Headers, Error> {
        let start = self.0.total_in();
        let mut block = Vec::with_capacity(1024);
        loop {
            let rest = &compressed[(self.0.total_in() - start) as usize..];
            let done = self.0.decompress_vec(rest, &mut block, FlushDecompress::Sync);
            if let Err(error) = done {
                let wanted = error.needs_dictionary().ok_or(Error::Compression)?;
                let ours = self.0.set_dictionary(&dictionary()).map_err(|_| Error::Compression)?;
                if wanted != ours {
                    return Err(Error::Compression);
                }
                continue;
            }
            if block.len() < block.capacity() {
                return parse(&block);
            }
            if block.len() >= BLOCK_BYTES_MAX {
                return Err(Error::TooLarge(block.len()));
            }
            block.reserve(block.len());
        }
    }
}

fn parse(block: &[u8]) -> Result<Headers, Error> {
    let mut rest = block;
    let count = take_u32(&mut rest)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = take_text(&mut rest)?.to_ascii_lowercase();
        headers.push((name, take_text(&mut rest)?));
    }
    Ok(headers)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, Error> {
    let (number, after) = rest.split_first_chunk().ok_or(Error::Headers)?;
    *rest = after;
    Ok(u32::from_be_bytes(*number))
}

fn take_text(rest: &mut &[u8]) -> Result<String, Error> {
    let length = take_u32(rest)? as usize;
    let (text, after) = rest.split_at_checked(length).ok_or(Error::Headers)?;
    *rest = after;
    String::from_utf8(text.to_vec()).map_err(|_| Error::Headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> Headers {
        vec![("streamtype".to_owned(), value.to_owned()), ("port".to_owned(), "80".to_owned())]
    }

    #[test]
    fn blocks_of_one_connection_are_read_in_the_order_they_were_written() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        let long = "x".repeat(5000);
        for value in ["error", "stdin", &long, ""] {
            let block = compressor.compress(&headers(value)).unwrap();
            assert_eq!(decompressor.decompress(&block).unwrap(), headers(value));
        }
    }

    #[test]
    fn a_block_that_swells_or_lies_is_refused() {
        let bomb = Compressor::new().compress(&headers(&"x".repeat(200_000))).unwrap();
        assert!(bomb.len() < 2000);
        assert!(matches!(Decompressor::new().decompress(&bomb), Err(Error::TooLarge(_))));
        assert!(matches!(Decompressor::new().decompress(b"not zlib"), Err(Error::Compression)));
        assert!(matches!(parse(&[0, 0, 0, 1, 0, 0, 0, 9, b'x']), Err(Error::Headers)));
        assert!(matches!(parse(&[0xff; 4]), Err(Error::Headers)), "the count is not believed");
        assert!(matches!(parse(b""), Err(Error::Headers)));
    }
}
