//! The first process of a pod's process namespace, which holds the namespace open.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use tokio::io::unix::AsyncFd;

use super::namespaces;

/// Waits for the end of a process, and takes it from the list of our children if it is one.
pub(super) async fn ended(process: Pid) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that close early, which this one does not"
    )]
    let end = AsyncFd::new(pidfd_open(process, PidfdFlags::NONBLOCK)?)?;
    end.readable().await?.retain_ready();
    waitpid(Some(process), WaitOptions::NOHANG)?;
    Ok(())
}

/// Kills the first process of the pod's process namespace, and so all in it.
pub(super) fn end(dir: &Utf8Path, holder: u32) -> io::Result<()> {
    let Some(pid) = i32::try_from(holder).ok().and_then(Pid::from_raw) else { return Ok(()) };
    // Another process may have its number by now.
    let same = same_namespace(&dir.join(namespaces::PID), &format!("/proc/{holder}/ns/pid").into());
    if !same {
        return Ok(());
    }
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    // It is a child of this process only if this process started it.
    match waitpid(Some(pid), WaitOptions::empty()) {
        Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn same_namespace(a: &Utf8PathBuf, b: &Utf8PathBuf) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Utf8PathBuf| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((inode(a), inode(b)), (Ok(a), Ok(b)) if a == b)
}
