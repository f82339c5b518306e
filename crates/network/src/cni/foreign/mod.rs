//! Pods connected by somebody else's CNI plugins, with the embedded runtime.
//!
//! Owns: which network is configured ([`list`]), calls of its plugins ([`process`]), what has to be known to take a pod's
//! connection away again, also after a restart of the machine ([`attachment`]), and whether pods can be connected
//! ([`follow`]). Never touches: links, addresses and routes, which are the plugins', and the pod's loopback, which is up
//! already.
//!
//! ```text
//!     10-net.conflist ─▶ NetworkList      ADD   bridge ── result ──▶ portmap ── result ──▶ remembered
//!                                         DEL   portmap, bridge, each with what is remembered
//! ```
//!
//! The model is containerd with `libcni`: the first document of the folder, in the order of names, is the network; each
//! plugin gets the result of the one before. What differs: a pod is disconnected by the configuration by which it was
//! connected; a plugin that fails to disconnect it does not keep the others from that; and what could not be taken away
//! is tried again, also when its pod is long forgotten.
//!
//! Start at [`ForeignNetwork::attach`]. Calls for one sandbox come one after the other, those for several at a time, and a
//! plugin that hangs holds up its own pod only. Nobody is connected or disconnected while garbage is collected, as CNI
//! wants it.

mod attachment;
mod bandwidth;
mod error;
mod follow;
mod list;
mod process;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use parking_lot::Mutex;
use runtime::embedded::is_namespace;
use runtime::{PodNetwork, SandboxConfig};
use serde_json::{Map, Value};
use tokio::sync::{Notify, OwnedMutexGuard, RwLock};

pub use error::{Error, Result};

use crate::pod_network::records::Records;
use crate::pod_network::{Cidr, Readiness};
use attachment::Attachment;
use list::{NetworkList, kind};
use process::{Call, Plugins};

/// For one call of one plugin: as long as the kubelet waits for a runtime.
pub const CALL_LIMIT: Duration = Duration::from_secs(120);

/// What a network of foreign plugins is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of networks' configurations; it is made where it is missing.
    pub configurations: Utf8PathBuf,
    /// The folders of plugins; the first that has one counts.
    pub programs: Vec<Utf8PathBuf>,
    /// Where it remembers pods' connections. Plugins keep books of their own across a restart of the machine, and so
    /// must this.
    pub root: Utf8PathBuf,
    /// Which of a pod's addresses is its first.
    pub prefers_ipv4: bool,
    pub call_limit: Duration,
}

/// A pod network that others configure.
pub struct ForeignNetwork {
    configurations: Utf8PathBuf,
    plugins: Plugins,
    call_limit: Duration,
    prefers_ipv4: bool,
    records: Records<Attachment>,
    pod_cidrs: Mutex<Vec<Cidr>>,
    /// The present network, or why there is none; an empty text where nothing is configured.
    list: Mutex<std::result::Result<NetworkList, String>>,
    sandboxes: Mutex<Sandboxes>,
    readiness: tokio::sync::watch::Sender<Readiness>,
    /// Held by everybody who connects or disconnects a pod, and alone by who collects garbage.
    collection: RwLock<()>,
    /// There is something to clean up.
    litter: Notify,
}

/// Locked for one look-up or one change at a time.
#[derive(Default)]
struct Sandboxes {
    attachments: HashMap<String, Attachment>,
    turns: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    /// Those that could not be disconnected, or that nobody has any more.
    abandoned: HashSet<String>,
}

impl ForeignNetwork {
    /// Takes up what a former run left.
    ///
    /// # Errors
    /// Where one of the folders cannot be made or read.
    pub async fn open(options: Options) -> Result<Self> {
        let Options { configurations, programs, root, prefers_ipv4, call_limit } = options;
        let folder = configurations.clone();
        let opened = blocking(move || {
            std::fs::create_dir_all(&folder)
                .map_err(|source| Error::System { operation: format!("making {folder}"), source })?;
            let records = Records::durable(&root)?;
            let attachments = records.load()?.into_iter().collect();
            Ok((records, attachments, configured(&folder)))
        });
        let (records, attachments, list) = opened.await?;
        Ok(Self {
            configurations,
            plugins: Plugins::new(programs),
            call_limit,
            prefers_ipv4,
            records,
            pod_cidrs: Mutex::default(),
            list: Mutex::new(list),
            sandboxes: Mutex::new(Sandboxes { attachments, ..Sandboxes::default() }),
            readiness: tokio::sync::watch::Sender::new(Err(follow::complaint(""))),
            collection: RwLock::default(),
            litter: Notify::new(),
        })
    }

    /// The node's ranges of addresses, for plugins that ask for them (the capability `ipRanges`).
    pub fn set_pod_cidrs(&self, blocks: &[Cidr]) {
        blocks.clone_into(&mut self.pod_cidrs.lock());
    }

    /// Whether pods can be connected, now and whenever that changes.
    pub fn readiness(&self) -> tokio::sync::watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    async fn turn(&self, sandbox: &str) -> OwnedMutexGuard<()> {
        let turn = self.sandboxes.lock().turns.entry(sandbox.to_owned()).or_default().clone();
        turn.lock_owned().await
    }

    fn known(&self, sandbox: &str) -> Option<Attachment> {
        self.sandboxes.lock().attachments.get(sandbox).cloned()
    }

    async fn connect(&self, netns: &Utf8Path, config: &SandboxConfig, sandbox: &str) -> Result<Vec<IpAddr>> {
        let _turn = self.turn(sandbox).await;
        let _collection = self.collection.read().await;
        if let Some(known) = self.known(sandbox).filter(|known| known.result.is_some()) {
            return Ok(known.addresses(self.prefers_ipv4));
        }
        let list = self.list.lock().clone().map_err(|why| Error::NotInitialized { why })?;
        // One that is missing leaves nothing half done, which it could not take back.
        for plugin in &list.plugins {
            self.plugins.find(kind(plugin))?;
        }
        let pod_cidrs = self.pod_cidrs.lock().clone();
        let mut attachment = Attachment::of(list, netns, config, sandbox, &pod_cidrs)?;
        // Before anything is made, so that a crash leaves nothing that nobody knows of.
        self.remember(sandbox, &attachment).await?;
        attachment.result = Some(self.add(&attachment, sandbox).await?);
        self.remember(sandbox, &attachment).await?;
        let addresses = attachment.addresses(self.prefers_ipv4);
        if addresses.is_empty() {
            let (network, link) = (&attachment.list.name, attachment::INTERFACE);
            return Err(Error::Refused(format!("network {network:?} gave the pod's {link} no address")));
        }
        Ok(addresses)
    }

    /// Calls the plugins in their order and returns the last one's result.
    async fn add(&self, attachment: &Attachment, sandbox: &str) -> Result<Value> {
        let mut previous: Option<Value> = None;
        for plugin in &attachment.list.plugins {
            let printed = self.call("ADD", attachment, plugin, sandbox, previous.as_ref()).await?;
            let mut result: Map<String, Value> =
                serde_json::from_slice(&printed).map_err(|error| Error::Plugin {
                    kind: kind(plugin).to_owned(),
                    network: attachment.list.name.clone(),
                    command: "ADD",
                    message: format!("its result cannot be read: {error}"),
                })?;
            result.entry("cniVersion").or_insert_with(|| attachment.list.version.as_str().into());
            previous = Some(result.into());
        }
        Ok(previous.unwrap_or_default())
    }

    async fn disconnect(&self, sandbox: &str) -> Result<()> {
        let _turn = self.turn(sandbox).await;
        let _collection = self.collection.read().await;
        if let Some(attachment) = self.known(sandbox) {
            if let Err(error) = self.delete(&attachment, sandbox).await {
                self.sandboxes.lock().abandoned.insert(sandbox.to_owned());
                return Err(error);
            }
            self.records(sandbox, |records, sandbox| records.remove(sandbox)).await?;
        }
        let mut sandboxes = self.sandboxes.lock();
        sandboxes.attachments.remove(sandbox);
        sandboxes.abandoned.remove(sandbox);
        sandboxes.turns.remove(sandbox);
        Ok(())
    }

    /// Calls all plugins, the last one first, and returns the first error.
    async fn delete(&self, attachment: &Attachment, sandbox: &str) -> Result<()> {
        // Those of before are not used to it.
        let previous = attachment.result.as_ref().filter(|_| attachment.list.is_at_least("0.4.0"));
        let mut outcome = Ok(());
        for plugin in attachment.list.plugins.iter().rev() {
            let deleted = self.call("DEL", attachment, plugin, sandbox, previous).await;
            outcome = outcome.and(deleted.map(drop));
        }
        outcome
    }

    async fn call(
        &self,
        command: &'static str,
        attachment: &Attachment,
        plugin: &Map<String, Value>,
        sandbox: &str,
        previous: Option<&Value>,
    ) -> Result<Vec<u8>> {
        let netns = if is_namespace(&attachment.netns) { attachment.netns.as_str() } else { "" };
        let call = Call {
            command,
            kind: kind(plugin),
            network: &attachment.list.name,
            container_id: sandbox,
            netns,
            arguments: &attachment.arguments,
            configuration: &attachment.configuration(plugin, previous),
            limit: self.call_limit,
        };
        self.plugins.run(&call).await
    }

    async fn remember(&self, sandbox: &str, attachment: &Attachment) -> Result<()> {
        self.sandboxes.lock().attachments.insert(sandbox.to_owned(), attachment.clone());
        let attachment = attachment.clone();
        self.records(sandbox, move |records, sandbox| records.write(sandbox, &attachment)).await
    }

    async fn records(
        &self,
        sandbox: &str,
        work: impl FnOnce(&Records<Attachment>, &str) -> crate::pod_network::Result<()> + Send + 'static,
    ) -> Result<()> {
        let (records, sandbox) = (self.records.clone(), sandbox.to_owned());
        blocking(move || Ok(work(&records, &sandbox)?)).await
    }
}

#[async_trait]
impl PodNetwork for ForeignNetwork {
    async fn attach(
        &self,
        netns: &Utf8Path,
        config: &SandboxConfig,
        sandbox: &str,
    ) -> runtime::Result<Vec<IpAddr>> {
        Ok(self.connect(netns, config, sandbox).await?)
    }

    async fn detach(&self, _netns: &Utf8Path, _config: &SandboxConfig, sandbox: &str) -> runtime::Result<()> {
        Ok(self.disconnect(sandbox).await?)
    }

    /// Returns at once: [`ForeignNetwork::run`] does it.
    async fn abandon(
        &self,
        _netns: &Utf8Path,
        _config: &SandboxConfig,
        sandbox: &str,
    ) -> runtime::Result<()> {
        let mut known = self.sandboxes.lock();
        if known.attachments.contains_key(sandbox) {
            known.abandoned.insert(sandbox.to_owned());
        }
        drop(known);
        self.litter.notify_one();
        Ok(())
    }

    /// Returns at once: [`ForeignNetwork::run`] takes away what belongs to others.
    async fn retain(&self, sandboxes: &[String]) -> runtime::Result<()> {
        let wanted: HashSet<&str> = sandboxes.iter().map(String::as_str).collect();
        let mut known = self.sandboxes.lock();
        let gone: Vec<String> =
            known.attachments.keys().filter(|sandbox| !wanted.contains(sandbox.as_str())).cloned().collect();
        known.abandoned.extend(gone);
        drop(known);
        self.litter.notify_one();
        Ok(())
    }
}

/// The network that a folder configures, or why there is none.
fn configured(folder: &Utf8Path) -> std::result::Result<NetworkList, String> {
    NetworkList::first(folder)?.ok_or_else(String::new)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::System {
        operation: "working with files of the pod network".to_owned(),
        source: std::io::Error::other(error),
    })?
}
