//! Network namespaces for tests: a "host" and its pods, gone when they are dropped.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use camino::Utf8PathBuf;

/// A named namespace of `ip netns`.
pub(crate) struct TestNamespace {
    pub name: String,
}

impl TestNamespace {
    /// `None`, and the reason said, where the machine or the user cannot do that.
    pub fn new(role: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pintle-{role}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                println!(
                    "skipped: cannot make network namespaces: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                return None;
            }
            Err(error) => {
                println!("skipped: cannot run `ip`: {error}");
                return None;
            }
        }
        let namespace = Self { name };
        namespace.ip("link set lo up");
        Some(namespace)
    }

    pub fn path(&self) -> Utf8PathBuf {
        format!("/run/netns/{}", self.name).into()
    }

    /// Runs a command in it.
    pub fn run(&self, command: &str) -> Output {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path()))
            .args(command.split_whitespace())
            .output();
        output.unwrap_or_else(|error| panic!("running nsenter: {error}"))
    }

    /// Runs a command in it that must succeed, and returns what it says.
    pub fn output(&self, command: &str) -> String {
        let output = self.run(command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.output(&format!("ip {arguments}"))
    }

    pub fn can_reach(&self, address: &str) -> bool {
        self.run(&format!("ping -n -c 1 -W 2 {address}")).status.success()
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        // Nothing can be done about it here; the name is this test's own.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}
