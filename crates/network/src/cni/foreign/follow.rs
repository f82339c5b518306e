//! Whether pods can be connected, and what is cleaned up: what goes on beside calls for pods.

use std::time::Duration;

use futures::future::join_all;
use rt::Shutdown;
use serde_json::{Value, json};

use super::attachment::{self, INTERFACE};
use super::list::{NetworkList, kind};
use super::process::Call;
use super::watch::Watch;
use super::{Error, ForeignNetwork, Result, blocking, configured};
use crate::pod_network::Readiness;

/// How often plugins are asked how they are, and the folder is looked at whether or not it was seen to change: as often
/// as the kubelet asks a runtime.
const LOOK: Duration = Duration::from_secs(5);

/// How often it is tried again to clean up.
const CLEANING: Duration = Duration::from_secs(60);

/// For a question that is about no pod, to which a plugin knows the answer.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// The versions of CNI that these came with.
const STATUS_SINCE: &str = "1.1.0";
const GC_SINCE: &str = "1.1.0";

/// A node's complaint of its network, in the words of runtimes behind a socket.
pub(super) fn complaint(why: &str) -> String {
    let error = Error::NotInitialized { why: why.to_owned() };
    format!("Network plugin returns error: {error}")
}

impl ForeignNetwork {
    /// Follows the network's configuration and its plugins' health, and cleans up, until `shutdown`.
    pub async fn run(&self, shutdown: Shutdown) {
        let work = async { tokio::join!(self.follow(), self.clean_up()) };
        tokio::select! {
            _ = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn follow(&self) {
        let mut watch = None;
        loop {
            if watch.is_none() {
                // The folder may have been made anew. Without, it is looked at all the same, only later.
                watch = Watch::new(&self.configurations).ok();
            }
            self.look().await;
            let changed = async {
                match &watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changed => {
                    // A watch of a folder that is gone sees nothing more.
                    if changed.is_err() || !self.configurations.is_dir() {
                        watch = None;
                    }
                }
                () = rt::sleep(LOOK) => {}
            }
        }
    }

    /// Reads the configuration and asks the plugins how they are.
    pub(super) async fn look(&self) {
        let folder = self.configurations.clone();
        let found =
            blocking(move || Ok(configured(&folder))).await.unwrap_or_else(|error| Err(error.to_string()));
        if std::mem::replace(&mut *self.list.lock(), found.clone()) != found {
            self.litter.notify_one();
        }
        let readiness = match &found {
            Err(why) => Err(complaint(why)),
            Ok(list) => self.status(list).await,
        };
        self.tell(readiness);
    }

    fn tell(&self, readiness: Readiness) {
        self.readiness.send_if_modified(|before| {
            let changed = *before != readiness;
            if changed {
                match &readiness {
                    Ok(()) => tracing::info!("Pods are connected by CNI plugins"),
                    Err(why) => tracing::warn!(why, "Pods cannot be connected by CNI plugins"),
                }
                *before = readiness;
            }
            changed
        });
    }

    /// What the first plugin says that does not want to connect pods.
    async fn status(&self, list: &NetworkList) -> Readiness {
        if !list.is_at_least(STATUS_SINCE) {
            return Ok(());
        }
        let document = |plugin| attachment::configuration(list, plugin).into();
        for plugin in &list.plugins {
            let asked = self.ask("STATUS", list, kind(plugin), &document(plugin)).await;
            asked.map_err(|error| format!("Network plugin returns error: {}", telemetry::chain(&error)))?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        command: &'static str,
        list: &NetworkList,
        kind: &str,
        configuration: &Value,
    ) -> Result<()> {
        let call = Call {
            command,
            kind,
            network: &list.name,
            container_id: "",
            netns: "",
            arguments: "",
            configuration,
            limit: QUESTION_LIMIT,
        };
        self.plugins.run(&call).await.map(drop)
    }

    async fn clean_up(&self) {
        let mut collected = None;
        loop {
            self.disconnect_abandoned().await;
            let list = self.list.lock().clone().ok();
            if list != collected && self.collect_garbage(list.as_ref()).await {
                collected = list;
            }
            tokio::select! {
                () = self.litter.notified() => {}
                () = rt::sleep(CLEANING) => {}
            }
        }
    }

    async fn disconnect_abandoned(&self) {
        let abandoned: Vec<String> = self.sandboxes.lock().abandoned.iter().cloned().collect();
        join_all(abandoned.iter().map(|sandbox| async move {
            match self.disconnect(sandbox).await {
                Ok(()) => tracing::info!(sandbox, "Took back the network of a sandbox that is gone"),
                Err(error) => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(sandbox, %error, "The network of a sandbox is not taken back; trying again");
                }
            }
        }))
        .await;
    }

    /// Tells plugins who is connected, so that they give back what else they hold. False where it has to be done later,
    /// because somebody is being connected.
    async fn collect_garbage(&self, list: Option<&NetworkList>) -> bool {
        let Some(list) = list.filter(|list| list.is_at_least(GC_SINCE) && !list.disables_gc) else {
            return true;
        };
        let Ok(_alone) = self.collection.try_write() else { return false };
        let valid: Vec<Value> = self
            .sandboxes
            .lock()
            .attachments
            .iter()
            .filter(|(_, attachment)| attachment.list.name == list.name)
            .map(|(sandbox, _)| json!({"containerID": sandbox, "ifname": INTERFACE}))
            .collect();
        for plugin in &list.plugins {
            let mut document = attachment::configuration(list, plugin);
            // The second name is of before it was in the specification.
            for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                document.insert(key.to_owned(), valid.clone().into());
            }
            if let Err(error) = self.ask("GC", list, kind(plugin), &document.into()).await {
                tracing::warn!(error = %telemetry::chain(&error), "A CNI plugin did not collect its garbage");
            }
        }
        true
    }
}
