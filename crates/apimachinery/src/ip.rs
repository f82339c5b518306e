//! IP addresses and CIDR blocks as Go read them before 1.17: leading zeros are decimal.
//!
//! Old fields and formats take them still; where a new value must be strict, whoever checks it looks again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Parses an address. An IPv4-mapped IPv6 address is the IPv4 address, as in Go.
pub fn parse_sloppy(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return parse_ipv4(text).map(IpAddr::V4);
    }
    let address: Ipv6Addr = match text.rsplit_once(':') {
        Some((head, tail)) if tail.contains('.') => format!("{head}:{}", parse_ipv4(tail)?).parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
}

fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// A CIDR block as its address and prefix length.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    let ip = parse_sloppy(address)?;
    if !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bits: u32 = length.parse().ok()?;
    let max = if address.contains(':') { 128 } else { 32 };
    (bits <= max).then_some((ip, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_decimal() {
        let v4 = |text: &str| Some(IpAddr::V4(text.parse().unwrap()));
        for (text, address) in [
            ("010.000.0.09", v4("10.0.0.9")),
            ("0000000010.0.0.1", v4("10.0.0.1")),
            ("::ffff:1.2.3.04", v4("1.2.3.4")),
            ("fd00::1", Some("fd00::1".parse().unwrap())),
            ("fd00::01.2.3.4", Some("fd00::1.2.3.4".parse().unwrap())),
        ] {
            assert_eq!(parse_sloppy(text), address, "{text}");
        }
        for bad in ["", "1.2.3", "1.2.3.256", "x", "1.2.3.4.5", "1.2.3.+4", "1..2.3", "::g", "::1.2.3"] {
            assert_eq!(parse_sloppy(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_block_has_a_prefix_that_fits_its_family() {
        assert_eq!(parse_cidr("010.0.0.0/08"), Some((Ipv4Addr::new(10, 0, 0, 0).into(), 8)));
        assert_eq!(parse_cidr("::/128"), Some((Ipv6Addr::UNSPECIFIED.into(), 128)));
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/+8", "10.0.0.0/"] {
            assert_eq!(parse_cidr(bad), None, "{bad}");
        }
    }
}
