//! The first process of a process namespace that the containers of a pod share: it takes in orphans and sleeps.

use std::process::ExitCode;

use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};

pub(super) fn run() -> ExitCode {
    // Both fail only where somebody made this a leader already.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let outcome = super::event_loop().and_then(|event_loop| {
        event_loop.block_on(async {
            let mut children = signal(SignalKind::child())?;
            loop {
                while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
                children.recv().await;
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error: std::io::Error = error;
            eprintln!("cannot wait for children: {error}");
            ExitCode::FAILURE
        }
    }
}
