//! The program beside each container, alone: what the tests start where a cluster starts its own binary again.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    arguments.next();
    runtime::embedded::shim_main(arguments)
}
