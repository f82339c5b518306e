//! Somebody connected to a container's own streams, through the program beside it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, watch};

use super::container::{Container, connect};
use super::shim::protocol::{self, FrameKind, Request, Response};
use super::{Shared, failed};
use crate::{Attached, Error, Reader, Result, Streams, TerminalSize, Writer};

/// What may be on its way in each direction.
const PIPE_BYTES: usize = 64 * 1024;
const PIECE_BYTES: usize = 16 * 1024;
const SIZES_MAX: usize = 4;

pub(super) async fn attach(
    shared: &Arc<Shared>,
    container: &Container,
    streams: Streams,
) -> Result<Attached> {
    let dir = container.running_dir(shared)?;
    let tty = container.record.lock().config.tty;
    let wanted =
        Request::Attach { stdin: streams.stdin, stdout: streams.stdout, stderr: streams.stderr && !tty };
    let mut connection =
        connect(&dir).await.map_err(|error| failed("cannot attach to the container", error))?;
    let answered = async {
        protocol::write_json(&mut connection, &wanted).await?;
        protocol::read_json::<Response>(&mut connection).await
    };
    match answered.await {
        Ok(Response::Done) => {}
        Ok(Response::Failed(message)) => return Err(Error::Failed(message)),
        Err(error) => return Err(failed("cannot attach to the container", error)),
    }
    let (from, to) = connection.into_split();
    let to = Arc::new(Mutex::new(to));
    let (done, mut over) = watch::channel(false);

    let (stdout, stdout_end) = pipe(streams.stdout);
    let (stderr, stderr_end) = pipe(streams.stderr && !tty);
    rt::spawn("attach-output", async move {
        // Cut off in whatever way, it is over.
        let _ = outputs(from, stdout_end, stderr_end).await;
        done.send_replace(true);
    });
    let (stdin_end, stdin) = pipe(streams.stdin);
    if let Some(stdin) = stdin {
        let (to, mut over) = (Arc::clone(&to), over.clone());
        rt::spawn("attach-input", async move {
            tokio::select! {
                // A container that ended takes no input.
                _ = inputs(stdin, &to) => {}
                _ = over.wait_for(|over| *over) => {}
            }
        });
    }
    let (resize, sizes) = mpsc::channel(SIZES_MAX);
    if tty {
        let to = Arc::clone(&to);
        let mut over = over.clone();
        rt::spawn("attach-resize", async move {
            tokio::select! {
                () = sizes_to(sizes, &to) => {}
                _ = over.wait_for(|over| *over) => {}
            }
        });
    }
    let exit = async move {
        // An error is the end of the sender, and so an end as well.
        let _ = over.wait_for(|over| *over).await;
        drop(to);
        Ok(0)
    };
    Ok(Attached {
        stdin: stdin_end.map(|stdin| Box::pin(stdin) as Writer),
        stdout: stdout.map(|stdout| Box::pin(stdout) as Reader),
        stderr: stderr.map(|stderr| Box::pin(stderr) as Reader),
        resize: tty.then_some(resize),
        exit: Box::pin(exit),
    })
}

fn pipe(wanted: bool) -> (Option<DuplexStream>, Option<DuplexStream>) {
    if wanted {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        (Some(near), Some(far))
    } else {
        (None, None)
    }
}

async fn outputs(
    mut from: OwnedReadHalf,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
) -> std::io::Result<()> {
    while let Some((kind, piece)) = protocol::read_frame(&mut from).await? {
        let to = match kind {
            FrameKind::Stdout => &mut stdout,
            FrameKind::Stderr => &mut stderr,
            _ => continue,
        };
        if let Some(open) = to
            && open.write_all(&piece).await.is_err()
        {
            *to = None;
            if stdout.is_none() && stderr.is_none() {
                break;
            }
        }
    }
    Ok(())
}

async fn inputs(mut stdin: DuplexStream, to: &Mutex<OwnedWriteHalf>) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let len = stdin.read(&mut piece).await?;
        let kind = if len == 0 { FrameKind::StdinClosed } else { FrameKind::Stdin };
        protocol::write_frame(&mut *to.lock().await, kind, &piece[..len]).await?;
        if len == 0 {
            return Ok(());
        }
    }
}

async fn sizes_to(mut sizes: mpsc::Receiver<TerminalSize>, to: &Mutex<OwnedWriteHalf>) {
    while let Some(size) = sizes.recv().await {
        let mut payload = [0; 4];
        payload[..2].copy_from_slice(&size.width.to_be_bytes());
        payload[2..].copy_from_slice(&size.height.to_be_bytes());
        if protocol::write_frame(&mut *to.lock().await, FrameKind::Resize, &payload).await.is_err() {
            return;
        }
    }
}
