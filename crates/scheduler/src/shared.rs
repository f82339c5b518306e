//! [`Shortlists`]: those that are kept for the next pods of their signatures, within a bound.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::{Cache, Slot};
use crate::framework::{PluginId, Profile, Signature, Status};
use crate::pod::PodInfo;
use crate::shortlist::Shortlist;

/// Answers kept over all signatures: a million of about 64 bytes. One signature is kept whatever its size.
pub const ANSWERS_MAX: usize = 1 << 20;

/// Signatures kept, whatever the number of nodes; a repair costs every one of them what changed since its last use.
pub const SIGNATURES_MAX: usize = 256;

/// Shortlists by signature, the longest unused dropped first.
#[derive(Default)]
pub struct Shortlists {
    kept: HashMap<Box<[u8]>, Kept>,
    /// Counts uses; a stand-in for time.
    uses: u64,
    signature: Signature,
    /// Of the last pod that shared nothing; kept for its memory.
    unshared: Option<Shortlist>,
    /// The only nodes there are; `None` is all.
    within: Option<Arc<[Slot]>>,
}

struct Kept {
    shortlist: Shortlist,
    used: u64,
}

impl Shortlists {
    /// Shortlists as if there were no other nodes.
    pub fn within(nodes: Arc<[Slot]>) -> Self {
        Self { within: Some(nodes), ..Self::default() }
    }

    /// How many nodes there are for the pods.
    pub fn node_count(&self, cache: &Cache) -> usize {
        self.within.as_ref().map_or(cache.node_count(), |within| within.len())
    }

    /// The up-to-date shortlist for a pod: shared if its signature allows. An error when a `PreFilter` plugin
    /// rejects the pod for all nodes.
    pub fn of(
        &mut self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        cache: &Cache,
    ) -> Result<&mut Shortlist, (PluginId, Status)> {
        if profile.sign(pod, cache, &mut self.signature).is_err() {
            let list = match self.unshared.take() {
                None => Shortlist::within(self.within.clone(), profile, pod.clone(), cache)?,
                Some(mut last) => {
                    last.renew(profile, pod.clone(), cache)?;
                    last
                }
            };
            return Ok(self.unshared.insert(list));
        }
        self.uses += 1;
        if !self.kept.contains_key(self.signature.bytes()) {
            let made = Shortlist::within(self.within.clone(), profile, pod.clone(), cache)?;
            self.make_room(cache.slot_count());
            self.kept.insert(self.signature.bytes().into(), Kept { shortlist: made, used: 0 });
        }
        let kept = self.kept.get_mut(self.signature.bytes()).expect("present or inserted above");
        kept.used = self.uses;
        kept.shortlist.refresh(profile, pod, cache)?;
        Ok(&mut kept.shortlist)
    }

    fn make_room(&mut self, answers_each: usize) {
        let max = (ANSWERS_MAX / answers_each.max(1)).clamp(1, SIGNATURES_MAX);
        while self.kept.len() >= max {
            let oldest =
                self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(signature, _)| signature.clone());
            let Some(oldest) = oldest else { return };
            self.kept.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.kept.len()
    }
}
