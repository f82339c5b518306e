//! The bytes of one committed write, the same in the journal and in the tables.
//!
//! Owns: the record layout and its checksum. Never touches files, and does not know where a record
//! lies. A record does not hold its own revision, because whoever stores it is keyed by it; the
//! revision seeds the checksum instead, so a record found under the wrong revision reads as damaged.
//!
//! Layout, little endian: checksum `u64` of all that follows · kind `u8` · key length `u16` · value
//! length `u32` · create revision `u64` · key · value.

use storage::EventKind;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const CHECKSUM: usize = 8;
const HEADER: usize = CHECKSUM + 1 + 2 + 4 + 8;

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;

/// What the two-byte key length can say.
pub(crate) const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Ten times what a Kubernetes API server accepts as one object, and far below the four-byte length.
pub(crate) const VALUE_BYTES_MAX: usize = 16 << 20;

/// One decoded record, borrowing from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub revision: u64,
    pub kind: EventKind,
    pub created: u64,
    pub key: &'a str,
    pub value: &'a [u8],
    /// All of the record's bytes, for copying it elsewhere.
    pub raw: &'a [u8],
}

/// Appends a record to `out`. Lengths were checked when the write was accepted.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    revision: u64,
    kind: EventKind,
    created: u64,
    key: &str,
    value: &[u8],
) {
    let start = out.len();
    out.reserve(HEADER + key.len() + value.len());
    out.extend_from_slice(&[0; CHECKSUM]);
    out.push(match kind {
        EventKind::Put => KIND_PUT,
        EventKind::Delete => KIND_DELETE,
    });
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(&created.to_le_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value);
    let checksum = xxh3_64_with_seed(&out[start + CHECKSUM..], revision);
    out[start..start + CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

/// Decodes the record at the beginning of `bytes`, which may go on after it.
///
/// # Errors
/// What is wrong with it, for the text of an error that names the file.
pub(crate) fn decode(revision: u64, bytes: &[u8]) -> Result<Record<'_>, &'static str> {
    let header = bytes.get(..HEADER).ok_or("record shorter than its header")?;
    let checksum = u64_at(header, 0);
    let key_length = usize::from(u16::from_le_bytes([header[9], header[10]]));
    let value_length = u32::from_le_bytes([header[11], header[12], header[13], header[14]]) as usize;
    let length = HEADER + key_length + value_length;
    let raw = bytes.get(..length).ok_or("record longer than the bytes that hold it")?;
    if xxh3_64_with_seed(&raw[CHECKSUM..], revision) != checksum {
        return Err("record checksum does not match");
    }
    let kind = match header[CHECKSUM] {
        KIND_PUT => EventKind::Put,
        KIND_DELETE => EventKind::Delete,
        _ => return Err("record of an unknown kind"),
    };
    let key =
        std::str::from_utf8(&raw[HEADER..HEADER + key_length]).map_err(|_| "record key is not UTF-8")?;
    let value = &raw[HEADER + key_length..];
    Ok(Record { revision, kind, created: u64_at(header, 15), key, value, raw })
}

/// Reads eight little-endian bytes; the caller has checked that they are there.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, 7, EventKind::Put, 3, "/registry/pods/default/web", b"value");
        out
    }

    #[test]
    fn a_record_reads_back_as_written_even_with_bytes_after_it() {
        let mut bytes = sample();
        let length = bytes.len();
        bytes.extend_from_slice(b"next record");
        let record = decode(7, &bytes).unwrap();
        assert_eq!(
            (record.kind, record.created, record.key),
            (EventKind::Put, 3, "/registry/pods/default/web")
        );
        assert_eq!(record.value, b"value");
        assert_eq!(record.raw.len(), length);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(7, &damaged).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn a_truncated_record_and_one_under_another_revision_are_refused() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(decode(7, &bytes[..length]).is_err());
        }
        assert_eq!(decode(8, &bytes), Err("record checksum does not match"));
    }
}
