//! What a cluster says to machines that come, and what they may do: written by the server at its start.
//!
//! - `kube-public/cluster-info`, which anybody may read: where the cluster is and what its authority is. Controllers
//!   sign it with each bootstrap token.
//! - `kube-system/pintle-node`, which nodes may read: [`Settings`].
//! - Roles: bearers of a token made for joining may ask for a certificate of a node, and get it; nodes may renew it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::gvr::CONFIG_MAPS;
use apimachinery::{Status, Str, Value, json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Api, Patch, WriteOptions};

use crate::rbac::{binding, role};

pub const CLUSTER_INFO_NAMESPACE: &str = "kube-public";
pub const CLUSTER_INFO: &str = "cluster-info";
/// The key of `cluster-info`.
pub const KUBECONFIG: &str = "kubeconfig";

const SETTINGS_NAMESPACE: &str = "kube-system";
const SETTINGS: &str = "pintle-node";

/// The group of those whose token is for joining.
pub const JOINING_GROUP: &str = "system:bootstrappers:pintle:default-node-token";
const NODES_GROUP: &str = "system:nodes";

/// What all nodes of a cluster have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub cluster_domain: String,
    /// The cluster IP of the Service `kube-dns`.
    pub cluster_dns: Vec<IpAddr>,
    /// Where pods' addresses are from.
    pub cluster_cidrs: Vec<String>,
}

impl Settings {
    /// As the ConfigMap's data.
    pub fn to_value(&self) -> Value {
        let dns: Vec<String> = self.cluster_dns.iter().map(IpAddr::to_string).collect();
        json!({
            "clusterDomain": self.cluster_domain.as_str(), "clusterDNS": dns.join(","),
            "clusterCIDRs": self.cluster_cidrs.join(","),
        })
    }

    /// # Errors
    /// Says which entry cannot be read.
    pub fn from_value(data: &Value) -> Result<Self, String> {
        let list =
            |key: &str| data.str_at(&[key]).split(',').filter(|text| !text.is_empty()).collect::<Vec<_>>();
        let address = |text: &str| text.parse().map_err(|_| format!("clusterDNS: {text:?} is no address"));
        Ok(Self {
            cluster_domain: data.str_at(&["clusterDomain"]).to_owned(),
            cluster_dns: list("clusterDNS").into_iter().map(address).collect::<Result<_, _>>()?,
            cluster_cidrs: list("clusterCIDRs").into_iter().map(str::to_owned).collect(),
        })
    }

    /// Those of the cluster behind `api`.
    ///
    /// # Errors
    /// The outer one where the API does not answer with them, the inner one where they cannot be read.
    pub async fn read(api: &dyn Api) -> Result<Result<Self, String>, Status> {
        let map = api.get(&CONFIG_MAPS, SETTINGS_NAMESPACE, SETTINGS).await?.to_value();
        Ok(Self::from_value(&map["data"]))
    }
}

/// A kubeconfig that says where a cluster is, for nobody in particular.
pub fn kubeconfig(server: &str, ca_pem: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "contexts": null, "current-context": "", "users": null,
        "clusters": [{"name": "", "cluster": {
            "certificate-authority-data": STANDARD.encode(ca_pem), "server": server,
        }}],
    })
    .to_json_string()
}

/// Where the cluster says that it is.
///
/// # Errors
/// Where it says nothing of itself.
pub async fn server(api: &dyn Api) -> Result<String, Status> {
    let map = api.get(&CONFIG_MAPS, CLUSTER_INFO_NAMESPACE, CLUSTER_INFO).await?.to_value();
    let kubeconfig = Value::parse_yaml(map["data"].str_at(&[KUBECONFIG])).unwrap_or_default();
    Ok(kubeconfig["clusters"][0]["cluster"].str_at(&["server"]).to_owned())
}

/// Writes what machines that join read. `address` is where others reach the API.
///
/// # Errors
/// Those of the API.
pub async fn write(
    api: &Arc<dyn Api>,
    address: SocketAddr,
    ca_pem: &str,
    settings: &Settings,
) -> Result<(), Status> {
    let info = json!({KUBECONFIG: kubeconfig(&format!("https://{address}"), ca_pem)});
    let of_info = apply(&**api, CLUSTER_INFO_NAMESPACE, CLUSTER_INFO, info);
    let of_settings = apply(&**api, SETTINGS_NAMESPACE, SETTINGS, settings.to_value());
    tokio::try_join!(of_info, of_settings).map(drop)
}

async fn apply(api: &dyn Api, namespace: &str, name: &str, data: Value) -> Result<(), Status> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data,
    });
    let options = WriteOptions { field_manager: Str::from("pintle"), force: true, ..WriteOptions::default() };
    api.patch(&CONFIG_MAPS, namespace, name, None, Patch::Apply(map), &options).await.map(drop)
}

/// What those may do that come, and nodes that have come.
pub fn policy() -> Vec<Value> {
    let cluster_role = |role: &str, name: &str, group: &str| {
        binding("ClusterRoleBinding", "", name, ("ClusterRole", role), ("Group", group))
    };
    let requests = "system:certificates.k8s.io:certificatesigningrequests";
    let mut objects = vec![
        cluster_role("system:node-bootstrapper", "pintle:node-bootstrap", JOINING_GROUP),
        cluster_role(&format!("{requests}:nodeclient"), "pintle:node-autoapprove-bootstrap", JOINING_GROUP),
        cluster_role(&format!("{requests}:selfnodeclient"), "pintle:node-autoapprove-renewal", NODES_GROUP),
    ];
    // Whether a name is free.
    let nodes = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]);
    objects.push(role("ClusterRole", "", "pintle:get-nodes", nodes));
    objects.push(cluster_role("pintle:get-nodes", "pintle:get-nodes", JOINING_GROUP));
    for (namespace, name, map, subject) in [
        (CLUSTER_INFO_NAMESPACE, "pintle:cluster-info", CLUSTER_INFO, ("User", "system:anonymous")),
        (SETTINGS_NAMESPACE, "pintle:node-settings", SETTINGS, ("Group", NODES_GROUP)),
    ] {
        let rule = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [map], "verbs": ["get"]}]);
        objects.push(role("Role", namespace, name, rule));
        objects.push(binding("RoleBinding", namespace, name, ("Role", name), subject));
    }
    objects
}

#[cfg(test)]
mod tests {
    use client::fake::FakeApi;

    use super::*;

    #[tokio::test]
    async fn what_is_written_can_be_read() {
        let fake = FakeApi::new();
        let api: Arc<dyn Api> = fake.clone();
        let settings = Settings {
            cluster_domain: "cluster.local".into(),
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_cidrs: vec!["10.244.0.0/16".into(), "fd00::/48".into()],
        };
        write(&api, "192.0.2.1:6443".parse().expect("an address"), "CA", &settings).await.expect("written");
        assert_eq!(Settings::read(&*api).await, Ok(Ok(settings)));
        assert_eq!(server(&*api).await, Ok("https://192.0.2.1:6443".to_owned()));
        assert!(Settings::from_value(&json!({"clusterDNS": "here"})).is_err());
        assert_eq!(Settings::from_value(&json!({})), Ok(Settings::default()));
    }
}
