//! Custom resources at run time: definitions are followed, and what they define is served.
//!
//! Owns: the custom part of the [`Catalog`](crate::catalog::Catalog), the status of definitions, and the deletion of
//! instances before a definition goes ([`cleanup`]). Never touches: what a definition means (crate `apiextensions`)
//! or how objects are written (the door, as everybody's, under `system:apiserver`).
//!
//! Data flow: a committed change of a definition → the cache's event → names and conditions are planned → the catalog
//! is replaced → the status is written. So a resource is served before its definition says so, and whoever waits for
//! `Established` waits for two commits and nothing else. Nothing polls.
//!
//! Start at [`Extensions::run`].

mod cleanup;
mod conversion_webhook;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::conditions::is_true;
use api::gvr::CUSTOM_RESOURCE_DEFINITIONS;
use api::kinds::apiextensions::conditions::CLEANUP_FINALIZER;
use apiextensions::conversion::{self, Stale};
use apiextensions::status::{self, Claimed};
use apiextensions::{CustomSchema, Described, describe, descriptor};
use apimachinery::{Object, Status, Str, Value, json};
use auth::UserInfo;
use client::{Api, WriteOptions};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use registry::{Endpoint, Registry};
use watch_cache::{LoadError, Next};

pub(crate) use self::conversion_webhook::ConversionWebhooks;
use crate::catalog::Catalog;
use crate::{Door, LocalApi};

/// After a write of a status failed, before it is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const FIELD_MANAGER: &str = "kube-apiserver";

/// Serves what definitions define.
pub struct Extensions {
    door: Arc<Door>,
    definitions: Endpoint,
    api: LocalApi,
    webhook: Arc<ConversionWebhooks>,
    /// After this time requests that began with a schema before are over.
    request_duration_max: Duration,
    shutdown: rt::Shutdown,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<Str, Group>,
    /// By the definition's name.
    installed: HashMap<Str, Installed>,
    /// Definitions whose instances are being deleted.
    ending: HashSet<Str>,
}

/// The names that the definitions of one group have.
#[derive(Default)]
struct Group {
    /// By the definition's name: no more of it than its accepted names.
    accepted: BTreeMap<Str, Value>,
    /// Those that did not get all the names they want.
    waiting: BTreeSet<Str>,
}

/// What is served of a definition now.
struct Installed {
    basis: Basis,
    described: Described,
    stored: Endpoint,
    stale: Arc<Stale>,
}

/// What decides what is served: as long as this stays, so does that.
#[derive(PartialEq)]
struct Basis {
    uid: Str,
    generation: i64,
    names: Value,
    terminating: bool,
}

impl Basis {
    fn of(object: &Object, definition: &Value) -> Self {
        Self {
            uid: object.uid().into(),
            generation: object.generation(),
            names: definition["status"]["acceptedNames"].clone(),
            terminating: status::is_terminating(definition),
        }
    }
}

/// What was defined before this start, found before the objects are loaded.
pub struct Restored(Vec<(Str, Installed)>);

/// Puts stored definitions into the catalog, so that loading fills their caches, too. Call before the cache is loaded.
pub fn restore(
    registry: &Registry,
    catalog: Catalog,
    webhook: &Arc<ConversionWebhooks>,
) -> Result<(Catalog, Restored), LoadError> {
    let Some(definitions) = catalog.find(&CUSTOM_RESOURCE_DEFINITIONS) else {
        return Ok((catalog, Restored(Vec::new())));
    };
    let prefix = definitions.resource.storage_prefix.clone();
    let mut stored = Vec::new();
    registry.store().scan(&prefix, &mut |pair| {
        stored.push(pair);
        Ok(())
    })?;
    let mut catalog = catalog;
    let mut restored = Vec::new();
    for pair in stored {
        // What is malformed is reported by whoever loads it next.
        let Ok(object) = Object::from_json(pair.value, pair.mod_revision.0, &[]) else { continue };
        let definition = object.to_value();
        if !status::is_served(&definition) {
            continue;
        }
        // Nobody remembers when a schema changed: where it did, objects are looked at after the start.
        let has_changed = object.generation() > 1;
        let stale = Arc::new(if has_changed { Stale::everything() } else { Stale::nothing() });
        let (schemas, conversion) = (descriptor::schemas(&definition), conversion_of(&definition, webhook));
        let Some(described) = describe(&definition, schemas, &conversion, &stale) else { continue };
        let stored = registry.custom_endpoint(described.stored.clone(), described.fields.clone());
        let basis = Basis::of(&object, &definition);
        let installed = Installed { basis, described, stored, stale };
        catalog = installed.put_into(&catalog);
        restored.push((object.name().into(), installed));
    }
    Ok((catalog, Restored(restored)))
}

impl Extensions {
    /// `None` where definitions are not served.
    pub fn new(
        door: Arc<Door>,
        restored: Restored,
        webhook: Arc<ConversionWebhooks>,
        request_duration_max: Duration,
        shutdown: rt::Shutdown,
    ) -> Option<Arc<Self>> {
        let definitions = door.endpoint(&CUSTOM_RESOURCE_DEFINITIONS).ok()?;
        let api = LocalApi::new(door.clone(), UserInfo::api_server(), shutdown.clone());
        for (_, installed) in restored.0.iter().filter(|(_, own)| !own.stale.is_nothing()) {
            // No request can have begun with another schema.
            installed.settle(Duration::ZERO, &shutdown);
        }
        let state = State { installed: restored.0.into_iter().collect(), ..State::default() };
        let state = Mutex::new(state);
        Some(Arc::new(Self { door, definitions, api, webhook, request_duration_max, shutdown, state }))
    }

    /// Follows definitions until shutdown.
    pub async fn run(self: Arc<Self>) {
        let mut writes = FuturesUnordered::new();
        while !self.shutdown.is_cancelled() {
            let snapshot = self.definitions.cache.snapshot();
            let Ok(mut watcher) = self.definitions.cache.watch(snapshot.revision) else { continue };
            self.forget_missing(&snapshot);
            // All names first: what one definition has, no other gets because it is looked at earlier.
            for object in snapshot.objects.values() {
                self.state.lock().remember(object.name(), &object.to_value());
            }
            writes.extend(
                snapshot.objects.values().filter_map(|object| self.observe(object)).map(|p| self.write(p)),
            );
            loop {
                let next = tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    Some(()) = writes.next() => continue,
                    next = watcher.next() => next,
                };
                let Next::Events(events) = next else { break };
                let changed: BTreeSet<&str> = events.iter().map(|event| event.object.name()).collect();
                for name in changed {
                    writes.extend(self.changed(name).into_iter().map(|planned| self.write(planned)));
                }
            }
        }
    }

    /// Takes in the present state of a definition; what is left to write.
    fn changed(self: &Arc<Self>, name: &str) -> Vec<Value> {
        let current = self.current(name);
        let mut planned = Vec::new();
        let group = match &current {
            Some(object) => {
                planned.extend(self.observe(object));
                object.to_value().str_at(&["spec", "group"]).into()
            }
            None => self.uninstall(name),
        };
        // Others may have waited for a name that this one gave back.
        let waiting: Vec<Str> = {
            let state = self.state.lock();
            let waiting = state.groups.get(&group).map(|own| &own.waiting).into_iter().flatten();
            waiting.filter(|own| *own != name).cloned().collect()
        };
        planned.extend(waiting.iter().filter_map(|own| self.observe(&self.current(own)?)));
        planned
    }

    fn current(&self, name: &str) -> Option<Arc<Object>> {
        self.definitions.cache.get(&self.definitions.resource.key("", name))
    }

    /// Plans names and conditions, serves what is to be served, and returns the definition if its status has to be
    /// written.
    fn observe(self: &Arc<Self>, object: &Arc<Object>) -> Option<Value> {
        let definition = object.to_value();
        let planned = self.plan(object.name(), &definition);
        let shown = planned.as_ref().unwrap_or(&definition);
        if status::is_served(shown) {
            self.install(object, shown);
        }
        if object.is_deleting() && object.finalizers().any(|own| own == CLEANUP_FINALIZER) {
            self.begin_cleanup(object.name());
        }
        planned
    }

    fn plan(&self, name: &str, definition: &Value) -> Option<Value> {
        let mut state = self.state.lock();
        let group = state.groups.get(definition.str_at(&["spec", "group"]));
        let accepted = group.map(|own| &own.accepted).into_iter().flatten();
        let others = accepted.filter(|(own, _)| *own != name).map(|(_, names)| names);
        let planned = status::plan(definition, &Claimed::by(others), rt::now());
        state.remember(name, planned.as_ref().unwrap_or(definition));
        planned
    }

    fn install(&self, object: &Object, definition: &Value) {
        let basis = Basis::of(object, definition);
        let name = object.name();
        {
            let state = self.state.lock();
            match state.installed.get(name) {
                Some(present) if present.basis == basis => return,
                Some(present) if present.basis.uid != basis.uid => {
                    drop(state);
                    self.uninstall(name);
                }
                _ => {}
            }
        }
        if let Err(error) = self.describe_and_serve(object, definition, basis) {
            tracing::error!(definition = name, error = %telemetry::chain(&error), "Could not serve a custom resource");
        }
    }

    fn describe_and_serve(&self, object: &Object, definition: &Value, basis: Basis) -> Result<(), LoadError> {
        let registry = self.door.registry();
        let schemas = descriptor::schemas(definition);
        let before = self.state.lock().installed.get(object.name()).map(Installed::schemas);
        let is_new = before.is_none();
        let (schemas, stale, has_changed) = match before {
            None => (schemas, Arc::new(Stale::nothing()), false),
            // Those that were there have their rules compiled.
            Some((same, stale)) if same == schemas => (same, stale, false),
            Some(_) => (schemas, Arc::new(Stale::everything()), true),
        };
        let conversion = conversion_of(definition, &self.webhook);
        let Some(described) = describe(definition, schemas, &conversion, &stale) else { return Ok(()) };
        let stored = registry.endpoint_at_run_time(described.stored.clone(), &described.fields)?;
        if is_new && !is_true(&object.to_value(), "Established") {
            self.discard_leftovers(&stored);
        }
        let installed = Installed { basis, described, stored, stale };
        self.door.replace_catalog(|catalog| installed.put_into(catalog));
        if has_changed {
            installed.settle(self.request_duration_max, &self.shutdown);
        }
        self.state.lock().installed.insert(object.name().into(), installed);
        Ok(())
    }

    /// What a definition of the same name left behind, by a write that came too late, belongs to nobody. Looked at
    /// before the resource is served: what comes after that is somebody's.
    fn discard_leftovers(&self, stored: &Endpoint) {
        let leftovers = stored.cache.snapshot().objects;
        if leftovers.is_empty() {
            return;
        }
        let door = self.door.clone();
        rt::spawn("custom resource leftovers", async move {
            if let Err(status) = door.registry().discard(&leftovers).await {
                tracing::error!(error = %status, "Could not remove what is left of a custom resource");
            }
        });
    }

    /// Ends the serving of a definition that is gone; returns its group.
    fn uninstall(&self, name: &str) -> Str {
        let group = name.split_once('.').map_or("", |(_, group)| group);
        let installed = {
            let mut state = self.state.lock();
            if let Some(own) = state.groups.get_mut(group) {
                own.accepted.remove(name);
                own.waiting.remove(name);
                if own.accepted.is_empty() {
                    state.groups.remove(group);
                }
            }
            state.installed.remove(name)
        };
        self.webhook.forget(name);
        if let Some(installed) = installed {
            let resource = &installed.stored.resource;
            self.door.replace_catalog(|catalog| {
                catalog.with_custom(&resource.group, &resource.plural, Vec::new())
            });
            self.door.registry().cache().remove_resource(&resource.storage_prefix);
        }
        group.into()
    }

    /// Ends what is served without a definition, after events were missed.
    fn forget_missing(&self, present: &watch_cache::Snapshot) {
        let names: HashSet<&str> = present.objects.values().map(|object| object.name()).collect();
        let gone: Vec<Str> = {
            let state = self.state.lock();
            state.installed.keys().filter(|name| !names.contains(name.as_str())).cloned().collect()
        };
        gone.iter().for_each(|name| drop(self.uninstall(name)));
    }

    /// Writes the status of a definition, unless it has changed meanwhile: then there is an event to come.
    async fn write(&self, planned: Value) {
        let name = planned.str_at(&["metadata", "name"]).to_owned();
        loop {
            match self.update_status(&name, planned.clone()).await {
                Err(status) if !status.is_conflict() && !status.is_not_found() => {
                    tracing::warn!(definition = name, error = %status, "Could not write the status of a definition");
                }
                _ => return,
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = rt::sleep(RETRY_DELAY) => {}
            }
        }
    }

    async fn update_status(&self, name: &str, definition: Value) -> Result<Arc<Object>, Status> {
        let options = WriteOptions { field_manager: FIELD_MANAGER.into(), ..WriteOptions::default() };
        self.api.update(&CUSTOM_RESOURCE_DEFINITIONS, "", name, Some("status"), definition, &options).await
    }
}

impl State {
    /// Notes which names a definition has, and whether it waits for more.
    fn remember(&mut self, name: &str, definition: &Value) {
        let group = self.groups.entry(definition.str_at(&["spec", "group"]).into()).or_default();
        let mut accepted = json!({"status": {}});
        accepted.set_at(&["status", "acceptedNames"], definition["status"]["acceptedNames"].clone());
        group.accepted.insert(name.into(), accepted);
        if is_true(definition, "NamesAccepted") {
            group.waiting.remove(name);
        } else {
            group.waiting.insert(name.into());
        }
    }
}

impl Installed {
    fn put_into(&self, catalog: &Catalog) -> Catalog {
        let (resource, cache) = (&self.stored.resource, &self.stored.cache);
        let served = self.described.served.iter();
        let endpoints = served.map(|resource| Endpoint::new(resource.clone(), cache.clone()));
        catalog.with_custom(&resource.group, &resource.plural, endpoints.collect())
    }

    fn schemas(&self) -> (Vec<(Str, Arc<CustomSchema>)>, Arc<Stale>) {
        (self.described.schemas.clone(), self.stale.clone())
    }

    /// Finds out, once requests that began with the schema before are over, which objects are still stale. Until then
    /// all are made anew when they are read.
    fn settle(&self, after: Duration, shutdown: &rt::Shutdown) {
        let Some(schema) = self.described.stored_schema().cloned() else { return };
        let (stored, stale, shutdown) = (self.stored.clone(), self.stale.clone(), shutdown.clone());
        rt::spawn("custom resource schema", async move {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = rt::sleep(after) => {}
            }
            let snapshot = stored.cache.snapshot();
            let is_current = are_current(&schema, &snapshot.objects).await;
            stale.settle(if is_current { 0 } else { snapshot.revision + 1 });
        });
    }
}

/// Whether every object is as the schema wants it. There may be very many.
async fn are_current(schema: &CustomSchema, objects: &watch_cache::Objects) -> bool {
    /// Looked at before others get a turn: about a millisecond.
    const AT_ONCE: usize = 64;
    for (number, object) in objects.values().enumerate() {
        if number % AT_ONCE == AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        if !conversion::is_current(schema, object) {
            return false;
        }
    }
    true
}

fn conversion_of(definition: &Value, webhook: &Arc<ConversionWebhooks>) -> conversion::Strategy {
    if definition.str_at(&["spec", "conversion", "strategy"]) != "Webhook" {
        return conversion::Strategy::None;
    }
    let mut called = json!({"metadata": {"name": definition.str_at(&["metadata", "name"])}});
    called.set_at(&["spec", "conversion"], definition["spec"]["conversion"].clone());
    conversion::Strategy::Webhook { definition: Arc::new(called), webhook: webhook.clone() }
}
