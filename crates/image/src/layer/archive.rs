//! Tar, as a stream, in the dialects that images are made of: ustar, GNU and PAX.
//!
//! The crate `tar` reads these too, but splits PAX records at line ends, which file capabilities contain, and takes as
//! much memory for a header as the header asks for. It is what writes archives here.

use std::io::{self, Read};

use super::compression::unreadable;
use crate::{Error, Result};

const BLOCK_BYTES: usize = 512;
/// Of long names, and of PAX records for one file.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Pieces of one sparse file.
const SEGMENTS_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Folder,
    Fifo,
    /// What no file comes of.
    Ignored,
}

/// A file as an archive describes it. Nothing of it is to be trusted.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Of the file, as it is to be.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the bytes that follow belong, by offset and length; `None` where that is all of it.
    pub(crate) segments: Option<Vec<(u64, u64)>>,
}

/// The entries of an archive, one after the other; the content of the last one is read from it.
pub(crate) struct Archive<R> {
    source: R,
    /// Bytes of the current entry that were not read.
    left: u64,
    /// What fills its last block.
    padding: u64,
}

/// Records of a PAX header.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_version: (u64, u64),
    /// Offsets and lengths by turns.
    sparse_map: Option<Vec<u64>>,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0 }
    }

    /// The next entry; what was not read of the one before is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut pax: Option<Pax> = None;
        let (mut long_path, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return if pax.is_some() || long_path.is_some() || long_link.is_some() {
                    Err(invalid("it ends where a file should follow"))
                } else {
                    Ok(None)
                };
            };
            match header.0[156] {
                b'x' => pax = Some(parse_pax(&self.extension(&header)?)?),
                b'L' => long_path = Some(text(&self.extension(&header)?).to_vec()),
                b'K' => long_link = Some(text(&self.extension(&header)?).to_vec()),
                _ => return self.entry(&header, pax.unwrap_or_default(), long_path, long_link).map(Some),
            }
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(invalid("it breaks off")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header(block);
        header.check()?;
        Ok(Some(header))
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = header.number(124..136)?;
        if size > EXTENSION_BYTES_MAX {
            return Err(invalid("a header is longer than 1 MiB"));
        }
        self.expect(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    fn entry(
        &mut self,
        header: &Header,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let path = pax.path.or(long_path).unwrap_or_else(|| header.path());
        let link = pax.link.or(long_link).unwrap_or_else(|| text(&header.0[157..257]).to_vec());
        let kind = match header.0[156] {
            b'0' | 0 if path.ends_with(b"/") => Kind::Folder,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            b'g' => Kind::Ignored,
            other => return Err(invalid(&format!("an entry has type {:?}", char::from(other)))),
        };
        let stored = match pax.size {
            Some(size) => size,
            None => header.number(124..136)?,
        };
        // What has no content has none whatever its size says, as everybody else reads it.
        let stored = if matches!(kind, Kind::File | Kind::Ignored) { stored } else { 0 };
        self.expect(stored);
        let mut entry = Entry {
            path,
            kind,
            link,
            mode: (header.number(100..108)? & 0o7777) as u32,
            uid: pax.uid.map_or_else(|| header.number(108..116), Ok)?,
            gid: pax.gid.map_or_else(|| header.number(116..124), Ok)?,
            modified: match pax.modified {
                Some(modified) => modified,
                None => (i64::try_from(header.number(136..148)?).unwrap_or(i64::MAX), 0),
            },
            size: stored,
            device: (0, 0),
            xattrs: pax.xattrs,
            segments: None,
        };
        if matches!(kind, Kind::Character | Kind::Block) {
            let part =
                |number: u64| u32::try_from(number).map_err(|_| invalid("a device has no such number"));
            entry.device = (part(header.number(329..337)?)?, part(header.number(337..345)?)?);
        }
        if header.0[156] == b'S' {
            let map = self.old_sparse_map(header)?;
            entry.size = header.number(483..495)?;
            entry.segments = Some(map);
        } else if pax.sparse_version == (1, 0) && kind == Kind::File {
            entry.segments = Some(self.sparse_map_in_content()?);
            entry.size = pax.sparse_size.ok_or_else(|| invalid("a sparse file has no size"))?;
        } else if let Some(map) = pax.sparse_map
            && kind == Kind::File
        {
            entry.segments = Some(pairs(&map)?);
            entry.size = pax.sparse_size.ok_or_else(|| invalid("a sparse file has no size"))?;
        }
        if let Some(segments) = &entry.segments {
            if let Some(name) = pax.sparse_name {
                entry.path = name;
            }
            check_segments(segments, entry.size, self.left)?;
        }
        Ok(entry)
    }

    /// GNU's first form: some pieces in the header, more in blocks after it.
    fn old_sparse_map(&mut self, header: &Header) -> Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        let mut add = |block: &Header, from: usize, count: usize| -> Result<()> {
            for start in (0..count).map(|index| from + 24 * index) {
                if block.0[start] == 0 {
                    break;
                }
                map.push((block.number(start..start + 12)?, block.number(start + 12..start + 24)?));
            }
            if map.len() > SEGMENTS_MAX {
                return Err(invalid("a sparse file has too many pieces"));
            }
            Ok(())
        };
        add(header, 386, 4)?;
        let mut more = header.0[482] == 1;
        while more {
            let mut block = Header([0; BLOCK_BYTES]);
            // These blocks lie before the content and are not part of its size.
            self.source.read_exact(&mut block.0).map_err(unreadable)?;
            add(&block, 0, 21)?;
            more = block.0[504] == 1;
        }
        Ok(map)
    }

    /// PAX' form 1.0: numbers in lines, filled up to a block, before the content.
    fn sparse_map_in_content(&mut self) -> Result<Vec<(u64, u64)>> {
        let broken = || invalid("the map of a sparse file is broken");
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted: Option<usize> = None;
        let mut line = Vec::new();
        loop {
            let mut block = [0; BLOCK_BYTES];
            self.read_exact(&mut block).map_err(unreadable)?;
            for byte in block {
                if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(broken());
                    }
                    continue;
                }
                let number = decimal(&line).ok_or_else(broken)?;
                line.clear();
                match wanted {
                    None if number > SEGMENTS_MAX as u64 => return Err(broken()),
                    None => wanted = Some(2 * number as usize),
                    Some(_) => numbers.push(number),
                }
            }
            if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                return pairs(&numbers);
            }
        }
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
    }

    fn skip(&mut self) -> Result<()> {
        let rest = u128::from(self.left) + u128::from(self.padding);
        let rest = u64::try_from(rest).map_err(|_| invalid("an entry is larger than any"))?;
        let skipped = io::copy(&mut (&mut self.source).take(rest), &mut io::sink()).map_err(unreadable)?;
        // Some tools leave the last block's rest out.
        if skipped < self.left {
            return Err(invalid("it breaks off"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// The content of the current entry.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.source.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it breaks off"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

struct Header([u8; BLOCK_BYTES]);

impl Header {
    fn check(&self) -> Result<()> {
        let said = self.number(148..156).ok().and_then(|said| i64::try_from(said).ok());
        let sum = |add: fn(u8) -> i64| -> i64 {
            let bytes = self.0[..148].iter().chain(&self.0[156..]);
            bytes.map(|byte| add(*byte)).sum::<i64>() + 8 * i64::from(b' ')
        };
        // Old tools add bytes with their signs.
        let sums = [sum(i64::from), sum(|byte| i64::from(byte.cast_signed()))];
        if said.is_some_and(|said| sums.contains(&said)) {
            Ok(())
        } else {
            Err(invalid("a header's checksum is wrong; is it a tar archive?"))
        }
    }

    /// Octal digits, or the number itself where the first bit is set.
    fn number(&self, field: std::ops::Range<usize>) -> Result<u64> {
        let bytes = &self.0[field];
        if bytes[0] & 0x80 != 0 {
            if bytes[0] == 0xff {
                return Err(invalid("a number is negative"));
            }
            let mut number = u64::from(bytes[0] & 0x7f);
            for byte in &bytes[1..] {
                number = number
                    .checked_mul(256)
                    .map(|number| number | u64::from(*byte))
                    .ok_or_else(|| invalid("a number is too large"))?;
            }
            return Ok(number);
        }
        let digits = text(bytes).trim_ascii();
        let digit = |number: u64, byte: &u8| match byte {
            b'0'..=b'7' => Some(number * 8 + u64::from(byte - b'0')),
            _ => None,
        };
        // Twelve digits of three bits fit.
        digits.iter().try_fold(0, digit).ok_or_else(|| invalid("a number has other digits than octal ones"))
    }

    fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// `length key=value\n`, where the length counts all of it.
fn parse_pax(mut rest: &[u8]) -> Result<Pax> {
    let broken = || invalid("a PAX header is broken");
    let mut pax = Pax::default();
    while !rest.is_empty() && rest[0] != 0 {
        let space = rest.iter().take(21).position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length =
            decimal(&rest[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(broken)?;
        if length <= space + 1 || length > rest.len() {
            return Err(broken());
        }
        let (record, after) = rest.split_at(length);
        rest = after;
        let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let number = || decimal(value).ok_or_else(broken);
        match key {
            b"path" => pax.path = Some(value.to_vec()),
            b"linkpath" => pax.link = Some(value.to_vec()),
            b"size" => pax.size = Some(number()?),
            b"uid" => pax.uid = Some(number()?),
            b"gid" => pax.gid = Some(number()?),
            b"mtime" => pax.modified = Some(parse_time(value).ok_or_else(broken)?),
            b"GNU.sparse.major" => pax.sparse_version.0 = number()?,
            b"GNU.sparse.minor" => pax.sparse_version.1 = number()?,
            b"GNU.sparse.name" => pax.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => pax.sparse_size = Some(number()?),
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(decimal).collect();
                pax.sparse_map = Some(numbers.ok_or_else(broken)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                pax.sparse_map.get_or_insert_default().push(number()?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    pax.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(pax)
}

/// Seconds since 1970, perhaps with a sign and a fraction.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<(u64, u64)>> {
    if !numbers.len().is_multiple_of(2) || numbers.len() > 2 * SEGMENTS_MAX {
        return Err(invalid("the map of a sparse file is broken"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Pieces come in order, do not overlap, lie in the file, and are as long as what follows.
fn check_segments(segments: &[(u64, u64)], size: u64, content: u64) -> Result<()> {
    let (mut end, mut total) = (0, 0_u64);
    for (offset, length) in segments {
        let after = offset.checked_add(*length).filter(|after| *offset >= end && *after <= size);
        end = after.ok_or_else(|| invalid("the pieces of a sparse file do not fit"))?;
        total += length;
    }
    if total == content { Ok(()) } else { Err(invalid("a sparse file has other content than pieces")) }
}

fn invalid(problem: &str) -> Error {
    Error::Invalid(format!("the archive cannot be read: {problem}"))
}
