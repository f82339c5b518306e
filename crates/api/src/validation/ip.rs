//! IP addresses and CIDR blocks in API fields.
//!
//! Old fields take what Go's pre-1.17 parser took (leading zeros), but new values must be strict; the two checks give
//! two different messages, as upstream's do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use apimachinery::field::{Error, ErrorList, Path};
pub(crate) use apimachinery::ip::{parse_cidr, parse_sloppy};

const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Complains unless the value is an IP address in strict form, or one that the field already held.
pub fn check_ip(errors: &mut ErrorList, value: &str, path: &Path<'_>, held_before: &[&str]) {
    if !held_before.contains(&value) {
        strict_ip(errors, value, path);
    }
}

/// The address in strict form; complains about another one.
fn strict_ip(errors: &mut ErrorList, value: &str, path: &Path<'_>) -> Option<IpAddr> {
    let why = match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            "must not be an IPv4-mapped IPv6 address"
        }
        Ok(address) => return Some(address),
        Err(_) if parse_sloppy(value).is_some() => "must not have leading 0s",
        Err(_) => NOT_AN_IP,
    };
    errors.push(Error::invalid(path, value, why));
    None
}

/// As [`check_ip`], and the text must be the canonical form of the address.
pub fn check_canonical_ip(errors: &mut ErrorList, value: &str, path: &Path<'_>) {
    if let Some(address) = strict_ip(errors, value, path)
        && address.to_string() != value
    {
        errors.push(Error::invalid(path, value, format!("must be in canonical form (\"{address}\")")));
    }
}

/// Complains unless the value is a CIDR block in strict form, or one that the field already held.
pub fn check_cidr(errors: &mut ErrorList, value: &str, path: &Path<'_>, held_before: &[&str]) {
    if !held_before.contains(&value) {
        strict_cidr(errors, value, path);
    }
}

/// The block in strict form; complains about another one.
fn strict_cidr(errors: &mut ErrorList, value: &str, path: &Path<'_>) -> Option<(IpAddr, u32)> {
    let Some((ip, bits)) = parse_cidr(value) else {
        errors.push(Error::invalid(path, value, NOT_A_CIDR));
        return None;
    };
    let (address, length) = value.split_once('/').unwrap_or((value, ""));
    let why = if address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0')) {
        "must not have leading 0s in IP or prefix length"
    } else if address.contains(':') && ip.is_ipv4() {
        "must not have an IPv4-mapped IPv6 address"
    } else if has_host_bits(ip, bits) {
        "must not have bits set beyond the prefix length"
    } else {
        return Some((ip, bits));
    };
    errors.push(Error::invalid(path, value, why));
    None
}

/// Complains unless the value is a CIDR block in the one form that is written.
pub fn check_canonical_cidr(errors: &mut ErrorList, value: &str, path: &Path<'_>) {
    if let Some((ip, bits)) = strict_cidr(errors, value, path)
        && format!("{ip}/{bits}") != value
    {
        errors.push(Error::invalid(path, value, format!("must be in canonical form (\"{ip}/{bits}\")")));
    }
}

/// Complains unless the value is an address with the length of its network's prefix, in canonical form.
pub fn check_interface_address(errors: &mut ErrorList, value: &str, path: &Path<'_>) {
    let Some((ip, bits)) = parse_cidr(value) else {
        let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        errors.push(Error::invalid(path, value, why));
        return;
    };
    // The prefix of an IPv4 address in IPv6 clothes covers the clothes, too.
    let bits = i64::from(bits) - if ip.is_ipv4() && bits > 32 { 96 } else { 0 };
    let canonical = format!("{ip}/{bits}");
    if value != canonical {
        errors.push(Error::invalid(path, value, format!("must be in canonical form (\"{canonical}\")")));
    }
}

fn has_host_bits(ip: IpAddr, bits: u32) -> bool {
    match ip {
        IpAddr::V4(address) => address.to_bits().checked_shl(bits).unwrap_or(0) != 0,
        IpAddr::V6(address) => address.to_bits().checked_shl(bits).unwrap_or(0) != 0,
    }
}

/// Whether one block lies inside another and is smaller.
pub fn is_strict_part(part: (IpAddr, u32), whole: (IpAddr, u32)) -> bool {
    let keep_v4 = |ip: Ipv4Addr, bits: u32| ip.to_bits().checked_shr(32 - bits.min(32)).unwrap_or(0);
    let keep_v6 = |ip: Ipv6Addr, bits: u32| ip.to_bits().checked_shr(128 - bits.min(128)).unwrap_or(0);
    part.1 > whole.1
        && match (part.0, whole.0) {
            (IpAddr::V4(part), IpAddr::V4(ip)) => keep_v4(part, whole.1) == keep_v4(ip, whole.1),
            (IpAddr::V6(part), IpAddr::V6(ip)) => keep_v6(part, whole.1) == keep_v6(ip, whole.1),
            _ => false,
        }
}

/// Complains about an address that no endpoint can have: unspecified, loopback, link-local.
pub fn check_endpoint_ip(errors: &mut ErrorList, value: &str, path: &Path<'_>) {
    let Some(address) = parse_sloppy(value) else {
        errors.push(Error::invalid(path, value, "must be a valid IP address"));
        return;
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        errors.push(Error::invalid(path, value, format!("may not be unspecified ({value})")));
    }
    if address.is_loopback() {
        errors.push(Error::invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if link_local {
        errors.push(Error::invalid(
            path,
            value,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ));
    }
    if link_local_multicast {
        errors.push(Error::invalid(
            path,
            value,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ));
    }
}

/// A warning about an address that is valid but written in an unusual way.
pub fn ip_warning(value: &str, path: &Path<'_>) -> Option<String> {
    let address = parse_sloppy(value)?;
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => (v6.to_string() != value).then(|| {
            format!("{path}: IPv6 address \"{value}\" should be in RFC 5952 canonical format (\"{v6}\")")
        }),
        Ok(IpAddr::V4(_)) => None,
        _ => Some(format!("{path}: non-standard IP address \"{value}\" is invalid: use \"{address}\"")),
    }
}

/// Whether there are at least one IPv4 and one IPv6 among the addresses.
pub fn is_dual_stack<'a>(addresses: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut v4, mut v6) = (false, false);
    for address in addresses {
        match parse_sloppy(address) {
            Some(IpAddr::V4(_)) => v4 = true,
            Some(IpAddr::V6(_)) => v6 = true,
            None => return false,
        }
    }
    v4 && v6
}

/// Whether there are at least one IPv4 and one IPv6 block among the blocks.
pub fn is_dual_stack_cidrs<'a>(blocks: impl IntoIterator<Item = &'a str>) -> bool {
    is_dual_stack(blocks.into_iter().map(|block| block.split_once('/').map_or(block, |(address, _)| address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(check: impl Fn(&mut ErrorList, &Path<'_>)) -> Vec<String> {
        let mut errors = ErrorList::new();
        check(&mut errors, &Path::root("ip"));
        errors.into_iter().map(|error| error.detail).collect()
    }

    #[test]
    fn addresses_are_strict_but_old_ones_stay() {
        let check =
            |value: &str, held: &[&str]| complaints(|errors, path| check_ip(errors, value, path, held));
        assert!(check("10.0.0.1", &[]).is_empty());
        assert!(check("fd00::1", &[]).is_empty());
        assert_eq!(check("10.0.0.01", &[]), ["must not have leading 0s"]);
        assert_eq!(check("010.0.0.1", &["010.0.0.1"]), Vec::<String>::new());
        assert_eq!(check("::ffff:1.2.3.4", &[]), ["must not be an IPv4-mapped IPv6 address"]);
        for bad in ["", "1.2.3", "1.2.3.256", "x", "1.2.3.4.5", "1.2.3.+4"] {
            assert_eq!(check(bad, &[]), [NOT_AN_IP], "{bad}");
        }
    }

    #[test]
    fn blocks_may_not_have_host_bits() {
        let check = |value: &str| complaints(|errors, path| check_cidr(errors, value, path, &[]));
        for good in ["10.0.0.0/8", "0.0.0.0/0", "fd00::/64", "10.1.2.3/32"] {
            assert!(check(good).is_empty(), "{good}");
        }
        assert_eq!(check("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/+8"] {
            assert_eq!(check(bad), [NOT_A_CIDR], "{bad}");
        }
    }

    #[test]
    fn endpoints_need_reachable_addresses() {
        let check = |value: &str| complaints(|errors, path| check_endpoint_ip(errors, value, path)).len();
        assert_eq!(check("10.0.0.1"), 0);
        for bad in ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "::1", "fe80::1", "ff02::1", "::"] {
            assert_eq!(check(bad), 1, "{bad}");
        }
    }
}
