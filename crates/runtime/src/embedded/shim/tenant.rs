//! A command in a running container: started by Pintle with the command's own streams, it puts the process into the
//! container, waits for it and ends with its exit code.
//!
//! What kept the command from starting is written to a file beside the configuration; the code then means nothing.

use std::io::Read;
use std::process::ExitCode;

use camino::Utf8Path;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::UnshareFlags;

use super::container::{exit_code, innermost, set_oom_score};
use super::executor::ContainerExecutor;
use super::protocol::{
    self, CONFIG_FILE, CONSOLE_SOCKET, ERROR_FILE, ExecConfig, Inside, PID_FILE, PROCESS_FILE,
};
use crate::embedded::namespaces::leave;
use crate::embedded::{seccomp, user_namespace};

pub(super) fn run(dir: &Utf8Path) -> ExitCode {
    match execute(dir) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(message) => {
            if let Err(error) = std::fs::write(dir.join(ERROR_FILE), &message) {
                eprintln!("{message}; and {dir}/{ERROR_FILE} cannot be written: {error}");
            }
            ExitCode::from(126)
        }
    }
}

fn execute(dir: &Utf8Path) -> Result<i32, String> {
    let config: ExecConfig = protocol::load(&dir.join(CONFIG_FILE))
        .map_err(|error| format!("cannot read {dir}/{CONFIG_FILE}: {error}"))?
        .ok_or_else(|| format!("there is no {dir}/{CONFIG_FILE}"))?;
    set_oom_score("self", config.oom_score_adj);
    if let Some(inside) = &config.inside {
        enter(inside).map_err(|error| format!("cannot enter the pod's user namespace: {error}"))?;
    }
    let (mut failure, report) = std::io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
    let executor = ContainerExecutor::new(seccomp::decode(&config.seccomp), report);
    let mut builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .with_root_path(dir.as_std_path())
        .map_err(|error| innermost(&error))?
        .with_executor(executor);
    if config.tty {
        builder = builder.with_console_socket(Some(dir.join(CONSOLE_SOCKET)));
    }
    let pid = builder
        .as_tenant()
        .with_detach(true)
        .with_process(Some(dir.join(PROCESS_FILE)))
        .build()
        .map_err(|error| innermost(&error))?
        .as_raw();
    let pid = Pid::from_raw(pid).ok_or("the process has no ID")?;
    release_streams().map_err(|error| format!("cannot let go of the command's streams: {error}"))?;
    std::fs::write(dir.join(PID_FILE), pid.as_raw_nonzero().to_string())
        .map_err(|error| format!("cannot write {dir}/{PID_FILE}: {error}"))?;

    let mut message = String::new();
    failure.read_to_string(&mut message).map_err(|error| format!("cannot learn how it began: {error}"))?;
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) if message.is_empty() => return Ok(exit_code(status)),
            Ok(Some(_)) => return Err(message),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait for the command: {error}")),
        }
    }
}

/// Enters the pod's user namespace, which libcontainer does not do for commands. Nobody in there may move a process into a
/// group, so this is in the container's before, and libcontainer finds no hierarchies of groups any more.
fn enter(inside: &Inside) -> std::io::Result<()> {
    const GROUPS: &str = "/sys/fs/cgroup";
    inside.cgroups.enter(&inside.cgroup, std::process::id())?;
    leave(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    // It goes by what is mounted, not by what can be reached.
    while unmount(GROUPS, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    mount("none", GROUPS, "tmpfs", MountFlags::RDONLY, None)?;
    user_namespace::enter(&inside.user_namespace)
}

/// The command alone holds its streams from now on: whoever reads them sees their end with it.
fn release_streams() -> std::io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
