//! Networks in CIDR notation.

use std::fmt;
use std::net::IpAddr;

use apimachinery::field::go_quote;

use super::{Row, ip};
use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("cidr", to_cidr, &[("string_to_cidr", "f(string) -> cidr")]),
    ("isCIDR", is_cidr, &[("is_cidr", "f(string) -> bool")]),
    (
        "containsIP",
        contains_ip,
        &[
            ("cidr_contains_ip_string", "cidr::f(string) -> bool"),
            ("cidr_contains_ip_ip", "cidr::f(ip) -> bool"),
        ],
    ),
    (
        "containsCIDR",
        contains_cidr,
        &[
            ("cidr_contains_cidr_string", "cidr::f(string) -> bool"),
            ("cidr_contains_cidr", "cidr::f(cidr) -> bool"),
        ],
    ),
    ("prefixLength", prefix_length, &[("cidr_prefix_length", "cidr::f() -> int")]),
    ("masked", masked, &[("cidr_masked", "cidr::f() -> cidr")]),
    ("string", super::standard::to_string, &[("cidr_to_string", "f(cidr) -> string")]),
];

/// An address and how many of its bits are the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Cidr {
    fn parse(text: &str) -> Result<Self, String> {
        let quoted = go_quote(text);
        let fail = |what: &str| {
            Err(format!(
                "network address parse error during conversion from string: netip.ParsePrefix({quoted}): {what}"
            ))
        };
        let Some((address, length)) = text.rsplit_once('/') else { return fail("no '/'") };
        if address.contains('%') {
            return fail("IPv6 zones cannot be present in a prefix");
        }
        let Ok(address) = address.parse::<IpAddr>() else { return fail("unable to parse IP") };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let plain =
            length == "0" || !length.starts_with('0') && length.bytes().all(|byte| byte.is_ascii_digit());
        let Some(length) = length.parse::<u16>().ok().filter(|_| plain) else {
            return fail(&format!("bad bits after slash: {}", go_quote(length)));
        };
        let Some(length) = u8::try_from(length).ok().filter(|&length| length <= bits) else {
            return fail("prefix length out of range");
        };
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(format!("IPv4-mapped IPv6 address {quoted} is not allowed"));
        }
        Ok(Self { address, length })
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn prefix_length(&self) -> u8 {
        self.length
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.address.is_ipv4()
            && ip::masked(ip, self.length) == ip::masked(self.address, self.length)
    }
}

fn to_cidr<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(Value::opaque(Opaques::Cidr(parse(text)?))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn parse(text: &str) -> Result<Cidr, EvalError> {
    Cidr::parse(text).map_err(|error| {
        EvalError::new(format!("network address parse error during conversion from string: {error}"))
    })
}

fn is_cidr<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(Cidr::parse(text).is_ok())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn cidr<'v, 'a>(args: &'v [Value<'a>]) -> Result<(Cidr, &'v [Value<'a>]), EvalError> {
    match args {
        [Value::Opaque(value), rest @ ..] => match &**value {
            Opaques::Cidr(cidr) => Ok((*cidr, rest)),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (cidr, rest) = cidr(args)?;
    let other = match rest {
        [Value::String(text)] => ip::parse(text).map_err(|_| EvalError::no_such_overload())?,
        [Value::Opaque(value)] => match &**value {
            Opaques::Ip(ip) => *ip,
            _ => return Err(EvalError::no_such_overload()),
        },
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Bool(cidr.contains(other)))
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (whole, rest) = cidr(args)?;
    let part = match rest {
        [Value::String(text)] => parse(text)?,
        other => cidr(other)?.0,
    };
    Ok(Value::Bool(whole.length <= part.length && whole.contains(part.address)))
}

fn prefix_length<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Int(cidr(args)?.0.length.into()))
}

fn masked<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (cidr, _) = cidr(args)?;
    Ok(Value::opaque(Opaques::Cidr(Cidr { address: ip::masked(cidr.address, cidr.length), ..cidr })))
}
