//! Mirror pods: what an API shows of static pods.
//!
//! Owns: that each static pod has a mirror in the API, with its status, and that nothing else calls itself one on this
//! node. Never touches: the pods themselves; whoever deletes a mirror gets another one, and the pod runs on.
//!
//! [`decide`] is pure; [`run`] does as it says, over again whenever a static pod or a mirror changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::gvr::PODS;
use apimachinery::{Object, Status, Value, json, value};
use client::{DeleteOptions, Informer, Patch, WriteOptions};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tracing::{debug, warn};

use super::{HASH, MIRROR, annotation};
use crate::agent::Node;
use crate::agent::pod::reporting::status_patch;
use crate::agent::pod::worker::decode;

/// An API that did not answer is asked again after this.
const RETRY: Duration = Duration::from_secs(5);

/// What a static pod's mirror needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Create,
    /// It goes at once: nothing of it runs.
    Delete,
    WriteStatus,
}

/// What the static pod is, and what its mirror is; `None` where there is none.
fn decide(own: Option<&Pod>, mirror: Option<&Pod>) -> Step {
    match (own, mirror) {
        (None, None) => Step::Nothing,
        (None, Some(_)) => Step::Delete,
        (Some(_), None) => Step::Create,
        (Some(own), Some(mirror)) => {
            let is_of = annotation(mirror, MIRROR) == annotation(own, HASH);
            if !is_of || mirror.metadata.deletion_timestamp.is_some() {
                Step::Delete
            } else if own.status.as_ref().is_some_and(|status| !is_told(mirror, status)) {
                Step::WriteStatus
            } else {
                Step::Nothing
            }
        }
    }
}

/// Whether the mirror says so. Before anything runs, the API's own words are as good.
fn is_told(mirror: &Pod, status: &PodStatus) -> bool {
    mirror.status.as_ref() == Some(status) || status.conditions.is_none()
}

/// The mirror of a static pod, owned by its node.
fn of(pod: &Pod, node: &Object) -> Option<Value> {
    let mut mirror = value::to_value(pod).ok()?;
    mirror.set_at(&["apiVersion"], "v1");
    mirror.set_at(&["kind"], "Pod");
    for own in [&["status"][..], &["metadata", "uid"], &["metadata", "resourceVersion"]] {
        mirror.remove_at(own);
    }
    mirror.set_at(&["metadata", "annotations", MIRROR], annotation(pod, HASH)?);
    mirror.set_at(
        &["metadata", "ownerReferences"],
        vec![json!({"apiVersion": "v1", "kind": "Node", "name": node.name(), "uid": node.uid(), "controller": true})],
    );
    Some(mirror)
}

/// Namespace and name.
type Name = (String, String);

/// The statuses that were written, and the revisions that mirrors had after that. An API may keep a status otherwise than it was
/// given; it is not given it again for that.
type Written = BTreeMap<Name, (u64, Option<PodStatus>)>;

/// Keeps mirrors until the node stops.
pub async fn run(node: Arc<Node>, informer: Arc<Informer>) {
    let mut written = Written::new();
    loop {
        let is_done = keep(&node, &informer, &mut written).await;
        let again = async { if is_done { std::future::pending().await } else { rt::sleep(RETRY).await } };
        tokio::select! {
            () = node.mirrors.notified() => {}
            () = again => {}
            () = node.shutdown.cancelled() => return,
        }
    }
}

/// Returns whether all that was to be done was done.
async fn keep(node: &Node, informer: &Informer, written: &mut Written) -> bool {
    let name = |pod: &Pod| -> Name {
        let metadata = &pod.metadata;
        (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    };
    let mut all: BTreeMap<Name, (Option<Arc<Pod>>, Option<Pod>)> = BTreeMap::new();
    for worker in node.pods.all().iter().filter(|worker| worker.is_static) {
        let pod = worker.pod();
        let key = name(&pod);
        all.entry(key).or_default().0 = Some(pod);
    }
    for object in informer.list() {
        let Ok(pod) = decode(&object) else { continue };
        if annotation(&pod, MIRROR).is_some() {
            let key = name(&pod);
            all.entry(key).or_default().1 = Some(pod);
        }
    }
    written.retain(|name, _| all.contains_key(name));
    let mut is_done = true;
    for (key, (own, mirror)) in all {
        let (namespace, name) = &key;
        let step = decide(own.as_deref(), mirror.as_ref());
        let revision =
            mirror.as_ref().and_then(|own| own.metadata.resource_version.as_ref()?.parse::<u64>().ok());
        let status = own.as_ref().and_then(|own| own.status.as_ref());
        let is_written =
            written.get(&key).is_some_and(|(at, told)| revision == Some(*at) && told.as_ref() == status);
        if step == Step::WriteStatus && is_written {
            continue;
        }
        let acted = act(node, namespace, name, step, own.as_deref(), mirror.as_ref()).await;
        if let Ok(Some(revision)) = acted {
            written.insert(key.clone(), (revision, status.cloned()));
        }
        if let Err(status) = acted {
            if status.is_conflict() || status.is_not_found() || status.is_already_exists() {
                // What it is now is on its way here, but need not come.
                debug!(namespace, name, error = %status, "A mirror pod changed meanwhile");
            } else {
                warn!(namespace, name, error = %status, ?step, "The mirror of a static pod is not as it should be");
            }
            is_done = false;
        }
    }
    is_done
}

/// Returns the mirror's revision where its status was written.
async fn act(
    node: &Node,
    namespace: &str,
    name: &str,
    step: Step,
    own: Option<&Pod>,
    mirror: Option<&Pod>,
) -> Result<Option<u64>, Status> {
    match (step, own, mirror) {
        (Step::Create, Some(own), _) => {
            let Some(object) = node.object() else { return Ok(None) };
            let Some(wanted) = of(own, &object) else { return Ok(None) };
            node.api.create(&PODS, namespace, wanted, &WriteOptions::default()).await?;
            Ok(None)
        }
        (Step::Delete, _, Some(mirror)) => {
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                uid: mirror.metadata.uid.as_deref().map(Into::into),
                ..DeleteOptions::default()
            };
            node.api.delete(&PODS, namespace, name, &options).await?;
            Ok(None)
        }
        (Step::WriteStatus, Some(own), Some(mirror)) => {
            let Some(status) = &own.status else { return Ok(None) };
            let patch = Patch::Merge(status_patch(mirror, status));
            let options = WriteOptions::default();
            let written = node.api.patch(&PODS, namespace, name, Some("status"), patch, &options).await?;
            Ok(Some(written.revision()))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(key: &str, hash: &str, phase: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web-n1", "namespace": "ns", "uid": "u", "annotations": {key: hash}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": phase, "conditions": []},
        }))
        .expect("a pod")
    }

    #[test]
    fn every_static_pod_has_exactly_its_mirror() {
        let own = pod(HASH, "7", "Running");
        let deleted = {
            let mut pod = pod(MIRROR, "7", "Running");
            pod.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
            pod
        };
        for (own, mirror, wanted) in [
            (None, None, Step::Nothing),
            (Some(&own), None, Step::Create),
            (Some(&own), Some(pod(MIRROR, "7", "Running")), Step::Nothing),
            (Some(&own), Some(pod(MIRROR, "7", "Pending")), Step::WriteStatus),
            (Some(&own), Some(pod(MIRROR, "8", "Running")), Step::Delete),
            (Some(&own), Some(deleted), Step::Delete),
            (None, Some(pod(MIRROR, "7", "Running")), Step::Delete),
        ] {
            assert_eq!(decide(own, mirror.as_ref()), wanted, "{mirror:?}");
        }
    }

    #[test]
    fn a_mirror_says_whose_it_is() {
        let node = Object::from_value(
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "nu"}}),
            1,
            &[],
        )
        .expect("a node");
        let mirror = of(&pod(HASH, "7", "Running"), &node).expect("a mirror");
        assert_eq!(mirror.str_at(&["metadata", "annotations", MIRROR]), "7");
        assert_eq!(mirror["metadata"]["ownerReferences"][0].str_at(&["uid"]), "nu");
        assert!(mirror.get("status").is_none() && mirror.at(&["metadata", "uid"]).is_none());
        assert_eq!(mirror.str_at(&["kind"]), "Pod");
    }
}
