//! What is around an archive: gzip, zstd or nothing, told by its first bytes.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::{Error, Result};

const BUFFER_BYTES: usize = 256 << 10;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    /// Of what begins like this.
    pub(crate) fn of(start: &[u8]) -> Result<Self> {
        let refused = |name: &str| {
            Err(Error::Invalid(format!(
                "the archive is compressed by {name}; gzip, zstd and none are supported"
            )))
        };
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // A frame, or one that decoders skip.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => refused("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => refused("xz"),
            _ => Ok(Self::Plain),
        }
    }
}

/// The archive itself.
pub(crate) fn decompressed<'a>(archive: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut archive = BufReader::with_capacity(BUFFER_BYTES, archive);
    let compression = Compression::of(archive.fill_buf().map_err(unreadable)?)?;
    Ok(match compression {
        Compression::Plain => Box::new(archive),
        Compression::Gzip => Box::new(MultiGzDecoder::new(archive)),
        Compression::Zstd => {
            Box::new(Frames { source: archive, decoder: FrameDecoder::new(), is_open: false })
        }
    })
}

/// Reads what is left, so that all of it was seen.
pub(crate) fn drain(archive: &mut impl Read, bytes_max: u64) -> Result<()> {
    let read = io::copy(&mut archive.take(bytes_max), &mut io::sink()).map_err(unreadable)?;
    if read == bytes_max {
        return Err(Error::Invalid(format!(
            "the archive goes on for more than {bytes_max} bytes after its end"
        )));
    }
    Ok(())
}

pub(crate) fn unreadable(error: io::Error) -> Error {
    Error::Invalid(format!("the archive cannot be read: {error}"))
}

/// All frames of a zstd stream, one after the other.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    is_open: bool,
}

impl<R: BufRead> Frames<R> {
    /// Opens the next frame that holds something. False at the end.
    fn open(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_open {
                if !self.open()? {
                    return Ok(0);
                }
                self.is_open = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBytes(buffer.len()))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.is_open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn plain(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut read = Vec::new();
        decompressed(bytes)?.read_to_end(&mut read).map_err(unreadable)?;
        Ok(read)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn every_compression_is_undone_also_in_pieces() {
        let long: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        assert_eq!(plain(&long).unwrap(), long);
        assert_eq!(plain(&gzip(&long)).unwrap(), long);
        assert_eq!(plain(&zstd(&long)).unwrap(), long);
        let twice = [&long[..], &long[..]].concat();
        assert_eq!(plain(&[gzip(&long), gzip(&long)].concat()).unwrap(), twice);
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        assert_eq!(plain(&[&skipped[..], &zstd(&long), &skipped[..], &zstd(&long)].concat()).unwrap(), twice);
        assert_eq!(plain(b"").unwrap(), b"");
    }

    #[test]
    fn what_breaks_off_or_is_unknown_is_refused() {
        let bytes = vec![7; 10_000];
        for (archive, problem) in [
            (gzip(&bytes)[..20].to_vec(), "cannot be read"),
            (zstd(&bytes)[..12].to_vec(), "cannot be read"),
            (b"BZh91AY".to_vec(), "bzip2"),
            (b"\xfd7zXZ\0".to_vec(), "xz"),
        ] {
            let error = plain(&archive).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
