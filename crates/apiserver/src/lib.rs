//! The Kubernetes API over HTTPS and in process.
//!
//! Owns: the [`Door`] (authorization and dispatch of every operation), the HTTP forms of the API, discovery, the
//! bootstrap of a fresh cluster. Never touches: what a kind means (`api`), how a write is committed (`registry`), how
//! bytes reach the disk (`storage`).
//!
//! Start at [`ApiServer::assemble`] for how the parts fit, at [`door`] for operations and at [`http::handler`] for
//! requests.
//!
//! **API boundary:** components use [`LocalApi`] (as `client::Api`), the binary uses [`ApiServer`]; nothing else here
//! is for others.

pub mod aggregation;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
mod catalog;
mod client_certificate;
pub mod connect;
pub mod decode;
mod door;
pub mod event_expiry;
mod extensions;
mod fairness;
mod grants;
mod health;
pub mod http;
pub mod ip_addresses;
mod legacy_tokens;
mod local;
mod node_feed;
pub mod options;
pub mod patch;
mod rbac_feed;
mod resource_metrics;
mod reviews;
mod scale;
mod served;
mod service_address;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use apimachinery::{GroupVersionResource, Value, json};
use auth::rbac::RbacAuthorizer;
use auth::{NodeAuthorizer, UserInfo};
use registry::{Endpoint, Registry, ServiceNetwork};
use storage::Store;
use watch_cache::{LoadError, WatchCache};

use crate::aggregation::Aggregator;
use crate::catalog::Catalog;
use crate::door::Elsewhere;
pub use crate::door::{Answer, Call, Door, Mode};
use crate::extensions::{ConversionWebhooks, Extensions};
use crate::fairness::Fairness;
pub use crate::health::Readiness;
use crate::http::handler::Handler;
use crate::http::identity::Identifier;
use crate::http::in_flight::InFlight;
use crate::http::proxy::Backends;
pub use crate::http::server::HttpsServer;
pub use crate::local::LocalApi;
pub use crate::options::Options;
use crate::resource_metrics::ResourceMetrics;
use crate::reviews::Reviewer;
use crate::served::ServedNow;
use crate::service_address::ServiceAddresses;
use crate::tokens::{CachedObjects, TokenMinter};

/// The version of Kubernetes whose API is served.
pub const KUBERNETES_VERSION: (&str, &str, &str) = ("1", "36", "v1.36.2+pintle");

/// What the server is built on.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub network: ServiceNetwork,
    pub authority: Arc<pki::Authority>,
    /// Signs what aggregated API servers believe this server by; it must sign nothing else.
    pub front_proxy: Arc<pki::Authority>,
    /// Where it will listen.
    pub address: SocketAddr,
    pub options: Options,
    pub shutdown: rt::Shutdown,
}

/// An assembled server: it can be called in process at once and over HTTPS once [`ApiServer::listen`] runs.
pub struct ApiServer {
    door: Arc<Door>,
    readiness: Arc<Readiness>,
    handler: Arc<Handler>,
    auditor: Option<Arc<audit::Auditor>>,
    fairness: Option<Arc<Fairness>>,
    aggregator: Arc<Aggregator>,
    extensions: Option<Arc<Extensions>>,
    shutdown: rt::Shutdown,
}

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error("loading the stored objects")]
    Load(#[from] LoadError),
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    #[error("preparing client certificates")]
    Pki(#[from] pki::Error),
    #[error("resource {0} is missing from the built-in table")]
    MissingResource(String),
    #[error(transparent)]
    Admission(#[from] admission::BuildError),
}

impl ApiServer {
    /// Loads the stored objects and puts the parts together. Nothing is written and nobody is let in yet.
    pub fn assemble(parts: Parts) -> Result<Self, AssembleError> {
        let Parts { store, network, authority, front_proxy, address, options, shutdown } = parts;
        let Options {
            requests,
            audit,
            apis,
            admission,
            kubelets,
            authentication,
            authorization,
            resource_metrics,
            allow_privileged,
        } = options;
        for gate in api::features::gates() {
            let enabled = apis.features.enabled(gate.name);
            telemetry::metrics().set_feature(gate.name, gate.metric_stage(), enabled);
        }
        let cache = WatchCache::new();
        let registry =
            Registry::new(store.clone(), cache.clone(), network).allowing_privileged(allow_privileged);
        let cbor = apis.features.enabled("CBORServingAndStorage");
        let mut resources = api::builtin::served(&apis.runtime_config, &apis.features);
        if resource_metrics {
            resources.extend(resource_metrics::resources());
        }
        let catalog = Catalog::new(&registry, resources);
        let built_in = |gvr: &GroupVersionResource| -> Result<Endpoint, AssembleError> {
            catalog.find(gvr).cloned().ok_or_else(|| AssembleError::MissingResource(gvr.to_string()))
        };
        let resolver: Arc<dyn webhook::ServiceResolver> = Arc::new(ServiceAddresses::new(
            built_in(&api::gvr::SERVICES)?,
            built_in(&api::gvr::ENDPOINT_SLICES)?,
            address,
        ));
        let conversions = Arc::new(ConversionWebhooks::new(resolver.clone()));
        let (catalog, restored) = extensions::restore(&registry, catalog, &conversions)?;
        cache.load(store.as_ref())?;
        store.observe("", cache.clone());
        let find = |gvr: &GroupVersionResource| -> Result<Endpoint, AssembleError> {
            catalog.find(gvr).cloned().ok_or_else(|| AssembleError::MissingResource(gvr.to_string()))
        };
        registry.recover(
            find(&api::gvr::NAMESPACES)?,
            &find(&api::gvr::SERVICES)?,
            find(&api::gvr::SERVICE_CIDRS)?,
            find(&api::gvr::IP_ADDRESSES)?,
        );
        let rbac = Arc::new(RbacAuthorizer::new());
        rbac_feed::start(&registry, &rbac);
        let (used, used_tokens) = legacy_tokens::channel();
        let fairness =
            requests.priority_and_fairness.then(|| Fairness::new(&registry, requests.flow_control()));
        let objects = CachedObjects {
            service_accounts: find(&api::gvr::SERVICE_ACCOUNTS)?,
            pods: find(&api::gvr::PODS)?,
            secrets: find(&api::gvr::SECRETS)?,
            nodes: find(&api::gvr::NODES)?,
            used,
        };
        let authenticator = Arc::new(authentication.authenticator(&authority, Arc::new(objects))?);
        let nodes = Arc::new(NodeAuthorizer::new());
        let sources = node_feed::Sources {
            pods: find(&api::gvr::PODS)?,
            volumes: find(&api::gvr::PERSISTENT_VOLUMES)?,
            attachments: find(&api::gvr::VOLUME_ATTACHMENTS)?,
            slices: catalog.find(&api::gvr::RESOURCE_SLICES).cloned(),
        };
        node_feed::start(&registry, sources, nodes.graph());
        let authorizer = authorization.authorizers(&nodes, &rbac);
        let served = Arc::new(ServedNow::default());
        let environment = admission::Environment {
            endpoint: &|gvr| catalog.find(gvr).cloned(),
            authorizer: authorizer.clone(),
            features: &apis.features,
            world: admission::dynamic::World {
                namespaces: find(&api::gvr::NAMESPACES)?,
                served: served.clone(),
            },
            resolver: resolver.clone(),
        };
        admission::Chain::new(&environment, &admission)?.install(&registry);
        let metrics = resource_metrics
            .then(|| {
                Ok::<_, AssembleError>(ResourceMetrics {
                    nodes: find(&api::gvr::NODES)?,
                    pods: find(&api::gvr::PODS)?,
                    measured: Arc::default(),
                })
            })
            .transpose()?;
        let measuring = metrics.as_ref().map(|own| (own.measured.clone(), own.nodes.clone()));
        let aggregator = Arc::new(Aggregator::new(resolver, front_proxy));
        let door = Arc::new(Door::new(
            registry,
            catalog,
            authorizer,
            rbac,
            Reviewer::new(authenticator.clone()),
            TokenMinter::new(authentication.service_accounts.issuer(&authority)),
            Elsewhere { metrics, aggregator: aggregator.clone() },
        ));
        served.set(&door);
        let tracking = legacy_tokens::run(door.clone(), used_tokens, shutdown.clone());
        rt::spawn("legacy token tracking", tracking);
        if let Some(jwt) = authentication.jwt.clone() {
            rt::spawn("authentication configuration", authentication::follow_file(jwt, shutdown.clone()));
        }
        let keys = authority.signing_keys().clone();
        let identifier = Identifier::new(authenticator, keys, authentication.service_accounts, address);
        let readiness = Arc::new(Readiness::default());
        let auditor = audit::Auditor::open(audit)?;
        let backends = Arc::new(Backends::new(kubelets, authority, aggregator.clone()));
        if let Some((measured, nodes)) = measuring {
            let reads = resource_metrics::run(measured, nodes, backends.clone(), shutdown.clone());
            rt::spawn("resource metrics", reads);
        }
        let handler = Handler::new(
            door.clone(),
            identifier,
            readiness.clone(),
            version(),
            backends,
            InFlight::new(&requests, fairness.clone()),
            shutdown.clone(),
        );
        let handler = Arc::new(handler.audited_by(auditor.clone()).with_cbor(cbor));
        let extensions =
            Extensions::new(door.clone(), restored, conversions, requests.duration_max(), shutdown.clone());
        Ok(Self { door, readiness, handler, auditor, fairness, aggregator, extensions, shutdown })
    }

    /// A client for a component that acts as `user`.
    pub fn client(&self, user: UserInfo) -> Arc<LocalApi> {
        Arc::new(LocalApi::new(self.door.clone(), user, self.shutdown.clone()))
    }

    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    pub fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    /// Keeps priority and fairness in step with its stored configuration and with the demand, until `shutdown`.
    pub fn run_fairness(&self, shutdown: rt::Shutdown) -> impl Future<Output = ()> + Send + use<> {
        let (fairness, door) = (self.fairness.clone(), self.door.clone());
        async move {
            if let Some(fairness) = fairness {
                fairness.run(door, shutdown).await;
            }
        }
    }

    /// Keeps APIServices true and aggregated API servers reachable until `shutdown`. Call after the bootstrap.
    pub fn aggregate(&self, shutdown: rt::Shutdown) -> impl Future<Output = ()> + Send + 'static {
        self.aggregator.clone().run(self.door.clone(), shutdown)
    }

    /// Serves what CustomResourceDefinitions define, until the server ends.
    pub fn run_extensions(&self, shutdown: rt::Shutdown) -> impl Future<Output = ()> + Send + 'static {
        let extensions = self.extensions.clone();
        async move {
            let Some(extensions) = extensions else { return };
            tokio::select! {
                () = extensions.run() => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Writes the audit events that still wait. Call when the last request was answered.
    pub async fn close_audit(&self) {
        if let Some(auditor) = &self.auditor {
            auditor.close().await;
        }
    }

    /// An HTTPS server on a bound listener.
    pub fn listen(&self, listener: tokio::net::TcpListener, tls: Arc<rustls::ServerConfig>) -> HttpsServer {
        HttpsServer::new(listener, tls, self.handler.clone())
    }

    /// As [`ApiServer::listen`], for an address that is not there yet.
    pub fn listen_later(
        &self,
        tls: Arc<rustls::ServerConfig>,
    ) -> impl FnOnce(tokio::net::TcpListener) -> HttpsServer + Send + 'static {
        let handler = self.handler.clone();
        move |listener| HttpsServer::new(listener, tls, handler)
    }
}

/// The answer of `/version`.
fn version() -> Value {
    let (major, minor, git_version) = KUBERNETES_VERSION;
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": "35", "gitVersion": git_version,
        "gitCommit": option_env!("PINTLE_GIT_COMMIT").unwrap_or("unknown"), "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": platform(),
    })
}

/// Operating system and architecture in Go's words.
fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}
