//! The socket on which the node's process answers its plugin.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use runtime::PodNetwork;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use super::wire::{self, Answer, Call, DOCUMENT_BYTES_MAX, Failure, Wish, code};
use crate::pod_network::Readiness;

/// Calls that are worked on at a time; others wait.
const CALLS_MAX: usize = 64;

/// A plugin writes its call at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that could not be accepted, for want of files mostly, is tried again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Answers plugins.
pub struct Server {
    listener: UnixListener,
    path: Utf8PathBuf,
    network: Arc<dyn PodNetwork>,
    ready: watch::Receiver<Readiness>,
}

impl Server {
    /// Listens at `path`, which only this user may use.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn bind(
        path: &Utf8Path,
        network: Arc<dyn PodNetwork>,
        ready: watch::Receiver<Readiness>,
    ) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
            // Before there is a socket in it.
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), network, ready })
    }

    /// Answers until `shutdown`.
    pub async fn run(self, shutdown: rt::Shutdown) {
        let permits = Arc::new(Semaphore::new(CALLS_MAX));
        loop {
            let permit = permits.clone().acquire_owned();
            let accepted = tokio::select! {
                accepted = async {
                    let permit = permit.await.expect("the semaphore is never closed");
                    self.listener.accept().await.map(|(stream, _)| (stream, permit))
                } => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let (network, ready, ending) =
                        (self.network.clone(), self.ready.clone(), shutdown.clone());
                    rt::spawn("cni call", async move {
                        let _permit = permit;
                        // What is being attached is attached to its end, or the next call finds half of it.
                        if let Err(error) = serve(stream, &*network, ready, &ending).await {
                            tracing::warn!(%error, "A CNI plugin did not get its answer");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(path = %self.path, %error, "A CNI plugin could not be heard");
                    rt::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        // The next process makes its own.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(
    mut stream: UnixStream,
    network: &dyn PodNetwork,
    ready: watch::Receiver<Readiness>,
    shutdown: &rt::Shutdown,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut bounded = (&mut stream).take(DOCUMENT_BYTES_MAX);
    let read = tokio::select! {
        read = rt::timeout(CALL_TIMEOUT, bounded.read_to_end(&mut bytes)) => read,
        () = shutdown.cancelled() => return Ok(()),
    };
    read.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it did not say what it wants"))??;
    let readiness = ready.borrow().clone();
    let answer = match serde_json::from_slice::<Call>(&bytes) {
        Ok(call) => answer(&call, network, readiness).await,
        Err(error) => failed("", &Failure::new(code::DECODING, error.to_string())),
    };
    let answer = serde_json::to_vec(&answer)?;
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

async fn answer(call: &Call, network: &dyn PodNetwork, readiness: Readiness) -> Answer {
    match fulfil(call, network, readiness).await {
        Ok(document) => Answer { is_error: false, document },
        Err(failure) => {
            let (command, sandbox) = (&call.command, &call.container_id);
            tracing::warn!(command, sandbox, error = failure.message, "A CNI call failed");
            failed(&call.configuration.cni_version, &failure)
        }
    }
}

fn failed(version: &str, failure: &Failure) -> Answer {
    let version = if version.is_empty() { wire::VERSION } else { version };
    Answer { is_error: true, document: failure.document(version) }
}

async fn fulfil(call: &Call, network: &dyn PodNetwork, readiness: Readiness) -> Result<Value, Failure> {
    let wish = wire::wish(call)?;
    let (netns, sandbox) = (Utf8Path::new(&call.netns), call.container_id.as_str());
    let failure = |error: runtime::Error| Failure::new(code::FAILED, error.to_string());
    if !matches!(wish, Wish::Detach(_)) {
        readiness.map_err(|why| Failure::new(code::TRY_AGAIN_LATER, why))?;
    }
    match wish {
        Wish::Status => Ok(Value::Null),
        Wish::Attach(config) => {
            let addresses = network.attach(netns, &config, sandbox).await.map_err(failure)?;
            Ok(wire::attached(call, &addresses))
        }
        Wish::Check(config, told) => {
            let addresses = network.attach(netns, &config, sandbox).await.map_err(failure)?;
            if !told.iter().all(|address| addresses.contains(address)) {
                let message = format!("the pod has {addresses:?} and was told {told:?}");
                return Err(Failure::new(code::FAILED, message));
            }
            Ok(Value::Null)
        }
        Wish::Detach(config) => {
            network.detach(netns, &config, sandbox).await.map_err(failure)?;
            Ok(Value::Null)
        }
    }
}
