//! [`FakeApi`]: the API's rules on objects in memory, for tests of whatever sits on [`Api`].
//!
//! Owns: resource versions and conflicts, uids and timestamps, generations, the status and finalize subresources,
//! finalizers and graceful deletion, watches with history that can expire, patches, selectors, injected failures, a
//! record of calls. Leaves out: schemas, defaults, validation, admission, authorization, managed fields.
//!
//! Server-side apply merges like a merge patch and creates what is absent; that is less than the real one.

mod patch;
mod state;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::{GroupVersion, GroupVersionResource, Object, Status, Str, Value};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Api, DeleteOptions, Discovered, ListOptions, ObjectList, Patch, WatchEvent, WatchOptions, WatchStream,
    WriteOptions,
};
use state::{Filter, State};

/// One call, for assertions and for choosing which calls fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `discover`, `openapi`.
    pub verb: &'static str,
    pub resource: Str,
    pub namespace: Str,
    /// Empty for collections.
    pub name: Str,
    pub subresource: Str,
}

/// `verb resource[/subresource] [namespace/]name`.
impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        match (self.namespace.is_empty(), self.name.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => write!(f, " {}", self.name),
            (false, _) => write!(f, " {}/{}", self.namespace, self.name),
        }
    }
}

const READING: [&str; 5] = ["get", "list", "watch", "discover", "openapi"];

type FailureRule = Box<dyn FnMut(&Call) -> Option<Status> + Send>;

/// An API server's behaviour without the server. See the module's documentation for what it leaves out.
pub struct FakeApi {
    state: Mutex<State>,
    calls: Mutex<Vec<Call>>,
    failures: Mutex<Vec<FailureRule>>,
    documents: Mutex<HashMap<GroupVersion, Value>>,
    /// Answers by path, with the query or without.
    raw: Mutex<HashMap<String, Value>>,
    /// The newest revision that watchers may see, and how often watches were cut off.
    signal: watch::Sender<Signal>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Signal {
    visible: u64,
    paused: bool,
    closed: u64,
}

// === impl FakeApi ===

impl FakeApi {
    /// An empty server that knows the built-in resources which components of the platform use.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new()),
            calls: Mutex::default(),
            failures: Mutex::default(),
            documents: Mutex::default(),
            raw: Mutex::default(),
            signal: watch::Sender::new(Signal::default()),
        })
    }

    /// Serves one more resource.
    pub fn register(&self, resource: Discovered) {
        self.state.lock().register(resource);
    }

    /// Serves the OpenAPI document of a group version.
    pub fn describe(&self, group_version: GroupVersion, document: Value) {
        self.documents.lock().insert(group_version, document);
    }

    /// Answers [`Api::get_raw`] of a path. One with a query answers only that query, one without answers all others.
    pub fn answer(&self, path: &str, document: Value) {
        self.raw.lock().insert(path.to_owned(), document);
    }

    /// Stores an object as it is, status and metadata included; name, uid and times are filled in where missing.
    ///
    /// # Panics
    /// When the kind is not served: the test is wrong.
    pub fn seed(&self, object: Value) -> Arc<Object> {
        let object = self.state.lock().seed(object);
        self.publish();
        object
    }

    /// The object, if it exists.
    pub fn peek(&self, resource: &GroupVersionResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.state.lock().find(resource, namespace, name)
    }

    /// All objects of a resource, ordered by namespace and name.
    pub fn peek_all(&self, resource: &GroupVersionResource) -> Vec<Arc<Object>> {
        self.state.lock().select(resource, &Filter::default())
    }

    /// Changes an object behind everybody's back, as another client would.
    ///
    /// # Panics
    /// When there is no such object: the test is wrong.
    pub fn edit(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        self.state.lock().edit(resource, namespace, name, change);
        self.publish();
    }

    /// Removes an object at once, whatever its finalizers say.
    pub fn drop_object(&self, resource: &GroupVersionResource, namespace: &str, name: &str) {
        self.state.lock().erase(resource, namespace, name);
        self.publish();
    }

    /// Asks `rule` about every later call; the first rule with a [`Status`] makes the call fail with it.
    pub fn fail(&self, rule: impl FnMut(&Call) -> Option<Status> + Send + 'static) {
        self.failures.lock().push(Box::new(rule));
    }

    /// Every call so far, reads included.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    /// The calls that write, in their text form, since the last time this was asked.
    pub fn take_writes(&self) -> Vec<String> {
        let mut calls = self.calls.lock();
        let writes = calls.iter().filter(|call| !READING.contains(&call.verb));
        let texts = writes.map(ToString::to_string).collect();
        calls.clear();
        texts
    }

    /// Holds watch events back until [`FakeApi::resume_watches`], so that caches are stale.
    pub fn pause_watches(&self) {
        self.signal.send_modify(|signal| signal.paused = true);
    }

    pub fn resume_watches(&self) {
        self.signal.send_modify(|signal| signal.paused = false);
        self.publish();
    }

    /// Ends all watches, as a server that restarts does.
    pub fn close_watches(&self) {
        self.signal.send_modify(|signal| signal.closed += 1);
    }

    /// Forgets the history of events: a watch from before now gets 410.
    pub fn expire_history(&self) {
        self.state.lock().expire();
    }

    fn publish(&self) {
        let revision = self.state.lock().revision();
        self.signal.send_modify(|signal| {
            if !signal.paused {
                signal.visible = revision;
            }
        });
    }

    fn enter(
        &self,
        verb: &'static str,
        resource: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
    ) -> Result<(), Status> {
        let call = Call {
            verb,
            resource: resource.resource.clone(),
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.unwrap_or_default().into(),
        };
        let failure = self.failures.lock().iter_mut().find_map(|rule| rule(&call));
        self.calls.lock().push(call);
        failure.map_or(Ok(()), Err)
    }

    /// Runs one write and lets watchers see it.
    fn write<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Status>) -> Result<T, Status> {
        let result = change(&mut self.state.lock());
        self.publish();
        result
    }
}

#[async_trait]
impl Api for FakeApi {
    async fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        self.enter("get", gvr, namespace, name, None)?;
        self.state.lock().get(gvr, namespace, name)
    }

    async fn get_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
    ) -> Result<Value, Status> {
        self.enter("get", gvr, namespace, name, Some(subresource))?;
        self.state.lock().get_subresource(gvr, namespace, name, subresource)
    }

    async fn get_raw(&self, path: &str) -> Result<Value, Status> {
        self.enter("get", &GroupVersionResource::default(), "", path, None)?;
        let raw = self.raw.lock();
        let without_query = path.split('?').next().unwrap_or_default();
        raw.get(path).or_else(|| raw.get(without_query)).cloned().ok_or_else(Status::no_such_path)
    }

    async fn list(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        self.enter("list", gvr, namespace, "", None)?;
        let filter = Filter::new(namespace, &options.label_selector, &options.field_selector)?;
        self.state.lock().list(gvr, &filter, options.limit, &options.continue_token)
    }

    async fn watch(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<WatchStream, Status> {
        self.enter("watch", gvr, namespace, "", None)?;
        let filter = Filter::new(namespace, &options.label_selector, &options.field_selector)?;
        let (mut pending, mut cursor) = (Vec::new(), options.revision);
        {
            let state = self.state.lock();
            state.known(gvr)?;
            if cursor == 0 {
                cursor = state.revision();
                pending = state.select(gvr, &filter).into_iter().map(WatchEvent::Added).collect();
            }
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let watcher = state::Watcher { resource: gvr.clone(), filter, cursor };
        let (signal, first) = (self.signal.subscribe(), pending);
        // The stream outlives the borrow of `self`, so history is read through a handle of its own.
        let history = self.state.lock().history();
        rt::spawn("fake-watch", watcher.run(history, signal, first, sender));
        Ok(Box::pin(futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|event| (event, receiver))
        })))
    }

    async fn create(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        self.enter("create", gvr, namespace, object.str_at(&["metadata", "name"]), None)?;
        self.write(|state| state.create(gvr, namespace, object, options.dry_run))
    }

    async fn create_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<Value, Status> {
        self.enter("create", gvr, namespace, name, Some(subresource))?;
        self.write(|state| state.create_subresource(gvr, namespace, name, subresource, body))
    }

    async fn update(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        self.enter("update", gvr, namespace, name, subresource)?;
        self.write(|state| state.update(gvr, namespace, name, subresource, object, options.dry_run))
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
        self.enter("patch", gvr, namespace, name, subresource)?;
        self.write(|state| state.patch(gvr, namespace, name, subresource, patch, options.dry_run))
    }

    async fn delete(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        self.enter("delete", gvr, namespace, name, None)?;
        self.write(|state| state.delete(gvr, namespace, name, options))
    }

    async fn delete_collection(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        selection: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        self.enter("deletecollection", gvr, namespace, "", None)?;
        let filter = Filter::new(namespace, &selection.label_selector, &selection.field_selector)?;
        self.write(|state| {
            state.known(gvr)?;
            for object in state.select(gvr, &filter) {
                state.delete(gvr, object.namespace(), object.name(), options)?;
            }
            Ok(())
        })
    }

    async fn discover(&self) -> Result<Vec<Discovered>, Status> {
        self.enter("discover", &GroupVersionResource::default(), "", "", None)?;
        Ok(self.state.lock().discovered())
    }

    async fn discover_all(&self) -> Result<Vec<Discovered>, Status> {
        self.discover().await
    }

    async fn openapi(&self, group_version: &GroupVersion) -> Result<Value, Status> {
        self.enter("openapi", &GroupVersionResource::default(), "", "", None)?;
        self.documents.lock().get(group_version).cloned().ok_or_else(Status::no_such_path)
    }
}

#[cfg(test)]
mod tests;
