//! [`Cluster`]: everything that is known about devices, fed by events; and one pod's [`PodClaims`] against it.
//!
//! One for all profiles (`Informers::common`): a device that one of them has promised is taken for the others, too.

use std::collections::HashSet;
use std::sync::Arc;

use api::gvr::{DEVICE_CLASSES, RESOURCE_CLAIMS, RESOURCE_SLICES};
use api::view::{Pod, PodResourceClaim, ResourceClaim, ResourceSlice};
use apimachinery::{GroupVersionResource, Object, Str};
use client::ObjectKey;

use super::claims::Claims;
use super::classes::Classes;
use super::extended::{self, BackedResources, Requests};
use super::inventory::Inventory;
use super::selectors::Selectors;
use super::wanted::{Wanted, alternatives_of, key};
use crate::framework::Status;
use crate::pod::PodInfo;

#[derive(Debug, Default)]
pub struct Cluster {
    pub inventory: Inventory,
    pub classes: Classes,
    pub claims: Claims,
    pub selectors: Selectors,
}

/// A claim that a pod uses.
#[derive(Clone, Debug)]
pub struct PodClaim {
    pub object: Arc<Object>,
    pub view: Arc<ResourceClaim>,
}

/// The claims of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodClaims {
    /// Those that its spec names, in that order.
    pub claims: Vec<PodClaim>,
    /// What those of them ask for that have no devices yet.
    pub wanted: Wanted,
    /// That for its extended resources, if device classes stand for any: made before, or in memory.
    pub extended: Option<Extended>,
}

/// Extended resources of a pod that devices can serve.
#[derive(Clone, Debug)]
pub struct Extended {
    pub claim: PodClaim,
    pub backed: BackedResources,
}

// === impl Cluster ===

impl Cluster {
    /// The current state of an object; `None` when it is gone. Each profile tells, so it may be known.
    pub fn set(&mut self, resource: &GroupVersionResource, key: &ObjectKey, object: Option<&Arc<Object>>) {
        if *resource == RESOURCE_CLAIMS {
            match object {
                Some(claim) => self.claims.observe(claim),
                None => self.claims.forget(key),
            }
        } else if *resource == DEVICE_CLASSES {
            match object {
                Some(class) => self.classes.insert(class.clone()),
                None => self.classes.remove(&key.name),
            }
        } else if *resource == RESOURCE_SLICES {
            let old = match object.and_then(|slice| slice.view::<ResourceSlice>().ok()) {
                Some(slice) => self.inventory.insert(slice),
                None => self.inventory.remove(&key.name),
            };
            old.iter().for_each(|old| self.selectors.forget(old));
        }
    }

    /// These are all.
    pub fn set_all(&mut self, resource: &GroupVersionResource, objects: &[Arc<Object>]) {
        let keyed: Vec<_> = objects.iter().map(|object| (ObjectKey::from(&**object), object)).collect();
        let present: HashSet<&ObjectKey> = keyed.iter().map(|(key, _)| key).collect();
        let gone = self.keys(resource).into_iter().filter(|key| !present.contains(key));
        gone.collect::<Vec<_>>().iter().for_each(|key| self.set(resource, key, None));
        keyed.iter().for_each(|(key, object)| self.set(resource, key, Some(object)));
    }

    fn keys(&self, resource: &GroupVersionResource) -> Vec<ObjectKey> {
        let clustered = |names: Vec<Str>| names.iter().map(|name| ObjectKey::cluster(name)).collect();
        if *resource == RESOURCE_CLAIMS {
            self.claims.keys()
        } else if *resource == RESOURCE_SLICES {
            clustered(self.inventory.names())
        } else {
            clustered(self.classes.names())
        }
    }

    /// The claims that a pod's spec names; an error says why there is one that it cannot use (yet).
    pub fn named_claims(&self, pod: &Pod) -> Result<Vec<PodClaim>, String> {
        let named = pod.spec.resource_claims.iter().map(|entry| self.named_claim(pod, entry));
        named.filter_map(Result::transpose).collect()
    }

    /// `None` for an entry whose template asks for nothing.
    fn named_claim(&self, pod: &Pod, entry: &PodResourceClaim) -> Result<Option<PodClaim>, String> {
        let Pod { metadata, status, .. } = pod;
        let (namespace, pod_name) = (&metadata.namespace, &metadata.name);
        let is_made = entry.resource_claim_name.is_empty();
        let name = if !is_made {
            &entry.resource_claim_name
        } else if entry.resource_claim_template_name.is_empty() {
            return Err(format!(
                "pod \"{namespace}/{pod_name}\", spec.resourceClaim {:?}: none of the supported fields are set",
                entry.name.as_str()
            ));
        } else {
            let made = status.resource_claim_statuses.iter().find(|own| own.name == entry.name);
            let made =
                made.ok_or_else(|| format!("pod \"{namespace}/{pod_name}\": ResourceClaim not created yet"))?;
            let Some(name) = &made.resource_claim_name else { return Ok(None) };
            name
        };
        let object = self.claims.get(namespace, name);
        let object = object.ok_or_else(|| format!("could not find ResourceClaim \"{namespace}/{name}\""))?;
        if object.is_deleting() {
            return Err(format!("resourceclaim {:?} is being deleted", name.as_str()));
        }
        if is_made && object.controller_owner().is_none_or(|owner| owner.uid != metadata.uid.as_str()) {
            return Err(format!(
                "ResourceClaim {namespace}/{name} was not created for Pod {namespace}/{pod_name} (Pod is not owner)"
            ));
        }
        PodClaim::new(object.clone()).map(Some)
    }

    /// Everything that a pod uses; `None` when it uses no devices.
    pub fn claims_of(&mut self, pod: &PodInfo) -> Result<Option<PodClaims>, Status> {
        let claims = self.named_claims(&pod.pod).map_err(Status::unresolvable)?;
        let extended = self.extended_of(pod)?;
        if claims.is_empty() && extended.is_none() {
            return Ok(None);
        }
        let unallocated: Vec<_> = claims.iter().filter(|claim| !claim.is_allocated()).collect();
        for claim in &unallocated {
            self.check_allocatable(claim)?;
        }
        self.selectors.make_room();
        let Self { selectors, classes, .. } = self;
        let views = unallocated.iter().map(|claim| claim.view.clone());
        let wanted = Wanted::new(views, selectors, |name| classes.get(name)).map_err(Status::error)?;
        Ok(Some(PodClaims { claims, wanted, extended }))
    }

    fn extended_of(&self, pod: &PodInfo) -> Result<Option<Extended>, Status> {
        let Some(backed) = BackedResources::of(pod, &self.classes) else { return Ok(None) };
        let claim = match self.claims.for_extended_resources_of(&pod.pod) {
            Some(made) => made.clone(),
            None => {
                let tree = extended::claim_in_memory(&pod.pod, Vec::new());
                Arc::new(extended::object(&tree).ok_or_else(|| Status::error("claim in memory"))?)
            }
        };
        let claim = PodClaim::new(claim).map_err(Status::error)?;
        Ok(Some(Extended { claim, backed }))
    }

    /// Nobody else is at it, and all of its classes are there.
    fn check_allocatable(&self, claim: &PodClaim) -> Result<(), Status> {
        if self.claims.is_promised(claim.object.uid()) {
            return Err(Status::unresolvable(format!(
                "resource claim {} is in the process of being allocated",
                key(&claim.view)
            )));
        }
        for request in &claim.view.spec.devices.requests {
            for exact in alternatives_of(request) {
                let name = match request.exactly {
                    Some(_) => request.name.to_string(),
                    None => format!("{}/{}", request.name, exact.name),
                };
                let class = &exact.device_class_name;
                if class.is_empty() {
                    return Err(Status::error(format!("request {name}: unsupported request type")));
                }
                if self.classes.object(class).is_none() {
                    let why = format!("request {name}: device class {class} does not exist");
                    return Err(Status::unresolvable(why));
                }
            }
        }
        Ok(())
    }

    /// What a pod wants where devices have to serve these of its extended resources, with the requests for them.
    pub fn wanted_with(
        &mut self,
        pod: &Pod,
        claims: &PodClaims,
        resources: &[Str],
    ) -> Result<(Wanted, Requests), String> {
        let requests = extended::requests(pod, resources, &self.classes);
        let tree = extended::claim_in_memory(pod, requests.requests.clone());
        let claim = extended::object(&tree).and_then(|object| object.view::<ResourceClaim>().ok());
        let claim = claim.ok_or("claim in memory")?;
        let Self { selectors, classes, .. } = self;
        let made = Wanted::new([claim], selectors, |name| classes.get(name))?;
        let mut wanted = claims.wanted.clone();
        wanted.claims.extend(made.claims);
        Ok((wanted, requests))
    }
}

// === impl PodClaim ===

impl PodClaim {
    pub fn new(object: Arc<Object>) -> Result<Self, String> {
        let view = object.view().map_err(|error| error.to_string())?;
        Ok(Self { object, view })
    }

    pub fn is_allocated(&self) -> bool {
        self.view.status.allocation.is_some()
    }
}
