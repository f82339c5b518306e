//! Dynamic resources: drivers prepare the claims of pods before they start, and take them back after the last one ended.
//!
//! Owns: the drivers that registered, who was asked to prepare what ([`ledger`], kept on disk), and the node's
//! ResourceSlices once their driver is gone. Never touches: which device a claim gets (the scheduler decides, and drivers
//! publish what there is), devices, and containers: [`DynamicResources::names`] says what a container gets, in names of
//! the Container Device Interface.
//!
//! Start at [`DynamicResources::prepare`]. No lock is held while a driver is asked: one that hangs holds up the pods that
//! use it and nobody else.

mod ledger;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::gvr::{RESOURCE_CLAIMS, RESOURCE_SLICES};
use api::view::ResourceClaim;
use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use client::typed::view;
use client::{Api, DeleteOptions, ListOptions};
use grpc::{Client, Options};
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use rt::Shutdown;
use tracing::{info, warn};

use super::config::{name, namespace, uid};
use super::plugins::{Handler, Plugin};
use super::retry::Pauses;
use super::volumes::layout::is_one_name;
use ledger::{Device, Entry, Key, Ledger};
use messages::{Claim, Claims, Prepared, SERVICES, Service, Unprepared};

/// Below the node's root.
const LEDGER: &str = "dra_manager_state";

/// A call that is not answered within this time has failed, and is made again later.
const CALL_TIMEOUT: Duration = Duration::from_secs(45);

/// A driver that is gone for so long is not coming back at once: nobody should be sent to its devices.
const SLICES_STAY: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Driver {
    client: Client,
    service: Service,
    socket: Utf8PathBuf,
    endpoint: Utf8PathBuf,
}

pub struct DynamicResources {
    api: Arc<dyn Api>,
    node: String,
    path: Utf8PathBuf,
    /// By driver, in the order in which they came: while one replaces another there are two.
    drivers: Mutex<BTreeMap<String, Vec<Driver>>>,
    /// Held while it is written. Never taken together with `drivers`.
    ledger: Mutex<Ledger>,
}

/// A claim of a pod that is allocated.
struct Wanted {
    key: Key,
    uid: String,
    drivers: BTreeSet<String>,
}

impl DynamicResources {
    /// `root` is the node's folder, `/var/lib/kubelet` to drivers.
    pub fn open(api: Arc<dyn Api>, node: &str, root: &Utf8Path) -> Arc<Self> {
        let path = root.join(LEDGER);
        let ledger = Ledger::read(&path).unwrap_or_else(|error| {
            warn!(%path, %error, "Which claims are prepared is not known any more");
            Ledger::default()
        });
        let (drivers, ledger) = (Mutex::default(), Mutex::new(ledger));
        Arc::new(Self { api, node: node.to_owned(), path, drivers, ledger })
    }

    /// No driver has registered yet, so nothing of this node can be used: drivers say again what there is.
    pub async fn run(&self, shutdown: Shutdown) {
        tokio::select! {
            () = self.remove_slices("") => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn remove_slices(&self, driver: &str) {
        let mut field_selector = format!("spec.nodeName={}", self.node);
        if !driver.is_empty() {
            field_selector += &format!(",spec.driver={driver}");
        }
        let selection = ListOptions { field_selector, ..ListOptions::default() };
        let mut pauses = Pauses::default();
        loop {
            let options = DeleteOptions::default();
            match self.api.delete_collection(&RESOURCE_SLICES, "", &selection, &options).await {
                Ok(()) => return,
                Err(status) if status.is_not_found() => return,
                Err(error) => {
                    warn!(driver, %error, "ResourceSlices of a driver that is gone are still there")
                }
            }
            rt::sleep(pauses.next_pause()).await;
        }
    }

    fn driver(&self, name: &str) -> Result<Driver, String> {
        let drivers = self.drivers.lock();
        // The newest is the one that stays.
        let newest = drivers.get(name).and_then(|own| own.last()).cloned();
        newest.ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    /// Has the pod's claims prepared, those that are not yet.
    ///
    /// # Errors
    /// Upstream's message of why they are not.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        let failed = |why: String| format!("prepare dynamic resources: {why}");
        self.prepare_all(pod).await.map_err(failed)
    }

    async fn prepare_all(&self, pod: &Pod) -> Result<(), String> {
        let mut wanted = Vec::new();
        for (claim, is_own) in claims(pod) {
            wanted.push(self.look_up(pod, &claim, is_own).await?);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        // Before anything is written down: a pod whose driver is not here can go without it.
        for driver in wanted.iter().flat_map(|own| &own.drivers) {
            self.driver(driver)?;
        }
        let mut batches: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        let mut asked = Vec::new();
        {
            let mut ledger = self.ledger.lock();
            for Wanted { key, uid: claim_uid, drivers } in &wanted {
                if ledger.reserve(key, claim_uid, drivers, uid(pod))? {
                    continue;
                }
                asked.push(claim_uid.clone());
                for driver in drivers {
                    batches.entry(driver.clone()).or_default().push(message(key, claim_uid));
                }
            }
            self.write(&ledger)?;
        }
        for (name, claims) in batches {
            self.prepare_batch(&name, claims).await?;
        }
        let mut ledger = self.ledger.lock();
        asked.iter().for_each(|uid| ledger.set_prepared(uid));
        self.write(&ledger)
    }

    async fn prepare_batch(&self, name: &str, claims: Vec<Claim>) -> Result<(), String> {
        let driver = self.driver(name)?;
        let request = Claims { claims };
        let options = Options::timeout(CALL_TIMEOUT);
        let answer = driver.client.unary::<_, Prepared>(driver.service.prepare, &request, options).await;
        let mut answer = answer.map_err(|status| format!("NodePrepareResources: {status}"))?;
        for claim in &request.claims {
            let Some(own) = answer.claims.remove(&claim.uid) else {
                return Err("NodePrepareResources skipped 1 ResourceClaims".to_owned());
            };
            if !own.error.is_empty() {
                let why = own.error;
                return Err(format!("NodePrepareResources failed for ResourceClaim {}: {why}", claim.name));
            }
            let device = |own: messages::Device| Device {
                requests: own.request_names,
                pool: own.pool_name,
                device: own.device_name,
                cdi: own.cdi_device_ids,
            };
            let devices = own.devices.into_iter().map(device).collect();
            self.ledger.lock().set_devices(&claim.uid, name, devices);
        }
        match answer.claims.keys().next() {
            Some(other) => Err(format!("NodePrepareResources returned result for unknown claim UID {other}")),
            None => Ok(()),
        }
    }

    async fn look_up(&self, pod: &Pod, claim: &str, is_own: bool) -> Result<Wanted, String> {
        let object = self.api.get(&RESOURCE_CLAIMS, namespace(pod), claim).await;
        let object = object.map_err(|status| format!("fetch ResourceClaim {claim}: {}", status.message))?;
        let found = view::<ResourceClaim>(&object).map_err(|status| status.message)?;
        let meta = &found.metadata;
        if is_own && !is_made_for(&object, pod) {
            return Err(format!(
                "ResourceClaim {}/{claim} was not created for pod {}/{} (pod is not owner)",
                namespace(pod),
                namespace(pod),
                name(pod)
            ));
        }
        if !found.is_reserved_for(uid(pod)) {
            return Err(format!(
                "pod {} ({}) is not allowed to use ResourceClaim {claim} ({})",
                name(pod),
                uid(pod),
                meta.uid
            ));
        }
        let Some(allocation) = &found.status.allocation else {
            return Err(format!("ResourceClaim {claim}: not allocated"));
        };
        let drivers = allocation.devices.results.iter().map(|own| own.driver.to_string()).collect();
        Ok(Wanted { key: (namespace(pod).to_owned(), claim.to_owned()), uid: meta.uid.to_string(), drivers })
    }

    /// CDI's names of what a container gets of its pod's claims.
    ///
    /// # Errors
    /// Where a claim was not prepared.
    pub fn names(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, String> {
        let ledger = self.ledger.lock();
        let mut names = Vec::new();
        for (claim, request) in requests(pod, container) {
            let key = (namespace(pod).to_owned(), claim);
            let own = ledger.names(&key, &request);
            names
                .extend(own.ok_or_else(|| format!("unable to get information for ResourceClaim {}", key.1))?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The pod's containers have ended for good: claims that nobody else has are given back.
    ///
    /// # Errors
    /// Upstream's message of why one is not; calling again goes on.
    pub async fn unprepare(&self, pod: &str) -> Result<(), String> {
        if !self.ledger.lock().has(pod) {
            return Ok(());
        }
        let failed = |why: String| format!("unprepare dynamic resources: {why}");
        let last = self.ledger.lock().release(pod);
        let mut batches: BTreeMap<&str, Vec<Claim>> = BTreeMap::new();
        for (key, Entry { uid, drivers, .. }) in &last {
            for driver in drivers.keys() {
                batches.entry(driver).or_default().push(message(key, uid));
            }
        }
        for (name, claims) in batches {
            self.unprepare_batch(name, claims).await.map_err(failed)?;
        }
        let mut ledger = self.ledger.lock();
        last.iter().for_each(|(key, _)| ledger.remove(key, pod));
        self.write(&ledger).map_err(failed)
    }

    async fn unprepare_batch(&self, name: &str, claims: Vec<Claim>) -> Result<(), String> {
        let driver = self.driver(name)?;
        let request = Claims { claims };
        let options = Options::timeout(CALL_TIMEOUT);
        let answer = driver.client.unary::<_, Unprepared>(driver.service.unprepare, &request, options).await;
        let answer = answer.map_err(|status| format!("NodeUnprepareResources: {status}"))?;
        for claim in &request.claims {
            match answer.claims.get(&claim.uid) {
                Some(own) if own.error.is_empty() => {}
                Some(own) => {
                    let why = &own.error;
                    return Err(format!(
                        "NodeUnprepareResources failed for ResourceClaim {}: {why}",
                        claim.name
                    ));
                }
                None => return Err("NodeUnprepareResources skipped 1 ResourceClaims".to_owned()),
            }
        }
        Ok(())
    }

    fn write(&self, ledger: &Ledger) -> Result<(), String> {
        ledger.write(&self.path).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }
}

fn message((namespace, name): &Key, uid: &str) -> Claim {
    Claim { namespace: namespace.clone(), uid: uid.to_owned(), name: name.clone() }
}

/// The pod's claims by name, and whether each was made for it. An entry from whose template nothing was made has none.
fn claims(pod: &Pod) -> Vec<(String, bool)> {
    let entries = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let named = entries.filter_map(|entry| claim_of(pod, &entry.name, entry.resource_claim_name.as_ref()));
    let status = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
    let extended = status.map(|own| (own.resource_claim_name.clone(), false));
    named.chain(extended).collect()
}

fn claim_of(pod: &Pod, entry: &str, named: Option<&String>) -> Option<(String, bool)> {
    if let Some(name) = named {
        return Some((name.clone(), false));
    }
    let made = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    let name = made.into_iter().find(|own| own.name == entry)?.resource_claim_name.clone()?;
    Some((name, true))
}

/// A container's claims, and what of each: a request, or all of them.
fn requests(pod: &Pod, container: &Container) -> Vec<(String, String)> {
    let spec = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let entries: Vec<_> = spec.collect();
    let own = container.resources.iter().flat_map(|own| own.claims.iter().flatten());
    let of_claims = own.filter_map(|own| {
        let entry = entries.iter().find(|entry| entry.name == own.name)?;
        let (claim, _) = claim_of(pod, &entry.name, entry.resource_claim_name.as_ref())?;
        Some((claim, own.request.clone().unwrap_or_default()))
    });
    let extended = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
    let mapped = extended.into_iter().flat_map(|status| {
        let own = status.request_mappings.iter().filter(|own| own.container_name == container.name);
        own.map(|own| (status.resource_claim_name.clone(), own.request_name.clone()))
    });
    of_claims.chain(mapped).collect()
}

fn is_made_for(claim: &apimachinery::Object, pod: &Pod) -> bool {
    let tree = claim.to_value();
    let owners = tree.array_at(&["metadata", "ownerReferences"]).iter();
    owners.filter(|own| own["controller"].as_bool() == Some(true)).any(|own| own.str_at(&["uid"]) == uid(pod))
}

#[async_trait]
impl Handler for DynamicResources {
    fn kind(&self) -> &'static str {
        "DRAPlugin"
    }

    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        let Plugin { name, endpoint, socket, versions } = plugin;
        let service = SERVICES.iter().find(|own| versions.iter().any(|version| version == own.name));
        let Some(service) = service.filter(|_| is_one_name(name)) else {
            return Err(format!(
                "invalid supported gRPC versions of DRA driver plugin {name} at endpoint {endpoint}: none of {versions:?} \
                 is supported"
            ));
        };
        let client = Client::unix(endpoint);
        let driver = Driver { client, service: *service, socket: socket.clone(), endpoint: endpoint.clone() };
        let mut drivers = self.drivers.lock();
        let of_name = drivers.entry(name.clone()).or_default();
        // Registered again by the same socket, it is the same; another instance must not take over its endpoint.
        of_name.retain(|own| own.socket != *socket);
        if of_name.iter().any(|own| own.endpoint == *endpoint) {
            return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {name}"));
        }
        of_name.push(driver);
        Ok(())
    }

    async fn deregister(&self, plugin: &Plugin) {
        let is_gone = || !self.drivers.lock().contains_key(&plugin.name);
        {
            let mut drivers = self.drivers.lock();
            if let Some(of_name) = drivers.get_mut(&plugin.name) {
                of_name.retain(|own| own.socket != plugin.socket);
                if of_name.is_empty() {
                    drivers.remove(&plugin.name);
                }
            }
        }
        if is_gone() {
            rt::sleep(SLICES_STAY).await;
            if is_gone() {
                info!(driver = plugin.name, "A driver is gone, and what it said that there is goes, too");
                self.remove_slices(&plugin.name).await;
            }
        }
    }
}
