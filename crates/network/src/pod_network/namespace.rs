//! [`Namespace`]: a network namespace that one can talk to and work in.
//!
//! A netlink socket belongs to the namespace it was opened in, whoever uses it later, so only opening it needs a thread
//! inside. So do kernel parameters, of which each thread sees those of its own namespace. Such a thread is made for the
//! occasion and ends with it: one of the runtime's own could not be trusted to be where it was.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use camino::Utf8Path;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use super::{Error, Result};

#[derive(Clone)]
pub(super) struct Namespace {
    /// `None` for the one this process is in.
    file: Option<Arc<OwnedFd>>,
    netlink: rtnetlink::Handle,
}

impl Namespace {
    /// The one this process is in.
    pub fn own() -> Result<Self> {
        let (connection, netlink, _) =
            rtnetlink::new_connection().map_err(|error| Error::system("opening netlink", error))?;
        rt::spawn("netlink", connection);
        Ok(Self { file: None, netlink })
    }

    /// The one that a file holds open.
    pub async fn open(path: &Utf8Path) -> Result<Self> {
        let file = File::open(path)
            .map_err(|error| Error::system(format!("opening network namespace {path}"), error))?;
        let file: Arc<OwnedFd> = Arc::new(file.into());
        let runtime = tokio::runtime::Handle::current();
        let (connection, netlink, _) = in_thread(file.clone(), move || {
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        })
        .await?
        .map_err(|error| Error::system(format!("opening netlink in {path}"), error))?;
        rt::spawn("netlink", connection);
        Ok(Self { file: Some(file), netlink })
    }

    pub fn netlink(&self) -> &rtnetlink::Handle {
        &self.netlink
    }

    pub fn file(&self) -> Option<&OwnedFd> {
        self.file.as_deref()
    }

    /// Does `work` on a thread that sees this namespace's kernel parameters. `work` may block.
    pub async fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        match &self.file {
            Some(file) => in_thread(file.clone(), work).await,
            None => tokio::task::spawn_blocking(work).await.map_err(|error| {
                Error::system("working in a network namespace", std::io::Error::other(error))
            }),
        }
    }

    /// Sets kernel parameters below `/proc/sys/net`. Those of a protocol that this kernel lacks are left out.
    pub async fn set_parameters(&self, parameters: Vec<(String, &'static str)>) -> Result<()> {
        self.inside(move || parameters.into_iter().try_for_each(|(name, value)| set_parameter(&name, value)))
            .await?
    }
}

fn set_parameter(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    match std::fs::read_to_string(&path) {
        // Not written where it is so: it may be read-only, and set already by who made it so.
        Ok(current) if current.trim() == value => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    std::fs::write(&path, value).map_err(|error| Error::system(format!("setting {path} to {value}"), error))
}

async fn in_thread<T: Send + 'static>(
    namespace: Arc<OwnedFd>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (done, result) = oneshot::channel();
    let body = move || {
        let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        // Who asked may have gone away.
        let _ = done.send(entered.map(|()| work()));
    };
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(body)
        .map_err(|error| Error::system("starting a thread for a network namespace", error))?;
    match result.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::system("entering a network namespace", error)),
        Err(_) => {
            Err(Error::system("working in a network namespace", std::io::Error::other("the thread panicked")))
        }
    }
}
