//! [`Signature`]: what of a pod its placement depends on, as bytes.
//!
//! Pods of equal signature get equal answers from every `Filter` and `Score` plugin for every node, so they share
//! the work. Compared as bytes, not as a hash: a collision would place a pod by another pod's rules.

use api::view::Pod;
use apimachinery::Str;

/// Parts of a pod that several plugins read; each is signed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    NodeName,
    Tolerations,
    NodeAffinity,
    HostPorts,
    Requests,
    Images,
    /// With the namespace; only of pods for which it matters whose terms and constraints are about them.
    Labels,
    PodAffinity,
    TopologySpread,
    /// Only while pods are nominated for nodes.
    Priority,
}

/// A pod's answers depend on more than its own fields and single nodes; it takes no part in sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotShareable;

/// The bytes so far.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    bytes: Vec<u8>,
    signed: u32,
}

impl Signature {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.signed = 0;
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Signs a fragment, unless another plugin has already done so.
    pub fn fragment(&mut self, fragment: Fragment, write: impl FnOnce(&mut Self)) {
        let bit = 1 << fragment as u32;
        if self.signed & bit == 0 {
            self.signed |= bit;
            self.bytes.push(fragment as u8);
            write(self);
        }
    }

    /// What terms and constraints select a pod by.
    pub fn labels(&mut self, pod: &Pod) {
        self.fragment(Fragment::Labels, |out| {
            out.text(&pod.metadata.namespace);
            out.number(pod.metadata.labels.len() as i64);
            for (key, value) in &pod.metadata.labels {
                out.text(key);
                out.text(value);
            }
        });
    }

    pub fn number(&mut self, number: i64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    /// With its length, so that neighbouring texts cannot run into each other.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as i64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub fn texts(&mut self, texts: &[Str]) {
        self.number(texts.len() as i64);
        texts.iter().for_each(|text| self.text(text));
    }
}
