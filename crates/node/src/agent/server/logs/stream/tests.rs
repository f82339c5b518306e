use std::fs::OpenOptions;
use std::io::Write;

use super::super::line::Stream;
use super::super::rotation::{self, Limits};
use super::*;
use crate::agent::server::testing::TestRuntime;

const PATIENCE: Duration = Duration::from_secs(20);

/// A container's log in a directory of its own.
struct Scene {
    folder: tempfile::TempDir,
    runtime: Arc<TestRuntime>,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap(), runtime: TestRuntime::new() };
        scene.runtime.runs("c1", scene.path());
        scene
    }

    fn path(&self) -> Utf8PathBuf {
        Utf8PathBuf::try_from(self.folder.path().join("0.log")).unwrap()
    }

    fn write(&self, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn line(&self, text: &str) {
        self.write(&format!("2026-01-01T00:00:00Z stdout F {text}\n"));
    }

    /// Follows the log, from its last lines on.
    async fn follow(&self, tail_lines: Option<u64>) -> mpsc::Receiver<Bytes> {
        let wanted = Wanted { tail_lines, ..Wanted::default() };
        let log = Log::open(&self.path(), wanted).await.unwrap();
        let watches = Arc::new(Watches::new().unwrap());
        let follow = Follow { runtime: self.runtime.clone(), container: "c1".to_owned(), watches };
        let (sender, receiver) = mpsc::channel(2);
        rt::spawn("follower", async move { log.copy(Some(follow), sender).await.unwrap() });
        receiver
    }

    async fn read(&self, wanted: Wanted) -> String {
        let log = Log::open(&self.path(), wanted).await.unwrap();
        let (sender, mut receiver) = mpsc::channel(2);
        rt::spawn("reader", async move { log.copy(None, sender).await.unwrap() });
        rest(&mut receiver).await
    }
}

async fn next(receiver: &mut mpsc::Receiver<Bytes>, wanted: &str) {
    let mut got = Vec::new();
    while got.len() < wanted.len() {
        let chunk = rt::timeout(PATIENCE, receiver.recv()).await.expect("more comes");
        got.extend_from_slice(&chunk.expect("it goes on"));
    }
    assert_eq!(String::from_utf8(got).unwrap(), wanted);
}

async fn rest(receiver: &mut mpsc::Receiver<Bytes>) -> String {
    let mut got = Vec::new();
    while let Some(chunk) = rt::timeout(PATIENCE, receiver.recv()).await.expect("it ends") {
        got.extend_from_slice(&chunk);
    }
    String::from_utf8(got).unwrap()
}

#[tokio::test]
async fn a_log_is_read_to_its_end_or_its_limit() {
    let scene = Scene::new();
    for index in 0..10_000 {
        scene.line(&index.to_string());
    }
    scene.write("2026-01-01T00:00:01Z stderr P no en");
    let all = scene.read(Wanted::default()).await;
    assert!(all.starts_with("0\n1\n") && all.ends_with("9999\nno en"), "{}", all.len());
    let tail = Wanted { tail_lines: Some(2), ..Wanted::default() };
    assert_eq!(scene.read(tail).await, "9999\nno en");
    let mut wanted = Wanted::default();
    wanted.selection.limit_bytes = Some(3);
    assert_eq!(scene.read(wanted.clone()).await, "0\n1");
    wanted.selection.limit_bytes = None;
    wanted.selection.stream = Some(Stream::Stderr);
    assert_eq!(scene.read(wanted).await, "no en");
}

#[tokio::test]
async fn a_follower_sees_lines_as_they_are_written_until_the_container_ends() {
    let scene = Scene::new();
    scene.line("old");
    scene.line("older than new");
    let mut follower = scene.follow(Some(1)).await;
    next(&mut follower, "older than new\n").await;
    scene.line("new");
    next(&mut follower, "new\n").await;
    // A line is handed on when it is whole.
    scene.write("2026-01-01T00:00:00Z stdout F ha");
    scene.write("lf\n");
    next(&mut follower, "half\n").await;
    scene.line("last");
    scene.runtime.exits("c1");
    assert_eq!(rest(&mut follower).await, "last\n");
}

#[tokio::test]
async fn a_follower_goes_on_after_a_rotation_and_loses_nothing() {
    let scene = Scene::new();
    scene.line("one");
    let mut follower = scene.follow(None).await;
    next(&mut follower, "one\n").await;
    let runtime: SharedRuntime = scene.runtime.clone();
    // Not full yet, and then full.
    rotation::rotate_all(&runtime, &Limits { bytes_max: 1000, ..Limits::default() }).await;
    assert_eq!(scene.runtime.reopened.lock().len(), 0);
    scene.line("two");
    rotation::rotate_all(&runtime, &Limits { bytes_max: 50, ..Limits::default() }).await;
    assert_eq!(*scene.runtime.reopened.lock(), ["c1"]);
    scene.line("three");
    next(&mut follower, "two\nthree\n").await;
    scene.runtime.exits("c1");
    assert_eq!(rest(&mut follower).await, "");
    let names: Vec<String> = scene
        .folder
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(scene.read(Wanted::default()).await, "three\n");
}

#[tokio::test]
async fn a_follower_that_leaves_ends_its_task() {
    let scene = Scene::new();
    scene.line("one");
    let mut follower = scene.follow(None).await;
    next(&mut follower, "one\n").await;
    drop(follower);
    // The task holds the runtime as long as it lives.
    let ended = async {
        while Arc::strong_count(&scene.runtime) > 1 {
            tokio::task::yield_now().await;
        }
    };
    rt::timeout(PATIENCE, ended).await.expect("the task ends");
}

#[tokio::test]
async fn a_line_without_end_is_passed_over() {
    let scene = Scene::new();
    scene.line("before");
    scene.write(&"x".repeat(LINE_BYTES_MAX + 2 * READ_BYTES));
    scene.write("\n");
    scene.line("after");
    assert_eq!(scene.read(Wanted::default()).await, "before\nafter\n");
}
