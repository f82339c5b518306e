//! From a claim in a pod to the volume that it is bound to.

use std::sync::Arc;

use api::gvr::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use apimachinery::Status;
use client::Api;
use client::events::Reference;
use client::typed::view;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use crate::agent::config::{name, namespace, uid};

/// A bound volume, as one pod uses it.
#[derive(Clone, Debug)]
pub struct Bound {
    pub claim: Arc<PersistentVolumeClaim>,
    pub volume: Arc<PersistentVolume>,
    pub read_only: bool,
}

/// The volume of a pod's claim.
///
/// # Errors
/// Upstream's message of why it cannot be used.
pub async fn resolve(api: &dyn Api, pod: &Pod, volume: &Volume) -> Result<Bound, String> {
    let (claim_name, read_only, is_own) = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => (source.claim_name.clone(), source.read_only.unwrap_or(false), false),
        _ => (api::volumes::own_claim(name(pod), &volume.name), false, true),
    };
    let place = format!("{}/{claim_name}", namespace(pod));
    let failed = |why: String| format!("error processing PVC {place}: {why}");
    let fetch = |status: Status| failed(format!("failed to fetch PVC from API server: {}", status.message));
    let claim = api.get(&PERSISTENT_VOLUME_CLAIMS, namespace(pod), &claim_name).await.map_err(fetch)?;
    let claim = view::<PersistentVolumeClaim>(&claim).map_err(fetch)?;
    check_claim(&claim, pod, is_own).map_err(failed)?;
    let volume_name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    let fetch = |status: Status| {
        failed(format!("failed to fetch PV {volume_name} from API server: {}", status.message))
    };
    let bound = api.get(&PERSISTENT_VOLUMES, "", &volume_name).await.map_err(fetch)?;
    let bound = view::<PersistentVolume>(&bound).map_err(fetch)?;
    check_volume(&bound, &claim).map_err(failed)?;
    Ok(Bound { claim, volume: bound, read_only })
}

/// What an event of a claim is about.
pub fn reference(claim: &PersistentVolumeClaim) -> Reference {
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().into();
    let metadata = &claim.metadata;
    Reference {
        api_version: "v1".into(),
        kind: "PersistentVolumeClaim".into(),
        namespace: text(&metadata.namespace),
        name: text(&metadata.name),
        uid: text(&metadata.uid),
        ..Reference::default()
    }
}

fn check_claim(claim: &PersistentVolumeClaim, pod: &Pod, is_own: bool) -> Result<(), String> {
    let meta = &claim.metadata;
    if is_own {
        let owners = meta.owner_references.iter().flatten();
        let is_of_pod = owners.filter(|own| own.controller == Some(true)).any(|own| own.uid == uid(pod));
        if !is_of_pod {
            let place = |name: Option<&str>| format!("{}/{}", namespace(pod), name.unwrap_or_default());
            let (claim, pod) = (place(meta.name.as_deref()), place(Some(name(pod))));
            return Err(format!("PVC {claim} was not created for pod {pod} (pod is not owner)"));
        }
    }
    if meta.deletion_timestamp.is_some() && !is_in_use(claim) {
        return Err("PVC is being deleted".to_owned());
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_named =
        claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).is_some_and(|name| !name.is_empty());
    if phase != Some("Bound") || !is_named {
        return Err("PVC is not bound".to_owned());
    }
    Ok(())
}

/// A claim that only waits for its pods may still be mounted by them: this node may just have started again.
fn is_in_use(claim: &PersistentVolumeClaim) -> bool {
    let finalizers = claim.metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|own| own == "kubernetes.io/pvc-protection")
}

fn check_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let volume_name = volume.metadata.name.as_deref().unwrap_or_default();
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let Some(reference) = reference else {
        return Err(format!(
            "found PV object {volume_name} with nil ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    let (own, wanted) =
        (reference.uid.as_deref().unwrap_or_default(), claim.metadata.uid.as_deref().unwrap_or_default());
    if own != wanted {
        return Err(format!(
            "found PV object {volume_name} with a pv.Spec.ClaimRef.UID ({own}) that does not match expected pvcUID \
             ({wanted})"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use client::fake::FakeApi;

    use super::*;
    use crate::agent::config::fixture;

    #[tokio::test]
    async fn a_claim_leads_to_its_volume_or_says_why_not() {
        let fake = FakeApi::new();
        let claim = |name: &str, phase: &str, volume: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"volumeName": volume}, "status": {"phase": phase}})
        };
        let volume = |name: &str, uid: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                "spec": {"claimRef": {"uid": uid, "name": "x"}}})
        };
        let mut own = claim("web-own", "Bound", "v4");
        own.set_at(
            &["metadata", "ownerReferences"],
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u-1", "controller": true}]),
        );
        let mut unbound = volume("v5", "");
        unbound.remove_at(&["spec", "claimRef"]);
        let going = |name: &str, finalizers: serde_json::Value, volume: &str| {
            let mut going = claim(name, "Bound", volume);
            going.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
            let finalizers = apimachinery::value::to_value(&finalizers).expect("a list");
            going.set_at(&["metadata", "finalizers"], finalizers);
            going
        };
        for object in [
            claim("chosen", "Pending", "v1"),
            going("going", serde_json::json!(["example.com/other"]), "v1"),
            going("kept", serde_json::json!(["kubernetes.io/pvc-protection"]), "v6"),
            volume("v6", "kept"),
            claim("good", "Bound", "v1"),
            claim("waits", "Pending", ""),
            claim("other", "Bound", "v2"),
            claim("lost", "Bound", "v3"),
            claim("loose", "Bound", "v5"),
            claim("web-theirs", "Bound", "v1"),
            own,
            volume("v1", "good"),
            volume("v2", "elses"),
            volume("v4", "web-own"),
            unbound,
        ] {
            fake.seed(object);
        }
        let pod = fixture::pod(serde_json::json!({"containers": []}));
        let of = async |source: serde_json::Value| {
            let volume: Volume = serde_json::from_value(source).expect("a volume");
            let bound = resolve(&*fake, &pod, &volume).await?;
            Ok(bound.volume.metadata.name.clone().unwrap_or_default())
        };
        let failed = |name: &str, why: &str| Err(format!("error processing PVC ns/{name}: {why}"));
        for (name, wanted) in [
            ("good", Ok("v1".to_owned())),
            ("waits", failed("waits", "PVC is not bound")),
            ("chosen", failed("chosen", "PVC is not bound")),
            ("going", failed("going", "PVC is being deleted")),
            ("kept", Ok("v6".to_owned())),
            (
                "other",
                failed(
                    "other",
                    "found PV object v2 with a pv.Spec.ClaimRef.UID (elses) that does not match expected pvcUID (other)",
                ),
            ),
            (
                "lost",
                failed("lost", "failed to fetch PV v3 from API server: persistentvolumes \"v3\" not found"),
            ),
            (
                "loose",
                failed(
                    "loose",
                    "found PV object v5 with nil ClaimRef indicating it is not yet bound to the claim",
                ),
            ),
        ] {
            let source = serde_json::json!({"name": "v", "persistentVolumeClaim": {"claimName": name}});
            let made: Result<String, String> = of(source).await;
            assert_eq!(made, wanted, "{name}");
        }
        let own: Result<String, String> = of(serde_json::json!({"name": "own", "ephemeral": {}})).await;
        assert_eq!(own, Ok("v4".into()));
        let theirs: Result<String, String> = of(serde_json::json!({"name": "theirs", "ephemeral": {}})).await;
        assert_eq!(
            theirs,
            failed("web-theirs", "PVC ns/web-theirs was not created for pod ns/web (pod is not owner)")
        );
    }
}
