//! [`Opaques`]: values that only functions look into.

use std::fmt;
use std::net::IpAddr;

use apimachinery::Quantity;

use crate::library::authorizer::{self, Decision};
use crate::library::{cidr::Cidr, named_format::NamedFormat, semver::Semver, url::Url};
use crate::types::Opaque;

/// A value of one of Kubernetes' libraries.
#[derive(Clone, Debug)]
pub enum Opaques {
    Url(Url),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Semver),
    NamedFormat(&'static NamedFormat),
    Authorizer(authorizer::Subject),
    PathCheck(authorizer::PathCheck),
    GroupCheck(authorizer::GroupCheck),
    ResourceCheck(authorizer::ResourceCheck),
    Decision(Decision),
}

impl Opaques {
    pub fn opaque(&self) -> Opaque {
        match self {
            Self::Url(_) => Opaque::Url,
            Self::Quantity(_) => Opaque::Quantity,
            Self::Ip(_) => Opaque::Ip,
            Self::Cidr(_) => Opaque::Cidr,
            Self::Semver(_) => Opaque::Semver,
            Self::NamedFormat(_) => Opaque::NamedFormat,
            Self::Authorizer(_) => Opaque::Authorizer,
            Self::PathCheck(_) => Opaque::PathCheck,
            Self::GroupCheck(_) => Opaque::GroupCheck,
            Self::ResourceCheck(_) => Opaque::ResourceCheck,
            Self::Decision(_) => Opaque::Decision,
        }
    }

    /// Bytes of an address or of a prefix, 1 for the rest.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Ip(IpAddr::V4(_)) => 4,
            Self::Ip(IpAddr::V6(_)) => 16,
            Self::Cidr(cidr) => u64::from(cidr.prefix_length()).div_ceil(8),
            _ => 1,
        }
    }
}

impl PartialEq for Opaques {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a == b,
            (Self::NamedFormat(a), Self::NamedFormat(b)) => std::ptr::eq(*a, *b),
            (Self::Authorizer(a), Self::Authorizer(b)) => a == b,
            (Self::PathCheck(a), Self::PathCheck(b)) => a == b,
            (Self::GroupCheck(a), Self::GroupCheck(b)) => a == b,
            (Self::ResourceCheck(a), Self::ResourceCheck(b)) => a == b,
            (Self::Decision(a), Self::Decision(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Opaques {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "{url}"),
            Self::Quantity(quantity) => write!(f, "{quantity}"),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Cidr(cidr) => write!(f, "{cidr}"),
            Self::Semver(version) => write!(f, "{version}"),
            Self::NamedFormat(format) => f.write_str(format.name),
            other => f.write_str(other.opaque().name()),
        }
    }
}
