//! A container's streams while it runs: output goes to the log and to everybody attached, input comes from them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::log::{Log, Stream};
use super::protocol::{self, FrameKind, Request, Response};
use crate::TerminalSize;
use crate::embedded::terminal::Terminal;

/// What is read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces of output that one client may be behind; then the container waits for it.
const CLIENT_PIECES_MAX: usize = 16;
/// A client that takes nothing for so long is let go, so that the container may go on.
const CLIENT_STALL: Duration = Duration::from_secs(10);
/// Clients that may be connected at once.
const CLIENTS_MAX: usize = 64;

/// Where input goes.
pub(super) enum Input {
    Pipe(tokio::net::unix::pipe::Sender),
    Terminal(Terminal),
}

impl Input {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(terminal) => terminal.write_all(bytes).await,
        }
    }
}

struct Client {
    output: mpsc::Sender<(FrameKind, Bytes)>,
    stdout: bool,
    stderr: bool,
}

pub(super) struct Streams {
    log: Mutex<Log>,
    clients: Mutex<Vec<Client>>,
    input: tokio::sync::Mutex<Option<Input>>,
    terminal: Option<Terminal>,
    stdin_once: bool,
    attached: TaskTracker,
}

impl Streams {
    pub(super) fn new(log: Log, input: Option<Input>, terminal: Option<Terminal>, stdin_once: bool) -> Self {
        Self {
            log: Mutex::new(log),
            clients: Mutex::default(),
            input: tokio::sync::Mutex::new(input),
            terminal,
            stdin_once,
            attached: TaskTracker::new(),
        }
    }

    /// Reads a stream to its end.
    pub(super) async fn pump(&self, stream: Stream, mut from: impl AsyncRead + Unpin) {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let len = match from.read(&mut piece).await {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) => {
                    eprintln!("cannot read the container's {stream:?}: {error}");
                    break;
                }
            };
            let written = self.log.lock().write(stream, &piece[..len]);
            complain(written);
            self.send(stream, &piece[..len]).await;
        }
        let written = self.log.lock().finish(stream);
        complain(written);
    }

    async fn send(&self, stream: Stream, piece: &[u8]) {
        let wanted: Vec<_> = self
            .clients
            .lock()
            .iter()
            .filter(|client| match stream {
                Stream::Stdout => client.stdout,
                Stream::Stderr => client.stderr,
            })
            .map(|client| client.output.clone())
            .collect();
        if wanted.is_empty() {
            return;
        }
        let kind = match stream {
            Stream::Stdout => FrameKind::Stdout,
            Stream::Stderr => FrameKind::Stderr,
        };
        let piece = Bytes::copy_from_slice(piece);
        for output in wanted {
            if !matches!(rt::timeout(CLIENT_STALL, output.send((kind, piece.clone()))).await, Ok(Ok(()))) {
                self.clients.lock().retain(|client| !client.output.same_channel(&output));
            }
        }
    }

    /// No more output: clients get what is on its way, and the end.
    pub(super) async fn close_clients(&self) {
        self.clients.lock().clear();
        self.attached.close();
        // Who takes nothing loses the rest.
        let _ = rt::timeout(CLIENT_STALL, self.attached.wait()).await;
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(self: Arc<Self>, mut connection: UnixStream) -> io::Result<()> {
        match protocol::read_json::<Request>(&mut connection).await? {
            Request::Watch => {
                protocol::write_json(&mut connection, &Response::Done).await?;
                // It says nothing more; this is how its end is seen.
                protocol::read_frame(&mut connection).await.map(|_| ())
            }
            Request::ReopenLog => {
                let response = match self.log.lock().reopen() {
                    Ok(()) => Response::Done,
                    Err(error) => Response::Failed(format!("cannot reopen the log: {error}")),
                };
                protocol::write_json(&mut connection, &response).await
            }
            Request::Attach { stdin, stdout, stderr } => self.attach(connection, stdin, stdout, stderr).await,
        }
    }

    async fn attach(
        &self,
        mut connection: UnixStream,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> io::Result<()> {
        let _attached = self.attached.token();
        let (output, mut outputs) = mpsc::channel(CLIENT_PIECES_MAX);
        let refusal = {
            let mut clients = self.clients.lock();
            let full = clients.len() >= CLIENTS_MAX;
            if !full {
                clients.push(Client { output: output.clone(), stdout, stderr });
            }
            full.then(|| format!("{CLIENTS_MAX} clients are attached already"))
        };
        if let Some(refusal) = refusal {
            return protocol::write_json(&mut connection, &Response::Failed(refusal)).await;
        }
        // The list alone keeps the channel open, so that taking a client off it ends its connection.
        let channel = output.downgrade();
        drop(output);
        protocol::write_json(&mut connection, &Response::Done).await?;

        let (mut from, mut to) = connection.into_split();
        let outgoing = async {
            while let Some((kind, piece)) = outputs.recv().await {
                protocol::write_frame(&mut to, kind, &piece).await?;
            }
            to.shutdown().await
        };
        let incoming = async {
            while let Some((kind, payload)) = protocol::read_frame(&mut from).await? {
                match kind {
                    FrameKind::Stdin if stdin => self.input(&payload).await,
                    FrameKind::StdinClosed if stdin => self.end_input().await,
                    FrameKind::Resize => self.resize(&payload),
                    _ => {}
                }
            }
            if stdin {
                self.end_input().await;
            }
            io::Result::Ok(())
        };
        let outcome = tokio::select! {
            outcome = outgoing => outcome,
            outcome = incoming => outcome,
        };
        if let Some(output) = channel.upgrade() {
            self.clients.lock().retain(|client| !client.output.same_channel(&output));
        }
        outcome
    }

    async fn input(&self, bytes: &[u8]) {
        let mut input = self.input.lock().await;
        if let Some(open) = input.as_mut()
            && open.write(bytes).await.is_err()
        {
            // The container closed it; it will not open again.
            *input = None;
        }
    }

    /// A client's input ended; the container's does if it asked for one client only.
    async fn end_input(&self) {
        if self.stdin_once {
            *self.input.lock().await = None;
        }
    }

    fn resize(&self, payload: &[u8]) {
        if let (Some(terminal), [a, b, c, d]) = (&self.terminal, payload) {
            let size =
                TerminalSize { width: u16::from_be_bytes([*a, *b]), height: u16::from_be_bytes([*c, *d]) };
            if let Err(error) = terminal.resize(size) {
                eprintln!("cannot resize the terminal: {error}");
            }
        }
    }
}

/// A full disk must not stop the container: what cannot be logged is lost, and that is said once.
fn complain(written: io::Result<()>) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if let Err(error) = written {
        ONCE.call_once(|| eprintln!("cannot write the log: {error}"));
    }
}
