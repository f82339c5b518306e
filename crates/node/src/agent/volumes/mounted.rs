//! [`Mounted`]: what a pod's volumes became on this node.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;

/// Where a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder, or a file, of the host.
    Path(Utf8PathBuf),
    /// A block device of the host.
    Block(Utf8PathBuf),
    /// The files of an image. The runtime mounts them; `id` is what pulling it returned.
    Image { reference: String, pull_policy: String, id: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedVolume {
    pub source: Source,
    /// Whatever a container says of it.
    pub read_only: bool,
    /// A group that may use the volume and that containers are put into.
    pub group: Option<u32>,
}

/// The volumes of a pod by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted(BTreeMap<String, MountedVolume>);

impl Mounted {
    pub fn get(&self, name: &str) -> Option<&MountedVolume> {
        self.0.get(name)
    }

    pub fn insert(&mut self, name: impl Into<String>, volume: MountedVolume) {
        self.0.insert(name.into(), volume);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &MountedVolume)> {
        self.0.iter().map(|(name, volume)| (name.as_str(), volume))
    }

    /// Images that have to be pulled before containers can have them: volume, reference and pull policy.
    pub fn images(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().filter_map(|(name, volume)| match &volume.source {
            Source::Image { reference, pull_policy, .. } => {
                Some((name.as_str(), reference.as_str(), pull_policy.as_str()))
            }
            _ => None,
        })
    }

    /// The image of a volume was pulled.
    pub fn set_image(&mut self, volume: &str, pulled: impl Into<String>) {
        if let Some(MountedVolume { source: Source::Image { id, .. }, .. }) = self.0.get_mut(volume) {
            *id = Some(pulled.into());
        }
    }

    /// Groups that containers are put into for their volumes.
    pub fn groups(&self) -> Vec<u32> {
        let mut groups: Vec<u32> = self.0.values().filter_map(|volume| volume.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}
