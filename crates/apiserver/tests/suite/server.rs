//! A server of a test's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use apiserver::{ApiServer, Door, LocalApi, Parts, bootstrap};
use registry::ServiceNetwork;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::wire::{Client, Protocol};

/// As long as a test may run.
const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(3600);

/// A served, bootstrapped cluster without controllers. Dropping it ends it.
pub struct Server {
    address: SocketAddr,
    pub authority: Arc<pki::Authority>,
    shutdown: rt::Shutdown,
    door: Arc<Door>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(|_| apiserver::Options::default()).await
    }

    /// As an administrator would have it who knows the cluster's authority.
    pub async fn start_with(options: impl FnOnce(&pki::Authority) -> apiserver::Options) -> Self {
        let store = Arc::new(storage_embedded::memory());
        Self::launch(store, ServiceNetwork::default(), options).await.0
    }

    /// A server whose Services get addresses of this network.
    pub async fn on(network: ServiceNetwork) -> Self {
        Self::on_with(network, apiserver::Options::default()).await
    }

    /// As [`Server::on`], with choices of an administrator.
    pub async fn on_with(network: ServiceNetwork, options: apiserver::Options) -> Self {
        let store = Arc::new(storage_embedded::memory());
        Self::launch(store, network, |_| options).await.0
    }

    /// A server with aggregation and `metrics.k8s.io`, and the authority that signs what others believe it by.
    pub async fn aggregating() -> (Self, Arc<pki::Authority>) {
        let options = apiserver::Options { resource_metrics: true, ..Default::default() };
        let store = Arc::new(storage_embedded::memory());
        let (server, api, front_proxy) = Self::launch(store, ServiceNetwork::default(), |_| options).await;
        rt::spawn("aggregation", api.aggregate(server.shutdown.clone()));
        (server, front_proxy)
    }

    /// A server on a store that may have been another's.
    pub async fn start_on(store: Arc<dyn storage::Store>) -> Self {
        Self::launch(store, ServiceNetwork::default(), |_| apiserver::Options::default()).await.0
    }

    async fn launch(
        store: Arc<dyn storage::Store>,
        network: ServiceNetwork,
        options: impl FnOnce(&pki::Authority) -> apiserver::Options,
    ) -> (Self, ApiServer, Arc<pki::Authority>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let folder = tempfile::tempdir().expect("a folder");
        let keys = camino::Utf8Path::from_path(folder.path()).expect("a UTF-8 path");
        let authority = Arc::new(pki::Authority::load_or_create(keys, SystemTime::now()).expect("keys"));
        let front_proxy = Arc::new(
            pki::Authority::load_or_create(&keys.join("front-proxy"), SystemTime::now()).expect("keys"),
        );
        let names = pki::ServerNames::in_cluster().with(&address.ip().to_string());
        let certificate = authority.serving_certificate(names, SystemTime::now()).expect("a certificate");
        let options = options(&authority);
        let clients = options.authentication.clients(&authority).expect("a verifier");
        let proxies = options.authentication.proxies();
        let tls = pki::server_config_for(certificate, &clients, &proxies).expect("TLS");
        let facts = bootstrap::ClusterFacts::new(&network, address, &authority, &options.apis.features);
        let shutdown = rt::Shutdown::new();
        let parts = Parts {
            store,
            network,
            authority: authority.clone(),
            front_proxy: front_proxy.clone(),
            address,
            options,
            shutdown: shutdown.clone(),
        };
        let api = ApiServer::assemble(parts).expect("an assembled server");
        rt::spawn("https", api.listen(listener, Arc::new(tls)).run(shutdown.clone()));
        rt::spawn("service addresses", apiserver::ip_addresses::run(api.door().clone(), shutdown.clone()));
        rt::spawn("custom resources", api.run_extensions(shutdown.clone()));
        bootstrap::run(api.door(), &facts, &shutdown).await.expect("bootstrap");
        rt::spawn("fairness", api.run_fairness(shutdown.clone()));
        let door = api.door().clone();
        (Self { address, authority, shutdown, door, _folder: folder }, api, front_proxy)
    }

    /// A started server with a namespace `t` to work in.
    pub async fn with_namespace() -> (Self, Client) {
        let server = Self::start().await;
        let admin = server.admin();
        server.add_namespace("t", json!({})).await;
        (server, admin)
    }

    /// The administrator by certificate.
    pub fn admin(&self) -> Client {
        self.user("kubernetes-admin", &["system:masters"])
    }

    /// Somebody by certificate.
    pub fn user(&self, name: &str, groups: &[&str]) -> Client {
        let issued = self
            .authority
            .issue_client(name, groups, CERTIFICATE_VALIDITY, SystemTime::now())
            .expect("a client certificate");
        let tls = pki::client_config(self.authority.ca_pem(), Some(&issued)).expect("TLS");
        Client::new(self.address, tls, Protocol::Http1)
    }

    /// Somebody in this process.
    pub fn component(&self, name: &str, groups: &[&str]) -> Arc<dyn client::Api> {
        let user = auth::UserInfo::new(name).with_groups(groups.iter().copied()).authenticated();
        Arc::new(LocalApi::new(self.door.clone(), user, self.shutdown.clone()))
    }

    /// Somebody by a certificate of another authority.
    pub fn user_of(&self, authority: &pki::Authority, name: &str) -> Client {
        let issued = authority
            .issue_client(name, &[], CERTIFICATE_VALIDITY, SystemTime::now())
            .expect("a client certificate");
        let tls = pki::client_config(self.authority.ca_pem(), Some(&issued)).expect("TLS");
        Client::new(self.address, tls, Protocol::Http1)
    }

    /// The keys that sign service-account tokens.
    pub fn token_keys(&self) -> &pki::SigningKeys {
        self.authority.signing_keys()
    }

    /// Nobody in particular.
    pub fn anonymous(&self) -> Client {
        let tls = pki::client_config(self.authority.ca_pem(), None).expect("TLS");
        Client::new(self.address, tls, Protocol::Http1)
    }

    /// The administrator over HTTP/2.
    pub fn admin_http2(&self) -> Client {
        let issued = self.authority.issue_admin(SystemTime::now()).expect("a client certificate");
        let tls = pki::client_config(self.authority.ca_pem(), Some(&issued)).expect("TLS");
        Client::new(self.address, tls, Protocol::Http2)
    }

    /// A bearer token.
    pub fn token(&self, token: &str) -> Client {
        self.anonymous().with_header("authorization", &format!("Bearer {token}"))
    }

    /// Makes a namespace, and in it what controllers would: the default account and the authority's certificate.
    pub async fn add_namespace(&self, name: &str, labels: Value) {
        let admin = self.admin();
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        admin.post("/api/v1/namespaces", &namespace).await.expect(201);
        self.fill_namespace(name).await;
    }

    /// As [`Server::add_namespace`], for one that is there.
    pub async fn fill_namespace(&self, name: &str) {
        let admin = self.admin();
        let base = format!("/api/v1/namespaces/{name}");
        let manager = "fieldManager=kube-controller-manager";
        let account = json!({"metadata": {"name": "default"}});
        admin.post(&format!("{base}/serviceaccounts?{manager}"), &account).await.expect(201);
        let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";
        let bundle = json!({
            "metadata": {"name": "kube-root-ca.crt", "annotations": {"kubernetes.io/description": description}},
            "data": {"ca.crt": self.authority.ca_pem()},
        });
        admin.post(&format!("{base}/configmaps?{manager}"), &bundle).await.expect(201);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
