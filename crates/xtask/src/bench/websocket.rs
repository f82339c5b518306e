//! Streams of exec over WebSocket, as far as waiting for a command's end needs it.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::connection::Connection;

/// The channel on which the server says how a command ended.
const STATUS_CHANNEL: u8 = 3;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
/// Larger messages are none of a status.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Runs a command by this path and returns what the server says of its end. A connection carries one.
pub(super) async fn run(connection: Connection, path: &str) -> anyhow::Result<Value> {
    let mut stream = TokioIo::new(upgrade(connection, path).await?);
    loop {
        let (kind, payload) = frame(&mut stream).await.context("reading a frame")?;
        match (kind, payload.split_first()) {
            (BINARY, Some((&STATUS_CHANNEL, status))) => {
                return serde_json::from_slice(status).context("reading the command's status");
            }
            (CLOSE, _) => bail!("the server closed the stream without a status"),
            _ => {}
        }
    }
}

async fn upgrade(connection: Connection, path: &str) -> anyhow::Result<hyper::upgrade::Upgraded> {
    let request = Request::builder()
        .uri(path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "YmVuY2gtb2YtcGludGxlIQ==")
        .header("sec-websocket-protocol", "v5.channel.k8s.io")
        .body(Full::new(Bytes::new()))
        .with_context(|| format!("building a request for {path}"))?;
    let response = connection.request(request, path).await?;
    ensure!(
        response.status() == StatusCode::SWITCHING_PROTOCOLS,
        "{path} answered {} instead of switching protocols",
        response.status()
    );
    hyper::upgrade::on(response).await.context("switching protocols")
}

/// A frame's kind and payload. Servers do not mask theirs.
async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await? & 0x0f;
    let len = match stream.read_u8().await? & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        len => u64::from(len),
    };
    ensure!(len <= MESSAGE_BYTES_MAX, "a frame of {len} bytes is too long");
    let mut payload = vec![0; usize::try_from(len)?];
    stream.read_exact(&mut payload).await?;
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_of_all_lengths_are_read() {
        let long = vec![7; 300];
        let mut bytes = vec![0x82, 2, 3, b'x', 0x81, 126, 1, 44];
        bytes.extend(&long);
        bytes.extend([0x88, 127, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut stream = &bytes[..];
        assert_eq!(frame(&mut stream).await.unwrap(), (BINARY, vec![3, b'x']));
        assert_eq!(frame(&mut stream).await.unwrap(), (1, long));
        assert_eq!(frame(&mut stream).await.unwrap(), (CLOSE, Vec::new()));
        assert!(frame(&mut stream).await.is_err());
    }
}
