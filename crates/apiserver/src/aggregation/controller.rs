//! Keeps APIServices true: those of what is served here exist, and each says whether it can be called.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{CUSTOM_RESOURCE_DEFINITIONS, ENDPOINT_SLICES, SERVICES};
use apimachinery::{GroupVersionResource, Object, Status, Value};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Api, DeleteOptions, Delta, Informer};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, Controller, ControllerDescriptor, Queue, Reconcile, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use webhook::{Client, ClientConfig, ServiceReference, Target};

use super::plan::{self, Origin, Registration, Verdict};
use super::remote::{self, Answer, Remote};
use super::{Aggregator, name_of, options};
use crate::Door;
use crate::service_address::SERVICE_NAME_LABEL;

/// Index of APIServices by `namespace/name` of the Service they name.
const BY_SERVICE: &str = "service";
/// Index of EndpointSlices by `namespace/name` of their Service.
const SLICES_BY_SERVICE: &str = "slices";

/// A server that answered is asked again after this time: nothing else tells when it no longer does.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// One that did not is asked again sooner.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

fn api_services() -> GroupVersionResource {
    GroupVersionResource::new("apiregistration.k8s.io", "v1", "apiservices")
}

struct Availability {
    aggregator: Arc<Aggregator>,
    door: Arc<Door>,
    api: Arc<dyn Api>,
    services: Arc<Informer>,
    slices: Arc<Informer>,
    api_services: Arc<Informer>,
    /// Built-in group versions whose APIServices were put right since the start. After that they are anybody's.
    started: Mutex<HashSet<String>>,
}

/// What the controller works with, besides the API.
pub(super) struct Wiring {
    pub aggregator: Arc<Aggregator>,
    pub door: Arc<Door>,
}

pub(super) fn descriptor() -> ControllerDescriptor<Wiring> {
    ControllerDescriptor {
        name: "apiservice-availability",
        // It is part of the server, and acts as that.
        service_account: "",
        event_source: "apiservice-availability",
        workers: 4,
        start,
    }
}

fn start(context: Context<Wiring>) -> BoxFuture<'static, ()> {
    let informers = &context.informers;
    let own = informers.of(&api_services());
    own.add_index(BY_SERVICE, |object| {
        let service = &object.to_value()["spec"]["service"];
        if service.is_null() {
            Vec::new()
        } else {
            vec![place(service.str_at(&["namespace"]), service.str_at(&["name"]))]
        }
    });
    let (services, slices) = (informers.of(&SERVICES), informers.of(&ENDPOINT_SLICES));
    slices.add_index(SLICES_BY_SERVICE, |slice| service_of(slice).into_iter().collect());
    let definitions = informers.of(&CUSTOM_RESOURCE_DEFINITIONS);
    let Wiring { aggregator, door } = &*context.options;
    let reconciler = Arc::new(Availability {
        aggregator: aggregator.clone(),
        door: door.clone(),
        api: context.api.clone(),
        services: services.clone(),
        slices: slices.clone(),
        api_services: own.clone(),
        started: Mutex::default(),
    });
    let (by_service, by_slice) = (own.clone(), own.clone());
    let controller = Controller::new(&context, reconciler)
        .watches(&own, |delta, keys| keys.extend(object_of(delta).map(|own| own.name().to_owned())))
        .watches(&services, move |delta, keys| {
            let Some(service) = object_of(delta) else { return };
            affected(&by_service, &place(service.namespace(), service.name()), keys);
        })
        .watches(&slices, move |delta, keys| {
            if let Some(service) = object_of(delta).and_then(service_of) {
                affected(&by_slice, &service, keys);
            }
        })
        .watches(&definitions, |delta, keys| keys.extend(defined(delta)));
    register_built_in(door, controller.queue());
    boxed(controller.run())
}

/// Every group version that is built in should have its APIService.
fn register_built_in(door: &Door, queue: &Queue<String>) {
    let catalog = door.catalog();
    let mut names: Vec<String> =
        catalog.built_in().iter().map(|own| format!("{}.{}", own.version, own.group)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().for_each(|name| queue.add(name));
}

/// The APIServices of the versions that a definition has or had.
fn defined(delta: &Delta) -> Vec<String> {
    let of = |object: &Object| -> Vec<String> {
        let definition = object.to_value();
        let group = definition.str_at(&["spec", "group"]);
        let versions = definition.array_at(&["spec", "versions"]).iter();
        versions.map(|version| format!("{}.{group}", version.str_at(&["name"]))).collect()
    };
    match delta {
        Delta::Upsert { old, new } => {
            let mut names = of(new);
            names.extend(old.as_ref().map(|old| of(old)).unwrap_or_default());
            names
        }
        Delta::Delete { old } => of(old),
        Delta::Resync => Vec::new(),
    }
}

fn object_of(delta: &Delta) -> Option<&Object> {
    match delta {
        Delta::Upsert { new: object, .. } | Delta::Delete { old: object } => Some(object),
        Delta::Resync => None,
    }
}

fn place(namespace: &str, name: &str) -> apimachinery::Str {
    format!("{namespace}/{name}").into()
}

fn service_of(slice: &Object) -> Option<apimachinery::Str> {
    slice.label(SERVICE_NAME_LABEL).map(|name| place(slice.namespace(), name))
}

fn affected(api_services: &Informer, service: &str, keys: &mut Vec<String>) {
    keys.extend(api_services.by_index(BY_SERVICE, service).iter().map(|own| own.name().to_owned()));
}

#[async_trait]
impl Reconcile for Availability {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result {
        let current = self.api_services.get("", name).map(|object| object.to_value());
        let origin = self.origin(name);
        let is_built_in = origin == Some(Origin::BuiltIn);
        let was_put_right = is_built_in && self.started.lock().contains(name);
        let registration =
            if was_put_right { Registration::Keep } else { plan::register(name, current.as_ref(), origin) };
        let current = match registration {
            Registration::Keep => {
                if is_built_in && !was_put_right {
                    self.started.lock().insert(name.clone());
                }
                current
            }
            Registration::Create(object) => {
                match self.api.create(&api_services(), "", object, &options()).await {
                    Err(status) if !status.is_already_exists() => return Err(status.into()),
                    // Its event brings it back.
                    _ => return Ok(Action::await_change()),
                }
            }
            Registration::Update(object) => {
                self.api.update(&api_services(), "", name, None, object, &options()).await?;
                return Ok(Action::await_change());
            }
            Registration::Delete => {
                let uid = current.as_ref().map(|own| own.str_at(&["metadata", "uid"]).into());
                let precondition = DeleteOptions { uid, ..DeleteOptions::default() };
                match self.api.delete(&api_services(), "", name, &precondition).await {
                    Err(status) if !status.is_not_found() && !status.is_conflict() => {
                        return Err(status.into());
                    }
                    _ => return Ok(Action::await_change()),
                }
            }
        };
        let Some(object) = current else {
            self.aggregator.remove(name);
            return Ok(Action::await_change());
        };
        self.check(&object).await
    }
}

impl Availability {
    /// Where a group version comes from, if it is served here.
    fn origin(&self, name: &str) -> Option<Origin> {
        let (group, version) = plan::group_version(name);
        let catalog = self.door.catalog();
        let is_own = |own: &&Arc<api::Resource>| own.group == group && own.version == version;
        if group == crate::resource_metrics::GROUP {
            return Some(Origin::Yielding);
        }
        if catalog.built_in().iter().find(is_own).is_some() {
            return Some(Origin::BuiltIn);
        }
        catalog.custom().find(is_own).map(|_| Origin::Definition)
    }

    async fn check(&self, object: &Value) -> Result {
        let named = &object["spec"]["service"];
        let (namespace, service) = (named.str_at(&["namespace"]), named.str_at(&["name"]));
        let found = self.services.get(namespace, service).map(|found| found.to_value());
        let slices: Vec<Value> = self
            .slices
            .by_index(SLICES_BY_SERVICE, &place(namespace, service))
            .iter()
            .map(|slice| slice.to_value())
            .collect();
        match plan::judge(object, found.as_ref(), &slices) {
            Verdict::Local => {
                self.aggregator.remove(name_of(object));
                let why = "Local APIServices are always available";
                self.report(object, true, "Local", why).await?;
                Ok(Action::await_change())
            }
            Verdict::Unavailable(reason, why) => {
                self.publish(object, None);
                self.report(object, false, reason, &why).await?;
                Ok(Action::await_change())
            }
            Verdict::Call(reference) => self.call(object, reference).await,
        }
    }

    /// Asks the other server what it serves.
    async fn call(&self, object: &Value, reference: ServiceReference) -> Result {
        let (group, version) = (object.str_at(&["spec", "group"]), object.str_at(&["spec", "version"]));
        let path = remote::discovery_path(group, version);
        let url = format!("https://{}:{}{path}", reference.server_name(), reference.port);
        let client = match self.client(object, reference) {
            Ok(client) => client,
            Err(why) => {
                self.publish(object, None);
                self.report(object, false, "FailedDiscoveryCheck", &why).await?;
                return Ok(Action::await_change());
            }
        };
        match remote::read(&client, &path).await {
            Ok(resources) => {
                let index = remote::read(&client, "/openapi/v3").await.ok();
                let own = path.trim_start_matches('/');
                let openapi = index
                    .and_then(|index| Some(index["paths"][own]["serverRelativeURL"].as_str()?.to_owned()));
                self.publish(object, Some(Answer { client, resources, openapi }));
                self.report(object, true, "Passed", "all checks passed").await?;
                Ok(Action::requeue(RECHECK_INTERVAL))
            }
            Err(why) => {
                self.publish(object, None);
                let why = format!("failing or missing response from {url}: {why}");
                self.report(object, false, "FailedDiscoveryCheck", &why).await?;
                Ok(Action::requeue(RETRY_INTERVAL))
            }
        }
    }

    /// Puts the other server into the table; without an answer of its, as one that cannot be called.
    fn publish(&self, object: &Value, answer: Option<Answer>) {
        let spec = &object["spec"];
        let remote = Remote {
            group: spec.str_at(&["group"]).into(),
            version: spec.str_at(&["version"]).into(),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or(0),
            version_priority: spec["versionPriority"].as_i64().unwrap_or(0),
            answer,
        };
        self.aggregator.insert(name_of(object), remote);
    }

    /// The client for what an APIService points to. The one that is in use stays, with its connections, as long as
    /// nothing about it changes.
    fn client(&self, object: &Value, reference: ServiceReference) -> Result<Arc<Client>, String> {
        let bundle = STANDARD
            .decode(object.str_at(&["spec", "caBundle"]))
            .map_err(|error| format!("spec.caBundle is no base64: {error}"))?;
        let mut config = ClientConfig::new(Target::Service(reference));
        config.ca_bundle = (!bundle.is_empty()).then_some(bundle);
        config.insecure_skip_verify = object["spec"]["insecureSkipTLSVerify"].as_bool() == Some(true);
        config.client_certificate = Some(self.aggregator.certificate()?);
        // Requests may be upgraded, which is HTTP/1.1's.
        config.http2 = false;
        self.aggregator.clients.get(name_of(object).into(), config).map_err(|error| error.to_string())
    }

    async fn report(
        &self,
        object: &Value,
        available: bool,
        reason: &'static str,
        why: &str,
    ) -> Result<(), Status> {
        let Some(changed) = plan::with_condition(object, available, reason, why, rt::now()) else {
            return Ok(());
        };
        let written =
            self.api.update(&api_services(), "", name_of(object), Some("status"), changed, &options()).await;
        match written {
            // Somebody else's change brings it back.
            Err(status) if status.is_conflict() || status.is_not_found() => Ok(()),
            written => written.map(drop),
        }
    }
}
