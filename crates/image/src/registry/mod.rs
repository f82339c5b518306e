//! Registries: where they are, as whom they are asked, and how content comes from them.
//!
//! [`hosts`] says which addresses a registry has, [`connect`] reaches one, [`challenge`] and [`authorize`] prove who
//! asks, [`request`] asks, [`content`] fetches. Start at [`Registries::session`].
//!
//! How a registry is reached can be configured as for containerd: `DIR/<registry>/hosts.toml`, or
//! `DIR/_default/hosts.toml` for all others, lists mirrors in the order in which they are asked, certificates, and what
//! is spoken without them. A registry on this machine's loopback is spoken to in plain HTTP unless that says otherwise.

mod authorize;
mod challenge;
mod connect;
mod content;
mod hosts;
mod request;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use parking_lot::Mutex;

pub(crate) use content::Fetched;
use request::Host;
pub(crate) use request::Session;

use crate::{Reference, Result};

/// As whom a registry is asked.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credential {
    pub username: String,
    pub password: String,
    /// What the registry's token server exchanges for tokens.
    pub identity_token: String,
    /// What is shown to the registry as it is.
    pub registry_token: String,
}

/// Without its secrets.
impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// All registries, and the connections to them.
pub(crate) struct Registries {
    folder: Option<Utf8PathBuf>,
    /// By what makes them differ.
    clients: Mutex<HashMap<hosts::Trust, connect::Client>>,
}

impl Registries {
    pub(crate) fn new(folder: Option<Utf8PathBuf>) -> Self {
        Self { folder, clients: Mutex::default() }
    }

    /// What fetches one image. Reads files.
    pub(crate) fn session(
        &self,
        reference: &Reference,
        credentials: &[Credential],
        stall_timeout: Duration,
    ) -> Result<Session> {
        let mut hosts = Vec::new();
        let endpoints = hosts::endpoints(self.folder.as_deref(), reference.domain())?;
        let last = endpoints.len().saturating_sub(1);
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            let client = self.client(&endpoint.trust)?;
            hosts.push(Arc::new(Host::new(endpoint, client, credentials, index == last)));
        }
        Ok(Session::new(reference.clone(), hosts, stall_timeout))
    }

    fn client(&self, trust: &hosts::Trust) -> Result<connect::Client> {
        if let Some(client) = self.clients.lock().get(trust) {
            return Ok(client.clone());
        }
        let client = connect::client(trust)?;
        Ok(self.clients.lock().entry(trust.clone()).or_insert(client).clone())
    }
}
