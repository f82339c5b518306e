//! A client that asks one thing after another while something else happens.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};

/// No request of ours takes longer on a machine that is not broken.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const BETWEEN_REQUESTS: Duration = Duration::from_millis(5);
/// Requests of one load; it ends by itself then.
const REQUESTS_MAX: usize = 20_000;
/// Failures that are worth reading.
const FAILURES_MAX: usize = 10;
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Opens a connection, asks, reads until `is_whole` or the other side closes.
pub fn ask(to: SocketAddr, request: &[u8], is_whole: impl Fn(&[u8]) -> bool) -> anyhow::Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&to, ANSWER_PATIENCE).with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE)).context("bounding reads")?;
    stream.write_all(request).with_context(|| format!("asking {to}"))?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !is_whole(&answer) && (answer.len() as u64) < ANSWER_BYTES_MAX {
        let read = stream.read(&mut piece).with_context(|| format!("reading what {to} answers"))?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(answer).with_context(|| format!("reading what {to} answers"))
}

/// The body of `GET /`.
pub fn get(to: SocketAddr) -> anyhow::Result<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    let answer = ask(to, request.as_bytes(), |_| false)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{answer:?} is no answer"))?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(body.trim().to_owned())
}

/// What a load saw.
#[derive(Default)]
pub struct Seen {
    pub answered: usize,
    /// Every answer there was.
    pub answers: BTreeSet<String>,
    pub failed: usize,
    /// The first of them.
    pub failures: Vec<String>,
}

/// One request after another, each on a connection of its own, until [`Load::end`].
pub struct Load {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Load {
    pub fn start(to: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || asked_until(to, &is_over)
        });
        Self { is_over, thread }
    }

    pub fn end(self) -> anyhow::Result<Seen> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))
    }
}

fn asked_until(to: SocketAddr, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !is_over.load(Ordering::Relaxed) && seen.answered + seen.failed < REQUESTS_MAX {
        match get(to) {
            Ok(answer) => {
                seen.answered += 1;
                seen.answers.insert(answer);
            }
            Err(error) => {
                seen.failed += 1;
                if seen.failures.len() < FAILURES_MAX {
                    seen.failures.push(format!("{error:#}"));
                }
            }
        }
        std::thread::sleep(BETWEEN_REQUESTS);
    }
    seen
}
