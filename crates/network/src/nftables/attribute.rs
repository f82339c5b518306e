//! Netlink attributes: written into a growing buffer, and read back.
//!
//! Owns: lengths, padding and nesting. Never touches: what an attribute means.

/// Marks an attribute that holds others.
const NESTED: u16 = 0x8000;
/// The bits of a type that are its number.
const TYPE_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 4;

/// A buffer of attributes. Integers of netfilter are in network byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// An attribute with these bytes, padded to four. What does not fit an attribute is our own mistake: names are
    /// short and lists are cut before.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let len =
            u16::try_from(HEADER_LEN + value.len()).expect("attributes are cut to 64 KiB by their writers");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    pub fn put_u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    pub fn put_u16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_be_bytes());
    }

    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub fn put_u64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A string with the zero that the kernel wants at its end.
    pub fn put_str(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// An attribute of attributes; its length is filled in when `write` is done.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER_LEN]);
        write(self);
        let len = u16::try_from(self.bytes.len() - start).expect("lists are cut to 64 KiB by their writers");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Reads attributes one after the other; bytes that are no attribute end it.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The first attribute of a kind.
    pub fn find(&self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self.clone(), |(own, _)| *own == kind).map(|(_, value)| value)
    }

    /// What is in the first attribute of a kind; nothing where there is none.
    pub fn nested(&self, kind: u16) -> Self {
        Self { rest: self.find(kind).unwrap_or_default() }
    }

    pub fn find_u8(&self, kind: u16) -> Option<u8> {
        self.find(kind)?.first().copied()
    }

    pub fn find_u16(&self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.find(kind)?.get(..2)?.try_into().ok()?))
    }

    pub fn find_u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.get(..4)?.try_into().ok()?))
    }

    pub fn find_u64(&self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.find(kind)?.get(..8)?.try_into().ok()?))
    }

    /// A string without the zero at its end.
    pub fn find_str(&self, kind: u16) -> Option<&'a str> {
        let bytes = self.find(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.get(..HEADER_LEN)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = self.rest.get(HEADER_LEN..len)?;
        self.rest = self.rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let mut attributes = Attributes::default();
        attributes.put_str(1, "odd");
        attributes.nest(2, |inner| {
            inner.put_u16(3, 80);
            inner.put_u64(4, 7);
        });
        attributes.put_u8(5, 9);
        assert_eq!(attributes.bytes().len() % 4, 0);
        let reader = Reader::new(attributes.bytes());
        assert_eq!(reader.find_str(1), Some("odd"));
        assert_eq!(reader.nested(2).find_u16(3), Some(80));
        assert_eq!(reader.nested(2).find_u64(4), Some(7));
        assert_eq!(reader.find_u8(5), Some(9));
        assert_eq!(reader.find(6), None);
        assert_eq!(reader.find_u64(5), None, "too short");
    }

    #[test]
    fn bytes_that_are_no_attributes_end_the_reading() {
        for bytes in [&[][..], &[1], &[0, 0, 0, 0], &[3, 0, 1, 0, 9], &[200, 0, 1, 0, 1, 2, 3, 4]] {
            assert_eq!(Reader::new(bytes).count(), 0, "{bytes:?}");
        }
    }
}
