//! Notes on Secrets when the token in them was last used, so that those that nobody uses can be found.
//!
//! Authentication does not wait for it: it leaves the Secret's name in a channel. One that is full drops the name; the
//! next request with that token brings it again.

use std::sync::Arc;

use apimachinery::{Object, Str, json};
use auth::UserInfo;
use auth::token::legacy::{LAST_USED_LABEL, today};
use client::{Api, Patch, WriteOptions};
use tokio::sync::mpsc;

use crate::{Door, LocalApi};

/// Secrets that wait to be written. A cluster has few such tokens, and each is written once a day.
const WAITING_MAX: usize = 64;

/// A Secret whose token was used.
pub struct Used {
    namespace: String,
    name: String,
    uid: String,
}

impl Used {
    pub fn of(secret: &Object) -> Self {
        let (namespace, name) = (secret.namespace().to_owned(), secret.name().to_owned());
        Self { namespace, name, uid: secret.uid().to_owned() }
    }
}

pub fn channel() -> (mpsc::Sender<Used>, mpsc::Receiver<Used>) {
    mpsc::channel(WAITING_MAX)
}

/// Writes the labels until `shutdown`.
pub async fn run(door: Arc<Door>, mut used: mpsc::Receiver<Used>, shutdown: rt::Shutdown) {
    let api = LocalApi::new(door, UserInfo::api_server(), shutdown.clone());
    loop {
        let secret = tokio::select! {
            () = shutdown.cancelled() => return,
            secret = used.recv() => secret,
        };
        let Some(secret) = secret else { return };
        if let Err(status) = note(&api, &secret).await {
            let Used { namespace, name, .. } = secret;
            tracing::warn!(namespace, name, error = %status, "Could not note the use of a token in its Secret");
        }
    }
}

async fn note(api: &LocalApi, secret: &Used) -> Result<(), apimachinery::Status> {
    let Used { namespace, name, uid } = secret;
    let today = today(rt::now().into());
    let current = api.get(&api::gvr::SECRETS, namespace, name).await?;
    if current.label(LAST_USED_LABEL) == Some(&today) {
        return Ok(());
    }
    let mut patch = json!({"metadata": {"uid": uid.as_str(), "labels": {}}});
    patch.set_at(&["metadata", "labels", LAST_USED_LABEL], Str::from(today));
    let (patch, options) = (Patch::Merge(patch), WriteOptions::default());
    api.patch(&api::gvr::SECRETS, namespace, name, None, patch, &options).await.map(drop)
}
