//! What kubectl does not speak, or not any more, and clients that misbehave: over a connection of this process.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{Request, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use streaming::exec::{Streams, Wanted};
use streaming::spdy::frame::{Encoder, Frame, FrameReader};
use streaming::status::Outcome;
use streaming::{Answer, Limits, exec, port_forward};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const PATIENCE: Duration = Duration::from_secs(20);

type Socket = TokioIo<hyper::upgrade::Upgraded>;

/// Connects a client to a server that answers with `answer`, and switches protocols.
async fn upgrade<A>(upgrade: &str, version: (&str, &str), path: &str, answer: A) -> Socket
where
    A: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
{
    let (client, server) = tokio::io::duplex(64 << 10);
    let answer = Arc::new(answer);
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let builder = hyper::server::conn::http1::Builder::new();
    let serving = builder.serve_connection(TokioIo::new(server), service).with_upgrades();
    rt::spawn("server", async move {
        let _ = serving.await;
    });
    let io: TokioIo<DuplexStream> = TokioIo::new(client);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    rt::spawn("client", async move {
        let _ = connection.with_upgrades().await;
    });
    let request = Request::builder()
        .uri(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, upgrade)
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(version.0, version.1)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 101);
    TokioIo::new(hyper::upgrade::on(answer).await.unwrap())
}

/// Sends back what it reads, with the length in front, and leaves with 3.
async fn echo(mut streams: Streams) -> Outcome {
    let mut input = String::new();
    if let Some(stdin) = &mut streams.stdin {
        stdin.read_to_string(&mut input).await.unwrap();
    }
    let mut stdout = streams.stdout.unwrap();
    stdout.write_all(format!("{} {input}", input.len()).as_bytes()).await.unwrap();
    Outcome::of_exit(3)
}

fn limits() -> Limits {
    Limits::new(rt::Shutdown::new())
}

const BOTH: Wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: false };

async fn web_socket(protocol: &str) -> WebSocketStream<Socket> {
    let version = ("sec-websocket-protocol", protocol);
    let socket =
        upgrade("websocket", version, "/", |request| exec::serve(request, BOTH, limits(), echo)).await;
    WebSocketStream::from_raw_socket(socket, Role::Client, None).await
}

/// What came until the server closed the connection.
async fn all(socket: &mut WebSocketStream<Socket>) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        match rt::timeout(PATIENCE, socket.next()).await.expect("it ends") {
            Some(Ok(Message::Close(frame))) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                return messages;
            }
            Some(Ok(message)) => messages.push(message),
            other => panic!("{other:?}"),
        }
    }
}

fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(bytes))
}

#[tokio::test]
async fn a_channel_is_closed_by_its_message_since_version_5() {
    let mut socket = web_socket("v5.channel.k8s.io").await;
    socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    for message in [binary(b"\x00he"), binary(b"\x00llo"), binary(b"\x07nobody's"), binary(b"\xff\x00")] {
        socket.send(message).await.unwrap();
    }
    let messages = all(&mut socket).await;
    assert!(messages.contains(&Message::Pong(Bytes::from_static(b"there?"))));
    let data: Vec<&Message> = messages.iter().filter(|message| message.is_binary()).collect();
    assert_eq!(data[0], &binary(b"\x01"), "it tells that it is connected");
    assert_eq!(data[1], &binary(b"\x015 hello"));
    let status = data[2].clone().into_data();
    assert_eq!(status[0], 3);
    let status: serde_json::Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}

#[tokio::test]
async fn base64_is_spoken_with_those_who_ask_for_it() {
    let wanted = Wanted { stdin: false, ..BOTH };
    let version = ("sec-websocket-protocol", "base64.channel.k8s.io");
    let socket =
        upgrade("websocket", version, "/", move |request| exec::serve(request, wanted, limits(), echo)).await;
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Client, None).await;
    let messages = all(&mut socket).await;
    // "0 ", and what version 1 says of the end.
    assert_eq!(messages[1], Message::Text("1MCA=".into()));
    let end = messages[2].clone().into_text().unwrap();
    assert!(end.starts_with('3') && !end.contains('{'), "{end}");
}

#[tokio::test]
async fn ports_of_the_query_are_channels_two_by_two() {
    let version = ("sec-websocket-protocol", "v4.channel.k8s.io");
    let socket = upgrade("websocket", version, "/", |request| {
        port_forward::serve(request, &["80,81"], "p".to_owned(), limits(), |port| async move {
            if port == 81 {
                return Err("nobody listens");
            }
            let (ours, theirs) = tokio::io::duplex(1024);
            rt::spawn("echo", async move {
                let (mut from, mut to) = tokio::io::split(theirs);
                let mut heard = [0; 2];
                from.read_exact(&mut heard).await.unwrap();
                to.write_all(&heard).await.unwrap();
            });
            Ok(ours)
        })
    })
    .await;
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Client, None).await;
    socket.send(binary(b"\x00hi")).await.unwrap();
    let mut said: Vec<Vec<u8>> = Vec::new();
    while said.len() < 6 {
        let message = rt::timeout(PATIENCE, socket.next()).await.expect("more comes").unwrap().unwrap();
        said.push(message.into_data().to_vec());
    }
    for (channel, port) in [(0, 80), (1, 80), (2, 81), (3, 81)] {
        assert!(said.contains(&vec![channel, port, 0]), "{said:?}");
    }
    assert!(said.contains(&b"\x00hi".to_vec()), "{said:?}");
    let error = b"\x03error forwarding port 81 to pod p: nobody listens".to_vec();
    assert!(said.contains(&error), "{said:?}");
}

/// A client that speaks SPDY frame by frame.
struct Spdy {
    reader: FrameReader<tokio::io::ReadHalf<Socket>>,
    writer: tokio::io::WriteHalf<Socket>,
    encoder: Encoder,
}

impl Spdy {
    async fn connect<A>(version: &str, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
    {
        let socket = upgrade("SPDY/3.1", ("x-stream-protocol-version", version), "/", answer).await;
        let (read, writer) = tokio::io::split(socket);
        Self { reader: FrameReader::new(read), writer, encoder: Encoder::default() }
    }

    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes).unwrap();
        self.writer.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.send(Frame::SynStream { id, fin: false, headers }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        rt::timeout(PATIENCE, self.reader.next()).await.expect("it answers").unwrap()
    }

    /// The frames until one is there.
    async fn until(&mut self, wanted: &Frame) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.expect("it goes on");
            let found = frame == *wanted;
            frames.push(frame);
            if found {
                return frames;
            }
        }
    }
}

fn end(id: u32) -> Frame {
    Frame::Data { id, fin: true, bytes: Bytes::new() }
}

#[tokio::test]
async fn pings_are_answered_and_strange_streams_refused() {
    let mut client =
        Spdy::connect("v4.channel.k8s.io", |request| exec::serve(request, BOTH, limits(), echo)).await;
    client.send(Frame::Ping(1)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(1)));
    client.send(Frame::Ping(2)).await;
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "nonsense")]).await;
    client.until(&Frame::RstStream { id: 3, status: 3 }).await;
    // Streams of a server have even numbers, and numbers only grow.
    client.open(4, &[("streamtype", "stdin")]).await;
    client.until(&Frame::RstStream { id: 4, status: 1 }).await;
    client.open(5, &[("streamtype", "stdin")]).await;
    client.open(7, &[("streamtype", "stdout")]).await;
    client.send(Frame::Data { id: 5, fin: true, bytes: Bytes::from_static(b"hello") }).await;
    let frames = client.until(&Frame::GoAway { last: 0, status: 0 }).await;
    let data = |wanted: u32| -> Vec<u8> {
        let of = frames.iter().filter_map(|frame| match frame {
            Frame::Data { id, bytes, .. } if *id == wanted => Some(bytes.to_vec()),
            _ => None,
        });
        of.flatten().collect()
    };
    assert_eq!(data(7), b"5 hello");
    assert!(data(1).starts_with(b"{"));
    for id in [1, 5, 7] {
        assert_eq!(frames.iter().filter(|frame| **frame == end(id)).count(), 1, "stream {id} ends once");
    }
    assert_eq!(client.next().await, None, "the server hangs up");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_nothing_is_left_after_its_time() {
    let mut client = Spdy::connect("v4.channel.k8s.io", |request| {
        exec::serve(request, BOTH, limits(), |_| async { unreachable!("its streams are not there") })
    })
    .await;
    client.open(1, &[("streamtype", "error")]).await;
    let began = rt::instant();
    while rt::timeout(Duration::from_secs(100), client.reader.next()).await.unwrap().unwrap().is_some() {}
    assert_eq!(rt::instant().duration_since(began).as_secs(), 30);
}

/// Sets a flag when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A server whose command never ends; tells when it was given up.
async fn endless(limits: Limits) -> (Spdy, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let flag = gone.clone();
    let client = Spdy::connect("v4.channel.k8s.io", move |request| {
        let dropped = Dropped(flag.clone());
        exec::serve(request, Wanted { stdin: false, ..BOTH }, limits.clone(), move |_| async move {
            let _dropped = dropped;
            std::future::pending().await
        })
    })
    .await;
    (client, gone)
}

async fn until(flag: &AtomicBool) {
    let set = async {
        while !flag.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    set.await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_command_with_it() {
    let (mut client, gone) = endless(limits()).await;
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdout")]).await;
    assert!(matches!(client.next().await, Some(Frame::SynReply { id: 1, .. })));
    drop(client);
    rt::timeout(PATIENCE, until(&gone)).await.expect("it is given up");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_and_one_with_payload_does_not() {
    let idle_timeout = Duration::from_secs(60);
    let (mut client, gone) = endless(Limits { idle_timeout, ..limits() }).await;
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdout")]).await;
    rt::sleep(Duration::from_secs(50)).await;
    client.send(Frame::Data { id: 3, fin: false, bytes: Bytes::from_static(b"here") }).await;
    rt::sleep(Duration::from_secs(50)).await;
    assert!(!gone.load(Ordering::SeqCst));
    // Pings are no payload.
    client.send(Frame::Ping(1)).await;
    rt::sleep(Duration::from_secs(11)).await;
    until(&gone).await;
}

#[tokio::test]
async fn a_shutdown_ends_connections() {
    let shutdown = rt::Shutdown::new();
    let (mut client, gone) = endless(Limits::new(shutdown.clone())).await;
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdout")]).await;
    assert!(matches!(client.next().await, Some(Frame::SynReply { id: 1, .. })));
    shutdown.cancel();
    rt::timeout(PATIENCE, until(&gone)).await.expect("it is given up");
}

#[tokio::test(start_paused = true)]
async fn half_a_forwarded_connection_is_reset_after_its_time() {
    let mut client = Spdy::connect("portforward.k8s.io", |request| {
        port_forward::serve(request, &[], "p".to_owned(), limits(), |_| async {
            Err::<DuplexStream, _>("nobody listens")
        })
    })
    .await;
    let began = rt::instant();
    client.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]).await;
    client.open(3, &[("streamtype", "data"), ("port", "0"), ("requestid", "0")]).await;
    assert!(matches!(client.until(&Frame::RstStream { id: 3, status: 3 }).await.len(), 1..));
    let late = Frame::RstStream { id: 1, status: 5 };
    let waiting = async { while client.reader.next().await.unwrap().expect("it goes on") != late {} };
    rt::timeout(Duration::from_secs(100), waiting).await.unwrap();
    assert_eq!(rt::instant().duration_since(began).as_secs(), 30);
    // Clients of old have no request IDs: the data stream follows its error stream.
    client.open(5, &[("streamtype", "error"), ("port", "80")]).await;
    client.open(7, &[("streamtype", "data"), ("port", "80")]).await;
    let frames = client.until(&end(5)).await;
    let told = Bytes::from_static(b"error forwarding port 80 to pod p: nobody listens");
    assert!(frames.contains(&Frame::Data { id: 5, fin: false, bytes: told }), "{frames:?}");
}
