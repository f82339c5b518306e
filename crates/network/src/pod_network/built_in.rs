//! [`BuiltIn`]: a routed link for each pod of this node.
//!
//! An attach is: addresses (in memory), the record (on disk), the pair of links, the pod's end, the host's end, and last
//! the host's link gets its alias, `pintle <sandbox>`. A link with the alias is complete; one without is made anew. So
//! it may end at any line and be called again, and a detach takes away whatever there is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use runtime::spec::PortMapping;
use runtime::{PodNetwork, SandboxConfig};
use tokio::sync::watch;

use super::host_ports::{HostPort, HostPorts};
use super::ipam::Pool;
use super::link::{Mac, Route};
use super::namespace::Namespace;
use super::records::{Record, Records};
use super::{Backend, Cidr, Error, Readiness, Result};

/// The pod's end of its link.
const POD_LINK: &str = "eth0";
/// Nobody's addresses: only the host's MAC behind them matters.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Of the host's end of every pod's link. They never meet on one link.
const HOST_MAC: Mac = [0xee; 6];
/// Where the host has no way to the world.
const MTU_DEFAULT: u32 = 1500;
const NO_ADDRESSES: &str = "no addresses for pods yet: the node's spec.podCIDRs is empty";
/// Every link of IPv6 carries this.
const MTU_MIN: u32 = 1280;
/// Calls for one sandbox come one after the other; those for others hardly ever wait.
const LOCKS: usize = 64;

/// The index of `lo` in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// What a [`BuiltIn`] is made with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where it remembers what each sandbox was given. What it says ends with the kernel, so it may lie on a tmpfs.
    pub state_directory: Utf8PathBuf,
    /// `None` for what fits through the link of the default route.
    pub mtu: Option<u32>,
    /// Decides how much room the headers between nodes need; so does the family of `node_ip`.
    pub backend: Backend,
    pub node_ip: Option<IpAddr>,
    /// Where packets go with the pod's own address: all pods of the cluster. Empty: the blocks of all Nodes.
    pub cluster_cidrs: Vec<Cidr>,
    /// Whether connections of the host's loopback may go to pods with ports of it. Only where something keeps pods from
    /// the loopback itself.
    pub routes_loopback: bool,
    /// The namespace that stands for the host; `None` for the one this process is in.
    pub network_namespace: Option<Utf8PathBuf>,
}

/// What nftables has to do for packets of pods that leave the cluster: those from `sources`, leaving this node over a
/// link that is no pod's, to a destination outside `except`, get the node's own address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MasqueradeRules {
    /// The addresses of this node's pods.
    pub sources: Vec<Cidr>,
    /// The addresses of all pods, which see each other's own.
    pub except: Vec<Cidr>,
}

/// The built-in pod network. It gives out addresses once [`BuiltIn::set_pod_cidrs`] told it which.
pub struct BuiltIn {
    host: Namespace,
    mtu: u32,
    routes_loopback: bool,
    cluster_cidrs: Vec<Cidr>,
    records: Records<Record>,
    host_ports: Arc<HostPorts>,
    addresses: Mutex<Addresses>,
    masquerade: watch::Sender<MasqueradeRules>,
    locks: [tokio::sync::Mutex<()>; LOCKS],
}

/// Who has which address. Locked for one look-up or one change at a time.
#[derive(Default)]
struct Addresses {
    pools: Vec<Pool>,
    by_sandbox: HashMap<String, Vec<IpAddr>>,
    /// Those that were given out last, before this run.
    newest: Vec<IpAddr>,
}

impl BuiltIn {
    /// Takes up what a former run left.
    pub async fn open(options: Options) -> Result<Self> {
        let host = match &options.network_namespace {
            Some(path) => Namespace::open(path).await?,
            None => Namespace::own()?,
        };
        let mtu = match options.mtu {
            Some(mtu) => mtu,
            None => {
                let room = uplink_mtu(&host).await?;
                room.saturating_sub(options.backend.overhead(options.node_ip)).max(MTU_MIN)
            }
        };
        let records = Records::<Record>::open(&options.state_directory)?;
        let (host_ports, mut addresses) = (HostPorts::default(), Addresses::default());
        for (sandbox, record) in records.load()? {
            if let Err(message) = host_ports.claim(&sandbox, record.host_ports) {
                tracing::warn!(sandbox, message, "A host port was given twice; the first holder keeps it");
            }
            addresses.newest.clone_from(&record.addresses);
            addresses.by_sandbox.insert(sandbox, record.addresses);
        }
        Ok(Self {
            host,
            mtu,
            routes_loopback: options.routes_loopback,
            cluster_cidrs: options.cluster_cidrs,
            records,
            host_ports: Arc::new(host_ports),
            addresses: Mutex::new(addresses),
            masquerade: watch::Sender::new(MasqueradeRules::default()),
            locks: std::array::from_fn(|_| tokio::sync::Mutex::default()),
        })
    }

    /// Says which addresses pods get: the node's `spec.podCIDRs`, one block of a family. Who has one of another block
    /// keeps it. From now on the host forwards packets.
    pub async fn set_pod_cidrs(&self, blocks: &[Cidr]) -> Result<()> {
        let current: Vec<Cidr> = self.addresses.lock().pools.iter().map(Pool::block).collect();
        if current == blocks {
            return Ok(());
        }
        let v6 = blocks.iter().any(|block| !block.is_ipv4());
        self.host.inside(move || forward(v6)).await??;
        self.addresses.lock().set_blocks(blocks);
        let except = if self.cluster_cidrs.is_empty() { blocks } else { &self.cluster_cidrs };
        self.masquerade.send_replace(MasqueradeRules { sources: blocks.to_vec(), except: except.to_vec() });
        tracing::info!(?blocks, mtu = self.mtu, "Pods get addresses");
        Ok(())
    }

    /// Gives this host an address of its own in each block, on its loopback, where it serves pods (cluster DNS, the
    /// API), and says which. None before [`BuiltIn::set_pod_cidrs`].
    pub async fn own_addresses(&self) -> Result<Vec<IpAddr>> {
        let addresses: Vec<IpAddr> = self.addresses.lock().pools.iter().filter_map(Pool::of_node).collect();
        for address in &addresses {
            self.host.add_address(LOOPBACK, *address).await?;
        }
        Ok(addresses)
    }

    /// Whether pods can be attached.
    pub fn ready(&self) -> Readiness {
        if self.addresses.lock().pools.is_empty() {
            return Err(NO_ADDRESSES.to_owned());
        }
        Ok(())
    }

    /// What pods' links carry at most.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The ports of the host that lead to pods, for the service proxy.
    pub fn host_ports(&self) -> Arc<HostPorts> {
        self.host_ports.clone()
    }

    /// What is wanted of nftables, now and whenever it changes; nothing is while there are no sources.
    pub fn masquerade_rules(&self) -> watch::Receiver<MasqueradeRules> {
        self.masquerade.subscribe()
    }

    /// The blocks of all nodes: where packets keep the pod's address, if nobody said where.
    pub(super) fn set_known_cidrs<'a>(&self, blocks: impl Iterator<Item = &'a Cidr>) {
        if self.cluster_cidrs.is_empty() {
            let known: BTreeSet<Cidr> = blocks.copied().collect();
            let known: Vec<Cidr> = known.into_iter().collect();
            self.masquerade.send_if_modified(|rules| {
                let changed = rules.except != known;
                rules.except = known;
                changed
            });
        }
    }

    pub(super) fn host(&self) -> &Namespace {
        &self.host
    }

    async fn connect(
        &self,
        netns: &Utf8Path,
        mappings: &[PortMapping],
        sandbox: &str,
    ) -> Result<Vec<IpAddr>> {
        let _turn = self.locks[fnv(sandbox) as usize % LOCKS].lock().await;
        let name = link_name(sandbox);
        let before = self.host.find_link(&name).await?;
        let (addresses, is_new) = self.addresses.lock().hold(sandbox)?;
        match before {
            Some(link) if !is_new && link.alias == alias(sandbox) => return Ok(addresses),
            Some(_) => self.host.delete_link(&name).await?,
            None => {}
        }
        match self.build(netns, mappings, sandbox, &addresses).await {
            Ok(()) => Ok(addresses),
            Err(error) => {
                // The first error is the one to tell; what is left now is taken away by the detach that follows it.
                let _ = self.disconnect_locked(sandbox).await;
                Err(error)
            }
        }
    }

    async fn build(
        &self,
        netns: &Utf8Path,
        mappings: &[PortMapping],
        sandbox: &str,
        addresses: &[IpAddr],
    ) -> Result<()> {
        let host_ports = HostPort::of(mappings, addresses);
        self.host_ports.claim(sandbox, host_ports.clone()).map_err(Error::Refused)?;
        let routes_loopback = self.routes_loopback && host_ports.iter().any(HostPort::is_of_loopback);
        let record = Record { addresses: addresses.to_vec(), host_ports };
        self.records(sandbox, move |records, sandbox| records.write(sandbox, &record)).await?;

        let pod = Namespace::open(netns).await?;
        let (name, mac) = (link_name(sandbox), pod_mac(sandbox));
        self.add_pair(&name, mac, &pod).await?;
        configure_pod(&pod, addresses).await?;
        self.configure_host(&name, mac, addresses).await?;
        if routes_loopback {
            self.host.set_parameters(vec![(format!("ipv4/conf/{name}/route_localnet"), "1")]).await?;
        }
        // The first packet of the pod, and the first to it, shall not be lost.
        pod.carried(POD_LINK).await?;
        let link = self.host.carried(&name).await?;
        for address in addresses {
            pod.owned(*address).await?;
        }
        self.host.set_link_alias(link, &alias(sandbox)).await
    }

    async fn add_pair(&self, name: &str, pod_mac: Mac, pod: &Namespace) -> Result<()> {
        let mut peer =
            LinkMessageBuilder::<LinkUnspec>::new().name(POD_LINK).address(pod_mac.to_vec()).mtu(self.mtu);
        if let Some(file) = pod.file() {
            peer = peer.setns_by_fd(file.as_raw_fd());
        }
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .address(HOST_MAC.to_vec())
            .mtu(self.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        self.host.add_link(pair.build()).await
    }

    async fn configure_host(&self, name: &str, pod_mac: Mac, addresses: &[IpAddr]) -> Result<()> {
        let link = self.host.link(name).await?.index;
        self.host
            .set_parameters(vec![
                // What comes from the pod has the pod's address, or is dropped.
                (format!("ipv4/conf/{name}/rp_filter"), "1"),
                // The host's end has no address at all, so that it asks and answers nobody.
                (format!("ipv6/conf/{name}/addr_gen_mode"), "1"),
                (format!("ipv6/conf/{name}/accept_ra"), "0"),
            ])
            .await?;
        self.host.set_link_up(link).await?;
        for address in addresses {
            self.host.set_neighbour(link, *address, pod_mac).await?;
            self.host.set_route(Route { to: Cidr::host(*address), via: None, link }).await?;
        }
        Ok(())
    }

    async fn disconnect(&self, sandbox: &str) -> Result<()> {
        let _turn = self.locks[fnv(sandbox) as usize % LOCKS].lock().await;
        self.disconnect_locked(sandbox).await
    }

    /// Routes and neighbours go with their link.
    async fn disconnect_locked(&self, sandbox: &str) -> Result<()> {
        self.host.delete_link(&link_name(sandbox)).await?;
        self.host_ports.release(sandbox);
        self.records(sandbox, |records, sandbox| records.remove(sandbox)).await?;
        self.addresses.lock().release(sandbox);
        Ok(())
    }

    async fn records(
        &self,
        sandbox: &str,
        work: impl FnOnce(&Records<Record>, &str) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (records, sandbox) = (self.records.clone(), sandbox.to_owned());
        tokio::task::spawn_blocking(move || work(&records, &sandbox)).await.map_err(|error| {
            Error::system("keeping records of the pod network", std::io::Error::other(error))
        })?
    }
}

#[async_trait]
impl PodNetwork for BuiltIn {
    async fn attach(
        &self,
        netns: &Utf8Path,
        config: &SandboxConfig,
        sandbox: &str,
    ) -> runtime::Result<Vec<IpAddr>> {
        Ok(self.connect(netns, &config.port_mappings, sandbox).await?)
    }

    async fn detach(&self, _netns: &Utf8Path, _config: &SandboxConfig, sandbox: &str) -> runtime::Result<()> {
        Ok(self.disconnect(sandbox).await?)
    }

    async fn retain(&self, sandboxes: &[String]) -> runtime::Result<()> {
        let wanted: HashSet<&str> = sandboxes.iter().map(String::as_str).collect();
        let gone: Vec<String> = {
            let addresses = self.addresses.lock();
            addresses
                .by_sandbox
                .keys()
                .filter(|sandbox| !wanted.contains(sandbox.as_str()))
                .cloned()
                .collect()
        };
        for sandbox in gone {
            tracing::info!(sandbox, "Taking back the network of a sandbox that is gone");
            self.disconnect(&sandbox).await?;
        }
        Ok(())
    }
}

// === impl Addresses ===

impl Addresses {
    fn set_blocks(&mut self, blocks: &[Cidr]) {
        self.pools = blocks.iter().map(|block| Pool::new(*block)).collect();
        let held = self.by_sandbox.values().flatten().chain(&self.newest);
        for pool in &mut self.pools {
            held.clone().for_each(|address| pool.occupy(*address));
        }
    }

    /// The sandbox' addresses, and whether they are new: one of each block.
    fn hold(&mut self, sandbox: &str) -> Result<(Vec<IpAddr>, bool)> {
        if let Some(held) = self.by_sandbox.get(sandbox) {
            return Ok((held.clone(), false));
        }
        if self.pools.is_empty() {
            return Err(Error::Refused(NO_ADDRESSES.to_owned()));
        }
        let (now, mut given) = (rt::instant(), Vec::with_capacity(self.pools.len()));
        let mut full = None;
        for pool in &mut self.pools {
            match pool.take(now) {
                Some(address) => given.push(address),
                None => full = Some(pool.block()),
            }
        }
        if let Some(block) = full {
            self.free(&given);
            // In the words of upstream's host-local plugin.
            return Err(Error::Refused(format!(
                "no IP addresses available in range set: {}-{}",
                block.first(),
                block.last()
            )));
        }
        self.by_sandbox.insert(sandbox.to_owned(), given.clone());
        Ok((given, true))
    }

    fn release(&mut self, sandbox: &str) {
        if let Some(held) = self.by_sandbox.remove(sandbox) {
            self.free(&held);
        }
    }

    fn free(&mut self, addresses: &[IpAddr]) {
        let now = rt::instant();
        for pool in &mut self.pools {
            addresses.iter().for_each(|address| pool.free(*address, now));
        }
    }
}

impl Backend {
    /// Bytes that it puts around a packet: outer Ethernet, IP, UDP and VXLAN headers.
    pub fn overhead(self, node_ip: Option<IpAddr>) -> u32 {
        match (self, node_ip) {
            (Self::Vxlan, Some(IpAddr::V6(_))) => 70,
            (Self::Vxlan, _) => 50,
            (Self::None | Self::HostGateway, _) => 0,
        }
    }
}

async fn configure_pod(pod: &Namespace, addresses: &[IpAddr]) -> Result<()> {
    // Nobody else is on this link: neither routers that advertise nor a second owner of an address.
    pod.set_parameters(vec![
        (format!("ipv6/conf/{POD_LINK}/accept_ra"), "0"),
        (format!("ipv6/conf/{POD_LINK}/accept_dad"), "0"),
    ])
    .await?;
    let link = pod.link(POD_LINK).await?.index;
    pod.set_link_up(link).await?;
    for address in addresses {
        let (gateway, everywhere) = match address {
            IpAddr::V4(_) => (IpAddr::V4(GATEWAY_V4), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (IpAddr::V6(GATEWAY_V6), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        pod.add_address(link, *address).await?;
        pod.set_neighbour(link, gateway, HOST_MAC).await?;
        let to = Cidr::new(everywhere, 0).expect("a prefix of nothing fits every address");
        pod.set_route(Route { to, via: Some(gateway), link }).await?;
    }
    Ok(())
}

async fn uplink_mtu(host: &Namespace) -> Result<u32> {
    let Some(index) = host.uplink().await? else { return Ok(MTU_DEFAULT) };
    let links = host.links().await?;
    Ok(links.iter().find(|link| link.index == index).map_or(MTU_DEFAULT, |link| link.mtu))
}

/// Makes the host a router. One of IPv6 no longer believes routers by itself: links on which it did, and from which it
/// may have its own default route, are told to go on.
fn forward(v6: bool) -> Result<()> {
    let write = |path: &str, value: &str| {
        let is_so = std::fs::read_to_string(path).is_ok_and(|current| current.trim() == value);
        if is_so { Ok(()) } else { std::fs::write(path, value) }
            .map_err(|error| Error::system(format!("setting {path} to {value}"), error))
    };
    write("/proc/sys/net/ipv4/ip_forward", "1")?;
    if v6 {
        let conf = "/proc/sys/net/ipv6/conf";
        let links =
            std::fs::read_dir(conf).map_err(|error| Error::system(format!("reading {conf}"), error))?;
        for link in links.flatten() {
            let accept = link.path().join("accept_ra");
            if std::fs::read_to_string(&accept).is_ok_and(|value| value.trim() == "1") {
                write(&accept.to_string_lossy(), "2")?;
            }
        }
        write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn alias(sandbox: &str) -> String {
    format!("pintle {sandbox}")
}

/// `veth` and as much of a hash as fits.
pub(super) fn link_name(sandbox: &str) -> String {
    format!("veth{:011x}", fnv(sandbox) >> 20)
}

fn pod_mac(sandbox: &str) -> Mac {
    mac(fnv(sandbox))
}

/// A locally administered address of one station.
pub(super) fn mac(hash: u64) -> Mac {
    let [.., a, b, c, d, e] = hash.to_be_bytes();
    [0x0a, a, b, c, d, e]
}

/// FNV-1a: names that are made of it must be the same in the next version.
pub(super) fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
