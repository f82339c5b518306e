//! [`Profiles`]: the profiles that one scheduler serves.

use std::sync::Arc;

use super::*;

/// Position of a profile among those of its scheduler.
pub type ProfileId = usize;

/// Profiles by the `schedulerName` of pods; there are few. They share one queue, and so the order of the first.
#[derive(Clone)]
pub struct Profiles(Arc<[Profile]>);

impl Profiles {
    pub fn new(mut profiles: Vec<Profile>) -> Result<Self, ProfileError> {
        if profiles.is_empty() {
            return Err(ProfileError::NoProfiles);
        }
        for at in 0..profiles.len() {
            profiles[at].id = at;
            let name = &profiles[at].scheduler_name;
            if profiles[..at].iter().any(|earlier| earlier.scheduler_name == *name) {
                return Err(ProfileError::SameName(name.clone()));
            }
        }
        Ok(Self(profiles.into()))
    }

    /// The profile that schedules a pod; `None` when another scheduler does.
    pub fn of(&self, pod: &PodInfo) -> Option<&Profile> {
        self.named(&pod.pod.spec.scheduler_name)
    }

    /// The profile of a pod that was accepted because it has one.
    pub fn serving(&self, pod: &PodInfo) -> &Profile {
        self.of(pod).expect("pods without a profile are not accepted, and the name never changes")
    }

    pub fn named(&self, scheduler_name: &str) -> Option<&Profile> {
        self.0.iter().find(|profile| profile.scheduler_name == scheduler_name)
    }

    pub fn at(&self, id: ProfileId) -> &Profile {
        &self.0[id]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Orders the queue.
    pub(crate) fn queue_sort(&self) -> &dyn QueueSort {
        &*self.0[0].queue_sort
    }
}
