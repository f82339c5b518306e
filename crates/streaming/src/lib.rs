//! Streams of exec, attach and port-forward: the server's side of Kubernetes' remote command protocols.
//!
//! Owns: SPDY/3.1 as client-go speaks it ([`spdy`]), channels over WebSocket, SPDY tunnelled through WebSocket, which
//! protocol is spoken with whom, and how a command's end is told. Never touches: pods and containers. A handler gets
//! byte streams and says how it went.
//!
//! Start at [`exec::serve`] and [`port_forward::serve`]: each takes an upgrade request and answers it; what follows on
//! the connection runs in a task that ends with the connection, the handler, or the shutdown token.
//!
//! Back-pressure: neither protocol has windows here (client-go's SPDY library neither sends nor honours them), so a
//! stream that nobody reads holds up the connection it came on, once its buffer of [`stream::CHUNKS_MAX`] chunks is
//! full. Upstream's kubelet does the same.

mod activity;
mod channels;
pub mod exec;
mod negotiate;
pub mod port_forward;
mod resize;
pub mod spdy;
pub mod status;
pub mod stream;
mod tunnel;
mod websocket;

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;

pub use resize::{Resizes, Size};
pub use stream::{StreamReader, StreamWriter};

/// What a request for an upgrade is answered with: nothing, or why not.
pub type Answer = Response<Full<Bytes>>;

/// After the last byte was sent, a client has this long to read it and to hang up.
const GOODBYE: Duration = Duration::from_secs(10);

/// How long a connection may take for what, and what ends it from outside.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Without a byte of payload in either direction a connection is closed after this time.
    pub idle_timeout: Duration,
    /// A client has this long to open the streams that it asked for.
    pub creation_timeout: Duration,
    pub shutdown: rt::Shutdown,
}

impl Limits {
    /// Upstream's times.
    pub fn new(shutdown: rt::Shutdown) -> Self {
        Self {
            idle_timeout: Duration::from_secs(4 * 60 * 60),
            creation_timeout: Duration::from_secs(30),
            shutdown,
        }
    }
}

/// A refusal as upstream's `http.Error` writes it.
fn refusal(code: StatusCode, message: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{message}\n"))));
    *answer.status_mut() = code;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}
