//! What of a pod's volumes stands where in a container.

use camino::{Utf8Path, Utf8PathBuf};
use k8s_openapi::api::core::v1::{Container, VolumeMount};
use runtime::spec::{Device, Mount, Propagation};

use super::env::Environment;
use super::expansion::expand_all;
use super::labels::TERMINATION_MESSAGE_PATH_DEFAULT;
use super::{PodFacts, Refusal, files, uid};
use crate::agent::volumes::Source;

const HOSTS: &str = "/etc/hosts";

/// A part of a volume that has to be found safely before it is mounted: whoever writes to the volume may have put
/// links there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath {
    /// Which of the mounts.
    pub mount: usize,
    /// Which of the container's volume mounts.
    pub index: usize,
    pub volume: String,
    /// Where the volume is on the host.
    pub root: Utf8PathBuf,
    /// Relative to the root, without `..`.
    pub path: Utf8PathBuf,
}

/// The mounts of a container. Where a part of a volume is mounted, `source` is the whole volume until
/// [`super::subpath`] has found the part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mounts {
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub sub_paths: Vec<SubPath>,
    /// The file that `/etc/hosts` is, where it is the node's to write.
    pub hosts: Option<Utf8PathBuf>,
    /// The file that the container leaves its last words in.
    pub termination: Option<Utf8PathBuf>,
}

/// # Errors
/// Where a volume is missing, or a mount's path cannot be one.
pub fn mounts(
    facts: &PodFacts<'_>,
    container: &Container,
    environment: &Environment,
    attempt: u32,
) -> Result<Mounts, Refusal> {
    let mut made = Mounts::default();
    let own = container.volume_mounts.as_deref().unwrap_or_default();
    for (index, mount) in own.iter().enumerate() {
        add(facts, container, environment, (index, mount), &mut made)?;
    }
    for device in container.volume_devices.iter().flatten() {
        let volume = facts.volumes.get(&device.name).map(|volume| &volume.source);
        let Some(Source::Block(host)) = volume else {
            let message =
                format!("cannot find volume {:?} to pass into container {:?}", device.name, container.name);
            return Err(Refusal::config(message));
        };
        made.devices.push(Device {
            host: host.clone(),
            container: device.device_path.as_str().into(),
            permissions: "mrw".to_owned(),
        });
    }
    let folder = facts.node.pods_root.join(uid(facts.pod));
    if !own.iter().any(|mount| absolute(&mount.mount_path) == HOSTS) && !facts.addresses.is_empty() {
        let source = folder.join("etc-hosts");
        let security = container.security_context.as_ref();
        let read_only = security.and_then(|own| own.read_only_root_filesystem).unwrap_or(false);
        made.mounts.push(Mount {
            source: source.clone(),
            target: HOSTS.into(),
            read_only,
            ..Mount::default()
        });
        made.hosts = Some(source);
    }
    let message_path = match container.termination_message_path.as_deref().unwrap_or_default() {
        "" => TERMINATION_MESSAGE_PATH_DEFAULT,
        path => path,
    };
    let source = files::termination_file(&folder, &container.name, attempt);
    let target = absolute(message_path);
    made.mounts.push(Mount { source: source.clone(), target, ..Mount::default() });
    made.termination = Some(source);
    Ok(made)
}

fn add(
    facts: &PodFacts<'_>,
    container: &Container,
    environment: &Environment,
    (index, mount): (usize, &VolumeMount),
    made: &mut Mounts,
) -> Result<(), Refusal> {
    let Some(volume) = facts.volumes.get(&mount.name) else {
        let message =
            format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name);
        return Err(Refusal::config(message));
    };
    let path = sub_path(mount, environment)?;
    let read_only = mount.read_only.unwrap_or(false) || volume.read_only;
    let mut own = Mount {
        target: absolute(&mount.mount_path),
        read_only,
        recursive_read_only: recursive_read_only(mount, read_only)?,
        propagation: propagation(mount)?,
        ..Mount::default()
    };
    match &volume.source {
        Source::Path(root) => {
            own.source = root.clone();
            if let Some(path) = path {
                let root = root.clone();
                let volume = mount.name.clone();
                made.sub_paths.push(SubPath { mount: made.mounts.len(), index, volume, root, path });
            }
        }
        Source::Image { id: Some(id), .. } => {
            own.read_only = true;
            own.image = Some((id.clone(), path.unwrap_or_default()));
        }
        Source::Image { id: None, reference, .. } => {
            let message = format!("image {reference:?} of volume {:?} is not there", mount.name);
            return Err(Refusal { reason: "ImageVolumeMountFailed", message });
        }
        Source::Block(_) => {
            let message = format!(
                "volume {:?} has volumeMode Block, but is specified in volumeMounts of container {:?}",
                mount.name, container.name
            );
            return Err(Refusal::config(message));
        }
    }
    made.mounts.push(own);
    Ok(())
}

/// The part of a volume that a mount asks for.
fn sub_path(mount: &VolumeMount, environment: &Environment) -> Result<Option<Utf8PathBuf>, Refusal> {
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    let text = match (mount.sub_path.as_deref().unwrap_or_default(), expression) {
        ("", "") => return Ok(None),
        ("", expression) => expand_all(expression, |name| environment.variables.get(name).cloned())
            .map_err(|names| Refusal::config(format!("missing value for {}", names.join(", "))))?,
        (path, _) => path.to_owned(),
    };
    if text.starts_with('/') {
        return Err(Refusal::config(format!("error SubPath `{text}` must not be an absolute path")));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(Refusal::config(format!("unable to provision SubPath `{text}`: must not contain '..'")));
    }
    let parts: Utf8PathBuf = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok((!parts.as_str().is_empty()).then_some(parts))
}

fn absolute(path: &str) -> Utf8PathBuf {
    if path.starts_with('/') { path.into() } else { Utf8Path::new("/").join(path) }
}

fn propagation(mount: &VolumeMount) -> Result<Propagation, Refusal> {
    match mount.mount_propagation.as_deref() {
        None | Some("None") => Ok(Propagation::Private),
        Some("HostToContainer") => Ok(Propagation::HostToContainer),
        Some("Bidirectional") => Ok(Propagation::Bidirectional),
        Some(other) => Err(Refusal::config(format!("invalid MountPropagation mode: {other:?}"))),
    }
}

fn recursive_read_only(mount: &VolumeMount, read_only: bool) -> Result<bool, Refusal> {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => Ok(false),
        // What the volume is on its own does not count: the mount has to say so.
        Some("IfPossible") => Ok(read_only && mount.read_only == Some(true)),
        Some("Enabled") => Ok(true),
        Some(other) => Err(Refusal::config(format!("unknown recursive read-only mode {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Objects, fixture};
    use super::*;
    use crate::agent::volumes::{Mounted, MountedVolume};

    fn volumes() -> Mounted {
        let volume = |source: Source, read_only: bool| MountedVolume { source, read_only, group: None };
        let mut mounted = Mounted::default();
        mounted.insert("data", volume(Source::Path("/v/data".into()), false));
        mounted.insert("cm", volume(Source::Path("/v/cm".into()), true));
        mounted.insert("disk", volume(Source::Block("/dev/sdb".into()), false));
        let image = |id: Option<&str>| Source::Image {
            reference: "x:1".into(),
            pull_policy: String::new(),
            id: id.map(str::to_owned),
        };
        mounted.insert("image", volume(image(Some("sha256:1")), true));
        mounted.insert("absent", volume(image(None), true));
        mounted
    }

    fn of(container: serde_json::Value) -> Result<Mounts, String> {
        let container: Container = serde_json::from_value(container).expect("a container");
        let (pod, node) = (fixture::pod(serde_json::json!({"containers": []})), fixture::node());
        let (objects, mounted) = (Objects::default(), volumes());
        let facts = PodFacts {
            pod: &pod,
            node: &node,
            services: &[],
            objects: &objects,
            addresses: &["10.1.0.1".parse().expect("an address")],
            volumes: &mounted,
            user_mapping: None,
        };
        let mut environment = Environment::default();
        environment.variables.insert("POD".into(), "web".into());
        mounts(&facts, &container, &environment, 3).map_err(|refusal| refusal.message)
    }

    fn one(mount: serde_json::Value) -> Result<(Mount, Option<SubPath>), String> {
        let mut made = of(serde_json::json!({"name": "c", "volumeMounts": [mount]}))?;
        Ok((made.mounts.remove(0), made.sub_paths.pop()))
    }

    #[test]
    fn a_mount_is_what_the_container_and_the_volume_say() {
        let (mount, sub_path) = one(serde_json::json!({"name": "data", "mountPath": "srv",
            "mountPropagation": "HostToContainer", "subPathExpr": "a/$(POD)//./b"}))
        .expect("it is made");
        assert_eq!((mount.source.as_str(), mount.target.as_str()), ("/v/data", "/srv"));
        assert_eq!((mount.read_only, mount.propagation), (false, Propagation::HostToContainer));
        let sub_path = sub_path.expect("it is a part");
        assert_eq!(
            (sub_path.root.as_str(), sub_path.path.as_str(), sub_path.mount),
            ("/v/data", "a/web/b", 0)
        );
        let (mount, sub_path) = one(serde_json::json!({"name": "cm", "mountPath": "/c", "readOnly": true,
            "recursiveReadOnly": "IfPossible"}))
        .expect("it is made");
        assert!(mount.read_only && mount.recursive_read_only && sub_path.is_none());
        let (mount, _) =
            one(serde_json::json!({"name": "image", "mountPath": "/i", "subPath": "usr"})).expect("made");
        assert_eq!(mount.image, Some(("sha256:1".into(), "usr".into())));
    }

    #[test]
    fn what_cannot_be_mounted_is_refused() {
        for (mount, wanted) in [
            (
                serde_json::json!({"name": "no", "mountPath": "/x"}),
                "cannot find volume \"no\" to mount into container \"c\"",
            ),
            (
                serde_json::json!({"name": "data", "mountPath": "/x", "subPath": "a/../b"}),
                "unable to provision SubPath `a/../b`: must not contain '..'",
            ),
            (
                serde_json::json!({"name": "data", "mountPath": "/x", "subPath": "/etc"}),
                "error SubPath `/etc` must not be an absolute path",
            ),
            (
                serde_json::json!({"name": "data", "mountPath": "/x", "subPathExpr": "$(A)$(POD)"}),
                "missing value for A",
            ),
            (
                serde_json::json!({"name": "absent", "mountPath": "/x"}),
                "image \"x:1\" of volume \"absent\" is not there",
            ),
        ] {
            assert_eq!(one(mount).map(drop), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn hosts_and_last_words_have_files_unless_the_container_brings_its_own() {
        let made = of(serde_json::json!({"name": "c", "securityContext": {"readOnlyRootFilesystem": true},
            "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}]}))
        .expect("it is made");
        let targets: Vec<_> = made.mounts.iter().map(|own| (own.target.as_str(), own.read_only)).collect();
        assert_eq!(targets, [("/etc/hosts", true), ("/dev/termination-log", false)]);
        assert_eq!(made.termination.as_deref(), Some(Utf8Path::new("/r/pods/u-1/containers/c/3")));
        assert_eq!(made.hosts.as_deref(), Some(Utf8Path::new("/r/pods/u-1/etc-hosts")));
        assert_eq!(made.devices[0].host, "/dev/sdb");
        let own = of(serde_json::json!({"name": "c", "terminationMessagePath": "/t",
            "volumeMounts": [{"name": "data", "mountPath": "/etc/hosts"}]}))
        .expect("it is made");
        assert_eq!((own.hosts, own.mounts[1].target.as_str()), (None, "/t"));
    }
}
