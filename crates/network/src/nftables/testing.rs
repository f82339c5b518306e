//! Network namespaces of a test's own: everything in them is gone with the last descriptor.

use std::fs::File;
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
