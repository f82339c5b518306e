//! Version 1: a hierarchy for each controller, or a few.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Figures, Setting, keyed, number};
use crate::spec::Resources;

/// Controllers that are told apart; what else is mounted is nobody's business here.
pub(super) const CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];

/// Swap is bounded with memory, so that a limit is one.
pub(super) fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if resources.cpu_shares != 0 {
        settings.push(Setting::new("cpu", "cpu.shares", resources.cpu_shares));
    }
    // The period first: a quota is checked against it.
    if resources.cpu_period != 0 {
        settings.push(Setting::new("cpu", "cpu.cfs_period_us", resources.cpu_period));
    }
    if resources.cpu_quota != 0 {
        settings.push(Setting::new("cpu", "cpu.cfs_quota_us", resources.cpu_quota));
    }
    if resources.memory_limit != 0 {
        settings.push(Setting::new("memory", "memory.limit_in_bytes", resources.memory_limit));
    }
    if resources.pids_limit > 0 {
        settings.push(Setting::new("pids", "pids.max", resources.pids_limit));
    }
    if !resources.cpuset_cpus.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.cpus", &resources.cpuset_cpus));
    }
    for (size, limit) in &resources.hugepages {
        settings.push(Setting::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), limit));
    }
    settings
}

pub(super) fn create(mounts: &[(String, Utf8PathBuf)], path: &str) -> io::Result<()> {
    for (controller, root) in mounts {
        let mut dir = root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let parent = dir.clone();
            dir.push(part);
            match std::fs::create_dir(&dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("cannot make {dir}: {error}")));
                }
            }
            if controller == "cpuset" {
                inherit_cpuset(&parent, &dir)?;
            }
        }
    }
    Ok(())
}

/// A new set is empty, and nothing can run in it.
fn inherit_cpuset(parent: &Utf8Path, dir: &Utf8Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if std::fs::read_to_string(dir.join(file))?.trim().is_empty() {
            std::fs::write(dir.join(file), std::fs::read_to_string(parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

pub(super) fn figures(dir: impl Fn(&str) -> Option<Utf8PathBuf>) -> Option<Figures> {
    let memory = dir("memory")?;
    let usage = number(&memory, "memory.usage_in_bytes")?;
    let details = std::fs::read_to_string(memory.join("memory.stat")).ok()?;
    let detail = |key| keyed(&details, key).unwrap_or(0);
    Some(Figures {
        cpu_usage: dir("cpuacct").and_then(|dir| number(&dir, "cpuacct.usage")).unwrap_or(0),
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(detail("total_inactive_file")),
        memory_rss: detail("total_rss"),
        page_faults: detail("total_pgfault"),
        major_page_faults: detail("total_pgmajfault"),
        processes: dir("pids").and_then(|dir| number(&dir, "pids.current")).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_written() {
        assert_eq!(settings(&Resources::default()), []);
        let resources = Resources {
            cpu_shares: 512,
            cpu_quota: 20_000,
            cpu_period: 100_000,
            memory_limit: 1 << 20,
            pids_limit: 5,
            cpuset_cpus: "0-1".into(),
            hugepages: [("2MB".to_owned(), 0)].into(),
            ..Resources::default()
        };
        let written: Vec<_> = settings(&resources)
            .into_iter()
            .map(|setting| format!("{}={}", setting.file, setting.value))
            .collect();
        assert_eq!(
            written,
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=20000",
                "memory.limit_in_bytes=1048576",
                "pids.max=5",
                "cpuset.cpus=0-1",
                "hugetlb.2MB.limit_in_bytes=0",
            ]
        );
    }
}
