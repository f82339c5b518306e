//! Clients that are kept for as long as their configuration stays as it is.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Client, ClientConfig, ConfigError, ServiceResolver};

/// One client, with its connections, for each of those that call somebody. There are as many as there are callers:
/// each removes its own when it goes.
pub struct Clients<K> {
    resolver: Arc<dyn ServiceResolver>,
    /// With the configuration that each was made from.
    made: Mutex<HashMap<K, (ClientConfig, Arc<Client>)>>,
}

impl<K: Hash + Eq> Clients<K> {
    pub fn new(resolver: Arc<dyn ServiceResolver>) -> Self {
        Self { resolver, made: Mutex::default() }
    }

    /// The client that the caller has, if it is of this configuration, or a new one in its place.
    pub fn get(&self, caller: K, config: ClientConfig) -> Result<Arc<Client>, ConfigError> {
        let mut made = self.made.lock();
        if let Some((own, client)) = made.get(&caller)
            && *own == config
        {
            return Ok(client.clone());
        }
        let client = Arc::new(Client::new(&config, &self.resolver)?);
        made.insert(caller, (config, client.clone()));
        Ok(client)
    }

    pub fn remove<Q>(&self, caller: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.made.lock().remove(caller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoServices, Target};

    #[test]
    fn a_client_stays_until_its_configuration_changes_or_its_caller_goes() {
        let clients = Clients::<String>::new(Arc::new(NoServices));
        let get = |caller: &str, url: &str| {
            let mut config = ClientConfig::new(Target::Url(url.to_owned()));
            config.insecure_skip_verify = true;
            clients.get(caller.to_owned(), config)
        };
        let is_same = |one: &Arc<Client>, other: &Arc<Client>| Arc::ptr_eq(one, other);
        let first = get("a", "https://a").expect("a client");
        let others = get("b", "https://a").expect("a client");
        assert!(!is_same(&first, &others), "each has its own");
        assert!(is_same(&first, &get("a", "https://a").expect("a client")));
        assert!(get("a", "").is_err());
        assert!(
            is_same(&first, &get("a", "https://a").expect("a client")),
            "what is no good replaces nothing"
        );
        let moved = get("a", "https://b").expect("a client");
        assert!(!is_same(&first, &moved));
        clients.remove("a");
        assert!(!is_same(&moved, &get("a", "https://b").expect("a client")));
        assert!(is_same(&others, &get("b", "https://a").expect("a client")));
    }
}
