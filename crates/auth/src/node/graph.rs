//! Which objects a node's pods refer to.
//!
//! Upstream walks a graph from the object to the node. Here the answer lies ready: each object that some pod refers to
//! has the nodes of those pods, with a count. A pod costs about a hundred bytes, since it holds numbers of objects and
//! not their names, and objects are shared by the pods that refer to them.
//!
//! ```text
//! pod ns/a on node 1 ─┐                     ┌─ node 1: 2 pods
//! pod ns/b on node 1 ─┼─ secret ns/shared ──┤
//! pod ns/c on node 2 ─┘                     └─ node 2: 1 pod
//! ```
//! Volumes add one step: a volume is its claim's, and a volume's secrets are the volume's.

use std::collections::{BTreeMap, HashMap};

use parking_lot::RwLock;

use super::references::{PodReferences, VolumeReferences};

/// What a node can be related to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ObjectKind {
    Pod,
    ServiceAccount,
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ResourceClaim,
    Attachment,
    Slice,
}

/// A pod as it is told apart from an earlier one of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodKey<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    /// `metadata.generation`: what a pod refers to changes with it alone (ephemeral containers).
    pub generation: i64,
    /// `spec.nodeName`; a pod without one is left out.
    pub node: &'a str,
}

/// The relations, fed with pods, volumes, attachments and slices as they change.
#[derive(Default)]
pub struct Graph(RwLock<Relations>);

#[derive(Default)]
struct Relations {
    nodes: Numbers,
    objects: Numbers,
    /// By object number: the nodes whose pods refer to it, with the number of those pods.
    nodes_of: Vec<BTreeMap<u32, u32>>,
    pods: HashMap<Box<str>, Pod>,
    volumes: HashMap<String, VolumeReferences>,
    /// By secret: the volumes that need it.
    volumes_of_secret: HashMap<(String, String), Vec<String>>,
    /// Attachments and slices: the one node each belongs to.
    owned: HashMap<(ObjectKind, String), String>,
}

struct Pod {
    uid: Box<str>,
    generation: i64,
    node: u32,
    objects: Box<[u32]>,
}

/// Numbers for names, given back when nobody uses them any more.
#[derive(Default)]
struct Numbers {
    by_name: HashMap<Box<str>, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    name: Box<str>,
    users: u32,
}

impl Graph {
    /// Takes in a pod as it is now. `references` is asked only if the pod is new here or has changed what it refers
    /// to, which it does not for nearly every event.
    pub fn upsert_pod(&self, pod: PodKey<'_>, references: impl FnOnce() -> PodReferences) {
        let key = pod_key(pod.namespace, pod.name);
        if pod.node.is_empty() {
            return self.0.write().remove_pod(&key);
        }
        if self.0.read().has_pod(&key, &pod) {
            return;
        }
        let references = references();
        self.0.write().insert_pod(key, &pod, &references);
    }

    pub fn remove_pod(&self, namespace: &str, name: &str) {
        self.0.write().remove_pod(&pod_key(namespace, name));
    }

    /// Takes in a PersistentVolume as it is now.
    pub fn upsert_volume(&self, name: &str, references: VolumeReferences) {
        let mut relations = self.0.write();
        relations.remove_volume(name);
        for secret in &references.secrets {
            relations.volumes_of_secret.entry(secret.clone()).or_default().push(name.to_owned());
        }
        relations.volumes.insert(name.to_owned(), references);
    }

    pub fn remove_volume(&self, name: &str) {
        self.0.write().remove_volume(name);
    }

    /// Takes in a VolumeAttachment and its `spec.nodeName`.
    pub fn upsert_attachment(&self, name: &str, node: &str) {
        self.own(ObjectKind::Attachment, name, node);
    }

    pub fn remove_attachment(&self, name: &str) {
        self.own(ObjectKind::Attachment, name, "");
    }

    /// Takes in a ResourceSlice and its `spec.nodeName`, empty for one that is no single node's.
    pub fn upsert_slice(&self, name: &str, node: &str) {
        self.own(ObjectKind::Slice, name, node);
    }

    pub fn remove_slice(&self, name: &str) {
        self.own(ObjectKind::Slice, name, "");
    }

    fn own(&self, kind: ObjectKind, name: &str, node: &str) {
        let mut relations = self.0.write();
        match node {
            "" => _ = relations.owned.remove(&(kind, name.to_owned())),
            node => _ = relations.owned.insert((kind, name.to_owned()), node.to_owned()),
        }
    }

    /// Whether a pod on `node` needs the object, or the object is the node's own.
    pub(super) fn is_related(&self, node: &str, kind: ObjectKind, namespace: &str, name: &str) -> bool {
        let relations = self.0.read();
        match kind {
            ObjectKind::Attachment | ObjectKind::Slice => {
                relations.owned.get(&(kind, name.to_owned())).is_some_and(|owner| owner == node)
            }
            ObjectKind::Pod => {
                let pod = relations.pods.get(&*pod_key(namespace, name));
                pod.is_some_and(|pod| relations.nodes.number(node) == Some(pod.node))
            }
            ObjectKind::Volume => relations.needs_volume(node, name),
            ObjectKind::Secret => {
                let volumes = relations.volumes_of_secret.get(&(namespace.to_owned(), name.to_owned()));
                relations.needs(node, kind, namespace, name)
                    || volumes.into_iter().flatten().any(|volume| relations.needs_volume(node, volume))
            }
            _ => relations.needs(node, kind, namespace, name),
        }
    }
}

fn pod_key(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into()
}

fn object_key(kind: ObjectKind, namespace: &str, name: &str) -> Box<str> {
    format!("{kind:?}/{namespace}/{name}").into()
}

impl Relations {
    fn has_pod(&self, key: &str, pod: &PodKey<'_>) -> bool {
        self.pods.get(key).is_some_and(|known| {
            *known.uid == *pod.uid
                && known.generation == pod.generation
                && self.nodes.number(pod.node) == Some(known.node)
        })
    }

    fn insert_pod(&mut self, key: Box<str>, pod: &PodKey<'_>, references: &PodReferences) {
        self.remove_pod(&key);
        let node = self.nodes.take(pod.node.into());
        let account = references.service_account.iter().map(|name| (ObjectKind::ServiceAccount, name));
        let secrets = references.secrets.iter().map(|name| (ObjectKind::Secret, name));
        let config_maps = references.config_maps.iter().map(|name| (ObjectKind::ConfigMap, name));
        let claims = references.claims.iter().map(|name| (ObjectKind::Claim, name));
        let resource_claims = references.resource_claims.iter().map(|name| (ObjectKind::ResourceClaim, name));
        let all = account.chain(secrets).chain(config_maps).chain(claims).chain(resource_claims);
        let objects = all
            .map(|(kind, name)| {
                let object = self.objects.take(object_key(kind, pod.namespace, name));
                if self.nodes_of.len() <= object as usize {
                    self.nodes_of.resize_with(object as usize + 1, BTreeMap::new);
                }
                *self.nodes_of[object as usize].entry(node).or_default() += 1;
                object
            })
            .collect();
        let known = Pod { uid: pod.uid.into(), generation: pod.generation, node, objects };
        self.pods.insert(key, known);
    }

    fn remove_pod(&mut self, key: &str) {
        let Some(pod) = self.pods.remove(key) else { return };
        for &object in &pod.objects {
            let nodes = &mut self.nodes_of[object as usize];
            if let Some(pods) = nodes.get_mut(&pod.node) {
                *pods -= 1;
                if *pods == 0 {
                    nodes.remove(&pod.node);
                }
            }
            self.objects.give_back(object);
        }
        self.nodes.give_back(pod.node);
    }

    fn remove_volume(&mut self, name: &str) {
        let Some(references) = self.volumes.remove(name) else { return };
        for secret in references.secrets {
            if let Some(volumes) = self.volumes_of_secret.get_mut(&secret) {
                volumes.retain(|volume| volume != name);
                if volumes.is_empty() {
                    self.volumes_of_secret.remove(&secret);
                }
            }
        }
    }

    fn needs(&self, node: &str, kind: ObjectKind, namespace: &str, name: &str) -> bool {
        let object = self.objects.number(&object_key(kind, namespace, name));
        let (Some(node), Some(object)) = (self.nodes.number(node), object) else { return false };
        self.nodes_of[object as usize].contains_key(&node)
    }

    fn needs_volume(&self, node: &str, volume: &str) -> bool {
        let claim = self.volumes.get(volume).and_then(|references| references.claim.as_ref());
        claim.is_some_and(|(namespace, name)| self.needs(node, ObjectKind::Claim, namespace, name))
    }
}

impl Numbers {
    fn number(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The number of a name, which has one user more now.
    fn take(&mut self, name: Box<str>) -> u32 {
        let number = match self.by_name.get(&name) {
            Some(&number) => number,
            None => {
                let number = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(Slot::default());
                    u32::try_from(self.slots.len() - 1).expect("fewer names than fit into memory")
                });
                self.slots[number as usize].name = name.clone();
                self.by_name.insert(name, number);
                number
            }
        };
        self.slots[number as usize].users += 1;
        number
    }

    fn give_back(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.users -= 1;
        if slot.users == 0 {
            self.by_name.remove(&std::mem::take(&mut slot.name));
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(secrets: &[&str]) -> PodReferences {
        let secrets = secrets.iter().map(|&name| name.to_owned()).collect();
        PodReferences { service_account: Some("default".into()), secrets, ..PodReferences::default() }
    }

    fn pod<'a>(name: &'a str, uid: &'a str, node: &'a str) -> PodKey<'a> {
        PodKey { namespace: "ns", name, uid, generation: 1, node }
    }

    fn nodes_with(graph: &Graph, kind: ObjectKind, name: &str) -> String {
        let related = ["n1", "n2", "n3"].into_iter().filter(|node| graph.is_related(node, kind, "ns", name));
        related.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_node_is_related_as_long_as_one_of_its_pods_is() {
        let graph = Graph::default();
        graph.upsert_pod(pod("a", "1", "n1"), || references(&["shared"]));
        graph.upsert_pod(pod("b", "2", "n1"), || references(&["shared", "own"]));
        graph.upsert_pod(pod("c", "3", "n2"), || references(&["shared"]));
        graph.upsert_pod(pod("pending", "4", ""), || panic!("asked for a pod without a node"));
        let secret = |name| nodes_with(&graph, ObjectKind::Secret, name);
        assert_eq!((secret("shared"), secret("own")), ("n1 n2".into(), "n1".into()));
        assert_eq!(nodes_with(&graph, ObjectKind::ServiceAccount, "default"), "n1 n2");
        assert_eq!(nodes_with(&graph, ObjectKind::ConfigMap, "shared"), "");
        assert_eq!(nodes_with(&graph, ObjectKind::Pod, "a"), "n1");
        assert!(!graph.is_related("n1", ObjectKind::Secret, "other", "shared"));
        graph.remove_pod("ns", "a");
        assert_eq!(secret("shared"), "n1 n2");
        graph.remove_pod("ns", "b");
        assert_eq!((secret("shared"), secret("own")), ("n2".into(), String::new()));
        graph.remove_pod("ns", "c");
        graph.remove_pod("ns", "c");
        // Nothing is left, and numbers are used again.
        let relations = graph.0.read();
        assert!(relations.nodes.by_name.is_empty() && relations.objects.by_name.is_empty());
        assert!(relations.pods.is_empty() && relations.nodes_of.iter().all(BTreeMap::is_empty));
        assert_eq!(relations.objects.free.len(), relations.objects.slots.len());
    }

    #[test]
    fn a_pod_is_read_again_only_when_it_has_changed() {
        let graph = Graph::default();
        graph.upsert_pod(pod("a", "1", "n1"), || references(&["old"]));
        graph.upsert_pod(pod("a", "1", "n1"), || panic!("asked for a known pod"));
        graph.upsert_pod(PodKey { generation: 2, ..pod("a", "1", "n1") }, || references(&["old", "debug"]));
        assert_eq!(nodes_with(&graph, ObjectKind::Secret, "debug"), "n1");
        graph.upsert_pod(pod("a", "2", "n2"), || references(&["new"]));
        assert_eq!(nodes_with(&graph, ObjectKind::Secret, "old"), "");
        assert_eq!(nodes_with(&graph, ObjectKind::Secret, "new"), "n2");
        graph.upsert_pod(pod("a", "2", "n3"), || references(&["new"]));
        assert_eq!(nodes_with(&graph, ObjectKind::Secret, "new"), "n3");
    }

    #[test]
    fn volumes_and_their_secrets_follow_their_claim() {
        let graph = Graph::default();
        let claims = || PodReferences { claims: vec!["data".into()], ..PodReferences::default() };
        graph.upsert_pod(pod("a", "1", "n1"), claims);
        let bound = VolumeReferences {
            claim: Some(("ns".into(), "data".into())),
            secrets: vec![("ns".into(), "mount".into())],
        };
        graph.upsert_volume("pv", bound.clone());
        graph.upsert_volume("pv", bound);
        assert_eq!(nodes_with(&graph, ObjectKind::Claim, "data"), "n1");
        assert_eq!(nodes_with(&graph, ObjectKind::Volume, "pv"), "n1");
        assert_eq!(nodes_with(&graph, ObjectKind::Secret, "mount"), "n1");
        graph.remove_volume("pv");
        assert_eq!(nodes_with(&graph, ObjectKind::Volume, "pv"), "");
        assert_eq!(nodes_with(&graph, ObjectKind::Secret, "mount"), "");
        assert!(graph.0.read().volumes_of_secret.is_empty());
    }

    #[test]
    fn attachments_and_slices_are_one_nodes() {
        let graph = Graph::default();
        graph.upsert_attachment("x", "n1");
        graph.upsert_slice("x", "n2");
        assert_eq!(nodes_with(&graph, ObjectKind::Attachment, "x"), "n1");
        assert_eq!(nodes_with(&graph, ObjectKind::Slice, "x"), "n2");
        graph.upsert_slice("x", "");
        graph.remove_attachment("x");
        assert_eq!(nodes_with(&graph, ObjectKind::Slice, "x"), "");
        assert_eq!(nodes_with(&graph, ObjectKind::Attachment, "x"), "");
    }
}
