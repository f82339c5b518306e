//! What this machine is called, where it is reached, and what pods on it see of it.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, anyhow};
use api::amounts::Amounts;
use apimachinery::json;
use camino::{Utf8Path, Utf8PathBuf};
use node::agent::config::{NodeFacts, dns};
use node::agent::eviction::thresholds::Signal;
use node::agent::machine::Machine;

use super::Config;

/// A kernel's default; more processes than this in one pod are a mistake.
const CPU_PERIOD: u64 = 100_000;

/// The machine's name as a node's: lower case.
pub(super) fn hostname() -> anyhow::Result<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().context("the host name is not text")?.trim().to_lowercase();
    if name.is_empty() || name == "(none)" {
        return Err(anyhow!("this machine has no host name: give the node one with --node-name"));
    }
    Ok(name)
}

/// The addresses by which others reach this machine: those that it would send packets from. No packet is sent.
pub fn addresses() -> anyhow::Result<Vec<IpAddr>> {
    let towards = |from: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified() && !address.is_loopback()).then_some(address)
    };
    // Addresses for documentation: they lead wherever the default route does.
    let found: Vec<IpAddr> =
        [towards("0.0.0.0", "192.0.2.1"), towards("::", "2001:db8::1")].into_iter().flatten().collect();
    if found.is_empty() {
        return Err(anyhow!(
            "this machine has no address but the loopback's: give the node one with --node-ip"
        ));
    }
    Ok(found)
}

/// A short name for a folder, the same each time: sockets below it must stay within 108 bytes.
pub(super) fn short_name(path: &Utf8Path) -> String {
    // FNV-1a.
    let hash = path.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

pub(super) fn facts(config: &Config) -> NodeFacts {
    let machine = Machine::read();
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    // As the node's status has them.
    let memory = config.eviction.promised(Signal::MemoryAvailable, machine.memory) >> 10;
    let allocatable = Amounts::of(Some(&json!({
        "cpu": machine.cpus.to_string(), "memory": format!("{memory}Ki"),
    })));
    NodeFacts {
        name: config.name.clone(),
        addresses: config.addresses.clone(),
        allocatable,
        memory_bytes: i64::try_from(machine.memory).unwrap_or(i64::MAX),
        huge_page_sizes: machine.huge_pages.iter().map(|(size, _)| page_size(*size)).collect(),
        cgroup_v2: Utf8Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        cpu_period: CPU_PERIOD,
        pids_limit: 0,
        cluster_domain: config.cluster_domain.clone(),
        cluster_dns: config.cluster_dns.clone(),
        host_dns: dns::parse(&resolv_conf),
        host_hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
        pods_root: config.root.join("pods"),
        logs_root: Utf8PathBuf::from("/var/log/pods"),
        seccomp_root: config.root.join("seccomp"),
        seccomp_default: false,
        unsafe_sysctls: Vec::new(),
    }
}

/// As cgroups name it: `2MB`, `1GB`.
fn page_size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{}KB", bytes >> 10),
        size if size % 1024 == 0 => format!("{}GB", size >> 10),
        size => format!("{size}MB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_differ() {
        let (a, b) = (short_name(Utf8Path::new("/a")), short_name(Utf8Path::new("/b")));
        assert!(a != b && a.len() == 16 && a == short_name(Utf8Path::new("/a")));
        assert_eq!([page_size(64 << 10), page_size(2 << 20), page_size(1 << 30)], ["64KB", "2MB", "1GB"]);
    }
}
