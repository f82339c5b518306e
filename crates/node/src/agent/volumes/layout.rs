//! Where things are on disk: the kubelet's layout, which backup tools, CSI drivers and people know.

use camino::{Utf8Path, Utf8PathBuf};

/// What block devices lie in, of a pod and of a plugin.
pub const DEVICES: &str = "volumeDevices";

/// The paths of one node.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `/var/lib/kubelet` of a kubelet.
    root: Utf8PathBuf,
}

impl Layout {
    pub fn new(root: impl Into<Utf8PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    pub fn pods(&self) -> Utf8PathBuf {
        self.root.join("pods")
    }

    pub fn pod(&self, uid: &str) -> Utf8PathBuf {
        self.pods().join(uid)
    }

    pub fn pod_volumes(&self, uid: &str) -> Utf8PathBuf {
        self.pod(uid).join("volumes")
    }

    pub fn pod_sub_paths(&self, uid: &str) -> Utf8PathBuf {
        self.pod(uid).join("volume-subpaths")
    }

    /// Of `kubernetes.io/empty-dir`: `…/kubernetes.io~empty-dir/<name>`.
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> Utf8PathBuf {
        self.pod_volumes(uid).join(plugin.replace('/', "~")).join(name)
    }

    /// Where a CSI driver puts a volume once for all pods of the node.
    pub fn staging(&self, driver: &str, handle_digest: &str) -> Utf8PathBuf {
        self.root.join("plugins/kubernetes.io/csi").join(driver).join(handle_digest).join("globalmount")
    }

    /// Of a pod's block devices: `…/volumeDevices/<plugin>/<name>`.
    pub fn pod_devices(&self, uid: &str) -> Utf8PathBuf {
        self.pod(uid).join(DEVICES)
    }

    fn csi_devices(&self) -> Utf8PathBuf {
        self.root.join("plugins/kubernetes.io/csi").join(DEVICES)
    }

    /// Where a CSI driver prepares a block device once for all pods of the node.
    pub fn device_staging(&self, volume: &str) -> Utf8PathBuf {
        self.csi_devices().join("staging").join(volume)
    }

    /// Where a CSI driver puts a block device for one pod: a file, over which the device is bound.
    pub fn device_publish(&self, volume: &str, uid: &str) -> Utf8PathBuf {
        self.csi_devices().join("publish").join(volume).join(uid)
    }
}

/// Whether a text can be the name of one folder; names come from the API and from the disk.
pub fn is_one_name(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kubelets() {
        let layout = Layout::new("/r");
        assert_eq!(
            layout.volume("u", "kubernetes.io/empty-dir", "v"),
            "/r/pods/u/volumes/kubernetes.io~empty-dir/v"
        );
        for (text, wanted) in
            [("a", true), ("..a", true), ("", false), (".", false), ("..", false), ("a/b", false)]
        {
            assert_eq!(is_one_name(text), wanted, "{text}");
        }
    }
}
