//! A pod's claims, read from what the API shows and what is assumed.

use std::sync::Arc;

use api::view::{
    CsiDriver, CsiStorageCapacity, PersistentVolume, PersistentVolumeClaim, Pod, StorageClass, Volume,
};
use api::volumes::{claim_name, is_fully_bound};
use apimachinery::Object;

use super::VolumeBinding;
use super::claims::{Candidate, PodClaims, Room, WaitingClaim};
use crate::framework::Status;
use crate::plugins::volumes::{OF_CLASS, check_owner, not_found};

impl VolumeBinding {
    /// The claims of a pod that may be scheduled; why not, otherwise.
    pub(super) fn read(&self, pod: &Pod) -> Result<PodClaims, Status> {
        let mut claims = PodClaims::default();
        let mut is_immediate = false;
        for object in self.usable(pod).map_err(Status::unresolvable)? {
            let Some(claim) = self.assumed_claims.view(&object) else { continue };
            if is_fully_bound(&claim) {
                claims.bound.push(self.volume(&claim.spec.volume_name));
                continue;
            }
            match self.class_to_wait_for(&claim)? {
                Some(class) => claims.waiting.push(self.waiting(object, claim, class)),
                None => is_immediate = true,
            }
        }
        if is_immediate {
            return Err(Status::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
        }
        claims.waiting.sort_by_key(|claim| claim.view.requested());
        Ok(claims)
    }

    /// All claims of the pod; why one cannot be used, otherwise.
    fn usable(&self, pod: &Pod) -> Result<Vec<Arc<Object>>, String> {
        let mut claims = Vec::new();
        for volume in &pod.spec.volumes {
            if let Some(name) = claim_name(&pod.metadata.name, volume) {
                claims.push(self.usable_claim(pod, volume, &name)?);
            }
        }
        Ok(claims)
    }

    fn usable_claim(&self, pod: &Pod, volume: &Volume, name: &str) -> Result<Arc<Object>, String> {
        let is_own = volume.persistent_volume_claim.is_none();
        let object = self.claims.object(&pod.metadata.namespace, name).ok_or_else(|| match is_own {
            true => {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                )
            }
            false => not_found("persistentvolumeclaim", name),
        })?;
        let claim: Arc<PersistentVolumeClaim> = object.view().map_err(|error| error.to_string())?;
        if claim.status.phase == "Lost" {
            return Err(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"",
                claim.spec.volume_name
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if is_own {
            check_owner(&claim, pod)?;
        }
        Ok(object)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.assumed_volumes.view(&*self.volumes.object("", name)?)
    }

    /// The class of an unbound claim, if that leaves it to the scheduler. A claim that names a volume is the binder's.
    fn class_to_wait_for(&self, claim: &PersistentVolumeClaim) -> Result<Option<Arc<StorageClass>>, Status> {
        let name = claim.class();
        let Some(class) = self.classes.get::<StorageClass>("", name) else { return Ok(None) };
        if class.volume_binding_mode.is_empty() {
            return Err(Status::error(format!("VolumeBindingMode not set for StorageClass \"{name}\"")));
        }
        Ok(Some(class).filter(|class| class.waits_for_consumer() && claim.spec.volume_name.is_empty()))
    }

    fn waiting(
        &self,
        object: Arc<Object>,
        view: Arc<PersistentVolumeClaim>,
        class: Arc<StorageClass>,
    ) -> WaitingClaim {
        let volumes = self.volumes.informer().by_index(OF_CLASS, view.class());
        let mut candidates: Vec<Candidate> = volumes
            .into_iter()
            .filter_map(|object| Some(Candidate { view: self.assumed_volumes.view(&object)?, object }))
            .collect();
        // Of equal ones the first by name, whatever the order of the informer.
        candidates.sort_by(|a, b| a.view.metadata.name.cmp(&b.view.metadata.name));
        let room = self.room(&view, &class);
        WaitingClaim { object, view, class, volumes: candidates.into(), room }
    }

    /// Only drivers that opt in say where they have room.
    fn room(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Room {
        let driver: Option<Arc<CsiDriver>> = self.drivers.get("", &class.provisioner);
        let says = driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true));
        if !says || claim.spec.resources.requests.get("storage").is_none() {
            return Room::Unknown;
        }
        let capacities = self.capacities.informer().list();
        let views: Vec<Arc<CsiStorageCapacity>> =
            capacities.iter().filter_map(|capacity| capacity.view().ok()).collect();
        Room::of(claim, views.iter().map(|view| &**view))
    }
}
