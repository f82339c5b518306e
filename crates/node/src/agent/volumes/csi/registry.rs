//! The drivers that registered, and what the API hears of them: the node's `CSINode`, its annotation and its labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::gvr::{CSI_NODES, NODES};
use apimachinery::{Status, Value, json};
use async_trait::async_trait;
use camino::Utf8PathBuf;
use client::{Api, Patch, WriteOptions};
use parking_lot::Mutex;

use super::driver::SocketDriver;
use super::messages::NodeInfo;
use super::{CsiDriver, CsiDrivers};
use crate::agent::plugins::{Handler, Plugin};
use crate::agent::retry::Pauses;

/// On the node: `{"driver": "its ID of this node"}`.
const NODE_ID_ANNOTATION: &str = "csi.volume.kubernetes.io/nodeid";

struct Registered {
    driver: Arc<SocketDriver>,
    /// Of the plugin's own registration: who came later stays.
    socket: Utf8PathBuf,
}

/// The drivers of one node.
pub struct Registry {
    api: Arc<dyn Api>,
    node: String,
    drivers: Mutex<BTreeMap<String, Registered>>,
    /// One writes at a time what all are in.
    writing: tokio::sync::Mutex<()>,
}

impl Registry {
    pub fn new(api: Arc<dyn Api>, node: &str) -> Arc<Self> {
        Arc::new(Self {
            api,
            node: node.to_owned(),
            drivers: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    async fn publish(&self, name: &str, info: &NodeInfo, registered: Registered) -> Result<(), Status> {
        let _one = self.writing.lock().await;
        let topology = info.accessible_topology.clone().unwrap_or_default().segments;
        let labels: BTreeMap<String, String> = topology.into_iter().collect();
        let entry = csi_node_entry(name, info, labels.keys().map(String::as_str));
        let node = self.set_node_id(name, Some(&info.node_id), &labels).await?;
        let uid = node.uid().to_owned();
        let made = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": {"name": self.node.as_str(), "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": self.node.as_str(), "uid": uid},
            ]},
            "spec": {"drivers": []}});
        self.api.create_if_absent(&CSI_NODES, "", made).await?;
        let set = |tree: &mut Value| set_entry(tree, name, Some(entry.clone()));
        self.api.edit(&CSI_NODES, "", &self.node, None, set).await?;
        // Before anybody else writes: a withdrawal that waits has to see who came.
        self.drivers.lock().insert(name.to_owned(), registered);
        Ok(())
    }

    async fn withdraw(&self, name: &str) -> Result<(), Status> {
        let _one = self.writing.lock().await;
        if self.drivers.lock().contains_key(name) {
            // It came again meanwhile.
            return Ok(());
        }
        if self.api.find(&CSI_NODES, "", &self.node).await?.is_some() {
            let unset = |tree: &mut Value| set_entry(tree, name, None);
            self.api.edit(&CSI_NODES, "", &self.node, None, unset).await?;
        }
        self.set_node_id(name, None, &BTreeMap::new()).await.map(drop)
    }

    /// Writes the driver's ID of this node and where volumes can be reached from. Labels of a driver that went stay.
    async fn set_node_id(
        &self,
        name: &str,
        id: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Arc<apimachinery::Object>, Status> {
        let node = self.api.get(&NODES, "", &self.node).await?;
        let tree = node.to_value();
        let old = tree.str_at(&["metadata", "annotations", NODE_ID_ANNOTATION]);
        let mut ids: BTreeMap<String, String> = serde_json::from_str(old).unwrap_or_default();
        match id {
            Some(id) => ids.insert(name.to_owned(), id.to_owned()),
            None => ids.remove(name),
        };
        let ids = if ids.is_empty() {
            Value::Null
        } else {
            serde_json::to_string(&ids).expect("texts are JSON").into()
        };
        let mut patch = json!({"metadata": {"annotations": {}}});
        patch.set_at(&["metadata", "annotations", NODE_ID_ANNOTATION], ids);
        for (key, value) in labels {
            patch.set_at(&["metadata", "labels", key], value.as_str());
        }
        self.api.patch(&NODES, "", &self.node, None, Patch::Merge(patch), &WriteOptions::default()).await
    }
}

/// A row of `CSINode.spec.drivers`.
fn csi_node_entry<'a>(name: &str, info: &NodeInfo, topology: impl Iterator<Item = &'a str>) -> Value {
    let mut entry = json!({"name": name, "nodeID": info.node_id.as_str()});
    entry.set_at(&["topologyKeys"], topology.map(Value::from).collect::<Vec<_>>());
    // No limit is no field: `0` would be none at all.
    if info.max_volumes_per_node > 0 {
        let count = info.max_volumes_per_node.min(i64::from(i32::MAX));
        entry.set_at(&["allocatable"], json!({"count": count}));
    }
    entry
}

/// Puts a driver's row in its place, or takes it out. Returns whether that is news.
fn set_entry(tree: &mut Value, name: &str, entry: Option<Value>) -> bool {
    let old = tree.array_at(&["spec", "drivers"]).to_vec();
    let mut new: Vec<Value> = old.iter().filter(|own| own.str_at(&["name"]) != name).cloned().collect();
    new.extend(entry);
    new.sort_by(|one, other| one.str_at(&["name"]).cmp(other.str_at(&["name"])));
    let is_news = new != old;
    tree.set_at(&["spec", "drivers"], new);
    is_news
}

impl CsiDrivers for Registry {
    fn driver(&self, name: &str) -> Option<Arc<dyn CsiDriver>> {
        self.drivers.lock().get(name).map(|own| own.driver.clone() as Arc<dyn CsiDriver>)
    }
}

#[async_trait]
impl Handler for Registry {
    fn kind(&self) -> &'static str {
        "CSIPlugin"
    }

    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        check(plugin)?;
        let failed =
            |why: String| format!("RegisterPlugin error -- plugin registration failed with err: {why}");
        let driver = Arc::new(SocketDriver::new(&plugin.endpoint));
        let info = driver.info().await.map_err(|status| failed(status.to_string()))?;
        if info.node_id.is_empty() {
            return Err(failed(format!(
                "error updating CSINode object with CSI driver node info: driver {} has no node ID",
                plugin.name
            )));
        }
        let registered = Registered { driver, socket: plugin.socket.clone() };
        self.publish(&plugin.name, &info, registered).await.map_err(|status| {
            failed(format!("error updating CSINode object with CSI driver node info: {}", status.message))
        })
    }

    async fn deregister(&self, plugin: &Plugin) {
        {
            let mut drivers = self.drivers.lock();
            if drivers.get(&plugin.name).is_none_or(|own| own.socket != plugin.socket) {
                return;
            }
            drivers.remove(&plugin.name);
        }
        let mut pauses = Pauses::default();
        while let Err(error) = self.withdraw(&plugin.name).await {
            tracing::warn!(driver = plugin.name, %error, "The CSINode still names a driver that is gone");
            rt::sleep(pauses.next_pause()).await;
        }
    }
}

/// Whether a driver is one that this node can speak with.
fn check(plugin: &Plugin) -> Result<(), String> {
    if !super::is_one_name(&plugin.name) {
        return Err(format!("CSI driver name {:?} is no proper name", plugin.name));
    }
    let is_first = |version: &String| {
        let major = version.trim_start_matches('v').split('.').next().unwrap_or_default();
        major == "1"
    };
    if plugin.versions.iter().any(is_first) {
        return Ok(());
    }
    Err(format!(
        "failed to get supported CSI versions {:?} for driver {}: none of them is 1.x",
        plugin.versions, plugin.name
    ))
}
