//! The bootstrap signer: `cluster-info` of `kube-public` says where the cluster is and who it is, signed with every
//! bootstrap token that may sign. Whoever has a token can believe it without knowing the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::gvr::{CONFIG_MAPS, SECRETS};
use apimachinery::{Object, Value, json};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::{Api, Delta, Informer, WriteOptions};
use controller_runtime::controller::boxed;
use controller_runtime::{Action, Context, ControllerDescriptor, Reconcile, Result};
use futures::future::BoxFuture;
use jiff::Timestamp;
use ring::hmac;

use super::{Expiration, NAME_PREFIX, NAMESPACE, data, is_token};
use crate::Options;

const NAME: &str = "bootstrap-signer-controller";

const MAP_NAMESPACE: &str = "kube-public";
const MAP_NAME: &str = "cluster-info";
/// What is signed.
const CONTENT: &str = "kubeconfig";
/// Signatures are under this and the token's id.
pub const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

pub fn descriptor() -> ControllerDescriptor<Options> {
    ControllerDescriptor {
        name: NAME,
        service_account: "bootstrap-signer",
        event_source: "bootstrap-signer",
        workers: 1,
        start,
    }
}

fn start(context: Context<Options>) -> BoxFuture<'static, ()> {
    let (secrets, maps) = (context.informers.of(&SECRETS), context.informers.of(&CONFIG_MAPS));
    let reconciler =
        Arc::new(Controller { api: context.api.clone(), secrets: secrets.clone(), maps: maps.clone() });
    let controller = controller_runtime::Controller::new(&context, reconciler)
        .watches(&maps, |delta, keys| {
            if let Delta::Upsert { new, .. } = delta
                && new.name() == MAP_NAME
                && new.namespace() == MAP_NAMESPACE
            {
                keys.push(());
            }
        })
        .watches(&secrets, |delta, keys| {
            if let Delta::Upsert { new: secret, .. } | Delta::Delete { old: secret } = delta
                && is_token(secret)
            {
                keys.push(());
            }
        });
    boxed(controller.run())
}

struct Controller {
    api: Arc<dyn Api>,
    secrets: Arc<Informer>,
    maps: Arc<Informer>,
}

#[async_trait]
impl Reconcile for Controller {
    /// There is one map to sign.
    type Key = ();

    async fn reconcile(&self, (): &()) -> Result {
        let Some(map) = self.maps.get(MAP_NAMESPACE, MAP_NAME) else { return Ok(Action::await_change()) };
        let tokens = tokens(&self.secrets.list_namespace(NAMESPACE), rt::now());
        let mut tree = map.to_value();
        if sign(&mut tree, &tokens) {
            let options = WriteOptions::default();
            match self.api.update(&CONFIG_MAPS, MAP_NAMESPACE, MAP_NAME, None, tree, &options).await {
                Err(status) if status.is_not_found() => {}
                result => drop(result?),
            }
        }
        Ok(Action::await_change())
    }
}

/// Secrets of the tokens that may sign, by id.
pub(super) fn tokens(secrets: &[Arc<Object>], now: Timestamp) -> BTreeMap<String, String> {
    secrets.iter().filter(|secret| is_token(secret)).filter_map(|secret| token(secret, now)).collect()
}

fn token(secret: &Object, now: Timestamp) -> Option<(String, String)> {
    let tree = secret.to_value();
    let (id, key) = (data(&tree, "token-id"), data(&tree, "token-secret"));
    let usable = !id.is_empty()
        && secret.name().strip_prefix(NAME_PREFIX) == Some(&id)
        && !key.is_empty()
        && !Expiration::of(&tree).is_over(now)
        && data(&tree, "usage-bootstrap-signing") == "true";
    usable.then_some((id, key))
}

/// Puts the signatures of these tokens, and no others, into the map; false when it has them.
pub(super) fn sign(map: &mut Value, tokens: &BTreeMap<String, String>) -> bool {
    let Some(content) = map.at(&["data", CONTENT]).and_then(Value::as_str).map(str::to_owned) else {
        return false;
    };
    let before = map["data"].clone();
    let entries = map.ensure_object_at(&["data"]);
    entries.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    for (id, key) in tokens {
        entries.insert(format!("{SIGNATURE_PREFIX}{id}"), signature(&content, id, key));
    }
    map["data"] != before
}

/// What a token signs of the cluster's kubeconfig: a JWS (HS256) without its payload, which whoever checks it has already.
pub fn signature(content: &str, id: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_json());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac))
}

/// Whether a signature is that of this token on this content.
pub fn is_signed(signature: &str, content: &str, id: &str, key: &str) -> bool {
    let Some((header, mac)) = signature.split_once("..") else { return false };
    let Ok(mac) = URL_SAFE_NO_PAD.decode(mac) else { return false };
    let says = URL_SAFE_NO_PAD.decode(header).ok().and_then(|header| Value::parse(&header).ok());
    let is_of_token =
        says.is_some_and(|says| says.str_at(&["alg"]) == "HS256" && says.str_at(&["kid"]) == id);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    is_of_token && hmac::verify(&key, signed.as_bytes(), &mac).is_ok()
}
