//! API servers behind this one, as upstream's aggregation layer has them.
//!
//! Owns: the table of group versions that another server answers ([`Aggregator`]), the APIServices of what is served
//! here, the `Available` condition of all ([`controller`]), and what discovery says about them ([`documents`]). Never
//! touches: who may ask (a request is authenticated and authorized before it gets here), nor what the other server
//! makes of it.
//!
//! Data flow: a change of an APIService, its Service or its endpoints → a check, which calls the other server → the
//! condition is written and the table replaced → requests for the group version are handed on, with the user's
//! name in headers that the other server believes because of this server's client certificate.
//!
//! Without an APIService that names a Service, all this costs a request one look at a flag.

mod controller;
mod documents;
mod plan;
mod remote;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::{Status, Str, Value, json};
use client::{Api, Informers, WriteOptions};
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::{Mutex, RwLock};
use webhook::{ClientCertificate, Clients, ServiceResolver};

use crate::catalog::Document;
use crate::client_certificate::{self, Renewed};
use crate::http::body::ResponseBody;
use crate::http::exchange::Exchange;
use crate::http::path::Target;
use crate::http::proxy::{self, Onward};
use crate::{Door, LocalApi};
use remote::Remote;

/// The name in the client certificate, which other servers are told to believe.
const PROXY_USER: &str = "front-proxy-client";

/// Knows which group versions another server answers.
pub struct Aggregator {
    /// Signs the certificate that other servers are shown, and nothing else.
    front_proxy: Arc<pki::Authority>,
    certificate: Renewed<ClientCertificate>,
    /// By the APIService's name; there also while its server does not answer.
    clients: Clients<Str>,
    table: RwLock<Arc<Table>>,
    /// Whether the table has anything in it.
    any: AtomicBool,
}

/// Group versions of other servers.
#[derive(Default)]
pub(crate) struct Table {
    /// By the APIService's name.
    remotes: BTreeMap<Str, Arc<Remote>>,
    /// Documents by path and by what they were merged into.
    merged: Mutex<BTreeMap<String, (Arc<str>, Document)>>,
}

impl Table {
    fn find(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.all().find(|remote| remote.group == group && remote.version == version)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.remotes.values()
    }

    /// Groups, the most important first.
    fn groups(&self) -> Vec<&str> {
        let mut all: Vec<&Arc<Remote>> = self.all().collect();
        all.sort_by_key(|remote| std::cmp::Reverse(remote.group_priority));
        let mut names: Vec<&str> = Vec::new();
        for remote in all {
            if !names.contains(&remote.group.as_str()) {
                names.push(&remote.group);
            }
        }
        names
    }

    /// The versions of a group, the preferred one first.
    fn versions(&self, group: &str) -> impl Iterator<Item = &Remote> {
        let mut own: Vec<&Remote> =
            self.all().filter(|remote| remote.group == group).map(|remote| &**remote).collect();
        own.sort_by_key(|remote| std::cmp::Reverse(remote.version_priority));
        own.into_iter()
    }
}

impl Aggregator {
    pub fn new(resolver: Arc<dyn ServiceResolver>, front_proxy: Arc<pki::Authority>) -> Self {
        Self {
            front_proxy,
            certificate: Renewed::default(),
            clients: Clients::new(resolver),
            table: RwLock::default(),
            any: AtomicBool::new(false),
        }
    }

    /// Keeps APIServices and the table up to date until `shutdown`.
    pub async fn run(self: Arc<Self>, door: Arc<Door>, shutdown: rt::Shutdown) {
        let api: Arc<dyn Api> =
            Arc::new(LocalApi::new(door.clone(), auth::UserInfo::api_server(), shutdown.clone()));
        if let Err(status) = self.tell_how_to_believe(&*api).await {
            tracing::warn!(%status, "Aggregated API servers cannot learn whom to believe");
        }
        let informers = Informers::new(api.clone(), shutdown.clone());
        let wiring = Arc::new(controller::Wiring { aggregator: self, door });
        let api_of = |_: &str| api.clone();
        let started = controller_runtime::start_all(
            vec![controller::descriptor()],
            &api_of,
            &informers,
            &wiring,
            &shutdown,
        );
        started.tasks.ended().await;
    }

    /// What other servers read to know that this one speaks for its users.
    async fn tell_how_to_believe(&self, api: &dyn Api) -> Result<(), Status> {
        const NAMESPACE: &str = "kube-system";
        const NAME: &str = "extension-apiserver-authentication";
        let current = api.get(&api::gvr::CONFIG_MAPS, NAMESPACE, NAME).await?.to_value();
        let wanted = json!({
            "requestheader-allowed-names": format!("[{PROXY_USER:?}]"),
            "requestheader-client-ca-file": self.front_proxy.ca_pem(),
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
        });
        let mut merged = current.clone();
        for (key, value) in wanted.as_object().into_iter().flatten() {
            merged.set_at(&["data", key.as_str()], value.clone());
        }
        if merged == current {
            return Ok(());
        }
        api.update(&api::gvr::CONFIG_MAPS, NAMESPACE, NAME, None, merged, &options()).await.map(drop)
    }

    /// Hot path: the other server that a request is for. Most clusters have none.
    pub(crate) fn find(&self, target: &Target<'_>) -> Option<Arc<Remote>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let (group, version) = match target {
            Target::Resource(path) => (path.group, path.version),
            Target::NonResource(path) => {
                let path = path.trim_matches('/');
                let path = path.strip_prefix("openapi/v3/").unwrap_or(path);
                let mut parts = path.strip_prefix("apis/")?.split('/');
                let (group, version) = (parts.next()?, parts.next()?);
                if parts.next().is_some() {
                    return None;
                }
                (group, version)
            }
        };
        self.table.read().find(group, version).cloned()
    }

    /// Hands a request on to the other server.
    pub(crate) async fn forward(
        &self,
        remote: &Remote,
        onward: Onward<'_>,
        incoming: Incoming,
    ) -> Result<Response<ResponseBody>, Status> {
        let answer = remote.answer.as_ref().ok_or_else(|| Status::unavailable("service unavailable"))?;
        let exchange: &Exchange<'_> = onward.exchange;
        let upgrade = exchange.take_upgrade().filter(|_| proxy::is_upgrade(&exchange.headers));
        let mut headers = proxy::onward(&exchange.headers, upgrade.is_some());
        proxy::append_forwarded_for(&mut headers, exchange);
        remote::identify(&mut headers, &exchange.user);
        let mut request = Request::new(incoming.map_err(Into::into).boxed_unsync());
        *request.method_mut() = exchange.method.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        let target = exchange.uri().path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse().map_err(|_| Status::no_such_path())?;
        match answer.client.forward(request).await {
            Ok(response) => onward.answer(upgrade, response),
            Err(error) => {
                tracing::debug!(group = %remote.group, %error, "An aggregated API server did not answer");
                Err(Status::unavailable(format!("error trying to reach service: {error}")))
            }
        }
    }

    /// Reads a path of the other server for a component of this process. What the user may do was asked before.
    pub(crate) async fn read(
        &self,
        remote: &Remote,
        user: &auth::UserInfo,
        path_and_query: &str,
    ) -> Result<Value, Status> {
        const UNAVAILABLE: &str = "service unavailable";
        let answer =
            remote.answer.as_ref().ok_or_else(|| Status::of_response(503, "GET", UNAVAILABLE, None))?;
        remote::read_as(&answer.client, user, path_and_query).await
    }

    /// A document of this server with what others serve among it.
    pub(crate) fn merged(&self, path: &str, document: Document) -> Document {
        if !self.any.load(Ordering::Relaxed) {
            return document;
        }
        let table = self.table.read().clone();
        let key = format!("{path} {}", document.content_type);
        if let Some((basis, made)) = table.merged.lock().get(&key)
            && *basis == document.etag
        {
            return made.clone();
        }
        let Some(bytes) = documents::merged(&table, path, &document.bytes()) else { return document };
        let made = Document::new(document.content_type, &bytes);
        table.merged.lock().insert(key, (document.etag, made.clone()));
        made
    }

    /// The discovery document of a group that only other servers have.
    pub(crate) fn group_document(&self, group: &str) -> Option<Vec<u8>> {
        documents::group(&self.table.read().clone(), group)
    }

    fn insert(&self, name: &str, remote: Remote) {
        // A check that finds what the last one found must not make every document anew.
        if self.table.read().remotes.get(name).is_some_and(|own| **own == remote) {
            return;
        }
        self.change(|remotes| {
            remotes.insert(name.into(), Arc::new(remote));
        });
    }

    fn remove(&self, name: &str) {
        self.clients.remove(name);
        if self.table.read().remotes.contains_key(name) {
            self.change(|remotes| {
                remotes.remove(name);
            });
        }
    }

    fn change(&self, edit: impl FnOnce(&mut BTreeMap<Str, Arc<Remote>>)) {
        let mut table = self.table.write();
        let mut remotes = table.remotes.clone();
        edit(&mut remotes);
        self.any.store(!remotes.is_empty(), Ordering::Relaxed);
        *table = Arc::new(Table { remotes, merged: Mutex::default() });
    }

    /// The certificate that says that this server speaks for its users.
    fn certificate(&self) -> Result<ClientCertificate, String> {
        self.certificate
            .get_or_make(|| client_certificate::issue(&self.front_proxy, PROXY_USER, &[]))
            .map_err(|error| telemetry::chain(&error).to_string())
    }
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "kube-apiserver".into(), ..WriteOptions::default() }
}

/// The object's name, which for this kind is all of its key.
fn name_of(object: &Value) -> &str {
    object.str_at(&["metadata", "name"])
}
