//! Exec, attach and port-forward: a client's streams tied to a container's.

use runtime::{Attached, SharedRuntime, Streams as Wanted, TerminalSize};
use streaming::exec::Streams;
use streaming::status::Outcome;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Runs a command in a container, with a client's streams.
pub(super) async fn exec(
    runtime: SharedRuntime,
    container: String,
    command: Vec<String>,
    wanted: Wanted,
    client: Streams,
) -> Outcome {
    match runtime.exec(&container, &command, wanted).await {
        Ok(attached) => match connect(attached, client).await {
            Ok(0) => Outcome::Success,
            Ok(code) => {
                let message = format!("error executing command {command:?}, exit code {code}");
                Outcome::Exit { code, message }
            }
            Err(error) => Outcome::Failure(format!("error executing command in container: {error}")),
        },
        Err(error) => Outcome::Failure(format!("error executing command in container: {error}")),
    }
}

/// Connects a client's streams to a container's own process.
pub(super) async fn attach(
    runtime: SharedRuntime,
    container: String,
    wanted: Wanted,
    client: Streams,
) -> Outcome {
    let attached = async { connect(runtime.attach(&container, wanted).await?, client).await };
    match attached.await {
        // How the container ends is not how attaching to it ends.
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::Failure(format!("error attaching to container: {error}")),
    }
}

/// Ends when the process has, and its output was sent.
async fn connect(process: Attached, client: Streams) -> runtime::Result<i32> {
    let Attached { stdin, stdout, stderr, resize, exit } = process;
    let input = async {
        if let (Some(from), Some(to)) = (client.stdin, stdin) {
            copy(from, to).await;
        }
    };
    let sizes = async {
        if let (Some(mut sizes), Some(to)) = (client.resizes, resize) {
            while let Some(size) = sizes.next().await {
                let size = TerminalSize { width: size.width, height: size.height };
                if to.send(size).await.is_err() {
                    return;
                }
            }
        }
    };
    let output = async {
        let out = async {
            if let (Some(from), Some(to)) = (stdout, client.stdout) {
                copy(from, to).await;
            }
        };
        let err = async {
            if let (Some(from), Some(to)) = (stderr, client.stderr) {
                copy(from, to).await;
            }
        };
        let (_, _, code) = tokio::join!(out, err, exit);
        code
    };
    let fed = async { tokio::join!(input, sizes) };
    tokio::pin!(output);
    // A process may go on when nothing more is said to it.
    tokio::select! {
        code = &mut output => return code,
        _ = fed => {}
    }
    output.await
}

/// Copies to the end and closes; an error is an end.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!(%error, "A stream of a process ended early");
    }
    let _ = to.shutdown().await;
}
