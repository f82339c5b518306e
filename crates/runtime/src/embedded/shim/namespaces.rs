//! The process that makes the namespaces of a pod with users of its own: apart from the host first, then root there.

use std::io;
use std::process::ExitCode;

use crate::embedded::user_namespace;

pub(super) fn run() -> ExitCode {
    match user_namespace::make(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever asked is gone.
        Err(_) => ExitCode::FAILURE,
    }
}
