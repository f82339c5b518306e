//! A `pintle` process under test.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longer than any of these takes on a busy machine; waits end when what they wait for happens.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command, without arguments.
pub fn pintle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pintle"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `pintle up` on a free port, with a simulated node: whoever tests may be root, and this machine is nobody's to use.
pub fn up(data_dir: &Path) -> Command {
    let mut command = pintle();
    command.arg("up").arg("--data-dir").arg(data_dir).args(["--listen", "127.0.0.1:0", "--sim-nodes", "1"]);
    command
}

/// Lines that may wait to be read; far more than any of these commands prints.
const LINES_MAX: usize = 4096;

/// A running `pintle up` and its lines.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line that contains `text`.
    pub fn line_with(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(_) => {
                    let _ = self.child.kill();
                    let mut errors = String::new();
                    let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut errors));
                    panic!("no line with {text:?}; stderr: {errors}");
                }
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
    }

    pub fn exit_code(self) -> Option<i32> {
        self.end().0
    }

    /// Waits for its end: the exit code, and what it said on standard error.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        let stderr = self.child.stderr.take();
        stderr.map(|mut stderr| stderr.read_to_string(&mut errors)).transpose().expect("messages are UTF-8");
        (self.child.wait().expect("the child was started").code(), errors)
    }
}

/// Writes a file and returns its path.
pub fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a temporary folder can be written");
    path.to_str().expect("temporary paths are UTF-8").to_owned()
}

/// Two replicas in a namespace of their own.
#[allow(dead_code, reason = "not every suite runs an application")]
pub const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: registry.example/web:1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";
