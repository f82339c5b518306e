//! The fake server's objects and the rules of its verbs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use apimachinery::{
    FieldSelector, GroupKind, GroupVersionResource, Object, Selector, Status, Str, Value, json, time,
};
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use super::{Signal, patch};
use crate::{DeleteOptions, Discovered, ObjectKey, ObjectList, Patch, Propagation, WatchEvent};

/// Group, version, resource, kind, and whether it is namespaced.
const BUILT_IN: &[(&str, &str, &str, &str, bool)] = &[
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "endpoints", "Endpoints", true),
    ("", "v1", "events", "Event", true),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    ("", "v1", "persistentvolumes", "PersistentVolume", false),
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "replicationcontrollers", "ReplicationController", true),
    ("", "v1", "resourcequotas", "ResourceQuota", true),
    ("", "v1", "secrets", "Secret", true),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "services", "Service", true),
    ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", false),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", true),
    ("apps", "v1", "daemonsets", "DaemonSet", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
    ("apps", "v1", "statefulsets", "StatefulSet", true),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true),
    ("batch", "v1", "cronjobs", "CronJob", true),
    ("batch", "v1", "jobs", "Job", true),
    ("coordination.k8s.io", "v1", "leases", "Lease", true),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
    ("networking.k8s.io", "v1", "ipaddresses", "IPAddress", false),
    ("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", false),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", true),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", true),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false),
    ("scheduling.k8s.io", "v1alpha2", "podgroups", "PodGroup", true),
    ("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", true),
    ("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", false),
    ("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate", true),
    ("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", false),
    ("storage.k8s.io", "v1", "csidrivers", "CSIDriver", false),
    ("storage.k8s.io", "v1", "csinodes", "CSINode", false),
    ("storage.k8s.io", "v1", "csistoragecapacities", "CSIStorageCapacity", true),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", false),
    ("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", false),
    ("storage.k8s.io", "v1", "volumeattributesclasses", "VolumeAttributesClass", false),
];

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Events kept for watchers; the oldest expire.
const HISTORY_MAX: usize = 100_000;

/// Which objects of a resource a read is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    namespace: Str,
    labels: Option<Selector>,
    fields: FieldSelector,
}

#[derive(Default)]
pub(super) struct History {
    events: VecDeque<Entry>,
    /// Events up to this revision are gone.
    expired: u64,
}

struct Entry {
    revision: u64,
    resource: GroupVersionResource,
    old: Option<Arc<Object>>,
    /// `None`: `old` was deleted and carries the revision of that.
    new: Option<Arc<Object>>,
}

struct Resource {
    info: Discovered,
    objects: BTreeMap<ObjectKey, Arc<Object>>,
}

pub(super) struct State {
    revision: u64,
    resources: BTreeMap<GroupVersionResource, Resource>,
    history: Arc<RwLock<History>>,
}

pub(super) struct Watcher {
    pub(super) resource: GroupVersionResource,
    pub(super) filter: Filter,
    pub(super) cursor: u64,
}

// === impl Filter ===

impl Filter {
    pub(super) fn new(namespace: &str, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels = match labels {
            "" => None,
            text => Some(Selector::parse(text).map_err(|error| Status::bad_request(error.to_string()))?),
        };
        let fields = FieldSelector::parse(fields).map_err(|error| Status::bad_request(error.to_string()))?;
        Ok(Self { namespace: namespace.into(), labels, fields })
    }

    fn matches(&self, object: &Object) -> bool {
        if !self.namespace.is_empty() && self.namespace != object.namespace() {
            return false;
        }
        if let Some(labels) = &self.labels
            && !labels.matches_object(object)
        {
            return false;
        }
        if self.fields.is_everything() {
            return true;
        }
        let tree = object.to_value();
        self.fields.matches(|field| {
            let path: Vec<&str> = field.split('.').collect();
            tree.str_at(&path).to_owned().into()
        })
    }
}

// === impl State: reads ===

impl State {
    pub(super) fn new() -> Self {
        let mut state = Self { revision: 1, resources: BTreeMap::new(), history: Arc::default() };
        for &(group, version, resource, kind, namespaced) in BUILT_IN {
            state.register(Discovered {
                gvr: GroupVersionResource::new(group, version, resource),
                kind: kind.into(),
                namespaced,
                verbs: VERBS.map(Into::into).to_vec(),
            });
        }
        state
    }

    pub(super) fn register(&mut self, info: Discovered) {
        self.resources.insert(info.gvr.clone(), Resource { info, objects: BTreeMap::new() });
    }

    pub(super) fn discovered(&self) -> Vec<Discovered> {
        self.resources.values().map(|resource| resource.info.clone()).collect()
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn history(&self) -> Arc<RwLock<History>> {
        self.history.clone()
    }

    pub(super) fn expire(&mut self) {
        let mut history = self.history.write();
        history.events.clear();
        history.expired = self.revision;
    }

    pub(super) fn known(&self, gvr: &GroupVersionResource) -> Result<&Discovered, Status> {
        self.resources.get(gvr).map(|resource| &resource.info).ok_or_else(Status::no_such_path)
    }

    pub(super) fn find(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Object>> {
        self.resources.get(gvr)?.objects.get(&ObjectKey::new(namespace, name)).cloned()
    }

    pub(super) fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        self.known(gvr)?;
        self.find(gvr, namespace, name).ok_or_else(|| Status::not_found(&gvr.group_resource(), name))
    }

    pub(super) fn select(&self, gvr: &GroupVersionResource, filter: &Filter) -> Vec<Arc<Object>> {
        let objects = self.resources.get(gvr).into_iter().flat_map(|resource| resource.objects.values());
        objects.filter(|object| filter.matches(object)).cloned().collect()
    }

    pub(super) fn list(
        &self,
        gvr: &GroupVersionResource,
        filter: &Filter,
        limit: usize,
        continue_token: &str,
    ) -> Result<ObjectList, Status> {
        self.known(gvr)?;
        let mut items = self.select(gvr, filter);
        items.retain(|object| ObjectKey::from(&**object).to_string().as_str() > continue_token);
        let mut token = String::new();
        if limit > 0 && items.len() > limit {
            items.truncate(limit);
            token = items.last().map(|last| ObjectKey::from(&**last).to_string()).unwrap_or_default();
        }
        Ok(ObjectList { items, revision: self.revision, continue_token: token })
    }
}

// === impl State: writes ===

impl State {
    pub(super) fn seed(&mut self, mut object: Value) -> Arc<Object> {
        let gvr = self.resource_of(&object);
        fill_metadata(&mut object);
        self.store(&gvr, object)
    }

    pub(super) fn edit(
        &mut self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let mut object =
            self.find(gvr, namespace, name).expect("the test edits an object that exists").to_value();
        change(&mut object);
        self.store(gvr, object);
    }

    pub(super) fn create(
        &mut self,
        gvr: &GroupVersionResource,
        namespace: &str,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, Status> {
        let info = self.known(gvr)?.clone();
        set_type(&mut object, &info);
        if info.namespaced {
            if namespace.is_empty() {
                return Err(Status::bad_request("an empty namespace may not be set during creation"));
            }
            object.set_at(&["metadata", "namespace"], namespace);
            self.refuse_in_terminating_namespace(gvr, namespace, &object)?;
        }
        name_generated(&mut object);
        let name: Str = object.str_at(&["metadata", "name"]).into();
        if name.is_empty() {
            let kind = GroupKind { group: gvr.group.clone(), kind: info.kind.clone() };
            return Err(Status::invalid(&kind, "", &[]));
        }
        if self.find(gvr, namespace, &name).is_some() {
            return Err(Status::already_exists(&gvr.group_resource(), &name));
        }
        object.remove_at(&["metadata", "deletionTimestamp"]);
        object.remove_at(&["metadata", "uid"]);
        if gvr.resource == "namespaces" {
            object.set_at(&["spec", "finalizers"], vec!["kubernetes"]);
            object.set_at(&["status", "phase"], "Active");
        } else if gvr.resource == "pods" {
            object.set_at(&["status", "phase"], "Pending");
        } else if has_status(&gvr.resource) {
            object.remove_at(&["status"]);
        }
        object.set_at(&["metadata", "generation"], 1);
        fill_metadata(&mut object);
        if dry_run {
            return Ok(Arc::new(encode(&object, 0)));
        }
        Ok(self.store(gvr, object))
    }

    /// `status` is the object; `scale` is there for objects that have `spec.replicas`.
    pub(super) fn get_subresource(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
    ) -> Result<Value, Status> {
        let object = self.get(gvr, namespace, name)?.to_value();
        match (subresource, &object["spec"]["replicas"]) {
            ("status", _) => Ok(object),
            ("scale", replicas) if !replicas.is_null() => Ok(json!({
                "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": object["metadata"].clone(),
                "spec": {"replicas": replicas.clone()},
                "status": {"replicas": object["status"]["replicas"].clone(), "selector": selector_text(&object)},
            })),
            _ => Err(Status::no_such_path()),
        }
    }

    pub(super) fn create_subresource(
        &mut self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<Value, Status> {
        let mut object = self.get(gvr, namespace, name)?.to_value();
        match (gvr.resource.as_str(), subresource) {
            ("pods", "binding") => {
                if !object.str_at(&["spec", "nodeName"]).is_empty() {
                    let why = format!("pod {name} is already assigned to node");
                    return Err(Status::conflict(&gvr.group_resource(), name, why));
                }
                object.set_at(&["spec", "nodeName"], body.str_at(&["target", "name"]));
                self.store(gvr, object);
            }
            ("pods", "eviction") => self.delete(gvr, namespace, name, &DeleteOptions::default())?,
            _ => return Err(Status::no_such_path()),
        }
        Ok(Status { code: 201, ..Status::new(201, "", "") }.to_value())
    }

    pub(super) fn update(
        &mut self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        new: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, Status> {
        let old = self.get(gvr, namespace, name)?;
        let wanted_revision = new.str_at(&["metadata", "resourceVersion"]);
        if !wanted_revision.is_empty() && wanted_revision != old.revision().to_string() {
            return Err(Status::stale(&gvr.group_resource(), name));
        }
        let wanted_uid = new.str_at(&["metadata", "uid"]);
        if !wanted_uid.is_empty() && wanted_uid != old.uid() {
            let why = format!(
                "Precondition failed: UID in precondition: {wanted_uid}, UID in object meta: {}",
                old.uid()
            );
            return Err(Status::conflict(&gvr.group_resource(), name, why));
        }
        let merged = merged(gvr, &old.to_value(), new, subresource);
        if dry_run {
            return Ok(Arc::new(encode(&merged, old.revision())));
        }
        self.commit_update(gvr, &old, merged)
    }

    pub(super) fn patch(
        &mut self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: Patch,
        dry_run: bool,
    ) -> Result<Arc<Object>, Status> {
        let old = match (self.get(gvr, namespace, name), &patch) {
            (Ok(old), _) => old,
            (Err(status), Patch::Apply(tree)) if status.is_not_found() => {
                let mut tree = tree.clone();
                tree.set_at(&["metadata", "name"], name);
                return self.create(gvr, namespace, tree, dry_run);
            }
            (Err(status), _) => return Err(status),
        };
        let mut new = old.to_value();
        patch::apply(&mut new, patch)?;
        self.update(gvr, namespace, name, subresource, new, dry_run)
    }

    pub(super) fn delete(
        &mut self,
        gvr: &GroupVersionResource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let old = self.get(gvr, namespace, name)?;
        check_preconditions(gvr, &old, options)?;
        let mut object = old.to_value();
        set_propagation_finalizer(&mut object, options.propagation);
        let grace = if gvr.resource == "pods" { pod_grace(&object, options) } else { 0 };
        let held = !object.array_at(&["metadata", "finalizers"]).is_empty()
            || (gvr.resource == "namespaces" && !object.array_at(&["spec", "finalizers"]).is_empty());
        if grace == 0 && !held {
            self.erase(gvr, namespace, name);
            return Ok(());
        }
        let shortened =
            object.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64) > Some(grace);
        if !old.is_deleting() || shortened {
            let now = time::format_seconds(rt::now());
            object.set_at(&["metadata", "deletionTimestamp"], now);
            object.set_at(&["metadata", "deletionGracePeriodSeconds"], grace);
        }
        if gvr.resource == "namespaces" {
            object.set_at(&["status", "phase"], "Terminating");
        }
        if object != old.to_value() {
            self.store(gvr, object);
        }
        Ok(())
    }

    /// Removes an object and tells watchers its last state.
    pub(super) fn erase(&mut self, gvr: &GroupVersionResource, namespace: &str, name: &str) {
        let Some(resource) = self.resources.get_mut(gvr) else { return };
        let Some(old) = resource.objects.remove(&ObjectKey::new(namespace, name)) else { return };
        self.revision += 1;
        let last = Arc::new(old.at_revision(self.revision));
        self.remember(gvr, Some(last), None);
    }

    fn commit_update(
        &mut self,
        gvr: &GroupVersionResource,
        old: &Arc<Object>,
        mut new: Value,
    ) -> Result<Arc<Object>, Status> {
        let before = old.to_value();
        if new == before {
            return Ok(old.clone());
        }
        if new.get("spec") != before.get("spec") && !new["metadata"]["generation"].is_null() {
            new.set_at(&["metadata", "generation"], old.generation() + 1);
        }
        let finished = old.is_deleting()
            && new.array_at(&["metadata", "finalizers"]).is_empty()
            && (gvr.resource != "namespaces" || new.array_at(&["spec", "finalizers"]).is_empty())
            && (gvr.resource != "pods"
                || new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0);
        if finished {
            self.erase(gvr, old.namespace(), old.name());
            return Ok(Arc::new(encode(&new, self.revision)));
        }
        Ok(self.store(gvr, new))
    }

    fn store(&mut self, gvr: &GroupVersionResource, object: Value) -> Arc<Object> {
        self.revision += 1;
        let object = Arc::new(encode(&object, self.revision));
        let resource = self.resources.get_mut(gvr).expect("callers have looked the resource up");
        let old = resource.objects.insert(ObjectKey::from(&*object), object.clone());
        self.remember(gvr, old, Some(object.clone()));
        object
    }

    fn remember(&mut self, gvr: &GroupVersionResource, old: Option<Arc<Object>>, new: Option<Arc<Object>>) {
        let mut history = self.history.write();
        history.events.push_back(Entry { revision: self.revision, resource: gvr.clone(), old, new });
        while history.events.len() > HISTORY_MAX {
            let oldest = history.events.pop_front().map_or(0, |entry| entry.revision);
            history.expired = oldest;
        }
    }

    fn resource_of(&self, object: &Value) -> GroupVersionResource {
        let (api_version, kind) = (object.str_at(&["apiVersion"]), object.str_at(&["kind"]));
        let known = self.resources.values().map(|resource| &resource.info);
        let mut fits =
            known.filter(|info| info.kind == kind && info.gvr.group_version().to_string() == api_version);
        fits.next()
            .unwrap_or_else(|| panic!("the test seeds a kind that is not served: {api_version} {kind}"))
            .gvr
            .clone()
    }

    fn refuse_in_terminating_namespace(
        &self,
        gvr: &GroupVersionResource,
        namespace: &str,
        object: &Value,
    ) -> Result<(), Status> {
        match self.find(&api::gvr::NAMESPACES, "", namespace) {
            Some(found) if found.is_deleting() => {
                let why = format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                );
                Err(Status::forbidden(&gvr.group_resource(), object.str_at(&["metadata", "name"]), why))
            }
            _ => Ok(()),
        }
    }
}

fn encode(object: &Value, revision: u64) -> Object {
    Object::from_value(object, revision, &[]).expect("the fake encodes trees with metadata")
}

fn has_status(resource: &str) -> bool {
    !matches!(
        resource,
        "configmaps" | "endpoints" | "endpointslices" | "events" | "leases" | "secrets" | "serviceaccounts"
    )
}

fn set_type(object: &mut Value, info: &Discovered) {
    object.set_at(&["apiVersion"], info.gvr.group_version().to_string());
    object.set_at(&["kind"], info.kind.clone());
}

fn fill_metadata(object: &mut Value) {
    let metadata = object.ensure_object_at(&["metadata"]);
    metadata.remove("resourceVersion");
    metadata.get_or_insert_with("uid", || rt::uuid().into());
    metadata.get_or_insert_with("creationTimestamp", || time::format_seconds(rt::now()).into());
}

fn name_generated(object: &mut Value) {
    let base = object.str_at(&["metadata", "generateName"]).to_owned();
    if object.str_at(&["metadata", "name"]).is_empty() && !base.is_empty() {
        object.set_at(&["metadata", "name"], format!("{base}{}", rt::name_suffix(5)));
    }
}

/// The stored state after an update of the whole object or of one subresource.
fn merged(gvr: &GroupVersionResource, old: &Value, mut new: Value, subresource: Option<&str>) -> Value {
    match subresource {
        None => {
            if has_status(&gvr.resource) {
                copy(old, &mut new, &["status"]);
            }
            for field in ["apiVersion", "kind"] {
                copy(old, &mut new, &[field]);
            }
            for field in SYSTEM_METADATA {
                copy(old, &mut new, &["metadata", field]);
            }
            if gvr.resource == "namespaces" {
                copy(old, &mut new, &["spec", "finalizers"]);
            }
            new
        }
        Some(subresource) => {
            let path: &[&str] = match subresource {
                "finalize" => &["spec"],
                "scale" => &["spec", "replicas"],
                _ => &["status"],
            };
            let mut kept = old.clone();
            copy(&new, &mut kept, path);
            kept
        }
    }
}

/// The selector of a workload, which is a `LabelSelector`, the labels themselves or a text already.
fn selector_text(object: &Value) -> String {
    let selector = &object["spec"]["selector"];
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let is_structured = ["matchLabels", "matchExpressions"].iter().any(|part| selector.get(part).is_some());
    let structured = if is_structured { selector.clone() } else { json!({"matchLabels": selector.clone()}) };
    Selector::from_value(&structured).map(|selector| selector.to_string()).unwrap_or_default()
}

/// Metadata that only the server sets.
const SYSTEM_METADATA: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
];

fn copy(source: &Value, target: &mut Value, path: &[&str]) {
    match source.at(path) {
        Some(value) => target.set_at(path, value.clone()),
        None => {
            target.remove_at(path);
        }
    }
}

fn check_preconditions(
    gvr: &GroupVersionResource,
    old: &Object,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let why = match (&options.uid, options.resource_version) {
        (Some(uid), _) if uid != old.uid() => {
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.uid())
        }
        (_, Some(revision)) if revision != old.revision() => format!(
            "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
            old.revision()
        ),
        _ => return Ok(()),
    };
    Err(Status::conflict(&gvr.group_resource(), old.name(), why))
}

fn set_propagation_finalizer(object: &mut Value, propagation: Option<Propagation>) {
    let wanted = match propagation {
        None => return,
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some("foregroundDeletion"),
        Some(Propagation::Orphan) => Some("orphan"),
    };
    let mut finalizers: Vec<Value> = object.array_at(&["metadata", "finalizers"]).to_vec();
    finalizers.retain(|own| !matches!(own.as_str(), Some("foregroundDeletion" | "orphan")));
    finalizers.extend(wanted.map(Value::from));
    object.set_at(&["metadata", "finalizers"], finalizers);
}

/// A pod that no node runs, or that is done, goes at once.
fn pod_grace(pod: &Value, options: &DeleteOptions) -> i64 {
    let unscheduled = pod.str_at(&["spec", "nodeName"]).is_empty();
    let done = matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed");
    if unscheduled || done {
        return 0;
    }
    let own = pod.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    options.grace_period_seconds.or(own).unwrap_or(30)
}

// === impl Watcher ===

impl Watcher {
    pub(super) async fn run(
        mut self,
        history: Arc<RwLock<History>>,
        mut signal: watch::Receiver<Signal>,
        first: Vec<WatchEvent>,
        sender: mpsc::Sender<Result<WatchEvent, Status>>,
    ) {
        let closed = signal.borrow().closed;
        for event in first {
            if sender.send(Ok(event)).await.is_err() {
                return;
            }
        }
        loop {
            let now = *signal.borrow_and_update();
            if now.closed != closed {
                return;
            }
            match self.news(&history, now.visible) {
                Ok(events) => {
                    for event in events {
                        if sender.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(status) => {
                    let _ = sender.send(Err(status)).await;
                    return;
                }
            }
            tokio::select! {
                changed = signal.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    }

    fn news(&mut self, history: &RwLock<History>, visible: u64) -> Result<Vec<WatchEvent>, Status> {
        let history = history.read();
        if self.cursor < history.expired {
            return Err(Status::expired(format!(
                "too old resource version: {} ({})",
                self.cursor, history.expired
            )));
        }
        let from = history.events.partition_point(|entry| entry.revision <= self.cursor);
        let fresh = history.events.range(from..).take_while(|entry| entry.revision <= visible);
        let mine = fresh.filter(|entry| entry.resource == self.resource);
        let events = mine.filter_map(|entry| self.event(entry)).collect();
        self.cursor = self.cursor.max(visible);
        Ok(events)
    }

    /// An object that comes to match is new to the watcher, one that no longer does is gone.
    fn event(&self, entry: &Entry) -> Option<WatchEvent> {
        let was = entry.old.as_ref().filter(|old| self.filter.matches(old));
        let is = entry.new.as_ref().filter(|new| self.filter.matches(new));
        match (was, is) {
            (None, Some(new)) => Some(WatchEvent::Added(new.clone())),
            (Some(_), Some(new)) => Some(WatchEvent::Modified(new.clone())),
            (Some(old), None) => Some(WatchEvent::Deleted(Arc::new(old.at_revision(entry.revision)))),
            (None, None) => None,
        }
    }
}
