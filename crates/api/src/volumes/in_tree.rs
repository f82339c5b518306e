//! Volume plugins that moved out of Kubernetes: which CSI driver serves them by now, and under which name and where
//! that driver knows their volumes. The rules are those of upstream's `csi-translation-lib`.

use apimachinery::Str;

use crate::view::{
    AwsElasticBlockStoreVolumeSource, AzureDiskVolumeSource, CinderVolumeSource, CsiNode,
    GcePersistentDiskVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PortworxVolumeSource, Volume, VolumeNodeAffinity,
};

/// The CSI driver that serves a claim or volume of a plugin that is no more.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";

/// Of a CSINode: the plugins whose volumes its drivers serve, separated by commas.
pub const MIGRATED_PLUGINS: &str = "storage.alpha.kubernetes.io/migrated-plugins";

const ZONE: &str = "topology.kubernetes.io/zone";
const ZONE_BETA: &str = "failure-domain.beta.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
const REGION_BETA: &str = "failure-domain.beta.kubernetes.io/region";

/// Between the zones of a volume in several, in the value of a label.
const ZONE_SEPARATOR: &str = "__";

/// Stands for a project or zone that is not known.
const UNSPECIFIED: &str = "UNSPECIFIED";

/// A plugin, and the driver that took over.
#[derive(Debug, PartialEq, Eq)]
pub struct Plugin {
    pub name: &'static str,
    pub driver: &'static str,
    /// Its volumes are known to the driver, and nodes count them as the driver's.
    pub is_counted: bool,
    /// The driver's name for zones in node labels, if it has its own.
    topology: Option<&'static str>,
}

const AWS_EBS: Plugin = Plugin {
    name: "kubernetes.io/aws-ebs",
    driver: "ebs.csi.aws.com",
    is_counted: true,
    topology: Some("topology.ebs.csi.aws.com/zone"),
};
const AZURE_DISK: Plugin = Plugin {
    name: "kubernetes.io/azure-disk",
    driver: "disk.csi.azure.com",
    is_counted: true,
    topology: None,
};
const AZURE_FILE: Plugin = Plugin {
    name: "kubernetes.io/azure-file",
    driver: "file.csi.azure.com",
    is_counted: false,
    topology: None,
};
const CINDER: Plugin = Plugin {
    name: "kubernetes.io/cinder",
    driver: "cinder.csi.openstack.org",
    is_counted: true,
    topology: Some("topology.cinder.csi.openstack.org/zone"),
};
const GCE_PD: Plugin = Plugin {
    name: "kubernetes.io/gce-pd",
    driver: "pd.csi.storage.gke.io",
    is_counted: true,
    topology: Some("topology.gke.io/zone"),
};
const PORTWORX: Plugin = Plugin {
    name: "kubernetes.io/portworx-volume",
    driver: "pxd.portworx.com",
    is_counted: true,
    topology: None,
};
const VSPHERE: Plugin = Plugin {
    name: "kubernetes.io/vsphere-volume",
    driver: "csi.vsphere.vmware.com",
    is_counted: false,
    topology: None,
};

static PLUGINS: [Plugin; 7] = [AWS_EBS, AZURE_DISK, AZURE_FILE, CINDER, GCE_PD, PORTWORX, VSPHERE];

/// A disk of a plugin, described in a pod or in a volume.
#[derive(Clone, Copy, Debug)]
pub enum Disk<'a> {
    Gce(&'a GcePersistentDiskVolumeSource),
    Aws(&'a AwsElasticBlockStoreVolumeSource),
    Azure(&'a AzureDiskVolumeSource),
    Cinder(&'a CinderVolumeSource),
    Portworx(&'a PortworxVolumeSource),
}

/// The plugin of this name, if it moved out.
pub fn plugin(name: &str) -> Option<&'static Plugin> {
    PLUGINS.iter().find(|plugin| plugin.name == name)
}

// === impl Plugin ===

impl Plugin {
    /// The node says that its drivers serve the plugin's volumes.
    fn is_migrated_on(&self, node: Option<&CsiNode>) -> bool {
        let plugins = node.and_then(|node| node.metadata.annotations.get(MIGRATED_PLUGINS));
        self.is_counted && plugins.is_some_and(|plugins| plugins.split(',').any(|name| name == self.name))
    }
}

// === impl Disk ===

impl<'a> Disk<'a> {
    pub fn of_pod(volume: &'a Volume) -> Option<Self> {
        let gce = volume.gce_persistent_disk.as_deref().map(Self::Gce);
        let aws = || volume.aws_elastic_block_store.as_deref().map(Self::Aws);
        let azure = || volume.azure_disk.as_deref().map(Self::Azure);
        let cinder = || volume.cinder.as_deref().map(Self::Cinder);
        let portworx = || volume.portworx_volume.as_deref().map(Self::Portworx);
        gce.or_else(aws).or_else(azure).or_else(cinder).or_else(portworx)
    }

    pub fn of_volume(volume: &'a PersistentVolume) -> Option<Self> {
        let spec = &volume.spec;
        let gce = spec.gce_persistent_disk.as_deref().map(Self::Gce);
        let aws = || spec.aws_elastic_block_store.as_deref().map(Self::Aws);
        let azure = || spec.azure_disk.as_deref().map(Self::Azure);
        let cinder = || spec.cinder.as_deref().map(Self::Cinder);
        let portworx = || spec.portworx_volume.as_deref().map(Self::Portworx);
        gce.or_else(aws).or_else(azure).or_else(cinder).or_else(portworx)
    }

    pub fn plugin(self) -> &'static Plugin {
        match self {
            Self::Gce(_) => &GCE_PD,
            Self::Aws(_) => &AWS_EBS,
            Self::Azure(_) => &AZURE_DISK,
            Self::Cinder(_) => &CINDER,
            Self::Portworx(_) => &PORTWORX,
        }
    }

    /// The driver's name of the disk; `zones` is the value of its zone label. `None` when the driver cannot have it.
    pub fn handle(self, zones: &str) -> Option<Str> {
        match self {
            Self::Gce(disk) => gce_handle(&disk.pd_name, zones),
            Self::Aws(disk) => aws_handle(&disk.volume_id),
            Self::Azure(disk) => {
                let is_managed = disk.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case("managed"));
                is_managed.then(|| disk.disk_uri.clone())
            }
            Self::Cinder(disk) => Some(disk.volume_id.clone()),
            Self::Portworx(disk) => Some(disk.volume_id.clone()),
        }
    }
}

fn gce_handle(name: &str, zones: &str) -> Option<Str> {
    let place = match zones.split(ZONE_SEPARATOR).collect::<Vec<_>>().as_slice() {
        [""] => format!("zones/{UNSPECIFIED}"),
        [zone] => format!("zones/{zone}"),
        zones => format!("regions/{}", gce_region(zones)?),
    };
    Some(format!("projects/{UNSPECIFIED}/{place}/disks/{name}").into())
}

/// The region that all zones are of: `us-central1` of `us-central1-a` and `us-central1-b`.
fn gce_region<'a>(zones: &[&'a str]) -> Option<&'a str> {
    let region = |zone: &'a str| zone.rsplit_once('-').map(|(region, _)| region);
    let first = region(zones.first()?)?;
    let is_of_first = |zone: &&str| zone.split('-').count() == 3 && zone.starts_with(first);
    zones.iter().all(|zone| is_of_first(zone) && region(zone) == Some(first)).then_some(first)
}

/// `vol-1` of `vol-1`, `aws:///vol-1` and `aws://zone/vol-1`.
fn aws_handle(id: &Str) -> Option<Str> {
    let Some(rest) = id.strip_prefix("aws://") else { return Some(id.clone()) };
    let (_, path) = rest.split_once('/')?;
    let name = path.trim_matches('/');
    (name.starts_with("vol-") && !name.contains('/')).then(|| name.into())
}

/// The driver that serves a volume, and the name under which that knows it.
pub fn driver_and_handle(volume: &PersistentVolume) -> Option<(Str, Str)> {
    if let Some(csi) = &volume.spec.csi {
        return Some((csi.driver.clone(), csi.volume_handle.clone()));
    }
    let disk = Disk::of_volume(volume).filter(|disk| disk.plugin().is_counted)?;
    let label = |key| volume.metadata.labels.get(key).filter(|zones| !zones.is_empty());
    let zones = label(ZONE_BETA).or_else(|| label(ZONE)).map_or("", Str::as_str);
    Some((disk.plugin().driver.into(), disk.handle(zones)?))
}

/// Where a volume can be reached from, in the words of the driver that serves it on `node`; `None` when those are its
/// own words.
pub fn translated_affinity(volume: &PersistentVolume, node: Option<&CsiNode>) -> Option<VolumeNodeAffinity> {
    let plugin = Disk::of_volume(volume).filter(|_| volume.spec.csi.is_none())?.plugin();
    let topology = plugin.topology.filter(|_| plugin.is_migrated_on(node))?;
    let mut terms: Vec<NodeSelectorTerm> = terms(volume).to_vec();
    let (zone, region) = topology_labels(volume);
    if terms
        .iter()
        .flat_map(|term| &term.match_expressions)
        .any(|own| own.key == zone && !own.values.is_empty())
    {
        rename(&mut terms, zone, topology);
    } else if let Some(zones) = volume.metadata.labels.get(zone) {
        add_zones(&mut terms, topology, zones);
    }
    if region == REGION_BETA {
        rename(&mut terms, REGION_BETA, REGION);
    }
    let is_restricted = !terms.is_empty() || required(volume).is_some();
    Some(VolumeNodeAffinity {
        required: is_restricted.then_some(NodeSelector { node_selector_terms: terms }),
    })
}

fn required(volume: &PersistentVolume) -> Option<&NodeSelector> {
    volume.spec.node_affinity.as_ref()?.required.as_ref()
}

fn terms(volume: &PersistentVolume) -> &[NodeSelectorTerm] {
    required(volume).map_or(&[], |required| &required.node_selector_terms)
}

/// Which labels for zone and region the volume uses: in its affinity, else in its labels, else today's.
fn topology_labels(volume: &PersistentVolume) -> (&'static str, &'static str) {
    let expressions = terms(volume).iter().flat_map(|term| &term.match_expressions);
    let keys: Vec<&str> = expressions.map(|own| own.key.as_str()).collect();
    let labels = &volume.metadata.labels;
    let uses_beta = !keys.contains(&ZONE)
        && (keys.contains(&ZONE_BETA) || (!labels.contains_key(ZONE) && labels.contains_key(ZONE_BETA)));
    if uses_beta { (ZONE_BETA, REGION_BETA) } else { (ZONE, REGION) }
}

fn rename(terms: &mut [NodeSelectorTerm], old: &str, new: &str) {
    let expressions = terms.iter_mut().flat_map(|term| &mut term.match_expressions);
    expressions.filter(|own| own.key == old).for_each(|own| own.key = new.into());
}

fn add_zones(terms: &mut Vec<NodeSelectorTerm>, topology: &str, zones: &str) {
    let mut values: Vec<Str> =
        zones.split(ZONE_SEPARATOR).map(str::trim).filter(|zone| !zone.is_empty()).map(Str::from).collect();
    values.sort();
    values.dedup();
    if values.is_empty() {
        return;
    }
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    }
    for term in terms {
        term.match_expressions.push(NodeSelectorRequirement {
            key: topology.into(),
            operator: "In".into(),
            values: values.clone(),
        });
    }
}
