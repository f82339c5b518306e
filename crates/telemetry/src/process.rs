//! What the kernel knows about this process, under the names that every Prometheus client uses.

use std::fs;

use crate::metric::Encoder;

/// Clock ticks per second in `/proc`: fixed at 100 for user space on the architectures we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes the `process_*` metrics; those that `/proc` does not give are left out.
pub(crate) fn encode(encoder: &mut Encoder) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        let help = "Total user and system CPU time spent in seconds.";
        encoder.value("process_cpu_seconds_total", help, "counter", "", stat.cpu_seconds);
        if let Some(boot) = boot_time() {
            let help = "Start time of the process since unix epoch in seconds.";
            encoder.value(
                "process_start_time_seconds",
                help,
                "gauge",
                "",
                boot + stat.start_seconds_after_boot,
            );
        }
    }
    if let Some((virtual_bytes, resident_bytes)) = memory() {
        let help = "Resident memory size in bytes.";
        encoder.value("process_resident_memory_bytes", help, "gauge", "", resident_bytes);
        let help = "Virtual memory size in bytes.";
        encoder.value("process_virtual_memory_bytes", help, "gauge", "", virtual_bytes);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        let help = "Number of open file descriptors.";
        encoder.value("process_open_fds", help, "gauge", "", descriptors.count() as f64);
    }
    if let Some(limit) = descriptor_limit() {
        encoder.value("process_max_fds", "Maximum number of open file descriptors.", "gauge", "", limit);
    }
}

struct Stat {
    cpu_seconds: f64,
    start_seconds_after_boot: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The command name is in parentheses and may hold anything, so count from the last one; the first field
        // after it is the third of proc(5).
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |proc_field: usize| fields.get(proc_field - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            start_seconds_after_boot: ticks(22)? / TICKS_PER_SECOND,
        })
    }
}

/// Seconds since the epoch at which the machine booted.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|seconds| seconds.trim().parse().ok())
}

/// Virtual and resident size in bytes.
fn memory() -> Option<(f64, f64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
    };
    Some((bytes("VmSize:")?, bytes("VmRSS:")?))
}

fn descriptor_limit() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_and_parentheses_shifts_nothing() {
        let text = "42 (a) b (c)) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0 700 0 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.cpu_seconds, stat.start_seconds_after_boot), (3.0, 7.0));
        assert!(Stat::parse("42 (a) S 1").is_none());
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let mut encoder = Encoder::new();
        encode(&mut encoder);
        let text = encoder.finish();
        for name in ["process_resident_memory_bytes ", "process_open_fds ", "process_start_time_seconds "] {
            let line =
                text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
            assert!(line[name.len()..].parse::<f64>().unwrap() > 0.0, "{line}");
        }
    }
}
