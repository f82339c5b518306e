//! The streams of commands and ports, against the servers of crate `streaming`.

use std::convert::Infallible;

use ::streaming::exec::{self, Wanted};
use ::streaming::status::Outcome;
use ::streaming::{Limits, port_forward};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cri::streaming;
use crate::{Attached, Streams, TerminalSize};

/// A streaming server, until the test ends. What a path does is said in [`answer`].
struct World {
    url: String,
    shutdown: rt::Shutdown,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    async fn start() -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = rt::Shutdown::new();
        let stop = shutdown.clone();
        drop(rt::spawn("test server", async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                let stop = stop.clone();
                let service = service_fn(move |request| {
                    let stop = stop.clone();
                    async move { Ok::<_, Infallible>(answer(request, stop)) }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
                drop(rt::spawn("test connection", async move {
                    let _it_ends_as_the_test_wants = connection.await;
                }));
            }
        }));
        World { url, shutdown }
    }
}

fn answer(request: http::Request<Incoming>, shutdown: rt::Shutdown) -> ::streaming::Answer {
    let limits = Limits::new(shutdown);
    let all = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
    match request.uri().path() {
        // Gives back what it reads, to the end, and then has something to say.
        "/echo" => exec::serve(request, all, limits, |mut streams| async move {
            let (mut stdin, mut stdout) = (streams.stdin.take().unwrap(), streams.stdout.take().unwrap());
            tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
            streams.stderr.unwrap().write_all(b"done").await.unwrap();
            Outcome::of_exit(7)
        }),
        "/terminal" => exec::serve(request, Wanted { tty: true, ..all }, limits, |mut streams| async move {
            let size = streams.resizes.as_mut().unwrap().next().await.unwrap();
            let text = format!("{} {}", size.width, size.height);
            streams.stdout.unwrap().write_all(text.as_bytes()).await.unwrap();
            Outcome::Success
        }),
        "/forget" => exec::serve(request, all, limits.clone(), move |_| async move {
            limits.shutdown.cancel();
            std::future::pending().await
        }),
        "/listen" => exec::serve(request, all, limits.clone(), move |mut streams| async move {
            // Ends when the client is gone: then this is dropped, and so is the guard.
            let _guard = limits.shutdown.drop_guard();
            streams.stdout.as_mut().unwrap().write_all(b"!").await.unwrap();
            let mut rest = Vec::new();
            let _ = streams.stdin.as_mut().unwrap().read_to_end(&mut rest).await;
            std::future::pending().await
        }),
        "/port" => port_forward::serve(request, &[], "pod".to_owned(), limits, |port| {
            TcpStream::connect(("127.0.0.1", port))
        }),
        _ => {
            let mut answer = ::streaming::Answer::new("no such token\n".into());
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            answer
        }
    }
}

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };

#[tokio::test]
async fn a_command_reads_to_the_end_of_its_input_and_ends_with_its_code() {
    let world = World::start().await;
    let attached = streaming::exec(&format!("{}/echo", world.url), ALL).await.unwrap();
    let Attached { stdin, stdout, stderr, resize, exit } = attached;
    assert!(resize.is_none());
    let sent = "0123456789abcdef".repeat(64 << 10);
    let (mut stdin, mut stdout, mut stderr) = (stdin.unwrap(), stdout.unwrap(), stderr.unwrap());
    let send = async {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let (mut out, mut err) = (String::new(), String::new());
    let (.., code) =
        tokio::join!(send, stdout.read_to_string(&mut out), stderr.read_to_string(&mut err), exit);
    assert!(out == sent, "{} bytes came back of {}", out.len(), sent.len());
    assert_eq!((err.as_str(), code.unwrap()), ("done", 7));
}

#[tokio::test]
async fn a_terminal_has_one_output_and_the_size_that_it_is_given() {
    let world = World::start().await;
    let streams = Streams { tty: true, ..ALL };
    let attached = streaming::exec(&format!("{}/terminal", world.url), streams).await.unwrap();
    assert!(attached.stderr.is_none());
    attached.resize.unwrap().send(TerminalSize { width: 91, height: 33 }).await.unwrap();
    let mut shown = String::new();
    attached.stdout.unwrap().read_to_string(&mut shown).await.unwrap();
    assert_eq!((shown.as_str(), attached.exit.await.unwrap()), ("91 33", 0));
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_exit_code_but_the_end_of_being_attached() {
    for (attach, expected) in [(false, None), (true, Some(0))] {
        let world = World::start().await;
        let url = format!("{}/forget", world.url);
        let attached = match attach {
            true => streaming::attach(&url, ALL).await.unwrap(),
            false => streaming::exec(&url, ALL).await.unwrap(),
        };
        assert_eq!(attached.exit.await.ok(), expected);
    }
}

#[tokio::test]
async fn dropping_everything_closes_the_connection() {
    let world = World::start().await;
    let Attached { stdin, stdout, stderr, exit, .. } =
        streaming::exec(&format!("{}/listen", world.url), ALL).await.unwrap();
    let mut stdout = stdout.unwrap();
    assert_eq!(stdout.read_u8().await.unwrap(), b'!');
    drop((stdin, exit));
    assert!(!world.shutdown.is_cancelled());
    drop((stdout, stderr));
    world.shutdown.cancelled().await;
}

#[tokio::test]
async fn a_port_is_connected_to_both_ways_or_says_why_not() {
    let world = World::start().await;
    let url = format!("{}/port", world.url);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut forwarded = streaming::port_forward(&url, port).await.unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        stream.read_to_string(&mut request).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
        request
    };
    let ask = async {
        forwarded.write_all(b"ping").await.unwrap();
        forwarded.shutdown().await.unwrap();
        let mut answer = String::new();
        forwarded.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert_eq!(tokio::join!(serve, ask), ("ping".to_owned(), "pong".to_owned()));
    drop(listener);
    let mut refused = streaming::port_forward(&url, port).await.unwrap();
    let refused = refused.read(&mut [0; 1]).await.unwrap_err().to_string();
    assert!(refused.contains("onnection refused"), "{refused}");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let world = World::start().await;
    let url = format!("{}/gone", world.url);
    let refused = streaming::exec(&url, ALL).await.err().unwrap().to_string();
    let expected = format!(
        "connecting to the runtime's streaming server at {url}: it answered 404 Not Found: no such token"
    );
    assert_eq!(refused, expected);
    let tls = streaming::exec("https://127.0.0.1:1/x", ALL).await.err().unwrap().to_string();
    assert!(tls.contains("only http is spoken there"), "{tls}");
}
