//! `--apply`: server-side apply of manifests, and watching them until they are ready.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use api::Resource;
use api::conditions;
use apimachinery::{GroupVersion, GroupVersionKind, GroupVersionResource, Object, Status, Value};
use client::{Api, Patch, WatchEvent, WatchOptions, WriteOptions};
use futures::StreamExt;

use crate::manifest::Manifest;
use crate::platform::Platform;
use crate::progress::{Progress, State};

/// The field manager of what is applied from the command line.
const FIELD_MANAGER: &str = "pintle";
/// Where a namespaced object without a namespace goes.
const DEFAULT_NAMESPACE: &str = "default";
/// Kinds that others need first.
const FIRST: [&str; 2] = ["Namespace", "PriorityClass"];

/// An applied object that is being waited for.
struct Waiting {
    resource: Arc<Resource>,
    namespace: String,
    name: String,
    row: usize,
}

/// Applies everything in order and returns when all of it is ready. Definitions of custom resources come first: only
/// once they are established is there a resource for what they define.
pub async fn run(platform: &Platform, manifests: Vec<Manifest>) -> anyhow::Result<()> {
    let (definitions, others) = manifests.into_iter().partition(is_definition);
    apply_all(platform, definitions).await?;
    apply_all(platform, others).await
}

async fn apply_all(platform: &Platform, manifests: Vec<Manifest>) -> anyhow::Result<()> {
    if manifests.is_empty() {
        return Ok(());
    }
    let targets = resolve(platform, manifests)?;
    let api = platform.admin();
    let progress = Progress::new(targets.iter().map(Target::label));
    let mut waiting = Vec::new();
    for (row, target) in targets.iter().enumerate() {
        let object = apply(api.as_ref(), target).await.map_err(|status| {
            progress.set(row, State::Failed(status.message.clone()));
            anyhow!("{}: {status}", target.manifest.origin)
        })?;
        let state = state_of(&target.resource, &object.to_value());
        let ready = state == State::Ready;
        progress.set(row, state);
        if !ready {
            waiting.push(Waiting {
                resource: target.resource.clone(),
                namespace: target.namespace.clone(),
                name: object.name().to_owned(),
                row,
            });
        }
    }
    watch(api, waiting, &progress).await?;
    progress.finish();
    Ok(())
}

struct Target {
    manifest: Manifest,
    resource: Arc<Resource>,
    namespace: String,
}

impl Target {
    fn label(&self) -> String {
        let name = self.manifest.object.str_at(&["metadata", "name"]);
        let kind = &self.resource.kind;
        if self.namespace.is_empty() {
            format!("{kind} {name}")
        } else {
            format!("{kind} {}/{name}", self.namespace)
        }
    }
}

fn is_definition(manifest: &Manifest) -> bool {
    let gvk = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    gvk_of(manifest) == Some(gvk)
}

/// Whether one of the manifests defines this kind.
fn is_defined(manifests: &[Manifest], gvk: &GroupVersionKind) -> bool {
    manifests.iter().filter(|own| is_definition(own)).any(|definition| {
        let spec = &definition.object["spec"];
        let versions = spec.array_at(&["versions"]);
        spec.str_at(&["group"]) == gvk.group
            && spec.str_at(&["names", "kind"]) == gvk.kind
            && versions.iter().any(|version| version.str_at(&["name"]) == gvk.version)
    })
}

/// Refuses kinds that nothing serves and no manifest defines, before anything is started.
pub fn check_kinds(manifests: &[Manifest], apis: &apiserver::options::Apis) -> anyhow::Result<()> {
    let resources = api::builtin::served(&apis.runtime_config, &apis.features);
    for manifest in manifests {
        let is_known =
            |gvk: GroupVersionKind| find_kind(&resources, &gvk).is_some() || is_defined(manifests, &gvk);
        if !gvk_of(manifest).is_some_and(is_known) {
            bail!(unknown_kind(manifest));
        }
    }
    Ok(())
}

fn gvk_of(manifest: &Manifest) -> Option<GroupVersionKind> {
    let object = &manifest.object;
    GroupVersion::parse(object.str_at(&["apiVersion"]))
        .map(|version| version.with_kind(object.str_at(&["kind"])))
}

fn unknown_kind(manifest: &Manifest) -> String {
    let (api_version, kind) = (manifest.object.str_at(&["apiVersion"]), manifest.object.str_at(&["kind"]));
    format!("{}: no resource of kind {kind} in {api_version} is served", manifest.origin)
}

/// Finds the resource of each manifest.
fn resolve(platform: &Platform, manifests: Vec<Manifest>) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        let Some(resource) = gvk_of(&manifest).and_then(|gvk| platform.resource_of(&gvk)) else {
            bail!(unknown_kind(&manifest));
        };
        let namespace = match manifest.object.str_at(&["metadata", "namespace"]) {
            _ if !resource.namespaced => String::new(),
            "" => DEFAULT_NAMESPACE.to_owned(),
            given => given.to_owned(),
        };
        targets.push(Target { manifest, resource, namespace });
    }
    // A stable sort keeps the files' order otherwise.
    targets.sort_by_key(|target| !FIRST.contains(&target.resource.kind.as_str()));
    Ok(targets)
}

async fn apply(api: &dyn Api, target: &Target) -> Result<Arc<Object>, Status> {
    let options = WriteOptions { field_manager: FIELD_MANAGER.into(), force: true, dry_run: false };
    let mut object = target.manifest.object.clone();
    if !target.namespace.is_empty() {
        object.set_at(&["metadata", "namespace"], target.namespace.as_str());
    }
    let name = object.str_at(&["metadata", "name"]).to_owned();
    let gvr = target.resource.gvr();
    if name.is_empty() {
        return api.create(&gvr, &target.namespace, object, &options).await;
    }
    api.patch(&gvr, &target.namespace, &name, None, Patch::Apply(object), &options).await
}

/// Follows each resource that is waited for until all of them are ready.
async fn watch(api: Arc<impl Api>, waiting: Vec<Waiting>, progress: &Progress) -> anyhow::Result<()> {
    let mut by_resource: HashMap<GroupVersionResource, Vec<Waiting>> = HashMap::new();
    for one in waiting {
        by_resource.entry(one.resource.gvr()).or_default().push(one);
    }
    let watches =
        by_resource.into_iter().map(|(gvr, waiting)| watch_resource(api.as_ref(), gvr, waiting, progress));
    futures::future::try_join_all(watches).await.map(|_| ())
}

async fn watch_resource(
    api: &impl Api,
    gvr: GroupVersionResource,
    mut waiting: Vec<Waiting>,
    progress: &Progress,
) -> anyhow::Result<()> {
    while !waiting.is_empty() {
        // From the present state, so nothing is missed however often the watch has to be renewed.
        let mut events = api.watch(&gvr, "", &WatchOptions::default()).await?;
        while let Some(event) = events.next().await {
            let (object, gone) = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (object, false),
                Ok(WatchEvent::Deleted(object)) => (object, true),
                Ok(WatchEvent::Bookmark(_)) => continue,
                Err(status) if status.is_expired() => break,
                Err(status) => return Err(status.into()),
            };
            waiting.retain(|one| {
                if one.name != object.name() || one.namespace != object.namespace() {
                    return true;
                }
                let state = if gone { State::Gone } else { state_of(&one.resource, &object.to_value()) };
                let done = matches!(state, State::Ready | State::Gone);
                progress.set(one.row, state);
                !done
            });
            if waiting.is_empty() {
                return Ok(());
            }
        }
        if waiting.is_empty() || api.discover().await.is_err() {
            break;
        }
    }
    Ok(())
}

/// How far an object is. Kinds that are ready by existing are ready at once.
fn state_of(resource: &Resource, object: &Value) -> State {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("apps", "Deployment") => deployment_state(object),
        ("apps", "ReplicaSet") => replicas_state(object, "readyReplicas"),
        ("", "Pod") => pod_state(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition_state(object),
        _ => State::Ready,
    }
}

fn is_observed(object: &Value) -> bool {
    object["status"]["observedGeneration"].as_i64().unwrap_or(0)
        >= object["metadata"]["generation"].as_i64().unwrap_or(0)
}

fn count(object: &Value, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

/// Ready when what it defines is served; otherwise it says why not.
fn definition_state(object: &Value) -> State {
    if conditions::is_true(object, "Established") {
        return State::Ready;
    }
    let refused = conditions::find(object, "NamesAccepted").filter(|own| own.str_at(&["status"]) == "False");
    let note = refused.map(|own| own.str_at(&["message"]).to_owned()).unwrap_or_default();
    State::Progressing { ready: 0, wanted: 1, note }
}

fn deployment_state(object: &Value) -> State {
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (updated, available) = (count(object, "updatedReplicas"), count(object, "availableReplicas"));
    let current = count(object, "replicas");
    if is_observed(object) && updated >= wanted && available >= wanted && current == updated {
        return State::Ready;
    }
    let stuck = object
        .array_at(&["status", "conditions"])
        .iter()
        .find(|condition| {
            let kind = condition.str_at(&["type"]);
            let status = condition.str_at(&["status"]);
            (kind == "ReplicaFailure" && status == "True") || (kind == "Progressing" && status == "False")
        })
        .map(|condition| condition.str_at(&["message"]).to_owned());
    State::Progressing { ready: available.min(updated), wanted, note: stuck.unwrap_or_default() }
}

fn replicas_state(object: &Value, field: &str) -> State {
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let ready = count(object, field);
    if is_observed(object) && ready >= wanted {
        return State::Ready;
    }
    State::Progressing { ready, wanted, note: String::new() }
}

fn pod_state(object: &Value) -> State {
    let conditions = object.array_at(&["status", "conditions"]);
    let of = |kind: &str| conditions.iter().find(|condition| condition.str_at(&["type"]) == kind);
    let is_ready = of("Ready").is_some_and(|condition| condition.str_at(&["status"]) == "True");
    if is_ready || object.str_at(&["status", "phase"]) == "Succeeded" {
        return State::Ready;
    }
    let unscheduled = of("PodScheduled").filter(|condition| condition.str_at(&["status"]) == "False");
    let note = unscheduled.map(|condition| condition.str_at(&["message"]).to_owned()).unwrap_or_default();
    State::Progressing { ready: 0, wanted: 1, note }
}

/// Finds a served resource by kind.
pub fn find_kind<'a>(
    resources: impl IntoIterator<Item = &'a Arc<Resource>>,
    gvk: &GroupVersionKind,
) -> Option<Arc<Resource>> {
    let stored = resources.into_iter().filter(|resource| resource.has_verb("create"));
    stored.into_iter().find(|resource| resource.gvk() == *gvk).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn a_kind_may_be_defined_by_another_manifest() {
        let manifest = |object: Value| Manifest { object, origin: "file".into() };
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "spec": {"group": "example.com", "names": {"kind": "Widget"}, "versions": [{"name": "v1"}]},
        });
        let widget =
            |version: &str| json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget"});
        let apis = apiserver::options::Apis::default();
        let check = |objects: Vec<Value>| {
            check_kinds(&objects.into_iter().map(manifest).collect::<Vec<_>>(), &apis).is_ok()
        };
        assert!(check(vec![widget("v1"), definition.clone()]));
        assert!(!check(vec![widget("v2"), definition]));
        assert!(!check(vec![widget("v1")]));
    }

    #[test]
    fn a_definition_is_ready_when_it_is_established() {
        let condition =
            |kind: &str, status: &str| json!({"type": kind, "status": status, "message": "taken"});
        let state = |conditions: Vec<Value>| {
            let mut object = json!({"status": {}});
            object.set_at(&["status", "conditions"], Value::Array(conditions));
            definition_state(&object)
        };
        assert_eq!(state(vec![condition("Established", "True")]), State::Ready);
        let waiting = |note: &str| State::Progressing { ready: 0, wanted: 1, note: note.to_owned() };
        assert_eq!(state(vec![condition("NamesAccepted", "False")]), waiting("taken"));
        assert_eq!(state(Vec::new()), waiting(""));
    }

    #[test]
    fn a_deployment_is_ready_when_the_new_generation_is_available() {
        let deployment = |generation: i64, updated: i64, available: i64, replicas: i64| {
            json!({
                "metadata": {"generation": generation}, "spec": {"replicas": 3},
                "status": {"observedGeneration": 2, "updatedReplicas": updated, "availableReplicas": available, "replicas": replicas}
            })
        };
        assert_eq!(deployment_state(&deployment(2, 3, 3, 3)), State::Ready);
        for unready in
            [deployment(3, 3, 3, 3), deployment(2, 2, 3, 3), deployment(2, 3, 2, 3), deployment(2, 3, 3, 4)]
        {
            assert!(matches!(deployment_state(&unready), State::Progressing { .. }), "{unready}");
        }
    }

    #[test]
    fn what_holds_a_pod_up_is_shown() {
        let pod = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}});
        assert_eq!(pod_state(&pod), State::Progressing { ready: 0, wanted: 1, note: "0/1 nodes".into() });
    }
}
