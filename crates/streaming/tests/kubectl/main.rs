//! kubectl's streams against this server: an old one, which speaks SPDY, and a new one, which speaks WebSocket.

mod server;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use server::Server;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Whatever kubectl does here takes a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kubectl of a minor version, on `PATH` or beside one that is there.
fn kubectl(version: &str) -> Option<PathBuf> {
    let name = format!("kubectl.{version}");
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|folder| {
        let beside = folder.join("kubectl").canonicalize().ok()?.with_file_name(&name);
        [folder.join(&name), beside].into_iter().find(|file| file.exists())
    })
}

/// One kubectl and the server it talks to.
struct Kubectl {
    program: PathBuf,
    server: Server,
    home: tempfile::TempDir,
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--server").arg(format!("http://{}", self.server.address)).args(arguments);
        command.env_clear().env("HOME", self.home.path()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feeding = async move {
            // A command may not want it all.
            let _ = stdin.write_all(input).await;
        };
        let both = async { tokio::join!(feeding, child.wait_with_output()).1.unwrap() };
        rt::timeout(PATIENCE, both).await.expect("kubectl ends")
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs a test with each kubectl that is here.
async fn with_each<F: AsyncFn(&Kubectl)>(test: F) {
    for version in ["1.27", "1.33"] {
        match kubectl(version) {
            None => println!("skipped: there is no kubectl.{version} on PATH"),
            Some(program) => {
                println!("kubectl.{version}");
                let (server, home) = (Server::start().await, tempfile::tempdir().unwrap());
                let kubectl = Kubectl { program, server, home };
                test(&kubectl).await;
                // None of them fell back to what it knows besides.
                let spoken = if version == "1.27" { "spdy/3.1" } else { "websocket" };
                assert_eq!(kubectl.server.upgrades(), [spoken]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_returns_what_the_command_wrote_and_its_exit_code() {
    with_each(async |kubectl| {
        let script = "echo out; echo err >&2; exit 7";
        let output = kubectl.run(&["exec", "p", "--", "sh", "-c", script], b"").await;
        assert_eq!(text(&output.stdout), "out\n");
        assert!(text(&output.stderr).contains("err\n"), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("command terminated with exit code 7"));
        assert_eq!(output.status.code(), Some(7));

        let output = kubectl.run(&["exec", "p", "--", "true"], b"").await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout), "");

        let output = kubectl.run(&["exec", "p", "--", "no-such-command"], b"").await;
        assert_eq!(output.status.code(), Some(1));
        let wanted = "error executing command in container: No such file or directory";
        assert!(text(&output.stderr).contains(wanted), "{}", text(&output.stderr));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_arrives_whole_and_its_end_is_seen() {
    with_each(async |kubectl| {
        let input: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let output = kubectl.run(&["exec", "-i", "p", "--", "cat"], &input).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());

        // A command that reads nothing: its end is seen in spite of what is on its way.
        let output = kubectl.run(&["exec", "-i", "p", "--", "sh", "-c", "echo done; exit 3"], &input).await;
        assert_eq!(text(&output.stdout), "done\n");
        assert_eq!(output.status.code(), Some(3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_tells_its_size() {
    if !Path::new("/usr/bin/script").exists() {
        println!("skipped: script(1), which makes a terminal, is not here");
        return;
    }
    with_each(async |kubectl| {
        let inner = format!(
            "stty rows 40 cols 100; exec {} --server http://{} exec -it p -- size",
            kubectl.program.display(),
            kubectl.server.address
        );
        let mut command = Command::new("/usr/bin/script");
        command.args(["-qefc", &inner, "/dev/null"]).env("HOME", kubectl.home.path()).kill_on_drop(true);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = rt::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        assert!(text(&output.stdout).contains("100x40"), "{}", text(&output.stdout));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_sees_what_is_written_and_sends_what_is_typed() {
    with_each(async |kubectl| {
        let output = kubectl.run(&["attach", "-i", "p"], b"hello\n").await;
        assert!(text(&output.stdout).contains("attached\nhello\n"), "{output:?}");
        assert!(output.status.success(), "{output:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_in_both_directions() {
    with_each(async |kubectl| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(path("from")).unwrap();
        let content: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 241) as u8).collect();
        std::fs::write(path("from/file"), &content).unwrap();
        // Into the pod, and out of it under another name.
        for (from, to) in
            [(path("from"), format!("p:{}", path("to"))), (format!("p:{}", path("to")), path("back"))]
        {
            let output = kubectl.run(&["cp", &from, &to], b"").await;
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        assert!(std::fs::read(path("to/file")).unwrap() == content);
        assert!(std::fs::read(path("back/file")).unwrap() == content);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_many_at_a_time_and_failures_are_told() {
    with_each(async |kubectl| {
        let echo = server::echo().await;
        let ports = [format!(":{}", echo.port()), ":1".to_owned()];
        let mut child = kubectl.command(&["port-forward", "p", &ports[0], &ports[1]]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut local = Vec::new();
        while local.len() < 2 {
            let line =
                rt::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("kubectl goes on");
            // There is a line for IPv6, too.
            let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") else { continue };
            local.push(rest.split_once(" -> ").unwrap().0.parse::<u16>().unwrap());
        }
        let echo_port = local[0];
        let connections = (0..20_usize).map(|index| async move {
            let sent: Vec<u8> = (0..100_000 + index).map(|number| (number % 239) as u8).collect();
            let socket = TcpStream::connect(("127.0.0.1", echo_port)).await.unwrap();
            let (mut from, mut to) = socket.into_split();
            let mut received = Vec::new();
            let sending = async {
                to.write_all(&sent).await.unwrap();
                // The other direction stays open.
                to.shutdown().await.unwrap();
            };
            let (_, read) = tokio::join!(sending, from.read_to_end(&mut received));
            read.unwrap();
            (index, received.ends_with(b"bye") && received[..received.len() - 3] == sent)
        });
        let all = rt::timeout(PATIENCE, futures::future::join_all(connections)).await.expect("all end");
        assert_eq!(all.iter().filter(|(_, whole)| !whole).collect::<Vec<_>>(), Vec::<&(usize, bool)>::new());

        let mut socket = TcpStream::connect(("127.0.0.1", local[1])).await.unwrap();
        let mut nothing = Vec::new();
        let _ = rt::timeout(PATIENCE, socket.read_to_end(&mut nothing)).await.expect("the connection ends");
        assert_eq!(nothing, b"");
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let wanted = "error forwarding port 1 to pod p: nobody is at home";
        loop {
            let line =
                rt::timeout(PATIENCE, errors.next_line()).await.expect("kubectl tells").unwrap().unwrap();
            if line.contains(wanted) {
                break;
            }
        }
        child.start_kill().unwrap();
        child.wait().await.unwrap();
    })
    .await;
}
