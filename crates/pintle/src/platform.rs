//! Starts and stops the parts in order.
//!
//! ```text
//! start   listener bound ─ store opened ─ keys ─ objects loaded ─ serving ─ bootstrap ─ controllers, scheduler, nodes ─ ready
//! stop    ready off ─ components end ─ connections drained ─ audit log written ─ store flushed and closed
//! ```
//!
//! Everything that can be wrong with the place (port, directory, damaged files) is found before the first write.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use api::Resource;
use apimachinery::GroupVersionKind;
use apiserver::{ApiServer, LocalApi, Parts, bootstrap};
use auth::{UserInfo, user};
use camino::{Utf8Path, Utf8PathBuf};
use controllers::node_ipam::ClusterCidr;
use registry::ServiceNetwork;
use storage::Store;
use tokio::net::TcpListener;

use crate::joining::invitation::{self, Settings};
use crate::node::{self as node_config, beside_server};

/// Roles that have to be ready, as `/readyz` lists them.
const ROLES: [&str; 4] = ["bootstrap", "controllers", "scheduler", "nodes"];

/// The role of this machine as a node.
const NODE_ROLE: &str = "node";

/// Components have this long to end after they were told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where and how big.
pub struct Config {
    pub data_dir: Utf8PathBuf,
    pub listen: SocketAddr,
    pub kubeconfig: Utf8PathBuf,
    pub sim_nodes: u32,
    /// This machine as a node, if it is one.
    pub node: Option<node_config::Config>,
    /// Where others reach the API, where that is not [`Config::listen`].
    pub advertise_address: Option<IpAddr>,
    /// More names and addresses that the API's certificate is for.
    pub tls_san: Vec<String>,
    /// What all nodes have in common.
    pub settings: Settings,
    pub cluster_cidrs: Vec<ClusterCidr>,
    pub network: ServiceNetwork,
    pub controllers: controllers::Selection,
    pub signing_duration: Duration,
    pub autoscaler: controllers::AutoscalerSettings,
    pub scheduler: scheduler::Options,
    pub server: apiserver::Options,
    /// Whether kubelets' certificates go unchecked.
    pub kubelet_insecure_tls: bool,
}

/// A running cluster.
pub struct Platform {
    server: ApiServer,
    store: Arc<dyn Store>,
    tasks: rt::Tasks,
    /// Ends the components; the API stays so that they can finish what they are at.
    components: rt::Shutdown,
    /// Ends the API.
    serving: rt::Shutdown,
    https: rt::JoinHandle<()>,
    pub address: SocketAddr,
    /// Whether the data directory held a cluster already.
    pub continued: bool,
}

impl Platform {
    /// Starts everything; returns when it was started, not yet ready.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let (major, minor, git_version) = apiserver::KUBERNETES_VERSION;
        let git_commit = option_env!("PINTLE_GIT_COMMIT").unwrap_or("unknown");
        telemetry::metrics().set_build_info(major, minor, git_version, git_commit);
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!("--listen {}: choose another address or port (port 0 finds a free one)", config.listen)
        })?;
        let address = listener.local_addr().context("reading the listener's address")?;
        let store = open_store(&config.data_dir)?;
        let continued = store.current_revision().0 > 0;
        let authority = pki::Authority::load_or_create(&config.data_dir.join("pki"), now())?;
        let authority = Arc::new(authority);
        let front_proxy = pki::Authority::load_or_create(&config.data_dir.join("pki/front-proxy"), now())?;
        let advertised = advertised(config, address);
        let serving_certificate =
            authority.serving_certificate(server_names(config, address, advertised), now())?;
        let authentication = &config.server.authentication;
        let (clients, proxies) = (authentication.clients(&authority)?, authentication.proxies());
        let tls = Arc::new(pki::server_config_for(serving_certificate.clone(), &clients, &proxies)?);
        let serving = rt::Shutdown::new();
        let components = serving.child_token();
        let network = config.network.clone();
        let reached = advertised.unwrap_or(address);
        let facts = bootstrap::ClusterFacts::new(&network, reached, &authority, &config.server.apis.features);
        let server = ApiServer::assemble(Parts {
            store: store.clone(),
            network,
            authority: authority.clone(),
            front_proxy: Arc::new(front_proxy),
            address,
            options: server_options(config, &authority),
            shutdown: serving.clone(),
        })?;
        for role in ROLES {
            server.readiness().expect(role);
        }
        if config.node.is_some() {
            server.readiness().expect(NODE_ROLE);
        }
        let scheduling = Scheduling::prepare(
            &server,
            config.scheduler.clone(),
            &config.server.apis.features,
            &components,
        )?;
        write_kubeconfig(&authority, address, &config.kubeconfig)?;
        let https = rt::spawn("https", server.listen(listener, tls.clone()).run(serving.clone()));
        bootstrap::run(server.door(), &facts, &serving)
            .await
            .map_err(|status| anyhow!("bootstrap: {status}"))?;
        prepare_for_nodes(&server, reached, &authority, config, &serving).await?;
        if let Some(at) = advertised.filter(|_| continued) {
            bootstrap::advertise(server.door(), at, &serving)
                .await
                .map_err(|status| anyhow!("the endpoints of the Service kubernetes: {status}"))?;
        }
        server.readiness().set_ready("bootstrap");
        let mut platform = Self {
            server,
            store,
            tasks: rt::Tasks::default(),
            components,
            serving,
            https,
            address,
            continued,
        };
        let fairness = platform.server.run_fairness(platform.components.clone());
        platform.tasks.spawn("fairness", fairness);
        platform.tasks.spawn("certificate renewal", renew(serving_certificate, platform.components.clone()));
        let extensions = platform.server.run_extensions(platform.components.clone());
        platform.tasks.spawn("custom resources", extensions);
        let expiry =
            apiserver::event_expiry::run(platform.server.door().clone(), platform.components.clone());
        platform.tasks.spawn("event expiry", expiry);
        let addresses =
            apiserver::ip_addresses::run(platform.server.door().clone(), platform.components.clone());
        platform.tasks.spawn("service addresses", addresses);
        let aggregation = platform.server.aggregate(platform.components.clone());
        platform.tasks.spawn("aggregation", aggregation);
        platform.start_controllers(authority.clone(), config);
        platform.start_scheduler(scheduling);
        platform.start_nodes(config.sim_nodes);
        platform.start_cluster_network(config.settings.cluster_dns.first().copied());
        if let Some(node) = &config.node {
            platform.start_node(node.clone(), &authority, tls).await?;
        }
        Ok(platform)
    }

    /// Waits until every role is ready.
    pub async fn ready(&self) {
        self.server.readiness().ready().await;
    }

    /// A client with all rights, for what the person at the terminal asks for.
    pub fn admin(&self) -> Arc<LocalApi> {
        let admin = UserInfo::new(pki::ADMIN_USER).with_groups([user::MASTERS]).authenticated();
        self.server.client(admin)
    }

    /// The served resource of a kind.
    pub fn resource_of(&self, gvk: &GroupVersionKind) -> Option<Arc<Resource>> {
        crate::apply::find_kind(self.server.door().catalog().resources(), gvk)
    }

    /// Ends everything in order; what was answered with success is on disk when this returns.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.components.cancel();
        if let Err(components) = self.tasks.end_within(STOP_TIMEOUT).await {
            tracing::warn!(?components, "Components did not end in time");
        }
        self.serving.cancel();
        let _ = rt::timeout(STOP_TIMEOUT * 2, self.https).await;
        if rt::timeout(STOP_TIMEOUT, self.server.close_audit()).await.is_err() {
            tracing::warn!("Audit events were lost: they could not be delivered in time");
        }
        self.store.close().await.context("closing the store")
    }

    fn start_controllers(&mut self, authority: Arc<pki::Authority>, config: &Config) {
        let user = UserInfo::new(user::KUBE_CONTROLLER_MANAGER).authenticated();
        let informers = client::Informers::new(self.server.client(user), self.components.clone());
        let server = &self.server;
        let api_of = |account: &str| -> Arc<dyn client::Api> {
            server.client(match account {
                "" => UserInfo::new(user::KUBE_CONTROLLER_MANAGER).authenticated(),
                account => UserInfo::service_account("kube-system", account, "").authenticated(),
            })
        };
        let options = controllers::Options {
            root_ca: authority.ca_pem().to_owned(),
            tokens: Some(Arc::new(Tokens(authority.clone()))),
            signer: Some(authority),
            cluster_cidrs: config.cluster_cidrs.clone(),
            selection: config.controllers.clone(),
            pod_groups: self.serves(&api::gvr::POD_GROUPS),
            signing_duration: Some(config.signing_duration),
            autoscaler: config.autoscaler.clone(),
            features: config.server.apis.features.clone(),
        };
        let started = controllers::start(&api_of, &informers, options, &self.components);
        let (ready, readiness) = (started.ready(), self.server.readiness().clone());
        let shutdown = self.components.clone();
        self.tasks.extend(started.tasks);
        self.tasks.spawn("controllers readiness", async move {
            tokio::select! {
                () = ready => readiness.set_ready("controllers"),
                () = shutdown.cancelled() => {}
            }
        });
    }

    fn serves(&self, resource: &apimachinery::GroupVersionResource) -> bool {
        serves(&self.server, resource)
    }

    fn start_scheduler(&mut self, scheduling: Scheduling) {
        let (ready, became_ready) = tokio::sync::oneshot::channel();
        let shutdown = self.components.clone();
        self.tasks.spawn("scheduler", async move {
            let Scheduling { profiles, options } = scheduling;
            if let Err(error) = scheduler::run_profiles(profiles, options, ready, shutdown).await {
                tracing::error!(error = %telemetry::chain(&error), "Scheduler did not start");
            }
        });
        self.mark_ready("scheduler", became_ready);
    }

    fn start_nodes(&mut self, count: u32) {
        let user = UserInfo::new(node::sim::USER).authenticated();
        let api: Arc<dyn client::Api> = self.server.client(user);
        let informers = client::Informers::new(api.clone(), self.components.clone());
        let (ready, became_ready) = tokio::sync::oneshot::channel();
        let shutdown = self.components.clone();
        let options = node::sim::SimOptions::of(count as usize);
        self.tasks.spawn("simulated nodes", async move {
            if let Err(error) = node::sim::run(api, &informers, options, ready, shutdown).await {
                tracing::error!(error = %telemetry::chain(&error), "Simulated nodes did not start");
            }
        });
        self.mark_ready("nodes", became_ready);
    }

    fn start_cluster_network(&mut self, cluster_dns: Option<IpAddr>) {
        let user = UserInfo::new(node_config::CLUSTER_NETWORK).authenticated();
        let work = beside_server::run_cluster_network(
            self.server.client(user),
            cluster_dns,
            self.components.clone(),
        );
        self.tasks.spawn("cluster network", work);
    }

    async fn start_node(
        &mut self,
        config: node_config::Config,
        authority: &Arc<pki::Authority>,
        tls: Arc<rustls::ServerConfig>,
    ) -> anyhow::Result<()> {
        let (ready, became_ready) = tokio::sync::oneshot::channel();
        let parts = beside_server::Parts {
            server: &self.server,
            authority,
            tls,
            api_address: self.address,
            shutdown: self.components.clone(),
        };
        let tasks = beside_server::start(config, parts, ready).await?;
        self.tasks.extend(tasks);
        self.mark_ready(NODE_ROLE, became_ready);
        Ok(())
    }

    fn mark_ready(&mut self, role: &'static str, became_ready: tokio::sync::oneshot::Receiver<()>) {
        let readiness = self.server.readiness().clone();
        self.tasks.spawn("readiness", async move {
            if became_ready.await.is_ok() {
                readiness.set_ready(role);
            }
        });
    }
}

/// Where machines and pods reach the API; `None` where it listens on the loopback only, or the machine has no address.
fn advertised(config: &Config, address: SocketAddr) -> Option<SocketAddr> {
    let of_machine = || {
        let node = config.node.as_ref().map(|node| node.addresses.clone());
        node.or_else(|| node_config::addresses().ok())?.first().copied()
    };
    let ip = match (config.advertise_address, address.ip()) {
        (Some(said), _) => said,
        (None, ip) if ip.is_unspecified() => of_machine()?,
        (None, ip) if ip.is_loopback() => return None,
        (None, ip) => ip,
    };
    Some(SocketAddr::new(ip, address.port()))
}

/// What the API's certificate is for.
fn server_names(config: &Config, address: SocketAddr, advertised: Option<SocketAddr>) -> pki::ServerNames {
    let own = [Some(address.ip()), advertised.map(|at| at.ip()), Some(config.network.first())];
    let of_node = config.node.iter().flat_map(|node| &node.addresses);
    let ips = own.into_iter().flatten().chain(of_node.copied());
    let texts = ips.map(|ip| ip.to_string()).chain(config.tls_san.iter().cloned());
    texts.fold(pki::ServerNames::in_cluster(), |names, text| names.with(&text))
}

/// Kubelets have to show a certificate of this cluster unless something else was said.
fn server_options(config: &Config, authority: &pki::Authority) -> apiserver::Options {
    let mut options = config.server.clone();
    if !config.kubelet_insecure_tls {
        options.kubelets.certificate_authority.get_or_insert_with(|| authority.ca_pem().into());
    }
    options
}

/// Roles of what runs on nodes and of those that come, and what they read.
async fn prepare_for_nodes(
    server: &ApiServer,
    reached: SocketAddr,
    authority: &pki::Authority,
    config: &Config,
    shutdown: &rt::Shutdown,
) -> anyhow::Result<()> {
    let policy = node::sim::policy().into_iter().chain(node_config::policy());
    let policy = policy.chain(invitation::policy()).chain(controllers::policy());
    bootstrap::policy(server.door(), policy, shutdown)
        .await
        .map_err(|status| anyhow!("the roles of nodes: {status}"))?;
    let api: Arc<dyn client::Api> = server.client(UserInfo::api_server());
    invitation::write(&api, reached, authority.ca_pem(), &config.settings)
        .await
        .map_err(|status| anyhow!("what nodes that join are told: {status}"))
}

fn serves(server: &ApiServer, resource: &apimachinery::GroupVersionResource) -> bool {
    server.door().endpoint(resource).is_ok()
}

/// A scheduler that is ready to start.
struct Scheduling {
    profiles: Vec<(scheduler::framework::Profile, scheduler::framework::Handle)>,
    options: scheduler::Options,
}

impl Scheduling {
    /// Makes the plugins, so that what is wrong with their configuration is found before the first write.
    fn prepare(
        server: &ApiServer,
        options: scheduler::Options,
        features: &api::Features,
        components: &rt::Shutdown,
    ) -> anyhow::Result<Self> {
        let user = UserInfo::new(user::KUBE_SCHEDULER).authenticated();
        let api: Arc<dyn client::Api> = server.client(user);
        let informers = client::Informers::new(api.clone(), components.clone());
        let groups = serves(server, &api::gvr::POD_GROUPS).then(|| scheduler::GroupFeatures {
            gangs: features.enabled("GangScheduling"),
            topology: features.enabled("TopologyAwareWorkloadScheduling"),
        });
        let options = scheduler::Options { groups, ..options };
        let profiles = scheduler::profiles(api, &informers, &options, components)?;
        Ok(Self { profiles, options })
    }
}

/// The keys of service-account tokens, as the controllers may use them.
struct Tokens(Arc<pki::Authority>);

impl controllers::TokenMaker for Tokens {
    fn legacy_token(
        &self,
        namespace: &str,
        account: &str,
        account_uid: &str,
        secret: &str,
    ) -> Result<String, String> {
        let account = auth::token::Reference::new(account, account_uid);
        auth::token::legacy::issue(self.0.signing_keys(), namespace, &account, secret)
            .map_err(|error| error.to_string())
    }
}

fn open_store(data_dir: &Utf8Path) -> anyhow::Result<Arc<dyn Store>> {
    make_private(data_dir)
        .with_context(|| format!("--data-dir {data_dir}: it must be a directory you can write"))?;
    let path = data_dir.join("store");
    let store = storage_embedded::open(path.as_std_path(), storage_embedded::Options::default())
        .with_context(|| format!("--data-dir {data_dir}"))?;
    Ok(Arc::new(store))
}

/// The directory holds keys: nobody else may look in. One that is there already keeps its mode, since it may be
/// shared; what is made in it is private anyhow.
fn make_private(directory: &Utf8Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn write_kubeconfig(authority: &pki::Authority, address: SocketAddr, path: &Utf8Path) -> anyhow::Result<()> {
    let admin = authority.issue_admin(now())?;
    // A client cannot connect to "any address".
    let host = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        ip if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let server = format!("https://{host}:{}", address.port());
    let kubeconfig = pki::Kubeconfig {
        server: &server,
        ca_pem: authority.ca_pem(),
        user: "admin",
        credential: pki::Credential::Certificate(&admin),
    };
    kubeconfig.write(path).with_context(|| format!("--kubeconfig {path}"))
}

/// The wall clock, in the form that certificates count in.
fn now() -> SystemTime {
    rt::now().into()
}

/// Replaces the serving certificate in time, for as long as the cluster runs.
async fn renew(certificate: Arc<pki::ServingCertificate>, shutdown: rt::Shutdown) {
    loop {
        let wait = certificate.renew_at().duration_since(now()).unwrap_or(Duration::from_secs(60));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = rt::sleep(wait) => {}
        }
        match certificate.renew(now()) {
            Ok(()) => tracing::info!("Renewed the serving certificate"),
            Err(error) => {
                tracing::error!(error = %telemetry::chain(&error), "Could not renew the serving certificate")
            }
        }
    }
}
