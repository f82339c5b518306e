//! What the kernel counts of a cgroup, of either version.

use camino::{Utf8Path, Utf8PathBuf};

/// What all processes of a cgroup use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Nanoseconds.
    pub cpu: u64,
    pub memory: u64,
    pub working_set: u64,
    pub rss: u64,
    pub swap: Option<u64>,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

/// Reads a cgroup below the mounts at `root`; `None` where it is not there. `path` is relative to each hierarchy.
pub(super) fn read(root: &Utf8Path, path: &str) -> Option<Usage> {
    let path = path.trim_start_matches('/');
    version_1(root, path).or_else(|| version_2(root, path))
}

/// The cgroup of a pod, in whichever class it is.
pub(super) fn read_pod(root: &Utf8Path, uid: &str) -> Option<Usage> {
    ["", "burstable/", "besteffort/"]
        .iter()
        .find_map(|class| read(root, &format!("kubepods/{class}pod{uid}")))
}

fn version_1(root: &Utf8Path, path: &str) -> Option<Usage> {
    let cpu = ["cpuacct", "cpu,cpuacct"]
        .iter()
        .find_map(|name| number(&root.join(name).join(path).join("cpuacct.usage")))?;
    let memory = root.join("memory").join(path);
    let used = number(&memory.join("memory.usage_in_bytes"))?;
    let stat = std::fs::read_to_string(memory.join("memory.stat")).ok()?;
    let of = |name| field(&stat, name).unwrap_or_default();
    Some(Usage {
        cpu,
        memory: used,
        working_set: used.saturating_sub(of("total_inactive_file")),
        rss: of("total_rss"),
        swap: field(&stat, "total_swap"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
    })
}

fn version_2(root: &Utf8Path, path: &str) -> Option<Usage> {
    let directory = root.join(path);
    let cpu = std::fs::read_to_string(directory.join("cpu.stat")).ok()?;
    let used = number(&directory.join("memory.current"))?;
    let stat = std::fs::read_to_string(directory.join("memory.stat")).ok()?;
    let of = |name| field(&stat, name).unwrap_or_default();
    Some(Usage {
        cpu: field(&cpu, "usage_usec")?.saturating_mul(1000),
        memory: used,
        working_set: used.saturating_sub(of("inactive_file")),
        rss: of("anon"),
        swap: number(&directory.join("memory.swap.current")),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
    })
}

fn number(path: &Utf8PathBuf) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A line `<name> <number>`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Utf8Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    #[test]
    fn both_versions_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
        let wanted = Usage {
            cpu: 5_000_000,
            memory: 100,
            working_set: 70,
            rss: 40,
            swap: Some(3),
            page_faults: 9,
            major_page_faults: 2,
        };
        assert_eq!(read_pod(&root, "u1"), None);
        write(&root, "cpuacct/kubepods/burstable/podu1/cpuacct.usage", "5000000\n");
        write(&root, "memory/kubepods/burstable/podu1/memory.usage_in_bytes", "100\n");
        let stat = "rss 1\ntotal_rss 40\ntotal_inactive_file 30\ntotal_swap 3\ntotal_pgfault 9\ntotal_pgmajfault 2\n";
        write(&root, "memory/kubepods/burstable/podu1/memory.stat", stat);
        assert_eq!(read_pod(&root, "u1"), Some(wanted));

        write(&root, "kubepods/podu2/cpu.stat", "usage_usec 5000\nuser_usec 1\n");
        write(&root, "kubepods/podu2/memory.current", "100\n");
        write(&root, "kubepods/podu2/memory.swap.current", "3\n");
        write(&root, "kubepods/podu2/memory.stat", "anon 40\ninactive_file 30\npgfault 9\npgmajfault 2\n");
        assert_eq!(read_pod(&root, "u2"), Some(wanted));
    }
}
