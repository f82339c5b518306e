//! What the machine under this node is and has.

use std::fs;

use camino::Utf8Path;

/// Facts that do not change while the node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// Huge pages by their size in bytes: how many bytes there are of each.
    pub huge_pages: Vec<(u64, u64)>,
    pub architecture: &'static str,
    pub kernel_version: String,
    pub os_image: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
}

impl Machine {
    /// Reads `/proc`, `/sys` and `/etc`; what cannot be read is left empty.
    pub fn read() -> Self {
        let meminfo = read("/proc/meminfo");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            memory: kibibytes(&meminfo, "MemTotal"),
            swap: kibibytes(&meminfo, "SwapTotal"),
            huge_pages: huge_pages("/sys/kernel/mm/hugepages".into()),
            architecture: architecture(),
            kernel_version: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            os_image: os_image(&read("/etc/os-release")),
            machine_id: read("/etc/machine-id").trim().to_owned(),
            system_uuid: read("/sys/class/dmi/id/product_uuid").trim().to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
        }
    }
}

/// Bytes of memory that are left, and all bytes, by the formula of `memory.available`: all that is not in a working set.
pub fn memory_left() -> (u64, u64) {
    let meminfo = read("/proc/meminfo");
    let left = kibibytes(&meminfo, "MemFree") + kibibytes(&meminfo, "Inactive(file)");
    (left, kibibytes(&meminfo, "MemTotal"))
}

/// Processes that may exist, and that do.
pub fn processes() -> (u64, u64) {
    let limit = read("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(0);
    // `0.00 0.01 0.05 1/234 5678`: the fourth field is running/existing.
    let running = read("/proc/loadavg")
        .split_whitespace()
        .nth(3)
        .and_then(|field| field.split_once('/'))
        .and_then(|(_, existing)| existing.parse().ok())
        .unwrap_or(0);
    (limit, running)
}

/// Go's name of this architecture, which labels and images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A field of `/proc/meminfo`, in bytes.
fn kibibytes(meminfo: &str, field: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

fn os_image(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn huge_pages(folder: &Utf8Path) -> Vec<(u64, u64)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut sizes: Vec<(u64, u64)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()? * 1024;
            let count: u64 = read(folder.join(&name).join("nr_hugepages").as_str()).trim().parse().ok()?;
            Some((size, size * count))
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let meminfo = "MemTotal:       24689764 kB\nMemFree:        123 kB\n";
        assert_eq!(kibibytes(meminfo, "MemTotal"), 24_689_764 * 1024);
        assert_eq!(kibibytes(meminfo, "Mem"), 0);
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("hugepages-2048kB")).unwrap();
        fs::write(folder.path().join("hugepages-2048kB/nr_hugepages"), "3\n").unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap();
        assert_eq!(huge_pages(path), [(2 << 20, 6 << 20)]);
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory > 1 << 20 && !machine.kernel_version.is_empty());
        let (limit, running) = processes();
        assert!(limit > running && running > 0);
    }
}
