//! The Container Device Interface: what vendors' files say that a container gets with a device.
//!
//! Owns: reading the files in [`FOLDERS`] and writing what they say into a container's OCI configuration. Never touches:
//! devices, and which of them a container gets; plugins decide that, and name them: `vendor.com/class=name`.
//!
//! Start at [`inject`]. Files are read anew for each container that has such devices: drivers write them while pods
//! come. A file that is malformed costs its own devices and no others.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{major, minor};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::warn;

use crate::{Error, Result};

/// Where files lie; those in a later folder win over those in an earlier one.
pub(super) const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Files that are read of a folder, and bytes of each.
const FILES_MAX: usize = 1_024;
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    cdi_version: String,
    /// `vendor.com/class`
    kind: String,
    devices: Vec<SpecDevice>,
    /// For any of its devices, once.
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpecDevice {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    net_devices: Vec<Value>,
    mounts: Vec<EditMount>,
    hooks: Vec<Hook>,
    intel_rdt: Option<Value>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DeviceNode {
    path: String,
    /// `path`, where it is not given.
    host_path: String,
    r#type: String,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EditMount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    r#type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// OCI's names of hooks.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Writes what comes with devices into a container's configuration.
///
/// # Errors
/// Where a device is in no file, or in two of the same rank, and where what a file asks for cannot be had.
pub(super) fn inject(config: &mut Value, names: &[String], folders: &[&Utf8Path]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let refused = |why: String| Error::Refused {
        reason: "CreateContainerError",
        message: format!("CDI device injection failed: {why}"),
    };
    let files = Files::read(folders);
    let mut unresolved = Vec::new();
    let (mut edits, mut common) = (Vec::new(), Vec::new());
    for name in names {
        match files.find(name) {
            Some((spec, device)) => {
                // What goes for all devices of a file comes once, and before them.
                if !common.contains(&spec) {
                    common.push(spec);
                    edits.push(&files.specs[spec].container_edits);
                }
                edits.push(&device.container_edits);
            }
            None => unresolved.push(name.as_str()),
        }
    }
    if !unresolved.is_empty() {
        return Err(refused(format!("unresolvable CDI devices {}", unresolved.join(", "))));
    }
    edits.into_iter().try_for_each(|own| apply(config, own)).map_err(refused)
}

/// The files of all folders.
#[derive(Default)]
struct Files {
    specs: Vec<Spec>,
    /// By qualified name: of the highest rank, where the device stands; nowhere, if two files of that rank have it.
    devices: BTreeMap<String, (usize, Option<(usize, usize)>)>,
}

impl Files {
    fn read(folders: &[&Utf8Path]) -> Self {
        let mut files = Self::default();
        for (rank, folder) in folders.iter().enumerate() {
            for path in paths(folder) {
                match read(&path) {
                    Ok(spec) => files.add(rank, spec),
                    Err(error) => warn!(%path, error, "A file of CDI devices is left out"),
                }
            }
        }
        files
    }

    fn add(&mut self, rank: usize, spec: Spec) {
        let at = self.specs.len();
        for (index, device) in spec.devices.iter().enumerate() {
            let name = format!("{}={}", spec.kind, device.name);
            let is_taken = self.devices.get(&name).is_some_and(|(known, _)| *known == rank);
            self.devices.insert(name, (rank, (!is_taken).then_some((at, index))));
        }
        self.specs.push(spec);
    }

    fn find(&self, name: &str) -> Option<(usize, &SpecDevice)> {
        let (_, place) = self.devices.get(name)?;
        let (spec, device) = (*place)?;
        Some((spec, self.specs.get(spec)?.devices.get(device)?))
    }
}

fn paths(folder: &Utf8Path) -> Vec<Utf8PathBuf> {
    let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
    let is_spec = |path: &Utf8PathBuf| matches!(path.extension(), Some("json" | "yaml" | "yml"));
    let mut paths: Vec<Utf8PathBuf> = entries.map(|entry| entry.into_path()).filter(is_spec).collect();
    paths.sort();
    paths.truncate(FILES_MAX);
    paths
}

fn read(path: &Utf8Path) -> std::result::Result<Spec, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(format!("no file, or larger than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let tree: Value = if path.extension() == Some("json") {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else {
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())?
    };
    let spec: Spec = serde_json::from_value(tree).map_err(|error| error.to_string())?;
    check(&spec)?;
    Ok(spec)
}

fn check(spec: &Spec) -> std::result::Result<(), String> {
    let version = spec.cdi_version.trim_start_matches('v');
    if !matches!(version.split('.').next(), Some("0" | "1")) {
        return Err(format!("invalid version {:?}", spec.cdi_version));
    }
    let is_kind = spec.kind.split_once('/').is_some_and(|(vendor, class)| {
        !vendor.is_empty() && !class.is_empty() && !class.contains(['/', '='])
    });
    if !is_kind {
        return Err(format!("invalid kind {:?}: vendor.com/class is expected", spec.kind));
    }
    if let Some(device) = spec.devices.iter().find(|own| own.name.is_empty() || own.name.contains('=')) {
        return Err(format!("invalid device name {:?}", device.name));
    }
    let all = spec.devices.iter().map(|own| &own.container_edits).chain([&spec.container_edits]);
    all.flat_map(|own| &own.env)
        .find(|own| !own.contains('='))
        .map_or(Ok(()), |own| Err(format!("invalid environment variable {own:?}")))
}

fn apply(config: &mut Value, edits: &Edits) -> std::result::Result<(), String> {
    if !edits.net_devices.is_empty() {
        return Err("network devices are not supported by this runtime".to_owned());
    }
    for variable in &edits.env {
        set_env(list(config, &["process", "env"]), variable);
    }
    for node in &edits.device_nodes {
        add_device(config, node)?;
    }
    for own in &edits.mounts {
        let mounts = list(config, &["mounts"]);
        // What is mounted there already is hidden; the new one takes its place.
        mounts.retain(|known| known["destination"].as_str() != Some(&own.container_path));
        mounts.push(mount(own));
    }
    if !edits.mounts.is_empty() {
        // A folder before what is mounted in it; otherwise as they came.
        let depth = |own: &Value| own["destination"].as_str().unwrap_or_default().matches('/').count();
        list(config, &["mounts"]).sort_by_key(depth);
    }
    for hook in &edits.hooks {
        let Some(name) = HOOKS.iter().find(|own| **own == hook.hook_name) else {
            return Err(format!("invalid hook name {:?}", hook.hook_name));
        };
        let mut own = json!({"path": hook.path});
        for (key, values) in [("args", &hook.args), ("env", &hook.env)] {
            if !values.is_empty() {
                own[key] = json!(values);
            }
        }
        if let Some(timeout) = hook.timeout {
            own["timeout"] = json!(timeout);
        }
        list(config, &["hooks", name]).push(own);
    }
    if let Some(rdt) = &edits.intel_rdt {
        config["linux"]["intelRdt"] = rdt.clone();
    }
    let groups = list(config, &["process", "user", "additionalGids"]);
    for group in edits.additional_gids.iter().filter(|group| **group != 0) {
        if !groups.contains(&json!(group)) {
            groups.push(json!(group));
        }
    }
    Ok(())
}

/// The list at a path, made where there is none.
fn list<'a>(config: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let place = path.iter().fold(config, |own, key| &mut own[*key]);
    if !place.is_array() {
        *place = json!([]);
    }
    place.as_array_mut().expect("it was made one")
}

fn set_env(env: &mut Vec<Value>, variable: &str) {
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    let own = name(variable);
    match env.iter_mut().find(|known| known.as_str().is_some_and(|known| name(known) == own)) {
        Some(known) => *known = json!(variable),
        None => env.push(json!(variable)),
    }
}

fn mount(own: &EditMount) -> Value {
    let mut options = own.options.clone();
    let is_bind = options.iter().any(|option| option == "bind" || option == "rbind");
    if matches!(own.r#type.as_str(), "" | "bind" | "none") && !is_bind {
        options.push("rbind".to_owned());
    }
    let kind = if own.r#type.is_empty() { "bind" } else { own.r#type.as_str() };
    json!({"source": own.host_path, "destination": own.container_path, "type": kind, "options": options})
}

fn add_device(config: &mut Value, node: &DeviceNode) -> std::result::Result<(), String> {
    let node = completed(node)?;
    let mut file = json!({"path": node.path, "type": node.r#type});
    let is_fifo = node.r#type == "p";
    if !is_fifo {
        (file["major"], file["minor"]) = (json!(node.major), json!(node.minor));
    }
    if let Some(mode) = node.file_mode {
        file["fileMode"] = json!(mode);
    }
    // Whoever runs as somebody else can use it, too.
    let of_process = |key: &str| config["process"]["user"][key].as_u64().filter(|own| *own > 0);
    let uid = node.uid.map(u64::from).or_else(|| of_process("uid"));
    let gid = node.gid.map(u64::from).or_else(|| of_process("gid"));
    for (key, id) in [("uid", uid), ("gid", gid)] {
        if let Some(id) = id {
            file[key] = json!(id);
        }
    }
    if has_own_users(config) {
        // There no file of a device can be made.
        let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
        list(config, &["mounts"]).push(super::oci::devices::bind(host, &node.path));
    } else {
        let files = list(config, &["linux", "devices"]);
        files.retain(|known| known["path"].as_str() != Some(&node.path));
        files.push(file);
    }
    if !is_fifo {
        let access = if node.permissions.is_empty() { "rwm" } else { node.permissions.as_str() };
        list(config, &["linux", "resources", "devices"]).push(json!({"allow": true, "type": node.r#type,
            "major": node.major, "minor": node.minor, "access": access}));
    }
    Ok(())
}

fn has_own_users(config: &Value) -> bool {
    let namespaces = config["linux"]["namespaces"].as_array();
    namespaces.is_some_and(|all| all.iter().any(|namespace| namespace["type"] == "user"))
}

/// With what the file does not say of a device, as the host has it.
fn completed(node: &DeviceNode) -> std::result::Result<DeviceNode, String> {
    let mut node = node.clone();
    let is_whole = match node.r#type.as_str() {
        "p" => true,
        "" => false,
        _ => node.major.is_some() && node.minor.is_some(),
    };
    if is_whole {
        return Ok(node);
    }
    let host = if node.host_path.is_empty() { node.path.as_str() } else { node.host_path.as_str() };
    let failed = |why: String| format!("failed to stat CDI host device {host:?}: {why}");
    let meta = std::fs::metadata(host).map_err(|error| failed(error.to_string()))?;
    let kind = meta.file_type();
    let found = match (kind.is_char_device(), kind.is_block_device(), kind.is_fifo()) {
        (true, _, _) => "c",
        (_, true, _) => "b",
        (_, _, true) => "p",
        _ => return Err(failed("it is no device".to_owned())),
    };
    let is_other = !matches!(node.r#type.as_str(), "" | "u") && node.r#type != found;
    if is_other {
        return Err(format!(
            "CDI device ({:?}, {host:?}), host type mismatch ({}, {found})",
            node.path, node.r#type
        ));
    }
    node.r#type = found.to_owned();
    node.major = Some(i64::from(major(meta.rdev())));
    node.minor = Some(i64::from(minor(meta.rdev())));
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        root: Utf8PathBuf,
        _folder: tempfile::TempDir,
    }

    impl World {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self { root, _folder: folder }
        }

        fn inject(&self, config: &mut Value, names: &[&str]) -> std::result::Result<(), String> {
            let names: Vec<String> = names.iter().map(|own| (*own).to_owned()).collect();
            let (first, second) = (self.root.join("etc"), self.root.join("run"));
            inject(config, &names, &[&first, &second]).map_err(|error| error.to_string())
        }
    }

    const WHOLE: &str = r#"
cdiVersion: "0.6.0"
kind: "example.com/gpu"
containerEdits:
  env: ["DRIVER=1", "PATH=/vendor/bin"]
  mounts:
  - {hostPath: /usr/lib/vendor, containerPath: /vendor, options: [ro, nosuid]}
  hooks:
  - {hookName: createContainer, path: /bin/true, args: ["true", update], timeout: 3}
devices:
- name: "0"
  containerEdits:
    env: ["GPU0=yes"]
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/null, permissions: rw}
    additionalGids: [44]
- name: "1"
  containerEdits:
    deviceNodes:
    - {path: /dev/gpu1, type: c, major: 1, minor: 7, fileMode: 438, uid: 0}
"#;

    fn config() -> Value {
        json!({"process": {"env": ["PATH=/bin", "A=b"], "user": {"uid": 7, "gid": 0, "additionalGids": [1]}},
            "mounts": [{"destination": "/proc"}, {"destination": "/vendor/own"}, {"destination": "/vendor"}],
            "linux": {"devices": [], "resources": {"devices": [{"allow": false}]}}})
    }

    #[test]
    fn a_container_gets_what_comes_with_its_devices() {
        let world = World::new(&[("etc/vendor.yaml", WHOLE)]);
        let mut made = config();
        world.inject(&mut made, &["example.com/gpu=0", "example.com/gpu=1"]).unwrap();
        assert_eq!(made["process"]["env"], json!(["PATH=/vendor/bin", "A=b", "DRIVER=1", "GPU0=yes"]));
        assert_eq!(made["process"]["user"]["additionalGids"], json!([1, 44]));
        assert_eq!(
            made["mounts"],
            json!([{"destination": "/proc"},
                {"source": "/usr/lib/vendor", "destination": "/vendor", "type": "bind",
                    "options": ["ro", "nosuid", "rbind"]},
                {"destination": "/vendor/own"}])
        );
        assert_eq!(
            made["linux"]["devices"],
            json!([{"path": "/dev/gpu0", "type": "c", "major": 1, "minor": 3, "uid": 7},
                {"path": "/dev/gpu1", "type": "c", "major": 1, "minor": 7, "fileMode": 438, "uid": 0}])
        );
        assert_eq!(
            made["linux"]["resources"]["devices"],
            json!([{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
                {"allow": true, "type": "c", "major": 1, "minor": 7, "access": "rwm"}])
        );
        assert_eq!(
            made["hooks"],
            json!({"createContainer": [{"path": "/bin/true", "args": ["true", "update"], "timeout": 3}]}),
            "once for both"
        );
    }

    #[test]
    fn a_later_folder_wins_and_two_of_one_folder_do_not() {
        let spec = |value: &str| {
            let edits = json!({"env": [format!("V={value}")]});
            json!({"cdiVersion": "1.0.0", "kind": "a.com/b", "devices": [{"name": "x", "containerEdits": edits}]})
                .to_string()
        };
        let (one, two, three) = (spec("1"), spec("2"), spec("3"));
        let injected = |files: &[(&str, &str)]| {
            let mut made = config();
            World::new(files).inject(&mut made, &["a.com/b=x"]).map(|()| made["process"]["env"][2].clone())
        };
        assert_eq!(injected(&[("etc/a.json", &one)]), Ok(json!("V=1")));
        assert_eq!(injected(&[("etc/a.json", &one), ("run/a.json", &two)]), Ok(json!("V=2")));
        let unresolved = Err("CDI device injection failed: unresolvable CDI devices a.com/b=x".to_owned());
        assert_eq!(injected(&[("etc/a.json", &one), ("etc/b.json", &two)]), unresolved);
        assert_eq!(injected(&[("etc/a.json", &one), ("etc/b.json", &two), ("etc/c.json", &one)]), unresolved);
        let above = [("etc/a.json", &*one), ("etc/b.json", &*two), ("run/a.json", &*three)];
        assert_eq!(injected(&above), Ok(json!("V=3")));
        assert_eq!(injected(&[("etc/a.txt", &one)]), unresolved);
        assert_eq!(injected(&[("etc/bad.json", "{"), ("etc/a.json", &one)]), Ok(json!("V=1")));
    }

    #[test]
    fn files_that_cannot_be_meant_are_left_out() {
        let spec = |version: &str, kind: &str, name: &str, env: &str| Spec {
            cdi_version: version.into(),
            kind: kind.into(),
            devices: vec![SpecDevice { name: name.into(), ..SpecDevice::default() }],
            container_edits: Edits { env: vec![env.into()], ..Edits::default() },
        };
        check(&spec("0.3.0", "a.com/b", "x", "A=")).unwrap();
        for bad in [
            spec("2.0.0", "a.com/b", "x", "A="),
            spec("", "a.com/b", "x", "A="),
            spec("0.3.0", "b", "x", "A="),
            spec("0.3.0", "a.com/b", "", "A="),
            spec("0.3.0", "a.com/b", "x", "A"),
        ] {
            check(&bad).unwrap_err();
        }
        let mut edits = Edits { net_devices: vec![json!({})], ..Edits::default() };
        apply(&mut config(), &edits).unwrap_err();
        edits = Edits {
            hooks: vec![Hook { hook_name: "sometime".into(), ..Hook::default() }],
            ..Edits::default()
        };
        apply(&mut config(), &edits).unwrap_err();
        let missing = DeviceNode { path: "/dev/absent".into(), ..DeviceNode::default() };
        let found = completed(&missing).unwrap_err();
        assert!(found.starts_with("failed to stat CDI host device \"/dev/absent\""), "{found}");
        let other = DeviceNode { path: "/dev/null".into(), r#type: "b".into(), ..DeviceNode::default() };
        completed(&other).unwrap_err();
    }

    #[test]
    fn devices_of_a_pod_with_its_own_users_are_the_hosts_files() {
        let world = World::new(&[("etc/gpu.yaml", WHOLE)]);
        let mut config = config();
        config["linux"]["namespaces"] = json!([{"type": "user", "path": "/state/user"}]);
        world.inject(&mut config, &["example.com/gpu=0", "example.com/gpu=1"]).unwrap();
        assert_eq!(config["linux"]["devices"], json!([]));
        let mounts = config["mounts"].as_array().unwrap();
        let bound = |path: &str| mounts.iter().find(|own| own["destination"] == path).unwrap();
        assert_eq!(bound("/dev/gpu0")["source"], "/dev/null");
        assert_eq!(bound("/dev/gpu1")["source"], "/dev/gpu1");
        let rules = config["linux"]["resources"]["devices"].as_array().unwrap();
        assert_eq!(rules.len(), 3, "what may be used is told all the same");
    }
}
