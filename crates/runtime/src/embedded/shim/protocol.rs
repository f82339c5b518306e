//! What Pintle and the program beside a container say to each other: files in its folder, and frames on its socket.
//!
//! A connection begins with a [`Request`] as a JSON frame; the answer is a [`Response`]. After an attach both sides send
//! frames of bytes until one of them closes. A frame is its kind (one byte), the length of its payload (four bytes, big
//! endian) and the payload.

use std::io;

use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::embedded::cgroup::Cgroups;
use crate::embedded::seccomp::Program;

pub const CONFIG_FILE: &str = "shim.json";
pub const SOCKET_FILE: &str = "shim.sock";
pub const STARTED_FILE: &str = "started.json";
pub const EXIT_FILE: &str = "exit.json";
pub const PROCESS_FILE: &str = "process.json";
pub const ERROR_FILE: &str = "error";
pub const PID_FILE: &str = "pid";
pub const CONSOLE_SOCKET: &str = "console.sock";
/// The OCI bundle's configuration, as libcontainer wants it named.
pub const BUNDLE_FILE: &str = "config.json";

/// The largest frame: more than a terminal or a pipe gives at once.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// What the program beside a container is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShimConfig {
    pub id: String,
    /// Absolute.
    pub log: Utf8PathBuf,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub oom_score_adj: i32,
    pub seccomp: Vec<Program>,
    /// Relative to the root of each hierarchy.
    pub cgroup: String,
    /// It does not lead a process namespace of its own, so its processes outlive the first one.
    pub shares_pids: bool,
    /// Those of this machine; `None` from former versions.
    #[serde(default)]
    pub cgroups: Option<Cgroups>,
    /// What the start needs none of, and what it needs in there.
    #[serde(default)]
    pub enclosure: Option<Enclosed>,
}

/// The folder of all pods' mounts, see [`crate::embedded::enclosure`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enclosed {
    pub folder: Utf8PathBuf,
    /// The container's own parts of it.
    pub kept: Vec<Utf8PathBuf>,
}

/// What a command in a container is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecConfig {
    pub id: String,
    pub tty: bool,
    pub oom_score_adj: i32,
    pub seccomp: Vec<Program>,
    /// Where the pod has users of its own.
    pub inside: Option<Inside>,
}

/// What a command enters that libcontainer, once it is there, could not enter itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inside {
    pub user_namespace: Utf8PathBuf,
    pub cgroups: Cgroups,
    /// Relative to the root of each hierarchy.
    pub cgroup: String,
}

/// It runs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Started {
    pub pid: i32,
    pub at: Timestamp,
}

/// How it began, told over the program's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    Started(Started),
    Failed(String),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 128 + the number of the signal that ended it.
    pub code: i32,
    pub at: Timestamp,
    pub out_of_memory: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The connection stays open as long as the container runs.
    Watch,
    ReopenLog,
    Attach {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    Done,
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    Json,
    Stdin,
    StdinClosed,
    Stdout,
    Stderr,
    /// Width and height, two bytes each, big endian.
    Resize,
}

impl FrameKind {
    const fn number(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Stdin => 1,
            Self::StdinClosed => 2,
            Self::Stdout => 3,
            Self::Stderr => 4,
            Self::Resize => 5,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Json,
            1 => Self::Stdin,
            2 => Self::StdinClosed,
            3 => Self::Stdout,
            4 => Self::Stderr,
            5 => Self::Resize,
            _ => return None,
        })
    }
}

pub async fn write_frame(
    to: &mut (impl AsyncWrite + Unpin),
    kind: FrameKind,
    payload: &[u8],
) -> io::Result<()> {
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind.number());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(payload);
    to.write_all(&frame).await
}

pub async fn write_json(to: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    write_frame(to, FrameKind::Json, &serde_json::to_vec(value)?).await
}

/// The next frame; `None` where the other side closed between two of them.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(FrameKind, Bytes)>> {
    let mut head = [0; 5];
    let first = from.read(&mut head).await?;
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[first..]).await?;
    let kind = FrameKind::of(head[0]).ok_or_else(|| invalid(format!("unknown kind of frame {}", head[0])))?;
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(invalid(format!("a frame of {len} bytes, more than {FRAME_BYTES_MAX}")));
    }
    let mut payload = vec![0; len];
    from.read_exact(&mut payload).await?;
    Ok(Some((kind, payload.into())))
}

/// The value of a JSON frame.
pub async fn read_json<T: serde::de::DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    match read_frame(from).await? {
        Some((FrameKind::Json, payload)) => Ok(serde_json::from_slice(&payload)?),
        Some((kind, _)) => Err(invalid(format!("{kind:?} where JSON was expected"))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Reads a file of JSON; `None` where there is none.
pub fn load<T: serde::de::DeserializeOwned>(path: &Utf8Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file of JSON: who reads it sees all of it or what was there before.
pub fn save(path: &Utf8Path, value: &impl Serialize) -> io::Result<()> {
    let new = Utf8PathBuf::from(format!("{path}.new"));
    std::fs::write(&new, serde_json::to_vec(value)?)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        write_json(&mut near, &Request::Watch).await.unwrap();
        write_frame(&mut near, FrameKind::Stdout, b"hello").await.unwrap();
        drop(near);
        assert_eq!(read_json::<Request>(&mut far).await.unwrap(), Request::Watch);
        let (kind, payload) = read_frame(&mut far).await.unwrap().unwrap();
        assert_eq!((kind, payload.as_ref()), (FrameKind::Stdout, b"hello".as_slice()));
        assert!(read_frame(&mut far).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_or_unknown_is_refused_before_it_is_read() {
        for head in [[1, 0xff, 0, 0, 0], [9, 0, 0, 0, 0]] {
            let error = read_frame(&mut head.as_slice()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert!(read_frame(&mut [1, 0].as_slice()).await.is_err(), "cut off in the head");
    }
}
