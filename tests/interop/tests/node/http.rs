//! A client of web pages, once or all the time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, ensure};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two requests of a load.
const PACE: Duration = Duration::from_millis(10);
/// Requests of one load.
const REQUESTS_MAX: usize = 30_000;
/// Failures that are told of.
const FAILURES_KEPT: usize = 5;

/// The page at an address, on a connection of its own; anything but a 200 with a whole body is an error.
pub fn get(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("connecting")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("asking")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the answer")?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("half an answer: {answer:?}"))?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{head}\n{body}");
    Ok(body.to_owned())
}

/// Somebody who asks for a page again and again.
pub struct Load {
    is_over: Arc<AtomicBool>,
    asking: JoinHandle<Asked>,
}

/// What became of a load.
#[derive(Debug, Default)]
pub struct Asked {
    pub answers: usize,
    pub failed: usize,
    failures: Vec<String>,
}

impl Load {
    pub fn start(address: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = is_over.clone();
        let asking = thread::spawn(move || {
            let mut asked = Asked::default();
            while !stop.load(Ordering::Relaxed) && asked.answers + asked.failed < REQUESTS_MAX {
                asked.ask(address);
                thread::sleep(PACE);
            }
            asked
        });
        Self { is_over, asking }
    }

    /// Ends it: every request was answered, and there were some.
    pub fn stop(self) -> anyhow::Result<usize> {
        self.is_over.store(true, Ordering::Relaxed);
        let asked = self.asking.join().ok().context("the load panicked")?;
        ensure!(
            asked.failed == 0,
            "{} answers, {} failures: {:#?}",
            asked.answers,
            asked.failed,
            asked.failures
        );
        ensure!(asked.answers > 0, "nobody was asked");
        Ok(asked.answers)
    }
}

impl Asked {
    fn ask(&mut self, address: SocketAddr) {
        match get(address) {
            Ok(_) => self.answers += 1,
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_KEPT {
                    self.failures.push(format!("{error:#}"));
                }
            }
        }
    }
}
