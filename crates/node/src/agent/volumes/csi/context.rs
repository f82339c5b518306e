//! What a driver is told of the pod that has a volume, as far as its CSIDriver object asks for it.

use std::collections::BTreeMap;

use apimachinery::{Value, json, time};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use k8s_openapi::api::storage::v1::CSIDriverSpec;

use super::{CsiVolume, Wanted};
use crate::agent::config::{name, namespace, uid};
use crate::agent::volumes::tokens::TokenCache;

/// Where drivers find the tokens of the pod's service account.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// A driver has to say that it serves volumes that are written into pods.
pub fn check_ephemeral(driver: &str, about: Option<&CSIDriverSpec>) -> Result<(), String> {
    let refused = |why: String| {
        format!("kubernetes.io/csi: mounter.SetUpAt failed to check volume lifecycle mode: {why}")
    };
    let mode = r#"volume mode "Ephemeral" not supported by driver"#;
    let Some(about) = about else {
        return Err(refused(format!("{mode} {driver} (no CSIDriver object)")));
    };
    let modes = about.volume_lifecycle_modes.as_deref().unwrap_or_default();
    if modes.iter().any(|own| own == "Ephemeral") {
        return Ok(());
    }
    let modes = if modes.is_empty() { "Persistent".to_owned() } else { modes.join(" ") };
    Err(refused(format!("{mode} {driver} (only supports [{modes}])")))
}

/// Whether the node gives the volume's files their group.
pub fn takes_group(policy: &str, wanted: &Wanted) -> bool {
    match policy {
        "None" => false,
        "File" => true,
        _ => !wanted.volume.fs_type.is_empty() && wanted.read_write_once,
    }
}

/// For `podInfoOnMount`.
pub fn pod_info(pod: &Pod, ephemeral: bool) -> BTreeMap<String, String> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    [
        ("csi.storage.k8s.io/pod.name", name(pod).to_owned()),
        ("csi.storage.k8s.io/pod.namespace", namespace(pod).to_owned()),
        ("csi.storage.k8s.io/pod.uid", uid(pod).to_owned()),
        ("csi.storage.k8s.io/serviceAccount.name", account),
        ("csi.storage.k8s.io/ephemeral", ephemeral.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Adds the tokens that the driver asks for, fresh ones: where it wants them, in the context or in the secrets.
///
/// # Errors
/// Where a token cannot be had.
pub async fn add_tokens(
    cache: &TokenCache,
    pod: &Pod,
    about: &CSIDriverSpec,
    volume: &mut CsiVolume,
) -> Result<(), String> {
    let requests = about.token_requests.as_deref().unwrap_or_default();
    if requests.is_empty() {
        return Ok(());
    }
    let mut tokens = Value::object();
    for request in requests {
        let projection = ServiceAccountTokenProjection {
            audience: Some(request.audience.clone()),
            expiration_seconds: request.expiration_seconds,
            path: String::new(),
        };
        let token = cache.token(pod, &projection).await.map_err(|why| {
            format!(
                "kubernetes.io/csi: mounter.SetUpAt failed to get service account token attributes: {why}"
            )
        })?;
        let own = json!({"token": token.text.as_str(),
            "expirationTimestamp": time::format_seconds(token.expires_at)});
        tokens.set_at(&[request.audience.as_str()], own);
    }
    let text = serde_json::to_string(&tokens).expect("texts are JSON");
    let in_secrets = about.service_account_token_in_secrets == Some(true);
    let place = if in_secrets { &mut volume.secrets } else { &mut volume.attributes };
    place.insert(TOKENS.to_owned(), text);
    Ok(())
}
