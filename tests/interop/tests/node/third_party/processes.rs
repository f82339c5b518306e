//! The processes of containers, as this machine sees them.

use std::fs;

use anyhow::{Context, ensure};

use crate::world::run;

/// The processes called `name` in a container, by the `pintle://…` of its status.
pub fn of_container(container: &str, name: &str) -> anyhow::Result<Vec<String>> {
    let id = container.rsplit('/').next().unwrap_or(container);
    ensure!(!id.is_empty(), "there is no container");
    Ok(in_group(id)?.into_iter().filter(|pid| is_called(pid, name)).collect())
}

/// The processes of the pods with one of these UIDs.
pub fn of_pods(uids: &[String]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for uid in uids {
        ensure!(!uid.is_empty(), "a pod has no UID");
        found.extend(in_group(uid)?);
    }
    Ok(found)
}

/// Ends processes as a crash of the machine would.
pub fn kill(pids: &[String]) -> anyhow::Result<()> {
    for pid in pids {
        // The end of one may have taken others along.
        let _ = run("kill", &["-KILL", pid]);
    }
    Ok(())
}

/// The processes that have `part` in the name of a control group.
fn in_group(part: &str) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir("/proc").context("listing processes")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pids = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    // A process that ended meanwhile is none.
    let is_inside =
        |pid: &String| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|all| all.contains(part));
    Ok(pids.filter(is_inside).collect())
}

fn is_called(pid: &str, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|own| own.trim() == name)
}
