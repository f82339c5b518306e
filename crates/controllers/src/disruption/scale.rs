//! How many pods the controllers of some pods are told to run.

use std::collections::HashMap;
use std::sync::Arc;

use api::gvr::REPLICA_SETS;
use api::view::ReplicaSet;
use apimachinery::object::OwnerReference;
use apimachinery::{GroupVersion, GroupVersionResource, Object, Status, Str};
use client::typed::view;
use client::{Api, Informer};
use controller_runtime::{Error, Result};

/// Reads the scales of workloads: of ReplicaSets and Deployments from the caches, of all others, custom resources
/// among them, through the `scale` subresource.
pub(super) struct Scales {
    pub(super) api: Arc<dyn Api>,
    pub(super) sets: Arc<Informer>,
    pub(super) deployments: Arc<Informer>,
}

/// The sum of the scales.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) count: i32,
    /// Pods without a controller, which nothing is known of.
    pub(super) unmanaged: Vec<Str>,
}

impl Scales {
    /// Each controller counts once, however many of the pods are its own.
    pub(super) async fn expected(&self, pods: impl Iterator<Item = &Object>) -> Result<Expected> {
        let mut known: HashMap<Str, i32> = HashMap::new();
        // Which scale a direct owner stands for, so that a ReplicaSet is looked up once.
        let mut seen: HashMap<Str, Str> = HashMap::new();
        let mut unmanaged = Vec::new();
        for pod in pods {
            let Some(owner) = pod.controller_owner() else {
                unmanaged.push(pod.name().into());
                continue;
            };
            if seen.contains_key(owner.uid) {
                continue;
            }
            let Some((uid, replicas)) = self.of(pod.namespace(), &owner).await? else {
                let name = apimachinery::field::go_quote(pod.name());
                return Err(Error::Stalled { reason: format!("found no controllers for pod {name}") });
            };
            seen.insert(owner.uid.into(), uid.clone());
            known.insert(uid, replicas);
        }
        let count = known.values().fold(0_i32, |sum, replicas| sum.saturating_add(*replicas));
        Ok(Expected { count, unmanaged })
    }

    /// The uid and the replicas of the workload behind a pod's owner; `None` if it is gone.
    async fn of(&self, namespace: &str, owner: &OwnerReference<'_>) -> Result<Option<(Str, i32)>> {
        let group = GroupVersion::parse(owner.api_version).map(|version| version.group).unwrap_or_default();
        if group == REPLICA_SETS.group && owner.kind == "ReplicaSet" {
            return self.of_replica_set(namespace, owner);
        }
        let served = self.api.discover().await?;
        let Some(found) = served.into_iter().find(|own| own.gvr.group == group && own.kind == owner.kind)
        else {
            let why = format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version);
            return Err(Error::Stalled { reason: why });
        };
        self.of_scale(&found.gvr, namespace, owner).await
    }

    /// That of the Deployment, if the set is one of a Deployment.
    fn of_replica_set(&self, namespace: &str, owner: &OwnerReference<'_>) -> Result<Option<(Str, i32)>> {
        let Some(set) = same(self.sets.get(namespace, owner.name), owner) else { return Ok(None) };
        match set.controller_owner() {
            None => Ok(Some((set.uid().into(), replicas(&set)?))),
            Some(above) if above.kind == "Deployment" && above.api_version.starts_with("apps/") => {
                let Some(deployment) = same(self.deployments.get(namespace, above.name), &above) else {
                    return Ok(None);
                };
                Ok(Some((deployment.uid().into(), replicas(&deployment)?)))
            }
            Some(_) => Ok(None),
        }
    }

    async fn of_scale(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        owner: &OwnerReference<'_>,
    ) -> Result<Option<(Str, i32)>> {
        match self.api.get_subresource(resource, namespace, owner.name, "scale").await {
            Ok(scale) if scale.str_at(&["metadata", "uid"]) != owner.uid => Ok(None),
            Ok(scale) => {
                let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
                Ok(Some((owner.uid.into(), i32::try_from(replicas).unwrap_or(i32::MAX))))
            }
            Err(status) if is_about_object(&status, owner.name) => Ok(None),
            Err(status) if status.is_not_found() => {
                let reason =
                    format!("{} does not implement the scale subresource", resource.group_resource());
                Err(Error::Stalled { reason })
            }
            Err(status) => Err(status.into()),
        }
    }
}

/// The object, if it is the one that was meant.
fn same(object: Option<Arc<Object>>, owner: &OwnerReference<'_>) -> Option<Arc<Object>> {
    object.filter(|object| object.uid() == owner.uid)
}

/// Deployments and ReplicaSets keep them in the same place.
fn replicas(workload: &Object) -> Result<i32> {
    Ok(view::<ReplicaSet>(workload)?.spec.replicas.unwrap_or(1))
}

/// An object that is not there is named; a path that is not served is not.
fn is_about_object(status: &Status, name: &str) -> bool {
    status.is_not_found() && status.details.as_ref().is_some_and(|details| details.name == name)
}
