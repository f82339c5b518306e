//! The kinds of volumes that there are, in one table.

use k8s_openapi::api::core::v1::Volume;

/// How a volume is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EmptyDir,
    HostPath,
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
    /// Through a claim, of the user's or of the pod's own.
    Claim,
    Nfs,
    /// Inline in the pod.
    Csi,
    /// The runtime mounts it.
    Image,
    /// Kubernetes has it and this node has not.
    Unsupported,
}

impl Kind {
    /// Whether its files are the node's to write, and to write again when something changes.
    pub fn is_data(self) -> bool {
        matches!(self, Self::ConfigMap | Self::Secret | Self::DownwardApi | Self::Projected)
    }

    /// Whether no disk may hold its files, as the kubelet has it.
    pub fn is_secret(self) -> bool {
        self.is_data() && self != Self::ConfigMap
    }
}

pub struct Plugin {
    pub kind: Kind,
    pub name: &'static str,
    has: fn(&Volume) -> bool,
}

const fn row(kind: Kind, name: &'static str, has: fn(&Volume) -> bool) -> Plugin {
    Plugin { kind, name, has }
}

pub const PLUGINS: &[Plugin] = &[
    row(Kind::EmptyDir, "kubernetes.io/empty-dir", |volume| volume.empty_dir.is_some()),
    row(Kind::HostPath, "kubernetes.io/host-path", |volume| volume.host_path.is_some()),
    row(Kind::ConfigMap, "kubernetes.io/configmap", |volume| volume.config_map.is_some()),
    row(Kind::Secret, "kubernetes.io/secret", |volume| volume.secret.is_some()),
    row(Kind::DownwardApi, "kubernetes.io/downward-api", |volume| volume.downward_api.is_some()),
    row(Kind::Projected, "kubernetes.io/projected", |volume| volume.projected.is_some()),
    row(Kind::Claim, "kubernetes.io/persistent-claim", |volume| volume.persistent_volume_claim.is_some()),
    row(Kind::Claim, "kubernetes.io/persistent-claim", |volume| volume.ephemeral.is_some()),
    row(Kind::Nfs, NFS, |volume| volume.nfs.is_some()),
    row(Kind::Csi, CSI, |volume| volume.csi.is_some()),
    row(Kind::Image, "kubernetes.io/image", |volume| volume.image.is_some()),
    row(Kind::Unsupported, "kubernetes.io/iscsi", |volume| volume.iscsi.is_some()),
    row(Kind::Unsupported, "kubernetes.io/fc", |volume| volume.fc.is_some()),
    row(Kind::Unsupported, "kubernetes.io/flexvolume", |volume| volume.flex_volume.is_some()),
    row(Kind::Unsupported, "kubernetes.io/git-repo", |volume| volume.git_repo.is_some()),
];

pub const NFS: &str = "kubernetes.io/nfs";
pub const CSI: &str = "kubernetes.io/csi";
pub const LOCAL: &str = "kubernetes.io/local-volume";

/// Folders of plugins whose files are the pod's own and go with it. In all others there is only what was mounted, and
/// an empty folder goes.
pub const OWNED: &[&str] = &[
    "kubernetes.io~empty-dir",
    "kubernetes.io~configmap",
    "kubernetes.io~secret",
    "kubernetes.io~downward-api",
    "kubernetes.io~projected",
];

/// The row of a volume. A volume without any source is an empty directory, as the API defaults it.
pub fn plugin(volume: &Volume) -> Option<&'static Plugin> {
    PLUGINS.iter().find(|plugin| (plugin.has)(volume))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_volume_has_its_row() {
        let of = |source: serde_json::Value| {
            let mut tree = source;
            tree["name"] = "v".into();
            plugin(&serde_json::from_value(tree).expect("a volume")).map(|plugin| (plugin.kind, plugin.name))
        };
        assert_eq!(
            of(serde_json::json!({"emptyDir": {}})),
            Some((Kind::EmptyDir, "kubernetes.io/empty-dir"))
        );
        assert_eq!(of(serde_json::json!({"ephemeral": {}})).map(|own| own.0), Some(Kind::Claim));
        let iscsi = serde_json::json!({"iscsi": {"iqn": "", "lun": 0, "targetPortal": ""}});
        assert_eq!(of(iscsi), Some((Kind::Unsupported, "kubernetes.io/iscsi")));
        assert_eq!(of(serde_json::json!({})), None);
    }
}
