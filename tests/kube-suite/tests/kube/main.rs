//! The `kube` crate against the finished binary; every test has a server of its own.

#![allow(clippy::disallowed_methods, reason = "a suite looks at another process, in real time")]

mod apply;
mod client;
mod collect;
mod policies;
mod watching;

use std::time::Duration;

use anyhow::Context;
use camino::Utf8Path;
use interop::{Folder, Server};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Nothing here may take longer; a test that waits for a level gives up then.
const PATIENCE: Duration = Duration::from_secs(60);
const SIM_NODES: u32 = 3;
/// The namespace that tests work in.
const NAMESPACE: &str = "suite";

/// A server with an empty namespace.
struct World {
    client: Client,
    server: Server,
    folder: Folder,
}

impl World {
    /// `None` means that the binary is not there; why is printed.
    async fn new() -> anyhow::Result<Option<Self>> {
        let Some(binary) = interop::binary() else {
            interop::skip("no pintle binary; build it or set PINTLE_BINARY");
            return Ok(None);
        };
        let world = Self::start(&binary, Folder::new()?).await?;
        world.namespace(NAMESPACE).await?;
        Ok(Some(world))
    }

    async fn start(binary: &Utf8Path, folder: Folder) -> anyhow::Result<Self> {
        let server = Server::start(binary, &folder, SIM_NODES)?;
        let kubeconfig = Kubeconfig::read_from(folder.kubeconfig()).context("reading the kubeconfig")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let world = Self { client: Client::try_from(config)?, server, folder };
        world.until_ready().await?;
        Ok(world)
    }

    /// The same cluster after a stop and another start.
    async fn restart(self) -> anyhow::Result<Self> {
        let Self { server, folder, .. } = self;
        server.stop()?;
        let binary = interop::binary().context("the binary was there before")?;
        Self::start(&binary, folder).await
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        until("/readyz says ok", || async {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(self.client.request_text(request).await.is_ok_and(|text| text.contains("ok")))
        })
        .await
    }

    async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.create(&PostParams::default(), &object(json!({"metadata": {"name": name}}))?).await?;
        Ok(())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn stop(self) -> anyhow::Result<()> {
        self.server.stop()
    }
}

/// A typed object from what a manifest would say.
fn object<K: DeserializeOwned>(value: Value) -> anyhow::Result<K> {
    Ok(serde_json::from_value(value)?)
}

fn config_map(name: &str, data: Value) -> anyhow::Result<ConfigMap> {
    object(json!({"metadata": {"name": name, "labels": {"suite": "kube"}}, "data": data}))
}

fn data_of(map: &ConfigMap) -> Value {
    json!(map.data)
}

/// Looks until `look` says yes.
async fn until<F, Fut>(what: &str, mut look: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    let looking = async {
        while !look().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, looking).await.with_context(|| format!("waited too long until {what}"))?
}

/// The code and reason of an answer that refuses.
fn refusal<T>(result: Result<T, kube::Error>) -> anyhow::Result<(u16, String, String)> {
    match result {
        Ok(_) => anyhow::bail!("it was not refused"),
        Err(kube::Error::Api(status)) => Ok((status.code, status.reason, status.message)),
        Err(error) => Err(error.into()),
    }
}
