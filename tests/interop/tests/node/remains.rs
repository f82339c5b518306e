//! What a cluster's containers leave on the machine: found for the checks, and taken away when a part is over.
//!
//! Only what is of one cluster: others may run on the same machine.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use interop::eventually;

const CGROUPS: &str = "/sys/fs/cgroup";
/// Folders below a control group's root that are looked at: `memory/kubepods/burstable/pod…/…`.
const CGROUP_DEPTH_MAX: usize = 5;
/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is left of the containers of the cluster with this data.
pub struct Remains {
    data: Utf8PathBuf,
}

impl Remains {
    pub fn of(data: Utf8PathBuf) -> Self {
        Self { data }
    }

    fn take_away(&self) -> anyhow::Result<()> {
        let Some(state) = state(&self.data) else {
            // With another runtime the volumes are there all the same.
            unmount_below(&[&self.data]);
            return Ok(());
        };
        let ids = entries(&state.join("runtime/containers"));
        let groups = cgroups(|name| ids.iter().any(|id| id == name));
        eventually(PATIENCE, || {
            let mut left = processes_of(&state);
            left.extend(groups.iter().flat_map(|group| processes_in(group)));
            kill(&left);
            ensure!(left.is_empty(), "processes {left:?} do not end");
            Ok(())
        })?;
        unmount_below(&[&state, &self.data]);
        for group in &groups {
            let _ = fs::remove_dir(group);
            // The pod's, if this was its last container.
            let _ = group.parent().map(fs::remove_dir);
        }
        fs::remove_dir_all(&state).with_context(|| format!("removing {state}"))
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if let Err(error) = self.take_away() {
            eprintln!("containers were left behind: {error:#}");
        }
    }
}

/// Where the node with this data keeps what a boot may lose; there is none while no container runs.
pub fn state(data: &Utf8Path) -> Option<Utf8PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = format!("={data}/");
    mounts.lines().filter(|line| line.contains(&own)).find_map(|line| {
        let (state, _) = mount_point(line)?.split_once("/runtime/containers/")?;
        Some(state.into())
    })
}

fn kill(processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let ids = processes.iter().map(u32::to_string);
    // One that is gone already is what is wanted.
    let _ = Command::new("kill").arg("-KILL").args(ids).stderr(Stdio::null()).status();
}

fn mount_point(line: &str) -> Option<&str> {
    line.split(' ').nth(4)
}

/// Where something is mounted in these folders, in the order of mounting.
pub fn mounts_below(folders: &[&Utf8Path]) -> anyhow::Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let points = mounts.lines().filter_map(mount_point);
    Ok(points
        .filter(|point| folders.iter().any(|folder| Utf8Path::new(point).starts_with(folder)))
        .map(str::to_owned)
        .collect())
}

/// Takes away what is mounted in these folders, as far as that can be done.
pub fn unmount_below(folders: &[&Utf8Path]) {
    for point in mounts_below(folders).unwrap_or_default().iter().rev() {
        let _ = Command::new("umount").args(["-l", point]).stderr(Stdio::null()).status();
    }
}

/// Processes that name a folder on their command line.
pub fn processes_of(folder: &Utf8Path) -> Vec<u32> {
    let own = format!("{folder}/");
    processes()
        .filter(|id| fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.contains(&own)))
        .collect()
}

/// Processes of a container.
pub fn processes_of_container(id: &str) -> Vec<u32> {
    let is_in = |process: &u32| {
        fs::read_to_string(format!("/proc/{process}/cgroup")).is_ok_and(|groups| groups.contains(id))
    };
    processes().filter(is_in).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    entries(Utf8Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok())
}

fn processes_in(group: &Utf8Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Every control group, of whatever hierarchy, whose own name satisfies.
pub fn cgroups(satisfies: impl Fn(&str) -> bool) -> Vec<Utf8PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(Utf8PathBuf::from(CGROUPS), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(inside) = folder.read_dir_utf8() else { continue };
        for entry in inside.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if satisfies(entry.file_name()) {
                found.push(entry.path().to_owned());
            }
            if depth < CGROUP_DEPTH_MAX {
                folders.push((entry.into_path(), depth + 1));
            }
        }
    }
    found
}

/// The names in a folder, sorted; none where there is no such folder.
pub fn entries(folder: &Utf8Path) -> Vec<String> {
    let Ok(inside) = folder.read_dir_utf8() else { return Vec::new() };
    let mut names: Vec<String> = inside.flatten().map(|entry| entry.file_name().to_owned()).collect();
    names.sort();
    names
}
