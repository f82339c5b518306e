//! Expressions: the steps of which a rule is made.
//!
//! Owns: their encoding. Never touches: which of them make sense together; the kernel checks that.
//! Data goes through sixteen registers of four bytes; longer values fill the ones after. No register is known to the
//! next rule.

use super::{Attributes, Family};

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// The register that holds the rule's verdict.
const VERDICT_REGISTER: u32 = 0;
/// The kernel's number of the first register of four bytes.
const FIRST_REGISTER: u32 = 8;
const NAT_DESTINATION: u32 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const NAT_FULLY_RANDOM: u32 = 0x10;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;

/// One of the sixteen registers, by its number.
pub type Register = u32;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    Network = 1,
    Transport = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    Mark = 3,
    InputInterface = 4,
    OutputInterface = 5,
    OutputInterfaceName = 7,
    Family = 15,
    Protocol = 16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtKey {
    State = 0,
    Status = 2,
    Protocol = 10,
    DestinationPort = 12,
    SourceIpv4 = 19,
    DestinationIpv4 = 20,
    SourceIpv6 = 21,
    DestinationIpv6 = 22,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtDirection {
    Original = 0,
    Reply = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    Equal = 0,
    NotEqual = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynsetOp {
    Add = 0,
    /// Adds, or starts the timeout anew.
    Update = 1,
    Delete = 2,
}

/// One step of a rule. A comparison or a lookup that fails ends the rule, and the next one is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    Payload {
        base: PayloadBase,
        offset: u32,
        len: u32,
        to: Register,
    },
    Meta {
        key: MetaKey,
        to: Register,
    },
    SetMeta {
        key: MetaKey,
        from: Register,
    },
    Ct {
        key: CtKey,
        direction: Option<CtDirection>,
        to: Register,
    },
    Compare {
        op: CmpOp,
        register: Register,
        value: Vec<u8>,
    },
    /// Both ends belong to the range.
    Range {
        register: Register,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    /// `to = register & mask ^ xor`.
    Bitwise {
        register: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// The key is in the set; `data` takes what a map has for it.
    Lookup {
        set: String,
        key: Register,
        data: Option<Register>,
        negate: bool,
    },
    /// The verdict that a map has for the key.
    VerdictMap {
        map: String,
        key: Register,
    },
    Immediate {
        to: Register,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    Counter,
    /// A random number below `modulus`.
    Random {
        modulus: u32,
        to: Register,
    },
    Dnat {
        family: Family,
        address: Register,
        port: Option<Register>,
    },
    Masquerade,
    /// To this machine's own port.
    Redirect {
        port: Register,
    },
    /// Port unreachable.
    RejectUnreachable {
        family: Family,
    },
    RejectReset,
    Dynset {
        set: String,
        op: DynsetOp,
        key: Register,
        data: Option<Register>,
        timeout_milliseconds: Option<u64>,
    },
    /// The kind of the packet's source address (`RTN_LOCAL` is 2).
    SourceAddressType {
        to: Register,
    },
    DestinationAddressType {
        to: Register,
    },
}

/// `RTN_LOCAL`, as an address type in a register.
pub const ADDRESS_LOCAL: u32 = 2;

// === impl Verdict ===

impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Drop | Self::Accept | Self::Return => None,
        }
    }

    pub(super) fn len_max(&self) -> usize {
        32 + self.chain().map_or(0, str::len)
    }

    pub(super) fn write(&self, out: &mut Attributes) {
        out.put(VERDICT_CODE, &self.code().to_be_bytes());
        if let Some(chain) = self.chain() {
            out.put_str(VERDICT_CHAIN, chain);
        }
    }

    pub(super) fn read(reader: &super::Reader<'_>) -> Option<Self> {
        let chain = || reader.find_str(VERDICT_CHAIN).map(str::to_owned);
        match reader.find_u32(VERDICT_CODE)?.cast_signed() {
            0 => Some(Self::Drop),
            1 => Some(Self::Accept),
            -3 => Some(Self::Jump(chain()?)),
            -4 => Some(Self::Goto(chain()?)),
            -5 => Some(Self::Return),
            _ => None,
        }
    }
}

// === impl Expression ===

fn number(register: Register) -> u32 {
    FIRST_REGISTER + register
}

fn value(out: &mut Attributes, kind: u16, bytes: &[u8]) {
    out.nest(kind, |data| data.put(DATA_VALUE, bytes));
}

impl Expression {
    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::Compare { .. } => "cmp",
            Self::Range { .. } => "range",
            Self::Bitwise { .. } => "bitwise",
            Self::Lookup { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Counter => "counter",
            Self::Random { .. } => "numgen",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Redirect { .. } => "redir",
            Self::RejectUnreachable { .. } | Self::RejectReset => "reject",
            Self::Dynset { .. } => "dynset",
            Self::SourceAddressType { .. } | Self::DestinationAddressType { .. } => "fib",
        }
    }

    pub(super) fn write(&self, out: &mut Attributes) {
        out.put_str(EXPR_NAME, self.name());
        out.nest(EXPR_DATA, |out| self.write_data(out));
    }

    fn write_data(&self, out: &mut Attributes) {
        match self {
            Self::Payload { base, offset, len, to } => {
                out.put_u32(1, number(*to));
                out.put_u32(2, *base as u32);
                out.put_u32(3, *offset);
                out.put_u32(4, *len);
            }
            Self::Meta { key, to } => {
                out.put_u32(1, number(*to));
                out.put_u32(2, *key as u32);
            }
            Self::SetMeta { key, from } => {
                out.put_u32(2, *key as u32);
                out.put_u32(3, number(*from));
            }
            Self::Ct { key, direction, to } => {
                out.put_u32(1, number(*to));
                out.put_u32(2, *key as u32);
                if let Some(direction) = direction {
                    out.put_u8(3, *direction as u8);
                }
            }
            Self::Compare { op, register, value: bytes } => {
                out.put_u32(1, number(*register));
                out.put_u32(2, *op as u32);
                value(out, 3, bytes);
            }
            Self::Range { register, from, to } => {
                out.put_u32(1, number(*register));
                out.put_u32(2, 0);
                value(out, 3, from);
                value(out, 4, to);
            }
            Self::Bitwise { register, to, mask, xor } => {
                out.put_u32(1, number(*register));
                out.put_u32(2, number(*to));
                out.put_u32(
                    3,
                    u32::try_from(mask.len()).expect("a mask is as long as a register or an address"),
                );
                value(out, 4, mask);
                value(out, 5, xor);
            }
            Self::Lookup { set, key, data, negate } => {
                out.put_str(1, set);
                out.put_u32(2, number(*key));
                if let Some(data) = data {
                    out.put_u32(3, number(*data));
                }
                if *negate {
                    out.put_u32(5, 1);
                }
            }
            Self::VerdictMap { map, key } => {
                out.put_str(1, map);
                out.put_u32(2, number(*key));
                out.put_u32(3, VERDICT_REGISTER);
            }
            Self::Immediate { to, value: bytes } => {
                out.put_u32(1, number(*to));
                value(out, 2, bytes);
            }
            Self::Verdict(verdict) => {
                out.put_u32(1, VERDICT_REGISTER);
                out.nest(2, |data| data.nest(DATA_VERDICT, |inner| verdict.write(inner)));
            }
            Self::Counter => {}
            Self::Random { modulus, to } => {
                out.put_u32(1, number(*to));
                out.put_u32(2, *modulus);
                out.put_u32(3, 1);
                out.put_u32(4, 0);
            }
            Self::Dnat { family, address, port } => {
                out.put_u32(1, NAT_DESTINATION);
                out.put_u32(2, u32::from(family.number()));
                out.put_u32(3, number(*address));
                if let Some(port) = port {
                    out.put_u32(5, number(*port));
                }
            }
            Self::Masquerade => out.put_u32(1, NAT_FULLY_RANDOM),
            Self::Redirect { port } => out.put_u32(1, number(*port)),
            Self::RejectUnreachable { family } => {
                out.put_u32(1, 0);
                // ICMP calls port unreachable 3, ICMPv6 calls it 4.
                out.put_u8(2, if *family == Family::Ipv6 { 4 } else { 3 });
            }
            Self::RejectReset => {
                out.put_u32(1, 1);
                out.put_u8(2, 0);
            }
            Self::Dynset { set, op, key, data, timeout_milliseconds } => {
                out.put_str(1, set);
                out.put_u32(3, *op as u32);
                out.put_u32(4, number(*key));
                if let Some(data) = data {
                    out.put_u32(5, number(*data));
                }
                if let Some(timeout) = timeout_milliseconds {
                    out.put_u64(6, *timeout);
                }
            }
            Self::SourceAddressType { to } | Self::DestinationAddressType { to } => {
                let source = matches!(self, Self::SourceAddressType { .. });
                out.put_u32(1, number(*to));
                out.put_u32(2, FIB_RESULT_ADDRESS_TYPE);
                out.put_u32(3, if source { FIB_SOURCE } else { FIB_DESTINATION });
            }
        }
    }
}
