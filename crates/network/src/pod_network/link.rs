//! What is done to links, over netlink: each function is one request, and fine where it was done already.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use super::namespace::Namespace;
use super::{Cidr, Error, Result};

/// By this number our routes are known from others' (`proto` in `ip route`).
pub(super) const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(80);

/// What the kernel does later takes milliseconds, and there is no event for all of it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

pub(super) type Mac = [u8; 6];

/// What is of interest in a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    pub alias: String,
    pub mtu: u32,
    pub is_up: bool,
    /// It is up, and so is the other end.
    pub is_carried: bool,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Route {
    pub to: Cidr,
    /// Always taken for reachable over the link.
    pub via: Option<IpAddr>,
    pub link: u32,
}

impl Namespace {
    pub async fn find_link(&self, name: &str) -> Result<Option<Link>> {
        let mut found = self.netlink().link().get().match_name(name).execute();
        match found.try_next().await.map_err(|error| Error::netlink(format!("reading link {name}"), error)) {
            Ok(message) => Ok(message.as_ref().map(Link::from)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn link(&self, name: &str) -> Result<Link> {
        self.find_link(name).await?.ok_or_else(|| {
            Error::system(format!("reading link {name}"), std::io::Error::from(ErrorKind::NotFound))
        })
    }

    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages = self.netlink().link().get().execute();
        messages
            .map_ok(|message| Link::from(&message))
            .try_collect()
            .await
            .map_err(|error| Error::netlink("listing links", error))
    }

    pub async fn add_link(&self, message: LinkMessage) -> Result<()> {
        let name = Link::from(&message).name;
        let added = self.netlink().link().add(message).execute().await;
        added.map_err(|error| Error::netlink(format!("adding link {name}"), error))
    }

    pub async fn delete_link(&self, name: &str) -> Result<()> {
        let Some(link) = self.find_link(name).await? else { return Ok(()) };
        let deleted = self.netlink().link().del(link.index).execute().await;
        unless_missing(deleted, || format!("deleting link {name}"))
    }

    pub async fn set_link_up(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let set = self.netlink().link().set(message).execute().await;
        set.map_err(|error| Error::netlink(format!("setting link {index} up"), error))
    }

    /// Waits until a link whose both ends are up carries packets, which the kernel sees to by and by. (As of 6.8, being
    /// asked makes it do that at once.)
    pub async fn carried(&self, name: &str) -> Result<u32> {
        let carried = async {
            loop {
                let link = self.link(name).await?;
                if link.is_carried {
                    return Ok(link.index);
                }
                rt::sleep(SETTLE_PAUSE).await;
            }
        };
        rt::timeout(SETTLE_TIMEOUT, carried).await.unwrap_or_else(|elapsed| {
            Err(Error::system(
                format!("waiting for link {name} to carry packets"),
                std::io::Error::from(elapsed),
            ))
        })
    }

    /// Waits until the host knows an address for its own: with IPv6 that comes after the address, from a work queue.
    pub async fn owned(&self, address: IpAddr) -> Result<()> {
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, Cidr::host(address).prefix())
            .map_err(|error| Error::system(format!("looking up {address}"), std::io::Error::other(error)))?
            .build();
        // The kernel refuses look-ups that ask for more than a destination.
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.header.protocol = RouteProtocol::Unspec;
        message.header.kind = RouteType::Unspec;
        let owned = async {
            loop {
                let mut routes = self.netlink().route().get(message.clone()).execute();
                let route = routes.try_next().await;
                let route = route.map_err(|error| Error::netlink(format!("looking up {address}"), error))?;
                if route.is_some_and(|route| route.header.kind == RouteType::Local) {
                    return Ok(());
                }
                rt::sleep(SETTLE_PAUSE).await;
            }
        };
        rt::timeout(SETTLE_TIMEOUT, owned).await.unwrap_or_else(|elapsed| {
            Err(Error::system(format!("waiting for address {address}"), std::io::Error::from(elapsed)))
        })
    }

    pub async fn set_link_alias(&self, index: u32, alias: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).alias(alias).build();
        let set = self.netlink().link().set(message).execute().await;
        set.map_err(|error| Error::netlink(format!("naming link {index} {alias}"), error))
    }

    /// Adds an address that is alone on its link. Nobody is asked whether it is taken.
    pub async fn add_address(&self, link: u32, address: IpAddr) -> Result<()> {
        let prefix = Cidr::host(address).prefix();
        let mut request = self.netlink().address().add(link, address, prefix).replace();
        if address.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let added = request.execute().await;
        added.map_err(|error| Error::netlink(format!("adding address {address}"), error))
    }

    /// Says for good which link-layer address an address has.
    pub async fn set_neighbour(&self, link: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let request = self.netlink().neighbours().add(link, address).link_layer_address(&mac).replace();
        let set = request.execute().await;
        set.map_err(|error| Error::netlink(format!("setting neighbour {address}"), error))
    }

    pub async fn set_route(&self, route: Route) -> Result<()> {
        let set = self.netlink().route().add(route.message()).replace().execute().await;
        set.map_err(|error| Error::netlink(format!("setting route to {}", route.to), error))
    }

    pub async fn delete_route(&self, route: Route) -> Result<()> {
        let deleted = self.netlink().route().del(route.message()).execute().await;
        unless_missing(deleted, || format!("deleting route to {}", route.to))
    }

    /// The routes of the main table that `keep` wants to know of.
    pub async fn routes(&self, keep: impl Fn(&RouteMessage) -> bool) -> Result<Vec<Route>> {
        let mut found = Vec::new();
        for message in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let mut routes = self.netlink().route().get(message).execute();
            loop {
                match routes.try_next().await {
                    Ok(Some(message)) if keep(&message) => found.extend(Route::read(&message)),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Err(Error::netlink("listing routes", error)),
                }
            }
        }
        Ok(found)
    }

    /// Our own routes over a link.
    pub async fn own_routes(&self, link: u32) -> Result<Vec<Route>> {
        let mut routes = self.routes(|message| message.header.protocol == ROUTE_PROTOCOL).await?;
        routes.retain(|route| route.link == link);
        Ok(routes)
    }

    /// The link that has an address.
    pub async fn link_with(&self, address: IpAddr) -> Result<u32> {
        let mut messages = self.netlink().address().get().execute();
        let listing = |error| Error::netlink("listing addresses", error);
        while let Some(message) = messages.try_next().await.map_err(listing)? {
            let is_it = message.attributes.iter().any(|attribute| match attribute {
                AddressAttribute::Local(own) | AddressAttribute::Address(own) => *own == address,
                _ => false,
            });
            if is_it {
                return Ok(message.header.index);
            }
        }
        Err(Error::Refused(format!("no link of this host has the node's address {address}")))
    }

    /// The neighbours of a link that stay, and where frames to a MAC are sent.
    pub async fn permanent_neighbours(
        &self,
        link: u32,
    ) -> Result<(BTreeSet<(IpAddr, Mac)>, BTreeSet<(Mac, IpAddr)>)> {
        let (mut neighbours, mut forwarding) = (BTreeSet::new(), BTreeSet::new());
        for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Bridge] {
            let mut messages = self.netlink().neighbours().get().set_address_family(family).execute();
            let listing = |error| Error::netlink("listing neighbours", error);
            while let Some(message) = messages.try_next().await.map_err(listing)? {
                let header = &message.header;
                if header.ifindex != link || header.state != NeighbourState::Permanent {
                    continue;
                }
                let Some((address, mac)) = address_and_mac(&message) else { continue };
                match family {
                    AddressFamily::Bridge => drop(forwarding.insert((mac, address))),
                    _ => drop(neighbours.insert((address, mac))),
                }
            }
        }
        Ok((neighbours, forwarding))
    }

    pub async fn delete_neighbour(&self, link: u32, address: IpAddr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = link;
        message.attributes.push(NeighbourAttribute::Destination(destination(address)));
        let deleted = self.netlink().neighbours().del(message).execute().await;
        unless_missing(deleted, || format!("deleting neighbour {address}"))
    }

    /// Frames to a MAC go to this host, inside UDP.
    pub async fn set_forwarding(&self, link: u32, mac: Mac, to: IpAddr) -> Result<()> {
        let neighbours = self.netlink().neighbours();
        let request = neighbours.add_bridge(link, &mac).flags(NeighbourFlags::Own).destination(to).replace();
        let set = request.execute().await;
        set.map_err(|error| Error::netlink(format!("setting the way to {to}"), error))
    }

    pub async fn delete_forwarding(&self, link: u32, mac: Mac, to: IpAddr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link;
        message.header.flags = NeighbourFlags::Own;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message.attributes.push(NeighbourAttribute::Destination(destination(to)));
        let deleted = self.netlink().neighbours().del(message).execute().await;
        unless_missing(deleted, || format!("deleting the way to {to}"))
    }

    /// The link over which the host reaches the world, if it does.
    pub async fn uplink(&self) -> Result<Option<u32>> {
        let mut routes = self.routes(|message| message.header.destination_prefix_length == 0).await?;
        // IPv4's comes first.
        routes.sort_by_key(|route| !route.to.is_ipv4());
        Ok(routes.first().map(|route| route.link))
    }
}

impl Error {
    /// What the kernel says of a link, an address or a route that is not there.
    pub(super) fn is_missing(&self) -> bool {
        use rustix::io::Errno;
        let Self::System { source, .. } = self else { return false };
        let missing = [Errno::NODEV, Errno::NOENT, Errno::SRCH, Errno::NXIO, Errno::ADDRNOTAVAIL];
        missing.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
    }
}

fn unless_missing(
    done: std::result::Result<(), rtnetlink::Error>,
    operation: impl FnOnce() -> String,
) -> Result<()> {
    match done.map_err(|error| Error::netlink(operation(), error)) {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}

fn destination(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }
}

fn address_and_mac(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            // Whose family the library does not know: that of a forwarding entry.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                address = match bytes.as_slice().try_into().map(<[u8; 4]>::into) {
                    Ok(ip) => Some(IpAddr::V4(ip)),
                    Err(_) => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
                };
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    Some((address?, mac?))
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            alias: String::new(),
            mtu: 0,
            is_up: message.header.flags.contains(LinkFlags::Up),
            is_carried: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::OperState(state) => link.is_carried = *state == State::Up,
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                _ => {}
            }
        }
        link
    }
}

impl Route {
    fn message(&self) -> RouteMessage {
        let (prefix, link) = (self.to.prefix(), self.link);
        let scope = if self.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
        match self.to.first() {
            IpAddr::V4(to) => {
                let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(to, prefix)
                    .output_interface(link)
                    .protocol(ROUTE_PROTOCOL)
                    .scope(scope);
                if let Some(IpAddr::V4(via)) = self.via {
                    builder = builder.gateway(via).onlink();
                }
                builder.build()
            }
            IpAddr::V6(to) => {
                let mut builder = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(to, prefix)
                    .output_interface(link)
                    .protocol(ROUTE_PROTOCOL);
                if let Some(IpAddr::V6(via)) = self.via {
                    builder = builder.gateway(via).onlink();
                }
                builder.build()
            }
        }
    }

    /// `None` for routes that are not over one link.
    fn read(message: &RouteMessage) -> Option<Self> {
        let ip = |address: &RouteAddress| match address {
            RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
            RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
            _ => None,
        };
        let any = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let (mut to, mut via, mut link) = (any, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => to = ip(address)?,
                RouteAttribute::Gateway(address) => via = ip(address),
                RouteAttribute::Oif(index) => link = Some(*index),
                _ => {}
            }
        }
        let to = Cidr::new(to, message.header.destination_prefix_length)?;
        Some(Self { to, via, link: link? })
    }
}
