//! Tags, varints and lengths: protobuf without any message.
//!
//! Every read is checked against the end of its message; nothing here allocates on behalf of a length it was told.

use super::error::{Error, Fault};

/// Wire types, as [`Fault::OtherWireType`] names them.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const FIXED32: u8 = 5;

/// The largest field number of protobuf.
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// One field's value as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32,
}

/// The fields of one message.
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number of the next field and its value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Payload<'b>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = match tag >> 3 {
            0 => return Err(Fault::FieldNumber(0)),
            number if number > FIELD_NUMBER_MAX => return Err(Fault::FieldNumber(number)),
            number => number as u32,
        };
        let payload = match (tag & 7) as u8 {
            VARINT => Payload::Varint(self.varint()?),
            FIXED64 => Payload::Fixed64(u64::from_le_bytes(self.array()?)),
            BYTES => {
                let length = self.varint()?;
                Payload::Bytes(self.take(usize::try_from(length).map_err(|_| Fault::Truncated)?)?)
            }
            FIXED32 => {
                self.array::<4>()?;
                Payload::Fixed32
            }
            other => return Err(Fault::WireType(other)),
        };
        Ok(Some((number, payload)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (at, &byte) in self.rest.iter().enumerate() {
            if at == 9 && byte > 1 {
                return Err(Fault::Overflow);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Fault::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

impl<'b> Payload<'b> {
    pub(super) fn varint(self) -> Result<u64, Fault> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(Fault::OtherWireType { found: other.wire_type(), wanted: VARINT }),
        }
    }

    pub(super) fn double(self) -> Result<f64, Fault> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => Err(Fault::OtherWireType { found: other.wire_type(), wanted: FIXED64 }),
        }
    }

    pub(super) fn bytes(self) -> Result<&'b [u8], Fault> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(Fault::OtherWireType { found: other.wire_type(), wanted: BYTES }),
        }
    }

    fn wire_type(self) -> u8 {
        match self {
            Self::Varint(_) => VARINT,
            Self::Fixed64(_) => FIXED64,
            Self::Bytes(_) => BYTES,
            Self::Fixed32 => FIXED32,
        }
    }
}

// === writing ===

pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    write_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// Negative numbers take ten bytes, as in Go.
pub(super) fn write_int(out: &mut Vec<u8>, number: u32, value: i64) {
    write_tag(out, number, VARINT);
    write_varint(out, value as u64);
}

pub(super) fn write_double(out: &mut Vec<u8>, number: u32, value: f64) {
    write_tag(out, number, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn write_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    write_length(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes the beginning of a field of bytes that follow.
pub(super) fn write_length(out: &mut Vec<u8>, number: u32, length: usize) {
    write_tag(out, number, BYTES);
    write_varint(out, length as u64);
}

/// Writes a field whose length is known only afterwards. One byte is kept for it; most messages need no more, and
/// for the others the content moves a little.
pub(super) fn write_delimited(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    write_tag(out, number, BYTES);
    let start = out.len();
    out.push(0);
    write(out)?;
    let mut length = out.len() - start - 1;
    if length < 0x80 {
        out[start] = length as u8;
        return Ok(());
    }
    out[start] = length as u8 | 0x80;
    length >>= 7;
    let mut at = start + 1;
    while length >= 0x80 {
        out.insert(at, length as u8 | 0x80);
        length >>= 7;
        at += 1;
    }
    out.insert(at, length as u8);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_all_sizes_read_back() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 70_000, 3_000_000] {
            let mut out = Vec::new();
            write_delimited(&mut out, 5, |out| {
                out.resize(out.len() + length, 7);
                Ok(())
            })
            .unwrap();
            let mut plain = Vec::new();
            write_bytes(&mut plain, 5, &vec![7; length]);
            assert!(out == plain, "length {length}");
            let (number, payload) = Reader::new(&out).next().unwrap().unwrap();
            assert_eq!((number, payload.bytes().unwrap().len()), (5, length));
        }
    }

    #[test]
    fn varints_end_where_64_bits_end() {
        let read = |bytes: &[u8]| Reader::new(bytes).varint();
        for value in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(read(&out), Ok(value));
        }
        assert_eq!(read(&[0x80]), Err(Fault::Truncated));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(Fault::Overflow));
        assert_eq!(read(&[0x80; 20]), Err(Fault::Overflow));
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        let next = |bytes: &'static [u8]| Reader::new(bytes).next().unwrap_err();
        assert_eq!(next(&[0x0b]), Fault::WireType(3));
        assert_eq!(next(&[0x0c]), Fault::WireType(4));
        assert_eq!(next(&[0x00, 0x00]), Fault::FieldNumber(0));
        assert_eq!(next(&[0x0a, 0x05, 0x01]), Fault::Truncated);
    }
}
