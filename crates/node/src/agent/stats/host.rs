//! What the kernel counts of the whole machine, and of network namespaces and filesystems.

use std::io;

use camino::Utf8Path;
use jiff::Timestamp;

use super::{Error, Filesystem};

/// Nanoseconds of a clock tick in `/proc`: fixed at a hundredth of a second for user space.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// What the machine uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Host {
    /// Nanoseconds that all CPUs worked.
    pub cpu: u64,
    pub cpus: u64,
    pub booted: Timestamp,
    pub memory_total: u64,
    pub memory_used: u64,
    pub working_set: u64,
    pub rss: u64,
    pub swap_total: u64,
    pub swap_used: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
    pub processes_max: u64,
    pub interfaces: Vec<Interface>,
}

/// What went through a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub name: String,
    pub received_bytes: u64,
    pub receive_errors: u64,
    pub sent_bytes: u64,
    pub send_errors: u64,
}

impl Host {
    /// Reads what is below `/proc`.
    pub(super) fn read(proc: &Utf8Path) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = proc.join(name);
            std::fs::read_to_string(&path).map_err(|source| Error::Kernel { path, source })
        };
        let malformed = |name: &str| Error::Malformed(proc.join(name));
        let mut host = Self { interfaces: interfaces(&read("net/dev")?), ..Self::default() };
        host.take_stat(&read("stat")?).ok_or_else(|| malformed("stat"))?;
        host.take_memory(&read("meminfo")?).ok_or_else(|| malformed("meminfo"))?;
        let vmstat = read("vmstat")?;
        host.page_faults = named(&vmstat, "pgfault").unwrap_or_default();
        host.major_page_faults = named(&vmstat, "pgmajfault").unwrap_or_default();
        host.processes = processes(&read("loadavg")?).ok_or_else(|| malformed("loadavg"))?;
        let limit = read("sys/kernel/pid_max")?;
        host.processes_max = limit.trim().parse().map_err(|_| malformed("sys/kernel/pid_max"))?;
        Ok(host)
    }

    fn take_stat(&mut self, stat: &str) -> Option<()> {
        let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal; what guests use is in user.
        let ticks: Vec<u64> = all.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        let at = |index: usize| ticks.get(index).copied().unwrap_or_default();
        let busy = [0, 1, 2, 5, 6, 7].map(at).iter().sum::<u64>();
        self.cpu = busy.saturating_mul(TICK_NANOSECONDS);
        let is_cpu = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
        self.cpus = stat.lines().filter(is_cpu).count() as u64;
        self.booted = Timestamp::from_second(named(stat, "btime")?.try_into().ok()?).ok()?;
        Some(())
    }

    fn take_memory(&mut self, meminfo: &str) -> Option<()> {
        let bytes = |name: &str| named(meminfo, name).map(|kib| kib.saturating_mul(1024));
        self.memory_total = bytes("MemTotal:")?;
        self.memory_used = self.memory_total.saturating_sub(bytes("MemFree:")?);
        self.working_set = self.memory_used.saturating_sub(bytes("Inactive(file):").unwrap_or_default());
        self.rss = bytes("AnonPages:").unwrap_or_default();
        self.swap_total = bytes("SwapTotal:").unwrap_or_default();
        self.swap_used = self.swap_total.saturating_sub(bytes("SwapFree:").unwrap_or_default());
        Some(())
    }
}

/// The first number of the line that begins with a name.
fn named(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(char::is_whitespace).then(|| rest.split_ascii_whitespace().next()?.parse().ok())?
    })
}

/// `0.1 0.2 0.3 <running>/<all> <last pid>`.
fn processes(loadavg: &str) -> Option<u64> {
    loadavg.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// Of a network namespace, without its loopback.
pub(super) fn interfaces(dev: &str) -> Vec<Interface> {
    let lines = dev.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, numbers)| {
            let numbers: Vec<u64> =
                numbers.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
            Some(Interface {
                name: name.trim().to_owned(),
                received_bytes: *numbers.first()?,
                receive_errors: *numbers.get(2)?,
                sent_bytes: *numbers.get(8)?,
                send_errors: *numbers.get(10)?,
            })
        })
        .filter(|interface| interface.name != "lo")
        .collect()
}

/// How full the filesystem is that something lies on.
pub(crate) fn filesystem(path: &Utf8Path) -> io::Result<Filesystem> {
    let stat = rustix::fs::statvfs(path.as_std_path())?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Filesystem {
        capacity_bytes: bytes(stat.f_blocks),
        available_bytes: bytes(stat.f_bavail),
        used_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        inodes: stat.f_files,
        free_inodes: stat.f_ffree,
        used_inodes: stat.f_files.saturating_sub(stat.f_ffree),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let host = Host::read(Utf8Path::new("/proc")).unwrap();
        assert!(host.cpus > 0 && host.cpu > 0 && host.processes > 0 && host.page_faults > 0, "{host:?}");
        assert!(host.working_set <= host.memory_used && host.memory_used < host.memory_total, "{host:?}");
        assert!(filesystem(Utf8Path::new("/")).unwrap().capacity_bytes > 0);
        assert!(matches!(Host::read(Utf8Path::new("/nowhere")), Err(Error::Kernel { .. })));
    }

    #[test]
    fn figures_are_taken_from_where_they_stand() {
        let mut host = Host::default();
        host.take_stat("cpu  1 2 4 800 1600 8 16 32 0 0\ncpu0 1 2\ncpu1 1 2\nintr 5\nbtime 1767225600\n")
            .unwrap();
        assert_eq!((host.cpu, host.cpus), (63 * TICK_NANOSECONDS, 2));
        assert_eq!(host.booted.to_string(), "2026-01-01T00:00:00Z");
        let memory =
            "MemTotal: 100 kB\nMemFree: 30 kB\nInactive:  50 kB\nInactive(file): 20 kB\nAnonPages: 10 kB\n";
        host.take_memory(memory).unwrap();
        assert_eq!((host.memory_used, host.working_set, host.rss), (70 << 10, 50 << 10, 10 << 10));
        assert_eq!(processes("0.01 0.02 0.03 2/345 6789\n"), Some(345));
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12\n\
            eth0:100 2 3 4 5 6 7 8 900 10 11 12 0 0 0 0\n";
        let wanted = Interface {
            name: "eth0".to_owned(),
            received_bytes: 100,
            receive_errors: 3,
            sent_bytes: 900,
            send_errors: 11,
        };
        assert_eq!(interfaces(dev), [wanted]);
        assert!(host.take_stat("nothing").is_none());
    }
}
