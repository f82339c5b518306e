//! Version 2: one hierarchy.

use std::io;

use camino::Utf8Path;

use super::{Figures, Setting, keyed, number};
use crate::spec::Resources;

/// What pods may be limited in.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "hugetlb", "pids"];

pub(super) fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if resources.cpu_shares != 0 {
        settings.push(Setting::new("cpu", "cpu.weight", weight(resources.cpu_shares)));
    }
    if resources.cpu_quota != 0 || resources.cpu_period != 0 {
        let quota = if resources.cpu_quota > 0 { resources.cpu_quota.to_string() } else { "max".to_owned() };
        let period = if resources.cpu_period == 0 { 100_000 } else { resources.cpu_period };
        settings.push(Setting::new("cpu", "cpu.max", format!("{quota} {period}")));
    }
    if resources.memory_limit != 0 {
        settings.push(Setting::new("memory", "memory.max", limit(resources.memory_limit)));
    }
    if resources.pids_limit > 0 {
        settings.push(Setting::new("pids", "pids.max", resources.pids_limit));
    }
    if !resources.cpuset_cpus.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.cpus", &resources.cpuset_cpus));
    }
    for (size, bytes) in &resources.hugepages {
        settings.push(Setting::new("hugetlb", format!("hugetlb.{size}.max"), bytes));
    }
    for (file, value) in &resources.unified {
        let controller = CONTROLLERS.into_iter().find(|name| file.split('.').next() == Some(name));
        if let Some(controller) = controller.filter(|_| !file.contains('/')) {
            settings.push(Setting::new(controller, file, value));
        }
    }
    settings
}

fn limit(bytes: i64) -> String {
    if bytes < 0 { "max".to_owned() } else { bytes.to_string() }
}

/// Shares of version 1, 2 to 262144, as a weight, 1 to 10000; the formula is everybody's.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

pub(super) fn create(root: &Utf8Path, path: &str) -> io::Result<()> {
    let mut dir = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        for controller in CONTROLLERS {
            // One that this kernel lacks, or that is not delegated here, limits nothing.
            let _ = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        dir.push(part);
        match std::fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("cannot make {dir}: {error}"))),
        }
    }
    Ok(())
}

pub(super) fn figures(dir: &Utf8Path) -> Option<Figures> {
    let usage = number(dir, "memory.current")?;
    let details = std::fs::read_to_string(dir.join("memory.stat")).ok()?;
    let detail = |key| keyed(&details, key).unwrap_or(0);
    let cpu = std::fs::read_to_string(dir.join("cpu.stat")).ok();
    Some(Figures {
        cpu_usage: cpu.and_then(|text| keyed(&text, "usage_usec")).unwrap_or(0).saturating_mul(1000),
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(detail("inactive_file")),
        memory_rss: detail("anon"),
        page_faults: detail("pgfault"),
        major_page_faults: detail("pgmajfault"),
        processes: number(dir, "pids.current").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_at_both_ends_and_between() {
        for (shares, want) in [(2, 1), (1024, 39), (262_144, 10_000), (0, 1)] {
            assert_eq!(weight(shares), want, "{shares}");
        }
    }

    #[test]
    fn limits_are_written_in_the_words_of_version_2() {
        let resources = Resources {
            cpu_quota: -1,
            memory_limit: -1,
            unified: [("memory.high".to_owned(), "1000".to_owned()), ("../x".to_owned(), "1".to_owned())]
                .into(),
            ..Resources::default()
        };
        let written: Vec<_> = settings(&resources)
            .into_iter()
            .map(|setting| format!("{}={}", setting.file, setting.value))
            .collect();
        assert_eq!(written, ["cpu.max=max 100000", "memory.max=max", "memory.high=1000"]);
        assert_eq!(settings(&Resources::default()), []);
    }
}
