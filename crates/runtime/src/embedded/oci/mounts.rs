//! What is mounted in a container, in order.

use serde_json::{Value, json};

use super::Facts;
use crate::spec::{ContainerConfig, Propagation};

/// What `/proc` shows of the host that a container must not see, as containerd has it.
pub(super) const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// What a container may read there, and not write.
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn decide(config: &ContainerConfig, facts: &Facts<'_>) -> Vec<Value> {
    let privileged = config.security.privileged;
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", if privileged { "rw" } else { "ro" }]),
    ];
    let access = if privileged { "rw" } else { "ro" };
    if facts.cgroup_folders.is_empty() {
        let options = ["nosuid", "noexec", "nodev", "relatime", access];
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    } else {
        mounts.push(mount("/sys/fs/cgroup", "tmpfs", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755"]));
    }
    for (target, source) in facts.cgroup_folders {
        mounts.push(mount(
            target,
            source,
            "bind",
            &["rbind", "rprivate", "nosuid", "noexec", "nodev", access],
        ));
    }
    for (target, source) in facts.files {
        // A pod may bring its own.
        if !config.mounts.iter().any(|mount| mount.target == *target) {
            let access = if config.security.read_only_root && *target != "/dev/shm" { "ro" } else { "rw" };
            mounts.push(mount(target, source, "bind", &["rbind", "rprivate", access]));
        }
    }
    let mut volumes: Vec<_> = config.mounts.iter().zip(facts.sources).collect();
    // A mount below another comes after it.
    volumes.sort_by_key(|(volume, _)| volume.target.components().count());
    for (volume, source) in volumes {
        let mut options = vec!["rbind"];
        options.push(match volume.propagation {
            Propagation::Private => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        });
        options.push(if volume.read_only || volume.image.is_some() { "ro" } else { "rw" });
        if volume.recursive_read_only {
            options.push("rro");
        }
        mounts.push(mount(volume.target.as_str(), source, "bind", &options));
    }
    mounts
}

fn mount(target: &str, source: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": target, "source": source, "type": kind, "options": options})
}
