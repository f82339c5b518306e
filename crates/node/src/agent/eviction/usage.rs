//! What pods have of the node: memory by their cgroups, disk by looking at their files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use k8s_openapi::api::core::v1::{Pod, Volume};
use rt::Instant;
use runtime::spec::label;

use crate::agent::Node;
use crate::agent::config;
use crate::agent::volumes::is_ephemeral;
use crate::agent::volumes::plugins::plugin;

/// Looking at a folder may take this share of the time at most, so that large volumes do not cost the node its disk.
const WALK_SHARE: u32 = 20;

/// Bytes of a block in `stat`.
const BLOCK: u64 = 512;

/// Bytes and inodes.
pub type Used = (u64, u64);

/// Which files count: with images on a filesystem of their own, layers are on that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    Everything,
    NodeOnly,
    LayersOnly,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    pub name: String,
    pub memory: u64,
    pub layer: Used,
    pub logs: Used,
}

/// An emptyDir, or what else lies on the node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeUsed {
    pub name: String,
    pub used: Used,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// The working set.
    pub memory: u64,
    pub processes: u64,
    pub containers: Vec<ContainerUsage>,
    pub volumes: Vec<VolumeUsed>,
}

impl PodUsage {
    pub fn disk(&self, counting: Counting) -> Used {
        let layers = self.containers.iter().map(|own| own.layer).filter(|_| counting != Counting::NodeOnly);
        let logs = self.containers.iter().map(|own| own.logs);
        let others = logs.chain(self.volumes.iter().map(|own| own.used));
        let others = others.filter(|_| counting != Counting::LayersOnly);
        layers.chain(others).fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1))
    }
}

/// What folders held when somebody last looked.
#[derive(Debug, Default)]
pub struct Walks(HashMap<Utf8PathBuf, Walk>);

#[derive(Clone, Copy, Debug)]
struct Walk {
    used: Used,
    at: Instant,
    took: Duration,
}

impl Walks {
    /// Looks again, unless the last look took so long that it has to do for a while. Blocks.
    fn look(&mut self, folder: &Utf8Path, now: Instant) -> Used {
        if let Some(last) = self.0.get(folder)
            && now.saturating_duration_since(last.at) < last.took * WALK_SHARE
        {
            return last.used;
        }
        let used = walk(folder);
        let walk = Walk { used, at: now, took: rt::instant().saturating_duration_since(now) };
        self.0.insert(folder.to_owned(), walk);
        used
    }

    fn keep(&mut self, folders: &HashSet<Utf8PathBuf>) {
        self.0.retain(|folder, _| folders.contains(folder));
    }
}

/// What a folder occupies, with all below it on the same filesystem; a file of several names counts once.
pub(crate) fn walk(folder: &Utf8Path) -> Used {
    let Ok(root) = folder.symlink_metadata() else { return (0, 0) };
    let mut used = (root.blocks() * BLOCK, 1);
    let mut linked = HashSet::new();
    let mut folders = vec![folder.as_std_path().to_owned()];
    while let Some(folder) = folders.pop() {
        // What goes while it is looked at is not there any more.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(own) = entry.path().symlink_metadata() else { continue };
            if own.dev() != root.dev() || (own.nlink() > 1 && !own.is_dir() && !linked.insert(own.ino())) {
                continue;
            }
            used = (used.0 + own.blocks() * BLOCK, used.1 + 1);
            if own.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    used
}

/// The figures of all pods by uid, of those whose containers can be measured.
///
/// # Errors
/// What the runtime says.
pub async fn measure(
    node: &Node,
    pods: &[std::sync::Arc<Pod>],
    walks: &mut Walks,
) -> runtime::Result<BTreeMap<String, PodUsage>> {
    let stats = node.runtime.container_stats().await?;
    let mut all: BTreeMap<String, PodUsage> = BTreeMap::new();
    for own in stats {
        let Some(uid) = own.labels.get(label::POD_UID) else { continue };
        let pod = all.entry(uid.clone()).or_default();
        pod.memory += own.memory_working_set;
        pod.processes += own.processes;
        let container = ContainerUsage {
            name: own.name,
            memory: own.memory_working_set,
            layer: own.writable_layer,
            ..ContainerUsage::default()
        };
        pod.containers.push(container);
    }
    let mut asked = Vec::new();
    for pod in pods {
        let uid = config::uid(pod);
        let logs = config::log_directory(pod, &node.facts);
        if let Some(usage) = all.remove(uid) {
            asked.push((uid.to_owned(), usage, logs, on_disk(node, pod)));
        }
    }
    let mut own = std::mem::take(walks);
    let looking = tokio::task::spawn_blocking(move || {
        let folders = asked.iter().flat_map(|(_, usage, logs, volumes)| {
            let logs = usage.containers.iter().map(|own| logs.join(&own.name));
            logs.chain(volumes.iter().map(|(_, folder)| folder.clone()))
        });
        own.keep(&folders.collect());
        let measured = asked.into_iter().map(|(uid, mut usage, logs, volumes)| {
            for container in &mut usage.containers {
                container.logs = own.look(&logs.join(&container.name), rt::instant());
            }
            usage.volumes = volumes
                .into_iter()
                .map(|(name, folder)| VolumeUsed { name, used: own.look(&folder, rt::instant()) })
                .collect();
            (uid, usage)
        });
        let measured: BTreeMap<String, PodUsage> = measured.collect();
        (measured, own)
    });
    let (measured, own) =
        looking.await.map_err(|error| runtime::Error::Failed(format!("looking at pods' files: {error}")))?;
    *walks = own;
    Ok(measured)
}

/// Names and folders of the pod's volumes that lie on the node's disk and go with it.
fn on_disk(node: &Node, pod: &Pod) -> Vec<(String, Utf8PathBuf)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let layout = node.volumes.layout();
    let folder = |volume: &Volume| {
        let name = plugin(volume).map(|plugin| plugin.name)?;
        Some((volume.name.clone(), layout.volume(config::uid(pod), name, &volume.name)))
    };
    volumes.filter(|volume| is_ephemeral(volume)).filter_map(folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_two_names_counts_once_and_a_link_is_not_followed() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Utf8Path::from_path(root.path()).expect("it is text");
        std::fs::create_dir(folder.join("a")).expect("made");
        std::fs::write(folder.join("a/file"), vec![1; 64 << 10]).expect("written");
        let before = walk(folder);
        assert!(before.0 >= 64 << 10 && before.1 == 3, "{before:?}");
        std::fs::hard_link(folder.join("a/file"), folder.join("again")).expect("linked");
        assert_eq!(walk(folder).1, 3);
        std::os::unix::fs::symlink("/", folder.join("out")).expect("linked");
        assert_eq!(walk(folder).1, 4);
        assert_eq!(walk(&folder.join("none")), (0, 0));
    }

    #[test]
    fn a_slow_look_does_for_a_while() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Utf8Path::from_path(root.path()).expect("it is text");
        let (mut walks, start) = (Walks::default(), rt::instant());
        let walk = Walk { used: (7, 7), at: start, took: Duration::from_secs(1) };
        walks.0.insert(folder.to_owned(), walk);
        assert_eq!(walks.look(folder, start + Duration::from_secs(19)), (7, 7));
        assert_ne!(walks.look(folder, start + Duration::from_secs(20)), (7, 7));
    }
}
