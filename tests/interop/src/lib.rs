//! What suites need that drive the finished binary with clients nobody here wrote.
//!
//! Owns: the server process ([`Server`]), finding inputs and tools ([`testdata`], [`Kubectl::found`]), counting checks
//! ([`Checks`]), root folders of Debian's packages ([`Packages`]). Never touches: the platform's crates; a suite sees
//! what a user sees.
//!
//! A suite that lacks something (the binary, a tool, the test data) says `skipped` and why, and passes.

#![allow(clippy::disallowed_methods, reason = "a suite looks at another process, in real time")]

mod checks;
mod debian;
mod kubectl;
mod server;

use camino::{Utf8Path, Utf8PathBuf};

pub use checks::{Checks, FAILURES_MAX, eventually};
pub use debian::Packages;
pub use kubectl::{Kubectl, Output, Streaming};
pub use server::{Folder, GAVE_UP, Server};

/// Says that a test was not run and why, also where the harness captures what tests print.
pub fn skip(reason: &str) {
    use std::io::Write;
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// A folder of manifests that nobody here wrote: `PINTLE_TESTDATA`, or where it lies beside a checkout.
pub fn testdata() -> Option<Utf8PathBuf> {
    if let Ok(named) = std::env::var("PINTLE_TESTDATA") {
        return Some(named.into());
    }
    let beside = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata");
    beside.is_dir().then_some(beside)
}

/// The binary under test: `PINTLE_BINARY`, or what cargo built beside this test.
pub fn binary() -> Option<Utf8PathBuf> {
    if let Ok(named) = std::env::var("PINTLE_BINARY") {
        return Some(named.into());
    }
    let own = Utf8PathBuf::from_path_buf(std::env::current_exe().ok()?).ok()?;
    let built = own.parent()?.parent()?.join("pintle");
    built.is_file().then_some(built)
}
