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
use http::{HeaderValue, Method};
use parking_lot::RwLock;
use webhook::{Client, ClientConfig, ConfigError, KubeconfigError, NoServices, ServiceResolver};

use answer::{list, object};
use request::{Path, Query, Request};

/// A cluster by its address and the caller's credential.
pub struct RemoteApi {
    connection: Connection,
    /// In whose name the caller speaks, if not in its own.
    impersonated: Option<HeaderValue>,
}

/// The connections to a cluster, which several [`RemoteApi`]s can share. What proves who calls can be replaced while
/// they are in use.
#[derive(Clone)]
pub struct Connection(Arc<RwLock<Arc<Client>>>);

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
        Ok(Self::over(&Connection::new(config)?))
    }

    /// Speaks over connections that others use, too.
    pub fn over(connection: &Connection) -> Self {
        Self { connection: connection.clone(), impersonated: None }
    }

    /// Speaks as `user`, as whom the caller must be allowed to act.
    ///
    /// # Errors
    /// Where the name cannot stand in a header.
    pub fn impersonating(self, user: &str) -> Result<Self, http::header::InvalidHeaderValue> {
        Ok(Self { impersonated: Some(HeaderValue::from_str(user)?), ..self })
    }

    async fn call(&self, request: Request) -> Result<Value, Status> {
        answer::read(&self.connection.client(), self.in_whose_name(request)).await
    }

    fn in_whose_name(&self, request: Request) -> Request {
        Request { impersonated: self.impersonated.clone(), ..request }
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

// === impl Connection ===

impl Connection {
    /// Nothing is called yet.
    pub fn new(config: &ClientConfig) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(RwLock::new(connect(config)?))))
    }

    /// Makes further calls as `config` says. Calls and watches that are under way go on as they began.
    pub fn replace(&self, config: &ClientConfig) -> Result<(), ConfigError> {
        let client = connect(config)?;
        *self.0.write() = client;
        Ok(())
    }

    fn client(&self) -> Arc<Client> {
        self.0.read().clone()
    }
}

fn connect(config: &ClientConfig) -> Result<Arc<Client>, ConfigError> {
    let no_services: Arc<dyn ServiceResolver> = Arc::new(NoServices);
    Client::new(config, &no_services).map(Arc::new)
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
        watch::start(&self.connection.client(), self.in_whose_name(request)).await
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
