//! What goes wrong when somebody else's plugins connect pods.

use std::io;

use camino::Utf8PathBuf;

use crate::pod_network;

/// Said while no network is configured, as runtimes behind a socket say it.
const NOT_INITIALIZED: &str = "cni plugin not initialized";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no configuration, or the first one cannot be used; `why` is empty in the first case.
    #[error("{}", not_initialized(why))]
    NotInitialized { why: String },
    #[error("failed to find plugin {kind:?} in path {folders:?}")]
    NoSuchPlugin { kind: String, folders: Vec<Utf8PathBuf> },
    #[error("plugin type={kind:?} name={network:?} failed ({command}): {message}")]
    Plugin { kind: String, network: String, command: &'static str, message: String },
    #[error("plugin type={kind:?} name={network:?} failed ({command})")]
    Process {
        kind: String,
        network: String,
        command: &'static str,
        #[source]
        source: io::Error,
    },
    /// What the pod asks for cannot be given.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Records(#[from] pod_network::Error),
    #[error("{operation}")]
    System {
        operation: String,
        #[source]
        source: io::Error,
    },
}

pub type Result<T> = std::result::Result<T, Error>;

fn not_initialized(why: &str) -> String {
    if why.is_empty() { NOT_INITIALIZED.to_owned() } else { format!("{NOT_INITIALIZED}: {why}") }
}

impl From<Error> for runtime::Error {
    fn from(error: Error) -> Self {
        Self::Failed(telemetry::chain(&error).to_string())
    }
}
