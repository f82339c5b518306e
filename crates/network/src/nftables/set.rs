//! Sets and maps: their types and their elements.
//!
//! Owns: how keys and data look in bytes. Never touches: when they are sent ([`super::Batch`]).

use super::Attributes;
use super::expression::Verdict;

const ELEM_KEY: u16 = 1;
const ELEM_DATA: u16 = 2;
const ELEM_FLAGS: u16 = 3;
const ELEM_TIMEOUT: u16 = 4;
const ELEM_EXPIRATION: u16 = 5;
const ELEM_KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const LIST_ELEM: u16 = 1;
const ELEM_INTERVAL_END: u32 = 1;
const DESC_SIZE: u16 = 1;
const DESC_CONCAT: u16 = 2;
const FIELD_LEN: u16 = 1;

const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;
const FLAG_TIMEOUT: u32 = 0x10;
const FLAG_EVAL: u32 = 0x20;
const FLAG_CONCAT: u32 = 0x80;
/// The kernel's type of data that are verdicts.
const TYPE_VERDICT: u32 = 0xffff_ff00;
/// Bits for each type in the number that stands for a concatenation (`nft` reads it back).
const TYPE_BITS: u32 = 6;

/// One field of a key or of data. In a concatenation each fills whole words of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    /// A number in the byte order of the machine.
    Mark,
}

/// A set, or a map where `data` says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    pub name: &'a str,
    pub key: &'a [Field],
    pub data: Data<'a>,
    /// Elements are ranges.
    pub interval: bool,
    /// Rules change it; elements may have timeouts.
    pub dynamic: bool,
    /// Most elements there can be; 0 is no limit.
    pub size: u32,
}

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    None,
    Verdict,
    Fields(&'a [Field]),
}

/// An element. Keys and data are made by [`super::set`]'s writers or by hand, field after field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Element {
    pub key: Vec<u8>,
    /// In an interval set of one field: the first key that is no longer in the range. In one of several: the last
    /// that is.
    pub end: Option<Vec<u8>>,
    pub data: Option<Vec<u8>>,
    pub verdict: Option<Verdict>,
    pub timeout_milliseconds: Option<u64>,
    pub expiration_milliseconds: Option<u64>,
}

impl Field {
    /// The number by which `nft` knows the type.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
        }
    }

    pub(super) fn len(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

fn type_number(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| number << TYPE_BITS | field.number())
}

fn type_len(fields: &[Field]) -> u32 {
    match fields {
        [field] => field.len(),
        several => several.iter().map(|field| field.len().next_multiple_of(4)).sum(),
    }
}

impl Set<'_> {
    pub(super) fn write(&self, table: &str, id: u32, out: &mut Attributes) {
        let concatenated = self.key.len() > 1;
        let mut flags = 0;
        for (on, flag) in [
            (self.interval, FLAG_INTERVAL),
            (self.interval && concatenated, FLAG_CONCAT),
            (self.data != Data::None, FLAG_MAP),
            (self.dynamic, FLAG_TIMEOUT | FLAG_EVAL),
        ] {
            flags |= if on { flag } else { 0 };
        }
        out.put_str(1, table);
        out.put_str(2, self.name);
        out.put_u32(3, flags);
        out.put_u32(4, type_number(self.key));
        out.put_u32(5, type_len(self.key));
        match self.data {
            Data::None => {}
            Data::Verdict => {
                out.put_u32(6, TYPE_VERDICT);
                // The size of the kernel's verdict: a code and a pointer.
                out.put_u32(7, 16);
            }
            Data::Fields(fields) => {
                out.put_u32(6, type_number(fields));
                out.put_u32(7, type_len(fields));
            }
        }
        if self.size > 0 || (self.interval && concatenated) {
            out.nest(9, |desc| {
                if self.size > 0 {
                    desc.put_u32(DESC_SIZE, self.size);
                }
                if self.interval && concatenated {
                    desc.nest(DESC_CONCAT, |list| {
                        for field in self.key {
                            list.nest(LIST_ELEM, |item| item.put_u32(FIELD_LEN, field.len()));
                        }
                    });
                }
            });
        }
        out.put_u32(10, id);
    }

    /// Whether an element's end is an element of its own.
    pub(super) fn end_is_element(key: &[Field]) -> bool {
        key.len() == 1
    }
}

impl Element {
    pub fn of(key: Vec<u8>) -> Self {
        Self { key, ..Self::default() }
    }

    pub fn with_data(key: Vec<u8>, data: Vec<u8>) -> Self {
        Self { key, data: Some(data), ..Self::default() }
    }

    pub fn with_verdict(key: Vec<u8>, verdict: Verdict) -> Self {
        Self { key, verdict: Some(verdict), ..Self::default() }
    }

    /// A range of a set with one field: `from` up to, and without, `end` (`None`: up to the last there is).
    pub fn range(from: Vec<u8>, end: Option<Vec<u8>>) -> Self {
        Self { key: from, end, ..Self::default() }
    }

    /// About how many bytes it takes, at most.
    pub(super) fn len_max(&self) -> usize {
        let data = self.data.as_ref().map_or(0, Vec::len) + self.verdict.as_ref().map_or(0, Verdict::len_max);
        2 * self.key.len() + 2 * self.end.as_ref().map_or(0, Vec::len) + data + 96
    }

    /// Writes the element, and a second one for the end of a range where the set has them so.
    pub(super) fn write(&self, key_fields: &[Field], out: &mut Attributes) {
        let split = self.end.is_some() && Set::end_is_element(key_fields);
        out.nest(LIST_ELEM, |item| {
            item.nest(ELEM_KEY, |key| key.put(DATA_VALUE, &self.key));
            if let Some(end) = self.end.as_ref().filter(|_| !split) {
                item.nest(ELEM_KEY_END, |key| key.put(DATA_VALUE, end));
            }
            if let Some(data) = &self.data {
                item.nest(ELEM_DATA, |value| value.put(DATA_VALUE, data));
            }
            if let Some(verdict) = &self.verdict {
                item.nest(ELEM_DATA, |value| value.nest(DATA_VERDICT, |inner| verdict.write(inner)));
            }
            if let Some(timeout) = self.timeout_milliseconds {
                item.put_u64(ELEM_TIMEOUT, timeout);
            }
            if let Some(expiration) = self.expiration_milliseconds {
                item.put_u64(ELEM_EXPIRATION, expiration);
            }
        });
        if let Some(end) = self.end.as_ref().filter(|_| split) {
            out.nest(LIST_ELEM, |item| {
                item.nest(ELEM_KEY, |key| key.put(DATA_VALUE, end));
                item.put_u32(ELEM_FLAGS, ELEM_INTERVAL_END);
            });
        }
    }

    /// Reads one element of a dump.
    pub(super) fn read(item: &super::Reader<'_>) -> Option<Self> {
        Some(Self {
            key: item.nested(ELEM_KEY).find(DATA_VALUE)?.to_vec(),
            end: item.nested(ELEM_KEY_END).find(DATA_VALUE).map(<[u8]>::to_vec),
            data: item.nested(ELEM_DATA).find(DATA_VALUE).map(<[u8]>::to_vec),
            verdict: Verdict::read(&item.nested(ELEM_DATA).nested(DATA_VERDICT)),
            timeout_milliseconds: item.find_u64(ELEM_TIMEOUT),
            expiration_milliseconds: item.find_u64(ELEM_EXPIRATION),
        })
    }
}
