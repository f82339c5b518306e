//! Pods on one node, in namespaces of their own.

use std::sync::Arc;
use std::time::Duration;

use api::gvr::NODES;
use apimachinery::{Value, json};
use camino::Utf8Path;
use client::fake::FakeApi;
use client::{Api, Informers};
use rt::Shutdown;
use runtime::spec::{PortMapping, Protocol};
use runtime::{PodNetwork, SandboxConfig};

use super::built_in::link_name;
use super::testing::TestNamespace;
use super::*;

struct Host {
    namespace: TestNamespace,
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Option<Self> {
        if std::process::Command::new("ping").arg("-V").output().is_err() {
            println!("skipped: no ping program to reach addresses with");
            return None;
        }
        let namespace = TestNamespace::new("host")?;
        // Where it answers from.
        namespace.ip("address add 192.0.2.1/32 dev lo");
        namespace.ip("address add 2001:db8::1/128 dev lo");
        Some(Self { namespace, folder: tempfile::tempdir().unwrap() })
    }

    /// The network as a new process would open it.
    async fn network(&self, blocks: &[&str]) -> BuiltIn {
        let options = Options {
            state_directory: Utf8Path::from_path(self.folder.path()).unwrap().to_owned(),
            network_namespace: Some(self.namespace.path()),
            ..Options::default()
        };
        let network = BuiltIn::open(options).await.unwrap();
        let blocks: Vec<Cidr> = blocks.iter().map(|block| Cidr::parse(block).unwrap()).collect();
        network.set_pod_cidrs(&blocks).await.unwrap();
        network
    }
}

const BOTH: [&str; 2] = ["10.88.0.0/24", "fd88::/64"];

async fn attach(network: &BuiltIn, pod: &TestNamespace, sandbox: &str) -> Vec<String> {
    let addresses = network.attach(&pod.path(), &SandboxConfig::default(), sandbox).await.unwrap();
    addresses.iter().map(ToString::to_string).collect()
}

async fn detach(network: &BuiltIn, pod: &TestNamespace, sandbox: &str) {
    network.detach(&pod.path(), &SandboxConfig::default(), sandbox).await.unwrap();
}

#[tokio::test]
async fn pods_reach_each_other_and_the_host_in_both_families() {
    let Some(host) = Host::new() else { return };
    let (a, b) = (TestNamespace::new("pod").unwrap(), TestNamespace::new("pod").unwrap());
    let network = host.network(&BOTH).await;
    let of_a = attach(&network, &a, "a").await;
    let of_b = attach(&network, &b, "b").await;
    assert_eq!(of_a, ["10.88.0.2", "fd88::2"]);
    assert_eq!(of_b, ["10.88.0.3", "fd88::3"]);
    for address in of_b.iter().map(String::as_str).chain(["192.0.2.1", "2001:db8::1"]) {
        assert!(a.can_reach(address), "a to {address}");
    }
    for address in of_a.iter().map(String::as_str) {
        assert!(b.can_reach(address), "b to {address}");
        assert!(host.namespace.can_reach(address), "host to {address}");
    }
    let shown = a.ip("-4 route show");
    assert!(shown.contains("default via 169.254.1.1 dev eth0"), "{shown}");
    // Nothing had to be asked for.
    let neighbours = host.namespace.ip("neigh show nud all");
    assert!(!neighbours.contains("REACHABLE") && neighbours.contains("10.88.0.2"), "{neighbours}");
}

#[tokio::test]
async fn a_pod_cannot_send_as_another() {
    let Some(host) = Host::new() else { return };
    let (a, b) = (TestNamespace::new("pod").unwrap(), TestNamespace::new("pod").unwrap());
    let network = host.network(&BOTH[..1]).await;
    attach(&network, &a, "a").await;
    let of_b = attach(&network, &b, "b").await;
    a.ip("address add 10.88.0.77/32 dev eth0");
    assert!(a.can_reach(&of_b[0]));
    assert!(!a.run(&format!("ping -n -c 1 -W 1 -I 10.88.0.77 {}", of_b[0])).status.success());
    let counted = b.output("cat /proc/net/snmp");
    let icmp: Vec<&str> = counted.lines().filter(|line| line.starts_with("Icmp: ")).collect();
    let received = icmp[1].split_whitespace().nth(1).unwrap();
    assert_eq!(received, "1", "only the honest packet came through: {icmp:?}");
}

#[tokio::test]
async fn attaching_again_changes_nothing_also_after_a_restart() {
    let Some(host) = Host::new() else { return };
    let pod = TestNamespace::new("pod").unwrap();
    let network = host.network(&BOTH).await;
    let first = attach(&network, &pod, "a").await;
    let link = host.namespace.ip(&format!("link show {}", link_name("a")));
    assert!(link.contains("alias pintle a"), "{link}");
    assert_eq!(attach(&network, &pod, "a").await, first);

    drop(network);
    let network = host.network(&BOTH).await;
    assert_eq!(attach(&network, &pod, "a").await, first);
    assert_eq!(host.namespace.ip(&format!("link show {}", link_name("a"))), link, "it is the same link");
    let other = TestNamespace::new("pod").unwrap();
    assert_eq!(attach(&network, &other, "b").await, ["10.88.0.3", "fd88::3"]);
}

#[tokio::test]
async fn an_attach_that_was_cut_short_is_finished_by_the_next() {
    let Some(host) = Host::new() else { return };
    let pod = TestNamespace::new("pod").unwrap();
    let network = host.network(&BOTH).await;
    let addresses = attach(&network, &pod, "a").await;
    assert!(host.namespace.can_reach("10.88.0.2"));
    // As if the process had died before the last step.
    host.namespace.ip(&format!("link set {} alias x", link_name("a")));
    host.namespace.ip("route delete 10.88.0.2/32");
    assert!(!host.namespace.can_reach("10.88.0.2"));
    let network = host.network(&BOTH).await;
    assert_eq!(attach(&network, &pod, "a").await, addresses);
    assert!(host.namespace.can_reach("10.88.0.2"));
}

#[tokio::test]
async fn a_detach_gives_everything_back_and_may_come_again() {
    let Some(host) = Host::new() else { return };
    let pod = TestNamespace::new("pod").unwrap();
    let network = host.network(&BOTH).await;
    attach(&network, &pod, "a").await;
    detach(&network, &pod, "a").await;
    detach(&network, &pod, "a").await;
    detach(&network, &pod, "never-attached").await;
    assert!(!host.namespace.run(&format!("ip link show {}", link_name("a"))).status.success());
    assert!(!pod.run("ip link show eth0").status.success());
    let routes = host.namespace.ip("route show") + &host.namespace.ip("-6 route show proto 80");
    assert!(!routes.contains("88"), "{routes}");
    assert_eq!(host.folder.path().read_dir().unwrap().count(), 0);
    // The address is left alone for a while.
    assert_eq!(attach(&network, &pod, "b").await, ["10.88.0.3", "fd88::3"]);
}

#[tokio::test]
async fn what_belongs_to_no_sandbox_is_taken_back_also_without_its_namespace() {
    let Some(host) = Host::new() else { return };
    let (kept, gone) = (TestNamespace::new("pod").unwrap(), TestNamespace::new("pod").unwrap());
    let network = host.network(&BOTH).await;
    attach(&network, &kept, "kept").await;
    attach(&network, &gone, "gone").await;
    attach(&network, &TestNamespace::new("pod").unwrap(), "vanished").await;
    drop(network);
    let network = host.network(&BOTH).await;
    network.retain(&["kept".to_owned()]).await.unwrap();
    let links = host.namespace.ip("-o link show type veth");
    assert!(links.contains("pintle kept") && links.lines().count() == 1, "{links}");
    assert_eq!(host.folder.path().read_dir().unwrap().count(), 1);
}

#[tokio::test]
async fn a_taken_host_port_is_refused_and_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let (a, b) = (TestNamespace::new("pod").unwrap(), TestNamespace::new("pod").unwrap());
    let network = host.network(&BOTH).await;
    let mapping = PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None };
    let config = SandboxConfig { port_mappings: vec![mapping], ..SandboxConfig::default() };
    network.attach(&a.path(), &config, "a").await.unwrap();
    let error = network.attach(&b.path(), &config, "b").await.unwrap_err();
    assert_eq!(error.to_string(), "host port 8080/TCP is in use by sandbox a");
    assert_eq!(host.folder.path().read_dir().unwrap().count(), 1);
    // A new process knows it as well.
    let network = host.network(&BOTH).await;
    assert_eq!(network.host_ports().watch().borrow().len(), 2);
    network.attach(&b.path(), &config, "b").await.unwrap_err();
    network.detach(&a.path(), &config, "a").await.unwrap();
    network.attach(&b.path(), &config, "b").await.unwrap();
}

#[tokio::test]
async fn without_a_block_or_a_free_address_nobody_is_attached() {
    let Some(host) = Host::new() else { return };
    let pod = TestNamespace::new("pod").unwrap();
    let network = host.network(&[]).await;
    assert!(network.ready().is_err());
    let error = network.attach(&pod.path(), &SandboxConfig::default(), "a").await.unwrap_err();
    assert_eq!(error.to_string(), "no addresses for pods yet: the node's spec.podCIDRs is empty");
    network.set_pod_cidrs(&[Cidr::parse("10.88.0.4/30").unwrap()]).await.unwrap();
    network.ready().unwrap();
    attach(&network, &pod, "a").await;
    attach(&network, &TestNamespace::new("pod").unwrap(), "b").await;
    let error = network.attach(&pod.path(), &SandboxConfig::default(), "c").await.unwrap_err();
    assert_eq!(error.to_string(), "no IP addresses available in range set: 10.88.0.4-10.88.0.7");
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_named() {
    let Some(host) = Host::new() else { return };
    let network = host.network(&BOTH).await;
    let nowhere = Utf8Path::new("/run/netns/pintle-not-there");
    let error = network.attach(nowhere, &SandboxConfig::default(), "a").await.unwrap_err().to_string();
    assert!(
        error.starts_with("opening network namespace /run/netns/pintle-not-there: No such file"),
        "{error}"
    );
    assert_eq!(host.folder.path().read_dir().unwrap().count(), 0);
}

/// The figure of the brief is 10 ms for one; here the bound is wide, for machines that are busy, and the figure shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_at_once_are_attached_quickly() {
    const PODS: usize = 100;
    let Some(host) = Host::new() else { return };
    let pods: Vec<_> = (0..PODS).map(|_| TestNamespace::new("pod").unwrap()).collect();
    let network = host.network(&BOTH).await;
    let start = rt::instant();
    attach(&network, &pods[0], "s0").await;
    let one = start.elapsed();
    let start = rt::instant();
    let rest = pods.iter().enumerate().skip(1).map(|(index, pod)| {
        let network = &network;
        async move { attach(network, pod, &format!("s{index}")).await }
    });
    let all = futures::future::join_all(rest).await;
    let elapsed = start.elapsed();
    println!("attach: one in {one:?}, {} at once in {elapsed:?}", PODS - 1);
    let distinct: std::collections::HashSet<_> = all.iter().flatten().collect();
    assert_eq!(distinct.len(), 2 * (PODS - 1));
    assert!(one < Duration::from_secs(1) && elapsed < Duration::from_secs(30));
    assert!(pods[0].can_reach(&all[PODS - 2][0]));
    let start = rt::instant();
    futures::future::join_all((0..PODS).map(|index| {
        let (network, pod) = (&network, &pods[index]);
        async move { detach(network, pod, &format!("s{index}")).await }
    }))
    .await;
    println!("detach: {PODS} at once in {:?}", start.elapsed());
    assert!(host.namespace.ip("-o link show type veth").is_empty());
}

// === Several nodes ===

const WAIT: Duration = Duration::from_secs(20);

fn node(name: &str, number: u8) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDRs": [format!("10.88.{number}.0/24"), format!("fd88:{number}::/64")]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.0.2.{number}")},
            {"type": "InternalIP", "address": format!("2001:db8::{number}")},
        ]}
    })
}

/// Two hosts on one link, with a pod each.
struct Cluster {
    hosts: [Host; 2],
    pods: [TestNamespace; 2],
    networks: Vec<Arc<BuiltIn>>,
    addresses: Vec<Vec<String>>,
    api: Arc<FakeApi>,
    shutdown: Shutdown,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    async fn start(backend: Backend) -> Option<Self> {
        let namespace = || TestNamespace::new("node");
        let spaces = [namespace()?, namespace()?];
        spaces[0].ip(&format!("link add up0 type veth peer name up0 netns {}", spaces[1].name));
        for (space, number) in spaces.iter().zip([1, 2]) {
            // Without waiting for somebody who has the same address.
            space.output("sysctl -q -w net.ipv6.conf.up0.accept_dad=0");
            space.ip("link set up0 up");
            space.ip(&format!("address add 192.0.2.{number}/24 dev up0"));
            space.ip(&format!("address add 2001:db8::{number}/64 dev up0 nodad"));
            // As many distributions have it.
            space.output("sysctl -q -w net.ipv4.conf.all.rp_filter=1");
        }
        let hosts = spaces.map(|namespace| Host { namespace, folder: tempfile::tempdir().unwrap() });
        let (api, shutdown) = (FakeApi::new(), Shutdown::new());
        api.seed(node("a", 1));
        api.seed(node("b", 2));
        let mut networks = Vec::new();
        for (host, (name, number)) in hosts.iter().zip([("a", 1), ("b", 2)]) {
            let node_ip: std::net::IpAddr = [192, 0, 2, number].into();
            let options = Options {
                state_directory: Utf8Path::from_path(host.folder.path()).unwrap().to_owned(),
                network_namespace: Some(host.namespace.path()),
                mtu: Some(1500 - backend.overhead(Some(node_ip))),
                backend,
                ..Options::default()
            };
            let network = Arc::new(BuiltIn::open(options).await.unwrap());
            let informers = Informers::new(api.clone() as Arc<dyn Api>, shutdown.clone());
            let options = PeerOptions { node_name: name.to_owned(), node_ip, backend };
            rt::spawn("test-peers", run(network.clone(), informers, options, shutdown.clone()));
            networks.push(network);
        }
        let pods = [TestNamespace::new("pod").unwrap(), TestNamespace::new("pod").unwrap()];
        let mut addresses = Vec::new();
        for (network, pod) in networks.iter().zip(&pods) {
            let ready = async {
                while network.ready().is_err() {
                    tokio::task::yield_now().await;
                }
            };
            rt::timeout(WAIT, ready).await.expect("the node gets its blocks");
            addresses.push(attach(network, pod, "pod").await);
        }
        let cluster = Self { hosts, pods, networks, addresses, api, shutdown };
        cluster
            .until("each node has a route to the other", |cluster| {
                cluster.routes(0).contains("10.88.2.0/24") && cluster.routes(1).contains("10.88.1.0/24")
            })
            .await;
        Some(cluster)
    }

    fn routes(&self, host: usize) -> String {
        let host = &self.hosts[host].namespace;
        host.ip("-4 route show proto 80") + &host.ip("-6 route show proto 80")
    }

    async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let reached = async {
            while !reached(self) {
                rt::sleep(Duration::from_millis(20)).await;
            }
        };
        rt::timeout(WAIT, reached).await.unwrap_or_else(|_| panic!("waited for: {what}"));
    }
}

#[tokio::test]
async fn pods_of_two_nodes_reach_each_other_through_the_tunnel() {
    let Some(cluster) = Cluster::start(Backend::Vxlan).await else { return };
    for address in &cluster.addresses[1] {
        assert!(cluster.pods[0].can_reach(address), "pod to {address}");
        assert!(cluster.hosts[0].namespace.can_reach(address), "host to {address}");
    }
    // A full packet fits, and none larger.
    let ping = |size: u32| {
        let command = format!("ping -n -c 1 -W 2 -M do -s {size} {}", cluster.addresses[1][0]);
        cluster.pods[0].run(&command).status.success()
    };
    assert_eq!(cluster.networks[0].mtu(), 1450);
    assert!(ping(1450 - 28) && !ping(1451 - 28));
    let except: Vec<_> =
        cluster.networks[0].masquerade_rules().borrow().except.iter().map(ToString::to_string).collect();
    assert_eq!(except, ["10.88.1.0/24", "10.88.2.0/24", "fd88:1::/64", "fd88:2::/64"]);

    cluster.api.drop_object(&NODES, "", "b");
    cluster.until("the way is gone with its node", |cluster| !cluster.routes(0).contains("88.2.0")).await;
    cluster
        .until("nothing else of it is left", |cluster| {
            let host = &cluster.hosts[0].namespace;
            let left = host.output("bridge fdb show dev pintle.1") + &host.ip("neigh show dev pintle.1");
            !left.contains("192.0.2.2") && !left.contains("10.88.2.0") && !left.contains("fd88:2::")
        })
        .await;
    // It comes back under another number, and its pods with it.
    cluster.api.seed(node("c", 2));
    cluster.until("the new node has a route", |cluster| cluster.routes(0).contains("10.88.2.0/24")).await;
}

#[tokio::test]
async fn nodes_on_one_link_need_no_tunnel() {
    let Some(cluster) = Cluster::start(Backend::HostGateway).await else { return };
    for address in &cluster.addresses[1] {
        assert!(cluster.pods[0].can_reach(address), "pod to {address}");
        assert!(cluster.hosts[0].namespace.can_reach(address), "host to {address}");
    }
    assert!(cluster.routes(0).contains("10.88.2.0/24 via 192.0.2.2 dev up0"), "{}", cluster.routes(0));
    assert!(!cluster.hosts[0].namespace.run("ip link show pintle.1").status.success());
}
