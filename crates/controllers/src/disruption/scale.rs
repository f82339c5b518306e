//! How many pods the controllers of some pods are told to run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::view::{Deployment, ReplicaSet, ReplicationController, StatefulSet};
use apimachinery::field::go_quote;
use apimachinery::object::OwnerReference;
use apimachinery::{GroupVersion, GroupVersionResource, Object, Status, Str};
use client::typed::view;
use client::{Api, Discovered, Informer};
use controller_runtime::{Error, Result};
use tokio::sync::OnceCell;

/// Reads the scales of workloads: of ReplicaSets, Deployments, StatefulSets and ReplicationControllers from the caches,
/// of all others, custom resources among them, through the `scale` subresource.
pub(super) struct Scales {
    pub(super) api: Arc<dyn Api>,
    pub(super) sets: Arc<Informer>,
    pub(super) deployments: Arc<Informer>,
    pub(super) stateful_sets: Arc<Informer>,
    pub(super) replication_controllers: Arc<Informer>,
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
        let mut scales: HashMap<Str, i32> = HashMap::new();
        let mut unmanaged = Vec::new();
        // Direct owners, so that a ReplicaSet is looked up once.
        let mut seen: HashSet<&str> = HashSet::new();
        let served = OnceCell::new();
        for pod in pods {
            let Some(owner) = pod.controller_owner() else {
                unmanaged.push(pod.name().into());
                continue;
            };
            if !seen.insert(owner.uid) {
                continue;
            }
            let Some((uid, replicas)) = self.of(pod.namespace(), &owner, &served).await? else {
                return Err(Error::failed(format!("found no controllers for pod {}", go_quote(pod.name()))));
            };
            scales.insert(uid, replicas);
        }
        let count = scales.values().fold(0_i32, |sum, replicas| sum.saturating_add(*replicas));
        Ok(Expected { count, unmanaged })
    }

    /// The uid and the replicas of the workload behind a pod's owner; `None` if it is gone. `served` is asked for when
    /// a cache has no answer.
    async fn of(
        &self,
        namespace: &str,
        owner: &OwnerReference<'_>,
        served: &OnceCell<Vec<Discovered>>,
    ) -> Result<Option<(Str, i32)>> {
        if let Some(cached) = self.cached(namespace, owner)? {
            return Ok(Some(cached));
        }
        let group = group(owner);
        let served = served.get_or_try_init(|| self.api.discover()).await?;
        let Some(found) = served.iter().find(|own| own.gvr.group == group && own.kind == owner.kind) else {
            let (kind, version) = (go_quote(owner.kind), go_quote(owner.api_version));
            return Err(Error::failed(format!("no matches for kind {kind} in version {version}")));
        };
        self.of_scale(&found.gvr, namespace, owner).await
    }

    /// What the caches say of the very workload that owns the pod.
    fn cached(&self, namespace: &str, owner: &OwnerReference<'_>) -> Result<Option<(Str, i32)>> {
        let find = |cache: &Informer| same(cache.get(namespace, owner.name), owner);
        let of_set = |set: Arc<Object>| Ok::<_, Status>(view::<StatefulSet>(&set)?.spec.replicas);
        let of_controller = |own: Arc<Object>| {
            Ok::<_, Status>(view::<ReplicationController>(&own)?.as_replica_set().spec.replicas)
        };
        let replicas = if is_workload(owner, "ReplicaSet") {
            return find(&self.sets).map(|set| self.of_replica_set(&set)).transpose();
        } else if is_workload(owner, "StatefulSet") {
            find(&self.stateful_sets).map(of_set).transpose()?
        } else if owner.api_version == "v1" && owner.kind == "ReplicationController" {
            find(&self.replication_controllers).map(of_controller).transpose()?
        } else {
            None
        };
        Ok(replicas.map(|replicas| (owner.uid.into(), replicas.unwrap_or(1))))
    }

    /// That of the Deployment, if the set is one of a Deployment that is there.
    fn of_replica_set(&self, set: &Object) -> Result<(Str, i32)> {
        let deployment = set
            .controller_owner()
            .filter(|above| is_workload(above, "Deployment"))
            .and_then(|above| same(self.deployments.get(set.namespace(), above.name), &above));
        let (uid, replicas) = match &deployment {
            Some(deployment) => (deployment.uid(), view::<Deployment>(deployment)?.spec.replicas),
            None => (set.uid(), view::<ReplicaSet>(set)?.spec.replicas),
        };
        Ok((uid.into(), replicas.unwrap_or(1)))
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

fn group(owner: &OwnerReference<'_>) -> Str {
    GroupVersion::parse(owner.api_version).map(|version| version.group).unwrap_or_default()
}

/// Whether it is of this kind of `apps`, or of the group that these kinds came from.
fn is_workload(owner: &OwnerReference<'_>, kind: &str) -> bool {
    owner.kind == kind && ["apps", "extensions"].contains(&group(owner).as_str())
}

/// The object, if it is the one that was meant.
fn same(object: Option<Arc<Object>>, owner: &OwnerReference<'_>) -> Option<Arc<Object>> {
    object.filter(|object| object.uid() == owner.uid)
}

/// An object that is not there is named; a path that is not served is not.
fn is_about_object(status: &Status, name: &str) -> bool {
    status.is_not_found() && status.details.as_ref().is_some_and(|details| details.name == name)
}
