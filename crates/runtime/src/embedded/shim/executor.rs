//! The last steps inside a container, in the process that becomes its first one: find the program, install the filter
//! of system calls, become the program.
//!
//! Runs behind libcontainer, which has set up namespaces, mounts, user and capabilities by then. What fails is written
//! to a pipe that closes by itself when the program takes over.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use seccompiler::BpfProgram;

/// Where programs are looked for if the environment does not say, as runc has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone)]
pub(super) struct ContainerExecutor {
    filters: Arc<Vec<BpfProgram>>,
    /// Closed on exec.
    failure: Arc<std::io::PipeWriter>,
}

impl ContainerExecutor {
    pub(super) fn new(filters: Vec<BpfProgram>, failure: std::io::PipeWriter) -> Self {
        Self { filters: Arc::new(filters), failure: Arc::new(failure) }
    }

    fn become_program(&self, spec: &Spec) -> String {
        let (arguments, path) = command(spec);
        let program = match find_program(&arguments, &path) {
            Ok(program) => program,
            Err(message) => return message,
        };
        for filter in self.filters.iter() {
            if let Err(error) = seccompiler::apply_filter(filter) {
                return format!("cannot install the filter of system calls: {error}");
            }
        }
        let error = std::process::Command::new(program).arg0(&arguments[0]).args(&arguments[1..]).exec();
        format!("exec {}: {}", arguments[0], words(&error))
    }
}

impl Executor for ContainerExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let message = self.become_program(spec);
        // Nobody to tell where this fails; the process ends either way.
        let _ = self.failure.as_ref().write_all(message.as_bytes());
        Err(ExecutorError::Other(message))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (arguments, path) = command(spec);
        find_program(&arguments, &path).map(|_| ()).map_err(ExecutorValidationError::ArgValidationError)
    }
}

fn command(spec: &Spec) -> (Vec<String>, String) {
    let process = spec.process().as_ref();
    let arguments = process.and_then(|process| process.args().clone()).unwrap_or_default();
    let path = process
        .and_then(|process| process.env().as_ref())
        .and_then(|env| env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")))
        .unwrap_or(DEFAULT_PATH);
    (arguments, path.to_owned())
}

/// The file that a command's first word means, or upstream's words for why there is none.
fn find_program(arguments: &[String], path: &str) -> Result<PathBuf, String> {
    let Some(name) = arguments.first().filter(|name| !name.is_empty()) else {
        return Err("no command specified".to_owned());
    };
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(format!("exec: \"{name}\": permission denied"))
            }
            Err(error) => Err(format!("exec: \"{name}\": stat {name}: {}", words(&error))),
        };
    }
    let mut denied = false;
    for folder in path.split(':') {
        let candidate = Path::new(if folder.is_empty() { "." } else { folder }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) => denied |= error.kind() == std::io::ErrorKind::PermissionDenied,
        }
    }
    Err(if denied {
        format!("exec: \"{name}\": permission denied")
    } else {
        format!("exec: \"{name}\": executable file not found in $PATH")
    })
}

fn executable(path: &Path) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(std::io::Error::from_raw_os_error(rustix::io::Errno::ISDIR.raw_os_error()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// The kernel's words for an error as Go programs print them.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_or_the_words_say_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("tool"), "").unwrap();
        std::fs::set_permissions(at("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(at("data"), "").unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let path = format!("/nowhere:{}", dir.path().display());
        let found =
            |name: &str| find_program(&[name.to_owned()], &path).map_err(|error| error.replace(&at(""), "/"));

        assert_eq!(found("tool"), Ok(at("tool").into()));
        assert_eq!(found(&at("tool")), Ok(at("tool").into()));
        assert_eq!(found("data"), Err("exec: \"data\": permission denied".to_owned()));
        assert_eq!(found(&at("data")), Err("exec: \"/data\": permission denied".to_owned()));
        assert_eq!(found("absent"), Err("exec: \"absent\": executable file not found in $PATH".to_owned()));
        assert_eq!(
            found(&at("absent")),
            Err("exec: \"/absent\": stat /absent: no such file or directory".to_owned())
        );
        assert_eq!(found("folder"), Err("exec: \"folder\": executable file not found in $PATH".to_owned()));
        assert_eq!(found(&at("folder")), Err("exec: \"/folder\": stat /folder: is a directory".to_owned()));
        assert_eq!(find_program(&[], &path), Err("no command specified".to_owned()));
    }
}
