//! IP addresses.

use std::net::{IpAddr, Ipv6Addr};

use apimachinery::field::go_quote;

use super::Row;
use crate::eval_error::EvalError;
use crate::opaques::Opaques;
use crate::value::{Evaluated, Value};

pub(super) const FUNCTIONS: &[Row] = &[
    ("ip", to_ip, &[("string_to_ip", "f(string) -> ip"), ("cidr_ip", "cidr::f() -> ip")]),
    ("isIP", is_ip, &[("is_ip", "f(string) -> bool")]),
    ("ip.isCanonical", is_canonical, &[("ip_is_canonical", "f(string) -> bool")]),
    ("family", family, &[("ip_family", "ip::f() -> int")]),
    (
        "isUnspecified",
        |args| test(args, |ip| ip.is_unspecified()),
        &[("ip_is_unspecified", "ip::f() -> bool")],
    ),
    ("isLoopback", |args| test(args, |ip| ip.is_loopback()), &[("ip_is_loopback", "ip::f() -> bool")]),
    (
        "isLinkLocalMulticast",
        |args| test(args, is_link_local_multicast),
        &[("ip_is_link_local_multicast", "ip::f() -> bool")],
    ),
    (
        "isLinkLocalUnicast",
        |args| test(args, is_link_local_unicast),
        &[("ip_is_link_local_unicast", "ip::f() -> bool")],
    ),
    ("isGlobalUnicast", |args| test(args, is_global_unicast), &[("ip_is_global_unicast", "ip::f() -> bool")]),
    ("string", super::standard::to_string, &[("ip_to_string", "f(ip) -> string")]),
];

/// Reads an address; neither a zone nor an IPv4 address in IPv6 clothes is one.
pub(super) fn parse(text: &str) -> Result<IpAddr, String> {
    let quoted = go_quote(text);
    let fail = |why: &str| {
        format!("IP Address {quoted} parse error during conversion from string: ParseAddr({quoted}): {why}")
    };
    // Only addresses of version 6 have zones.
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) if address.contains(':') => (address, Some(zone)),
        _ => (text, None),
    };
    if zone == Some("") {
        return Err(fail("zone must be a non-empty string"));
    }
    let parsed: IpAddr = address.parse().map_err(|_| fail(&complaint(text)))?;
    if zone.is_some() {
        return Err(format!("IP address {quoted} with zone value is not allowed"));
    }
    match parsed {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {quoted} is not allowed"))
        }
        address => Ok(address),
    }
}

/// What Go finds wrong first.
fn complaint(text: &str) -> String {
    if text.contains(':') {
        return match text.chars().find(|c| !c.is_ascii_hexdigit() && !":.%".contains(*c)) {
            Some(_) => {
                let at = text.find(|c: char| !c.is_ascii_hexdigit() && !":.%".contains(c)).unwrap_or(0);
                format!(
                    "each colon-separated field must have at least one digit (at {})",
                    go_quote(&text[at..])
                )
            }
            None => "address string too short".into(),
        };
    }
    if text.trim_start_matches(|c| c != '%' && c != '.').starts_with('%') {
        return "missing IPv6 address".into();
    }
    if !text.contains('.') {
        return "unable to parse IP".into();
    }
    let mut fields = 0;
    for field in text.split('.') {
        fields += 1;
        if let Some(at) = field.find(|c: char| !c.is_ascii_digit()) {
            let start = text.len() - text.split('.').skip(fields - 1).collect::<Vec<_>>().join(".").len();
            return format!("unexpected character (at {})", go_quote(&text[start + at..]));
        }
        if field.is_empty() {
            let start = text.len() - text.split('.').skip(fields - 1).collect::<Vec<_>>().join(".").len();
            return format!(
                "IPv4 field must have at least one digit (at {})",
                go_quote(&text[start.saturating_sub(1)..])
            );
        }
        if field.len() > 1 && field.starts_with('0') {
            return "IPv4 field has octet with leading zero".into();
        }
        if field.parse::<u16>().is_ok_and(|value| value > 255) || field.len() > 3 {
            return "IPv4 field has value >255".into();
        }
    }
    if fields < 4 { "IPv4 address too short".into() } else { "IPv4 address too long".into() }
}

fn to_ip<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => parse(text).map(|ip| Value::opaque(Opaques::Ip(ip))).map_err(EvalError::new),
        [Value::Opaque(value)] => match &**value {
            Opaques::Cidr(cidr) => Ok(Value::opaque(Opaques::Ip(cidr.address()))),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_ip<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(parse(text).is_ok())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_canonical<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => {
            let ip = parse(text).map_err(EvalError::new)?;
            Ok(Value::Bool(ip.to_string() == **text))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn address(args: &[Value<'_>]) -> Result<IpAddr, EvalError> {
    match args {
        [Value::Opaque(value)] => match &**value {
            Opaques::Ip(ip) => Ok(*ip),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn family<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Int(if address(args)?.is_ipv4() { 4 } else { 6 }))
}

fn test<'a>(args: &[Value<'a>], test: impl Fn(IpAddr) -> bool) -> Evaluated<'a> {
    Ok(Value::Bool(test(address(args)?)))
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !broadcast
        && !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && !is_link_local_unicast(ip)
}

/// `string(ip)` and `string(cidr)`.
pub(super) fn to_string<'a>(value: &Opaques) -> Evaluated<'a> {
    match value {
        Opaques::Ip(_) | Opaques::Cidr(_) => Ok(Value::text(value.to_string())),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The network part of an address.
pub(super) fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}
