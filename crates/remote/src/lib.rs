//! The API of a cluster elsewhere: [`client::Api`] over HTTPS.
//!
//! Owns: paths and queries of requests, their bodies, and how answers become objects and failures a `Status`. Never
//! touches: connections, certificates and tokens, which are `webhook`'s, and anything behind the cluster's door.
//!
//! Start at [`RemoteApi`]. What is spoken is plain Kubernetes, so that the cluster may be anybody's.
//!
//! **Invariant (bounded):** a call that is no watch has a timeout and a limit on what is read.

mod answer;
mod request;
mod watch;

use std::sync::Arc;

use apimachinery::{GroupVersion, GroupVersionResource, Object, Status, Value};
use async_trait::async_trait;
use camino::Utf8Path;
use client::{
    Api, DeleteOptions, Discovered, ListOptions, ObjectList, Patch, WatchOptions, WatchStream, WriteOptions,
};
use http::Method;
use webhook::{Client, ClientConfig, ConfigError, KubeconfigError, NoServices, ServiceResolver};

use answer::{list, object};
use request::{Path, Query, Request};

/// A cluster by its address and the caller's credential.
pub struct RemoteApi {
    client: Client,
}

/// Why a kubeconfig leads to no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error(transparent)]
    Client(#[from] ConfigError),
}

// === impl RemoteApi ===

impl RemoteApi {
    /// The cluster and user of the kubeconfig's current context. Nothing is called yet.
    pub fn from_kubeconfig(path: &Utf8Path, user_agent: &'static str) -> Result<Self, ConnectError> {
        let config = ClientConfig::from_kubeconfig(path)?;
        Ok(Self::new(&ClientConfig { user_agent, ..config })?)
    }

    pub fn new(config: &ClientConfig) -> Result<Self, ConfigError> {
        let no_services: Arc<dyn ServiceResolver> = Arc::new(NoServices);
        Ok(Self { client: Client::new(config, &no_services)? })
    }

    async fn call(&self, request: Request) -> Result<Value, Status> {
        answer::read(&self.client, request).await
    }

    /// Every resource that discovery names, in all versions, and whether the version is its group's first.
    async fn discovery(&self) -> Result<Vec<(Discovered, bool)>, Status> {
        let mut found = Vec::new();
        for root in ["/api", "/apis"] {
            let groups = self.call(Request::get(root).accepting(answer::DISCOVERY)).await?;
            found.extend(answer::resources(&groups));
        }
        Ok(found)
    }
}

#[async_trait]
impl Api for RemoteApi {
    async fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        object(self.call(Request::get(Path::object(gvr, namespace, name))).await?)
    }

    async fn get_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
    ) -> Result<Value, Status> {
        self.call(Request::get(Path::subresource(gvr, namespace, name, Some(subresource)))).await
    }

    async fn get_raw(&self, path: &str) -> Result<Value, Status> {
        self.call(Request::get(path)).await
    }

    async fn list(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        let request = Request::get(Path::collection(gvr, namespace)).with(Query::of_list(options));
        list(self.call(request).await?)
    }

    async fn watch(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<WatchStream, Status> {
        let request = Request::get(Path::collection(gvr, namespace)).with(Query::of_watch(options));
        watch::start(&self.client, request).await
    }

    async fn create(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let request = Request::sending(Method::POST, Path::collection(gvr, namespace), &body);
        object(self.call(request.with(Query::of_write(options))).await?)
    }

    async fn create_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<Value, Status> {
        let path = Path::subresource(gvr, namespace, name, Some(subresource));
        self.call(Request::sending(Method::POST, path, &body)).await
    }

    async fn update(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let path = Path::subresource(gvr, namespace, name, subresource);
        object(self.call(Request::sending(Method::PUT, path, &body).with(Query::of_write(options))).await?)
    }

    async fn patch(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let path = Path::subresource(gvr, namespace, name, subresource);
        let (content_type, body) = request::patch(patch);
        let request = Request::sending(Method::PATCH, path, &body).typed(content_type);
        object(self.call(request.with(Query::of_write(options))).await?)
    }

    async fn delete(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let path = Path::object(gvr, namespace, name);
        self.call(Request::sending(Method::DELETE, path, &request::delete_options(options))).await.map(drop)
    }

    async fn delete_collection(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        selection: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let path = Path::collection(gvr, namespace);
        let request = Request::sending(Method::DELETE, path, &request::delete_options(options));
        self.call(request.with(Query::of_list(selection))).await.map(drop)
    }

    async fn discover(&self) -> Result<Vec<Discovered>, Status> {
        // Of what nothing is stored, nothing can be read either.
        let is_stored = |found: &Discovered| found.verbs.iter().any(|verb| verb == "get" || verb == "list");
        let all = self.discovery().await?;
        let preferred = all.into_iter().filter(|(found, preferred)| *preferred && is_stored(found));
        Ok(preferred.map(|(found, _)| found).collect())
    }

    async fn discover_all(&self) -> Result<Vec<Discovered>, Status> {
        Ok(self.discovery().await?.into_iter().map(|(found, _)| found).collect())
    }

    async fn openapi(&self, group_version: &GroupVersion) -> Result<Value, Status> {
        let root = if group_version.group.is_empty() { "api" } else { "apis" };
        self.call(Request::get(format!("/openapi/v3/{root}/{group_version}"))).await
    }
}

#[cfg(test)]
mod tests;
