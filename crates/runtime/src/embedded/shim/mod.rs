//! The program beside each container: the same binary, started again as one of [`Role`].
//!
//! Owns: a container's first process and its streams, from start to exit; commands run in a container; the first
//! process of a process namespace that several containers share; the namespaces of a pod with its own users. It survives whoever started it, and what it knows of
//! an end it writes to a file. Never touches: images, networks, other containers.
//!
//! Why a process each: libcontainer changes the working directory and the OOM score of the process it is called in and
//! may be used by one thread only. Memory of this process is paid once per container, so nothing here starts threads,
//! and what only the start needs is dropped after it.
//!
//! Start at [`shim_main`]; [`container::run`] is the usual case.

mod console;
mod container;
mod executor;
mod log;
mod namespaces;
mod pause;
pub(super) mod protocol;
mod streams;
mod tenant;

use std::process::ExitCode;

use camino::Utf8PathBuf;

pub(super) use console::receive_terminal;

/// The hidden subcommands under which the binary is started again.
pub(super) enum Role {
    Container(Utf8PathBuf),
    Exec(Utf8PathBuf),
    Pause,
    Namespaces,
}

pub(super) const CONTAINER: &str = "container-shim";
pub(super) const EXEC: &str = "container-exec";
pub(super) const PAUSE: &str = "container-pause";
pub(super) const NAMESPACES: &str = "pod-namespaces";

impl Role {
    /// What the arguments after the program's name ask for; `None` if they are of somebody else.
    fn of(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        match arguments.next()?.as_str() {
            CONTAINER => Some(Self::Container(arguments.next()?.into())),
            EXEC => Some(Self::Exec(arguments.next()?.into())),
            PAUSE => Some(Self::Pause),
            NAMESPACES => Some(Self::Namespaces),
            _ => None,
        }
    }
}

/// Whether the process was started as one of these programs: then its main calls [`shim_main`] before anything else.
pub fn is_shim(arguments: impl Iterator<Item = String>) -> bool {
    Role::of(arguments).is_some()
}

/// The program. `arguments` are those after the program's name; no other thread may have been started yet.
pub fn shim_main(arguments: impl Iterator<Item = String>) -> ExitCode {
    match Role::of(arguments) {
        Some(Role::Container(dir)) => container::run(&dir),
        Some(Role::Exec(dir)) => tenant::run(&dir),
        Some(Role::Pause) => pause::run(),
        Some(Role::Namespaces) => namespaces::run(),
        None => {
            eprintln!(
                "this program is started by the runtime: {CONTAINER} DIR, {EXEC} DIR, {PAUSE} or {NAMESPACES}"
            );
            ExitCode::from(2)
        }
    }
}

/// A runtime for one thread; the kernel's readiness and nothing else drives it.
fn event_loop() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()
}
