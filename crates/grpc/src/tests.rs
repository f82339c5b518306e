use std::time::Duration;

use camino::Utf8PathBuf;
use futures::StreamExt;
use tokio::net::TcpListener;

use crate::{Client, Code, Options, Router, Server, Status};

/// A message as the parts of the product write them.
#[derive(Clone, PartialEq, prost::Message)]
struct Words {
    #[prost(string, repeated, tag = "1")]
    words: Vec<String>,
}

fn words(words: &[&str]) -> Words {
    Words { words: words.iter().map(|word| (*word).to_owned()).collect() }
}

fn router() -> Router {
    Router::new()
        .unary("/test.Words/Reverse", |mut request: Words| async move {
            request.words.reverse();
            Ok(request)
        })
        .unary("/test.Words/Refuse", |request: Words| async move {
            Err::<Words, _>(Status::new(Code::FailedPrecondition, format!("no: {}", request.words.join(" "))))
        })
        .unary("/test.Words/Never", |_: Words| std::future::pending::<Result<Words, Status>>())
        .unary("/test.Words/Large", |request: Words| async move {
            Ok(Words { words: vec!["x".repeat(request.words[0].parse().unwrap())] })
        })
        .server_streaming("/test.Words/Each", |request: Words| async move {
            let each = request.words.into_iter().map(|word| match word.as_str() {
                "bad" => Err(Status::new(Code::DataLoss, "a bad word")),
                _ => Ok(Words { words: vec![word] }),
            });
            Ok(futures::stream::iter(each))
        })
        .server_streaming("/test.Words/Stall", |request: Words| async move {
            Ok(futures::stream::once(async move { Ok(request) }).chain(futures::stream::pending()))
        })
        .streaming("/test.Words/Echo", |requests: crate::Streaming<Words>| async move {
            Ok(futures::stream::unfold(requests, |mut requests| async move {
                Some((requests.message().await.transpose()?, requests))
            }))
        })
}

struct World {
    client: Client,
    path: Utf8PathBuf,
    shutdown: rt::Shutdown,
    _folder: tempfile::TempDir,
}

impl World {
    fn start() -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("grpc.sock")).unwrap();
        let world = World {
            client: Client::unix(path.clone()),
            path,
            shutdown: rt::Shutdown::new(),
            _folder: folder,
        };
        world.serve(&world.shutdown);
        world
    }

    fn serve(&self, shutdown: &rt::Shutdown) {
        let server = Server::unix(&self.path).unwrap();
        drop(rt::spawn("test server", server.serve(router(), shutdown.clone())));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test]
async fn a_call_is_answered_with_a_message_or_a_status() {
    let world = World::start();
    let request = words(&["é%", "b"]);
    let call = |path| world.client.unary::<_, Words>(path, &request, Options::default());
    assert_eq!(call("/test.Words/Reverse").await, Ok(words(&["b", "é%"])));
    assert_eq!(call("/test.Words/Refuse").await, Err(Status::new(Code::FailedPrecondition, "no: é% b")));
    assert_eq!(
        call("/test.Words/Missing").await,
        Err(Status::new(Code::Unimplemented, "unknown method Missing for service test.Words"))
    );
}

#[tokio::test]
async fn calls_run_side_by_side_on_one_connection() {
    let world = World::start();
    let nothing = words(&[]);
    let never = world.client.unary::<_, Words>("/test.Words/Never", &nothing, Options::default());
    let calls = (0..100).map(|number| {
        let client = world.client.clone();
        async move {
            let number = number.to_string();
            let answer: Words = client
                .unary("/test.Words/Reverse", &words(&["a", &number]), Options::default())
                .await
                .unwrap();
            assert_eq!(answer, words(&[&number, "a"]));
        }
    });
    tokio::select! {
        _ = never => panic!("the endless call ended"),
        done = futures::future::join_all(calls) => assert_eq!(done.len(), 100),
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_status_and_a_stall_with_its_deadline() {
    let world = World::start();
    let mut each = world
        .client
        .server_streaming("/test.Words/Each", &words(&["a", "b"]), Options::default())
        .await
        .unwrap();
    assert_eq!(each.message().await, Ok(Some(words(&["a"]))));
    assert_eq!(each.message().await, Ok(Some(words(&["b"]))));
    assert_eq!(each.message().await, Ok(None));
    assert_eq!(each.message().await, Ok(None));

    let mut each = world
        .client
        .server_streaming::<_, Words>("/test.Words/Each", &words(&["a", "bad", "c"]), Options::default())
        .await
        .unwrap();
    assert_eq!(each.message().await, Ok(Some(words(&["a"]))));
    assert_eq!(each.message().await, Err(Status::new(Code::DataLoss, "a bad word")));
    assert_eq!(each.message().await, Ok(None));

    let options = Options::timeout(Duration::from_millis(300));
    let mut stall =
        world.client.server_streaming("/test.Words/Stall", &words(&["a"]), options).await.unwrap();
    assert_eq!(stall.message().await, Ok(Some(words(&["a"]))));
    assert_eq!(stall.message().await.map_err(|status| status.code), Err(Code::DeadlineExceeded));
}

#[tokio::test]
async fn both_sides_stream_at_once() {
    let world = World::start();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Words>(1);
    let requests =
        futures::stream::unfold(
            receiver,
            |mut receiver| async move { Some((receiver.recv().await?, receiver)) },
        );
    let mut answers = world
        .client
        .streaming::<_, Words, _>("/test.Words/Echo", requests, Options::default())
        .await
        .unwrap();
    for word in ["a", "b", "c"] {
        sender.send(words(&[word])).await.unwrap();
        assert_eq!(answers.message().await, Ok(Some(words(&[word]))));
    }
    drop(sender);
    assert_eq!(answers.message().await, Ok(None));
}

#[tokio::test]
async fn a_deadline_ends_a_call() {
    let world = World::start();
    let options = Options::timeout(Duration::from_millis(50));
    let answer = world.client.unary::<_, Words>("/test.Words/Never", &words(&[]), options).await;
    assert_eq!(answer.map_err(|status| status.code), Err(Code::DeadlineExceeded));
}

#[tokio::test]
async fn large_messages_pass_and_larger_ones_than_wanted_are_refused() {
    let world = World::start();
    let request = words(&["9000000"]);
    let call = |options| world.client.unary::<_, Words>("/test.Words/Large", &request, options);
    assert_eq!(call(Options::default()).await.unwrap().words[0].len(), 9_000_000);
    let refused = call(Options { message_bytes_max: 8_000_000, ..Options::default() }).await.unwrap_err();
    assert_eq!(refused.code, Code::ResourceExhausted);
}

#[tokio::test]
async fn a_client_finds_the_server_again_after_it_was_away() {
    let world = World::start();
    let first = rt::Shutdown::new();
    let path = world.path.with_file_name("second.sock");
    let client = Client::unix(path.clone());
    let call = || async {
        client
            .unary::<_, Words>(
                "/test.Words/Reverse",
                &words(&["a"]),
                Options::timeout(Duration::from_secs(5)),
            )
            .await
    };
    let missing = call().await.unwrap_err();
    assert_eq!(missing.code, Code::Unavailable);
    assert!(
        missing.message.ends_with("second.sock: connect: no such file or directory\""),
        "{}",
        missing.message
    );
    for shutdown in [first, rt::Shutdown::new()] {
        let server = rt::spawn("test server", Server::unix(&path).unwrap().serve(router(), shutdown.clone()));
        assert_eq!(call().await, Ok(words(&["a"])));
        shutdown.cancel();
        server.await.unwrap();
        assert!(!path.exists());
    }
    assert_eq!(call().await.map_err(|status| status.code), Err(Code::Unavailable));
}

#[tokio::test]
async fn tcp_is_as_good_as_a_socket_file() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::tcp(listener.local_addr().unwrap().to_string());
    let shutdown = rt::Shutdown::new();
    let _ends_the_server = shutdown.clone().drop_guard();
    drop(rt::spawn("test server", Server::tcp(listener).serve(router(), shutdown)));
    let answer: Words =
        client.unary("/test.Words/Reverse", &words(&["a", "b"]), Options::default()).await.unwrap();
    assert_eq!(answer, words(&["b", "a"]));
}
