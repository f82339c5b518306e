//! Plugins of the node: sockets that appear in `plugins_registry`, and who they say they are.
//!
//! Owns: finding the sockets, asking each what it is, telling it whether it was taken, and noticing its end. Never
//! touches: what a plugin is good for; that is its [`Handler`]'s, one for each type.
//!
//! Start at [`PluginWatcher::run`]. Every socket has a task of its own, so that a plugin that hangs holds up nobody.
//! When the node stops, plugins are not deregistered: they are still there when it starts again.

mod messages;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use rt::Shutdown;
use tracing::{info, warn};

use super::retry::Pauses;
use super::server::logs::watch::{Watch, Watches};

use messages::{PluginInfo, RegistrationStatus};

/// Below the node's root.
pub const FOLDER: &str = "plugins_registry";

/// One call to a plugin about its registration.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the folder is read without being told.
const RESCAN: Duration = Duration::from_secs(10);

/// Sockets that are looked at; a folder with more is somebody's mistake.
const SOCKETS_MAX: usize = 256;

/// Folders in folders.
const DEPTH_MAX: usize = 4;

/// A plugin that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    pub name: String,
    /// Where its service is.
    pub endpoint: Utf8PathBuf,
    /// Where it was found.
    pub socket: Utf8PathBuf,
    pub versions: Vec<String>,
}

/// Who takes the plugins of one type.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// `CSIPlugin`, ….
    fn kind(&self) -> &'static str;

    /// Takes a plugin; again, where it was taken before.
    async fn register(&self, plugin: &Plugin) -> Result<(), String>;

    /// Its socket is gone. Another socket may have registered the same name since; then that one stays. Returns when
    /// nobody is told of it any more.
    async fn deregister(&self, plugin: &Plugin);
}

/// Which socket it is: a plugin that starts anew makes another one under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

struct Followed {
    identity: Identity,
    /// The socket is not there any more.
    gone: Shutdown,
}

pub struct PluginWatcher {
    folder: Utf8PathBuf,
    handlers: Vec<Arc<dyn Handler>>,
}

impl PluginWatcher {
    /// `root` is the node's folder, `/var/lib/kubelet` to plugins.
    pub fn new(root: &Utf8Path, handlers: Vec<Arc<dyn Handler>>) -> Arc<Self> {
        Arc::new(Self { folder: root.join(FOLDER), handlers })
    }

    /// Registers plugins as they come and go, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        if let Err(error) = std::fs::create_dir_all(&self.folder) {
            warn!(folder = %self.folder, %error, "Plugins of the node are not found");
            return;
        }
        let watches = Watches::new();
        if let Err(error) = &watches {
            warn!(%error, "Plugins are found by reading their folder now and then");
        }
        let watches = watches.ok();
        let mut followed: HashMap<Utf8PathBuf, Followed> = HashMap::new();
        loop {
            // Watched before it is read, so that nothing is missed between.
            let (folders, _) = scan(&self.folder);
            let of = |watches: &Watches| folders.iter().filter_map(|own| watches.watch(own).ok()).collect();
            let mut seen: Vec<Watch> = watches.as_ref().map(of).unwrap_or_default();
            let (_, sockets) = scan(&self.folder);
            self.follow(&mut followed, sockets, &shutdown);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = rt::sleep(RESCAN) => {}
                () = any_change(&mut seen) => {}
            }
        }
    }

    /// Starts and ends the tasks of sockets.
    fn follow(
        self: &Arc<Self>,
        followed: &mut HashMap<Utf8PathBuf, Followed>,
        sockets: HashMap<Utf8PathBuf, Identity>,
        shutdown: &Shutdown,
    ) {
        followed.retain(|path, own| {
            let stays = sockets.get(path) == Some(&own.identity);
            if !stays {
                own.gone.cancel();
            }
            stays
        });
        for (path, identity) in sockets {
            if let Entry::Vacant(place) = followed.entry(path) {
                let gone = Shutdown::new();
                let task = self.clone().keep(place.key().clone(), gone.clone(), shutdown.clone());
                place.insert(Followed { identity, gone });
                rt::spawn("plugin", task);
            }
        }
    }

    /// Registers the plugin behind a socket, and takes it back once the socket is gone.
    async fn keep(self: Arc<Self>, socket: Utf8PathBuf, gone: Shutdown, shutdown: Shutdown) {
        let registering = self.register_until_done(&socket);
        let registered = tokio::select! {
            registered = registering => registered,
            () = gone.cancelled() => return,
            () = shutdown.cancelled() => return,
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = gone.cancelled() => {
                let (handler, plugin) = registered;
                info!(name = plugin.name, %socket, "A plugin is gone");
                tokio::select! {
                    () = handler.deregister(&plugin) => {}
                    () = shutdown.cancelled() => {}
                }
            }
        }
    }

    async fn register_until_done(&self, socket: &Utf8Path) -> (Arc<dyn Handler>, Plugin) {
        let mut pauses = Pauses::default();
        loop {
            match self.register(socket).await {
                Ok(registered) => return registered,
                Err(why) => warn!(%socket, why, "A plugin could not be registered"),
            }
            rt::sleep(pauses.next_pause()).await;
        }
    }

    async fn register(&self, socket: &Utf8Path) -> Result<(Arc<dyn Handler>, Plugin), String> {
        let client = grpc::Client::unix(socket.to_owned());
        let options = grpc::Options::timeout(CALL_TIMEOUT);
        let info: PluginInfo =
            client.unary(messages::GET_INFO, &messages::InfoRequest {}, options).await.map_err(|status| {
                format!("failed to get plugin info using RPC GetInfo at socket {socket}: {status}")
            })?;
        let endpoint =
            if info.endpoint.is_empty() { socket.to_owned() } else { info.endpoint.clone().into() };
        let plugin = Plugin {
            name: info.name,
            endpoint,
            socket: socket.to_owned(),
            versions: info.supported_versions,
        };
        let handler = self.handlers.iter().find(|handler| handler.kind() == info.r#type);
        let outcome = match handler {
            Some(handler) => handler.register(&plugin).await.map(|()| handler.clone()),
            None => Err(format!("no handler registered for plugin type: {} at socket {socket}", info.r#type)),
        };
        let told = RegistrationStatus {
            plugin_registered: outcome.is_ok(),
            error: outcome.as_ref().err().cloned().unwrap_or_default(),
        };
        let answer =
            client.unary::<_, messages::RegistrationStatusResponse>(messages::NOTIFY, &told, options);
        let answer = answer.await;
        let handler = outcome?;
        if let Err(status) = answer {
            handler.deregister(&plugin).await;
            return Err(format!("failed to send registration status at socket {socket}: {status}"));
        }
        info!(name = plugin.name, kind = handler.kind(), %socket, "Registered a plugin");
        Ok((handler, plugin))
    }
}

async fn any_change(watches: &mut [Watch]) {
    if watches.is_empty() {
        return std::future::pending().await;
    }
    let changes = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
    futures::future::select_all(changes).await;
}

/// The folder and those in it, and the sockets. Names that begin with a dot are somebody's work in progress.
fn scan(root: &Utf8Path) -> (Vec<Utf8PathBuf>, HashMap<Utf8PathBuf, Identity>) {
    let (mut folders, mut sockets) = (Vec::new(), HashMap::new());
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for entry in folder.read_dir_utf8().into_iter().flatten().flatten() {
            // Not through links: what is followed is what lies here.
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            if entry.file_name().starts_with('.') {
                continue;
            }
            if meta.is_dir() && depth < DEPTH_MAX {
                open.push((entry.into_path(), depth + 1));
            } else if meta.file_type().is_socket() && sockets.len() < SOCKETS_MAX {
                let changed = (meta.ctime(), meta.ctime_nsec());
                sockets
                    .insert(entry.into_path(), Identity { device: meta.dev(), inode: meta.ino(), changed });
            }
        }
        folders.push(folder);
    }
    (folders, sockets)
}
