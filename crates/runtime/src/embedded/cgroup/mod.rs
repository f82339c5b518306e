//! Control groups: limits, figures, and the end of everything in one, on version 2 and on the hierarchies of version 1.
//!
//! Owns: the groups of pods and what is changed while they exist. Never touches: a container's own group while it is
//! made (libcontainer does), groups that it was not given the path of. Where both versions are mounted, version 1 holds
//! the controllers and is what counts.
//!
//! Groups are named by one path that is the same in every hierarchy.

mod v1;
mod v2;

use std::io;
use std::path::Path;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::spec::Resources;

/// A group whose last process was killed lingers until the kernel has taken it apart.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(2);

/// Figures of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Nanoseconds.
    pub cpu_usage: u64,
    pub memory_usage: u64,
    pub memory_working_set: u64,
    pub memory_rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
}

/// A file of a group and what is to be written to it.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: String,
    value: String,
}

impl Setting {
    fn new(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Self {
        Self { controller, file: file.into(), value: value.to_string() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Cgroups {
    /// Where each controller is mounted.
    V1(Vec<(String, Utf8PathBuf)>),
    V2(Utf8PathBuf),
}

impl Cgroups {
    /// What this machine has.
    pub(super) fn detect() -> io::Result<Self> {
        Self::of(&std::fs::read_to_string("/proc/self/mountinfo")?).ok_or_else(|| {
            io::Error::other("no control groups are mounted below /sys/fs/cgroup; containers need them")
        })
    }

    fn of(mountinfo: &str) -> Option<Self> {
        let mut v1: Vec<(String, Utf8PathBuf)> = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let Some(target) = mount.split(' ').nth(4) else { continue };
            let mut fields = filesystem.split(' ');
            match fields.next() {
                Some("cgroup2") => v2 = v2.or(Some(Utf8PathBuf::from(target))),
                Some("cgroup") => {
                    for option in fields.nth(1).unwrap_or_default().split(',') {
                        if v1::CONTROLLERS.contains(&option) && !v1.iter().any(|(known, _)| known == option) {
                            v1.push((option.to_owned(), target.into()));
                        }
                    }
                }
                _ => {}
            }
        }
        if v1.is_empty() { v2.map(Self::V2) } else { Some(Self::V1(v1)) }
    }

    /// Whether groups have this controller.
    pub(super) fn has(&self, controller: &str) -> bool {
        match self {
            Self::V1(mounts) => mounts.iter().any(|(name, _)| name == controller),
            Self::V2(root) => std::fs::read_to_string(root.join("cgroup.controllers"))
                .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == controller)),
        }
    }

    /// Whether devices can be kept from containers.
    pub(super) fn confines_devices(&self) -> bool {
        matches!(self, Self::V1(_)) && self.has("devices")
    }

    /// Mounts in a container that its processes must not write to. Version 2's is mounted for reading by itself.
    pub(super) fn places(&self) -> Vec<String> {
        match self {
            Self::V1(_) => {
                let names = self.roots().into_iter().filter_map(|root| root.file_name()).chain(["systemd"]);
                names
                    .map(|name| format!("/sys/fs/cgroup/{name}"))
                    .chain(["/sys/fs/cgroup".to_owned()])
                    .collect()
            }
            Self::V2(_) => Vec::new(),
        }
    }

    /// The folders of a group, by where a container has them: those of version 1 that libcontainer cannot mount in a
    /// container that joins the processes of another. It looks up its own process by a number that is the namespace's,
    /// and fails where the host has none of that number.
    pub(super) fn folders(&self, path: &str) -> Vec<(String, String)> {
        match self {
            Self::V1(_) => {
                let named = |dir: Utf8PathBuf, root: &Utf8Path| {
                    Some((format!("/sys/fs/cgroup/{}", root.file_name()?), dir.into_string()))
                };
                self.dirs(path).zip(self.roots()).filter_map(|(dir, root)| named(dir, root)).collect()
            }
            Self::V2(_) => Vec::new(),
        }
    }

    fn roots(&self) -> Vec<&Utf8Path> {
        let mut roots: Vec<&Utf8Path> = match self {
            Self::V1(mounts) => mounts.iter().map(|(_, root)| root.as_path()).collect(),
            Self::V2(root) => vec![root],
        };
        roots.sort();
        roots.dedup();
        roots
    }

    fn dirs(&self, path: &str) -> impl Iterator<Item = Utf8PathBuf> {
        let path = path.trim_start_matches('/');
        self.roots().into_iter().map(move |root| root.join(path))
    }

    fn dir(&self, controller: &str, path: &str) -> Option<Utf8PathBuf> {
        let path = path.trim_start_matches('/');
        match self {
            Self::V1(mounts) => {
                mounts.iter().find(|(name, _)| name == controller).map(|(_, root)| root.join(path))
            }
            Self::V2(root) => Some(root.join(path)),
        }
    }

    /// Makes the group where it is missing.
    pub(super) fn create(&self, path: &str) -> io::Result<()> {
        match self {
            Self::V1(mounts) => v1::create(mounts, path),
            Self::V2(root) => v2::create(root, path),
        }
    }

    /// Sets the limits that `resources` has.
    pub(super) fn apply(&self, path: &str, resources: &Resources) -> io::Result<()> {
        let settings = match self {
            Self::V1(_) => v1::settings(resources),
            Self::V2(_) => v2::settings(resources),
        };
        for setting in settings.iter().filter(|setting| self.has(setting.controller)) {
            let Some(dir) = self.dir(setting.controller, path) else { continue };
            let file = dir.join(&setting.file);
            std::fs::write(&file, &setting.value).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot write {} to {file}: {error}", setting.value))
            })?;
        }
        Ok(())
    }

    /// Puts a process into the group.
    pub(super) fn enter(&self, path: &str, process: u32) -> io::Result<()> {
        for dir in self.dirs(path) {
            std::fs::write(dir.join("cgroup.procs"), process.to_string())?;
        }
        Ok(())
    }

    /// All processes in the group and the groups in it.
    pub(super) fn processes(&self, path: &str) -> Vec<i32> {
        let mut processes = Vec::new();
        for dir in self.dirs(path) {
            walk(dir.as_std_path(), &mut |dir| {
                if let Ok(text) = std::fs::read_to_string(dir.join("cgroup.procs")) {
                    processes.extend(
                        text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0),
                    );
                }
            });
        }
        processes.sort_unstable();
        processes.dedup();
        processes
    }

    /// Kills everything in the group, and returns when all of it is gone.
    pub(super) async fn kill(&self, path: &str) -> io::Result<()> {
        let deadline = rt::instant() + REMOVE_TIMEOUT;
        loop {
            if let Self::V2(_) = self {
                for dir in self.dirs(path) {
                    // Kernels before 5.14 have no such file; the signals below do it there.
                    let _ = std::fs::write(dir.join("cgroup.kill"), "1");
                }
            }
            // What was read may fork meanwhile: again until nothing is found.
            let processes = self.processes(path);
            if processes.is_empty() {
                return Ok(());
            }
            for process in processes.iter().filter_map(|process| Pid::from_raw(*process)) {
                // It may be gone already.
                let _ = kill_process(process, Signal::KILL);
            }
            if rt::instant() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} processes of control group {path} do not end", processes.len()),
                ));
            }
            rt::sleep(RETRY_AFTER).await;
        }
    }

    /// Removes the group and all groups in it; they must be empty of processes, or become so shortly.
    pub(super) async fn remove(&self, path: &str) -> io::Result<()> {
        if path.trim_matches('/').is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root of all control groups stays"));
        }
        let deadline = rt::instant() + REMOVE_TIMEOUT;
        loop {
            match self.dirs(path).try_for_each(|dir| remove_tree(dir.as_std_path())) {
                Ok(()) => return Ok(()),
                Err(error) if rt::instant() >= deadline => return Err(error),
                Err(_busy) => rt::sleep(RETRY_AFTER).await,
            }
        }
    }

    /// Removes the group if nothing is in it.
    pub(super) fn remove_if_empty(&self, path: &str) {
        for dir in self.dirs(path).filter(|_| !path.trim_matches('/').is_empty()) {
            // Somebody else's pod is in it, or it is gone.
            let _ = std::fs::remove_dir(dir);
        }
    }

    pub(super) fn figures(&self, path: &str) -> Option<Figures> {
        match self {
            Self::V1(_) => v1::figures(|controller| self.dir(controller, path)),
            Self::V2(root) => v2::figures(&root.join(path.trim_start_matches('/'))),
        }
    }

    /// How many processes of the group were killed for want of memory.
    pub(super) fn oom_kills(&self, path: &str) -> u64 {
        let file = match self {
            Self::V1(_) => "memory.oom_control",
            Self::V2(_) => "memory.events",
        };
        self.dir("memory", path)
            .and_then(|dir| std::fs::read_to_string(dir.join(file)).ok())
            .and_then(|text| keyed(&text, "oom_kill"))
            .unwrap_or(0)
    }
}

/// Calls `visit` for a folder and every folder below it.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    visit(dir);
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), visit);
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The number behind a key, as files of figures have it: `key number`, one a line.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn number(dir: &Utf8Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_counts_where_both_are_mounted_and_named_hierarchies_do_not() {
        let hybrid = "\
30 29 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw
31 29 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
32 29 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 29 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 29 0:29 / /somewhere/memory rw - cgroup cgroup rw,memory
";
        let cgroups = Cgroups::of(hybrid).unwrap();
        assert!(cgroups.has("cpu") && cgroups.has("memory") && !cgroups.has("pids"));
        assert_eq!(cgroups.roots(), ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory"]);
        assert_eq!(cgroups.dir("cpuacct", "/pods/a").unwrap(), "/sys/fs/cgroup/cpu,cpuacct/pods/a");

        let unified = "30 29 0:26 / /sys/fs/cgroup rw,nosuid shared:5 - cgroup2 cgroup2 rw\n";
        let cgroups = Cgroups::of(unified).unwrap();
        assert_eq!(cgroups.dir("memory", "pods/a").unwrap(), "/sys/fs/cgroup/pods/a");
        assert!(Cgroups::of("1 1 0:1 / / rw - ext4 /dev/vda rw\n").is_none());
    }

    #[test]
    fn a_key_is_found_by_its_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), None);
    }

    #[tokio::test]
    async fn the_root_is_never_removed() {
        let cgroups = Cgroups::V2("/nonexistent".into());
        assert!(cgroups.remove("/").await.is_err());
        assert!(cgroups.remove("/absent").await.is_ok());
    }

    #[test]
    fn a_group_of_version_1_has_a_folder_in_each_mount() {
        let mounts = vec![
            ("cpu".to_owned(), "/sys/fs/cgroup/cpu,cpuacct".into()),
            ("cpuacct".to_owned(), "/sys/fs/cgroup/cpu,cpuacct".into()),
            ("memory".to_owned(), "/sys/fs/cgroup/memory".into()),
        ];
        let folders = Cgroups::V1(mounts).folders("/kubepods/pod1/c");
        let row =
            |name: &str| (format!("/sys/fs/cgroup/{name}"), format!("/sys/fs/cgroup/{name}/kubepods/pod1/c"));
        assert_eq!(folders, [row("cpu,cpuacct"), row("memory")]);
        assert!(Cgroups::V2("/sys/fs/cgroup".into()).folders("/kubepods/pod1/c").is_empty());
    }
}
