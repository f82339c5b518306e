//! Network namespaces of a test's own: everything in them is gone with the last descriptor.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace with its loopback up.
pub(crate) struct Namespace {
    descriptor: OwnedFd,
}

impl Namespace {
    /// `None`, and a line that says why, where this process may not make one.
    pub(crate) fn new() -> Option<Self> {
        #[expect(deprecated, reason = "only the network is unshared, by a thread that ends right after")]
        let made = std::thread::spawn(|| {
            rustix::thread::unshare(UnshareFlags::NEWNET)?;
            File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
        });
        let namespace = match made.join().expect("the thread makes a namespace and nothing else") {
            Ok(descriptor) => Self { descriptor },
            Err(error) => {
                println!("skipped: no network namespace of our own: {error}");
                return None;
            }
        };
        if Command::new("ip").arg("-V").output().is_err() {
            println!("skipped: no ip program to set up links");
            return None;
        }
        // Nobody else is on these links: addresses are usable at once.
        for scope in ["default", "all"] {
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0");
        }
        namespace.ip("link set lo up");
        Some(namespace)
    }

    /// Runs in this namespace, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter();
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves this thread in.
    pub(crate) fn enter(&self) {
        move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("we made the namespace");
    }

    /// A path that `ip link set … netns` understands.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.descriptor.as_raw_fd())
    }

    pub(crate) fn ip(&self, arguments: &str) {
        self.command("ip", &arguments.split_whitespace().collect::<Vec<_>>());
    }

    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value))
            .expect("a namespace's own settings");
    }

    /// The output of a command that must succeed.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(|| Command::new(program).args(arguments).output());
        let output = output.unwrap_or_else(|error| panic!("running {program}: {error}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The whole ruleset as the `nft` program sees it; `None` without one.
    pub(crate) fn ruleset(&self) -> Option<String> {
        if Command::new("nft").arg("-v").output().is_err() {
            println!("skipped in part: no nft program to compare with");
            return None;
        }
        Some(self.command("nft", &["list", "ruleset"]))
    }
}

/// A host with pods behind routed links of their own, and somebody outside.
pub(crate) struct World {
    pub(crate) host: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) pods: Vec<Namespace>,
}

impl World {
    pub(crate) const NODE_V4: &str = "192.168.50.1";
    pub(crate) const NODE_V6: &str = "fd00:50::1";
    pub(crate) const OUTSIDE_V4: &str = "192.168.50.2";
    pub(crate) const OUTSIDE_V6: &str = "fd00:50::2";
    pub(crate) const PODS_V4: &str = "10.244.0.0/24";
    pub(crate) const PODS_V6: &str = "fd00:244::/64";

    pub(crate) fn pod_v4(number: u8) -> IpAddr {
        [10, 244, 0, number + 1].into()
    }

    pub(crate) fn pod_v6(number: u8) -> IpAddr {
        [0xfd00, 0x244, 0, 0, 0, 0, 0, u16::from(number) + 1].into()
    }

    pub(crate) fn new(pods: u8) -> Option<Self> {
        let (host, outside) = (Namespace::new()?, Namespace::new()?);
        host.sysctl("ipv4/ip_forward", "1");
        host.sysctl("ipv6/conf/all/forwarding", "1");
        host.ip(&format!("link add uplink type veth peer name eth0 netns {}", outside.path()));
        host.ip("link set uplink up");
        outside.ip("link set eth0 up");
        for (namespace, link, v4, v6) in [
            (&host, "uplink", Self::NODE_V4, Self::NODE_V6),
            (&outside, "eth0", Self::OUTSIDE_V4, Self::OUTSIDE_V6),
        ] {
            namespace.ip(&format!("addr add {v4}/24 dev {link}"));
            namespace.ip(&format!("addr add {v6}/64 dev {link} nodad"));
        }
        outside.ip(&format!("route add default via {}", Self::NODE_V4));
        outside.ip(&format!("route add default via {}", Self::NODE_V6));
        host.ip(&format!("route add default via {}", Self::OUTSIDE_V4));
        host.ip(&format!("route add default via {}", Self::OUTSIDE_V6));
        let pods: Option<Vec<Namespace>> = (0..pods).map(|number| Self::pod(&host, number)).collect();
        Some(Self { host, outside, pods: pods? })
    }

    fn pod(host: &Namespace, number: u8) -> Option<Namespace> {
        let pod = Namespace::new()?;
        let (link, v4, v6) = (format!("pod{number}"), Self::pod_v4(number), Self::pod_v6(number));
        host.ip(&format!("link add {link} type veth peer name eth0 netns {}", pod.path()));
        host.ip(&format!("addr add 169.254.1.1/32 dev {link} scope link"));
        host.ip(&format!("addr add fe80::1/64 dev {link} nodad"));
        host.ip(&format!("link set {link} up"));
        host.ip(&format!("route add {v4}/32 dev {link}"));
        host.ip(&format!("route add {v6}/128 dev {link}"));
        pod.ip(&format!("addr add {v4}/32 dev eth0"));
        pod.ip(&format!("addr add {v6}/128 dev eth0 nodad"));
        pod.ip("link set eth0 up");
        pod.ip("route add 169.254.1.1 dev eth0 scope link");
        pod.ip("route add default via 169.254.1.1 dev eth0");
        pod.ip("route add default via fe80::1 dev eth0");
        Some(pod)
    }
}
