//! An upgraded connection as a WebSocket.

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Most bytes of a message, as upstream's; clients send 32 KiB at a time.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

pub(crate) type Socket = TokioIo<Upgraded>;

/// Waits for the switch of protocols, which happens once the answer is sent.
pub(crate) async fn upgraded(upgrade: OnUpgrade) -> Option<Socket> {
    match upgrade.await {
        Ok(upgraded) => Some(TokioIo::new(upgraded)),
        Err(error) => {
            tracing::debug!(%error, "Client left before the protocol was switched");
            None
        }
    }
}

pub(crate) async fn accept(socket: Socket) -> WebSocketStream<Socket> {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(socket, Role::Server, Some(limits)).await
}
