//! What can go wrong between asking and having the whole answer.

use std::sync::Arc;

use apimachinery::Status;

/// Why a call has no good answer. Printed, it is what Go's client would say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no answer, or not all of one.
    #[error("{call}: {problem}")]
    Transport {
        /// Method and URL as Go writes them: `Post "https://…"`.
        call: String,
        problem: TransportProblem,
    },
    /// The peer answered, with something else than 2xx.
    #[error("{0}")]
    Status(Box<Status>),
    #[error("the response is larger than the {bytes_max} bytes that are allowed")]
    TooLarge { bytes_max: usize },
}

/// What kept an answer from coming.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportProblem {
    #[error("context deadline exceeded")]
    Timeout,
    /// The Service is not there or has no endpoint.
    #[error("{0}")]
    Service(Box<Status>),
    #[error("dial tcp: lookup {host}: no such host")]
    NoSuchHost { host: String },
    #[error("dial tcp {address}: {}", connect_text(source))]
    Dial {
        address: String,
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The certificate was not good, in Go's words.
    #[error("tls: failed to verify certificate: {0}")]
    Certificate(String),
    #[error("{0}")]
    Tls(String),
    #[error("EOF")]
    Closed,
    #[error("read: connection reset by peer")]
    Reset,
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Whether the same call may go well a moment later, by upstream's rule for webhooks.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { problem, .. } => matches!(problem, TransportProblem::Reset),
            Self::Status(status) => {
                matches!(&*status.reason, "InternalError" | "Timeout" | "TooManyRequests")
                    || status.details.as_ref().is_some_and(|details| details.retry_after_seconds.is_some())
            }
            Self::TooLarge { .. } => false,
        }
    }
}

/// Go's text of a failed connect: the system call and what the system says.
fn connect_text(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        _ => format!("connect: {error}"),
    }
}
