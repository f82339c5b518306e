//! What happens to a claim or a volume, decided from what is there. The rules and texts are those of upstream's
//! binder and of `component-helpers/storage/volume`.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::view::{PersistentVolume, PersistentVolumeClaim, StorageClass};
use api::volumes::in_tree::MIGRATED_TO;
use api::volumes::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, SELECTED_NODE, has_access_modes, is_free_for,
    is_reserved_for, selector, suits,
};
use apimachinery::{Object, Quantity, Str};
use client::events::Severity;

use super::in_tree;

/// What a claim is looked at together with.
#[derive(Default)]
pub(super) struct Around {
    /// The volume of `spec.volumeName`.
    pub named: Option<Arc<Object>>,
    /// Volumes without a claim in the claim's class, and those that name the claim.
    pub volumes: Vec<Arc<Object>>,
    pub class: Option<Arc<StorageClass>>,
    /// The class of claims that say nothing about one.
    pub default_class: Option<Str>,
    /// Pods without a node that use the claim.
    pub waiting_pods: Vec<Str>,
}

/// An event about the object that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, Debug)]
pub(super) enum ClaimPlan {
    Bind(Arc<Object>),
    /// Not bound; somebody or something else comes first.
    Pending(Option<Event>),
    AssignClass(Str),
    /// A volume is somebody else's to make.
    Provision {
        provisioner: Str,
    },
    /// As it is, and the user is told why.
    Tell(Event),
    Lost(Event),
    /// As [`ClaimPlan::Tell`], and tried again: its volume may become free.
    Retry(Event),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VolumePlan {
    Nothing,
    Phase(&'static str),
    /// Its claim is gone: `Released`, then what its policy says.
    Reclaim(Reclaim),
    /// Its claim is bound to another volume.
    Unbind,
    /// Volume and claim name each other and do not fit.
    Mismatch {
        of_volume: Event,
        of_claim: Event,
    },
}

/// The end of a volume whose claim is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reclaim {
    /// It stays, or an external provisioner deletes it.
    Keep,
    /// Nothing of it is outside the API.
    Delete,
    Fail(Event),
}

// === impl Event ===

impl Event {
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Normal, reason, message: message.into() }
    }

    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, reason, message: message.into() }
    }
}

// === claims ===

pub(super) fn claim(claim: &PersistentVolumeClaim, around: &Around) -> ClaimPlan {
    let named = match &around.named {
        Some(object) => object.view::<PersistentVolume>().ok().map(|volume| (object, volume)),
        None => None,
    };
    let is_named = !claim.spec.volume_name.is_empty();
    match (claim.metadata.annotations.contains_key(BIND_COMPLETED), is_named) {
        (true, _) => bound(claim, named),
        (false, true) => prebound(claim, named),
        (false, false) => unbound(claim, around),
    }
}

type Named<'a> = Option<(&'a Arc<Object>, Arc<PersistentVolume>)>;

/// A claim that was bound once: binding is made good, or it is lost for ever.
fn bound(claim: &PersistentVolumeClaim, named: Named<'_>) -> ClaimPlan {
    let lost = |reason, message: &str| ClaimPlan::Lost(Event::warning(reason, message));
    if claim.spec.volume_name.is_empty() {
        let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost("ClaimLost", message);
    }
    let Some((object, volume)) = named else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match &volume.spec.claim_ref {
        Some(reference) if reference.uid != claim.metadata.uid => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => ClaimPlan::Bind(object.clone()),
    }
}

/// A claim that asks for one volume by name.
fn prebound(claim: &PersistentVolumeClaim, named: Named<'_>) -> ClaimPlan {
    let Some((object, volume)) = named else { return ClaimPlan::Pending(None) };
    if volume.spec.claim_ref.is_none() {
        return match mismatch(claim, &volume) {
            None => ClaimPlan::Bind(object.clone()),
            Some(why) => {
                let message = format!("Cannot bind to requested volume \"{}\": {why}", volume.metadata.name);
                ClaimPlan::Pending(Some(Event::warning("VolumeMismatch", message)))
            }
        };
    }
    if is_reserved_for(&volume, claim) {
        return ClaimPlan::Bind(object.clone());
    }
    let message = format!("volume \"{}\" already bound to a different claim.", volume.metadata.name);
    let event = Event::warning("FailedBinding", message);
    if claim.metadata.annotations.contains_key(BOUND_BY_CONTROLLER) {
        ClaimPlan::Retry(event)
    } else {
        ClaimPlan::Pending(Some(event))
    }
}

fn unbound(claim: &PersistentVolumeClaim, around: &Around) -> ClaimPlan {
    let waits = around.class.as_ref().is_some_and(|class| class.waits_for_consumer());
    if let Some(volume) = best_match(claim, &around.volumes, waits) {
        return ClaimPlan::Bind(volume);
    }
    if let Some(class) = around.default_class.as_ref().filter(|_| !claim.has_class()) {
        return ClaimPlan::AssignClass(class.clone());
    }
    if waits && !claim.metadata.annotations.contains_key(SELECTED_NODE) {
        return ClaimPlan::Pending(Some(waits_for_consumer(&around.waiting_pods)));
    }
    if claim.class().is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        return ClaimPlan::Pending(Some(Event::normal("FailedBinding", message)));
    }
    match &around.class {
        Some(class) => match in_tree::provisioner(&class.provisioner) {
            Ok(provisioner) => ClaimPlan::Provision { provisioner },
            Err(message) => ClaimPlan::Tell(Event::warning("ProvisioningFailed", message)),
        },
        None => {
            let message = format!("storageclass.storage.k8s.io \"{}\" not found", claim.class());
            ClaimPlan::Tell(Event::warning("ProvisioningFailed", message))
        }
    }
}

fn waits_for_consumer(pods: &[Str]) -> Event {
    match pods {
        [] => {
            let message = "waiting for first consumer to be created before binding";
            Event::normal("WaitForFirstConsumer", message)
        }
        [pod] => Event::normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => {
            let message = format!("waiting for pods {} to be scheduled", pods.join(","));
            Event::normal("WaitForPodScheduled", message)
        }
    }
}

/// The newest class that is marked as the default one; of several of one second the first by name.
pub(super) fn default_class(classes: &[Arc<Object>]) -> Option<Str> {
    let marked =
        classes.iter().filter(|class| class.view::<StorageClass>().is_ok_and(|own| own.is_default()));
    let order = |class: &&Arc<Object>| {
        (std::cmp::Reverse(class.creation_timestamp().to_owned()), class.name().to_owned())
    };
    marked.min_by_key(order).map(|class| class.name().into())
}

/// The volume for a claim: the one that names it, else the smallest of those that are free and fit. Volumes with
/// fewer access modes come first, whatever their size. Of a claim that waits for its consumer the scheduler chooses
/// the volume, by naming the claim in it.
fn best_match(claim: &PersistentVolumeClaim, volumes: &[Arc<Object>], waits: bool) -> Option<Arc<Object>> {
    let selector = selector(claim).ok()?;
    let views = volumes.iter().filter_map(|object| Some((object, object.view::<PersistentVolume>().ok()?)));
    let fitting = views.filter(|(_, volume)| {
        (is_reserved_for(volume, claim) || (!waits && is_free_for(volume, claim, &selector)))
            && suits(volume, claim)
            && has_access_modes(volume, claim)
    });
    let rank = |volume: &PersistentVolume| Rank {
        modes: volume.spec.access_modes.iter().collect::<BTreeSet<_>>().len(),
        free: volume.spec.claim_ref.is_none(),
        capacity: volume.capacity(),
        name: volume.metadata.name.clone(),
    };
    fitting.min_by_key(|(_, volume)| rank(volume)).map(|(object, _)| object.clone())
}

/// The order in which volumes are taken.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    modes: usize,
    free: bool,
    capacity: Quantity,
    name: Str,
}

/// Volume and claim name each other and say so: nothing is left to be written.
pub(super) fn is_bound(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let names_incarnation =
        volume.spec.claim_ref.as_ref().is_some_and(|reference| reference.uid == claim.metadata.uid);
    is_reserved_for(volume, claim)
        && names_incarnation
        && volume.status.phase == "Bound"
        && claim.spec.volume_name == volume.metadata.name
        && claim.metadata.annotations.contains_key(BIND_COMPLETED)
        && claim.status.phase == "Bound"
        && claim.status.access_modes == volume.spec.access_modes
}

/// Why a volume that a claim names cannot serve it.
fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<String> {
    let rules = [
        (volume.capacity().value() < claim.requested().value(), "requested PV is too small"),
        (volume.class() != claim.class(), "storageClassName does not match"),
        (volume.attributes_class() != claim.attributes_class(), "volumeAttributesClassName does not match"),
        (volume.mode() != claim.mode(), "incompatible volumeMode"),
        (!has_access_modes(volume, claim), "incompatible accessMode"),
    ];
    if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!("the volume is marked for deletion \"{}\"", volume.metadata.name));
    }
    rules.into_iter().find(|(broken, _)| *broken).map(|(_, why)| why.to_owned())
}

// === volumes ===

/// `claim` is the one that the volume names, if it is there and has the uid that the volume knows.
pub(super) fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumePlan {
    let Some(reference) = volume.spec.claim_ref.as_ref().filter(|own| !own.uid.is_empty()) else {
        return VolumePlan::Phase("Available");
    };
    let Some(claim) = claim.filter(|claim| claim.metadata.uid == reference.uid) else {
        return VolumePlan::Reclaim(reclaim(volume));
    };
    if claim.spec.volume_name == volume.metadata.name {
        return VolumePlan::Phase("Bound");
    }
    if claim.spec.volume_name.is_empty() {
        return if claim.mode() == volume.mode() {
            // The claim's turn binds the two.
            VolumePlan::Nothing
        } else {
            modes_differ(volume, claim)
        };
    }
    let is_provisioned = volume.metadata.annotations.contains_key(PROVISIONED_BY);
    if is_provisioned && volume.spec.persistent_volume_reclaim_policy == "Delete" {
        VolumePlan::Reclaim(reclaim(volume))
    } else {
        VolumePlan::Unbind
    }
}

fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> VolumePlan {
    let of_volume = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{}\" due to incompatible volumeMode.",
        claim.metadata.name
    );
    let of_claim = format!(
        "Cannot bind PersistentVolume \"{}\" to requested PersistentVolumeClaim due to incompatible volumeMode.",
        volume.metadata.name
    );
    VolumePlan::Mismatch {
        of_volume: Event::warning("VolumeMismatch", of_volume),
        of_claim: Event::warning("VolumeMismatch", of_claim),
    }
}

/// What the policy of a released volume asks for.
fn reclaim(volume: &PersistentVolume) -> Reclaim {
    if volume.metadata.annotations.get(MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) {
        return Reclaim::Keep;
    }
    match volume.spec.persistent_volume_reclaim_policy.as_str() {
        "Retain" => Reclaim::Keep,
        "Delete" => in_tree::delete(volume),
        "Recycle" => {
            Reclaim::Fail(Event::warning("VolumeFailedRecycle", "No recycler plugin found for the volume!"))
        }
        _ => Reclaim::Fail(Event::warning(
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy",
        )),
    }
}
